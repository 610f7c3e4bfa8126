"""The metric as a module of `evaluate`."""

import math
from pathlib import Path

import numpy as np
import pytest

from hiva_hf.metrics import au_metrics

evaluate = pytest.importorskip("evaluate")
FOLDER = Path(__file__).parents[1] / "hub_cards" / "au_f1"


@pytest.fixture
def metric(tmp_path, monkeypatch):
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path))


def data():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 3)) < 0.4).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = -100
    labels[:, 2] = -100
    return labels, rng.random(labels.shape).astype(np.float32)


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key] == pytest.approx(other[key], nan_ok=True)


def test_it_computes_what_the_function_computes(metric):
    labels, scores = data()
    names = ["AU1", "AU12", "AU24"]
    result = metric.compute(predictions=scores, references=labels, names=names, threshold=0.4)
    same(result, au_metrics(labels, scores, names, 0.4))
    assert math.isnan(result["f1_AU24"])


def test_batch_by_batch(metric):
    labels, scores = data()
    for start in range(0, 60, 25):
        metric.add_batch(predictions=scores[start : start + 25], references=labels[start : start + 25])
    same(metric.compute(), au_metrics(labels, scores))


def test_the_card_is_one():
    card = pytest.importorskip("huggingface_hub").SpaceCard.load(FOLDER / "README.md")
    assert card.data.title == "AU F1"
    assert "metric" in card.data.tags
    assert "NaN is undefined" in card.text
