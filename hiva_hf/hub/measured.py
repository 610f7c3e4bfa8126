"""What a folder tells of itself: what was measured and trained, as text for its card. What is not known is said so."""

from numbers import Real
from pathlib import Path

from huggingface_hub import EvalResult

from ..facs import au_meaning
from ..files import read_record

MISSING = "not told"
RENDERED = "rendered faces"
# what is left of the path of a checkpoint
A_FOLDER = "the folder "
_METRICS = {"f1": "F1", "auc": "AUC", "icc": "ICC(3,1)", "mae": "mean absolute error"}
POSITIVE_KEY = "always_positive_f1"
# columns of the table behind the metrics
_EXTRA = {"base_rate": "base rate", POSITIVE_KEY: "always positive F1"}
_OBJECTS = ("metrics", "people", "faces", "groups", "alignment")
_ANEW = "Mend it, or copy it anew."
_UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
_FOLDERS = (Path(__file__).parent / "card_files", Path(__file__).parents[2] / "hub_cards")


def card_file(name: str) -> Path:
    """A file of `hub_cards`, which lies in the wheel or, in a checkout, beside the package."""
    return next(folder / name for folder in _FOLDERS if (folder / name).is_file())


def record(folder: Path, name: str) -> dict:
    """A JSON file of a folder; empty where it has none.

    Raises:
        ValueError: If it holds something else than a record.
    """
    content, rule = read_record(folder / name), f"{name} in {folder} must hold a JSON object"
    for key in _OBJECTS if name == "results.json" else ():
        if not isinstance(content.get(key), dict | None):
            raise ValueError(f"{rule}, in it `{key}` another; that is {str(content[key])[:40]}. {_ANEW}")
    strange = [key for key, value in (content.get("metrics") or {}).items() if not isinstance(value, Real | None)]
    if strange and name == "results.json":
        raise ValueError(f"{rule} with numbers in `metrics`; {strange[0]} is none. {_ANEW}")
    return content


def dataset_names(results: dict) -> list[str]:
    """What a model was trained on: the names in its data; where it had no other data, the embedded sample."""
    if results.get("datasets"):
        return [str(name) for name in results["datasets"]]
    return [RENDERED] if "data" in results and results["data"] is None else []


def scores(results: dict, labels: list[str]) -> list[tuple[str, str, float]]:
    """Metrics that exist, as (metric, action unit or `mean`, value)."""
    metrics = results.get("metrics") or {}
    found = [(metric, name, metrics.get(f"{metric}_{name}")) for metric in _METRICS for name in labels]
    found = [(metric, "mean", metrics.get(f"mean_{metric}")) for metric in _METRICS] + found
    return [(metric, name, value) for metric, name, value in found if value is not None]


def other_rows(text: str, results: dict) -> list[str]:
    """Figures in the tables of a card, made by [`metric_table`], that are not those of the record."""
    heads: list[str] = []
    differing, metrics = [], results.get("metrics") or {}
    named = {title: name for name, title in (_METRICS | _EXTRA).items()}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.strip().startswith("|") else []
        if len(cells) > 2 and cells[1] == "action unit":
            heads = cells[2:]
            continue
        if not cells:
            heads = []
        unit = cells[0].strip("*") if cells else ""
        for head, cell in zip(heads, cells[2:], strict=False):
            key = f"mean_{named.get(head)}" if unit == "mean" else f"{named.get(head)}_{unit}"
            if head in named and "--" not in unit and cell != figure(metrics.get(key)):
                differing.append(f"its table says {cell} for {head}, {unit}, measured is {figure(metrics.get(key))}")
    return differing


def metric_table(results: dict, labels: list[str]) -> str:
    """Markdown, a row an action unit; a figure that does not exist is a dash."""
    metrics = results.get("metrics") or {}
    columns = [metric for metric in _METRICS if any(f"{metric}_{name}" in metrics for name in labels)]
    extra = [name for name in _EXTRA if f"{name}_{labels[0]}" in metrics]
    heads = [_METRICS[name] for name in columns] + [_EXTRA[name] for name in extra]
    lines = ["| AU | action unit | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
    for name in labels:
        cells = [figure(metrics.get(f"{metric}_{name}")) for metric in [*columns, *extra]]
        lines.append(f"| {name} | {au_meaning(name)} | " + " | ".join(cells) + " |")
    means = [figure(metrics.get(f"mean_{metric}")) for metric in [*columns, *extra]]
    lines.append("| **mean** | | " + " | ".join(means) + " |")
    return "\n".join(lines) if columns else ""


def figure(value: float | None) -> str:
    """A figure as tables show it."""
    return "-" if value is None else f"{value:.3f}"


def named_base(checkpoint: str) -> str:
    """A checkpoint as text: a Hub id, or what is left of a folder of somebody's machine."""
    left = checkpoint.removeprefix(A_FOLDER)
    return f"`{checkpoint}`" if left == checkpoint else f"a detector of its maker (folder `{left}`)"


def protocol_of(results: dict) -> str:
    """How it was tested, in a sentence; what is not recorded is not in it."""
    people, faces = results.get("people") or {}, results.get("faces") or {}
    tested = people.get("test")
    who = f"{faces.get('test', '?')} frames of {tested} people" if tested else "people"
    chosen = f"The epoch was chosen on {people['validation']} others." if people.get("validation") else ""
    seen = "whom the training never saw"
    if results.get("checkpoint"):
        base = named_base(results["checkpoint"])
        seen = f"whom this training never saw; whether {base}, with which it began, did is {MISSING}"
    return f"On {who} {seen} (part `{results.get('part', MISSING)}`). {chosen}".strip()


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
    people, faces = results.get("people") or {}, results.get("faces") or {}
    size = f"{faces['train']:,} faces" if isinstance(faces.get("train"), int) else "faces"
    if isinstance(faces.get("mixed in"), int) and faces["mixed in"]:
        size += f" and {faces['mixed in']:,} others mixed in"
    size += f" of {people['train']} people" if "train" in people else ""
    preset = f"the preset `{results['preset']}`" if results.get("preset") else "a model that is not told"
    preset = named_base(results["checkpoint"]) if results.get("checkpoint") else preset
    told = {
        "epochs": results.get("epochs"), "steps": results.get("steps"), "batch size": results.get("batch_size"),
        "learning rate": results.get("learning_rate"), "seed": results.get("seed"),
    }  # fmt: skip
    how = ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
    command = f" By `{results['command']}`." if results.get("command") else ""
    return f"On {size}, from {preset}: {how or MISSING}.{command}"


def cost_of(results: dict) -> str:
    """Time and machine; carbon is not guessed."""
    if not results.get("seconds"):
        return "Time and energy of the training are not told."
    seconds = results["seconds"]
    # few of the largest unit that are more than one
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{seconds / size:.2g} {unit} on {results.get('machine', MISSING)}; energy and carbon were not measured."
