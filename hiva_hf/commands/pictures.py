"""Pictures that `hiva predict` draws: a face each, and from the rows of a whole run."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from ..detector import ActionUnitDetector, Picture, video_pictures
from ..overlay import OverlayVideo
from ..plotting import plot_prediction, save_figure
from ..plotting_video import plot_summary, plot_timeline
from ..prediction import is_video
from ..results import FaceResult, ResultFile


def draw_faces(
    pictures: Sequence[Picture],
    results: Sequence[FaceResult],
    plot: Path,
    number: int,
    alone: bool,
    detector: ActionUnitDetector,
    cropped: bool,
) -> list[Path]:
    """One overlay a face of the pictures, videos left out."""
    images = {picture.source: picture.image for picture in pictures}
    found = [result for result in results if result.success and not is_video(Path(result.source))]
    single = alone and len(found) == 1 and plot.suffix != "" and not plot.is_dir()
    paths = []
    for count, r in enumerate(found, start=number):
        figure = plot_prediction(
            images[r.source],
            r.scores,
            r.crop,
            r.activation_maps,
            None if cropped else r.box,
            detector.limits,
            intensity=detector.intensity,
        )
        target = plot if single else plot / f"{count:04d}-{Path(r.source).stem}.png"
        paths.append(save_figure(figure, target))
    return paths


def draw_timelines(out: ResultFile, plot: Path, alone: bool, limits: dict) -> list[Path]:
    """The timeline of each video that could be read, of the person who is seen in most of its frames."""
    paths: list[Path] = []
    for source, rows in groupby(out.rows(), key=lambda result: result.source):
        video = Path(source)
        if not is_video(video):
            continue
        figure = plot_timeline(rows, out.labels, limits, out.intensity, title=video.name)
        single = alone and plot.suffix != "" and not plot.is_dir()
        paths.append(save_figure(figure, plot if single else plot / f"{len(paths):04d}-{video.stem}-timeline.png"))
    return paths


def draw_summary(out: ResultFile, path: Path, limits: dict) -> Path:
    """One page on all faces of a run."""
    return save_figure(plot_summary(out.rows(), out.labels, limits, out.intensity), path)


def draw_video(out: ResultFile, video: Path, path: Path, limits: dict, **options) -> Path:
    """The only video of a run with what was found in it; decoded again, so that a resumed run draws all of it."""
    rows = groupby(out.rows(), key=lambda result: result.frame)
    with OverlayVideo(path, out.labels, limits, out.intensity) as overlay:
        for picture, (frame, results) in zip(video_pictures(video, **options), rows, strict=False):
            if picture.frame != frame:
                raise ValueError(f"{video} must not change while it is read; frame {frame} is missing in it now.")
            overlay.write(picture.image, list(results), picture.timestamp)
    return path
