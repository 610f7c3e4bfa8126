"""CK+ (Lucey et al., CVPR Workshops 2010), from a copy under its licence."""

import re
from collections.abc import Sequence as Names
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..facs import CK_PLUS_AUS
from ..loss_hiva import MISSING_LABEL
from .schema import OnReport
from .trees import (
    Sequence,
    assemble,
    au_labels,
    chosen_subjects,
    folders_below,
    has_images,
    missing,
    numbered_images,
    only_folder,
    require_root,
)

_TREE = """ROOT/
  FACS/S005/001/S005_001_00000011_facs.txt       lines of "AU intensity" on the last frame; 0: present, not scored
  cohn-kanade-images/S005/001/S005_001_00000011.png"""


def load_ck_plus(
    root: str | Path,
    *,
    aus: Names[str] = CK_PLUS_AUS,
    subjects: Names[str] | None = None,
    neutral: bool = False,
    images: str | Path | None = None,
    on_report: OnReport | None = None,
) -> Dataset:
    """Load CK+: the apex frame of each sequence, whose codes list the AUs that are there.

    Args:
        root (`str` or `Path`): Folder of the dataset.
        aus (`Sequence[str]`, defaults to 17 AUs): Which AUs, in the order of the labels.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.
        neutral (`bool`, defaults to `False`): Also the first frame of each sequence, at rest by the way the data were
            recorded: all AUs inactive.
        images (`str` or `Path`, *optional*): Folder that holds `S005/001`; by default it is looked for.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset` with `intensities`, which are -100 for AUs that are present and not scored; see
        [`au_dataset`]. Other frames have no codes and are not counted.

    Raises:
        FileNotFoundError: If a part of the tree is missing; the message shows it.
        ValueError: If a file does not hold pairs of numbers, a frame has two, a subject is not there, or a sequence has
            two folders of images.
    """
    root = require_root(root, _TREE)
    names = au_labels(aus)
    files: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(root.rglob("*_facs.txt")):
        match = re.match(r"(S\d{3})_(\d{3})_", file.name, re.IGNORECASE)
        if match:
            files.setdefault((match[1].upper(), match[2]), []).append(file)
    if not files:
        raise missing("files such as FACS/S005/001/S005_001_00000011_facs.txt", root, _TREE)
    kept = chosen_subjects(subjects, (subject for subject, _ in files), root)
    folders: dict[tuple[str, str], list[Path]] = {}
    for folder in folders_below(require_root(images, _TREE) if images is not None else root, 4):
        if (folder.parent.name.upper(), folder.name) in files and has_images(folder):
            folders.setdefault((folder.parent.name.upper(), folder.name), []).append(folder)
    sequences = []
    for (subject, number), coded in files.items():
        if subject not in kept:
            continue
        pictures, spare = numbered_images(only_folder(folders.get((subject, number), ())))
        frames: list[int] = []
        labels, levels = [], []
        for file in coded:
            occurrence, level = _codes(file, names)
            frame = int(re.findall(r"\d+", file.stem)[-1])
            if frame in frames:
                raise ValueError(
                    f"A frame must have one file of codes; {coded[frames.index(frame)]} and {file} are both of frame "
                    f"{frame} of {subject}/{number}. Take one away."
                )
            frames.append(frame)
            labels.append(occurrence)
            levels.append(level)
        if neutral and pictures and min(pictures) not in frames:
            frames.append(min(pictures))
            labels.append(np.zeros(len(names), dtype=np.float32))
            levels.append(np.zeros(len(names), dtype=np.float32))
        # frames before the apex have no codes by design
        faces = {frame: path for frame, path in pictures.items() if frame in frames}
        name = f"{subject}/{number}"
        sequences.append(Sequence(subject, name, faces, spare, np.array(frames), np.stack(labels), np.stack(levels)))
    return assemble("CK+", names, sequences, on_report=on_report, tree=_TREE, root=root)


def _codes(file: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    numbers = file.read_text(encoding="utf-8-sig").split()
    try:
        pairs = np.array([float(number) for number in numbers]).reshape(-1, 2)
    except ValueError:
        raise ValueError(f"{file} must hold pairs of AU and intensity; got {' '.join(numbers)[:80]!r}.") from None
    labels = np.zeros(len(names), dtype=np.float32)
    levels = np.zeros(len(names), dtype=np.float32)
    for au, level in pairs.tolist():
        label = f"AU{int(au)}"
        if label in names:
            labels[names.index(label)] = 1
            levels[names.index(label)] = level if level > 0 else MISSING_LABEL
    return labels, levels


__all__ = ["load_ck_plus"]
