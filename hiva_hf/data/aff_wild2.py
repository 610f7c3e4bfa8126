"""Aff-Wild2 (Kollias and Zafeiriou, 2019; the AU set of the ABAW competitions), from a copy under its licence."""

from collections.abc import Sequence as Names
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..facs import AFF_WILD2_AUS
from .schema import OnReport, occurrence
from .trees import (
    Sequence,
    add_file,
    assemble,
    au_labels,
    chosen_subjects,
    columns_of,
    folders_below,
    has_images,
    missing,
    numbered_images,
    only_folder,
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
        images (`str` or `Path`, *optional*): Folder that holds `VIDEO/00001.jpg`; by default `cropped_aligned`, and for
            videos that are not there the only folder of their name.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset`, see [`au_dataset`]. A frame without any valid code is left out, and counted; so are videos
        without codes, unless a `split` is asked for.

    Raises:
        FileNotFoundError: If a part of the tree is missing; the message shows it.
        ValueError: If a file is cut off, an AU is not coded, a video is not there, or one has two files or folders.
    """
    root = require_root(root, _TREE)
    names = au_labels(aus)
    files: dict[str, Path] = {}
    for file in sorted(root.rglob("*.txt")):
        part = file.parent.name.lower()
        if part.endswith("_set") and (split or "").lower() in part and not file.name.startswith("."):
            add_file(files, file.stem, file)
    if not files:
        raise missing(f"label files in a folder {split or 'Train'}_Set", root, _TREE)
    folders = _video_folders(require_root(images, _TREE) if images is not None else root)
    sequences, invalid = [], 0
    # videos without codes may be of another split
    videos = files.keys() | folders.keys() if split is None else files.keys()
    for video in sorted(chosen_subjects(subjects, videos, root)):
        places = folders.get(video, [])
        if video not in files:
            sequences += [Sequence(video, video, *numbered_images(place)) for place in places]
            continue
        file = files[video]
        header, codes = read_codes(file)
        labels = occurrence(codes[:, columns_of(header, names, file)])
        valid = np.any(labels >= 0, axis=1)
        invalid += int((~valid).sum())
        found, spare = numbered_images(only_folder(places))
        frames = np.arange(1, len(codes) + 1)
        dropped = set(frames[~valid].tolist())
        pictures = {number: path for number, path in found.items() if number not in dropped}
        sequences.append(Sequence(video, video, pictures, spare, frames[valid], labels[valid]))
    notes = [f"{invalid} frame{'' if invalid == 1 else 's'} without a valid code, left out"] if invalid else []
    return assemble("Aff-Wild2", names, sequences, notes=notes, on_report=on_report, tree=_TREE, root=root)


def _video_folders(place: Path) -> dict[str, list[Path]]:
    """Folders of images by the name of the video; the aligned faces, which the field uses, where there are some."""
    found: dict[str, list[Path]] = {}
    for folder in folders_below(place, 3):
        if has_images(folder):
            found.setdefault(folder.name, []).append(folder)
    for video, folders in found.items():
        aligned = [
            folder for folder in folders if "cropped_aligned" in map(str.lower, folder.relative_to(place).parts[:-1])
        ]
        found[video] = aligned or folders
    return found


__all__ = ["load_aff_wild2"]
