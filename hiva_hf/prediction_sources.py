"""Which pictures and videos there are: found as they are come to, always in the same order."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .faces.video import VIDEO_SUFFIXES
from .faces.webcam import is_webcam

# Pillow only writes these, or reads them with the help of another program: no photographs that lie in a folder
_NO_PICTURES = frozenset((".bufr", ".emf", ".eps", ".grib", ".h5", ".hdf", ".palm", ".pdf", ".ps", ".wmf"))


class Sources:
    """Pictures and videos, folders searched through while one goes along.

    Of a folder its names are held while it is gone through, some 100 bytes each; of what lies in other folders nothing.
    Gone through again, it looks again.

    Args:
        paths (`Sequence[str | Path]`): Files, taken whatever their ending; `webcam`; folders, of which every
            file with the ending of a picture or video is taken, in the order of names. A folder that is linked into
            itself is entered once; one that must not be read stands for itself, and is reported when its turn comes.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds neither picture nor video.
    """

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = [Path(path) for path in paths]
        for path in self.paths:
            if path.is_dir():
                if next(_walk(str(path), set()), None) is None:
                    raise FileNotFoundError(
                        f"{path} must hold pictures or videos; no file in it has the ending of one."
                    )
            elif not path.exists() and not is_webcam(path):
                raise FileNotFoundError(
                    f"`paths` must be pictures, videos or folders; there is no file or folder {path}."
                )

    def __iter__(self) -> Iterator[Path]:
        for path in self.paths:
            if path.is_dir():
                yield from map(Path, _walk(str(path), set()))
            else:
                yield path

    def __len__(self) -> int:
        return sum(1 for _ in self)


def find_sources(paths: Sequence[str | Path]) -> list[Path]:
    """All of [`Sources`] at once; arguments and errors as there."""
    return list(Sources(paths))


@cache
def _suffixes() -> frozenset[str]:
    return frozenset(VIDEO_SUFFIXES | {suffix.lower() for suffix in Image.registered_extensions()} - _NO_PICTURES)


def _walk(folder: str, seen: set[str]) -> Iterator[str]:
    place = os.path.realpath(folder)
    if place in seen:
        return
    seen.add(place)
    try:
        with os.scandir(folder) as entries:
            # a slash marks a folder: a text a name is all that is held
            found = [entry.name + "/" * _is_folder(entry) for entry in entries if _is_wanted(entry)]
    except PermissionError:
        yield folder
        return
    found.sort(key=lambda name: name.removesuffix("/"))
    for name in found:
        path = os.path.join(folder, name.removesuffix("/"))
        if name.endswith("/"):
            yield from _walk(path, seen)
        else:
            yield path


def _is_wanted(entry: os.DirEntry) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    return _is_folder(entry) or (suffix in _suffixes() and not entry.name.startswith("."))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # a link to itself
        return False


def is_video(path: Path) -> bool:
    """Whether a source is read as a video: by its ending, or as a camera."""
    return path.suffix.lower() in VIDEO_SUFFIXES or is_webcam(path)


class Unit(NamedTuple):
    """Sources that are read together: pictures of one batch, or one video.

    Args:
        begin (`int`): How many sources come before.
        before (`str`): A digest of the names of those.
        sources (`list[Path]`): Empty behind the last source.
        after (`str`): A digest of the names up to the end of the unit.
    """

    begin: int
    before: str
    sources: list[Path]
    after: str


def units(sources: Iterable[Path], batch_size: int) -> Iterator[Unit]:
    """Sources by the unit, which does not depend on what can be read and who reads it; an empty one ends them.

    Args:
        sources (`Iterable[Path]`): See [`Sources`].
        batch_size (`int`): The most pictures of a unit.
    """
    unit = Unit(0, "", [], "")
    for source in sources:
        alone = is_video(source)
        if unit.sources and (alone or is_video(unit.sources[0]) or len(unit.sources) == batch_size):
            yield unit
            unit = _behind(unit)
        digest = sha256(unit.after.encode() + os.fsencode(source)).hexdigest()
        unit = unit._replace(sources=[*unit.sources, source], after=digest)
    if unit.sources:
        yield unit
    yield _behind(unit)


def _behind(unit: Unit) -> Unit:
    return Unit(unit.begin + len(unit.sources), unit.after, [], unit.after)


__all__ = ["Sources", "Unit", "find_sources", "is_video", "units"]
