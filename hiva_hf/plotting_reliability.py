"""Whether probabilities hold what they say: a picture of said against seen (extra `plot`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import binomtest

from .calibration import calibration_error, labels_and_logits
from .metrics import is_coded
from .plotting import ACTIVE, INACTIVE, au_title, figure_class

_GROUPS = 8


def reliability_curve(truth: np.ndarray, probabilities: np.ndarray, groups: int = _GROUPS) -> np.ndarray:
    """What was said and what was so, over groups of equally many frames.

    Args:
        truth (`np.ndarray` of shape `(num_frames,)`): 0 or 1.
        probabilities (`np.ndarray` of shape `(num_frames,)`): Scores.
        groups (`int`, defaults to 8): How many; less where there are fewer frames.

    Returns:
        `np.ndarray` of shape (groups, 4): Mean probability, share of active frames, and the ends of its 95 % interval
        (Wilson), which takes frames for independent: those of one person are not, so it is rather too narrow.
    """
    order = np.argsort(probabilities, kind="stable")
    rows = []
    for group in np.array_split(order, groups):
        if len(group):
            active = int(truth[group].sum())
            interval = binomtest(active, len(group)).proportion_ci(method="wilson")
            rows.append((probabilities[group].mean(), active / len(group), interval.low, interval.high))
    return np.array(rows).reshape(-1, 4)


def plot_reliability(
    labels: np.ndarray,
    logits: np.ndarray,
    names: Sequence[str],
    before: np.ndarray | None = None,
    title: str = "",
) -> Any:
    """Said against seen, a panel an action unit: a point on the diagonal holds what it says.

    Args:
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): 1 active, 0 inactive, `-100` or NaN not coded.
        logits (`np.ndarray` of shape `(num_frames, num_labels)`): Of the model, calibrated.
        names (`Sequence[str]`): AUs, in the order of the columns.
        before (`np.ndarray` of shape `(num_frames, num_labels)`, *optional*): Logits without the calibration, drawn in
            grey behind.
        title (`str`, *optional*): Printed above.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: If the shapes differ.
    """
    labels, logits = labels_and_logits(labels, logits, names)
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = figure_class()(figsize=(2.75 * columns, 0.9 + 2.75 * lines), layout="constrained", dpi=130)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    for column, (axes, name) in enumerate(zip(grid, names, strict=False)):
        rows = is_coded(labels[:, column])
        truth = labels[rows, column]
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
        errors = []
        for values, colour, marker in ((before, INACTIVE, "s"), (logits, ACTIVE, "o")):
            if values is None:
                continue
            said = expit(np.asarray(values, dtype=np.float64)[rows, column])
            curve = reliability_curve(truth, said)
            errors.append(calibration_error(truth, said))
            if not len(curve):
                continue
            span = np.abs(curve[:, 2:].T - curve[:, 1])
            axes.errorbar(
                curve[:, 0], curve[:, 1], span, color=colour, marker=marker, markersize=4, linewidth=1.3, elinewidth=0.8
            )
        text = " → ".join("-" if error != error else f"{error:.3f}".removeprefix("0") for error in errors)
        axes.set_title(au_title(name), fontsize=9)
        axes.text(0.04, 0.95, f"error {text}", transform=axes.transAxes, va="top", fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.spines[["top", "right"]].set_visible(False)
        if column % columns == 0:
            axes.set_ylabel("share active", fontsize=9)
        if column >= len(names) - columns:
            axes.set_xlabel("probability", fontsize=9)
            axes.tick_params(labelbottom=True)
    legend = "orange: as the model says it" + ("; grey: without its calibration" if before is not None else "")
    figure.suptitle(
        f"{title}\n" * bool(title)
        + f"{legend}; error: expected calibration error; bars: 95 % of {_GROUPS} equal groups",
        fontsize=9,
    )
    return figure


__all__ = ["plot_reliability", "reliability_curve"]
