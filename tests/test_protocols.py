"""Folds that share no subject, and the published parts."""

import numpy as np
import pytest
from datasets import Dataset

from hiva_hf.data import protocol_folds
from hiva_hf.data.protocols import BP4D_PARTS, DISFA_PARTS, PROTOCOLS, PUBLISHED_FRAMES


def people(subjects, frames=3):
    return Dataset.from_dict({"subject_id": [name for name in subjects for _ in range(frames)]})


@pytest.mark.parametrize(("protocol", "total", "women"), [("bp4d", 41, 23), ("disfa", 27, None)], ids=["bp4d", "disfa"])
def test_the_published_parts(protocol, total, women):
    parts = PROTOCOLS[protocol]
    everyone = [name for part in parts.values() for name in part]
    assert len(everyone) == len(set(everyone)) == total
    if women is not None:
        assert sorted(everyone) == [f"F{n:03}" for n in range(1, 24)] + [f"M{n:03}" for n in range(1, 19)]
        assert sum(PUBLISHED_FRAMES[protocol].values()) == 146_847
    else:
        assert [len(part) for part in DISFA_PARTS.values()] == [9, 9, 9]


@pytest.mark.parametrize(("protocol", "parts"), [("bp4d", BP4D_PARTS), ("disfa", DISFA_PARTS)])
def test_folds_of_the_published_parts(protocol, parts):
    dataset = people([name for part in parts.values() for name in part])
    folds = protocol_folds(dataset, protocol)
    assert [fold.tested for fold in folds] == ["P1", "P2", "P3"]
    for fold in folds:
        assert sorted(fold.test) == sorted(parts[fold.tested])
        groups = [set(fold.train), set(fold.validation), set(fold.test)]
        assert sum(map(len, groups)) == len(set.union(*groups)) == len(set(dataset["subject_id"]))
        splits = fold.split(dataset)
        assert {name: len(part) for name, part in splits.items()} == {
            "train": 3 * len(groups[0]), "validation": 3 * len(groups[1]), "test": 3 * len(groups[2])
        }  # fmt: skip
        assert len(fold.validation) == round(0.15 * (len(fold.train) + len(fold.validation)))


def test_complete_data_have_the_published_number_of_frames():
    # DISFA: 4,845 frames of each of 27 people, one less of SN010
    frames = {name: 4844 if name == "SN010" else 4845 for part in DISFA_PARTS.values() for name in part}
    dataset = Dataset.from_dict({"subject_id": [name for name, count in frames.items() for _ in range(count)]})
    folds = protocol_folds(dataset, "disfa")
    assert {fold.tested: len(fold.split(dataset)["test"]) for fold in folds} == PUBLISHED_FRAMES["disfa"]
    assert len(dataset) == 130_814
    # BP4D: of each part the number is published, who has how many is not
    names, counts = [], []
    for part, people_of_part in BP4D_PARTS.items():
        total = PUBLISHED_FRAMES["bp4d"][part]
        each = total // len(people_of_part)
        names += people_of_part
        counts += [each] * (len(people_of_part) - 1) + [total - each * (len(people_of_part) - 1)]
    dataset = Dataset.from_dict({"subject_id": np.repeat(names, counts)})
    for fold in protocol_folds(dataset, "bp4d"):
        sizes = {name: len(part) for name, part in fold.split(dataset).items()}
        assert sizes["test"] == PUBLISHED_FRAMES["bp4d"][fold.tested]
        assert sum(sizes.values()) == 146_847


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_of_parts_of_any_people(count):
    dataset = people([f"P{n}" for n in range(11)])
    folds = protocol_folds(dataset, count, seed=3)
    tested = [name for fold in folds for name in fold.test]
    assert sorted(tested) == sorted(set(dataset["subject_id"]))
    assert len(folds) == count
    assert max(len(fold.test) for fold in folds) - min(len(fold.test) for fold in folds) <= 1
    assert folds == protocol_folds(dataset, count, seed=3)
    assert folds != protocol_folds(dataset, count, seed=4)


def test_parts_have_about_equal_frames():
    sizes = [30, 10, 10, 10, 10, 10, 10, 30]
    dataset = Dataset.from_dict({"subject_id": [f"P{n}" for n, size in enumerate(sizes) for _ in range(size)]})
    for fold in protocol_folds(dataset, 2):
        assert len(fold.split(dataset)["test"]) == 60


def test_nobody_set_aside():
    folds = protocol_folds(people("abcdef"), 3, validation=0)
    assert all(fold.validation == () and len(fold.train) == 4 for fold in folds)
    assert "validation" not in folds[0].split(people("abcdef"))


def test_what_cannot_be_folded():
    with pytest.raises(ValueError, match="must know every subject of the data; not S001"):
        protocol_folds(people(["F001", "S001"]), "bp4d")
    with pytest.raises(ValueError, match="subjects of part P1"):
        protocol_folds(people(["F003", "F007"]), "bp4d")
    with pytest.raises(ValueError, match="must be bp4d, disfa or a number of folds; got 'ck'"):
        protocol_folds(people("abc"), "ck")
    with pytest.raises(ValueError, match="2 to 3 folds"):
        protocol_folds(people("abc"), 4)
    assert np.unique(people("abc")["subject_id"]).size == 3
