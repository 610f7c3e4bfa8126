"""How well unseen people are read, and how far damage can go: sums by hand, and the scripts on a tiny model."""

# fixtures are named where they are used
# ruff: noqa: F811

import shutil

import measure_default
import measure_robustness
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import typer
from default_faces import UNSEEN, Checkpoint, draw_faces, read_faces, unseen_scenes
from measure_default import at_rest, group_rows, level_auc, people_interval, unit_rows
from measure_robustness import COVERS, DAMAGES, clean, covered, damaged, turned
from measured import SIDE, folder, known, parquet, renderer, visual  # noqa: F401
from PIL import Image
from sklearn.metrics import roc_auc_score
from train_default import VALIDATION

from hiva_hf.faces import FaceTemplate
from hiva_hf.render import RENDERED_AUS


class Fixed:
    """What a checkpoint says of itself, where its answers are given."""

    names = ["AU12", "AU25"]
    limits = np.array([0.5, 0.3])


# unseen people


def test_a_level_is_set_against_absence_alone():
    intensity = np.repeat([0, 1, 3, 5, np.nan], [6, 5, 5, 4, 5])
    scores = np.concatenate([np.arange(6), np.arange(5) + 0.5, np.full(5, 9.0), np.full(4, 9.0), np.full(5, -9.0)])
    found = level_auc(intensity, scores)
    assert found[0] == pytest.approx(15 / 30)
    assert found[2] == 1.0
    # of B and D there is nobody, of E there are too few
    assert np.isnan([found[1], found[3], found[4]]).all()


def test_a_face_at_rest_shows_nothing_that_is_known():
    assert at_rest(known([[0, 0], [0, 1], [np.nan, 0], [np.nan, 2]])).tolist() == [True, False, True, False]


def test_rows_of_action_units_are_what_was_answered():
    intensity = [[0, 0]] * 10 + [[3, 0]] * 10 + [[5, 1]] * 10
    said = np.array([[0.1, 0.35]] * 5 + [[0.6, 0.2]] * 5 + [[0.6, 0.2]] * 10 + [[0.9, 0.4]] * 10)
    faces = known(intensity)
    table = unit_rows(faces, Fixed, (said, np.asarray(intensity, dtype=float))).set_index("au")
    smile = table.loc["AU12"]
    assert smile["active"] == pytest.approx(2 / 3)
    assert smile["f1"] == pytest.approx(2 * 20 / (2 * 20 + 5))
    assert smile["f1_always"] == pytest.approx(0.8)
    assert smile["auc_C"] == pytest.approx(0.75)
    assert (smile["auc_E"], smile["found_C"], smile["icc"]) == (1.0, 1.0, 1.0)
    assert smile["rest_mean"] == pytest.approx(0.35)
    assert smile["rest_called"] == 0.5
    # said .1, .6 and .9 of groups of 5, 15 and 10, of which 0, 10 and 10 are there
    assert smile["calibration_error"] == pytest.approx((0.5 + abs(15 * 0.6 - 10) + 1) / 30)
    # its own threshold is .3, not .5
    assert table.loc["AU25"]["rest_called"] == 0.5
    assert table.loc["AU25"]["f1"] == pytest.approx(20 / 25)
    assert np.isnan(table.loc["AU25"]["f1_at_half"]) or table.loc["AU25"]["f1_at_half"] == 0
    # AU25 is none of BP4D's
    assert table.loc["mean of 1 BP4D"]["auc"] == smile["auc"]
    assert table.loc["mean of 2"]["auc"] == pytest.approx((smile["auc"] + table.loc["AU25"]["auc"]) / 2)


def test_groups_are_of_those_who_belong_to_them():
    faces = known([[0, 0]] * 10 + [[3, 0]] * 10)
    faces.traits["yaw"] = [-25.0, 3.0] * 10
    faces.traits["skin_tone"] = [0.1] * 10 + [0.9] * 10
    said = np.where(faces.traits["yaw"].to_numpy() < 0, 0.9, np.r_[np.zeros(10), np.ones(10)])[:, None].repeat(2, 1)
    table = group_rows(faces, Fixed, said).set_index(["group", "part"])
    assert table.loc[("yaw", "20-30°"), ["faces", "auc", "recall", "false_alarms"]].tolist() == [10, 0.5, 1, 1]
    assert table.loc[("yaw", "0-10°"), ["faces", "auc", "recall", "false_alarms"]].tolist() == [10, 1, 1, 0]
    assert table.loc[("skin tone", "light"), ["faces", "rest_called"]].tolist() == [10, 0.5]
    assert np.isnan(table.loc[("skin tone", "dark"), "rest_called"])
    assert ("skin tone", "medium") not in table.index
    assert ("glasses", "yes") not in table.index
    assert table.loc[("all", "all"), "people"] == 20


