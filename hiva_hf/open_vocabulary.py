"""Action units that no training label named, asked for by their descriptions."""

import copy
from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import torch

from .facs import au_label, au_meaning
from .modeling_hiva import HiVAForImageClassification
from .processing_hiva import HiVAProcessor, bank_identifier

# cosine of what an encoder says now and what is stored of it; another encoder is far below
_SAME = 0.99


def add_action_units(
    model: HiVAForImageClassification,
    processor: HiVAProcessor,
    descriptions: Mapping[str, str | Sequence[str]],
    text_encoder: str | None = None,
) -> tuple[HiVAForImageClassification, HiVAProcessor]:
    """A detector that also answers for action units it was never trained on, from what is said of them.

    The new ones come behind the trained ones in the logits, and the detector is one like any other: it predicts, saves,
    and trains on labels of all of them. Action units give each other context, so the scores of the trained ones move a
    little. How far such a score can be trusted is for you to measure: `examples/measure_open_vocabulary.py` tells what
    was found on rendered faces. It is not calibrated.

    Args:
        model (`HiVAForImageClassification`): Trained with `au_projection="text"` and `head="similarity"`.
        processor (`HiVAProcessor`): Its processor.
        descriptions (`Mapping[str, str | Sequence[str]]`): Sentences by action unit, at most as many as the model has
            of each. Fewer are repeated in their order up to that many: of a number that does not divide it the first
            ones weigh more.
        text_encoder (`str`, *optional*): Hub id or folder of the sentence encoder, where the model is folded; by
            default the one that its configuration names.

    Returns:
        `tuple`: A new [`HiVAForImageClassification`] in evaluation mode, and its [`HiVAProcessor`].

    Raises:
        ValueError: If weights of the model are tied to its action units, one is unknown or known already, it has no or
            too many sentences, or the encoder is not the one that the model was trained with.

    Example:
    ```python
    >>> from hiva_hf import hiva_small_text
    >>> from hiva_hf.open_vocabulary import add_action_units

    >>> model, processor = hiva_small_text(["AU1", "AU25"], au_projection="text")
    >>> model, processor = add_action_units(model, processor, {"AU27": "The mouth is stretched wide open."})
    >>> model.config.au_names
    ['AU1', 'AU25', 'AU27']

    ```
    """
    config = model.config
    if text_encoder is not None and model.hiva.text_model is not None:
        raise ValueError(
            f"`text_encoder` must be left out for a model with a text tower, which reads itself; got {text_encoder}."
        )
    if not config.open_vocabulary:
        raise ValueError(
            "This model answers for the action units of its training alone; one of `hiva train --open-vocabulary` can "
            'be asked for others. That is au_projection="text" and head="similarity"; got '
            f"{config.au_projection!r} and {config.head!r}."
        )
    if not processor.description_bank:
        raise ValueError("`processor` must hold the descriptions of the trained action units; got one without a bank.")
    texts = _checked(descriptions, config.au_names, config.num_descriptions)
    bank = _extended(processor.description_bank, texts)
    if model.hiva.text_model is None:
        text_embeds = _embed(model, processor.description_bank, texts, text_encoder)
    model = copy.deepcopy(model)
    model.config.id2label = dict(enumerate([*config.au_names, *texts]))
    model.config.label2id = {name: index for index, name in model.config.id2label.items()}
    for name, neutral in {"calibration_temperatures": 1.0, "calibration_biases": 0.0, "label_weights": 1.0}.items():
        if getattr(config, name) is not None:
            setattr(model.config, name, [*getattr(config, name), *[neutral] * len(texts)])
    tokenizer = getattr(processor, "tokenizer", None)
    processor = HiVAProcessor(
        processor.image_processor,
        tokenizer,
        bank,
        thresholds=processor.thresholds,
        labels=model.config.au_names,
        problem_type=processor.problem_type,
    )
    # the bank grows by what is asked for; that is no reason to warn of another one
    model.config.description_bank = bank_identifier(bank)
    if model.hiva.text_model is None:
        model.set_text_embeds(torch.cat((model.hiva.text_embeds, text_embeds.to(model.hiva.text_embeds))))
    else:
        model.set_descriptions(**processor.tokenize_descriptions(num_descriptions=config.num_descriptions))
    return model.eval(), processor


def _checked(descriptions: Mapping[str, str | Sequence[str]], known: list[str], most: int) -> dict[str, list[str]]:
    """As many sentences of each action unit as the model has of those it knows."""
    if not descriptions:
        raise ValueError("`descriptions` must name at least one action unit; got none.")
    texts = {}
    for au, given in descriptions.items():
        label, sentences = au_label(au), [given] if isinstance(given, str) else list(given)
        if label in known or label in texts:
            raise ValueError(
                f"`descriptions` must name other action units than the model has, and each once; got {au}. "
                f"It has {', '.join(known)}."
            )
        if not all(isinstance(text, str) and text.strip() for text in sentences) or not 1 <= len(sentences) <= most:
            raise ValueError(f"`descriptions` must give {label} 1 to {most} sentences; got {sentences!r}.")
        texts[label] = list(islice(cycle(text.strip() for text in sentences), most))
    return texts


def _extended(bank: dict, texts: Mapping[str, list[str]]) -> dict:
    """A bank with further action units, and with a word of who described them."""
    added = {
        label: {"name": au_meaning(label), "descriptions": [{"aspect": "given", "text": text} for text in sentences]}
        for label, sentences in texts.items()
    }
    told = f"{', '.join(texts)}: given by the user"
    provenance = {**bank.get("provenance", {}), "added": "; ".join(filter(None, (_added(bank), told)))}
    name = bank.get("bank_id", "custom").removesuffix("+added")
    return {
        **bank,
        "bank_id": f"{name}+added",
        "provenance": provenance,
        "descriptions": {**bank["descriptions"], **added},
    }


def _added(bank: dict) -> str:
    return bank.get("provenance", {}).get("added", "")


def _embed(
    model: HiVAForImageClassification, bank: dict, texts: Mapping[str, list[str]], encoder: str | None
) -> torch.Tensor:
    """By the sentence encoder of a folded model, once it is seen to be that."""
    from .descriptions import SentenceEncoder

    name = encoder or model.config.text_encoder
    if name is None:
        raise ValueError(
            "A folded model needs `text_encoder` to read new descriptions; got none, and its configuration names none. "
            "Was it folded from a text tower of its own? Then use the unfolded checkpoint."
        )
    try:
        embed = SentenceEncoder(name)
    except OSError as error:
        raise OSError(
            f"`text_encoder` must be the sentence encoder of the model's descriptions, a folder or a Hub id; {name} "
            f"cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    width, stored = model.config.text_embed_dim, model.hiva.text_embeds[0].float().cpu()
    first = model.config.au_names[0]
    told = [item["text"] for item in bank["descriptions"][first]["descriptions"]]
    again = embed(told[: len(stored)])
    if again.shape != stored.shape or torch.cosine_similarity(again, stored).min() < _SAME:
        raise ValueError(
            f"`text_encoder` must be the encoder that made the model's embeddings, of width {width}; {name} gives "
            f"others for the descriptions of {first}. Was the model folded from a text tower that was trained? Then "
            "use the unfolded checkpoint."
        )
    return torch.stack([embed(sentences) for sentences in texts.values()])


__all__ = ["add_action_units"]
