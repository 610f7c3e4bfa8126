"""What the figures of a card are worth: groups of people, chance, calibration, and how the crops were cut."""

from itertools import pairwise

from ..faces import FaceTemplate
from .measured import MISSING, POSITIVE_KEY, RENDERED, dataset_names, figure

# a figure of fewer people would tell of them, and not of their group
FEWEST_PEOPLE = 5
# of numbers: codes, such as skin types 1 to 6, are groups as they are; what is measured is cut into bands
_HIGHEST_CODE, _BANDS = 10, 3
# a figure so near to chance says nothing
NEAR = 0.05
_MEANS = ("mean_f1", "mean_auc", "mean_icc", "mean_mae")


def group_table(results: dict) -> str:
    """Markdown, a row a group of people, and a sentence on those that are too small; empty without groups."""
    groups = {column: _banded(rows) for column, rows in (results.get("groups") or {}).items()}
    if not any(groups.values()):
        return ""
    large = [row for rows in groups.values() for row in rows.values() if not _too_few(row)]
    known = [name for name in _MEANS if any(name in row for row in large)]
    heads = ["by", "group", "people", "images", *(name.replace("_", " ").replace("f1", "F1") for name in known)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    small = pooled = 0
    for column, rows in groups.items():
        for group, row in rows.items():
            few = _too_few(row)
            small += few
            # the figures of a band are not those of its parts
            pooled += not few and not any(name in row for name in known)
            cells = ["too few people" if few else figure(row.get(name)) for name in known]
            told = [column.replace("_", " "), group, *(str(row.get(name, "?")) for name in ("people", "frames"))]
            lines.append(f"| {' | '.join(told + cells)} |")
    said = []
    if any(" to " in group for rows in groups.values() for group in rows):
        said.append(f"Numbers are as the data states them, in {_BANDS} bands of equal width.")
    if groups.get("skin_tone") and dataset_names(results) == [RENDERED]:
        said.append("Of skin tones 0 is the lightest and 1 the darkest.")
    if small == sum(map(len, groups.values())):
        said.append(
            f"**No group has {FEWEST_PEOPLE} people, so this test says nothing of bias.** Measure it on more people "
            "before you use the model on any."
        )
    elif small:
        said.append(
            f"Groups of fewer than {FEWEST_PEOPLE} people have no figure: it would tell of those people, not of their "
            "group."
        )
    if pooled:
        said.append("A dash: the record holds figures of parts of that band, which do not add up to one of the band.")
    return "\n".join(lines) + "\n\n" + " ".join(said)


def _too_few(row: dict) -> bool:
    return row.get("people") is not None and row["people"] < FEWEST_PEOPLE


def _banded(rows: dict[str, dict]) -> dict[str, dict]:
    """Groups of a column as they are, or, where they are numbers that somebody measured, bands of these."""
    try:
        values = [float(group) for group in rows]
    except ValueError:
        return rows
    if not values or all(value == int(value) and abs(value) <= _HIGHEST_CODE for value in values):
        return rows
    low, step = min(values), (max(values) - min(values)) / _BANDS
    if step == 0:
        return rows
    cuts = [low + place * step for place in range(_BANDS + 1)]
    # as few digits as tell the cuts apart
    digits = next((count for count in range(2, 17) if len({f"{cut:.{count}g}" for cut in cuts}) == len(cuts)), 17)
    names = [f"{start:.{digits}g} to {end:.{digits}g}" for start, end in pairwise(cuts)]
    bands: dict[str, list[dict]] = {name: [] for name in names}
    for value, row in zip(values, rows.values(), strict=True):
        bands[names[min(int((value - low) / step), _BANDS - 1)]].append(row)
    return {
        name: held[0] if len(held) == 1 else {key: sum(row.get(key, 0) for row in held) for key in ("people", "frames")}
        for name, held in bands.items()
    }


def near_chance(results: dict, labels: list[str]) -> str:
    """Where the figures say little or nothing: F1 of calling every frame active, AUC or ICC of chance."""
    metrics, said = results.get("metrics") or {}, []
    f1, positive = metrics.get("mean_f1"), metrics.get(f"mean_{POSITIVE_KEY}")
    if f1 is not None and positive is not None and f1 <= positive:
        said.append(
            f"**The mean F1, {figure(f1)}, is not above that of calling every frame active, {figure(positive)}: by F1 "
            "this detector tells nothing.**"
        )
    for metric, chance, name in (("auc", 0.5, "AUC"), ("icc", 0.0, "ICC")):
        value = metrics.get(f"mean_{metric}")
        if value is not None and value < chance + NEAR:
            where = "below" if value < chance - NEAR else f"within {NEAR:g} of"
            said.append(f"**The mean {name}, {figure(value)}, is {where} chance, {chance:g}.**")
        values = {label: metrics.get(f"{metric}_{label}") for label in labels}
        low = [label for label, value in values.items() if value is not None and value < chance + NEAR]
        if low:
            said.append(f"{name} less than {NEAR:g} above chance: {', '.join(low)}.")
    lost = [
        label
        for label in labels
        if (value := metrics.get(f"f1_{label}")) is not None
        and (always := metrics.get(f"{POSITIVE_KEY}_{label}")) is not None
        and value <= always
    ]
    if lost:
        said.append(f"F1 not above that of calling every frame active: {', '.join(lost)}.")
    return " ".join(said)


def calibration_of(config, limits: dict[str, float], report: dict, results: dict) -> str:
    """What was fitted after training, on whom, and what it did there; empty for an intensity model.

    Args:
        config (`HiVAConfig`): Its temperatures and biases.
        limits (`dict[str, float]`): Threshold by action unit.
        report (`dict`): Of `calibration.json`.
        results (`dict`): Of `results.json`.
    """
    if config.problem_type == "regression":
        return ""
    least, most = min(limits.values()), max(limits.values())
    cuts = f"{least:.2g}" if least == most else f"{least:.2g} to {most:.2g}"
    temperatures, biases = config.calibration_temperatures, config.calibration_biases
    if temperatures is None:
        return f"None: scores are the sigmoid of what the network says, and no probabilities. Thresholds: {cuts}."
    people = (results.get("people") or {}).get("validation")
    who = "validation people" if people is None else f"{people} validation people"
    frames = [row["frames"] for row in report.values() if isinstance(row, dict) and "frames" in row]
    images = f" ({max(frames):.0f} images)" if frames else ""
    said = (
        f"On the {who}{images}, whom no weight was learned from, each action unit was given a temperature and a bias "
        f"for its probability, and the threshold of the best F1 there ({cuts})."
    )
    changes = [
        f"{name} from {figure(before)} to {figure(after)}"
        for name, key in (("Brier score", "brier"), ("calibration error", "error"), ("F1", "f1"))
        if (before := _mean(report, f"{key}_before")) is not None
        and (after := _mean(report, f"{key}_after")) is not None
    ]
    if changes:
        said += f" It changed, on those same people, the mean {' and the mean '.join(changes)}: on others expect less."
    if not any(change.startswith("F1") for change in changes):
        said += " What it did to F1 was not measured."
    kept = [
        label
        for label, scale, shift in zip(config.au_names, temperatures, biases or [0.0] * len(temperatures), strict=True)
        if (scale, shift) == (1.0, 0.0)
    ]
    if kept:
        said += (
            f" Not calibrated, threshold .5, for there was too little to learn from, or scores ran against the labels: "
            f"{', '.join(kept)}."
        )
    return said


def _mean(report: dict, key: str) -> float | None:
    values = [row.get(key) for row in report.values() if isinstance(row, dict)]
    known = [value for value in values if isinstance(value, int | float)]
    return sum(known) / len(known) if known else None


def alignment_of_crops(image_processor, results: dict) -> str:
    """How faces were cut out for the training, and so must be for the model.

    Args:
        image_processor (`BaseImageProcessor`): Its size and face template.
        results (`dict`): Of `results.json`; `alignment` and whose faces they were.
    """
    template = FaceTemplate.of(image_processor).to_dict()
    places = ", ".join(f"{name.replace('_', ' ')} ({x:g}, {y:g})" for name, (x, y) in template.items())
    size = image_processor.size
    said = (
        f"A crop is {size['width']} x {size['height']} pixels. Five points are taken by rotation, scale and shift to "
        f"these places, as fractions of its side from the upper left corner: {places}."
    )
    return f"{said} {_points_of(results)}"


def _points_of(results: dict) -> str:
    """Where the points came from by which faces were cut out, in a sentence or two; `results` as there."""
    told = results.get("alignment") or {}
    if told:
        return cut_as(told)
    if results.get("data") is None and dataset_names(results) == [RENDERED]:
        return (
            "In its training they came from the renderer: the centres of the six points of each eye, the tip of the "
            "nose and the corners of the mouth, of 68 points on pictures of 128 x 128 pixels, not cut before."
        )
    return f"Where the points of its training came from is {MISSING}."


def cut_as(told: dict) -> str:
    """How prepared faces were cut out, in a sentence; `told` is their record."""
    how = {
        "detect": f"Faces and their five points were found by `{told.get('detector', MISSING)}`",
        "given": "Faces came from a table of boxes or points",
        "none": "Pictures were taken as crops, and no points were looked for",
    }
    said = how.get(str(told.get("alignment")), f"How faces were found is {MISSING}")
    if "size" in told:
        said += f", and stored with {told['size']} pixels a side"
    if "margin" in told and told.get("alignment") != "none":
        said += f", {told['margin']} times as wide as a crop of the model"
    if "quality" in told:
        said += f", as JPEG of quality {told['quality']}"
    return f"{said}."


__all__ = ["FEWEST_PEOPLE", "NEAR", "alignment_of_crops", "calibration_of", "cut_as", "group_table", "near_chance"]
