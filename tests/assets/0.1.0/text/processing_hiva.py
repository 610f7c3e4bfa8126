"""HiVA processor: image processor, tokenizer, and the AU descriptions a checkpoint was made with."""

import hashlib
import json
import math

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.utils import cached_file


def bank_identifier(bank: dict) -> str:
    """Name of a description bank and 16 hexadecimal digits of the SHA-256 of its descriptions.

    Args:
        bank (`dict`): Content of a description bank.
    """
    text = json.dumps(bank.get("descriptions", {}), sort_keys=True, ensure_ascii=False)
    return f"{bank.get('bank_id', 'custom')}@{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _check_types(bank, thresholds, labels, problem_type) -> None:
    """What a `processor_config.json` can hold in place of what belongs there."""
    if not isinstance(bank, dict | None):
        raise ValueError(f"`description_bank` must be the content of a description bank; got {type(bank).__name__}.")
    entries = (bank or {}).get("descriptions", {})
    for label, entry in entries.items() if isinstance(entries, dict) else [("descriptions", None)]:
        told = entry.get("descriptions") if isinstance(entry, dict) else None
        if not isinstance(told, list) or not all(
            isinstance(item, dict) and _is_text(item.get("text")) for item in told
        ):
            raise ValueError(
                "`description_bank` must give each action unit a list of descriptions with their text; that of "
                f"{label} is none. See `hiva bank validate`."
            )
    values = thresholds.values() if isinstance(thresholds, dict) else () if thresholds is None else [thresholds]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"`thresholds` must be finite numbers by action unit; got {value!r}.")
    if labels is not None and not (isinstance(labels, list | tuple) and all(map(_is_text, labels))):
        raise ValueError(f"`labels` must be a list of names of action units; got {labels!r}.")
    if problem_type not in (None, "multi_label_classification", "regression"):
        raise ValueError(
            "`problem_type` must be 'multi_label_classification' (occurrence) or 'regression' (intensity); "
            f"got {problem_type!r}."
        )


def _is_text(value) -> bool:
    return isinstance(value, str) and bool(value.strip())


