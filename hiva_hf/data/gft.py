"""GFT, the Sayette Group Formation Task (Girard et al., FG 2017), from a copy under its licence."""

import re
from collections.abc import Sequence as Names
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..facs import GFT_AUS
from .schema import OnReport, occurrence
from .trees import (
    Sequence,
    assemble,
    au_labels,
    columns_of,
    folders_below,
    missing,
    numbered_images,
    read_codes,
    require_root,
)

_TREE = """ROOT/
  [any folder/]001A.csv          a header with AU numbers (1 or AU1), and the column frame where rows are not in order
  [any folder/]001A/0001.jpg     frames of the same participant"""


def load_gft(
    root: str | Path,
    *,
    aus: Names[str] = GFT_AUS,
    subjects: Names[str] | None = None,
    frame_offset: int = 0,
    on_report: OnReport | None = None,
) -> Dataset:
    """Load GFT: 96 participants, ten AUs.

    Its layout could not be checked here on a real copy: a CSV a participant is looked for, and a folder of frames of
    the same name, wherever they lie.

    Args:
        root (`str` or `Path`): Folder of the dataset.
        aus (`Sequence[str]`, defaults to its ten AUs): Which AUs, in the order of the labels.
        subjects (`Sequence[str]`, *optional*): Keep these participants only.
        frame_offset (`int`, defaults to 0): An image's number is the coded frame's plus this.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset`, see [`au_dataset`]; every code but 0 and 1 is -100.

    Raises:
        FileNotFoundError: If a part of the tree is missing; the message shows it.
        ValueError: If a file is cut off, or an AU is not coded.
    """
    root = require_root(root, _TREE)
    names = au_labels(aus)
    wanted = set(subjects) if subjects is not None else None
    folders = {folder.name.upper(): folder for folder in folders_below(root, 4)}
    sequences = []
    for file in sorted(root.rglob("*.csv")):
        match = re.match(r"\d{3}[A-Z]", file.stem, re.IGNORECASE)
        if not match or (wanted is not None and match[0].upper() not in wanted):
            continue
        subject = match[0].upper()
        header, codes = read_codes(file)
        places = [place for place, column in enumerate(header) if column.lower() in ("frame", "frames", "frame_id")]
        frames = codes[:, places[0]].astype(int) if places else np.arange(1, len(codes) + 1)
        found = numbered_images(folders[subject]) if subject in folders else {}
        pictures = {number - frame_offset: path for number, path in found.items()}
        labels = occurrence(codes[:, columns_of(header, names, file)])
        sequences.append(Sequence(subject, subject, pictures, frames, labels))
    if not sequences:
        raise missing("a CSV a participant, such as 001A.csv", root, _TREE)
    return assemble("GFT", names, sequences, on_report=on_report, tree=_TREE, root=root)


__all__ = ["load_gft"]
