"""Metrics by group of people: does a detector serve all of them alike."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from datasets import Dataset

from .data.merging import column_values
from .data.streaming import StreamedFaces

# columns of prepared faces that tell who is seen
GROUP_COLUMNS = ("skin_tone", "sex", "age")
# a column of numbers with more values than these is cut into thirds of its range; and so is one of fewer that are no
# whole numbers, for those are measured, not codes such as skin types 1 to 6
_FEW = 6
_TOLD = ("mean_f1", "mean_auc", "mean_icc", "mean_mae")


def group_labels(values: np.ndarray) -> np.ndarray:
    """What group each row belongs to, as text; empty where it is not told.

    Args:
        values (`np.ndarray` of shape `(num_rows,)`): Numbers or names. Numbers with many values, or with values
            that are not whole, are cut at thirds of their range.
    """
    if values.dtype.kind not in "fiu":
        return np.array(["" if value is None else str(value) for value in values])
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    kinds = np.unique(known)
    if len(kinds) < 2 or (len(kinds) <= _FEW and (kinds == np.round(kinds)).all()):
        return np.array(["" if value != value else f"{value:g}" for value in values])
    cuts = np.linspace(known.min(), known.max(), 4)
    # as few digits as tell the cuts apart
    digits = next((count for count in range(3, 17) if len({f"{cut:.{count}g}" for cut in cuts}) == 4), 17)
    names = [f"{low:.{digits}g} to {high:.{digits}g}" for low, high in pairwise(cuts)]
    places = np.clip(np.searchsorted(cuts, values, side="right") - 1, 0, 2)
    return np.array(["" if value != value else names[place] for value, place in zip(values, places, strict=True)])


def _order(group: str) -> tuple[float, str]:
    """Numbers by their value, before and apart from names."""
    try:
        return float(group.split(" to ")[0]), group
    except ValueError:
        return math.inf, group


def group_metrics(
    dataset: Dataset | StreamedFaces,
    logits: np.ndarray,
    labels: np.ndarray,
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Means over action units for each group of people that the data tells of.

    Args:
        dataset (`Dataset` or `StreamedFaces`): With some of the columns `skin_tone`, `sex`, `age`, and `subject_id`.
        logits (`np.ndarray` of shape `(num_rows, num_labels)`): Of its rows, in their order.
        labels (`np.ndarray` of shape `(num_rows, num_labels)`): Of its rows, in their order.
        metrics (`Callable`): From logits and labels of some rows to their metrics.

    Returns:
        `dict`: By column and group the number of `people` and `frames`, and `mean_f1` and `mean_auc`, of an intensity
        model `mean_icc` and `mean_mae`; empty where the data tells nothing.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    people = column_values(dataset, "subject_id")
    for column in GROUP_COLUMNS:
        if column not in dataset.column_names:
            continue
        groups = group_labels(np.asarray(column_values(dataset, column)))
        for group in sorted(set(groups) - {""}, key=_order):
            rows = groups == group
            values = metrics(logits[rows], labels[rows])
            row = {"people": len(set(people[rows])), "frames": int(rows.sum())}
            found.setdefault(column, {})[group] = row | {name: values[name] for name in _TOLD if name in values}
    return found


__all__ = ["GROUP_COLUMNS", "group_labels", "group_metrics"]
