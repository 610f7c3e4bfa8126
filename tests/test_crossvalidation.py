"""Part by part: nobody on two sides, F1 and its interval by hand, tables, and a run that goes on."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score
from transformers import TrainerCallback

from hiva_hf.crossvalidation import cross_validate
from hiva_hf.data import FaceAugmentation, load_prepared, load_rendered, protocol_folds, stream_prepared
from hiva_hf.data.published import PUBLISHED
from hiva_hf.metrics import au_metrics
from hiva_hf.plotting import save_figure
from hiva_hf.plotting_protocol import plot_protocol
from hiva_hf.protocol_table import Run, all_metrics, beside_published, summarise

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


def read(part, **people):
    """A run of two action units; each person is given as frames of (label, label, call, call)."""
    frames = np.concatenate([np.asarray(rows, dtype=float) for rows in people.values()])
    who = [name for name, rows in people.items() for _ in rows]
    return Run(part, 0, frames[:, :2], frames[:, 2:], np.asarray(who))


# AU12 is read alike of everyone, with F1 = 1/2; AU1 without a fault wherever it is active
PLAIN = [(0, 1, 0, 1), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0)]
SHOWS = [(1, 1, 1, 1), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0)]


def test_the_mean_is_that_of_the_column_above_it():
    runs = [read("P1", a=SHOWS, b=PLAIN), read("P2", c=PLAIN, d=PLAIN)]
    table = summarise(runs, NAMES, resamples=20)
    # AU1 is never active in P2: 100 and 50, not (75 + 50) / 2
    assert table.loc["mean", "mean"] == pytest.approx(table.loc[NAMES, "mean"].mean()) == pytest.approx(75)
    assert table.loc["mean", ["P1", "P2"]].tolist() == pytest.approx([75, 50])
    assert table.loc["mean", "always_positive"] == pytest.approx(table.loc[NAMES, "always_positive"].mean())


def test_who_is_drawn_does_not_change_what_is_averaged():
    # one person shows AU1; whoever is drawn anew, F1 is 100 and 50
    people = {f"S{n}": PLAIN for n in range(7)}
    table = summarise([read("P1", only=SHOWS, **people)], NAMES, resamples=200)
    assert table[["low", "mean", "high"]].to_numpy().tolist() == [
        pytest.approx([100] * 3), pytest.approx([50] * 3), pytest.approx([75] * 3)
    ]  # fmt: skip
    # in another part everyone shows it, and half of it is found
    half = [(1, 1, 1, 1), (1, 1, 0, 0), (0, 0, 1, 1), (0, 0, 0, 0)]
    table = summarise([read("P1", only=SHOWS, **people), read("P2", x=half, y=half)], NAMES, resamples=200)
    assert table.loc["AU1", ["low", "mean", "high"]].tolist() == pytest.approx([75] * 3)
    assert table.loc["mean", ["low", "mean", "high"]].tolist() == pytest.approx([62.5] * 3)


def test_weights_spread_a_mean_as_people_drawn_with_replacement_do():
    labels = np.ones((2000, 1))
    right = np.repeat(np.arange(20) % 2 == 0, 100)[:, None]
    people = np.repeat([f"S{n:02}" for n in range(20)], 100)
    table = summarise([Run("P1", 0, labels, right.astype(float), people)], ["AU1"], resamples=4000)
    # F1 = 2k / (20 + k) when k of those drawn are the ten who are read right
    k = np.random.default_rng(1).binomial(20, 0.5, 4000)
    low, high = np.percentile(200 * k / (20 + k), [2.5, 97.5])
    assert table.loc["AU1", ["low", "high"]].tolist() == pytest.approx([low, high], abs=2.5)


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
    line = figure.axes[0].collections[0].get_segments()[-1]
    assert line[:, 1].tolist() == pytest.approx(table.loc["mean", ["low", "high"]].tolist())


def test_the_picture_sets_this_run_among_the_published(runs):
    table = summarise(runs, NAMES, resamples=20)
    table.loc["mean", "mean"] = 65.7
    units, means = plot_protocol(table, "title", "bp4d").axes
    names = [label.get_text() for label in means.get_yticklabels()]
    widths = [bar.get_width() for bar in means.patches]
    assert widths == sorted(widths)
    assert names[0] == "JAA-Net (ECCV 2018), CNN"
    place = names.index("this run")
    assert (widths[place - 1], widths[place], widths[place + 1]) == (65.5, 65.7, 65.9)
    colours = [bar.get_facecolor() for bar in means.patches]
    assert colours.count(colours[place]) == 1
    assert units.get_title(loc="left").startswith("bars: mean over parts; lines: 95 % interval")
    assert means.get_title(loc="left").startswith("published means")


def test_published_methods():
    assert len({paper.method for paper in PUBLISHED}) == 8


@pytest.fixture
def few():
    return load_rendered(aus=["AU12", "AU6"], subjects=[f"S{n:03}" for n in range(6)]).select(range(0, 150, 5))


ARGUMENTS = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "disable_tqdm": True}


def test_every_person_is_tested_once_and_by_a_model_that_never_saw_them(few, tmp_path):
    folds = protocol_folds(few, 3, validation=0.3)
    told, seen = [], []

    def look(trainer):
        seen.append([set(part.rows["subject_id"]) for part in (trainer.train_dataset, trainer.eval_dataset)])

    runs = cross_validate(few, folds, tmp_path, seeds=(0, 1), on_run=told.append, on_trainer=look, **ARGUMENTS)
    for run, (trained, validated) in zip(runs, seen, strict=True):
        fold = next(fold for fold in folds if fold.tested == run.part)
        assert (trained, validated) == (set(fold.train), set(fold.validation))
        assert not (trained | validated) & set(run.subjects)
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


class Stop(TrainerCallback):
    """Ends a training as a killed process does."""

    def __init__(self, epoch=0):
        self.epoch = epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.epoch >= self.epoch:
            raise InterruptedError


def stopped(trainer):
    trainer.add_callback(Stop())


def test_other_data_are_other_results(few, tmp_path):
    folds = protocol_folds(few, 3, validation=0.3)[:1]
    with pytest.raises(InterruptedError):
        cross_validate(few, folds, tmp_path, on_trainer=stopped, **ARGUMENTS)
    names = few["subject_id"]
    flipped = few.map(lambda row: {"labels": [1 - label for label in row["labels"]]})
    moved = few.map(lambda row: {"frame": row["frame"] + 1})
    swapped = few.map(lambda row, place: {"subject_id": names[place - 1]}, with_indices=True)
    for other in (flipped, moved, swapped, few.select(range(len(few) - 1))):
        with pytest.raises(ValueError, match="was begun with other data"):
            cross_validate(other, folds, tmp_path, on_trainer=stopped, **ARGUMENTS)


def test_faces_read_as_a_stream_are_the_same_data(data, tmp_path):
    for read in (load_prepared, stream_prepared):
        faces = read(data)
        with pytest.raises(InterruptedError):
            cross_validate(faces, protocol_folds(faces, 2), tmp_path, on_trainer=stopped, **ARGUMENTS)


def test_what_is_shown_and_who_loads_may_change(few, tmp_path):
    folds = protocol_folds(few, 3, validation=0.3)[:1]
    shown = {"disable_tqdm": True, "dataloader_num_workers": 2, "log_level": "error", "logging_strategy": "epoch"}
    for changes in ({}, shown, {"disable_tqdm": False, "logging_steps": 5, "report_to": "none"}):
        with pytest.raises(InterruptedError):
            cross_validate(few, folds, tmp_path, on_trainer=stopped, **{**ARGUMENTS, **changes})
    with pytest.raises(ValueError, match="begun with other learning_rate"):
        cross_validate(few, folds, tmp_path, **{**ARGUMENTS, **shown}, learning_rate=1e-4)


def test_the_best_epoch_is_found_wherever_the_folder_lies(few, tmp_path, monkeypatch):
    folds = protocol_folds(few, 3, validation=0.3)[:1]
    arguments = {**ARGUMENTS, "num_train_epochs": 3}
    trainers = []

    def first_is_best(trainer, stop=9):
        trainer.compute_metrics = lambda _: {"mean_f1": 1 / trainer.state.epoch}
        trainer.add_callback(Stop(stop))
        trainers.append(trainer)

    (whole,) = cross_validate(few, folds, tmp_path / "whole", on_trainer=first_is_best, **arguments)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InterruptedError):
        cross_validate(few, folds, "begun/here", on_trainer=partial(first_is_best, stop=2), **arguments)
    Path("begun").rename("moved")
    monkeypatch.chdir(tmp_path / "moved")
    (moved,) = cross_validate(few, folds, "here", on_trainer=first_is_best, **arguments)
    best = Path(trainers[-1].state.best_model_checkpoint)
    assert best.parent == tmp_path / "moved" / "here" / "P1-seed0"
    assert best.name == Path(trainers[0].state.best_model_checkpoint).name
    assert np.array_equal(moved.scores, whole.scores)
    # trained to the end but not yet tested, by a version that stored the path as it was given
    (best.parent.parent / "P1-seed0.npz").unlink()
    for state in best.parent.glob("checkpoint-*/trainer_state.json"):
        told = json.loads(state.read_text())
        state.write_text(json.dumps({**told, "best_model_checkpoint": f"begun/here/P1-seed0/{best.name}"}))
    (again,) = cross_validate(few, folds, "here", on_trainer=first_is_best, **arguments)
    assert np.array_equal(again.scores, whole.scores)
    # without it the last epoch must not be tested instead
    (best.parent.parent / "P1-seed0.npz").unlink()
    best.rename("elsewhere")
    with pytest.raises(ValueError, match=rf"must hold the best epoch .*{best.name}.* Put it back, or delete"):
        cross_validate(few, folds, "here", on_trainer=first_is_best, **arguments)


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
