"""BP4D and BP4D+ (Zhang et al., *Image and Vision Computing* 2014, and CVPR 2016), from a copy under their licence."""

import re
from collections.abc import Sequence as Names
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..facs import BP4D_AUS
from ..loss_hiva import MISSING_LABEL
from .schema import OnReport, intensity, occurrence
from .trees import (
    Sequence,
    add_file,
    assemble,
    au_labels,
    chosen_subjects,
    coded_frames,
    columns_of,
    folders_below,
    frame_numbers,
    missing,
    numbered_images,
    read_codes,
    require_root,
)

_TREE = """ROOT/
  AUCoding/AU_OCC/F001_T1.csv      first row: a corner cell, then AU numbers; first column: frames; 9 is not coded
  AUCoding/AU_INT/AU06/F001_T1_AU06.csv      where there are intensities: frame, intensity
  [any folder/]F001/T1/0732.jpg"""
_SUBJECT, _TASK = re.compile(r"[FM]\d{3}"), re.compile(r"T\d+")


def load_bp4d(
    root: str | Path,
    *,
    aus: Names[str] = BP4D_AUS,
    subjects: Names[str] | None = None,
    images: str | Path | None = None,
    frame_offset: int = 0,
    on_report: OnReport | None = None,
) -> Dataset:
    """Load BP4D: 41 people, 8 tasks, 146,847 coded frames.

    Args:
        root (`str` or `Path`): Folder of the dataset.
        aus (`Sequence[str]`, defaults to the 12 AUs of the benchmark): Which AUs, in the order of the labels.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.
        images (`str` or `Path`, *optional*): Folder that holds `F001/T1/0732.jpg`; by default it is looked for.
        frame_offset (`int`, defaults to 0): An image's number is the coded frame's plus this.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset`, see [`au_dataset`]; `intensities` where the copy has them (AUs 6, 10, 12, 14 and 17).

    Raises:
        FileNotFoundError: If a part of the tree is missing; the message shows it.
        ValueError: If a file is cut off or codes a frame twice, an AU is not coded, or a subject is not there.
    """
    return _load("BP4D", root, aus, subjects, images, frame_offset, on_report)


def load_bp4d_plus(
    root: str | Path,
    *,
    aus: Names[str] = BP4D_AUS,
    subjects: Names[str] | None = None,
    images: str | Path | None = None,
    frame_offset: int = 0,
    on_report: OnReport | None = None,
) -> Dataset:
    """Load BP4D+: 140 people, coded for tasks T1, T6, T7 and T8; the layout of BP4D.

    One public project reports that frame f of the codes is image f - 1 in its copy: look at a blink in yours, and set
    `frame_offset=-1` if so. Arguments, result and errors as [`load_bp4d`].
    """
    return _load("BP4D+", root, aus, subjects, images, frame_offset, on_report)


def _load(name, root, aus, subjects, images, frame_offset, on_report) -> Dataset:
    root = require_root(root, _TREE)
    names = au_labels(aus)
    codes = next((folder for folder in folders_below(root, 3) if folder.name.upper() == "AU_OCC"), None)
    if codes is None:
        raise missing("a folder AU_OCC with the codes", root, _TREE)
    files: dict[tuple[str, str], Path] = {}
    for file in sorted(codes.glob("*.csv")):
        match = re.match(r"([FM]\d{3})_(T\d+)", file.name, re.IGNORECASE)
        if match:
            add_file(files, (match[1].upper(), match[2].upper()), file)
    if not files:
        raise missing(f"files such as F001_T1.csv in {codes}", root, _TREE)
    folders = _image_folders(require_root(images, _TREE) if images is not None else root)
    recordings = files.keys() | folders.keys()
    kept = chosen_subjects(subjects, (subject for subject, _ in recordings), root)
    levels = _intensity_files(codes.parent)
    sequences = []
    for subject, task in sorted(recordings, key=lambda key: (key[0], int(key[1][1:]))):
        if subject not in kept:
            continue
        pictures = numbered_images(folders.get((subject, task)), frame_offset)
        sequence = Sequence(subject, f"{subject}/{task}", *pictures)
        if (subject, task) in files:
            header, table = read_codes(files[subject, task])
            sequence.frames, table = coded_frames(table, 0, files[subject, task])
            sequence.labels = occurrence(table[:, columns_of(["frame", *header[1:]], names, files[subject, task])])
            if levels:
                sequence.intensities = _intensities(levels.get((subject, task), {}), names, sequence.frames)
        sequences.append(sequence)
    return assemble(name, names, sequences, on_report=on_report, tree=_TREE, root=root)


def _image_folders(root: Path) -> dict[tuple[str, str], Path]:
    found: dict[tuple[str, str], Path] = {}
    for folder in folders_below(root, 4):
        subject, task = folder.parent.name.upper(), folder.name.upper()
        if _SUBJECT.fullmatch(subject) and _TASK.fullmatch(task):
            earlier = found.setdefault((subject, task), folder)
            if earlier != folder:
                raise ValueError(f"`images` must be given where there are several: {earlier} and {folder}.")
    return found


def _intensity_files(folder: Path) -> dict[tuple[str, str], dict[str, Path]]:
    """Files of intensities by recording and AU, whatever the folders are named between."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for place in folders_below(folder, 1):
        if place.name.upper() == "AU_INT":
            for file in sorted(place.rglob("*.csv")):
                match = re.match(r"([FM]\d{3})_(T\d+).*AU0*(\d+)", file.stem, re.IGNORECASE)
                if match:
                    found.setdefault((match[1].upper(), match[2].upper()), {})[f"AU{match[3]}"] = file
    return found


def _intensities(files: dict[str, Path], names: list[str], frames: np.ndarray) -> np.ndarray:
    table = np.full((len(frames), len(names)), MISSING_LABEL, dtype=np.float32)
    for column, au in enumerate(names):
        if au in files:
            # frame, intensity; a first row of words is a header
            rows = np.genfromtxt(files[au], delimiter=",", encoding="utf-8-sig", ndmin=2)
            rows = rows[np.isfinite(rows[:, 0])]
            numbers = frame_numbers(rows[:, 0], files[au])
            level = dict(zip(numbers.tolist(), intensity(rows[:, 1]).tolist(), strict=True))
            table[:, column] = [level.get(frame, MISSING_LABEL) for frame in frames.tolist()]
    return table


__all__ = ["load_bp4d", "load_bp4d_plus"]
