"""Pictures of what the model found, made with matplotlib (extra `plot`)."""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .facs import au_meaning
from .files import whole_file

# Okabe and Ito's palette, which colour-blind readers can tell apart
ACTIVE, INACTIVE, BOX = "#D55E00", "#9AA5B1", "#0072B2"
PALETTE = (BOX, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", ACTIVE, "#F0E442")


def figure_class() -> Any:
    """A `Figure` of matplotlib that a notebook shows by itself, or an error that names the extra."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Pictures need matplotlib; install it with `pip install 'hiva-hf[plot]'`.") from None
    return _shown(Figure)


@cache
def _shown(figure_class: Any) -> Any:
    class ShownFigure(figure_class):
        # without pyplot a notebook would print the figure's name
        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return ShownFigure


def plot_prediction(
    image: Image.Image,
    scores: dict[str, float],
    crop: Image.Image | None = None,
    maps: np.ndarray | None = None,
    box: Sequence[float] | None = None,
    thresholds: dict[str, float] | None = None,
    title: str = "",
    map_count: int = 4,
    intensity: bool = False,
) -> Any:
    """A picture with its face, a bar an action unit, and where the strongest of them were seen.

    Args:
        image (`PIL.Image.Image`): The whole picture.
        scores (`dict[str, float]`): Probability by AU, as `processor.post_process` gives it.
        crop (`PIL.Image.Image`, *optional*): The face as the model saw it; needed with `maps`.
        maps (`np.ndarray` of shape `(num_labels, rows, columns)`, *optional*): `activation_maps` of this face.
        box (`Sequence[float]`, *optional*): x0, y0, x1, y1 of the face in pixels of `image`.
        thresholds (`dict[str, float]`, *optional*): Probability from which an AU counts as active; 0.5 where not given.
        title (`str`, *optional*): Printed above.
        map_count (`int`, defaults to 4): How many maps to show, the highest scores first.
        intensity (`bool`, defaults to `False`): The scores are intensities 0-5; no threshold is drawn.

    Returns:
        `matplotlib.figure.Figure`
    """
    names = list(scores)
    values = np.array([scores[name] for name in names])
    limits = limits_of(names, thresholds, intensity)
    maps = np.empty(0) if maps is None or crop is None else maps
    shown = list(np.argsort(-values)[:map_count]) if maps.size else []

    figure = figure_class()(figsize=(11, 4.6 if not shown else 7.4), layout="constrained", dpi=130)
    outer = figure.add_gridspec(2 if shown else 1, 1, height_ratios=[1.55, 1] if shown else [1])
    top = outer[0].subgridspec(1, 2, width_ratios=[1, 1.5])

    picture = figure.add_subplot(top[0])
    picture.imshow(image)
    picture.set_axis_off()
    if box is not None:
        x0, y0, x1, y1 = box
        picture.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=BOX, linewidth=2.5)

    bars = figure.add_subplot(top[1])
    positions = np.arange(len(names))
    colours = [ACTIVE if value >= limit else INACTIVE for value, limit in zip(values, limits, strict=True)]
    bars.barh(positions, values, color=colours, height=0.72)
    if not intensity:
        bars.vlines(limits, positions - 0.45, positions + 0.45, color="black", linewidth=1.2)
    bars.set_yticks(positions, [f"{name}  {au_meaning(name)}" for name in names])
    bars.invert_yaxis()
    bars.set_xlim(0, 5.4 if intensity else 1.08)
    bars.set_xlabel("intensity, 0 to 5" if intensity else "probability (line: threshold; orange: at or above it)")
    for position, value, limit in zip(positions, values, limits, strict=True):
        # a threshold may stand where the number would
        start = limit if not intensity and value <= limit < value + 0.08 else value
        bars.text(start + (0.05 if intensity else 0.01), position, f"{value:.2f}", va="center", fontsize=9)
    bars.spines[["top", "right"]].set_visible(False)

    if shown and crop is not None:
        row = outer[1].subgridspec(1, len(shown) + 1)
        face = figure.add_subplot(row[0])
        face.imshow(crop)
        face.set_title("face as the model sees it", fontsize=9)
        face.set_axis_off()
        for column, index in enumerate(shown, start=1):
            axes = figure.add_subplot(row[column])
            axes.imshow(crop.convert("L"), cmap="gray")
            axes.imshow(
                enlarge(maps[index], crop.size), cmap="cividis", alpha=0.6, extent=(0, crop.width, crop.height, 0)
            )
            axes.set_title(f"{names[index]}: attention of its descriptions", fontsize=9)
            axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def save_figure(figure: Any, path: str | Path) -> Path:
    """Write a figure whole or not at all.

    Args:
        figure (`matplotlib.figure.Figure`): What to write.
        path (`str` or `Path`): A `.png`, `.jpg`, `.pdf` or `.svg` file; folders above it are made.
    """
    with whole_file(path) as partial:
        figure.savefig(partial)
    return Path(path)


def limits_of(labels: Sequence[str], thresholds: dict[str, float] | None, intensity: bool) -> np.ndarray:
    """From what each AU counts as active: its threshold; where none is given 0.5, or DISFA's 2 of an intensity."""
    return np.array([(thresholds or {}).get(label, 2.0 if intensity else 0.5) for label in labels])


def au_title(label: str) -> str:
    """An action unit as a picture names it, such as `"AU12 lip corner puller"`."""
    return f"{label} {au_meaning(label)}".rstrip()


def enlarge(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map, smoothly brought to width and height `size`."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


__all__ = ["plot_prediction", "save_figure"]
