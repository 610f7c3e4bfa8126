"""Who is trained on and who is tested: published parts, folds of any dataset, validation subjects among the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, DatasetDict
from sklearn.model_selection import GroupKFold

from .merging import column_values
from .splits import take_subjects
from .streaming import StreamedFaces


def _people(names: str) -> tuple[str, ...]:
    return tuple(names.split())


# the three parts of every paper since JAA-Net (Shao et al., ECCV 2018)
BP4D_PARTS = {
    "P1": _people("F001 M007 F018 F008 F002 M004 F010 F009 M012 M001 F016 M014 F023 M008"),
    "P2": _people("M011 F003 M010 M002 F005 F022 M018 M017 F013 M016 F020 F011 M013 M005"),
    "P3": _people("F007 F015 F006 F019 M006 M009 F012 M003 F004 F021 F017 M015 F014"),
}
DISFA_PARTS = {
    "P1": _people("SN002 SN010 SN001 SN026 SN027 SN032 SN030 SN009 SN016"),
    "P2": _people("SN013 SN018 SN011 SN028 SN012 SN006 SN031 SN021 SN024"),
    "P3": _people("SN003 SN029 SN023 SN025 SN008 SN005 SN007 SN017 SN004"),
}
PROTOCOLS = {"bp4d": BP4D_PARTS, "disfa": DISFA_PARTS}
# coded frames of each part; of DISFA 4,845 a person, but 4,844 of SN010
PUBLISHED_FRAMES = {
    "bp4d": {"P1": 50_631, "P2": 50_182, "P3": 46_034},
    "disfa": {"P1": 43_604, "P2": 43_605, "P3": 43_605},
}


@dataclass(frozen=True)
class Fold:
    """One round of a cross-validation, by subjects.

    Args:
        tested (`str`): Name of the part that is tested; papers number folds differently, parts are the same.
        train (`tuple[str, ...]`): Subjects to learn from.
        validation (`tuple[str, ...]`): Subjects that choose the best epoch; nobody stands in two groups.
        test (`tuple[str, ...]`): Subjects of the tested part.
    """

    tested: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def split(self, dataset: Dataset | StreamedFaces) -> DatasetDict | dict[str, StreamedFaces]:
        """`DatasetDict` (of streamed faces a `dict`) with `train`, `test` and, where the fold has it, `validation`."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return take_subjects(dataset, {name: people for name, people in parts.items() if people})


def protocol_folds(
    dataset: Dataset | StreamedFaces, protocol: str | int = 3, *, validation: float = 0.15, seed: int = 0
) -> list[Fold]:
    """Folds of a dataset: in each, one part is tested and the others train.

    Args:
        dataset (`Dataset`): Has a column `subject_id`.
        protocol (`str` or `int`, defaults to 3): `"bp4d"` or `"disfa"`, the three published parts; or a number of
            subject-exclusive parts of about equal frames, drawn by `seed`.
        validation (`float`, defaults to 0.15): Share of a fold's training subjects that choose the best epoch, at least
            one; 0 sets nobody aside.
        seed (`int`, defaults to 0): Who validates, and for a number of parts also who is tested when.

    Returns:
        `list[Fold]`

    Raises:
        ValueError: If a subject of the data belongs to no part, or a part has nobody.
    """
    column = column_values(dataset, "subject_id")
    subjects = sorted(set(column.tolist()))
    if isinstance(protocol, int):
        parts = _drawn(column, subjects, protocol, seed)
    elif protocol in PROTOCOLS:
        parts = PROTOCOLS[protocol]
        strangers = sorted(set(subjects) - {name for people in parts.values() for name in people})
        if strangers:
            raise ValueError(
                f"`protocol` {protocol} must know every subject of the data; not {', '.join(strangers[:5])}"
                f"{f', {len(strangers)} in all' if len(strangers) > 5 else ''}. Leave them out, or ask for a number of "
                "parts."
            )
    else:
        raise ValueError(f"`protocol` must be {', '.join(PROTOCOLS)} or a number of folds; got {protocol!r}.")
    folds = []
    for number, (tested, people) in enumerate(parts.items()):
        test = [name for name in people if name in subjects]
        rest = [name for name in subjects if name not in people]
        if not test or len(rest) < 2:
            raise ValueError(
                f"`dataset` must have subjects of part {tested}, and at least 2 of others; got {len(test)} and "
                f"{len(rest)}."
            )
        shuffled = np.random.default_rng((seed, number)).permutation(rest).tolist()
        count = min(max(1, round(validation * len(rest))), len(rest) - 1) if validation else 0
        folds.append(Fold(tested, tuple(sorted(shuffled[count:])), tuple(sorted(shuffled[:count])), tuple(test)))
    return folds


def _drawn(column: np.ndarray, subjects: Sequence[str], count: int, seed: int) -> dict[str, tuple[str, ...]]:
    if not 2 <= count <= len(subjects):
        raise ValueError(f"`protocol` must be 2 to {len(subjects)} folds, the number of subjects; got {count}.")
    # it deals people out by their frames, most first; who stands where among equals is chance
    place = dict(zip(subjects, np.random.default_rng(seed).permutation(len(subjects)).tolist(), strict=True))
    rows = GroupKFold(n_splits=count).split(column, groups=[place[name] for name in column.tolist()])
    return {f"P{part}": tuple(sorted(set(column[test].tolist()))) for part, (_, test) in enumerate(rows, start=1)}


__all__ = ["BP4D_PARTS", "DISFA_PARTS", "PROTOCOLS", "PUBLISHED_FRAMES", "Fold", "protocol_folds"]
