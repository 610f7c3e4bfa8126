"""What a cross-validation found, as a bar chart (extra `plot`)."""

from textwrap import fill
from typing import Any

import numpy as np

from .data.published import PUBLISHED
from .plotting import ACTIVE, BOX, INACTIVE, figure_class

_OURS = "this run"


def plot_protocol(table: Any, title: str = "", protocol: str = "") -> Any:
    """A bar an action unit with its 95 % interval, what calling every frame active scores, and published means.

    Args:
        table (`pandas.DataFrame`): Of [`summarise`].
        title (`str`, *optional*): Printed above.
        protocol (`str`, *optional*): With `"bp4d"` or `"disfa"` published means stand beside ours, lowest first.

    Returns:
        `matplotlib.figure.Figure`
    """
    published = {paper.name: mean for paper in PUBLISHED if (mean := getattr(paper, protocol, None)) is not None}
    figure = figure_class()(figsize=(12 if published else 8, 4.6), layout="constrained", dpi=130)
    columns = figure.subplots(1, 2, width_ratios=[1.75, 1], squeeze=False)[0] if published else [figure.subplots()]
    _units(columns[0], table)
    if published:
        _means(columns[1], {**published, _OURS: table["mean"].iloc[-1]})
    if title:
        figure.suptitle(fill(title, 140 if published else 95), fontsize=10.5, x=0.008, ha="left")
    return figure


def _units(axes: Any, table: Any) -> None:
    places = np.arange(len(table))
    mean, low, high = (table[name].to_numpy() for name in ("mean", "low", "high"))
    colours = [BOX] * (len(table) - 1) + [ACTIVE]
    axes.bar(places, mean, color=colours, width=0.72)
    # an interval of draws need not hold the mean
    axes.errorbar(places, (low + high) / 2, (high - low) / 2, fmt="none", color="black", linewidth=1, capsize=2)
    axes.hlines(table["always_positive"], places - 0.42, places + 0.42, color=INACTIVE, linewidth=2.5)
    axes.set_xticks(places, [*table.index], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(table) - 0.4)
    axes.set_ylim(0, 100)
    axes.set_ylabel("F1, %")
    said = "bars: mean over parts; lines: 95 % interval by weighing people anew;\ngrey: every frame called active"
    axes.set_title(said, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _means(axes: Any, means: dict[str, float]) -> None:
    """Means of methods, lowest below; this run stands out."""
    names = sorted(means, key=lambda name: means[name] if means[name] == means[name] else -1)
    rows, values = np.arange(len(names)), [means[name] for name in names]
    axes.barh(rows, values, color=[ACTIVE if name == _OURS else INACTIVE for name in names], height=0.7)
    axes.set_yticks(rows, names, fontsize=8)
    axes.get_yticklabels()[names.index(_OURS)].set_fontweight("bold")
    axes.set_xlim(0, 100)
    axes.set_xlabel("mean F1, %")
    axes.set_title("published means;\nmost chose the epoch on the tested people", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    for row, value in zip(rows, values, strict=True):
        if value == value:
            axes.text(value + 1, row, f"{value:.1f}", va="center", fontsize=8)


__all__ = ["plot_protocol"]
