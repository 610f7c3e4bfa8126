"""What loaders share: finding files in a dataset's tree, and reading tables of codes."""

import csv
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..facs import au_columns, au_label
from .schema import LoadReport, OnReport, au_dataset, warn_of

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"))


def numbered_images(folder: Path) -> dict[int, str]:
    """Images of a folder by the number at the end of their names: `0012.jpg` and `12.jpg` are both 12."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            number = re.search(r"\d+$", stem)
            if number and suffix.lower() in IMAGE_SUFFIXES:
                found[int(number.group())] = entry.path
    return found


def folders_below(root: Path, depth: int) -> Iterator[Path]:
    """Folders under a root, the upper ones first, in the order of names."""
    level = [root]
    for _ in range(depth):
        level = [
            Path(entry.path)
            for folder in level
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
            if entry.is_dir() and not entry.name.startswith(".")
        ]
        yield from level


def require_root(root: str | Path, tree: str) -> Path:
    """The folder of a dataset, or an error that shows what it must look like."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"`root` must be a folder; there is no folder {root}. Expected:\n{tree}")
    return root


def missing(what: str, root: Path, tree: str) -> FileNotFoundError:
    """The error for a part of a dataset that is not there."""
    return FileNotFoundError(f"{root} must hold {what}; it does not. Expected:\n{tree}")


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table, by comma, semicolon or tab, whatever its line ends and byte-order mark.

    Raises:
        ValueError: If it is empty, or a row is cut off.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=head.count)
        rows = [[cell.strip() for cell in row] for row in csv.reader(file, delimiter=delimiter)]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise ValueError(f"{path} must hold a table with a header; it is empty.")
    for line, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path} must have {len(rows[0])} cells in every row; row {line} has {len(row)}. Is the file cut off?"
            )
    return rows[0], rows[1:]


def read_codes(path: Path) -> tuple[list[str], np.ndarray]:
    """A table of numbers under a header.

    Args:
        path (`Path`): The file; see [`read_rows`].

    Returns:
        `tuple`: The header, and codes of shape `(num_rows, num_columns)`; NaN where a cell is empty.

    Raises:
        ValueError: If a row is cut off, or a cell is no number.
    """
    header, rows = read_rows(path)
    codes = np.full((len(rows), len(header)), np.nan, dtype=np.float64)
    for line, row in enumerate(rows):
        try:
            codes[line] = [float(cell) if cell else np.nan for cell in row]
        except ValueError:
            raise ValueError(f"{path} must hold numbers; row {line + 2} is {','.join(row)!r}.") from None
    return header, codes


def columns_of(header: list[str], aus: list[str], path: Path) -> list[int]:
    """Places of action units in a header, whatever their order and form: `1`, `AU1`, `AU01`.

    Raises:
        ValueError: If one is not there.
    """
    places = au_columns(header)
    absent = [au for au in aus if au not in places]
    if absent:
        raise ValueError(f"`aus` must be coded in {path}; it lacks {', '.join(absent)}. Coded: {', '.join(places)}.")
    return [places[au] for au in aus]


@dataclass
class Sequence:
    """One recording with its codes.

    Args:
        subject (`str`): Who is seen.
        name (`str`): The recording.
        images (`dict[int, str]`): File by frame.
        frames (`np.ndarray` of shape `(num_frames,)`): Frames that were coded.
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): 1, 0 or -100.
        intensities (`np.ndarray` of shape `(num_frames, num_labels)`, *optional*): 0-5 or -100.
    """

    subject: str
    name: str
    images: dict[int, str]
    frames: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    labels: np.ndarray | None = None
    intensities: np.ndarray | None = None


def assemble(
    name: str,
    aus: list[str],
    sequences: list[Sequence],
    *,
    notes: Iterable[str] = (),
    on_report: OnReport | None,
    tree: str,
    root: Path,
    image_feature=None,
):
    """Join codes and images by frame, and report what has no partner."""
    report = LoadReport(name, notes=list(notes))
    images: list[str] = []
    subjects: list[str] = []
    names: list[str] = []
    frames: list[int] = []
    labels, intensities = [], []
    for sequence in sequences:
        coded = {int(frame): row for row, frame in enumerate(sequence.frames)}
        both = sorted(coded.keys() & sequence.images.keys())
        report.unlabelled += [f"{sequence.name} frame {n}" for n in sorted(sequence.images.keys() - coded.keys())]
        report.imageless += [f"{sequence.name} frame {n}" for n in sorted(coded.keys() - sequence.images.keys())]
        rows = [coded[frame] for frame in both]
        images += [sequence.images[frame] for frame in both]
        subjects += [sequence.subject] * len(both)
        names += [sequence.name] * len(both)
        frames += both
        if both and sequence.labels is not None:
            labels.append(sequence.labels[rows])
            if sequence.intensities is not None:
                intensities.append(sequence.intensities[rows])
    if not images:
        raise FileNotFoundError(f"{root} must hold images of coded frames; none was found. {report} Expected:\n{tree}")
    report.frames = len(images)
    dataset = au_dataset(
        name,
        aus,
        np.concatenate(labels),
        images=images,
        subjects=subjects,
        sequences=names,
        frames=frames,
        intensities=np.concatenate(intensities) if intensities else None,
        image_feature=image_feature,
    )
    (on_report or warn_of)(report)
    return dataset


def au_labels(aus) -> list[str]:
    """Names of action units in one form."""
    return [au_label(au) for au in aus]
