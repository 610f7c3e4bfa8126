"""Metrics by group of people."""

import numpy as np
import pytest
from datasets import Dataset

from hiva_hf.groups import group_labels, group_metrics
from hiva_hf.metrics import au_metrics


def test_names_stay_and_numbers_are_cut_at_thirds_of_their_range():
    assert group_labels(np.array(["f", "m", None], dtype=object)).tolist() == ["f", "m", ""]
    assert group_labels(np.array([1, 2, 2])).tolist() == ["1", "2", "2"]
    tones = np.array([0.0, 0.1, 0.29, 0.31, 0.5, 0.61, 0.9, np.nan])
    low, middle, high = "0 to 0.3", "0.3 to 0.6", "0.6 to 0.9"
    assert group_labels(tones).tolist() == [low, low, low, middle, middle, high, high, ""]


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
