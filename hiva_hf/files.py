"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Write beside a file, then take its place in one step; after an error nothing is left, and an earlier file stays.

    Args:
        path (`str` or `Path`): The file; folders above it are made.

    Yields:
        `Path`: Where to write; it has the same ending.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def alone(lock_file: Path, out: Path) -> Iterator[None]:
    """What a run writes, while no other run writes it.

    Args:
        lock_file (`Path`): Which file stands for that; its folder is there.
        out (`Path`): File or folder that is written.

    Raises:
        ValueError: If another run holds it.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"`out` must not be in use; another run writes into {out}.") from None
    try:
        yield
    finally:
        lock.release()
        lock_file.unlink(missing_ok=True)


__all__ = ["alone", "whole_file"]
