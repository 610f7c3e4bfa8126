"""Several datasets as one, and which of their rows are seen how often."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetInfo, Features, Image, List, Value, concatenate_datasets

from ..facs import au_order
from ..loss_hiva import MISSING_LABEL
from .schema import alignment_of, au_names, describe
from .streaming import RowGroup, StreamedFaces
from .video_frames import FrameImage

_KEYS = ("subject_id", "sequence_id", "frame", "dataset")


def merge_datasets(datasets: Sequence[Dataset] | Sequence[StreamedFaces]) -> Dataset | StreamedFaces:
    """One dataset over all action units of several; those that one does not code are -100 there.

    Args:
        datasets (`Sequence[Dataset]` or `Sequence[StreamedFaces]`): Of the common form, see [`au_dataset`].

    Returns:
        `datasets.Dataset` of the common form, or [`StreamedFaces`]; pictures are not copied. AUs stand in the order of
        their numbers. People of two datasets may have the same name, so `subject_id` and `sequence_id` begin with that
        of the dataset: `BP4D:F001`. Further columns, such as the `points` of prepared faces, are `None` in rows of
        datasets that lack them. How faces were aligned is told where it is the same for all.

    Raises:
        TypeError: If some are streamed and others are not, or one is neither.
        ValueError: If there is none, one does not tell its action units or lacks a column, or a further column is of
            two kinds.
    """
    if not datasets:
        raise ValueError("`datasets` must hold at least one dataset; got none.")
    loaded = [dataset for dataset in datasets if isinstance(dataset, Dataset)]
    streamed = [dataset for dataset in datasets if isinstance(dataset, StreamedFaces)]
    if len(datasets) not in (len(loaded), len(streamed)):
        kinds = sorted({type(dataset).__name__ for dataset in datasets})
        raise TypeError(
            f"`datasets` must hold `Dataset` only or `StreamedFaces` only; got {', '.join(kinds)}. Load all with "
            "`load_prepared` or all with `stream_prepared`; of a `DatasetDict` give one part."
        )
    if loaded:
        return _merged(loaded)
    indexes: list[Dataset] = []
    units: list[RowGroup] = []
    for faces in streamed:
        unit = pc.add(faces.index.data.column("unit"), pa.scalar(len(units), pa.int32()))
        indexes.append(_replaced(faces.index, {"unit": unit}, {"unit": Value("int32")}))
        units += faces.units
    return StreamedFaces(_merged(indexes), units)


def _merged(datasets: Sequence[Dataset]) -> Dataset:
    union = sorted({au for dataset in datasets for au in au_names(dataset)}, key=au_order)
    further: dict = {}
    for number, dataset in enumerate(datasets, start=1):
        lacking = [name for name in ("labels", *_KEYS) if name not in dataset.column_names]
        if lacking:
            raise ValueError(
                f"`datasets` must have the columns labels, {', '.join(_KEYS)}; number {number} lacks "
                f"{', '.join(lacking)}. Add them with `add_column`."
            )
        for name, feature in dataset.features.items():
            if name not in ("image", "labels", "intensities", *_KEYS) and further.setdefault(name, feature) != feature:
                raise ValueError(
                    f"The column {name} must be of one kind in all datasets; got {further[name]} and {feature}. Use "
                    "`cast_column` or `remove_columns` first."
                )
    features: dict = {}
    if any("image" in dataset.column_names for dataset in datasets):
        frames_of_videos = any(isinstance(dataset.features.get("image"), FrameImage) for dataset in datasets)
        features["image"] = FrameImage() if frames_of_videos else Image()
    levels = any("intensities" in dataset.column_names for dataset in datasets)
    for name in ("labels", "intensities") if levels else ("labels",):
        features[name] = List(Value("float32"), length=len(union))
    features |= {name: Value("int32" if name == "frame" else "string") for name in _KEYS} | further
    merged = concatenate_datasets([_part(dataset, union, features) for dataset in datasets])
    ways = [alignment_of(dataset) for dataset in datasets]
    merged.info.description = describe(union, ways[0] if all(way == ways[0] for way in ways) else None)
    return merged


def _part(dataset: Dataset, union: Sequence[str], features: Mapping) -> Dataset:
    """A dataset with the columns of the merged one."""
    table, aus = dataset.data, au_names(dataset)
    names = table.column("dataset").cast(pa.string())
    made: dict = {"frame": table.column("frame"), "dataset": names}
    for name in ("subject_id", "sequence_id"):
        made[name] = pc.binary_join_element_wise(names, table.column(name).cast(pa.string()), ":")
    for name in ("labels", "intensities"):
        if name in features:
            wide = np.full((len(names), len(union)), MISSING_LABEL, dtype=np.float32)
            if name in dataset.column_names:
                wide[:, [union.index(au) for au in aus]] = _matrix(table.column(name))
            made[name] = pa.FixedSizeListArray.from_arrays(pa.array(wide.ravel()), len(union))
    schema = Features(features).arrow_schema
    for name in features:
        if name not in made and name not in dataset.column_names:
            made[name] = pa.nulls(len(names), schema.field(name).type)
    part = _replaced(dataset, made, {name: features[name] for name in made})
    if "image" in features and part.features["image"] != features["image"]:
        part = part.cast_column("image", features["image"])
    return part.select_columns(list(features))


def _replaced(dataset: Dataset, columns: Mapping, features: Mapping) -> Dataset:
    """A dataset with some columns anew, of all rows of its table; the others, pictures too, are not copied."""
    others = dataset.with_format(None).select_columns([name for name in dataset.column_names if name not in columns])
    kinds = Features(features)
    new = Dataset(pa.table(dict(columns), schema=kinds.arrow_schema), info=DatasetInfo(features=kinds))
    # a selection of rows would be written anew to be joined, so it is made again afterwards
    selection, others._indices = others._indices, None
    joined = concatenate_datasets([others, new], axis=1)
    joined.info.description = dataset.info.description
    return joined if selection is None else joined.select(selection.column(0).to_numpy())


def _column(dataset: Dataset | StreamedFaces, name: str) -> pa.ChunkedArray:
    rows = dataset.index if isinstance(dataset, StreamedFaces) else dataset
    return rows.select_columns([name]).with_format("arrow")[:][name]


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1).astype(np.float32)


def column_values(dataset: Dataset | StreamedFaces, name: str) -> np.ndarray:
    """A column of words or numbers as one array, without reading an image.

    Args:
        dataset (`Dataset` or `StreamedFaces`): Has the column.
        name (`str`): Such as `subject_id`.

    Returns:
        `np.ndarray` of shape (num_frames,); words are of a NumPy string type, but objects where some are missing.
    """
    column = _column(dataset, name)
    values = column.to_numpy()
    return values.astype(str) if values.dtype == object and not column.null_count else values


def label_matrix(dataset: Dataset | StreamedFaces, column: str = "labels") -> np.ndarray:
    """The labels of a dataset as one array, without reading an image.

    Args:
        dataset (`Dataset` or `StreamedFaces`): Of the common form.
        column (`str`, defaults to `"labels"`): Or `intensities`.

    Returns:
        `np.ndarray` of shape (num_frames, num_labels), float32.
    """
    return _matrix(_column(dataset, column))


def sampling_weights(
    dataset: Dataset | StreamedFaces, strength: float = 0.5, shares: Mapping[str, float] | None = None
) -> np.ndarray:
    """How often to see each frame, so that rare action units, or small datasets, are seen more often.

    A frame weighs as its rarest active AU: `(1 / share of frames in which that AU is active) ** strength`; a frame
    without any as one that is always active. Reconstruction; the field balances by losses or by such draws.

    Args:
        dataset (`Dataset` or `StreamedFaces`): Of the common form; of training subjects only.
        strength (`float`, defaults to 0.5): 0 sees all equally often, 1 evens out the rarest.
        shares (`Mapping[str, float]`, *optional*): What part of the draws comes of each dataset of a merged one, in
            proportion, such as `{"BP4D": 1, "DISFA": 1}`; by default what the weights of its frames give.

    Returns:
        `np.ndarray` of shape (num_frames,), mean 1; for `build_trainer(..., sample_weights=...)`.

    Raises:
        ValueError: If `shares` do not name the datasets of the rows.
    """
    labels = label_matrix(dataset)
    active, coded = labels == 1, labels != MISSING_LABEL
    share = active.sum(0) / np.maximum(coded.sum(0), 1)
    weights = np.where(active, 1 / np.maximum(share, 1e-9), 1.0).max(axis=1) ** strength
    if shares is not None:
        names = column_values(dataset, "dataset")
        known = sorted(set(names.tolist()))
        if sorted(shares) != known:
            raise ValueError(f"`shares` must name the datasets {', '.join(known)}; got {', '.join(shares) or 'none'}.")
        for name, wanted in shares.items():
            weights[names == name] *= wanted / weights[names == name].sum()
    return weights / weights.mean()


def names_of_datasets(dataset: Dataset | StreamedFaces) -> list[str]:
    """Which datasets the rows are of, as their loaders call them; empty where it is not told."""
    if "dataset" not in dataset.column_names:
        return []
    return sorted({str(name) for name in column_values(dataset, "dataset") if name})


__all__ = ["column_values", "label_matrix", "merge_datasets", "names_of_datasets", "sampling_weights"]
