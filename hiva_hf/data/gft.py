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
    add_file,
    assemble,
    au_labels,
    chosen_subjects,
    coded_frames,
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
  [any folder/]001A.csv          a header with AU numbers (1 or AU1), and the column frame where rows are not in order
  [any folder/]001A/0001.jpg     frames of the same participant"""
_PARTICIPANT = re.compile(r"\d{3}[A-Z]")


def load_gft(
    root: str | Path,
    *,
    aus: Names[str] = GFT_AUS,
    subjects: Names[str] | None = None,
    images: str | Path | None = None,
    frame_offset: int = 0,
    on_report: OnReport | None = None,
) -> Dataset:
    """Load GFT: 96 participants, ten AUs.

    Its layout could not be checked here on a real copy: a CSV a participant is looked for, and a folder of frames of
    the same name, wherever they lie. Names such as `001A_pred.csv` are other files, and are not read.

    Args:
        root (`str` or `Path`): Folder of the dataset.
        aus (`Sequence[str]`, defaults to its ten AUs): Which AUs, in the order of the labels.
        subjects (`Sequence[str]`, *optional*): Keep these participants only.
        images (`str` or `Path`, *optional*): Folder that holds `001A/0001.jpg`; by default it is looked for.
        frame_offset (`int`, defaults to 0): An image's number is the coded frame's plus this.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset`, see [`au_dataset`]; every code but 0 and 1 is -100.

    Raises:
        FileNotFoundError: If a part of the tree is missing; the message shows it.
        ValueError: If a file is cut off or codes a frame twice, an AU is not coded, a subject is not there, or one has
            two files or folders.
    """
    root = require_root(root, _TREE)
    names = au_labels(aus)
    files: dict[str, Path] = {}
    for file in sorted(root.rglob("*.csv")):
        if _PARTICIPANT.fullmatch(file.stem.upper()):
            add_file(files, file.stem.upper(), file)
    if not files:
        raise missing("a CSV a participant, such as 001A.csv", root, _TREE)
    folders: dict[str, list[Path]] = {}
    for folder in folders_below(require_root(images, _TREE) if images is not None else root, 4):
        if _PARTICIPANT.fullmatch(folder.name.upper()) and has_images(folder):
            folders.setdefault(folder.name.upper(), []).append(folder)
    sequences = []
    for subject in sorted(chosen_subjects(subjects, files.keys() | folders.keys(), root)):
        pictures = numbered_images(only_folder(folders.get(subject, ())), frame_offset)
        sequence = Sequence(subject, subject, *pictures)
        if subject in files:
            sequence.frames, sequence.labels = _coded(files[subject], names)
        sequences.append(sequence)
    return assemble("GFT", names, sequences, on_report=on_report, tree=_TREE, root=root)


def _coded(file: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    header, codes = read_codes(file)
    places = [place for place, column in enumerate(header) if column.lower() in ("frame", "frames", "frame_id")]
    if places:
        frames, codes = coded_frames(codes, places[0], file)
    else:
        frames = np.arange(1, len(codes) + 1)
    return frames, occurrence(codes[:, columns_of(header, names, file)])


__all__ = ["load_gft"]
