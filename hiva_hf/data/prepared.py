"""Faces in parquet, a column an action unit: what `hiva data prepare` writes; rendered faces are the same."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, List, Value, concatenate_datasets
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ..facs import au_label
from ..loss_hiva import MISSING_LABEL
from .merging import column_values
from .schema import ALIGNMENT_KEY, DROPPED_FILE, SETTINGS_FILE, describe
from .streaming import StreamedFaces, open_parquet

logger = logging.getLogger(__name__)

_TREE = "ROOT/\n  faces-00000.parquet   columns image, subject_id, frame, AU1, AU1_intensity, ..., points or landmarks"
_KEPT = (
    "image", "subject_id", "sequence_id", "frame", "dataset", "points", "landmarks", "box", "unit", "row",
    "skin_tone", "sex", "age",
)  # fmt: skip


def load_prepared(
    root: str | Path,
    *,
    aus: Sequence[str] | None = None,
    intensity: bool = False,
    subjects: Sequence[str] | None = None,
    allow_uncoded: bool = False,
) -> Dataset:
    """Load faces from parquet.

    Args:
        root (`str` or `Path`): A parquet file or a folder of them; also `hf://datasets/org/name`.
        aus (`Sequence[str]`, *optional*): Which AUs, in the order of the labels; by default all, in that of the files.
        intensity (`bool`, defaults to `False`): Labels are intensities 0-5 in place of occurrence 0/1.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.
        allow_uncoded (`bool`, defaults to `False`):
            AUs that the files lack are -100, not coded, in place of an error: for a model that knows more of them.

    Returns:
        `datasets.Dataset` with the columns `image`, `labels` (float32, one an AU), `subject_id`, `frame`, and where the
        files have them `intensities` (as `labels`, beside occurrence), `sequence_id`, `dataset`, `points` (eye centres,
        nose tip, mouth corners, x0 y0 x1 y1 ..., pixels), `landmarks` (68 points), `box`, `skin_tone`, `sex` and `age`.
        `info.description` tells the AUs and how faces were aligned.

    Raises:
        FileNotFoundError: If there is no parquet file.
        ValueError: If an AU is not in the files, or none is where that is allowed; no subject is left; or the
            preparation was interrupted.
    """
    files, alignment = _files(root)
    return _common_form(Dataset.from_parquet(files), root, aus, intensity, subjects, alignment, allow_uncoded)


def stream_prepared(
    root: str | Path,
    *,
    aus: Sequence[str] | None = None,
    intensity: bool = False,
    subjects: Sequence[str] | None = None,
    allow_uncoded: bool = False,
) -> StreamedFaces:
    """As [`load_prepared`], but pictures are read from the files while training; no cache on disk is written.

    Returns:
        [`StreamedFaces`], which splits, folds and trains like a `datasets.Dataset`; also in several processes.
    """
    files, alignment = _files(root)
    faces = StreamedFaces.of_files(files)
    index = _common_form(faces.index, root, aus, intensity, subjects, alignment, allow_uncoded)
    return StreamedFaces(index, faces.units)


def _files(root: str | Path) -> tuple[list[str], dict | None]:
    """Parquet files, and how their faces were aligned where they tell, and tell the same."""
    filesystem, place = url_to_fs(str(root))
    found = [place] if filesystem.isfile(place) else sorted(filesystem.find(place))
    for name in found:
        folder = name.removesuffix(f"/{SETTINGS_FILE}")
        if folder != name and f"{folder}/{DROPPED_FILE}" not in found:
            raise ValueError(
                f"{folder} must be prepared to its end; it was interrupted. Run `hiva data prepare` again."
            )
    # a hidden one is what a killed program left behind
    files = [name for name in found if name == place or re.search(r"(^|/)[^./][^/]*\.parquet$", name)]
    if not isinstance(filesystem, LocalFileSystem):
        files = [filesystem.unstrip_protocol(name) for name in files]
    if not files:
        raise FileNotFoundError(
            f"{root} must be a parquet file or a folder of them. Expected:\n{_TREE}\n`hiva data prepare` makes them of "
            "a dataset, or of images with a CSV."
        )
    alignments = set()
    for file in files:
        try:
            with open_parquet(file) as parquet:
                alignments.add((parquet.schema_arrow.metadata or {}).get(ALIGNMENT_KEY))
        except pa.ArrowInvalid as error:
            raise ValueError(f"{file} must be a parquet file; {error}") from None
    if len(alignments) > 1:
        logger.warning("Files of %s were cut out in %d ways, so it is not told which.", root, len(alignments))
    alignment = next(iter(alignments)) if len(alignments) == 1 else None
    return files, None if alignment is None else json.loads(alignment)


def _common_form(
    dataset: Dataset, root, aus, intensity: bool, subjects, alignment: dict | None, allow_uncoded: bool
) -> Dataset:
    known = [name for name in dataset.column_names if re.fullmatch(r"AU\d+[LR]?", name)]
    labels = known if aus is None else [au_label(au) for au in aus]
    missing = [au for au in labels if au not in known]
    coded = [au for au in dict.fromkeys(labels) if au in known]
    if not coded or (missing and not allow_uncoded):
        raise ValueError(
            f"`aus` must be coded in {root}; got {', '.join(missing) or 'none'}. Coded: {', '.join(known) or 'none'}."
        )
    suffixes = {"labels": "_intensity" if intensity else ""}
    if not intensity and {f"{au}_intensity" for au in coded} <= set(dataset.column_names):
        suffixes["intensities"] = "_intensity"
    features = Features({name: List(Value("float32"), length=len(labels)) for name in suffixes})
    matrices = {}
    for name, suffix in suffixes.items():
        columns = dataset.select_columns([au + suffix for au in coded]).with_format("arrow")[:]
        table = np.full((len(dataset), len(labels)), MISSING_LABEL, np.float32)
        for place, au in enumerate(labels):
            if au in coded:
                table[:, place] = columns[au + suffix].to_numpy()
        matrices[name] = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), len(labels))
    kept = dataset.select_columns([name for name in _KEPT if name in dataset.column_names])
    added = Dataset(pa.table(matrices, schema=features.arrow_schema), info=DatasetInfo(features=features))
    dataset = concatenate_datasets([kept, added], axis=1)
    dataset.info.description = describe(labels, alignment)
    if subjects is None:
        return dataset
    people = column_values(dataset, "subject_id")
    unknown = sorted(set(subjects) - set(people.tolist()))
    if unknown or not subjects:
        raise ValueError(f"`subjects` must name subjects of {root}; got {', '.join(unknown[:5]) or 'none'}, not there.")
    return dataset.select(np.flatnonzero(np.isin(people, list(subjects))))


__all__ = ["load_prepared", "stream_prepared"]
