"""From picture files, folders and videos to a file of results: batches, bad pictures, interrupted runs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .detector import ActionUnitDetector, Picture, as_picture, batches, source_name, video_pictures
from .faces import FaceFollower, GivenFaces
from .faces.webcam import is_webcam
from .prediction_shards import Share, parts_of, rows_of
from .prediction_sources import Unit, find_sources, is_video, units
from .results import FaceResult, InUseError, ResultFile

# told after every batch: the pictures, their rows, and how many sources are done
OnBatch = Callable[[Sequence[Picture], Sequence[FaceResult], int], None]


@dataclass
class PredictionReport:
    """What a run did.

    Args:
        faces (`int`): Faces found.
        empty (`int`): Pictures and frames without a face.
        errors (`list[str]`): One sentence for every source that could not be read, or not to its end.
        sources (`int`): Files that were gone through.
        unlisted (`list[str]`): Files that the table of faces does not name.
    """

    faces: int = 0
    empty: int = 0
    errors: list[str] = field(default_factory=list)
    sources: int = 0
    unlisted: list[str] = field(default_factory=list)


def predict_sources(
    detector: ActionUnitDetector,
    sources: Iterable[Path],
    out: ResultFile | None = None,
    *,
    strict: bool = False,
    on_batch: OnBatch | None = None,
    before_finish: Callable[[ResultFile], object] | None = None,
    given: GivenFaces | None = None,
    stop: Callable[[], bool] | None = None,
    share: Share | None = None,
    **video,
) -> PredictionReport:
    """Read pictures and videos, in their order, and write a row a face.

    After each batch the rows and the place reached are on the disk; called again with the same file, the work goes on
    there, batch for batch as it would have, and ends with the same bytes. What is held in memory does not grow with
    the number of sources.

    Args:
        detector (`ActionUnitDetector`): What reads them.
        sources (`Iterable[Path]`): See [`Sources`].
        out (`ResultFile`, *optional*): Where rows go; finished at the end.
        strict (`bool`, defaults to `False`): Stop at the first source that cannot be read; by default it is left out
            and reported.
        on_batch (`Callable`, *optional*): Told the pictures, rows and number of sources done after every batch.
        before_finish (`Callable`, *optional*): Given `out` when all its rows are there and it is not yet in its place,
            so that what is drawn from them is drawn again after an interruption.
        given (`GivenFaces`, *optional*): Where the faces are; none is looked for then.
        stop (`Callable`, *optional*): Asked before every frame of a camera; `True` ends the recording.
        share (`Share`, *optional*): Which of the sources to read; `out` is then the part of that share, and left for
            [`join_shares`].
        video: `every`, `start` and `end` of [`read_video`].

    Returns:
        [`PredictionReport`] of this call and, of an interrupted run, what came before.

    Raises:
        FileNotFoundError, ValueError: For a source that cannot be read, if `strict`; else if none can be read. If
            `given` has no row of any source. If an interrupted run was begun with other sources.
    """
    unlisted: list[str] = []
    try:
        if given is not None:
            unlisted = given.match([source_name(source) for source in sources])
        report = _predict(detector, sources, out, strict, on_batch, given, stop, share, video)
        report.unlisted = unlisted
        if share is None:
            _finish(report, out, before_finish)
    except (OSError, ValueError):
        # what was never written to is no interrupted run
        if out is not None and not out.state:
            out.discard()
        raise
    finally:
        if out is not None:
            out.close()
    return report


def join_shares(
    share: Share,
    out: Path,
    target: Callable[[], ResultFile],
    before_finish: Callable[[ResultFile], object] | None = None,
) -> PredictionReport | None:
    """Put the parts of all shares together in the order of the sources, once all are read.

    Args:
        share (`Share`): One of them, read to its end.
        out (`Path`): The file of results.
        target (`Callable`): Makes the [`ResultFile`] of `out`.
        before_finish (`Callable`, *optional*): As of [`predict_sources`].

    Returns:
        [`PredictionReport`] of all shares; `None` if some are not read yet, or another process puts them together.

    Raises:
        ValueError: If the shares are not of the same sources and settings, or nothing could be read.
    """
    if not parts_of(share, out):
        return None
    try:
        whole = target()
    except InUseError:
        return None
    try:
        # another process may have put them together since
        parts = parts_of(share, out)
        if not parts:
            whole.discard()
            return None
        whole.restart()
        whole.write_lines(rows_of(parts), {"joined": share.count})
        faces, empty = (sum(part.state[name] for part in parts) for name in ("faces", "empty"))
        report = PredictionReport(faces, empty, list(_skipped(whole)), parts[0].state["source"])
        try:
            _finish(report, whole, before_finish)
        finally:
            # kept until the file is there, or there is nothing to put into it
            if not whole.spool.exists():
                share.forget(out)
    finally:
        whole.close()
    return report


def _finish(report: PredictionReport, out: ResultFile | None, before_finish) -> None:
    if report.errors and not report.faces + report.empty:
        if out is not None:
            out.discard()
        raise ValueError("\n".join(report.errors))
    if out is not None:
        if before_finish is not None:
            before_finish(out)
        out.finish()


def _skipped(out: ResultFile) -> Iterator[str]:
    return (sentence for note in out.notes() for sentence in note.get("skipped", ()))


def _predict(detector, sources, out, strict, on_batch, given, stop, share, video) -> PredictionReport:
    begun = out is not None and bool(out.state)
    place: dict = {"source": 0, "frame": 0, "follower": None, "digest": "", "faces": 0, "empty": 0}
    place |= out.state if begun else {}
    report = PredictionReport(place["faces"], place["empty"], list(_skipped(out)) if begun else [])
    for step in _steps(sources, place, detector, stop, share, video):
        if strict and step.errors:
            raise step.errors[0]
        if given is not None:
            for picture in step.pictures:
                picture.faces = given(picture.image, picture.source, picture.frame if step.follower else None)
        results = detector.step(step.pictures, step.follower) if step.pictures else []
        report.faces += sum(result.success for result in results)
        report.empty += sum(not result.success for result in results)
        report.errors += map(str, step.errors)
        report.sources = step.source
        # before the rows count as done: a run that is shot while it draws draws again
        if on_batch is not None:
            on_batch(step.pictures, results, step.source)
        note: dict = {"skipped": [*map(str, step.errors)]} if step.errors else {}
        if share is not None and step.ended:
            note["unit"] = step.unit
        if out is not None and (results or note or (share is not None and step.unit is None)):
            follower = step.follower.state() if step.follower is not None else None
            state = {"source": step.source, "frame": step.frame, "follower": follower, "digest": step.digest}
            state |= {"faces": report.faces, "empty": report.empty, "read": step.unit is None}
            out.write(results, state, **({"note": note} if note else {}))
    return report


@dataclass
class _Step:
    """A batch, and the place that is reached when it is done: a source, and in a video a frame of it.

    `unit` is the number of what it is a part of, and `ended` whether the last; `None` belongs to the end of all.
    """

    unit: int | None
    source: int
    digest: str
    frame: int = 0
    pictures: Sequence[Picture] = ()
    follower: FaceFollower | None = None
    errors: Sequence[Exception] = ()
    ended: bool = False


def _steps(
    sources: Iterable[Path], place: dict, detector: ActionUnitDetector, stop, share: Share | None, video: dict
) -> Iterator[_Step]:
    """Batches of pictures from several files, and of the frames of one video, from a place on."""
    known = False
    for number, unit in enumerate(units(sources, detector.batch_size)):
        # the last one, which is empty, comes even if all before it were read
        if unit.begin < place["source"] and unit.sources:
            continue
        if not known and (unit.begin, unit.before) != (place["source"], place["digest"]):
            raise ValueError(
                f"`paths` must be what the run was begun with; the first {place['source']:,} files are others now. Put "
                "them back, or choose another file for the results."
            )
        known = True
        if not unit.sources:
            yield _Step(None, unit.begin, unit.before)
        elif share is not None and not share.holds(number):
            continue
        elif is_video(unit.sources[0]):
            reached = place["follower"] is not None and unit.begin == place["source"]
            yield from _video_steps(number, unit, place if reached else None, detector, stop, video)
        else:
            yield _pictures_step(number, unit)


def _pictures_step(number: int, unit: Unit) -> _Step:
    pictures: list[Picture] = []
    errors: list[Exception] = []
    for path in unit.sources:
        try:
            if path.is_dir():
                raise PermissionError(f"{path} must be a folder that can be read; permission is denied.")
            pictures.append(as_picture(path))
        except (OSError, ValueError) as error:
            errors.append(error)
    end = unit.begin + len(unit.sources)
    return _Step(number, end, unit.after, pictures=pictures, errors=errors, ended=True)


def _video_steps(number: int, unit: Unit, place: dict | None, detector, stop, video: dict) -> Iterator[_Step]:
    path, follower, size = unit.sources[0], detector.follower(), detector.batch_size
    damage: list[str] = []
    options = {**video, "on_damage": damage.append}
    end = _Step(number, unit.begin + 1, unit.after, ended=True)
    if is_webcam(path):
        if place is not None:
            message = f"{path} was interrupted before; what was read then is kept, and nothing was recorded now."
            end.errors = [ValueError(message)]
            yield end
            return
        # frames at even distances, not many at once and then a gap
        options["stop"], size = stop, 1
    elif place is not None:
        options["skip_frames"] = place["frame"]
        follower.restore(place["follower"])
    broken: list[Exception] = []
    try:
        for batch in batches(video_pictures(path, **options), size):
            yield _Step(number, unit.begin, unit.before, batch[-1].frame + 1, batch, follower)
    except (OSError, ValueError) as error:
        broken = [error]
    end.errors = [*broken, *map(ValueError, damage)]
    yield end


__all__ = ["OnBatch", "PredictionReport", "find_sources", "is_video", "join_shares", "predict_sources"]
