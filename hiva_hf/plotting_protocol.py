"""What a cross-validation found, as a bar chart (extra `plot`)."""

from typing import Any

import numpy as np

from .data.published import PUBLISHED
from .plotting import ACTIVE, BOX, INACTIVE, figure_class


def plot_protocol(table: Any, title: str = "", protocol: str = "") -> Any:
    """A bar an action unit with its 95 % interval, what calling every frame active scores, and published means.

    Args:
        table (`pandas.DataFrame`): Of [`summarise`].
        title (`str`, *optional*): Printed above.
        protocol (`str`, *optional*): With `"bp4d"` or `"disfa"` published means stand beside ours.

    Returns:
        `matplotlib.figure.Figure`
    """
    published = {paper.name: mean for paper in PUBLISHED if (mean := getattr(paper, protocol, None)) is not None}
    figure = figure_class()(figsize=(11 if published else 8, 4.6), layout="constrained", dpi=130)
    columns = figure.subplots(1, 2, width_ratios=[1.6, 1], squeeze=False)[0] if published else [figure.subplots()]
    axes, places = columns[0], np.arange(len(table))
    mean, low, high = (table[name].to_numpy() for name in ("mean", "low", "high"))
    colours = [BOX] * (len(table) - 1) + [ACTIVE]
    axes.bar(places, mean, color=colours, width=0.72)
    axes.errorbar(places, mean, np.abs([mean - low, high - mean]), fmt="none", color="black", linewidth=1, capsize=2)
    axes.hlines(table["always_positive"], places - 0.42, places + 0.42, color=INACTIVE, linewidth=2.5)
    axes.set_xticks(places, [*table.index], rotation=45, ha="right")
    axes.set_ylim(0, 100)
    axes.set_ylabel("F1, %")
    axes.set_title("bars: 95 % by drawing people anew; grey: every frame called active", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if published:
        values = list(published.values())
        rows = np.arange(len(values) + 1)
        columns[1].barh(rows, [*values, mean[-1]], color=[INACTIVE] * len(values) + [ACTIVE], height=0.7)
        columns[1].set_yticks(rows, [*published, "this run"], fontsize=8)
        columns[1].set_xlim(0, 100)
        columns[1].set_title("published means;\nmost chose the epoch on the tested people", fontsize=9)
        columns[1].spines[["top", "right"]].set_visible(False)
        for row, value in zip(rows, [*values, mean[-1]], strict=True):
            columns[1].text(value + 1, row, f"{value:.1f}", va="center", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


__all__ = ["plot_protocol"]
