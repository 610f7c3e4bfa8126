"""Pictures of a whole video or of many pictures, made with matplotlib (extra `plot`)."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .plotting import ACTIVE, INACTIVE, au_title, enlarge, figure_class, limits_of
from .results import FaceResult

_LINE, _GAP = "#1F2933", "#E3E6EA"
_DRAWN_POINTS = 2000


def plot_timeline(
    results: Iterable[FaceResult],
    labels: Sequence[str],
    thresholds: dict[str, float] | None = None,
    intensity: bool = False,
    face_id: int | None = None,
    title: str = "",
) -> Any:
    """The action units of one person over a video, a row an AU.

    Of a long video each row shows the lowest and the highest score of each of 1000 stretches, so that a peak of one
    frame stays visible; a gap is shown where the person is missing from a whole stretch.

    Args:
        results (`Iterable[FaceResult]`): Of one video, frame by frame; read once and not kept.
        labels (`Sequence[str]`): Action units, in the order of the rows.
        thresholds (`dict[str, float]`, *optional*): Probability from which an AU counts as active; 0.5 where not given.
        intensity (`bool`, defaults to `False`): The scores are intensities 0-5; 2, DISFA's rule, counts as active.
        face_id (`int`, *optional*): The person; by default the one seen in most frames.
        title (`str`, *optional*): Printed above, before the words that say which person this is.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: If there are no results, they come from several files, or nobody has this `face_id`.
    """
    make_figure = figure_class()
    times, people, rows, scores = _read_video_results(results, labels)
    counts = Counter(people)
    if face_id is None:
        face_id = min(counts, key=lambda number: (-counts[number], number), default=0)
    elif face_id not in counts:
        known = ", ".join(map(str, sorted(counts))) or "none: there is no face at all"
        raise ValueError(f"`face_id` must be that of a person in the results; got {face_id}. Known: {known}.")
    values = np.full((len(labels), len(times)), np.nan, dtype=np.float32)
    chosen = np.asarray(people) == face_id
    values[:, np.asarray(rows, dtype=np.int64)[chosen]] = scores[chosen].T
    seen = np.zeros(len(times), dtype=bool)
    seen[np.asarray(rows, dtype=np.int64)[chosen]] = True

    count = len(labels)
    figure = make_figure(figsize=(11, 1.5 + 0.56 * count), layout="constrained", dpi=130)
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    most = 5.0 if intensity else 1.0
    gaps = _gaps(times, _thinned_mask(seen))
    handles: dict[str, Any] = {}
    limits = _single(limits_of(labels, thresholds, intensity))
    for row, (label, limit) in enumerate(zip(labels, limits, strict=True)):
        plot = axes[row]
        for start, end in gaps:
            handles["gap"] = plot.axvspan(start, end, color=_GAP, linewidth=0)
        x, y = thin_line(times, values[row])
        (handles["line"],) = plot.plot(x, y, color=_LINE, linewidth=1.2 if len(times) <= _DRAWN_POINTS else 0.6)
        alone = _alone(y)
        if alone.any():
            plot.plot(x[alone], y[alone], ".", color=_LINE, markersize=4)
        handles["limit"] = plot.axhline(limit, color=INACTIVE, linewidth=0.9, linestyle="--")
        x, y = _with_crossings(x, y, limit)
        above = np.nan_to_num(y, nan=-1.0) >= limit
        handles["active"] = plot.fill_between(x, 0, y, where=above, color=ACTIVE, alpha=0.75, linewidth=0)
        plot.set_ylim(0, most * 1.04)
        plot.set_yticks([0, most], ["0", f"{most:.0f}"], fontsize=9)
        plot.set_ylabel(au_title(label), rotation=0, ha="right", va="center", fontsize=11, labelpad=8)
        plot.spines[["top", "right"]].set_visible(False)
        plot.tick_params(axis="x", length=0 if row < count - 1 else 4)
    if times[-1] > times[0]:
        axes[-1].set_xlim(times[0], times[-1])
    axes[-1].set_xlabel("time in seconds", fontsize=11)
    others = len(counts) - (face_id in counts)
    words = {
        "line": "intensity, 0 to 5" if intensity else "probability",
        "limit": "2, from which DISFA counts it as active" if intensity else "threshold",
        "active": "active",
        "gap": f"person {face_id} not found" if others else "no face found",
    }
    drawn = [key for key in words if key in handles]
    figure.legend(
        [handles[key] for key in drawn],
        [words[key] for key in drawn],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=10,
    )
    who = f"person {face_id}, found in {counts[face_id]} of {len(times)} frames" if counts else "no face in any frame"
    if others:
        who += f"; {others} other {'person' if others == 1 else 'people'}"
    figure.suptitle(f"{title}: {who}" if title else who, fontsize=12)
    return figure


def _read_video_results(results: Iterable[FaceResult], labels: Sequence[str]) -> tuple[np.ndarray, array, array, Any]:
    """Times of the frames; then person, number of the frame and scores of each face."""
    times, people, rows, scores = array("d"), array("q"), array("q"), array("f")
    frame, source = None, None
    for result in results:
        source = result.source if source is None else source
        if result.source != source:
            raise ValueError(f"`results` must come from one video; got {source} and {result.source}.")
        if result.frame != frame:
            frame = result.frame
            times.append(result.timestamp)
        if result.success:
            people.append(result.face_id)
            rows.append(len(times) - 1)
            scores.extend(result.scores.get(label, np.nan) for label in labels)
    if not times:
        raise ValueError("`results` must hold at least one frame; got none.")
    return np.asarray(times), people, rows, np.asarray(scores).reshape(-1, len(labels))


def _single(limits: np.ndarray) -> np.ndarray:
    """Rounded as the scores are in memory, so that a score that equals its threshold still does."""
    return limits.astype(np.float32).astype(float)


def _stretches(count: int) -> np.ndarray:
    """Starts of the stretches of frames, each of which is drawn as two points."""
    return np.arange(count) if count <= _DRAWN_POINTS else np.arange(_DRAWN_POINTS // 2) * count // (_DRAWN_POINTS // 2)


def thin_line(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line as it can be drawn: at most 2000 points, the lowest and highest of each stretch where there are more.

    Args:
        times (`np.ndarray` of shape `(count,)`): Seconds.
        values (`np.ndarray` of shape `(count,)`): NaN where there is none.
    """
    if len(times) <= _DRAWN_POINTS:
        return times, values
    starts = _stretches(len(times))
    ends = np.append(starts[1:], len(times))
    picked = []
    for start, end in zip(starts, ends, strict=True):
        part = values[start:end]
        found = np.flatnonzero(~np.isnan(part))
        pair = (0, len(part) - 1) if not len(found) else (found[part[found].argmin()], found[part[found].argmax()])
        picked += [start + min(pair), start + max(pair)]
    return times[picked], values[picked]


