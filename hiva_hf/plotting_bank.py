"""How alike the descriptions of a bank are, as a heat map (extra `plot`)."""

from typing import Any

import numpy as np

from .descriptions.tools import Diversity
from .facs import au_meaning
from .plotting import figure_class


def plot_diversity(diversity: Diversity, title: str = "") -> Any:
    """A square an action unit pair; on the diagonal how alike descriptions of one action unit are.

    Args:
        diversity (`Diversity`): Of [`bank_diversity`].
        title (`str`, *optional*): Printed above.

    Returns:
        `matplotlib.figure.Figure`
    """
    count = len(diversity.names)
    side = max(4.5, 0.3 * count + 2.5)
    figure = figure_class()(figsize=(side + 1.6, side), layout="constrained", dpi=130)
    axes = figure.subplots()
    # similarity is low throughout by words and high throughout by embeddings: the scale is that of the bank
    low, high = np.nanmin(diversity.matrix), np.nanmax(diversity.matrix)
    picture = axes.imshow(diversity.matrix, cmap="viridis", vmin=low, vmax=high)
    axes.set_xticks(range(count), diversity.names, rotation=90, fontsize=8)
    axes.set_yticks(range(count), [f"{name}  {au_meaning(name)}" for name in diversity.names], fontsize=8)
    if count <= 14:
        for row in range(count):
            for column in range(count):
                value = diversity.matrix[row, column]
                colour = "black" if value > low + 0.6 * (high - low) else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="mean similarity of two descriptions")
    if title:
        axes.set_title(title, fontsize=9)
    return figure


__all__ = ["plot_diversity"]
