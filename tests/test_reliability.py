"""Said against seen: the curve, its picture, and the commands that calibrate and show it."""

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from command import fails_with, files, strict_json
from PIL import Image
from scipy.special import expit

from hiva_hf import ActionUnitDetector
from hiva_hf.checkpoint import load_detector
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.faces import WholePicture
from hiva_hf.lora import CALIBRATION_FILE, calibration_record
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
    # without the calibration behind, with it in front: the error falls
    before, now = (float(number) for number in shown[0].texts[0].get_text().removeprefix("error ").split(" → "))
    assert before > 2 * now
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


@pytest.fixture(scope="module")
def others(tmp_path_factory, trained):
    """Faces of people who are in no part of the checkpoint's; AU12 and AU4 as it half believes, AU6 not coded."""
    table = pq.read_table(SAMPLE_FILE)
    table = table.filter(pc.is_in(table["subject_id"], pa.array(["S010", "S011", "S012"])))
    table = table.drop_columns([name for name in table.column_names if name == "landmarks"])
    detector = ActionUnitDetector(trained.folder, faces=WholePicture())
    pictures = [Image.open(BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    scores = [result.scores for result in detector.images(pictures)]
    rng = np.random.default_rng(0)
    for name in ("AU12", "AU4", "AU6"):
        believed = np.array([row[name] for row in scores])
        labels = (believed + 0.5 * believed.std() * rng.normal(size=len(believed)) > np.median(believed)).astype(int)
        labels = labels if name != "AU6" else np.full(len(labels), -100)
        table = table.set_column(table.column_names.index(name), name, pa.array(labels))
    path = tmp_path_factory.mktemp("others") / "others.parquet"
    pq.write_table(table, path)
    return path


def test_the_command_calibrates_a_checkpoint(hiva, checkpoint, others):
    before = load_detector(checkpoint)
    result = hiva("calibrate", "-c", checkpoint, "--data", Path("all.parquet"), "--part", "all")
    fails_with(result, "all.parquet")
    # of an adapter that was merged into it, too
    (checkpoint / "adapter").mkdir()
    (checkpoint / "adapter" / CALIBRATION_FILE).write_text("{}")
    result = hiva("calibrate", "-c", checkpoint, "--part", "all", "--data", others)
    assert result.code == 0, result.err
    assert "Brier score" in result.out
    model, processor = load_detector(checkpoint)
    assert model.config.calibration_temperatures != before[0].config.calibration_temperatures
    assert processor.thresholds != before[1].thresholds
    assert set(strict_json(checkpoint / "calibration.json")) == set(model.config.au_names)
    config = json.loads((checkpoint / "config.json").read_text())
    told = calibration_record(config, processor.thresholds)
    assert strict_json(checkpoint / "adapter" / CALIBRATION_FILE) == told
    pixel_values = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        logits, raw = model(pixel_values).logits, before[0](pixel_values).logits
    config, old = model.config, before[0].config
    raw = (raw - torch.tensor(old.calibration_biases)) * torch.tensor(old.calibration_temperatures)
    expected = raw / torch.tensor(config.calibration_temperatures) + torch.tensor(config.calibration_biases)
    assert torch.allclose(logits, expected, atol=1e-4)


def test_calibrating_twice_is_calibrating_once(hiva, checkpoint, others):
    for _ in range(2):
        assert hiva("calibrate", "-c", checkpoint, "--part", "all", "--data", others).code == 0
    config = json.loads((checkpoint / "config.json").read_text())
    assert hiva("calibrate", "-c", checkpoint, "--part", "all", "--data", others).code == 0
    again = json.loads((checkpoint / "config.json").read_text())
    assert again == config


def test_what_is_not_coded_keeps_its_calibration(hiva, checkpoint, others):
    path, place = checkpoint / "config.json", ["AU12", "AU4", "AU6"].index("AU6")
    config = json.loads(path.read_text())
    config["calibration_temperatures"], config["calibration_biases"] = [1.5, 1.5, 2.5], [0.1, 0.1, 0.7]
    path.write_text(json.dumps(config))
    processor = json.loads((checkpoint / "processor_config.json").read_text())
    processor["thresholds"] = {"AU12": 0.3, "AU4": 0.3, "AU6": 0.123}
    (checkpoint / "processor_config.json").write_text(json.dumps(processor))
    result = hiva("calibrate", "-c", checkpoint, "--part", "all", "--data", others)
    assert result.code == 0, result.err
    assert "as it was" in result.out
    model, processor = load_detector(checkpoint)
    assert (model.config.calibration_temperatures[place], model.config.calibration_biases[place]) == (2.5, 0.7)
    assert processor.thresholds["AU6"] == 0.123
    assert processor.thresholds["AU12"] != 0.3


def test_nobody_who_trained_it_calibrates_it(hiva, checkpoint, data):
    fails_with(hiva("calibrate", "-c", checkpoint, "--part", "all"), "`--part all` needs `--data`")
    fails_with(hiva("calibrate", "-c", checkpoint, "--part", "all", "--data", data), "`--data`", "S00")


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
