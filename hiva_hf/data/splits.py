"""Splits that never put one person on both sides."""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset, DatasetDict

from .merging import column_values
from .streaming import StreamedFaces


def subject_split(
    dataset: Dataset | StreamedFaces,
    *,
    validation: float = 0.15,
    test: float | Sequence[str] = 0.25,
    seed: int = 0,
) -> DatasetDict | dict[str, StreamedFaces]:
    """Split by subject into train, validation and test.

    Of merged datasets, see [`merge_datasets`], each is split by itself, so that every part has people of all of them;
    if one has fewer than 3 subjects, or they share some, all people are drawn from together.

    Args:
        dataset (`Dataset` or `StreamedFaces`): Has a column `subject_id`; merged ones also have `dataset`.
        validation (`float`, defaults to 0.15): Share of the subjects that are not tested on, at least one.
        test (`float` or `Sequence[str]`, defaults to 0.25): Share of all subjects, at least one, or their names.
        seed (`int`, defaults to 0): Which subjects fall where.

    Returns:
        `DatasetDict` (of streamed faces a `dict`) with `train`, `validation` and `test`; nobody stands in two of them.

    Raises:
        ValueError: If there are fewer than three subjects, or named test subjects are not in the data.
    """
    groups = _people(dataset)
    subjects = np.concatenate(groups)
    if len(subjects) < 3:
        raise ValueError(
            f"`dataset` must hold at least 3 subjects to split; got {len(subjects)}. "
            "Add people, or give the parts yourself."
        )
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(group) for group in groups]
    if isinstance(test, float):
        held_out = {subject for group in shuffled for subject in group[: max(1, round(test * len(group)))]}
    else:
        held_out = set(test)
        unknown = held_out - set(subjects)
        if unknown:
            raise ValueError(f"`test` must name subjects of the data; got {', '.join(sorted(unknown))}.")
    rests = [[subject for subject in group if subject not in held_out] for group in shuffled]
    most = max(map(len, rests))
    if most < 2:
        raise ValueError(
            f"`test` must leave at least 2 subjects{' of a dataset' if len(groups) > 1 else ''} to train and validate "
            f"on; got {most} left."
        )
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": list(held_out)}
    for rest in rests:
        # of a single one that is left, as where people of a dataset are tested by name, nothing is set aside
        count = max(min(max(1, round(validation * len(rest))), len(rest) - 1), 0)
        parts["validation"] += rest[:count]
        parts["train"] += rest[count:]
    return take_subjects(dataset, parts)


def _people(dataset: Dataset | StreamedFaces) -> list[np.ndarray]:
    """Subjects, sorted: a group for each dataset of a merged one that can be split by itself."""
    column = column_values(dataset, "subject_id")
    subjects = np.unique(column)
    if "dataset" not in dataset.column_names:
        return [subjects]
    # where it is not told, it is one of its own
    names = column_values(dataset, "dataset").astype(str)
    groups = [np.unique(column[names == name]) for name in np.unique(names)]
    apart = sum(map(len, groups)) == len(subjects) and all(len(group) >= 3 for group in groups)
    return groups if apart and len(groups) > 1 else [subjects]


def take_subjects(dataset, parts: Mapping[str, Sequence[str]]):
    """The rows of each part, given by its subjects; a `DatasetDict` of a `Dataset`, else a `dict`."""
    column = column_values(dataset, "subject_id")
    taken = {name: dataset.select(np.flatnonzero(np.isin(column, members))) for name, members in parts.items()}
    return DatasetDict(taken) if isinstance(dataset, Dataset) else taken


__all__ = ["subject_split", "take_subjects"]
