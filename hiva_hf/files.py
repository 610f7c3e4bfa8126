"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


__all__ = ["whole_file"]
