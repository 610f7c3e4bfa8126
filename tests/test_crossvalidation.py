"""Part by part: nobody on two sides, F1 and its interval by hand, tables, and a run that goes on."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import fails_with
from PIL import Image
from sklearn.metrics import f1_score

from hiva_hf.crossvalidation import Run, all_metrics, beside_published, cross_validate, summarise
from hiva_hf.data import FaceAugmentation, load_rendered, protocol_folds
from hiva_hf.data.published import PUBLISHED
from hiva_hf.metrics import au_metrics
from hiva_hf.plotting import save_figure
from hiva_hf.plotting_protocol import plot_protocol

NAMES = ["AU1", "AU12"]


def made(part, seed, people=12, frames=20, noise=0.3, missing=0.0):
    rng = np.random.default_rng((int(part[1:]), seed))
    shape = (people * frames, 2)
    labels = (np.random.default_rng(int(part[1:])).random(shape) < 0.4).astype(float)
    scores = np.clip(labels * 0.6 + 0.2 + noise * rng.normal(size=shape), 0, 1)
    labels[rng.random(shape) < missing] = -100
    return Run(part, seed, labels, scores, np.repeat([f"{part}-{n}" for n in range(people)], frames))


@pytest.fixture(scope="module")
def runs():
    return [made(part, seed, missing=0.1) for part in ("P1", "P2", "P3") for seed in (0, 1)]


def test_means_over_parts_then_action_units(runs):
    table = summarise(runs, NAMES, resamples=50)
    expected = np.empty((3, 2, 2))
    for n, run in enumerate(runs):
        for column in range(2):
            coded = run.labels[:, column] >= 0
            expected[n // 2, n % 2, column] = f1_score(run.labels[coded, column], run.scores[coded, column] >= 0.5)
    for column, name in enumerate(NAMES):
        assert table.loc[name, ["P1", "P2", "P3"]].tolist() == pytest.approx(100 * expected[..., column].mean(1))
        assert table.loc[name, "mean"] == pytest.approx(100 * expected[..., column].mean())
        assert table.loc[name, "sd_parts"] == pytest.approx(100 * expected[..., column].mean(1).std(ddof=1))
        assert table.loc[name, "sd_seeds"] == pytest.approx(100 * expected[..., column].mean(0).std(ddof=1))
        assert table.loc[name, "low"] < table.loc[name, "mean"] < table.loc[name, "high"]
    assert table.loc["mean", "mean"] == pytest.approx(100 * expected.mean())
    assert table.loc["mean", "sd_seeds"] == pytest.approx(100 * expected.mean((0, 2)).std(ddof=1))
    rate = np.mean([(r.labels == 1).sum(0) / (r.labels >= 0).sum(0) for r in runs], axis=0)
    assert table.loc["AU1", "always_positive"] == pytest.approx(100 * 2 * rate[0] / (1 + rate[0]), abs=0.5)


def test_the_interval_is_that_of_people_and_not_of_frames():
    rng = np.random.default_rng(0)
    # half of the people are read without a fault, of the others nothing is seen: frames of one person agree
    labels = (rng.random((2000, 1)) < 0.5).astype(float)
    good = np.repeat(np.arange(20) % 2 == 0, 100)[:, None]
    people = np.repeat([f"S{n}" for n in range(20)], 100)
    table = summarise([Run("P1", 0, labels, np.where(good, labels, 0.0), people)], ["AU1"], resamples=2000)
    # drawn by people, F1 = 2k / (20 + k) of k good ones; by frames it would be within three points of 67
    assert table.loc["AU1", "mean"] == pytest.approx(100 * 2 / 3, abs=2)
    assert table.loc["AU1", "low"] < 50
    assert table.loc["AU1", "high"] > 79
    assert math.isnan(table.loc["AU1", "sd_parts"])
    assert math.isnan(table.loc["AU1", "sd_seeds"])


def test_what_is_never_active_is_undefined_and_in_no_mean():
    run = made("P1", 0)
    run.labels[:, 0] = 0
    table = summarise([run], NAMES, resamples=20)
    assert math.isnan(table.loc["AU1", "mean"])
    assert table.loc["mean", "mean"] == table.loc["AU12", "mean"]


def test_every_metric_of_every_run(runs):
    table = all_metrics(runs, NAMES)
    assert len(table) == 3 * 2 * 2
    expected = au_metrics(runs[3].labels, runs[3].scores, NAMES)
    row = table[(table["part"] == "P2") & (table["seed"] == 1) & (table["au"] == "AU12")].iloc[0]
    for metric in ("f1", "skew_f1", "precision", "recall", "auc", "ap", "accuracy", "base_rate", "always_positive_f1"):
        assert row[metric] == expected[f"{metric}_AU12"]


def test_published_means_stand_below(runs):
    table = summarise(runs, NAMES, resamples=20)
    assert beside_published(table, "3") is table
    both = beside_published(table, "bp4d")
    assert both.index[:3].tolist() == ["AU1", "AU12", "mean"]
    assert both.loc["ME-GraphAU (IJCAI 2022), Swin-B", "mean"] == 65.5
    assert math.isnan(both.loc["ME-GraphAU (IJCAI 2022), Swin-B", "P1"])
    assert len(both) == 3 + len(PUBLISHED)
    assert beside_published(table, "disfa").loc["FMAE-IAT (FG 2025), ViT-L", "mean"] == 70.1


def test_the_picture(runs, tmp_path):
    table = summarise(runs, NAMES, resamples=20)
    for protocol, panels in (("bp4d", 2), ("3", 1)):
        figure = plot_protocol(table, "title", protocol)
        assert len(figure.axes) == panels
        save_figure(figure, tmp_path / f"{protocol}.png")
        with Image.open(tmp_path / f"{protocol}.png") as image:
            assert image.width > 900
    assert len(figure.axes[0].patches) == 3
    assert len({paper.method for paper in PUBLISHED}) == 8


@pytest.fixture
def few():
    return load_rendered(aus=["AU12", "AU6"], subjects=[f"S{n:03}" for n in range(6)]).select(range(0, 150, 5))


ARGUMENTS = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "disable_tqdm": True}


def test_every_person_is_tested_once_and_by_a_model_that_never_saw_them(few, tmp_path):
    folds = protocol_folds(few, 3, validation=0.3)
    told = []
    runs = cross_validate(few, folds, tmp_path, seeds=(0, 1), on_run=told.append, **ARGUMENTS)
    assert [(run.part, run.seed) for run in runs] == [(f"P{n}", seed) for n in (1, 2, 3) for seed in (0, 1)]
    assert len(told) == 6
    for run, fold in zip(runs[::2], folds, strict=True):
        assert set(run.subjects) == set(fold.test)
    tested = np.concatenate([run.subjects for run in runs if run.seed == 0])
    assert sorted(tested) == sorted(few["subject_id"])
    assert not np.array_equal(runs[0].scores, runs[1].scores)
    # what is done is not done again
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    again = cross_validate(few, folds, tmp_path, seeds=(0, 1), **ARGUMENTS)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == before
    assert np.array_equal(again[3].scores, runs[3].scores)
    with pytest.raises(ValueError, match="begun with other num_train_epochs"):
        cross_validate(few, folds, tmp_path, **{**ARGUMENTS, "num_train_epochs": 2})


@pytest.mark.parametrize("rule", ["last", "best-epoch-on-test-part"])
def test_other_rules_need_nobody_set_aside(few, tmp_path, rule):
    folds = protocol_folds(few, 3, validation=0)[:1]
    (run,) = cross_validate(few, folds, tmp_path, rule=rule, augmentation=FaceAugmentation(), **ARGUMENTS)
    assert set(run.subjects) == set(folds[0].test)


def test_rules_that_are_none(few, tmp_path):
    folds = protocol_folds(few, 3, validation=0)
    with pytest.raises(ValueError, match="`rule` must be one of validation, last, best-epoch-on-test-part"):
        cross_validate(few, folds, tmp_path, rule="best")
    with pytest.raises(ValueError, match="needs folds with validation subjects"):
        cross_validate(few, folds, tmp_path)


def test_the_command_writes_what_a_paper_reports(hiva, place, data):
    command = ("evaluate", "--protocol", 2, "--root", data, "--out", "cv", "--epochs", 1, "--workers", 0)
    result = hiva(*command, "--batch-size", 8, "--validation", 0.4, "--seeds", "0")
    assert result.code == 0, result.err
    assert {"f1.csv", "f1.md", "f1.tex", "f1.png", "runs"} <= {path.name for path in Path("cv").iterdir()}
    table = pd.read_csv("cv/f1.csv")
    assert table["au"].iloc[-1] == "mean"
    markdown, latex = Path("cv/f1.md").read_text(), Path("cv/f1.tex").read_text()
    assert "epoch by validation" in markdown.splitlines()[0]
    assert markdown.count("|") > 100
    assert latex.count("\\\\") >= len(table)
    assert "toprule" in latex
    assert "always positive" in result.out
    # the trainings in a line an epoch, the parts with their size
    assert sum(line.startswith("epoch 1 of 1: loss") for line in result.err.splitlines()) == 2
    assert "P1: " in result.out
    metrics = pd.read_csv("cv/metrics.csv")
    assert set(metrics["part"]) == {"P1", "P2"}
    assert len(metrics) == 2 * (len(table) - 1)


def test_the_command_says_how_complete_the_parts_are(hiva, place, data):
    # the sample's people under names of BP4D, one of each part and two who train beside them
    table = pq.read_table(data)
    names = {"S000": "F001", "S001": "M011", "S002": "F007", "S003": "F018"}
    people = [names.get(name, "F003") for name in table["subject_id"].to_pylist()]
    place_of = table.schema.get_field_index("subject_id")
    table = table.set_column(place_of, "subject_id", pa.array(people))
    Path("faces").mkdir()
    pq.write_table(table, "faces/faces.parquet")
    options = ("--epochs", 1, "--workers", 0, "--batch-size", 8, "--rule", "last", "--streaming")
    result = hiva("evaluate", "--protocol", "bp4d", "--root", "faces", "--out", "cv", *options)
    assert result.code == 0, result.err
    assert "; published: 14 people, 50,631 frames" in result.out
    assert "JAA-Net (ECCV 2018), CNN" in result.out
    for name in ("f1.md", "f1.tex", "f1.csv"):
        assert "JAA-Net (ECCV 2018), CNN" in Path("cv", name).read_text()
    assert "most chose the epoch on the tested people" in Path("cv/f1.md").read_text()


def test_what_the_command_refuses(hiva, place, data, trained):
    fails_with(hiva("evaluate"), "`--checkpoint` or `--protocol`")
    fails_with(hiva("evaluate", "-c", trained.folder, "--protocol", "bp4d"), "not both")
    fails_with(hiva("evaluate", "--protocol", "bp4d", "--root", data), "`--out`")
    fails_with(hiva("evaluate", "--protocol", "bp4d", "--root", data, "--out", "cv"), "bp4d", "S000")
    fails_with(hiva("evaluate", "--protocol", 2, "--root", data, "--out", "cv", "--seeds", "a"), "`--seeds`")