def _thinned_mask(seen: np.ndarray) -> np.ndarray:
    starts = _stretches(len(seen))
    whole = np.maximum.reduceat(seen, starts)
    return np.repeat(whole, np.diff(np.append(starts, len(seen))))


def _gaps(times: np.ndarray, seen: np.ndarray) -> list[tuple[float, float]]:
    """Spans without the person, from the last frame with to the next one."""
    edges = np.concatenate([times[:1], times, times[-1:]])
    changes = np.flatnonzero(np.diff(np.concatenate([[1], seen.astype(int), [1]])))
    return [(float(edges[start]), float(edges[end + 1])) for start, end in changes.reshape(-1, 2)]


def _alone(y: np.ndarray) -> np.ndarray:
    """Points that no line reaches."""
    missing = np.concatenate([[True], np.isnan(y), [True]])
    return ~missing[1:-1] & missing[:-2] & missing[2:]


def _with_crossings(x: np.ndarray, y: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """The same line with a point wherever it crosses `limit`, so that an area can begin there."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    with np.errstate(invalid="ignore"):
        at = np.flatnonzero((y[:-1] - limit) * (y[1:] - limit) < 0)
    share = (limit - y[at]) / (y[at + 1] - y[at])
    return np.insert(x, at + 1, x[at] + share * (x[at + 1] - x[at])), np.insert(y, at + 1, limit)


def plot_summary(
    results: Iterable[FaceResult],
    labels: Sequence[str],
    thresholds: dict[str, float] | None = None,
    intensity: bool = False,
    title: str = "",
) -> Any:
    """One sheet about many pictures or a video: how often each AU is active, its scores, and what occurs together.

    Args:
        results (`Iterable[FaceResult]`): Read once and not kept.
        labels (`Sequence[str]`): Action units, in the order of the rows.
        thresholds (`dict[str, float]`, *optional*): Probability from which an AU counts as active; 0.5 where not given.
        intensity (`bool`, defaults to `False`): The scores are intensities 0-5: bars show their mean, and 2, DISFA's
            rule, counts as active.
        title (`str`, *optional*): Printed above.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: If there are no results.
    """
    make_figure = figure_class()
    facts, scores = _read_all_results(results, labels)
    limits = _single(limits_of(labels, thresholds, intensity))
    with np.errstate(invalid="ignore"):
        active = scores >= limits
    count, faces = len(labels), len(scores)

    figure = make_figure(figsize=(14, 2.4 + 0.43 * count), layout="constrained", dpi=110)
    bars, strips, together = figure.subplots(1, 3, width_ratios=[1, 1.15, 1.45])
    positions = np.arange(count)
    lengths = _mean(scores) if intensity else 100 * _mean(active)
    bars.barh(positions, lengths, color=ACTIVE, height=0.7)
    for position, length in zip(positions, lengths, strict=True):
        bars.text(length, position, f" {length:.2f}" if intensity else f" {length:.0f} %", va="center", fontsize=11)
    bars.set_xlim(0, 6.5 if intensity else 130)
    bars.set_xticks([0, 1, 2, 3, 4, 5] if intensity else [0, 50, 100])
    bars.set_yticks(positions, [au_title(label) for label in labels], fontsize=11)
    bars.set_title("Mean intensity" if intensity else "How often active", fontsize=12)
    bars.spines[["top", "right"]].set_visible(False)

    _draw_strips(strips, scores, limits, 5.0 if intensity else 1.0)
    unit = "intensity (line: 2, DISFA's rule)" if intensity else "probability (line: threshold)"
    strips.set_xlabel(f"{unit}\nheight: square root of the number of faces", fontsize=11)
    strips.set_title("Distribution of the scores", fontsize=12)
    strips.set_yticks(positions, labels, fontsize=11)
    for plot in (bars, strips):
        plot.set_ylim(count - 0.5, -0.5)

    shares = _together(active)
    image = together.imshow(np.ma.masked_invalid(shares), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    if count <= 16:
        for (row, column), share in np.ndenumerate(shares):
            text = "-" if np.isnan(share) else f"{share:.0f}"
            colour = "white" if share <= 55 else "black"
            together.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    together.set_xticks(positions, labels, fontsize=10 if count <= 16 else 8, rotation=45 if count <= 16 else 90)
    together.set_yticks(positions, labels, fontsize=11)
    together.set_title("Active together", fontsize=12)
    together.set_xlabel(
        "of the faces with the row's AU active,\n% with the column's AU active (-: never active)", fontsize=11
    )
    figure.colorbar(image, ax=together, fraction=0.04, pad=0.02, aspect=40)
    scale = "mean intensity, 0 to 5" if intensity else "% of faces"
    bars.set_xlabel(f"{scale}\n({faces} faces)" if faces else "there is no face", fontsize=11)
    figure.suptitle(f"{title}\n{facts}" if title else facts, fontsize=12, linespacing=1.6)
    return figure


def _read_all_results(results: Iterable[FaceResult], labels: Sequence[str]) -> tuple[str, np.ndarray]:
    """What the sheet says at its head, and the scores of each face."""
    pictures, empty, crowd, most = 0, 0, 0, 0
    video, place, last = False, None, -1
    people: set[tuple[str, int]] = set()
    scores, confidence = array("f"), array("f")
    for result in results:
        # pictures without a file are told apart by their numbers beginning anew
        if (result.source, result.frame) != place or last < 0 or result.face_id <= last:
            place, crowd = (result.source, result.frame), 0
            pictures += 1
            empty += not result.success
        last = result.face_id
        if result.success:
            crowd += 1
            most = max(most, crowd)
            video = video or result.frame > 0
            people.add((result.source, result.face_id))
            confidence.append(result.confidence)
            scores.extend(result.scores.get(label, np.nan) for label in labels)
    if not pictures:
        raise ValueError("`results` must hold at least one picture or frame; got none.")
    faces = len(confidence)
    unit = "frame" if video else "picture"
    facts = [f"{pictures} {unit}{'s' * (pictures != 1)}"]
    facts += [f"{faces} face{'s' * (faces != 1)}", f"{empty} {unit}{'s' * (empty != 1)} without a face"]
    if video:
        facts.append(f"{len(people)} {'person' if len(people) == 1 else 'people'}")
    elif faces:
        facts.append(f"at most {most} in a picture")
    told = np.asarray(confidence)[~np.isnan(confidence)]
    if len(told):
        low, middle = np.quantile(told, [0.05, 0.5])
        facts.append(f"confidence in the faces: median {middle:.2f}, 5 % at most {low:.2f}")
    return "   ·   ".join(facts), np.asarray(scores).reshape(-1, len(labels))


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=0, dtype=float) if len(values) else np.zeros(values.shape[1])


def _together(active: np.ndarray) -> np.ndarray:
    """Percent of the faces with the row's AU that have the column's; NaN where the row's is never active."""
    both = active.T.astype(float) @ active.astype(float)
    with np.errstate(invalid="ignore"):
        return 100 * both / np.diag(both)[:, None]


def _draw_strips(axes: Any, scores: np.ndarray, limits: np.ndarray, most: float) -> None:
    edges = np.linspace(0, most, 41)
    for row, limit in enumerate(limits):
        # the threshold is an edge too: no bar lies on both sides
        inner = edges[1:-1][np.abs(edges[1:-1] - limit) > edges[1] / 4]
        cut = np.unique(
            np.concatenate([[0, most], inner, [limit] if edges[1] / 4 < limit < most - edges[1] / 4 else []])
        )
        counts = np.histogram(np.clip(scores[:, row], 0, most), cut)[0] / np.diff(cut)
        # roots, or the few scores far from the many would not be seen
        heights = 0.8 * np.sqrt(counts / max(counts.max(), 1e-9))
        colours = [ACTIVE if start >= limit else INACTIVE for start in cut[:-1]]
        axes.bar(cut[:-1], -heights, np.diff(cut), bottom=row + 0.42, align="edge", color=colours)
        axes.axhline(row + 0.42, color=_GAP, linewidth=0.8)
        axes.vlines(limit, row - 0.42, row + 0.42, color="black", linewidth=1.3)
    axes.set_xlim(0, most)
    axes.spines[["top", "right"]].set_visible(False)


def plot_activation_maps(
    crop: Image.Image,
    scores: dict[str, float],
    maps: np.ndarray,
    thresholds: dict[str, float] | None = None,
    intensity: bool = False,
    title: str = "",
) -> Any:
    """Where each action unit was seen: the activation map of every AU over the face.

    Args:
        crop (`PIL.Image.Image`): The face as the model saw it.
        scores (`dict[str, float]`): Probability or intensity by AU, in the order of the maps.
        maps (`np.ndarray` of shape `(num_labels, rows, columns)`): `activation_maps` of this face.
        thresholds (`dict[str, float]`, *optional*): Probability from which an AU counts as active; 0.5 where not given.
        intensity (`bool`, defaults to `False`): The scores are intensities 0-5; 2, DISFA's rule, counts as active.
        title (`str`, *optional*): Printed above.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: If there is not one map a score.
    """
    if len(maps) != len(scores):
        raise ValueError(f"`maps` must hold one map for each of the {len(scores)} scores; got {len(maps)}.")
    make_figure = figure_class()
    columns = min(4, len(scores))
    lines = -(-len(scores) // columns)
    figure = make_figure(figsize=(11, 1.3 + 2.95 * lines), layout="compressed", dpi=130)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    grey = crop.convert("L")
    limits = limits_of(list(scores), thresholds, intensity)
    for axes, (label, value), values, limit in zip(grid, scores.items(), maps, limits, strict=False):
        extent = (0, crop.width, crop.height, 0)
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
        shown = axes.imshow(enlarge(values, crop.size), cmap="cividis", alpha=0.6, extent=extent)
        number = f"{value:.1f}" if intensity else f"{value:.2f}".removeprefix("0")
        axes.set_title(f"{au_title(label)} {number}", fontsize=11, color="black")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if value >= limit:
            axes.title.set(color=ACTIVE, fontweight="bold")
            axes.spines[:].set(visible=True, color=ACTIVE, linewidth=4)
    for axes in grid[len(scores) :]:
        axes.set_axis_off()
    bar = figure.colorbar(shown, ax=list(grid), location="bottom", fraction=0.02, aspect=70, pad=0.02)
    bar.set_ticks([bar.vmin, bar.vmax], labels=["least", "most"])
    for text, side in zip(bar.ax.get_xticklabels(), ["left", "right"], strict=True):
        text.set_horizontalalignment(side)
    bar.set_label(
        "brighter: more attention of this AU's descriptions, each map on its own scale; orange: active", fontsize=11
    )
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


__all__ = ["plot_activation_maps", "plot_summary", "plot_timeline", "thin_line"]
