"""Files that appear whole or not at all."""

import json
import os
import shutil
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


def read_record(file: Path) -> dict:
    """A JSON object from what lies beside a checkpoint or data; empty where there is no such file.

    Args:
        file (`Path`): It need not exist.

    Raises:
        ValueError: If it holds something else.
    """
    if not file.is_file():
        return {}
    rule, cure = f"{file.name} in {file.parent} must hold a JSON object", "Mend it, or copy it anew."
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{rule}; {error}. {cure}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{rule}; it holds a {type(content).__name__}. {cure}")
    return content


def link_or_copy(path: Path, to: Path) -> None:
    """A large file that nobody writes to, where it can be without a second one on the disk."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


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


__all__ = ["alone", "link_or_copy", "read_record", "whole_file"]
