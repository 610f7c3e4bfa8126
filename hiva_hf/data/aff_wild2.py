"""Aff-Wild2 (Kollias and Zafeiriou, 2019; the AU set of the ABAW competitions), from a copy under its licence."""

from collections.abc import Sequence as Names
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..facs import AFF_WILD2_AUS
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
  [any folder/]Train_Set/VIDEO.txt          a header AU1,AU2,...; line n after it is frame n; -1 is not valid
  [any folder/]Validation_Set/VIDEO.txt
  cropped_aligned/VIDEO/00001.jpg"""


def load_aff_wild2(
    root: str | Path,
    *,
    split: str | None = None,
    aus: Names[str] = AFF_WILD2_AUS,
    subjects: Names[str] | None = None,
    images: str | Path | None = None,
    on_report: OnReport | None = None,
) -> Dataset:
    """Load Aff-Wild2's action units, twelve AUs of videos in the wild.

    A video is taken for a subject, as the challenge does: `left` and `right` of one video are two, people who come back
    in other videos are not known.

    Args:
        root (`str` or `Path`): Folder of the dataset.
        split (`str`, *optional*): Part of the name of the label folder, `"Train"` or `"Validation"`; by default both.
        aus (`Sequence[str]`, defaults to its twelve AUs): Which AUs, in the order of the labels.
        subjects (`Sequence[str]`, *optional*): Keep these videos only.
        images (`str` or `Path`, *optional*): Folder that holds `VIDEO/00001.jpg`; by default `cropped_aligned`, or any
            folder of a video's name.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset`, see [`au_dataset`]. A frame without any valid code is left out, and counted.

    Raises:
        FileNotFoundError: If a part of the tree is missing; the message shows it.
        ValueError: If a file is cut off, or an AU is not coded.
    """
    root = require_root(root, _TREE)
    names = au_labels(aus)
    wanted = set(subjects) if subjects is not None else None
    place = require_root(images, _TREE) if images is not None else root
    folders = {folder.name: folder for folder in folders_below(place, 3)}
    sequences, invalid = [], 0
    for file in sorted(root.rglob("*.txt")):
        if not file.parent.name.lower().endswith("_set") or (wanted is not None and file.stem not in wanted):
            continue
        if split is not None and split.lower() not in file.parent.name.lower():
            continue
        header, codes = read_codes(file)
        labels = occurrence(codes[:, columns_of(header, names, file)])
        valid = np.any(labels >= 0, axis=1)
        invalid += int((~valid).sum())
        found = numbered_images(folders[file.stem]) if file.stem in folders else {}
        frames = np.arange(1, len(codes) + 1)
        pictures = {number: path for number, path in found.items() if number > len(codes) or valid[number - 1]}
        sequences.append(Sequence(file.stem, file.stem, pictures, frames[valid], labels[valid]))
    if not sequences:
        raise missing(f"label files in a folder {split or 'Train'}_Set", root, _TREE)
    notes = [f"{invalid} frames without a valid code, left out"] if invalid else []
    return assemble("Aff-Wild2", names, sequences, notes=notes, on_report=on_report, tree=_TREE, root=root)


__all__ = ["load_aff_wild2"]
