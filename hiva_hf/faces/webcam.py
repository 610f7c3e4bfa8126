"""Frames of a camera as they come, by OpenCV (extra `faces`)."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from .detection import import_cv2
from .video import VideoFrame, check_part


def is_webcam(source: str | Path) -> bool:
    """Whether a source is a camera: `webcam`, or `webcam:` and which one; a file of that name is a file."""
    name = os.fspath(source)
    return (name == "webcam" or name.startswith("webcam:")) and not os.path.exists(name)


def read_webcam(
    source: str | Path = "webcam",
    *,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    stop: Callable[[], bool] | None = None,
    on_damage: Callable[[str], object] | None = None,
) -> Iterator[VideoFrame]:
    """Watch a camera.

    Frames that come while the one before is still worked on are lost. Times are those at which frames were fetched; a
    camera may hold one back a little.

    Args:
        source (`str` or `Path`): `webcam`, the first camera; `webcam:1`, the second; `webcam:/dev/video3`, a device.
        every (`int`, defaults to 1): Take every n-th frame.
        start (`float`, defaults to 0): Leave out the first seconds.
        end (`float`, *optional*): Stop after these seconds; by default never.
        stop (`Callable`, *optional*): Asked before every frame; `True` ends the recording.
        on_damage (`Callable`, *optional*): Told one sentence when the camera goes away; by default a warning.

    Yields:
        [`VideoFrame`], with seconds since the first one.

    Raises:
        ImportError: If OpenCV is not installed.
        ValueError: If there is no such camera, or an argument is out of its range.
    """
    check_part(every, start, end)
    cv2 = import_cv2()
    which = os.fspath(source).removeprefix("webcam").removeprefix(":") or "0"
    level = cv2.utils.logging.getLogLevel()
    # what it says of a camera that is not there, the error below says better
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        camera = cv2.VideoCapture(int(which) if which.isdecimal() else which)
    finally:
        cv2.utils.logging.setLogLevel(level)
    # of several frames that wait, the newest is wanted
    camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    try:
        index, begin = 0, 0.0
        while stop is None or not stop():
            pixels = camera.read()[1] if camera.isOpened() else None
            now = time.monotonic()
            if pixels is None and index == 0:
                raise ValueError(
                    f"`{source}` must be a camera that can be opened; camera {which} cannot. Choose another, as "
                    "webcam:1 or webcam:/dev/video1, and close other programs that use it."
                )
            if pixels is None:
                (on_damage or warnings.warn)(f"{source} stopped after {index} frames; what came before was read.")
                return
            begin = begin or now
            timestamp = now - begin
            if end is not None and timestamp >= end:
                return
            if index % every == 0 and timestamp >= start:
                yield VideoFrame(index, timestamp, Image.fromarray(pixels[:, :, ::-1].copy()))
            index += 1
    finally:
        camera.release()


__all__ = ["is_webcam", "read_webcam"]
