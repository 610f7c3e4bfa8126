"""DISFA (Mavadati et al., *IEEE Transactions on Affective Computing* 2013), from a copy under its licence."""

import re
from collections.abc import Sequence as Names
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import Dataset

from ..facs import DISFA_AUS
from .schema import OnReport, intensity, occurrence_from
from .trees import (
    Sequence,
    add_file,
    assemble,
    au_labels,
    chosen_subjects,
    folders_below,
    frame_numbers,
    has_images,
    missing,
    numbered_images,
    only_folder,
    require_root,
)
from .video_frames import FrameImage, count_frames, frame_path

_TREE = """ROOT/
  ActionUnit_Labels/SN001/SN001_au1.txt      a line a frame: frame from 1, intensity 0-5
  Videos_LeftCamera/LeftVideoSN001_comp.avi  or, with extracted frames:
  [any folder/]SN001/0001.png                numbered as the labels; of two cameras Left/SN001 and Right/SN001"""
_FRAMES = re.compile(r"(?:.*[^A-Z0-9])?(SN\d{3})(?:_COMP)?|(?:LEFT|RIGHT)VIDEO(SN\d{3})_COMP")


def load_disfa(
    root: str | Path,
    *,
    aus: Names[str] = DISFA_AUS,
    subjects: Names[str] | None = None,
    occurrence_at: float = 2,
    camera: Literal["left", "right"] = "left",
    images: str | Path | None = None,
    frame_offset: int = 0,
    on_report: OnReport | None = None,
) -> Dataset:
    """Load DISFA: 27 people, 130,814 frames, intensities of 12 AUs.

    Args:
        root (`str` or `Path`): Folder of the dataset.
        aus (`Sequence[str]`, defaults to the 8 AUs of the benchmark): Which AUs, in the order of the labels.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.
        occurrence_at (`float`, defaults to 2): Intensity from which an AU counts as active, the field's rule.
        camera (`str`, defaults to `"left"`): Whose videos, or extracted frames where a folder's name or those above it
            tell; the field uses the left one's.
        images (`str` or `Path`, *optional*): Folder of extracted frames, `SN001/0001.png`; by default it is looked for,
            and where there is none frames are read straight from the videos.
        frame_offset (`int`, defaults to 0): An extracted image's number is the label's plus this.
        on_report (`Callable`, *optional*): Given the [`LoadReport`]; by default what was left out is logged.

    Returns:
        `datasets.Dataset` with `intensities`, see [`au_dataset`].

    Raises:
        FileNotFoundError: If a part of the tree is missing; the message shows it.
        ValueError: If a file is cut off or codes a frame twice, an AU is not coded, a subject is not there, or one has
            two folders of frames.
    """
    root = require_root(root, _TREE)
    names = au_labels(aus)
    codes = next((folder for folder in folders_below(root, 2) if folder.name.lower() == "actionunit_labels"), None)
    if codes is None:
        raise missing("a folder ActionUnit_Labels", root, _TREE)
    people = {folder.name.upper(): folder for folder in folders_below(codes, 1)}
    if not people:
        raise missing("folders of labels such as SN001", codes, _TREE)
    extracted = _extracted(require_root(images, _TREE) if images is not None else root, codes, camera)
    videos = {} if extracted else _videos(root, camera)
    if not extracted and not videos:
        raise missing(f"extracted frames, or videos of the {camera} camera", root, _TREE)
    sequences = []
    for subject in sorted(chosen_subjects(subjects, people.keys() | extracted.keys() | videos.keys(), root)):
        pictures = numbered_images(only_folder(extracted.get(subject, ())), frame_offset)
        sequence = Sequence(subject, subject, *pictures)
        if subject in videos:
            video = videos[subject]
            sequence.images = {n + 1: frame_path(video, n) for n in range(count_frames(video))}
        if subject in people:
            sequence.frames, sequence.intensities = _levels(people[subject], subject, names)
            sequence.labels = occurrence_from(sequence.intensities, occurrence_at)
        sequences.append(sequence)
    return assemble("DISFA", names, sequences, on_report=on_report, tree=_TREE, root=root, image_feature=FrameImage())


def _levels(folder: Path, subject: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    columns: list[np.ndarray] = []
    frames = np.empty(0, dtype=int)
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        match = re.search(r"_au0*(\d+)\.txt$", file.name, re.IGNORECASE)
        if match and not file.name.startswith("."):
            add_file(files, f"AU{match[1]}", file)
    for au in names:
        if au not in files:
            raise ValueError(
                f"`aus` must be coded for {subject}; {folder} lacks {au}. Coded: {', '.join(sorted(files)) or 'none'}."
            )
        rows = []
        for line, text in enumerate(files[au].read_text(encoding="utf-8-sig").split(), start=1):
            match = re.fullmatch(r"(\d+),(\d+)", text)
            if match is None:
                raise ValueError(
                    f"{files[au]} must hold lines of frame,intensity; line {line} is {text!r}. Is it cut off?"
                )
            rows.append((int(match[1]), int(match[2])))
        table = np.array(rows, dtype=int).reshape(-1, 2)
        if columns and not np.array_equal(frames, table[:, 0]):
            raise ValueError(
                f"{files[au]} must have the frames of the other AUs of {subject}, {len(frames)} of them; it has "
                f"{len(table)}. Is it cut off?"
            )
        frames = frame_numbers(table[:, 0], files[au])
        columns.append(intensity(table[:, 1]))
    return frames, np.stack(columns, axis=1)


def _extracted(root: Path, codes: Path, camera: str) -> dict[str, list[Path]]:
    """Folders of frames by subject, of this camera or where it is not told of which."""
    found: dict[str, list[Path]] = {}
    for folder in folders_below(root, 3):
        match = _FRAMES.fullmatch(folder.name.upper())
        if not match or codes in folder.parents or _side(folder.relative_to(root)) not in (camera, None):
            continue
        if has_images(folder):
            found.setdefault(match[1] or match[2], []).append(folder)
    return found


def _side(folder: Path) -> str | None:
    """The camera that the name of a folder tells, or else that of the folder around it, and so on."""
    for name in reversed(folder.parts):
        sides = [side for side in ("left", "right") if side in name.lower()]
        if len(sides) == 1:
            return sides[0]
    return None


def _videos(root: Path, camera: str) -> dict[str, str]:
    found = {}
    for file in sorted(root.rglob("*.avi")) + sorted(root.rglob("*.mp4")):
        match = re.match(rf"{camera}video(SN\d{{3}})", file.name, re.IGNORECASE)
        if match:
            found[match[1].upper()] = str(file)
    return found


__all__ = ["load_disfa"]