class HiVAProcessor(ProcessorMixin):
    r"""Pictures in, `pixel_values` out; logits in, action units by name out; descriptions in, token ids out.

    `processor_config.json` holds the description bank as it is, for a person to read.

    Args:
        image_processor (`HiVAImageProcessor` or `HiVAImageProcessorPil`): For the pictures.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): For the descriptions; a folded checkpoint needs none.
        description_bank (`dict`, *optional*): Content of a description bank.
        thresholds (`dict[str, float]`, *optional*): Probability from which an AU counts as active; 0.5 where not given.
        labels (`list[str]`, *optional*):
            Names of the action units, in the order of the logits; by default those of the bank, in its order. Kept
            apart from the bank, because a saved JSON object has its keys sorted.
        problem_type (`str`, *optional*):
            As in [`HiVAConfig`]; with `"regression"`, `post_process` gives intensities. By default occurrence.

    Raises:
        ValueError: If the bank lacks descriptions of an AU, `thresholds` names an AU that is not in `labels`, or an
            argument is of another type.
    """

    _auto_class = "AutoProcessor"

    def __init__(
        self,
        image_processor,
        tokenizer=None,
        description_bank=None,
        thresholds=None,
        labels=None,
        problem_type=None,
    ):
        # a folded checkpoint has no tokenizer: the mixin then knows of the image processor alone
        if tokenizer is None:
            self.get_attributes = self._attributes_without_tokenizer
            super().__init__(image_processor)
        else:
            super().__init__(image_processor, tokenizer)
        _check_types(description_bank, thresholds, labels, problem_type)
        self.description_bank = description_bank
        self.labels = list((description_bank or {}).get("descriptions", {})) if labels is None else list(labels)
        self.thresholds = thresholds
        self.problem_type = problem_type
        self._check_bank()
        # set here, not by saving: a reloaded processor equals the one that was saved
        self.auto_map = {"AutoProcessor": "processing_hiva.HiVAProcessor"}

    @classmethod
    def _attributes_without_tokenizer(cls) -> list[str]:
        return ["image_processor"]

    @classmethod
    def _load_tokenizer_from_pretrained(cls, sub_processor_type, pretrained_model_name_or_path, subfolder="", **kwargs):
        names = ("cache_dir", "force_download", "local_files_only", "token", "revision")
        stored = cached_file(
            pretrained_model_name_or_path,
            "tokenizer_config.json",
            subfolder=subfolder,
            _raise_exceptions_for_missing_entries=False,
            **{name: kwargs[name] for name in names if name in kwargs},
        )
        if stored is None:
            return None
        return super()._load_tokenizer_from_pretrained(
            sub_processor_type, pretrained_model_name_or_path, subfolder=subfolder, **kwargs
        )

    def _check_bank(self) -> None:
        known = (self.description_bank or {}).get("descriptions", {})
        for label in self.labels if self.description_bank else ():
            if not known.get(label, {}).get("descriptions"):
                raise ValueError(
                    f"`description_bank` must give {label} at least one description; got none. "
                    f"It describes {', '.join(known) or 'no action unit'}."
                )
        if self.thresholds and self.labels:
            self.limits(self.labels)

    def _require_tokenizer(self, what: str) -> None:
        if getattr(self, "tokenizer", None) is None:
            raise ValueError(
                f"{what} needs a tokenizer; this processor belongs to a folded model and has none. "
                "Use the processor of the unfolded checkpoint."
            )

    def _descriptions(self) -> dict[str, list[str]]:
        """Texts by action unit, in the order of `labels`."""
        if not self.description_bank:
            return {}
        known = self.description_bank["descriptions"]
        return {label: [item["text"] for item in known[label]["descriptions"]] for label in self.labels}

    @property
    def id2label(self) -> dict[int, str]:
        """`dict[int, str]`: As a configuration wants it."""
        return dict(enumerate(self.labels))

    def __call__(self, images=None, text=None, descriptions=None, **kwargs) -> BatchFeature:
        """Prepare pictures, and descriptions where given.

        Args:
            images (*optional*): A picture or a list of them; see [`HiVAImageProcessorPil`].
            text (`str` or `list[str]`, *optional*): Sentences to tokenise as they are.
            descriptions (`dict[str, list[str]]`, *optional*):
                Descriptions by AU, the same number for each, in place of the stored ones.
            kwargs: For the image processor or the tokenizer, `return_tensors` among them.

        Returns:
            `BatchFeature` with `pixel_values` (batch_size, 3, height, width), and with `descriptions` also `input_ids`
            and `attention_mask` (num_labels, num_descriptions, length).
        """
        if images is None and text is None and descriptions is None:
            raise ValueError("The processor needs `images`, `text` or `descriptions`; got none of them.")
        if text is not None:
            self._require_tokenizer("`text`")
        features = BatchFeature()
        if images is not None or text is not None:
            features = super().__call__(images=images, text=text, **kwargs)
        if descriptions is not None:
            features.update(self.tokenize_descriptions(descriptions))
        return features

    def tokenize_descriptions(
        self,
        descriptions: dict[str, list[str]] | None = None,
        num_descriptions: int | None = None,
        max_length: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Token ids for `model.set_descriptions(**...)`.

        Args:
            descriptions (`dict[str, list[str]]`, *optional*): Texts by AU; by default those of the bank.
            num_descriptions (`int`, *optional*): How many an AU; by default as many as the AU with the fewest has.
            max_length (`int`, *optional*): Cut longer texts; by default at what the tokenizer allows.

        Returns:
            `dict` with `input_ids` and `attention_mask` of shape (num_labels, num_descriptions, length), and for the
            bank's own descriptions `bank`, its identifier.

        Raises:
            ValueError: If there is no tokenizer or no description, or an AU has fewer than asked for.
        """
        self._require_tokenizer("`tokenize_descriptions`")
        stored = descriptions is None
        if stored:
            descriptions = self._descriptions()
        single = [label for label, texts in (descriptions or {}).items() if isinstance(texts, str)]
        if single:
            raise ValueError(
                f"`descriptions` must give a list of sentences for each action unit; got one string for "
                f"{', '.join(single)}. Put it into a list."
            )
        if not descriptions:
            raise ValueError("`descriptions` must name at least one action unit; got none, and there is no bank.")
        fewest = min(descriptions, key=lambda label: len(descriptions[label]))
        count = len(descriptions[fewest]) if num_descriptions is None else num_descriptions
        if not 1 <= count <= len(descriptions[fewest]):
            raise ValueError(
                f"`num_descriptions` must lie in 1 to {len(descriptions[fewest])}, which is what {fewest} has; "
                f"got {count}."
            )
        texts = [text for group in descriptions.values() for text in group[:count]]
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        shape = (len(descriptions), count)
        result = {name: tokens[name].unflatten(0, shape) for name in ("input_ids", "attention_mask")}
        if stored:
            result["bank"] = bank_identifier(self.description_bank)
        return result

    def post_process(
        self,
        outputs,
        thresholds: float | dict[str, float] | None = None,
        active_only: bool = False,
        labels: list[str] | None = None,
    ) -> list[dict[str, float]]:
        """Name what the model found.

        Args:
            outputs (`HiVAForImageClassificationOutput` or `torch.Tensor` of shape `(batch_size, num_labels)`):
                Output of the model, or its logits, before the sigmoid.
            thresholds (`float` or `dict[str, float]`, *optional*):
                Probability from which an AU counts as active; by default those of the processor, else 0.5. Of an
                intensity model an intensity, else 2 (the field's rule for DISFA).
            active_only (`bool`, defaults to `False`): Leave out the AUs below their threshold.
            labels (`list[str]`, *optional*): Names of the columns; by default the AUs of the bank.

        Returns:
            `list[dict[str, float]]`: Probability by AU, one dictionary an image: `{"AU12": 0.97, ...}`; of an
            intensity model intensities 0-5.

        Raises:
            ValueError: If the logits do not fit the names, or `thresholds` names an unknown AU.
        """
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
        labels = self.labels if labels is None else list(labels)
        if logits.ndim != 2 or logits.shape[1] != len(labels):
            raise ValueError(
                f"`outputs` must hold logits of shape (batch_size, {len(labels)}), one column for each of "
                f"{', '.join(labels) or 'no action unit'}; got {tuple(logits.shape)}."
            )
        chosen = self.limits(labels, thresholds)
        scores = logits.detach().float().cpu().numpy()
        if self.problem_type == "regression":
            scores = scores.clip(0, 5)
        else:
            # written as in the pipelines of transformers, which give the same answer to the last digit
            with np.errstate(over="ignore"):
                scores = 1.0 / (1.0 + np.exp(-scores))
        return [
            {
                label: score
                for label, score in zip(labels, row, strict=True)
                if not active_only or score >= chosen[label]
            }
            for row in scores.tolist()
        ]

    def limits(self, labels: list[str], thresholds: float | dict[str, float] | None = None) -> dict[str, float]:
        """From what score each AU counts as active.

        Args:
            labels (`list[str]`): AUs of the model.
            thresholds (`float` or `dict[str, float]`, *optional*): As in [`HiVAProcessor.post_process`].

        Raises:
            ValueError: If `thresholds` names an unknown AU.
        """
        if thresholds is None:
            thresholds = self.thresholds or {}
        if not isinstance(thresholds, dict):
            return dict.fromkeys(labels, float(thresholds))
        unknown = sorted(set(thresholds) - set(labels))
        if unknown:
            raise ValueError(
                f"`thresholds` must name action units of the model; got {', '.join(unknown)}. "
                f"Known: {', '.join(labels)}."
            )
        default = 2.0 if self.problem_type == "regression" else 0.5
        return {label: thresholds.get(label, default) for label in labels}


__all__ = ["HiVAProcessor", "bank_identifier"]
