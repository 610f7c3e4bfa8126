"""Faces in parquet, a column an action unit: what `hiva data prepare` writes; rendered faces are the same."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, List, Value
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ..facs import au_label
from .schema import ALIGNMENT_KEY, DROPPED_FILE, SETTINGS_FILE, describe
from .streaming import StreamedFaces, open_parquet

_TREE = "ROOT/\n  faces-00000.parquet   columns image, subject_id, frame, AU1, AU1_intensity, ..., points or landmarks"
_KEPT = (
    "image", "subject_id", "sequence_id", "frame", "dataset", "points", "landmarks", "box", "unit", "row",
)  # fmt: skip


def load_prepared(
    root: str | Path,
    *,
    aus: Sequence[str] | None = None,
    intensity: bool = False,
    subjects: Sequence[str] | None = None,
) -> Dataset:
    """Load faces from parquet.

    Args:
        root (`str` or `Path`): A parquet file or a folder of them; also `hf://datasets/org/name`.
        aus (`Sequence[str]`, *optional*): Which AUs, in the order of the labels; by default all, in that of the files.
        intensity (`bool`, defaults to `False`): Labels are intensities 0-5 in place of occurrence 0/1.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.

    Returns:
        `datasets.Dataset` with the columns `image`, `labels` (float32, one an AU), `subject_id`, `frame`, and where the
        files have them `sequence_id`, `dataset`, `points` (eye centres, nose tip, mouth corners, x0 y0 x1 y1 ...,
        pixels), `landmarks` (68 points) and `box`. `info.description` tells the AUs and how faces were aligned.

    Raises:
        FileNotFoundError: If there is no parquet file.
        ValueError: If an AU is not in the files, no subject is left, or the preparation was interrupted.
    """
    files, alignment = _files(root)
    return _common_form(Dataset.from_parquet(files), root, aus, intensity, subjects, alignment)


def stream_prepared(
    root: str | Path,
    *,
    aus: Sequence[str] | None = None,
    intensity: bool = False,
    subjects: Sequence[str] | None = None,
) -> StreamedFaces:
    """As [`load_prepared`], but pictures are read from the files while training; no cache on disk is written.

    Returns:
        [`StreamedFaces`], which splits, folds and trains like a `datasets.Dataset`; also in several processes.
    """
    files, alignment = _files(root)
    faces = StreamedFaces.of_files(files)
    return StreamedFaces(_common_form(faces.index, root, aus, intensity, subjects, alignment), faces.units)


def _files(root: str | Path) -> tuple[list[str], dict | None]:
    """Parquet files, and how their faces were aligned where they tell, and tell the same."""
    filesystem, place = url_to_fs(str(root))
    found = [place] if filesystem.isfile(place) else sorted(filesystem.find(place))
    names = {name.rsplit("/", 1)[-1] for name in found}
    if SETTINGS_FILE in names and DROPPED_FILE not in names:
        raise ValueError(f"{root} must be prepared to its end; it was interrupted. Run `hiva data prepare` again.")
    # a hidden one is what a killed program left behind
    files = [name for name in found if name == place or re.search(r"(^|/)[^./][^/]*\.parquet$", name)]
    if not isinstance(filesystem, LocalFileSystem):
        files = [filesystem.unstrip_protocol(name) for name in files]
    if not files:
        raise FileNotFoundError(f"`root` must be a parquet file or a folder of them; got {root}. Expected:\n{_TREE}")
    alignments = set()
    for file in files:
        try:
            with open_parquet(file) as parquet:
                alignments.add((parquet.schema_arrow.metadata or {}).get(ALIGNMENT_KEY))
        except pa.ArrowInvalid as error:
            raise ValueError(f"{file} must be a parquet file; {error}") from None
    alignment = next(iter(alignments)) if len(alignments) == 1 else None
    return files, None if alignment is None else json.loads(alignment)


def _common_form(dataset: Dataset, root, aus, intensity: bool, subjects, alignment: dict | None) -> Dataset:
    known = [name for name in dataset.column_names if re.fullmatch(r"AU\d+[LR]?", name)]
    labels = known if aus is None else [au_label(au) for au in aus]
    missing = [au for au in labels if au not in known]
    if missing or not labels:
        raise ValueError(
            f"`aus` must be coded in {root}; got {', '.join(missing) or 'none'}. Coded: {', '.join(known) or 'none'}."
        )
    if subjects is not None:
        wanted = set(subjects)
        kept = [index for index, subject in enumerate(dataset["subject_id"]) if subject in wanted]
        if not kept:
            raise ValueError(
                f"`subjects` must name subjects of {root}; got {', '.join(sorted(wanted)[:5])}, and none is there."
            )
        dataset = dataset.select(kept)
    suffix = "_intensity" if intensity else ""
    table = np.stack([np.asarray(dataset[au + suffix], dtype=np.float32) for au in labels], axis=1)
    dataset = dataset.select_columns([name for name in _KEPT if name in dataset.column_names]).add_column(
        "labels", list(table), feature=List(Value("float32"), length=len(labels))
    )
    dataset.info.description = describe(labels, alignment)
    return dataset


__all__ = ["load_prepared", "stream_prepared"]
