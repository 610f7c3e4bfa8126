"""What loaders share: finding files in a dataset's tree, and reading tables of codes."""

import csv
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ..facs import au_columns, au_label
from .schema import LoadReport, OnReport, au_dataset, warn_of

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"))


def is_image(name: str) -> bool:
    """Whether a file is an image by its name; `._0008.jpg`, which macOS leaves beside images, is none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def has_images(folder: Path) -> bool:
    """Whether images lie in a folder, not counting those of folders in it."""
    with os.scandir(folder) as entries:
        return any(is_image(entry.name) for entry in entries)


def numbered_images(folder: Path | None, offset: int = 0) -> tuple[dict[int, str], list[str]]:
    """Images of a folder by the number at the end of their names: `0012.jpg` and `12.jpg` are both 12.

    Args:
        folder (`Path`, *optional*): The folder; none has no images.
        offset (`int`, defaults to 0): An image's number is that of its frame plus this.

    Returns:
        `tuple`: Files by frame, and the names of images that are no frame: those without a number, and those whose
        number an earlier name has, as `7.jpg beside 0007.jpg`.
    """
    found: dict[int, str] = {}
    spare = []
    for name in sorted(filter(is_image, os.listdir(folder))) if folder is not None else ():
        number = re.search(r"\d+$", os.path.splitext(name)[0])
        frame = int(number.group()) - offset if number else None
        if frame is None:
            spare.append(name)
        elif frame in found:
            spare.append(f"{name} beside {os.path.basename(found[frame])}")
        else:
            found[frame] = os.path.join(str(folder), name)
    return found, spare


def only_folder(folders: Iterable[Path]) -> Path | None:
    """The folder of images of one recording, `None` if it has none.

    Raises:
        ValueError: If it has several.
    """
    first, second, *_ = [*folders, None, None]
    if second is not None:
        raise ValueError(f"`images` must be given where there are several: {first} and {second}.")
    return first


def add_file(files: dict, key: str | tuple[str, str], file: Path) -> None:
    """Put down the one file that holds codes, such as those of a recording.

    Raises:
        ValueError: If there is another.
    """
    earlier = files.setdefault(key, file)
    if earlier != file:
        of = key if isinstance(key, str) else "/".join(key)
        raise ValueError(f"`root` must hold codes of {of} once; {earlier} and {file} both do. Take one away.")


def chosen_subjects(subjects: Iterable[str] | None, known: Iterable[str], root: Path) -> set[str]:
    """Subjects that are kept: those asked for, by default all.

    Raises:
        ValueError: If one is not known, or none is asked for.
    """
    there = set(known)
    if subjects is None:
        return there
    wanted = set(subjects)
    unknown = sorted(wanted - there)
    if unknown or not wanted:
        raise ValueError(
            f"`subjects` must name subjects of {root}; got {some(unknown) if unknown else 'none'}. "
            f"Known: {some(sorted(there))}."
        )
    return wanted


def some(names: list[str], most: int = 10) -> str:
    """Names in a sentence, and how many are left out."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f", and {rest} more" if rest > 0 else "")


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

    Empty rows stay, as empty cells, for the number of a row may be that of a frame; at the end of the file they go.

    Raises:
        ValueError: If it is empty, or a row is cut off.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=head.count)
        rows = [[cell.strip() for cell in row] for row in csv.reader(file, delimiter=delimiter)]
    while rows and not any(rows[0]):
        del rows[0]
    while rows and not any(rows[-1]) and len(rows[-1]) < 2:
        del rows[-1]
    if not rows:
        raise ValueError(f"{path} must hold a table with a header; it is empty.")
    header = rows[0]
    for line, row in enumerate(rows, start=1):
        if not any(row):
            row[:] = [""] * len(header)
        if len(row) != len(header):
            raise ValueError(
                f"{path} must have {len(header)} cells in every row; row {line} has {len(row)}. Is the file cut off?"
            )
    return header, rows[1:]


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


def coded_frames(codes: np.ndarray, place: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a table that names them in a column, and its codes; empty rows go.

    Raises:
        ValueError: See [`frame_numbers`].
    """
    codes = codes[~np.isnan(codes).all(axis=1)]
    return frame_numbers(codes[:, place], path), codes


def frame_numbers(column: np.ndarray, path: Path) -> np.ndarray:
    """Frames of a file, as whole numbers.

    Raises:
        ValueError: If one is no whole number, or stands twice.
    """
    strange = column[~(np.isfinite(column) & (np.floor(column) == column))]
    if strange.size:
        raise ValueError(f"{path} must name frames by whole numbers; one is {strange[0]:g}. Is a cell empty?")
    frames = column.astype(int)
    known, counts = np.unique(frames, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{path} must code a frame once; frame {known[counts > 1][0]} stands twice. Take one away.")
    return frames


def table_columns(header: list[str], path: Path, prefer: Literal["c", "r"] = "c") -> dict[str, int]:
    """[`au_columns`] of a file, which its errors name."""
    try:
        return au_columns(header, prefer=prefer)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def columns_of(header: list[str], aus: list[str], path: Path) -> list[int]:
    """Places of action units in a header, whatever their order and form: `1`, `AU1`, `AU01`.

    Raises:
        ValueError: If one is not there, or stands twice.
    """
    places = table_columns(header, path)
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
        spare (`list[str]`): Names of images that are no frame, see [`numbered_images`].
        frames (`np.ndarray` of shape `(num_frames,)`): Frames that were coded.
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): 1, 0 or -100.
        intensities (`np.ndarray` of shape `(num_frames, num_labels)`, *optional*): 0-5 or -100.
    """

    subject: str
    name: str
    images: dict[int, str]
    spare: list[str] = field(default_factory=list)
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
        report.unlabelled += [f"{sequence.name} {name}" for name in sequence.spare]
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
