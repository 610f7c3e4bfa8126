"""Calibration: probabilities that hold what they say, stored where every way to the model finds them."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from scipy.special import expit
from sklearn.metrics import f1_score
from transformers import pipeline

from hiva_hf import ActionUnitDetector, HiVAForImageClassification, HiVAProcessor, hiva_small
from hiva_hf.calibration import best_threshold, calibrate_detector, calibration_error, fit_calibration
from hiva_hf.checkpoint import load_detector
from hiva_hf.data import load_rendered, subject_split
from hiva_hf.faces import FaceTemplate, WholePicture
from hiva_hf.results import padded
from hiva_hf.training import build_trainer, save_detector, training_arguments


@pytest.fixture(scope="module")
def overconfident():
    """Labels drawn from true log odds, and logits that are three times as large and shifted."""
    rng = np.random.default_rng(0)
    odds = rng.normal(-0.5, 1.5, (4000, 2))
    labels = (rng.random(odds.shape) < expit(odds)).astype(float)
    return labels, 3 * odds + 1.5, odds


def test_the_true_odds_are_found_again(overconfident):
    labels, logits, odds = overconfident
    calibration = fit_calibration(labels, logits, ["AU1", "AU12"])
    assert calibration.temperatures == pytest.approx([3, 3], rel=0.1)
    assert calibration.biases == pytest.approx([-0.5, -0.5], abs=0.12)
    assert np.abs(calibration.apply(logits) - odds).max() < 0.6
    for row in calibration.report.values():
        assert row["error_after"] < 0.03 < 0.1 < row["error_before"]
        assert row["brier_after"] < row["brier_before"]
    assert calibration.untouched == []


def test_the_threshold_has_the_best_f1(overconfident):
    labels, _, odds = overconfident
    truth, scores = labels[:, 0], expit(odds[:, 0])
    chosen = best_threshold(truth, scores)
    best = max(f1_score(truth, scores >= limit) for limit in np.linspace(0.05, 0.95, 91))
    assert f1_score(truth, scores >= chosen) >= best - 1e-9


@pytest.mark.parametrize("missing", [-100.0, np.nan])
def test_frames_that_were_not_coded_do_not_count(overconfident, missing):
    labels, logits, _ = overconfident
    more = np.vstack([labels, np.full((500, 2), missing)]), np.vstack([logits, np.full((500, 2), 40.0)])
    assert fit_calibration(*more, ["AU1", "AU12"]) == fit_calibration(labels, logits, ["AU1", "AU12"])


def test_too_little_to_learn_from_is_left_as_it_is(overconfident):
    labels, logits, _ = overconfident
    rare, against = labels.copy(), logits.copy()
    rare[np.flatnonzero(rare[:, 0])[4:], 0] = 0
    against[:, 1] *= -1
    calibration = fit_calibration(rare, against, ["AU1", "AU12"])
    assert calibration.untouched == ["AU1", "AU12"]
    assert (calibration.temperatures, calibration.biases) == ([1, 1], [0, 0])
    assert calibration.thresholds == {"AU1": 0.5, "AU12": 0.5}


def test_calibration_error_of_known_bins():
    assert calibration_error(np.array([1, 0]), np.array([0.8, 0.3])) == pytest.approx(0.25)
    assert calibration_error(np.array([1, 0, 1, 1]), np.array([0.75, 0.75, 0.75, 0.75])) == pytest.approx(0)


def test_other_shapes_are_named(overconfident):
    labels, logits, _ = overconfident
    with pytest.raises(ValueError, match=r"\(4000, 1\)"):
        fit_calibration(labels, logits[:, :1], ["AU1", "AU12"])


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A model that was trained for a step and calibrated, saved and loaded."""
    folder = tmp_path_factory.mktemp("calibrated")
    torch.manual_seed(0)
    model, processor = hiva_small(["AU1", "AU4", "AU12"])
    data = load_rendered(aus=["AU1", "AU4", "AU12"]).select(range(0, 600, 5))
    splits = subject_split(data, validation=0.5)
    arguments = training_arguments(
        folder / "run", max_steps=2, use_cpu=True, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
    )
    trainer = build_trainer(model, processor, splits, arguments)
    trainer.train()
    fitted = calibrate_detector(trainer, processor, splits["validation"])
    save_detector(trainer.model, processor, folder / "model")
    return folder / "model", fitted


def test_the_calibration_travels_with_the_checkpoint(calibrated):
    folder, fitted = calibrated
    model, processor = load_detector(folder)
    assert model.config.calibration_temperatures == fitted.temperatures
    assert model.config.calibration_biases == fitted.biases
    assert processor.thresholds == fitted.thresholds
    pixel_values = torch.rand(3, 3, 112, 112)
    with torch.no_grad():
        after = model(pixel_values).logits
        model.config.calibration_temperatures = model.config.calibration_biases = None
        before = model(pixel_values).logits
    assert len(fitted.untouched) < 3
    assert np.allclose(after.numpy(), fitted.apply(before.numpy()), atol=1e-4)
    assert not torch.allclose(after, before)


def test_the_template_travels_with_the_checkpoint(calibrated):
    processor = HiVAProcessor.from_pretrained(calibrated[0])
    assert processor.image_processor.face_template == FaceTemplate().to_dict()
    processor.image_processor.face_template = {**FaceTemplate().to_dict(), "nose": [0.5, 0.6]}
    assert FaceTemplate.of(processor.image_processor).nose == (0.5, 0.6)
    model = HiVAForImageClassification.from_pretrained(calibrated[0])
    other = ActionUnitDetector(model, processor).template
    assert other.nose == (0.5, 0.6)
    processor.image_processor.face_template = {"nose": [0.5, 0.6]}
    with pytest.raises(ValueError, match="`face_template` must give"):
        ActionUnitDetector(model, processor)


@pytest.mark.parametrize("maps", [False, True])
def test_command_pipeline_and_detector_agree_to_the_last_digit(calibrated, hiva, place, maps):
    classify = pipeline("image-classification", model=str(calibrated[0]), top_k=3)
    detector = ActionUnitDetector(calibrated[0], faces=WholePicture(), activation_maps=maps)
    for index in (0, 100, 333):
        load_rendered()[index]["image"].save("face.png")
        (face,) = detector.image("face.png")
        assert {row["label"]: row["score"] for row in classify("face.png")} == face.scores
        drawing = ["--plot", "drawn.png"] if maps else []
        for name in ("out.csv", "out.json", "out.parquet"):
            assert hiva("predict", "face.png", "-c", calibrated[0], "--cropped", "--out", name, *drawing).code == 0
        (row,) = csv.DictReader(Path("out.csv").read_text().splitlines())
        (stored,) = pq.read_table("out.parquet").to_pylist()
        assert json.loads(Path("out.json").read_text())[0]["scores"] == face.scores
        for label, score in face.scores.items():
            assert float(row[f"{padded(label)}_p"]) == stored[f"{padded(label)}_p"] == score
            assert int(row[f"{padded(label)}_c"]) == (score >= detector.limits[label]) == face.active[label]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("calibration_temperatures", [1.0], "must have 3 entries"),
        ("calibration_temperatures", [1.0, 0.0, 1.0], "finite and positive; got 0"),
        ("calibration_biases", [0.0, float("nan"), 0.0], "must be finite; got nan"),
    ],
)
def test_a_wrong_calibration_is_named(calibrated, field, value, message):
    config = HiVAForImageClassification.from_pretrained(calibrated[0]).config
    with pytest.raises(StrictDataclassError, match=message):
        type(config)(**{**config.to_dict(), field: value})
