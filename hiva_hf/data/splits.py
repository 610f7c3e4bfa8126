"""Splits that never put one person on both sides."""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset, DatasetDict

from .streaming import StreamedFaces


def subject_split(
    dataset: Dataset | StreamedFaces,
    *,
    validation: float = 0.15,
    test: float | Sequence[str] = 0.25,
    seed: int = 0,
) -> DatasetDict | dict[str, StreamedFaces]:
    """Split by subject into train, validation and test.

    Args:
        dataset (`Dataset` or `StreamedFaces`): Has a column `subject_id`.
        validation (`float`, defaults to 0.15): Share of the subjects that are not tested on, at least one.
        test (`float` or `Sequence[str]`, defaults to 0.25): Share of all subjects, at least one, or their names.
        seed (`int`, defaults to 0): Which subjects fall where.

    Returns:
        `DatasetDict` (of streamed faces a `dict`) with `train`, `validation` and `test`; nobody stands in two of them.

    Raises:
        ValueError: If there are fewer than three subjects, or named test subjects are not in the data.
    """
    column = np.asarray(dataset["subject_id"])
    subjects = np.unique(column)
    if len(subjects) < 3:
        raise ValueError(
            f"`dataset` must hold at least 3 subjects to split; got {len(subjects)}. "
            "Add people, or give the parts yourself."
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(subjects)
    if isinstance(test, float):
        held_out = set(shuffled[: max(1, round(test * len(subjects)))])
    else:
        held_out = set(test)
        unknown = held_out - set(subjects)
        if unknown:
            raise ValueError(f"`test` must name subjects of the data; got {', '.join(sorted(unknown))}.")
    rest = [subject for subject in shuffled if subject not in held_out]
    if len(rest) < 2:
        raise ValueError(f"`test` must leave at least 2 subjects to train and validate on; got {len(rest)} left.")
    count = min(max(1, round(validation * len(rest))), len(rest) - 1)
    parts = {"train": rest[count:], "validation": rest[:count], "test": list(held_out)}
    return take_subjects(dataset, parts)


def take_subjects(dataset, parts: Mapping[str, Sequence[str]]):
    """The rows of each part, given by its subjects; a `DatasetDict` of a `Dataset`, else a `dict`."""
    column = np.asarray(dataset["subject_id"])
    taken = {name: dataset.select(np.flatnonzero(np.isin(column, members))) for name, members in parts.items()}
    return DatasetDict(taken) if isinstance(dataset, Dataset) else taken


__all__ = ["subject_split", "take_subjects"]
