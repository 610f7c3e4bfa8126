"""Metrics by group of people."""

import numpy as np
import pytest
from datasets import Dataset

from hiva_hf.groups import group_labels, group_metrics
from hiva_hf.machine import machine
from hiva_hf.metrics import au_metrics


def test_names_stay_and_numbers_are_cut_at_thirds_of_their_range():
    assert group_labels(np.array(["f", "m", None], dtype=object)).tolist() == ["f", "m", ""]
    assert group_labels(np.array([1, 2, 2])).tolist() == ["1", "2", "2"]
    tones = np.array([0.0, 0.1, 0.29, 0.31, 0.5, 0.61, 0.9, np.nan])
    low, middle, high = "0 to 0.3", "0.3 to 0.6", "0.6 to 0.9"
    assert group_labels(tones).tolist() == [low, low, low, middle, middle, high, high, ""]


def test_what_was_measured_is_cut_into_bands_however_few_values_there_are():
    tones = np.array([0.05, 0.31, 0.4, 0.94, 0.95, np.nan])
    low, middle, high = "0.05 to 0.35", "0.35 to 0.65", "0.65 to 0.95"
    assert group_labels(tones).tolist() == [low, low, middle, high, high, ""]
    # codes are groups as they are, stored as whole numbers or not; one value alone is no range
    assert group_labels(np.array([1.0, 6.0, np.nan])).tolist() == ["1", "6", ""]
    assert group_labels(np.array([0.4, 0.4])).tolist() == ["0.4", "0.4"]


def test_each_group_has_the_metrics_of_its_rows():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 3)).astype(float)
    logits = rng.normal(size=(60, 3)) + 2 * labels * (np.arange(60) < 30)[:, None]
    rows = {"subject_id": [f"S{n // 10}" for n in range(60)], "sex": ["f"] * 30 + ["m"] * 30}
    found = group_metrics(
        Dataset.from_dict(rows), logits, labels, lambda scores, truth: au_metrics(truth, 1 / (1 + np.exp(-scores)))
    )
    assert list(found) == ["sex"]
    expected = au_metrics(labels[:30], 1 / (1 + np.exp(-logits[:30])))
    assert found["sex"]["f"] == {
        "people": 3, "frames": 30, "mean_f1": expected["mean_f1"], "mean_auc": expected["mean_auc"],
    }  # fmt: skip
    assert found["sex"]["m"]["mean_auc"] == pytest.approx(0.5, abs=0.2)
    assert found["sex"]["f"]["mean_auc"] > found["sex"]["m"]["mean_auc"] + 0.2


def test_nothing_is_told_where_the_data_tells_nothing():
    rows = Dataset.from_dict({"subject_id": ["a"]})
    assert group_metrics(rows, np.zeros((1, 1)), np.zeros((1, 1)), lambda *_: {}) == {}


def test_training_tells_the_groups_of_the_tested_people(trained):
    import json

    results = json.loads((trained.folder / "results.json").read_text())
    groups = results["groups"]["skin_tone"]
    assert sum(row["frames"] for row in groups.values()) == 4
    assert sum(row["people"] for row in groups.values()) == results["people"]["test"] == 1
    assert results["faces"] == {"train": 8, "validation": 4, "test": 4}
    assert results["seconds"] > 0
    assert results["machine"]
    assert results["datasets"] == []


def test_groups_close_together_have_names_of_their_own_and_stand_in_the_order_of_their_values():
    years = np.arange(2000.0, 2007.0)
    names = group_labels(years)
    assert len(set(names)) == 3
    assert all(low != high for low, high in (name.split(" to ") for name in set(names)))
    ages = np.array([5.0, 20.0, 28.0, 29.0, 40.0, 51.0, 52.0, 75.0])
    found = group_metrics(Dataset.from_dict({"subject_id": list("abcdefgh"), "age": ages}), ages, ages, lambda *_: {})
    assert [float(name.split(" to ")[0]) for name in found["age"]] == [5, 28.3, 51.7]


def test_a_machine_has_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert machine().startswith("3 cores of ")
