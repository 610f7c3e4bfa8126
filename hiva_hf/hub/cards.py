"""Cards of models, adapters and datasets, filled from what was measured; the texts lie in `hub_cards`."""

import re
import textwrap
from numbers import Real
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData, SpaceCard

from ..descriptions import load_bank
from ..lora import BASE_FILE, CALIBRATION_FILE, tower_text
from .described import column_table, label_table, made_of
from .measured import (
    MISSING,
    RENDERED,
    card_file,
    cost_of,
    dataset_names,
    evaluations,
    metric_table,
    other_rows,
    protocol_of,
    record,
    training_of,
)
from .parquet import ParquetFolder
from .remarks import alignment_of_crops, calibration_of, group_table, near_chance
from .sources import consent_of, joined_names, terms_of

_TAGS = ["facial-action-units", "face", "hiva"]
# of a bank what a reader needs
_PROVENANCE = ("generator", "revision", "date", "prompt_version", "sources", "review")
_BY_PEFT = re.compile(r"### Framework versions|- PEFT \S+|")
BLANK = "[More Information Needed]"
# without these a reader cannot judge whether to use it
_SECTIONS = {
    "model": ("Use", "Results", "Training", "Intended use", "Limits", "Bias", "Consent"),
    "adapter": ("Use", "Training", "Results", "Limits", "Consent"),
    "space": (),
    "dataset": ("Columns", "How it was made", "Terms", "People"),
}


def model_card(
    folder: str | Path,
    repo_id: str,
    license: str | None = None,
    datasets: list[str] | None = None,
    loaded: tuple | None = None,
) -> ModelCard:
    """The card of a detector.

    Args:
        folder (`str` or `Path`): Of the checkpoint; `results.json` tells what was measured.
        repo_id (`str`): Where it will lie, `org/name`.
        license (`str`, *optional*): Of the weights, an identifier of the Hub such as `apache-2.0`. What the terms of
            the data allow is for you to say; without one the card is not complete.
        datasets (`list[str]`, *optional*): What it was trained on, where the data itself does not say.
        loaded (`tuple`, *optional*): Model and processor of the folder, where they are loaded already.

    Returns:
        `huggingface_hub.ModelCard`; what is not known stands there as not measured or not told.
    """
    from ..checkpoint import load_detector

    folder = Path(folder)
    model, processor = loaded or load_detector(folder)
    results, labels = record(folder, "results.json"), model.config.au_names
    names, base = joined_names(dataset_names(results), datasets), results.get("checkpoint")
    title = repo_id.rsplit("/", 1)[-1]
    figures = evaluations(results, labels, ", ".join(names) or "unnamed faces")
    # a saved folder carries its code; one without is for who has this package
    code = "auto_map" in record(folder, "config.json")
    data = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=[*_TAGS, "custom_code"] if code else list(_TAGS),
        model_name=title if figures else None,
        eval_results=figures or None,
    )
    bank = processor.description_bank or {}
    return ModelCard.from_template(
        data,
        template_path=str(card_file("model_card.md")),
        title=title,
        repo_id=repo_id,
        code=code,
        trust=", trust_remote_code=True" if code else "",
        labels=labels,
        intensity=model.config.problem_type == "regression",
        levels=model.config.intensity_head,
        alignment=alignment_of_crops(processor.image_processor, results),
        other=_another_unit(model, processor),
        tower=not model.config.text_folded and model.config.use_descriptions,
        measured_on=protocol_of(results),
        metrics=metric_table(results, labels),
        chance=near_chance(results, labels),
        calibration=calibration_of(model.config, processor.limits(labels), record(folder, "calibration.json"), results),
        training=training_of(results),
        data_terms=terms_of(names, base),
        descriptions=_bank_of(bank, model.config),
        cost=cost_of(results),
        groups=group_table(results),
        asked_for_groups="groups" in results,
        consent=consent_of(names, base),
    )


