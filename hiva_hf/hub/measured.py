"""What a folder tells of itself: what was measured and trained, as text for its card. What is not known is said so."""

import json
from pathlib import Path

from huggingface_hub import EvalResult

from ..facs import au_meaning

MISSING = "not told"
_METRICS = {"f1": "F1", "auc": "AUC", "icc": "ICC(3,1)", "mae": "mean absolute error"}
_FOLDERS = (Path(__file__).parent / "card_files", Path(__file__).parents[2] / "hub_cards")


def card_file(name: str) -> Path:
    """A file of `hub_cards`, which lies in the wheel or, in a checkout, beside the package."""
    return next(folder / name for folder in _FOLDERS if (folder / name).is_file())


def record(folder: Path, name: str) -> dict:
    """A JSON file of a folder; empty where it has none."""
    file = folder / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def dataset_names(results: dict) -> list[str]:
    """What a model was trained on: the names in its data; where it had no other data, the embedded sample."""
    if results.get("datasets"):
        return results["datasets"]
    return ["rendered faces"] if "data" in results and results["data"] is None else []


def is_licensed(name: str) -> bool:
    """Whether images and labels of a dataset must not be passed on."""
    return json.loads(card_file("datasets.json").read_text(encoding="utf-8")).get(name, {}).get("licensed", False)


def terms_of(names: list[str]) -> str:
    """A sentence a dataset on the terms of its data."""
    known = json.loads(card_file("datasets.json").read_text(encoding="utf-8"))
    told = [
        f"{name} ({known[name]['source']}): {known[name]['terms']}." if name in known else f"{name}: {MISSING}."
        for name in names
    ]
    return " ".join(told) or "Which data it was trained on is not told."


def consent_of(names: list[str]) -> str:
    """What is known of the people in the data."""
    if names == ["rendered faces"]:
        return "Nobody is seen in the training data: its faces are rendered."
    if names:
        return (
            f"People of {', '.join(names)} agreed to be recorded for research under the terms of that dataset, not to "
            "every use of what is learned from them."
        )
    return "Whether the people of the training data agreed to this use is not told."


def scores(results: dict, labels: list[str]) -> list[tuple[str, str, float]]:
    """Metrics that exist, as (metric, action unit or `mean`, value)."""
    metrics = results.get("metrics", {})
    found = [(metric, name, metrics.get(f"{metric}_{name}")) for metric in _METRICS for name in labels]
    found = [(metric, "mean", metrics.get(f"mean_{metric}")) for metric in _METRICS] + found
    return [(metric, name, value) for metric, name, value in found if value is not None]


def metric_table(results: dict, labels: list[str]) -> str:
    """Markdown, a row an action unit; a figure that does not exist is a dash."""
    metrics = results.get("metrics", {})
    columns = [metric for metric in _METRICS if any(f"{metric}_{name}" in metrics for name in labels)]
    extra = [name for name in ("base_rate", "always_positive_f1") if f"{name}_{labels[0]}" in metrics]
    heads = [_METRICS[name] for name in columns] + [name.replace("_", " ").replace("f1", "F1") for name in extra]
    lines = ["| | action unit | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
    for name in labels:
        cells = [_cell(metrics.get(f"{metric}_{name}")) for metric in [*columns, *extra]]
        lines.append(f"| {name} | {au_meaning(name)} | " + " | ".join(cells) + " |")
    means = [_cell(metrics.get(f"mean_{metric}")) for metric in [*columns, *extra]]
    lines.append("| **mean** | | " + " | ".join(means) + " |")
    return "\n".join(lines) if columns else ""


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def group_table(results: dict) -> str:
    """Markdown, a row a group of people."""
    groups = results.get("groups") or {}
    if not groups:
        return ""
    known = [name for name in ("mean_f1", "mean_auc", "mean_icc", "mean_mae") if name in str(groups)]
    lines = ["| | group | people | frames | " + " | ".join(name.replace("_", " ") for name in known) + " |"]
    lines.append("|---|---|---|---|" + "---|" * len(known))
    for column, rows in groups.items():
        for group, row in rows.items():
            cells = [_cell(row.get(name)) for name in known]
            lines.append(
                f"| {column.replace('_', ' ')} | {group} | {row['people']} | {row['frames']} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def protocol_of(results: dict) -> str:
    """How it was tested, in a sentence; what is not recorded is not in it."""
    people, faces = results.get("people", {}), results.get("faces", {})
    tested = people.get("test")
    who = f"{faces.get('test', '?')} frames of {tested} people" if tested else "people"
    chosen = f"The epoch was chosen on {people['validation']} others." if people.get("validation") else ""
    return f"On {who} whom the training never saw (part `{results.get('part', MISSING)}`). {chosen}".strip()


def evaluations(results: dict, labels: list[str], name: str) -> list[EvalResult]:
    """What a model-index says: one entry a metric and action unit, and their means.

    Args:
        results (`dict`): Of `results.json`.
        labels (`list[str]`): Action units.
        name (`str`): Of the dataset.
    """
    arguments = {"protocol": protocol_of(results), "seed": results.get("seed", MISSING)}
    return [
        EvalResult(
            task_type="image-classification",
            task_name="Facial action unit detection",
            dataset_type=name.lower().replace(" ", "-").replace("+", "-plus"),
            dataset_name=name,
            dataset_split=results.get("part", "test"),
            dataset_args=arguments,
            metric_type=metric,
            metric_name=f"{_METRICS[metric]}, {unit}",
            metric_value=round(value, 4),
        )
        for metric, unit, value in scores(results, labels)
    ]


def training_of(results: dict) -> str:
    """How it was trained, in a sentence or two."""
    if not results:
        return "Not told."
    people, faces = results.get("people", {}), results.get("faces", {})
    size = f"{faces['train']} faces of {people['train']} people" if "train" in faces and "train" in people else "faces"
    preset = f"the preset `{results['preset']}`" if results.get("checkpoint") is None else f"`{results['checkpoint']}`"
    told = {
        "epochs": results.get("epochs"), "batch size": results.get("batch_size"),
        "learning rate": results.get("learning_rate"), "seed": results.get("seed"),
    }  # fmt: skip
    how = ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
    return f"On {size}, from {preset}: {how}."


def cost_of(results: dict) -> str:
    """Time and machine; carbon is not guessed."""
    if not results.get("seconds"):
        return "Time and energy of the training are not told."
    hours = results["seconds"] / 3600
    return f"{hours:.2g} hours on {results.get('machine', MISSING)}; energy and carbon were not measured."


def alignment_of_crops(results: dict) -> str:
    """How faces were cut out; empty where it is not told."""
    return ", ".join(f"{key} {value}" for key, value in (results.get("alignment") or {}).items())
