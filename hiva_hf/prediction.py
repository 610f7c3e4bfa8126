"""From picture files, folders and videos to a file of results: batches, bad pictures, interrupted runs."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from .detector import ActionUnitDetector, Picture, as_picture, batches, source_name, video_pictures
from .faces import FaceFollower, GivenFaces
from .faces.video import VIDEO_SUFFIXES
from .faces.webcam import is_webcam
from .results import FaceResult, ResultFile

# Pillow only writes these, or reads them with the help of another program: no photographs that lie in a folder
_NO_PICTURES = frozenset((".bufr", ".emf", ".eps", ".grib", ".h5", ".hdf", ".palm", ".pdf", ".ps", ".wmf"))

# told after every batch: the pictures, their rows, and how many sources are done
OnBatch = Callable[[Sequence[Picture], Sequence[FaceResult], int], None]


def find_sources(paths: Sequence[str | Path]) -> list[Path]:
    """Pictures and videos, folders searched through.

    Args:
        paths (`Sequence[str | Path]`): Files, taken whatever their ending; `webcam`; folders, of which every
            file with the ending of a picture or video is taken, in the order of names. A folder that is linked into
            itself is entered once; one that must not be read stands for itself, and is reported when its turn comes.

    Returns:
        `list[Path]`

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds neither picture nor video.
    """
    suffixes = VIDEO_SUFFIXES | {suffix.lower() for suffix in Image.registered_extensions()} - _NO_PICTURES
    sources: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = [entry for entry in _walk(path, set()) if entry.is_dir() or entry.suffix.lower() in suffixes]
            if not found:
                raise FileNotFoundError(f"{path} must hold pictures or videos; no file in it has the ending of one.")
            sources += found
        elif path.exists() or is_webcam(path):
            sources.append(path)
        else:
            raise FileNotFoundError(f"`paths` must be pictures, videos or folders; there is no file or folder {path}.")
    return sources


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        yield folder
        return
    for entry in entries:
        # `entry.is_dir()` raises for a link to itself
        if os.path.isdir(entry):
            yield from _walk(Path(entry.path), seen)
        elif not entry.name.startswith("."):
            yield Path(entry.path)


def is_video(path: Path) -> bool:
    """Whether a source is read as a video: by its ending, or as a camera."""
    return path.suffix.lower() in VIDEO_SUFFIXES or is_webcam(path)


@dataclass
class PredictionReport:
    """What a run did.

    Args:
        faces (`int`): Faces found.
        empty (`int`): Pictures and frames without a face.
        errors (`list[str]`): One sentence for every source that could not be read, or not to its end.
        unlisted (`list[str]`): Files that the table of faces does not name.
    """

    faces: int = 0
    empty: int = 0
    errors: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)


def predict_sources(
    detector: ActionUnitDetector,
    sources: Sequence[Path],
    out: ResultFile | None = None,
    *,
    strict: bool = False,
    on_batch: OnBatch | None = None,
    before_finish: Callable[[ResultFile], object] | None = None,
    given: GivenFaces | None = None,
    stop: Callable[[], bool] | None = None,
    **video,
) -> PredictionReport:
    """Read pictures and videos, in their order, and write a row a face.

    After each batch the rows and the place reached are on the disk; called again with the same file, the work goes on
    there, batch for batch as it would have, and ends with the same bytes.

    Args:
        detector (`ActionUnitDetector`): What reads them.
        sources (`Sequence[Path]`): See [`find_sources`].
        out (`ResultFile`, *optional*): Where rows go; finished at the end.
        strict (`bool`, defaults to `False`): Stop at the first source that cannot be read; by default it is left out
            and reported.
        on_batch (`Callable`, *optional*): Told the pictures, rows and number of sources done after every batch.
        before_finish (`Callable`, *optional*): Given `out` when all its rows are there and it is not yet in its place,
            so that what is drawn from them is drawn again after an interruption.
        given (`GivenFaces`, *optional*): Where the faces are; none is looked for then.
        stop (`Callable`, *optional*): Asked before every frame of a camera; `True` ends the recording.
        video: `every`, `start` and `end` of [`read_video`].

    Returns:
        [`PredictionReport`] of this call and, of an interrupted run, what came before.

    Raises:
        FileNotFoundError, ValueError: For a source that cannot be read, if `strict`; else if none can be read. If
            `given` has no row of any source.
    """
    unlisted: list[str] = []
    try:
        if given is not None:
            unlisted = given.match([source_name(source) for source in sources])
        report = _predict(detector, sources, out, strict, on_batch, given, stop, video)
        report.unlisted = unlisted
        if out is not None:
            if before_finish is not None:
                before_finish(out)
            out.finish()
    except (OSError, ValueError):
        # what was never written to is no interrupted run
        if out is not None and not out.state:
            out.discard()
        raise
    finally:
        if out is not None:
            out.close()
    return report


def _predict(detector, sources, out, strict, on_batch, given, stop, video) -> PredictionReport:
    state: dict = dict(out.state) if out is not None and out.state else {"source": 0, "frame": 0, "follower": None}
    report = PredictionReport(state.pop("faces", 0), state.pop("empty", 0), list(state.pop("errors", [])))
    for step in _steps(sources, state, detector, stop, video):
        if step.error is not None:
            if strict:
                raise step.error
            report.errors.append(str(step.error))
        if given is not None:
            for picture in step.pictures:
                picture.faces = given(picture.image, picture.source, picture.frame if step.follower else None)
        results = detector.step(step.pictures, step.follower) if step.pictures else []
        report.faces += sum(result.success for result in results)
        report.empty += sum(not result.success for result in results)
        # before the rows count as done: a run that is shot while it draws draws again
        if on_batch is not None:
            on_batch(step.pictures, results, step.source)
        if out is not None and results:
            told = {"faces": report.faces, "empty": report.empty, "errors": report.errors}
            follower = step.follower.state() if step.follower is not None else None
            out.write(results, {"source": step.source, "frame": step.frame, "follower": follower, **told})
    if report.errors and not report.faces + report.empty:
        raise ValueError("\n".join(report.errors))
    return report


@dataclass
class _Step:
    """A batch, and the place that is reached when it is done: a source, and in a video a frame of it."""

    source: int
    frame: int = 0
    pictures: Sequence[Picture] = ()
    follower: FaceFollower | None = None
    error: Exception | None = None


def _steps(sources: Sequence[Path], place: dict, detector: ActionUnitDetector, stop, video: dict) -> Iterator[_Step]:
    """Batches of pictures from several files, and of the frames of one video."""
    waiting: list[Picture] = []
    for index in range(place["source"], len(sources)):
        if is_video(sources[index]):
            yield _Step(index, pictures=waiting)
            waiting = []
            reached = place["follower"] is not None and index == place["source"]
            yield from _video_steps(sources[index], index, place if reached else None, detector, stop, video)
            continue
        try:
            if sources[index].is_dir():
                raise PermissionError(f"{sources[index]} must be a folder that can be read; permission is denied.")
            waiting.append(as_picture(sources[index]))
        except (OSError, ValueError) as error:
            yield _Step(index, error=error)
        if len(waiting) == detector.batch_size:
            yield _Step(index + 1, pictures=waiting)
            waiting = []
    yield _Step(len(sources), pictures=waiting)


def _video_steps(path: Path, index: int, place: dict | None, detector, stop, video: dict) -> Iterator[_Step]:
    follower, size = detector.follower(), detector.batch_size
    damage: list[str] = []
    options = {**video, "on_damage": damage.append}
    if is_webcam(path):
        if place is not None:
            message = f"{path} was interrupted before; what was read then is kept, and nothing was recorded now."
            yield _Step(index + 1, error=ValueError(message))
            return
        # frames at even distances, not many at once and then a gap
        options["stop"], size = stop, 1
    elif place is not None:
        options["skip_frames"] = place["frame"]
        follower.restore(place["follower"])
    try:
        for batch in batches(video_pictures(path, **options), size):
            yield _Step(index, batch[-1].frame + 1, batch, follower)
    except (OSError, ValueError) as error:
        yield _Step(index + 1, error=error)
    for message in damage:
        yield _Step(index + 1, error=ValueError(message))


__all__ = ["OnBatch", "PredictionReport", "find_sources", "is_video", "predict_sources"]
