"""The metric as a module of `evaluate`."""

import math
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hiva_hf.metrics import au_metrics, intensity_metrics

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


def test_intensities(tmp_path):
    metric = evaluate.load(str(FOLDER), "intensity", cache_dir=str(tmp_path))
    labels, values = data()
    result = metric.compute(
        predictions=5 * values, references=np.where(labels > 0, 3 * labels, labels), names=list("abc")
    )
    same(result, intensity_metrics(np.where(labels > 0, 3 * labels, labels), 5 * values, list("abc")))
    with pytest.raises(ValueError, match="`config_name` must be occurrence or intensity; got 'x'"):
        evaluate.load(str(FOLDER), "x", cache_dir=str(tmp_path))


def test_batch_by_batch(metric):
    labels, scores = data()
    for start in range(0, 60, 25):
        metric.add_batch(predictions=scores[start : start + 25], references=labels[start : start + 25])
    same(metric.compute(), au_metrics(labels, scores))


class _Space(SimpleHTTPRequestHandler):
    """Answers as the Hub does for the files of one Space."""

    def translate_path(self, path):
        name = path.removeprefix("/spaces/org/au_f1/resolve/main/")
        return str(FOLDER / name) if name in ("au_f1.py", "README.md") else "/nowhere"

    def end_headers(self):
        self.send_header("ETag", '"1"')
        super().end_headers()

    def log_message(self, *args):
        pass


def test_by_its_name_on_the_hub(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Space) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = (
            "import evaluate; metric = evaluate.load('org/au_f1'); "
            "print(metric.compute(predictions=[[0.9, 0.2], [0.1, 0.7]], references=[[1, -100], [0, 1]])['f1_1'])"
        )
        address = f"http://127.0.0.1:{server.server_address[1]}"
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1.0"]


def test_the_card_is_one():
    card = pytest.importorskip("huggingface_hub").SpaceCard.load(FOLDER / "README.md")
    assert card.data.title == "AU F1"
    assert "metric" in card.data.tags
    assert "NaN is undefined" in card.text
