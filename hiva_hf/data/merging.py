"""Several datasets as one, and which of their rows are seen how often."""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset, Image, concatenate_datasets

from ..facs import au_order
from ..loss_hiva import MISSING_LABEL
from .schema import au_dataset, au_names
from .streaming import StreamedFaces
from .video_frames import FrameImage


def merge_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """One dataset over all action units of several; those that one does not code are -100 there.

    Args:
        datasets (`Sequence[Dataset]`): Of the common form, see [`au_dataset`].

    Returns:
        `datasets.Dataset` of the common form. AUs stand in the order of their numbers. People of two datasets may have
        the same name, so `subject_id` and `sequence_id` begin with that of the dataset: `BP4D:F001`.

    Raises:
        ValueError: If there is none, or one does not tell its action units.
    """
    if not datasets:
        raise ValueError("`datasets` must hold at least one dataset; got none.")
    union = sorted({au for dataset in datasets for au in au_names(dataset)}, key=au_order)
    levels = any("intensities" in dataset.column_names for dataset in datasets)
    frames_of_videos = any(isinstance(dataset.features["image"], FrameImage) for dataset in datasets)
    parts = []
    for dataset in datasets:
        table = dataset.with_format("arrow")[:]
        column = {name: table[name].to_pylist() for name in ("dataset", "subject_id", "sequence_id", "frame")}
        parts.append(
            au_dataset(
                column["dataset"],
                union,
                _over(dataset, "labels", union),
                images=table["image"].combine_chunks(),
                subjects=_joined(column["dataset"], column["subject_id"]),
                sequences=_joined(column["dataset"], column["sequence_id"]),
                frames=column["frame"],
                intensities=_over(dataset, "intensities", union) if levels else None,
                image_feature=FrameImage() if frames_of_videos else Image(),
            )
        )
    return concatenate_datasets(parts)


def _over(dataset: Dataset, column: str, union: list[str]) -> np.ndarray:
    """Labels of a dataset over more action units than it codes."""
    wide = np.full((len(dataset), len(union)), MISSING_LABEL, dtype=np.float32)
    if column in dataset.column_names:
        wide[:, [union.index(au) for au in au_names(dataset)]] = label_matrix(dataset, column)
    return wide


def _joined(first: list[str], second: list[str]) -> list[str]:
    return [f"{a}:{b}" for a, b in zip(first, second, strict=True)]


def label_matrix(dataset: Dataset | StreamedFaces, column: str = "labels") -> np.ndarray:
    """The labels of a dataset as one array, without reading an image.

    Args:
        dataset (`Dataset` or `StreamedFaces`): Of the common form.
        column (`str`, defaults to `"labels"`): Or `intensities`.

    Returns:
        `np.ndarray` of shape (num_frames, num_labels), float32.
    """
    rows = dataset.index if isinstance(dataset, StreamedFaces) else dataset
    values = rows.with_format("arrow")[:][column].combine_chunks()
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(dataset), -1).astype(np.float32)


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
        names = np.asarray(dataset["dataset"])
        known = sorted(set(names.tolist()))
        if sorted(shares) != known:
            raise ValueError(f"`shares` must name the datasets {', '.join(known)}; got {', '.join(shares) or 'none'}.")
        for name, wanted in shares.items():
            weights[names == name] *= wanted / weights[names == name].sum()
    return weights / weights.mean()


__all__ = ["label_matrix", "merge_datasets", "sampling_weights"]
