"""A trained detector on data that code fewer action units than it knows, and that tell intensities or not."""

import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import fails_with
from conftest import AUS
from datasets import Dataset

from hiva_hf import build_trainer, training_arguments
from hiva_hf.data import FaceAugmentation, FaceTransform, load_prepared, load_rendered, stream_prepared
from hiva_hf.data.merging import label_matrix
from hiva_hf.loss_hiva import MISSING_LABEL
from hiva_hf.training_labels import weights_where_coded


@pytest.fixture
def fewer(tmp_path, data):
    """The faces of the command's tests without AU6."""
    table = pq.read_table(data)
    file = tmp_path / "fewer.parquet"
    pq.write_table(table.drop_columns(["AU6", "AU6_intensity"]), file)
    return file


@pytest.mark.parametrize("load", [load_prepared, load_rendered, stream_prepared])
def test_an_action_unit_that_is_not_coded_is_missing(fewer, load):
    with pytest.raises(ValueError, match=r"`aus` must be coded in .*; got AU6"):
        load(fewer, aus=["AU12", "AU6", "AU4"])
    faces = load(fewer, aus=["AU12", "AU6", "AU4"], allow_uncoded=True)
    whole = load(fewer, aus=["AU12", "AU4"])
    for column in ("labels", "intensities"):
        values = label_matrix(faces, column)
        assert (values[:, 1] == MISSING_LABEL).all()
        assert np.array_equal(values[:, [0, 2]], label_matrix(whole, column))
    levels = load(fewer, aus=["AU12", "AU6"], intensity=True, allow_uncoded=True)
    assert "intensities" not in levels.column_names
    assert np.array_equal(label_matrix(levels), label_matrix(faces, "intensities")[:, :2])
    twice = load(fewer, aus=["AU4", "AU12", "AU4"], allow_uncoded=True)
    assert np.array_equal(label_matrix(twice), label_matrix(whole)[:, [1, 0, 1]])
    with pytest.raises(ValueError, match="got AU6, AU6"):
        load(fewer, aus=["AU6", "AU6"], allow_uncoded=True)


def test_files_without_intensities_have_none(fewer, tmp_path):
    table = pq.read_table(fewer)
    pq.write_table(table.drop_columns(["AU4_intensity"]), tmp_path / "part.parquet")
    assert "intensities" not in load_prepared(tmp_path / "part.parquet", aus=["AU12", "AU4"]).column_names
    assert "intensities" in load_prepared(tmp_path / "part.parquet", aus=["AU12"]).column_names


def test_intensities_go_where_labels_go(processor):
    rows = load_rendered(aus=AUS)[:4]
    rows["labels"], rows["intensities"] = [[1, 0, -100]] * 4, [[3, 0, float("nan")]] * 4
    plain = FaceTransform(processor.image_processor)(rows)
    assert "intensity_labels" not in plain
    both = FaceTransform(processor.image_processor, intensities=True)(rows)
    assert both["intensity_labels"].tolist() == [[3, 0, -100]] * 4
    # in a mirror the sides are the other way round
    names = ["AU12L", "AU12R", "AU4"]
    mirror = FaceTransform(
        processor.image_processor, FaceAugmentation(flip=1.0), names=names, intensities=True
    )(rows)  # fmt: skip
    assert mirror["labels"].tolist() == [[0, 1, -100]] * 4
    assert mirror["intensity_labels"].tolist() == [[0, 3, -100]] * 4
    # blended, both are of the same shares
    torch.manual_seed(0)
    rows["labels"] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    rows["intensities"] = [[4 * value for value in row] for row in rows["labels"]]
    mixed = FaceTransform(processor.image_processor, FaceAugmentation(mixup=0.5), intensities=True)(rows)
    assert not set(mixed["labels"].flatten().tolist()) <= {0.0, 1.0}
    assert torch.allclose(mixed["intensity_labels"], 4 * mixed["labels"])


def after_training(model, processor, folder, dataset):
    settings = training_arguments(
        folder, per_device_train_batch_size=8, max_steps=3, eval_strategy="no", save_strategy="no", use_cpu=True,
        load_best_model_at_end=False, disable_tqdm=True, logging_strategy="no", learning_rate=1e-2, warmup_steps=0,
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build_trainer(model, processor, {"train": dataset}, settings).train()
    return {name: not torch.equal(value, before[name]) for name, value in model.state_dict().items()}


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("hiva_hf"), "propagate", True)
    return caplog


def test_intensities_train_their_head(make_folded, processor, tmp_path, warnings):
    faces = load_rendered(aus=AUS).select(range(16))
    moved = after_training(make_folded(intensity_head=True), processor, tmp_path, faces)
    assert moved["classifier.bias"]
    assert moved["intensity_classifier.bias"]
    assert "no intensities" not in warnings.text
    moved = after_training(make_folded(intensity_head=True), processor, tmp_path, faces.remove_columns("intensities"))
    assert moved["classifier.bias"]
    assert not moved["intensity_classifier.bias"]
    assert "Their head is not trained" in warnings.text
    warnings.clear()
    after_training(make_folded(), processor, tmp_path, faces)
    assert not warnings.text


def test_what_is_never_coded_is_not_trained_and_said(make_folded, processor, tmp_path, warnings):
    faces = load_rendered(aus=AUS).select(range(16))
    labels = label_matrix(faces)
    labels[:, 1] = MISSING_LABEL
    faces = faces.remove_columns("labels").add_column("labels", list(labels))
    model = make_folded()
    before = model.classifier.bias.detach().clone()
    after_training(model, processor, tmp_path, faces)
    assert (model.classifier.bias != before).tolist() == [True, False, True]
    assert f"not trained: {AUS[1]}." in warnings.text
    assert model.config.label_weights[1] == 1.0
    assert all(value.isfinite().all() for value in model.parameters())


def test_labels_that_are_all_missing_are_refused(make_folded, processor, tmp_path):
    with pytest.raises(ValueError, match="`labels` must code at least one action unit"):
        weights_where_coded(np.full((3, 2), MISSING_LABEL))
    faces = load_rendered(aus=AUS).select(range(8))
    nothing = Dataset.from_dict(
        {"image": faces["image"], "labels": [[-100.0] * 3] * 8, "landmarks": faces["landmarks"]},
        features=faces.select_columns(["image", "labels", "landmarks"]).features,
    )
    with pytest.raises(ValueError, match="at least one action unit"):
        after_training(make_folded(), processor, tmp_path, nothing)


def test_the_commands_take_data_that_code_less(hiva, place, trained, fewer):
    options = ("--data", fewer, "--epochs", 1, "--batch-size", 8, "--workers", 0, "--test-subjects", "S002")
    done = hiva("train", "--checkpoint", trained.folder, "--output", "tuned", *options)
    assert done.code == 0, done.err
    metrics = json.loads((place / "tuned" / "results.json").read_text())["metrics"]
    assert metrics["auc_AU6"] is None
    assert metrics["mean_auc"] is not None
    asked = json.loads((place / "tuned" / "processor_config.json").read_text())["thresholds"]
    assert asked["AU6"] == 0.5
    assert hiva("evaluate", "--checkpoint", trained.folder, "--data", fewer, "--part", "all").code == 0
    assert hiva("calibrate", "--checkpoint", "tuned", "--data", fewer, "--part", "validation").code == 0
    fresh = hiva("train", "--output", "new", "--aus", "12,6", *options)
    fails_with(fresh, "`aus` must be coded", "AU6")
