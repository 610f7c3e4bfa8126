"""Pictures that `hiva predict` draws: of each face, and from the rows of a whole run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from ..detector import ActionUnitDetector, Picture, source_name, video_pictures
from ..faces.webcam import is_webcam
from ..overlay import OVERLAY_SUFFIXES, OverlayVideo
from ..plotting import plot_prediction, save_figure
from ..plotting_video import plot_activation_maps, plot_summary, plot_timeline
from ..prediction import is_video
from ..results import FaceResult, ResultFile

SUFFIXES = {".png", ".jpg", ".jpeg", ".pdf", ".svg"}


@dataclass
class Drawings:
    """What a run is to draw, and what it has drawn.

    Args:
        sources (`Sequence[Path]`): What is read.
        plot (`Path`, *optional*): An overlay of each face and a timeline of each video; a folder where there are
            several sources.
        maps (`Path`, *optional*): All activation maps of each face; a folder where there are several sources.
        summary (`Path`, *optional*): One page on all faces.
        video_out (`Path`, *optional*): The only video with what was found drawn in.
        part (`dict`): `every`, `start` and `end`: what of a video is read.
        cropped (`bool`, defaults to `False`): The pictures are crops: there is no box to draw.

    Raises:
        ValueError: If an ending is none of a picture, or the sources do not fit.
    """

    sources: Sequence[Path]
    plot: Path | None = None
    maps: Path | None = None
    summary: Path | None = None
    video_out: Path | None = None
    part: dict = field(default_factory=dict)
    cropped: bool = False
    paths: list[Path] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for option, path, endings in (
            ("--plot", self.plot, SUFFIXES | {""}),
            ("--maps", self.maps, SUFFIXES | {""}),
            ("--summary", self.summary, SUFFIXES),
            ("--video-out", self.video_out, set(OVERLAY_SUFFIXES)),
        ):
            if path is None:
                continue
            known = ", ".join(sorted(endings - {""}))
            if path.suffix.lower() not in endings:
                folder = "be a folder or " if "" in endings else ""
                raise ValueError(f"`{option}` must {folder}end in {known}; got {path}.")
            if "" in endings and path.suffix and len(self.sources) > 1 and not path.is_dir():
                raise ValueError(f"`{option}` must be a folder for {len(self.sources)} files; got {path}.")
        videos = [path for path in self.sources if is_video(path)]
        if self.video_out is not None and (len(self.sources), len(videos)) != (1, 1):
            raise ValueError(
                f"`--video-out` needs one video as input; got {len(self.sources)} files with {len(videos)} videos."
            )
        self._places = {source_name(path): index for index, path in enumerate(self.sources)}
        self.has_pictures, self.has_videos = len(videos) < len(self.sources), bool(videos)
        self._live = any(is_webcam(path) for path in videos)

    @property
    def needs_maps(self) -> bool:
        """`bool`: Whether the detector is to return activation maps."""
        return self.has_pictures and (self.plot is not None or self.maps is not None)

    @property
    def needs_rows(self) -> bool:
        """`bool`: Whether the rows of the whole run must be kept until its end."""
        return (self.plot is not None and self.has_videos) or self.summary is not None or self.video_out is not None

    @contextmanager
    def camera(self, detector: ActionUnitDetector) -> Iterator[Callable[[Picture, Sequence[FaceResult]], None]]:
        """What a camera saw cannot be read again: its video is drawn as it comes, and is there if anything was seen."""
        with ExitStack() as stack:
            opened: list[OverlayVideo] = []

            def write(picture: Picture, results: Sequence[FaceResult]) -> None:
                if self.video_out is None or not self._live:
                    return
                if not opened:
                    overlay = OverlayVideo(self.video_out, detector.labels, detector.limits, detector.intensity)
                    opened.append(stack.enter_context(overlay))
                    self.paths.append(self.video_out)
                opened[0].write(picture.image, results, picture.timestamp)

            yield write

    def of_batch(
        self, pictures: Sequence[Picture], results: Iterable[FaceResult], detector: ActionUnitDetector
    ) -> None:
        """Draw the faces of pictures, videos left out."""
        if not self.needs_maps:
            return
        images = {picture.source: picture.image for picture in pictures}
        for source, faces in groupby(results, key=lambda result: result.source):
            if not is_video(Path(source)):
                for result in [face for face in faces if face.success]:
                    self._face(images[source], result, detector)

    def _face(self, image, result: FaceResult, detector: ActionUnitDetector) -> None:
        limits, intensity = detector.limits, detector.intensity
        # the largest face has the plain name
        name = Path(result.source).stem + (f"-{result.face_id}" if result.face_id else "")
        maps = result.activation_maps
        if self.plot is not None:
            box = None if self.cropped else result.box
            figure = plot_prediction(image, result.scores, result.crop, maps, box, limits, intensity=intensity)
            self._save(figure, self.plot, result, name)
        if self.maps is not None and result.crop is not None and maps is not None:
            figure = plot_activation_maps(result.crop, result.scores, maps, limits, intensity, title=name)
            self._save(figure, self.maps, result, f"{name}-maps")

    def _save(self, figure, place: Path, result: FaceResult, name: str) -> None:
        if place.suffix and not place.is_dir():
            path = place.with_name(f"{place.stem}-{result.face_id}{place.suffix}") if result.face_id else place
        else:
            # numbered by the file, so that equal names of two folders do not meet
            path = place / f"{self._places[result.source]:04d}-{name.replace(':', '-')}.png"
        self.paths.append(save_figure(figure, path))

    def of_rows(self, rows: ResultFile, detector: ActionUnitDetector) -> None:
        """Draw what tells of the whole run."""
        if not rows.state:
            # nothing was read, so there is nothing to draw
            return
        labels, limits, intensity = rows.labels, detector.limits, detector.intensity
        if self.plot is not None and self.has_videos:
            for source, results in groupby(rows.rows(), key=lambda result: result.source):
                video = Path(source)
                if is_video(video):
                    figure = plot_timeline(results, labels, limits, intensity, title=video.name)
                    nobody = FaceResult(source, 0, 0.0, 0, False, 0.0)
                    self._save(figure, self.plot, nobody, f"{video.stem}-timeline")
        if self.summary is not None:
            self.paths.append(save_figure(plot_summary(rows.rows(), labels, limits, intensity), self.summary))
        if self.video_out is not None and not self._live:
            self._video(rows, self.video_out, detector)

    def _video(self, rows: ResultFile, path: Path, detector: ActionUnitDetector) -> None:
        # decoded again, so that a resumed run draws all of it
        video = self.sources[0]
        frames = groupby(rows.rows(), key=lambda result: result.frame)
        with OverlayVideo(path, rows.labels, detector.limits, detector.intensity) as overlay:
            for picture, (frame, results) in zip(video_pictures(video, **self.part), frames, strict=False):
                if picture.frame != frame:
                    raise ValueError(f"{video} must not change while it is read; frame {frame} is missing in it now.")
                overlay.write(picture.image, list(results), picture.timestamp)
        self.paths.append(path)
