"""LoRA on the text encoder: adapt a trained detector's language, and nothing else (Hu et al., ICLR 2022)."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from .files import read_record, whole_file

# projections of self-attention as transformers' text encoders call them
_PROJECTIONS = (
    "query", "key", "value", "attention.output.dense",  # BERT, RoBERTa, XLM-R, ELECTRA
    "q_proj", "k_proj", "v_proj", "out_proj", "o_proj",  # CLIP, SigLIP, Llama-like encoders
    "q_lin", "k_lin", "v_lin", "out_lin",  # DistilBERT
    "query_proj", "key_proj", "value_proj",  # DeBERTa
    "attn.q", "attn.k", "attn.v", "attn.o", "SelfAttention.q", "SelfAttention.k", "SelfAttention.v",
    "SelfAttention.o",  # MPNet, T5
    "Wqkv", "attn.Wo",  # ModernBERT
)  # fmt: skip
# anchored at the tower: HiVA's own attention and many vision towers call their layers q_proj, too
BASE_FILE = "adapter_base.json"
CALIBRATION_FILE = "adapter_calibration.json"
_WEIGHTS = "adapter_model.safetensors"
_CALIBRATION = ("calibration_temperatures", "calibration_biases")
# an intensity is at most that, and a probability is less
_MOST = 5
_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision")
TEXT_TARGETS = r"(hiva\.)?text_model\.(.*\.)?(" + "|".join(name.replace(".", r"\.") for name in _PROJECTIONS) + ")"


def text_lora_config(
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    *,
    dora: bool = False,
    rslora: bool = False,
    **changes: Any,
):
    """Configuration of LoRA on the attention of the text tower, whatever encoder it is.

    Args:
        rank (`int`, defaults to 8): Rank of the update.
        alpha (`float`, *optional*): Its scale times the rank; by default twice the rank.
        dropout (`float`, defaults to 0): On the input of the update.
        dora (`bool`, defaults to `False`): Learn a magnitude apart from the direction (Liu et al., ICML 2024).
        rslora (`bool`, defaults to `False`): Scale by the root of the rank (Kalajdzievski, 2023).
        changes: Further fields of `peft.LoraConfig`.

    Returns:
        `peft.LoraConfig`

    Raises:
        ValueError: If the rank is less than 1.
    """
    from peft import LoraConfig

    if rank < 1:
        raise ValueError(f"`rank` must be at least 1; got {rank}.")
    fields: dict[str, Any] = {
        "r": rank,
        "lora_alpha": 2 * rank if alpha is None else alpha,
        "lora_dropout": dropout,
        "use_dora": dora,
        "use_rslora": rslora,
        "target_modules": TEXT_TARGETS,
    }
    return LoraConfig(**{**fields, **changes})


def add_text_lora(model: PreTrainedModel, config=None):
    """A detector whose text tower is adapted by LoRA, and whose other weights are frozen.

    It trains with [`build_trainer`] and the stock Trainer; `save_pretrained` writes the adapter alone, with a record of
    the base that [`load_adapter`] looks at, and `merge_and_unload()` gives an ordinary detector, which can be folded.

    Args:
        model (`HiVAForImageClassification`): A trained detector with a text tower; changed in place.
        config (`peft.LoraConfig`, *optional*): By default [`text_lora_config`].

    Returns:
        `peft.PeftModel`

    Raises:
        ValueError: If the model has no text tower, or nothing in it is adapted.
    """
    from peft import get_peft_model

    if model.base_model.text_model is None:
        raise ValueError(
            "LoRA adapts the text tower; this model has none, it is folded or visual only. Use the unfolded checkpoint."
        )
    try:
        adapted = get_peft_model(model, config or text_lora_config())
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        kind = type(model.base_model.text_model).__name__
        raise ValueError(
            f"LoRA must find attention projections in the text tower; {kind} calls them otherwise. Give "
            "`text_lora_config(target_modules=...)` with a pattern that begins with text_model."
        ) from None
    adapted.__class__ = _recording()
    return adapted


@cache
def _recording() -> type:
    """`PeftModel` whose adapter is saved with a record of its base; made once peft is needed."""
    from peft import PeftModel

    class PeftModelWithBase(PeftModel):
        """An adapted detector."""

        def save_pretrained(self, save_directory, *args, is_main_process: bool = True, **kwargs):
            super().save_pretrained(save_directory, *args, is_main_process=is_main_process, **kwargs)
            if is_main_process:
                with whole_file(Path(save_directory) / BASE_FILE) as partial:
                    partial.write_text(json.dumps(base_record(self.config), indent=2) + "\n", encoding="utf-8")

    return PeftModelWithBase


def base_record(config) -> dict:
    """What an adapter relies on in its base.

    Args:
        config (`HiVAConfig`): Of the base.

    Returns:
        `dict`: `text_tower` (type, width, layers and vocabulary), `action_units`, and `descriptions`, the identifier of
        the bank that was read.
    """
    text = config.text_config
    tower = None if config.text_folded or text is None else {
        name: getattr(text, name, None) for name in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
    }  # fmt: skip
    return {"text_tower": tower, "action_units": config.au_names, "descriptions": config.description_bank}


def adapter_misfit(model: PreTrainedModel, adapter: str | Path, **hub: Any) -> str | None:
    """Why an adapter does not belong to a detector: its text tower, its action units or its descriptions are others.

    Args:
        model (`HiVAForImageClassification`): The base.
        adapter (`str` or `Path`): Folder of the adapter, or its Hub id. One without a record of its base, as peft alone
            writes it, is known by the names and shapes of its weights.
        hub: `revision`, `token`, `cache_dir` and others for the Hub.

    Returns:
        `str`: What it was trained on and what is here; `None` where it belongs to it.

    Raises:
        ValueError: If its weights are no whole safetensors file.
        OSError: If it cannot be found.
    """
    place = cached_file(str(adapter), BASE_FILE, _raise_exceptions_for_missing_entries=False, **hub)
    stored, here = {} if place is None else read_record(Path(place)), base_record(model.config)
    for key, what, shown in (
        ("text_tower", "", tower_text),
        ("action_units", "the action units ", ", ".join),
        ("descriptions", "the descriptions ", str),
    ):
        if key in stored and stored[key] != here[key]:
            return f"it was trained on {what}{_shown(stored[key], shown)}, and this base has {_shown(here[key], shown)}"
    weight = _misfit(model, str(cached_file(str(adapter), _WEIGHTS, **hub)))
    if weight is None:
        return None
    return f"it holds {weight}, and this base has {_shown(here['text_tower'], tower_text)}"


def _shown(value: Any, show) -> str:
    if value is None:
        return "no text encoder" if show is tower_text else "none"
    try:
        return show(value)
    except (TypeError, AttributeError):
        return str(value)


def tower_text(tower: dict) -> str:
    """A `text_tower` of [`base_record`] as text."""
    width, layers = tower.get("hidden_size"), tower.get("num_hidden_layers")
    kind, tokens = tower.get("model_type"), tower.get("vocab_size")
    return f"a text encoder of type {kind}, width {width}, {layers} layers and {tokens} tokens"


def _misfit(model: PreTrainedModel, file: str) -> str | None:
    """A weight of an adapter for which a model has no place."""
    modules = dict(model.named_modules())
    try:
        with safe_open(file, framework="pt") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} must be a whole safetensors file; {error}. Copy the adapter anew.") from None
    for name, shape in shapes.items():
        path, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        adapted = getattr(modules.get(path), "weight", None)
        # the input of A, the output of B and of DoRA's magnitude
        side = None if adapted is None else adapted.shape[1] if part.startswith("A.") else adapted.shape[0]
        if side is None or (shape[-1] if part.startswith("A.") else shape[0]) != side:
            return f"{name} of shape {tuple(shape)}"
    return None


def calibration_record(config: dict, thresholds: dict[str, float] | None) -> dict:
    """What a detector with an adapter was given after its training, as `adapter_calibration.json` holds it.

    Args:
        config (`dict`): Content of the `config.json` of the merged detector.
        thresholds (`dict[str, float]`, *optional*): Of its processor.

    Returns:
        `dict`: `calibration_temperatures`, `calibration_biases` and `thresholds`; None where there was none of it.
    """
    return {**{name: config.get(name) for name in _CALIBRATION}, "thresholds": thresholds}


def _checked_calibration(config, file: Path) -> dict:
    """A record of [`calibration_record`] that fits a configuration."""
    stored, fitted = read_record(file), copy.copy(config)
    try:
        if missing := {*_CALIBRATION, "thresholds"} - stored.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}.")
        for name in _CALIBRATION:
            setattr(fitted, name, stored[name])
        fitted.validate_calibration()
        for label, value in (stored["thresholds"] or {}).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if label not in config.au_names or not number or not 0 <= value <= _MOST:
                raise ValueError(f"{label} with {value!r} is none.")
    except (StrictDataclassError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file.name} must hold temperatures above 0, biases and thresholds of 0 to {_MOST} of the action units of "
            f"its base; {' '.join(str(error).split())} Push the adapter anew."
        ) from None
    return calibration_record(stored, stored["thresholds"])


def load_adapter(model: PreTrainedModel, adapter: str | Path, processor=None, **kwargs: Any):
    """A detector with an adapter that was trained on it, once that is seen to be so.

    Where the adapter brings a calibration, `adapter_calibration.json`, it takes the place of that of the base: the
    probabilities are then those that its card tells the figures of.

    Args:
        model (`HiVAForImageClassification`): The base, not folded; changed in place.
        adapter (`str` or `Path`): Folder of the adapter, or its Hub id.
        processor ([`HiVAProcessor`], *optional*): That of the base; gets the thresholds of the adapter.
        kwargs: Passed to `PeftModel.from_pretrained`, `revision` and `token` among them.

    Returns:
        `peft.PeftModel`; its `merge_and_unload()` gives an ordinary detector.

    Raises:
        ValueError: If it belongs to another base, or its calibration is none.
        OSError: If it cannot be found.
    """
    from peft import PeftModel

    hub = {name: kwargs[name] for name in _HUB if name in kwargs}
    first = str(cached_file(str(adapter), "adapter_config.json", **hub))
    # all files of one commit: what is checked is what is loaded, though somebody pushes in between
    commit = None if Path(adapter).exists() else extract_commit_hash(first, None)
    if commit is not None:
        hub["revision"] = kwargs["revision"] = commit
    told = read_record(Path(first))
    if misfit := adapter_misfit(model, adapter, **hub):
        base = told.get("base_model_name_or_path")
        raise ValueError(
            f"`adapter` must belong to this base, and {adapter} does not: {misfit}. Load the base that it was trained "
            f"on{f', {base}' if base else ''}, or train an adapter on this one."
        )
    place = cached_file(str(adapter), CALIBRATION_FILE, _raise_exceptions_for_missing_entries=False, **hub)
    calibration = None if place is None else _checked_calibration(model.config, Path(place))
    adapted = PeftModel.from_pretrained(model, str(adapter), **kwargs)
    if calibration is not None:
        for name in _CALIBRATION:
            setattr(model.config, name, calibration[name])
        if processor is not None:
            processor.thresholds = calibration["thresholds"]
    return adapted


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter in place of a whole detector."""
    return (Path(folder) / "adapter_config.json").is_file()


__all__ = [
    "BASE_FILE",
    "CALIBRATION_FILE",
    "TEXT_TARGETS",
    "adapter_misfit",
    "add_text_lora",
    "base_record",
    "calibration_record",
    "is_adapter",
    "load_adapter",
    "text_lora_config",
    "tower_text",
]
