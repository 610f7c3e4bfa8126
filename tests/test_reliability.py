"""Said against seen: the curve, its picture, and the commands that calibrate and show it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command import fails_with, files, strict_json
from PIL import Image
from scipy.special import expit

from hiva_hf.checkpoint import load_detector
from hiva_hf.plotting import save_figure
from hiva_hf.plotting_reliability import plot_reliability, reliability_curve

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def honest():
    """Logits whose probabilities hold what they say, and labels drawn from them."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    return (rng.random(logits.shape) < expit(logits)).astype(float), logits


def test_an_honest_model_lies_on_the_diagonal(honest):
    labels, logits = honest
    curve = reliability_curve(labels[:, 0], expit(logits[:, 0]))
    assert curve.shape == (8, 4)
    assert np.abs(curve[:, 0] - curve[:, 1]).max() < 0.05
    assert (curve[:, 2] < curve[:, 0]).sum() >= 7
    assert (curve[:, 3] > curve[:, 0]).sum() >= 7
    overconfident = reliability_curve(labels[:, 0], expit(3 * logits[:, 0]))
    assert np.abs(overconfident[:, 0] - overconfident[:, 1]).max() > 0.08


def test_few_frames_are_few_groups():
    assert reliability_curve(np.array([1.0, 0.0]), np.array([0.9, 0.2]))[:, :2].tolist() == [[0.2, 0.0], [0.9, 1.0]]
    assert reliability_curve(np.empty(0), np.empty(0)).shape == (0, 4)


def test_the_picture(honest, tmp_path):
    labels, logits = honest[0].copy(), honest[1]
    labels[:, 2] = -100
    figure = plot_reliability(labels, logits, ["AU1", "AU12", "AU24"], 2 * logits, "test: 4000 faces")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 3
    # the diagonal, and a line for each state
    assert [len(axes.lines) for axes in shown] == [3, 3, 1]
    assert "lip corner puller" in shown[1].get_title()
    assert "-" in shown[2].texts[0].get_text()
    save_figure(figure, tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as image:
        assert image.width > 900


def test_shapes_are_checked(honest):
    with pytest.raises(ValueError, match=r"shape \(num_frames, 2\)"):
        plot_reliability(*honest, ["AU1", "AU2"])


@pytest.fixture
def checkpoint(trained, place):
    shutil.copytree(trained.folder, "model")
    return Path("model")


def test_the_command_calibrates_a_checkpoint(hiva, checkpoint):
    before = load_detector(checkpoint)
    result = hiva("calibrate", "-c", checkpoint, "--data", Path("all.parquet"), "--part", "all")
    fails_with(result, "all.parquet")
    result = hiva("calibrate", "-c", checkpoint, "--part", "all")
    assert result.code == 0, result.err
    assert "Brier before" in result.out
    model, processor = load_detector(checkpoint)
    assert model.config.calibration_temperatures != before[0].config.calibration_temperatures
    assert processor.thresholds != before[1].thresholds
    assert set(strict_json(checkpoint / "calibration.json")) == set(model.config.au_names)
    pixel_values = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        logits, raw = model(pixel_values).logits, before[0](pixel_values).logits
    config, old = model.config, before[0].config
    raw = (raw - torch.tensor(old.calibration_biases)) * torch.tensor(old.calibration_temperatures)
    expected = raw / torch.tensor(config.calibration_temperatures) + torch.tensor(config.calibration_biases)
    assert torch.allclose(logits, expected, atol=1e-4)


def test_calibrating_twice_is_calibrating_once(hiva, checkpoint):
    for _ in range(2):
        assert hiva("calibrate", "-c", checkpoint, "--part", "all").code == 0
    config = json.loads((checkpoint / "config.json").read_text())
    assert hiva("calibrate", "-c", checkpoint, "--part", "all").code == 0
    again = json.loads((checkpoint / "config.json").read_text())
    assert again == config


@pytest.mark.parametrize("part", ["train", "test", "somebody"])
def test_only_people_it_has_not_seen(hiva, checkpoint, part):
    before = files(checkpoint)
    fails_with(hiva("calibrate", "-c", checkpoint, "--part", part), "`--part`", part)
    assert files(checkpoint) == before


def test_evaluation_draws_the_reliability(hiva, checkpoint):
    result = hiva("evaluate", "-c", checkpoint, "--part", "all", "--reliability", "said.png")
    assert result.code == 0, result.err
    assert "Wrote said.png" in result.out
    with Image.open("said.png") as image:
        assert image.width > 700