def test_an_interval_is_that_of_people_and_not_of_faces():
    random = np.random.default_rng(0)
    # ten people, each read right on every face, or on none
    truth = random.integers(0, 2, (400, 1)).repeat(2, 1)
    right = np.repeat(np.arange(10) < 6, 40)[:, None]
    faces = known(3 * truth)
    faces.traits["subject"] = np.repeat(np.arange(10), 40)
    said = np.where(right, truth, 1 - truth) * 0.9
    by_people = people_interval(faces, Fixed, said)
    faces.traits["subject"] = np.arange(400)
    by_faces = people_interval(faces, Fixed, said)
    for key in ("auc", "f1"):
        assert by_people[key][0] < by_faces[key][0] < 0.6 < by_faces[key][1] < by_people[key][1]
        assert by_people[key][1] - by_people[key][0] > 3 * (by_faces[key][1] - by_faces[key][0])


def test_people_are_those_whom_no_training_draws(renderer):
    scenes = unseen_scenes(renderer, 3)
    assert scenes.subjects.tolist() == [UNSEEN, UNSEEN + 1, UNSEEN + 2]
    assert UNSEEN > VALIDATION + 2**32


def test_faces_from_files_are_aligned_as_those_that_are_drawn(parquet, renderer):
    template = FaceTemplate()
    faces = read_faces(parquet, ["AU12", "AU38", "AU1"], SIDE, template)
    assert len(faces) == 32
    assert np.isnan(faces.labels[:, 1]).all()
    assert set(np.unique(faces.labels[:, [0, 2]])) == {0, 1}
    assert faces.traits["subject"].nunique() == 4
    for column, name in ((0, "AU12"), (2, "AU1")):
        table = pq.read_table(parquet / "faces-00000.parquet")
        assert faces.intensity[:, column].tolist() == table[f"{name}_intensity"].to_pylist()
        assert faces.labels[:, column].tolist() == table[name].to_pylist()
    people = torch.arange(4).repeat_interleave(8)
    scenes = renderer.sample(people, torch.arange(8).repeat(4), seed=3)
    drawn = renderer.aligned(scenes, jitter=0.0).images.permute(0, 2, 3, 1).numpy()
    # not the same pixels, for they were sampled twice, but the same places
    middle = slice(SIDE // 6, -SIDE // 6)
    close = [
        np.corrcoef(a[middle, middle].ravel().astype(float), b[middle, middle].ravel().astype(float))[0, 1]
        for a, b in zip(faces.images, drawn, strict=True)
    ]
    shifted = [
        np.corrcoef(a[middle, middle].ravel().astype(float), np.roll(b, 6, 0)[middle, middle].ravel())[0, 1]
        for a, b in zip(faces.images, drawn, strict=True)
    ]
    assert np.median(close) > 0.9
    assert np.median(close) > np.median(shifted) + 0.1
    few = read_faces(parquet, ["AU12"], SIDE, template, count=8)
    assert few.traits["subject"].nunique() == 4
    with pytest.raises(FileNotFoundError, match="holds none"):
        read_faces(parquet / "nothing", ["AU12"], SIDE, template)


def test_unseen_people_are_measured(folder, model_file, parquet, tmp_path, capsys):
    measure_default.main(folder, parquet, model_file, tmp_path, people=24)
    for stem in ("unseen-reference", "unseen-renders"):
        table = pd.read_csv(tmp_path / f"{stem}.csv").set_index("au")
        assert list(table.index) == [*RENDERED_AUS, "mean of 12 BP4D", "mean of 22"]
        assert (table["threshold"] == 0.4).iloc[:-2].all()
        assert table["icc"].notna().any()
        page = (tmp_path / f"{stem}.md").read_text(encoding="utf-8")
        assert ("HOG" in page) == (stem == "unseen-reference")
        assert "by this same renderer" not in page
        assert "AU12" in page
        assert "/" not in page.partition("\n")[0]
        for file in (f"{stem}.png", f"{stem}-groups.png"):
            assert Image.open(tmp_path / file).width > 600
        groups = pd.read_csv(tmp_path / f"{stem}-groups.csv")
        assert groups["faces"].iloc[0] == {"unseen-reference": 32, "unseen-renders": 24}[stem]
    assert "mean of 12 BP4D" in capsys.readouterr().out
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    (mixed / "results.json").write_text('{"faces": {"mixed in": 1200}}')
    measure_default.main(mixed, parquet, out=tmp_path / "again", count=20)
    assert "1,200 are other people's by this same renderer" in (tmp_path / "again" / "unseen-reference.md").read_text()
    checkpoint = Checkpoint(folder)
    faces = read_faces(parquet, checkpoint.names, SIDE, checkpoint.template)
    column = checkpoint.names.index("AU12")
    own = roc_auc_score(faces.labels[:, column], checkpoint(faces.images)[0][:, column])
    assert pd.read_csv(tmp_path / "unseen-reference.csv").set_index("au")["auc"]["AU12"] == pytest.approx(own, abs=1e-4)
    with pytest.raises(typer.BadParameter, match="--faces, --model"):
        measure_default.main(folder)


def test_a_model_without_intensities_is_measured_too(visual, parquet, tmp_path):
    measure_default.main(visual, parquet, out=tmp_path)
    assert pd.read_csv(tmp_path / "unseen-reference.csv")["icc"].isna().all()


# robustness


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_grows_from_nothing(damage):
    random = np.random.default_rng(0)
    smooth = random.uniform(60, 200, (2, 16, 16, 3)).astype(np.uint8)
    faces = known([[0, 0]] * 2).showing(
        np.stack([np.asarray(Image.fromarray(image).resize((128, 128))) for image in smooth])
    )
    lost = []
    for amount in DAMAGES[damage][2]:
        changed = damaged(faces, damage, amount)
        assert changed.images.shape == faces.images.shape
        assert changed.images.dtype == np.uint8
        assert np.array_equal(changed.images, damaged(faces, damage, amount).images)
        lost.append(np.square(changed.images.astype(float) - faces.images).mean())
    assert lost[0] == 0
    assert lost == sorted(lost)
    assert lost[-1] > 4 * lost[1] > 0


def test_noise_has_the_deviation_it_says():
    faces = known([[0, 0]]).showing(np.full((1, 128, 128, 3), 128, np.uint8))
    assert (damaged(faces, "noise", 20).images.astype(float) - 128).std() == pytest.approx(20, rel=0.03)


def test_the_same_people_are_turned_and_covered(renderer):
    drawn = renderer.sample(torch.arange(60) + UNSEEN, torch.zeros(60, dtype=torch.long))
    assert (drawn.values["cover"] > 0).any()
    scenes = clean(drawn)
    assert not (scenes.values["cover"] > 0).any()
    assert (scenes.values["noise"] == 0).all()
    # what was given is left as it was
    assert (drawn.values["noise"] > 0).any()
    few = scenes[:6]
    plain = draw_faces(renderer, few, RENDERED_AUS)
    side = draw_faces(renderer, turned(few, 40), RENDERED_AUS)
    assert side.traits["yaw"].tolist() == [40, -40] * 3
    assert np.array_equal(side.traits["pitch"], plain.traits["pitch"])
    assert np.array_equal(side.intensity, plain.intensity)
    for name, kind in COVERS.items():
        hidden = covered(renderer, few, kind)
        assert (hidden.values["cover"] == kind).all()
        behind = draw_faces(renderer, hidden, RENDERED_AUS)
        assert behind.traits["occluded"].all() == (kind > 0), name
        assert np.array_equal(behind.intensity, plain.intensity)
        changed = np.abs(behind.images.astype(int) - plain.images).max((1, 2, 3)) > 0
        assert changed.mean() > 0.8 if kind else not changed.any(), name


def test_robustness_is_measured(folder, model_file, parquet, tmp_path, capsys):
    measure_robustness.main(folder, model_file, parquet, tmp_path, people=20, count=20)
    table = pd.read_csv(tmp_path / "robustness.csv", dtype={"amount": str})
    expected = 2 * sum(len(amounts) for _, _, amounts in DAMAGES.values()) + 6 + 5
    assert len(table) == expected
    # nothing done is nothing lost, whatever was not done
    untouched = table[(table["faces_of"] == "own renderer") & table["amount"].isin(["0", "100", "128", "nothing"])]
    untouched = untouched[untouched["kind"] != "yaw"]
    assert len(untouched) == 5
    assert untouched["auc"].nunique() == 1
    assert Image.open(tmp_path / "robustness.png").width > 1000
    assert "face mask" in (tmp_path / "robustness.md").read_text(encoding="utf-8")
    assert "AUC" in capsys.readouterr().out
