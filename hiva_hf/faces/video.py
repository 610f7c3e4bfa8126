"""Frames of a video with their true times, one in memory at a time (extra `faces`)."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".ogv")
)
_QUARTER_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


@dataclass
class VideoFrame:
    """One frame of a video.

    Args:
        index (`int`): Its number in the video, from 0.
        timestamp (`float`): Seconds from the start of the video, as its container says.
        image (`PIL.Image.Image`): Upright RGB.
    """

    index: int
    timestamp: float
    image: Image.Image


def import_av() -> Any:
    """PyAV, or an error that names the extra."""
    try:
        import av
    except ImportError:
        raise ImportError("Reading videos needs PyAV; install it with `pip install 'hiva-hf[faces]'`.") from None
    return av


def read_video(
    path: str | Path,
    *,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    skip_frames: int = 0,
    on_damage: Callable[[str], object] | None = None,
) -> Iterator[VideoFrame]:
    """Decode a video, frame by frame.

    Args:
        path (`str` or `Path`): A video file of any container and codec that FFmpeg reads.
        every (`int`, defaults to 1): Take every n-th frame, the first of the video among them.
        start (`float`, defaults to 0): Leave out frames before this time, in seconds.
        end (`float`, *optional*): Stop at the first frame at or after this time, in seconds.
        skip_frames (`int`, defaults to 0): Leave out frames of a lower number; for going on with an interrupted run.
        on_damage (`Callable`, *optional*): Told one sentence where a file is damaged behind its first frames; by
            default a warning.

    Yields:
        [`VideoFrame`]; of a file whose end is damaged those before the damage.

    Raises:
        ImportError: If PyAV is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no video that can be read, or an argument is out of its range.
    """
    check_part(every, start, end)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a video file; there is no file {path}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} must be a video; the file is empty.")
    av = import_av()
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} must be a video that FFmpeg can read; {error}.") from None
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} must hold a video stream; it has none.")
        on_damage = on_damage or warnings.warn
        index, timestamp = -1, 0.0
        try:
            for index, timestamp, frame in _decode(container):
                if end is not None and timestamp >= end:
                    return
                if index % every or timestamp < start or index < skip_frames:
                    continue
                yield VideoFrame(index, timestamp, upright(frame))
        except av.error.FFmpegError as error:
            if index < 0:
                raise ValueError(f"{path} must hold a video that FFmpeg can decode; {error}.") from None
            on_damage(f"{path} is damaged behind frame {index}; what came before it was read. {error}")
            return
        if index < 0:
            raise ValueError(f"{path} must hold at least one frame; its video stream is empty.")
        stated = _stated_duration(container)
        if stated is not None and stated - timestamp > max(1.0, 0.02 * stated):
            on_damage(
                f"{path} is cut off: it says that it lasts {stated:.2f} s, and its last frame is at {timestamp:.2f} s. "
                "What is there was read."
            )


def check_part(every: int, start: float, end: float | None) -> None:
    """Refuse what names no part of a video."""
    if every < 1:
        raise ValueError(f"`every` must be at least 1; got {every}.")
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"`start` and `end` must be seconds with 0 <= start < end; got {start} and {end}.")


def video_seconds(path: str | Path) -> float | None:
    """How long a video lasts by its own word; `None` where it tells nothing, or cannot be read."""
    av = import_av()
    try:
        with av.open(str(path)) as container:
            return _stated_duration(container) if container.streams.video else None
    except (av.error.FFmpegError, OSError):
        return None


def _decode(container) -> Iterator[tuple[int, float, Any]]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    origin: float | None = None
    last = -1.0 / rate
    for index, frame in enumerate(container.decode(stream)):
        if frame.time is None:
            # raw streams carry no times
            last += 1 / rate
        else:
            origin = frame.time if origin is None else origin
            last = frame.time - origin
        yield index, last, frame


def _stated_duration(container) -> float | None:
    """Seconds of video by the container's own word; `None` where it tells none, or none apart from the sound."""
    stream = container.streams.video[0]
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and not container.streams.audio:
        return container.duration / 1e6
    return None


def upright(frame) -> Image.Image:
    """A decoded frame as RGB, turned as its container says."""
    image = frame.to_image()
    turn = _QUARTER_TURNS.get(round(frame.rotation) % 360)
    return image.transpose(turn) if turn is not None else image


__all__ = ["VIDEO_SUFFIXES", "VideoFrame", "check_part", "import_av", "read_video", "upright", "video_seconds"]
