"""Images that are frames of videos: decoded when a row is looked at, as files are."""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from datasets import Image
from datasets.features.features import register_feature

from ..faces.video import import_av, upright

_SEPARATOR = "#frame="


def frame_path(video: str, number: int) -> str:
    """Name of a frame, counted from 0, of a video."""
    return f"{video}{_SEPARATOR}{number}"


def file_and_frame(path: str) -> tuple[str, int | None]:
    """The video and the frame of a [`frame_path`]; an image file and `None`."""
    video, separator, number = path.rpartition(_SEPARATOR)
    return (video, int(number)) if separator else (path, None)


def count_frames(video: str) -> int:
    """Frames of a video, counted in its packets: nothing is decoded.

    Raises:
        ValueError: If it is no video that can be read.
    """
    av = import_av()
    try:
        with av.open(video) as container:
            return sum(packet.size > 0 for packet in container.demux(video=0))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise ValueError(f"{video} must be a video that FFmpeg can read; {error}.") from None


class _Reader:
    """Goes through a video, forward as long as it is asked for later frames."""

    def __init__(self, video: str):
        self.video = video
        self._rewind()

    def _rewind(self) -> None:
        container = import_av().open(self.video)
        container.streams.video[0].thread_type = "AUTO"
        self._frames, self._next, self._last = container.decode(video=0), 0, None

    def frame(self, number: int):
        if number < self._next - 1:
            self._rewind()
        while self._next <= number:
            frame = next(self._frames, None)
            if frame is None:
                raise ValueError(f"{self.video} must have a frame {number}; it ends after {self._next}.")
            self._next += 1
            self._last = frame
        return upright(self._last)


# by process: the threads of a decoder do not live on in a fork, to use it or to close it there waits for them for ever
_readers: defaultdict[int, Callable[[str], _Reader]] = defaultdict(lambda: lru_cache(maxsize=2)(_Reader))


@dataclass
class FrameImage(Image):
    """A `datasets.Image` whose path may name a frame of a video, as `clip.avi#frame=17`.

    Reading frames in their order decodes each once; a jump back begins the video anew.
    """

    _type: str = field(default="FrameImage", init=False, repr=False)
    dtype: ClassVar[str] = "PIL.Image.Image"

    def decode_example(self, value: Any, token_per_repo_id=None):
        """The frame, upright RGB; or the image file."""
        path = value.get("path") if isinstance(value, dict) else None
        if path is None or _SEPARATOR not in path or value.get("bytes") is not None:
            return super().decode_example(value, token_per_repo_id)
        video, number = file_and_frame(path)
        assert number is not None
        return _readers[os.getpid()](video).frame(number)


with warnings.catch_warnings():
    # that registering is experimental is no news to a user
    warnings.simplefilter("ignore", UserWarning)
    register_feature(FrameImage, "FrameImage")

__all__ = ["FrameImage", "count_frames", "file_and_frame", "frame_path"]
