"""Videos with what the model found drawn into every frame (extra `faces`)."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFont

from .faces.video import import_av
from .files import whole_file
from .plotting import ACTIVE, INACTIVE, PALETTE, au_title, limits_of
from .results import FaceResult

OVERLAY_SUFFIXES = (".mp4", ".mkv", ".mov")
LONGER_SIDE = 1280
# fine enough for every common frame rate, and the finest that MPEG-4 allows
_TIME_BASE = Fraction(1, 60_000)
_CODECS = ("libx264", "mpeg4")
_BACKGROUND, _TRACK, _TEXT, _MARK = "#14181D", "#2B323A", "#F2F4F6", "#FFFFFF"


def face_colour(face_id: int) -> str:
    """Colour of a person's box, from a palette that colour-blind readers can tell apart; repeats after seven."""
    return PALETTE[face_id % len(PALETTE)]


def fitted_size(size: tuple[int, int], longer_side: int = LONGER_SIDE) -> tuple[int, int]:
    """Width and height, even as video codecs want them, scaled down so that the longer is at most `longer_side`."""
    scale = min(1.0, longer_side / max(size))
    return max(2, round(size[0] * scale / 2) * 2), max(2, round(size[1] * scale / 2) * 2)


def draw_frame(
    image: Image.Image,
    results: Sequence[FaceResult],
    labels: Sequence[str],
    thresholds: dict[str, float] | None = None,
    intensity: bool = False,
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """A picture with a box around each face, and at its right the action units of one of them.

    The panel tells of the face with the lowest number: the largest of a picture, and in a video the same person for as
    long as that person is seen.

    Args:
        image (`PIL.Image.Image`): The picture.
        results (`Sequence[FaceResult]`): Its faces.
        labels (`Sequence[str]`): Action units, in the order of the rows.
        thresholds (`dict[str, float]`, *optional*): Probability from which an AU counts as active; 0.5 where not given.
        intensity (`bool`, defaults to `False`): The scores are intensities 0-5; no threshold is marked.
        size (`tuple[int, int]`, *optional*): Width and height for the picture, which black bars fill up; by default
            [`fitted_size`] of the picture.

    Returns:
        `PIL.Image.Image`: RGB, of even width and height, which depend on `size` and `labels` only.
    """
    size = size or fitted_size(image.size)
    limits = None if intensity else tuple(limits_of(labels, thresholds, intensity).tolist())
    panel = _panel(size, tuple(labels), limits)
    canvas = panel.empty.copy()
    scale = min(size[0] / image.width, size[1] / image.height)
    shown = image if image.mode == "RGB" else image.convert("RGB")
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # one pixel of rounding is no reason for a black line
    inner = tuple(whole if whole - part <= 1 else part for part, whole in zip(inner, size, strict=True))  # type: ignore[assignment]
    if inner != image.size:
        shown = shown.resize(inner, Image.Resampling.BILINEAR, reducing_gap=2.0)
    left, top = (size[0] - inner[0]) // 2, (canvas.height - inner[1]) // 2
    canvas.paste(shown, (left, top))

    draw = ImageDraw.Draw(canvas)
    faces = sorted((result for result in results if result.success), key=lambda face: face.face_id)
    # the lowest number last, so that nothing lies over it
    for face in reversed(faces):
        if face.box:
            x0, y0, x1, y1 = face.box
            _draw_box(draw, (left + x0 * scale, top + y0 * scale, left + x1 * scale, top + y1 * scale), face, size)
    panel.fill(draw, faces[0] if faces else None, labels, thresholds, intensity)
    return canvas


def _draw_box(draw: ImageDraw.ImageDraw, box: Sequence[float], face: FaceResult, size: tuple[int, int]) -> None:
    colour = face_colour(face.face_id)
    draw.rectangle([round(side) for side in box], outline=colour, width=max(3, max(size) // 320))
    font = _font(max(13, min(22, max(size) // 50)))
    text, pad = f"person {face.face_id}", 4
    width, height = round(font.getlength(text)) + 2 * pad, round(font.size) + pad
    x = min(max(0, round(box[0])), max(0, size[0] - width))
    y = round(box[1]) - height
    # no room above: inside the box
    y = y if y >= 0 else max(0, round(box[1]))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + pad, y + height / 2), text, font=font, fill=_readable_on(colour), anchor="lm")


@dataclass(frozen=True)
class _Panel:
    """Where the rows of a panel lie, and all of it that stays the same from frame to frame."""

    empty: Image.Image
    font: ImageFont.FreeTypeFont
    left: int
    bar: tuple[int, int]
    rows: tuple[int, ...]
    height: int

    def fill(self, draw, face: FaceResult | None, labels, thresholds, intensity: bool) -> None:
        head = self.rows[0] - self.height
        if face is None:
            draw.text((self.left, head), "no face", font=self.font, fill=_TEXT, anchor="lm")
            return
        side = round(self.font.size * 0.8)
        draw.rectangle(
            (self.left, head - side // 2, self.left + side, head + side // 2), fill=face_colour(face.face_id)
        )
        draw.text((self.left + side + 8, head), f"person {face.face_id}", font=self.font, fill=_TEXT, anchor="lm")
        most = 5.0 if intensity else 1.0
        for label, limit, y in zip(labels, limits_of(labels, thresholds, intensity), self.rows, strict=True):
            value = face.scores.get(label, float("nan"))
            if value != value:
                continue
            start, end = self.bar
            thick = self.height * 0.3
            stop = start + (end - start) * min(1.0, max(0.0, value / most))
            colour = ACTIVE if value >= limit else INACTIVE
            draw.rectangle((start, round(y - thick), round(stop), round(y + thick)), fill=colour)
            number = f"{value:.1f}" if intensity else f"{value:.2f}"
            draw.text((end + 10, y), number, font=self.font, fill=_TEXT, anchor="lm")
            if not intensity:
                _draw_mark(draw, self, limit, y)


def _draw_mark(draw: ImageDraw.ImageDraw, panel: _Panel, limit: float, y: int) -> None:
    x = round(panel.bar[0] + (panel.bar[1] - panel.bar[0]) * min(1.0, max(0.0, limit)))
    draw.line((x, y - panel.height * 0.42, x, y + panel.height * 0.42), fill=_MARK, width=2)


@lru_cache(maxsize=4)
def _panel(size: tuple[int, int], labels: tuple[str, ...], limits: tuple[float, ...] | None) -> _Panel:
    # a small picture gets a panel that is higher than itself
    height = max(16, min(34, size[1] // (len(labels) + 2)))
    total = max(size[1], height * (len(labels) + 2))
    total += total % 2
    font = _font(max(11, round(height * 0.6)))
    left = size[0] + height // 2
    names = round(max((font.getlength(au_title(label)) for label in labels), default=0))
    start = left + names + height // 2
    end = start + 5 * height
    width = end + 10 + round(font.getlength("0.00")) + height // 2
    empty = Image.new("RGB", (width + width % 2, total), "black")
    draw = ImageDraw.Draw(empty)
    draw.rectangle((size[0], 0, empty.width, total), fill=_BACKGROUND)
    first = (total - height * (len(labels) + 1)) // 2 + height + height // 2
    rows = tuple(first + height * index for index in range(max(1, len(labels))))
    panel = _Panel(empty, font, left, (start, end), rows, height)
    for label, y in zip(labels, rows, strict=False):
        draw.text((left, y), au_title(label), font=font, fill=_TEXT, anchor="lm")
        draw.rectangle((start, round(y - height * 0.3), end, round(y + height * 0.3)), fill=_TRACK)
    for limit, y in zip(limits or (), rows, strict=False):
        _draw_mark(draw, panel, limit, y)
    return panel


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _readable_on(colour: str) -> str:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "white"


class OverlayVideo:
    """Writes a video whose frames are those of [`draw_frame`], each at its true time.

    Frames are encoded as they come, in constant memory. They go to a hidden file beside `path`, which takes its place
    when the `with` block ends without an error.

    Args:
        path (`str` or `Path`): Ends in `.mp4`, `.mkv` or `.mov`.
        labels (`Sequence[str]`): Action units, in the order of the rows.
        thresholds (`dict[str, float]`, *optional*): Probability from which an AU counts as active; 0.5 where not given.
        intensity (`bool`, defaults to `False`): The scores are intensities 0-5.

    Raises:
        ImportError: If PyAV is not installed.
        ValueError: If the ending is another one, or the block ends without a frame.

    Example:
    ```python
    with OverlayVideo("seen.mp4", detector.labels) as video:
        for frame in read_video("interview.mp4"):
            video.write(frame.image, detector.image(frame.image), frame.timestamp)
    ```
    """

    def __init__(
        self,
        path: str | Path,
        labels: Sequence[str],
        thresholds: dict[str, float] | None = None,
        intensity: bool = False,
    ):
        self.path = Path(path)
        if self.path.suffix.lower() not in OVERLAY_SUFFIXES:
            raise ValueError(f"`path` must end in {', '.join(OVERLAY_SUFFIXES)}; got {self.path}.")
        self._av = import_av()
        self.labels, self.thresholds, self.intensity = list(labels), thresholds, intensity
        self._size: tuple[int, int] | None = None
        self._first, self._last = 0.0, -1
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "OverlayVideo":
        self._whole = whole_file(self.path)
        self._partial = self._whole.__enter__()
        return self

    def write(self, image: Image.Image, results: Sequence[FaceResult], timestamp: float) -> None:
        """Add a frame.

        Args:
            image (`PIL.Image.Image`): The picture; where its size is not the first one's, black bars fill it up.
            results (`Sequence[FaceResult]`): Its faces.
            timestamp (`float`): Seconds; the first frame's becomes the start of the video. One that does not lie behind
                the frame before, as in damaged files, is moved to the next instant.
        """
        self._size = self._size or fitted_size(image.size)
        drawn = draw_frame(image, results, self.labels, self.thresholds, self.intensity, self._size)
        if self._container is None:
            self._open(drawn.size)
            self._first = timestamp
        frame = self._av.VideoFrame.from_image(drawn)
        self._last = max(self._last + 1, round((timestamp - self._first) / _TIME_BASE))
        frame.pts, frame.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def _open(self, size: tuple[int, int]) -> None:
        codec = next(name for name in _CODECS if name in self._av.codecs_available)
        # the index in front, so that browsers can begin to play
        options = {} if self.path.suffix.lower() == ".mkv" else {"movflags": "faststart"}
        self._container = self._av.open(str(self._partial), "w", options=options)
        self._stream = self._container.add_stream(codec, rate=30)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE
        if codec == "libx264":
            self._stream.options = {"preset": "veryfast", "crf": "20"}
        else:
            self._stream.bit_rate = 6_000_000

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            with suppress(OSError, self._av.error.FFmpegError):
                if self._container is not None:
                    self._container.close()
            self._whole.__exit__(kind, error, trace)
            return
        with ExitStack() as stack:
            stack.push(self._whole)
            if self._container is None:
                raise ValueError(f"{self.path} must hold at least one frame; `write` was not called.")
            with self._container:
                self._container.mux(self._stream.encode(None))


__all__ = ["LONGER_SIDE", "OVERLAY_SUFFIXES", "OverlayVideo", "draw_frame", "face_colour", "fitted_size"]
