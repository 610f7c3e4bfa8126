"""A folder of one's own: images and a CSV that names them."""

import re
from collections.abc import Sequence as Names
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..facs import ACTION_UNITS, au_columns, au_order, two_sided
from .schema import LoadReport, OnReport, au_dataset, intensity, occurrence, occurrence_from, warn_of
from .trees import au_labels, chosen_subjects, is_image, read_rows, require_root, some, table_columns

_TREE = """ROOT/
  labels.csv        file_name,subject,AU01,AU02,...   an empty cell, -1 or 9: not coded
  ann/0001.png      as the column file_name says"""
# what a column may be called; the first of these names that is there counts
_COLUMNS = {
    "file_name": ("file_name", "filename", "file", "image", "path"),
    "subject": ("subject", "subject_id", "subjectid", "person", "participant"),
    "sequence": ("sequence", "sequence_id", "video"),
    "frame": ("frame", "frame_id"),
}


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
            and `subject` (without it each folder of images is one person), where known `sequence` and `frame`, in
            small or capital letters, and one an action unit: `AU1`, `AU01` or `1`, of one side `AU1L`. Cells: 1, 0, and
            empty, -1 or 9 where not coded. Of `AU12_r` and `AU12_c` the first holds intensities, the second occurrence.
        aus (`Sequence[str]`, *optional*): Which AUs, in the order of the labels; by default all, by number.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.
        intensities (`bool`, defaults to `False`): The cells are intensities 0-5.
        occurrence_at (`float`, defaults to 1): Intensity from which an AU counts as active.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset`, see [`au_dataset`].

    Raises:
        FileNotFoundError: If there is no table, or none of its images; the message shows the tree.
        ValueError: If a column is missing, two name one action unit or one names none that is known, a row is cut off,
            a cell is another code, or a subject is not there.
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
    lines = [line for line, row in enumerate(rows, start=2) if any(row)]
    rows = [row for row in rows if any(row)]
    coded = _coded(header, csv, intensities, check=aus is None)
    names = au_labels(aus) if aus is not None else sorted(coded, key=au_order)
    absent = ", ".join(au for au in names if au not in coded) or ("" if names else "columns of action units")
    if absent:
        raise ValueError(f"`aus` must be coded in {csv}; it lacks {absent}. Columns: {', '.join(header)}.")
    places = _places(header)
    if "file_name" not in places:
        raise ValueError(f"{csv} must have a column file_name; its columns are {', '.join(header)}.")
    columns = [_codes([row[coded[au]] for row in rows], lines, au, csv, intensities) for au in names]
    codes = np.stack(columns, axis=1)
    labels = occurrence_from(codes, occurrence_at) if intensities else codes

    told = {what: [row[place] for row in rows] for what, place in places.items()}
    files = told["file_name"]
    paths = [root / name for name in files]
    people = told.get("subject", [path.parent.name for path in paths])
    recordings = told.get("sequence", people)
    numbers = told.get("frame", [(re.findall(r"\d+", path.stem) or ["0"])[-1] for path in paths])
    report = LoadReport("folder")
    there = [path.is_file() for path in paths]
    report.imageless = [name for name, exists in zip(files, there, strict=True) if not exists]
    known = {path.resolve() for path in paths}
    report.unlabelled = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*"))
        if is_image(path.name) and path.resolve() not in known
    ]
    wanted = chosen_subjects(subjects, people, csv)
    kept = [i for i, exists in enumerate(there) if exists and people[i] in wanted]
    if not kept:
        raise FileNotFoundError(f"{csv} must name images in {root}; none was found. {report} Expected:\n{_TREE}")
    report.frames = len(kept)
    if "subject" not in places:
        report.notes.append(f"people are the folders of the images: {len({people[i] for i in kept})} of them")
    unused = [
        name or "one without a name"
        for place, name in enumerate(header)
        if place not in places.values() and coded.keys().isdisjoint(au_columns([name]))
    ]
    if unused:
        report.notes.append(f"columns not used: {some(unused)}")
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


def _places(header: list[str]) -> dict[str, int]:
    """Places of the columns that are no action units, whatever their case."""
    heads = [name.casefold() for name in header]
    called = {what: [name for name in names if name in heads] for what, names in _COLUMNS.items()}
    return {what: heads.index(names[0]) for what, names in called.items() if names}


def _coded(header: list[str], csv: Path, intensities: bool, check: bool) -> dict[str, int]:
    """Places of action units that are known; of intensities those of occurrence and of probability are no columns."""
    found = table_columns(header, csv, prefer="r" if intensities else "c")
    strange = [header[place] for au, place in found.items() if two_sided(au) not in ACTION_UNITS]
    if strange and check:
        raise ValueError(
            f"{csv} must have columns of known action units; {strange[0]!r} is none. Rename it, or say by `aus` which "
            f"columns count. Known: {', '.join(ACTION_UNITS)}."
        )
    return {
        au: place
        for au, place in found.items()
        if header[place] not in strange and not (intensities and header[place].endswith(("_c", "_p")))
    }


def _codes(cells: list[str], lines: list[int], au: str, csv: Path, intensities: bool) -> np.ndarray:
    """Codes of a column, whose cells stand in these lines of the table."""
    codes = np.array([_number(cell) for cell in cells])
    allowed = np.isin(codes, (-1, 9, -100)) | ((codes >= 0) & (codes <= 5) if intensities else np.isin(codes, (0, 1)))
    if not allowed.all():
        first = int(np.flatnonzero(~allowed)[0])
        rule = "0 to 5" if intensities else "0 or 1"
        cure = "" if intensities or np.isnan(codes[first]) else " For intensities, say `intensities=True`."
        raise ValueError(
            f"{csv} must hold {rule}, or empty, -1 or 9 where not coded; row {lines[first]}, {au}, is "
            f"{cells[first]!r}.{cure}"
        )
    return intensity(codes) if intensities else occurrence(codes)


def _number(cell: str) -> float:
    """A cell's code: -1 if it is empty, NaN if it is no number."""
    try:
        return float(cell) if cell and cell.lower() != "nan" else -1
    except ValueError:
        return np.nan


__all__ = ["load_folder"]
