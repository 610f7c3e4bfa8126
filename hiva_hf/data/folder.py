"""A folder of one's own: images and a CSV that names them."""

import re
from collections.abc import Sequence as Names
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..facs import au_columns, au_order
from .schema import LoadReport, OnReport, au_dataset, intensity, occurrence, occurrence_from, warn_of
from .trees import IMAGE_SUFFIXES, au_labels, read_rows, require_root

_TREE = """ROOT/
  labels.csv        file_name,subject,AU01,AU02,...   an empty cell, -1 or 9: not coded
  ann/0001.png      as the column file_name says"""
_FILE, _SUBJECT = ("file_name", "file", "image", "path"), ("subject", "subject_id", "person")
_SEQUENCE, _FRAME = ("sequence", "sequence_id", "video"), ("frame", "frame_id")


def load_folder(
    root: str | Path,
    *,
    csv: str | Path | None = None,
    aus: Names[str] | None = None,
    subjects: Names[str] | None = None,
    intensities: bool = False,
    occurrence_at: float = 1,
    on_report: OnReport | None = None,
) -> Dataset:
    """Load images of one's own.

    Args:
        root (`str` or `Path`): Folder of the images.
        csv (`str` or `Path`, *optional*): The table; by default the only `.csv` in the folder. Columns: `file_name`,
            and `subject` (without it each folder of images is one person), where known `sequence` and `frame`, and one
            an action unit: `AU1`, `AU01` or `1`, of one side `AU1L`. Cells: 1, 0, and empty, -1 or 9 where not coded.
        aus (`Sequence[str]`, *optional*): Which AUs, in the order of the labels; by default all, by number.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.
        intensities (`bool`, defaults to `False`): The cells are intensities 0-5.
        occurrence_at (`float`, defaults to 1): Intensity from which an AU counts as active.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset`, see [`au_dataset`].

    Raises:
        FileNotFoundError: If there is no table, or none of its images; the message shows the tree.
        ValueError: If a column is missing, a row is cut off, or a cell is another code.
    """
    root = require_root(root, _TREE)
    if csv is None:
        found = sorted(root.glob("*.csv"))
        if len(found) != 1:
            raise FileNotFoundError(
                f"`csv` must be given where {root} does not hold a single .csv file; it holds {len(found)}. "
                f"Expected:\n{_TREE}"
            )
        (csv,) = found
    csv = Path(csv)
    if not csv.is_file():
        raise FileNotFoundError(f"`csv` must be a file; there is no file {csv}. Expected:\n{_TREE}")
    header, rows = read_rows(csv)
    table = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    coded = {au: header[place] for au, place in au_columns(header).items()}
    names = au_labels(aus) if aus is not None else sorted(coded, key=au_order)
    absent = ", ".join(au for au in names if au not in coded) or ("" if names else "columns of action units")
    if absent:
        raise ValueError(f"`aus` must be coded in {csv}; it lacks {absent}. Columns: {', '.join(header)}.")
    files = _column(table, _FILE)
    if files is None:
        raise ValueError(f"{csv} must have a column file_name; its columns are {', '.join(header)}.")
    codes = np.stack([_codes(table[coded[au]], au, csv, intensities) for au in names], axis=1)
    labels = occurrence_from(codes, occurrence_at) if intensities else codes

    paths = [root / name for name in files]
    people = _column(table, _SUBJECT)
    people = people if people is not None else [path.parent.name for path in paths]
    recordings = _column(table, _SEQUENCE) or people
    numbers = _column(table, _FRAME) or [(re.findall(r"\d+", path.stem) or ["0"])[-1] for path in paths]
    report = LoadReport("folder")
    there = [path.is_file() for path in paths]
    report.imageless = [name for name, exists in zip(files, there, strict=True) if not exists]
    known = {path.resolve() for path in paths}
    report.unlabelled = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and path.resolve() not in known
    ]
    wanted = set(subjects) if subjects is not None else None
    kept = [i for i, exists in enumerate(there) if exists and (wanted is None or people[i] in wanted)]
    if not kept:
        raise FileNotFoundError(f"{csv} must name images in {root}; none was found. {report} Expected:\n{_TREE}")
    report.frames = len(kept)
    dataset = au_dataset(
        "folder",
        names,
        labels[kept],
        images=[str(paths[i]) for i in kept],
        subjects=[people[i] for i in kept],
        sequences=[recordings[i] for i in kept],
        frames=[int(float(numbers[i])) for i in kept],
        intensities=codes[kept] if intensities else None,
    )
    (on_report or warn_of)(report)
    return dataset


def _column(table: dict[str, list[str]], names: tuple[str, ...]) -> list[str] | None:
    return next((table[name] for name in names if name in table), None)


def _codes(cells: list[str], au: str, csv: Path, intensities: bool) -> np.ndarray:
    try:
        codes = np.array([float(cell) if cell and cell.lower() != "nan" else -1 for cell in cells])
    except ValueError:
        raise ValueError(f"{csv} must hold numbers in the column of {au}; it does not.") from None
    allowed = np.isin(codes, (-1, 9, -100)) | ((codes >= 0) & (codes <= 5) if intensities else np.isin(codes, (0, 1)))
    if not allowed.all():
        row = int(np.flatnonzero(~allowed)[0])
        rule = "0 to 5" if intensities else "0 or 1"
        cure = "" if intensities else " For intensities, say `intensities=True`."
        raise ValueError(
            f"{csv} must hold {rule}, or empty, -1 or 9 where not coded; row {row + 2}, {au}, is {cells[row]!r}.{cure}"
        )
    return intensity(codes) if intensities else occurrence(codes)


__all__ = ["load_folder"]