def _another_unit(model, processor) -> dict | None:
    """An action unit that an open-vocabulary model was not trained on, and a sentence of the bank on it."""
    if not model.config.open_vocabulary or not processor.description_bank:
        return None
    for label, entry in load_bank().to_dict()["descriptions"].items():
        # it stands between quotation marks of a shell and of Python
        texts = [item["text"] for item in entry["descriptions"] if not set(item["text"]) & set('"$`\\')]
        if label not in model.config.au_names and texts:
            sentence = min(texts, key=len)
            # blanks between lines stay with them, so that they make the sentence again
            lines = textwrap.wrap(sentence, 80, drop_whitespace=False)
            return {"label": label, "sentence": sentence, "lines": lines}
    return None


def _bank_of(bank: dict, config) -> str:
    if not config.use_descriptions:
        return "The model reads none."
    if config.text_source == "random":
        return "There is no text: random vectors, which tell nothing of the action units, stand in its place."
    if not bank:
        return f"`{config.description_bank or MISSING}`; the texts are not part of the checkpoint."
    told = bank.get("provenance") or {}
    made = ", ".join(f"{key.replace('_', ' ')}: {told[key]}" for key in _PROVENANCE if told.get(key))
    encoder = f" Embedded by {config.text_encoder}." if config.text_folded and config.text_encoder else ""
    made = made[:1].upper() + made[1:] if made else "Who wrote them is not told"
    return (
        f"`{config.description_bank}`, {config.num_descriptions} an action unit, in `processor_config.json` "
        f"({bank.get('license', MISSING)}). {made}.{encoder}"
    )


def adapter_card(
    folder: str | Path,
    repo_id: str,
    base_model: str,
    license: str | None = None,
    datasets: list[str] | None = None,
) -> ModelCard:
    """The card of an adapter; see [`model_card`].

    Args:
        folder (`str` or `Path`): With `adapter_config.json`; figures are read from `results.json` in it.
        repo_id (`str`): Where it will lie.
        base_model (`str`): Hub id of the detector it belongs to.
        license (`str`, *optional*): Of the weights.
        datasets (`list[str]`, *optional*): What it was trained on, where the data itself does not say.
    """
    folder = Path(folder)
    config = record(folder, "adapter_config.json")
    results = record(folder, "results.json")
    if results:
        # where it lay when the adapter was trained is nobody's business
        results = {**results, "checkpoint": base_model}
    tower = record(folder, BASE_FILE).get("text_tower")
    labels, names = results.get("aus") or [], joined_names(dataset_names(results), datasets)
    title = repo_id.rsplit("/", 1)[-1]
    figures = evaluations(results, labels, ", ".join(names) or "unnamed faces") if labels else []
    size = (folder / "adapter_model.safetensors").stat().st_size
    kind = "DoRA" if config.get("use_dora") else "rank-stabilised LoRA" if config.get("use_rslora") else "LoRA"
    return ModelCard.from_template(
        ModelCardData(
            license=license,
            library_name="peft",
            base_model=base_model,
            tags=[*_TAGS, "lora"],
            model_name=title if figures else None,
            eval_results=figures or None,
        ),
        template_path=str(card_file("adapter_card.md")),
        title=title,
        repo_id=repo_id,
        base_model=base_model,
        size=f"{size / 1e3:.0f} kB",
        adapter=f"{kind} of rank {config.get('r', MISSING)}, alpha {config.get('lora_alpha', MISSING)}, on "
        f"{tower_text(tower) if tower else f'a text encoder that is {MISSING}'}.",
        cost=cost_of(results),
        groups=group_table(results),
        training=training_of(results),
        data_terms=terms_of(names, base_model),
        measured_on=protocol_of(results),
        metrics=metric_table(results, labels) if labels else "",
        chance=near_chance(results, labels),
        calibrated=(folder / CALIBRATION_FILE).is_file(),
        consent=consent_of(names, base_model),
    )


def dataset_card(
    folder: str | Path, repo_id: str, license: str | None = None, datasets: list[str] | None = None
) -> DatasetCard:
    """The card of prepared faces, or of what was derived from them.

    Args:
        folder (`str` or `Path`): Parquet files; `prepare.json` tells how they were made.
        repo_id (`str`): Where it will lie.
        license (`str`, *optional*): Of the data.
        datasets (`list[str]`, *optional*): What it was made of, where the data itself does not say.
    """
    faces = ParquetFolder.read(folder)
    names = joined_names(faces.datasets, datasets)
    title = repo_id.rsplit("/", 1)[-1]
    people = "people who were seen" if names != [RENDERED] else "rendered people"
    return DatasetCard.from_template(
        DatasetCardData(
            license=license, pretty_name=title, task_categories=["image-classification"], tags=[*_TAGS],
            size_categories=[_size_category(faces.rows)],
        ),
        template_path=str(card_file("dataset_card.md")),
        title=title,
        repo_id=repo_id,
        summary=f"{faces.rows} rows of {faces.people} {people}, with facial action units."
        if faces.coded
        else f"{faces.rows} rows of {faces.people} {people}; derived data without images and labels.",
        columns=column_table(faces),
        counts=label_table(faces),
        made=made_of(Path(folder)),
        data_terms=terms_of(names),
        consent=consent_of(names),
    )  # fmt: skip


def _size_category(rows: int) -> str:
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if rows < limit:
            return name
    return "n>1M"


def card_problems(text: str, kind: str = "model", results: dict | None = None) -> list[str]:
    """What a card lacks before others can rely on it.

    Args:
        text (`str`): Of `README.md`.
        kind (`str`, defaults to `"model"`): `"model"`, `"adapter"`, `"dataset"` or `"space"`.
        results (`dict`, *optional*): Of `results.json`, which the figures of the card must be those of.

    Returns:
        `list[str]`: One sentence each, with the cure; empty where it is complete.
    """
    try:
        card = {"dataset": DatasetCard, "space": SpaceCard}.get(kind, ModelCard)(text)
    except (ValueError, yaml.YAMLError) as error:
        return [f"README.md must begin with valid YAML between lines of ---; {' '.join(str(error).split())}."]
    problems = []
    if kind == "space" and not card.data.to_dict().get("sdk"):
        problems.append("README.md must name the `sdk` of a Space, such as gradio, or static for a metric.")
    entries = getattr(card.data, "eval_results", None) or []
    if not card.data.to_dict().get("license"):
        problems.append("README.md must state a license; give --license, an identifier of the Hub such as apache-2.0.")
    headings = {line.lstrip("#").strip() for line in card.text.splitlines() if line.startswith("#")}
    missing = [name for name in _SECTIONS[kind] if name not in headings]
    if missing:
        problems.append(
            f"README.md must have the sections {', '.join(_SECTIONS[kind])}; it lacks {', '.join(missing)}."
        )
    if BLANK in text:
        problems.append(f"README.md still has blanks, {BLANK}; fill them in, or take them out.")
    stale = _other_figures(entries, results) + other_rows(card.text, results) if results else []
    if stale:
        problems.append(
            f"README.md must tell the figures of results.json; {stale[0]}. Change or take out that entry; a figure of "
            "another test belongs into its text."
        )
    return problems


def _other_figures(entries: list[EvalResult], results: dict) -> list[str]:
    """What a card says otherwise than what was measured."""
    metrics, differing = results.get("metrics") or {}, []
    for entry in entries:
        unit = str(entry.metric_name or "").rsplit(", ", 1)[-1]
        measured = metrics.get(f"mean_{entry.metric_type}" if unit == "mean" else f"{entry.metric_type}_{unit}")
        told = entry.metric_value
        if not isinstance(measured, Real) or not isinstance(told, Real) or abs(float(measured) - float(told)) > 5e-4:
            differing.append(f"it says {told} for {entry.metric_name}, measured is {measured or MISSING}")
    return differing


def is_blank_form(text: str) -> bool:
    """Whether a card is the form that peft leaves beside an adapter, as long as nobody has written into it."""
    if BLANK not in text:
        return False
    try:
        card = ModelCard(text)
    except (ValueError, yaml.YAMLError):
        return False
    form = {line.strip() for line in ModelCard.from_template(ModelCardData()).text.splitlines()}
    return all(_BY_PEFT.fullmatch(line.strip()) for line in card.text.splitlines() if line.strip() not in form)


__all__ = ["adapter_card", "card_problems", "dataset_card", "is_blank_form", "model_card"]
