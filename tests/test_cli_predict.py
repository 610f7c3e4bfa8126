"""`hiva predict`: pictures in, files and overlays out, and every mistake as one sentence."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import LABELS, fails_with, files, strict_json, write_video
from PIL import Image

from hiva_hf.data import load_rendered
from hiva_hf.faces import read_video


def test_crops_are_predicted_to_json_and_drawn(hiva, place, trained, crops):
    result = hiva("predict", *crops, "-c", trained.folder, "--cropped", "--out", "new/scores.json", "--plot", "plots")
    assert result.code == 0
    rows = strict_json(Path("new/scores.json"))
    assert [row["source"] for row in rows] == [str(path) for path in crops]
    for row in rows:
        assert row["success"] is True
        assert list(row["scores"]) == LABELS
        assert all(0 < value < 1 for value in row["scores"].values())
        assert row["active"] == {label: row["scores"][label] >= 0.5 for label in LABELS}
    assert rows[0]["scores"] != rows[1]["scores"]
    assert sorted(path.name for path in Path("plots").iterdir()) == ["0000-first.png", "0001-second.png"]
    for path in Path("plots").iterdir():
        with Image.open(path) as image:
            # two rows of pictures: the maps are there
            assert image.height > 0.6 * image.width
    assert set(files(place)) == {"new", "new/scores.json", "plots", "plots/0000-first.png", "plots/0001-second.png"}
    assert "lip corner puller" in result.out


def test_every_form_of_the_results_says_the_same(hiva, place, trained, crops):
    for ending in ("csv", "json", "parquet", "jsonl"):
        assert hiva("predict", *crops, "-c", trained.folder, "--cropped", "--out", f"scores.{ending}").code == 0
    with open("scores.csv", newline="") as file:
        table = list(csv.DictReader(file))
    rows = json.loads(Path("scores.json").read_text())
    columns = ["AU12_p", "AU04_p", "AU06_p"]
    assert [name for name in table[0] if name.endswith("_p")] == columns
    assert pq.read_table("scores.parquet").column_names == list(table[0])
    lines = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    for text, row, line, stored in zip(table, rows, lines, pq.read_table("scores.parquet").to_pylist(), strict=True):
        assert text["source"] == row["source"] == line["source"] == stored["source"]
        for column, label in zip(columns, LABELS, strict=True):
            assert line[column] == stored[column] == row["scores"][label]
            assert float(text[column]) == pytest.approx(row["scores"][label], abs=1e-6)


def test_the_tidy_form_has_a_row_an_action_unit(hiva, place, trained, crops):
    assert hiva("predict", *crops, "-c", trained.folder, "--cropped", "--tidy", "--out", "scores.csv").code == 0
    with open("scores.csv", newline="") as file:
        assert [row["au"] for row in csv.DictReader(file)] == LABELS * 2


@pytest.mark.parametrize(("threshold", "active"), [(0, True), (1, False)])
def test_one_threshold_for_all(hiva, place, trained, crops, threshold, active):
    options = ("--cropped", "--threshold", threshold, "--out", "scores.json", "--plot", "face.png")
    assert hiva("predict", crops[0], "-c", trained.folder, *options).code == 0
    assert [row["active"] for row in strict_json(Path("scores.json"))] == [dict.fromkeys(LABELS, active)]
    assert set(files(place)) == {"scores.json", "face.png"}


def test_a_photograph_needs_no_crop(hiva, place, trained):
    pytest.importorskip("cv2")
    astronaut = Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png"
    result = hiva("predict", astronaut, "-c", trained.folder, "--out", "s.json", "--plot", "s.png")
    assert result.code == 0
    (row,) = strict_json(place / "s.json")
    assert list(row["scores"]) == LABELS
    x0, y0, x1, y1 = row["box"]
    # the tip of her nose
    assert x0 < 224 < x1
    assert y0 < 125 < y1
    assert row["confidence"] > 0.5
    with Image.open(place / "s.png") as image:
        image.load()
    assert set(files(place)) == {"s.json", "s.png"}


def bad_pictures(folder):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "half.jpg")
    (folder / "half.jpg").write_bytes((folder / "half.jpg").read_bytes()[:1500])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no picture")
    Image.new("RGB", (100, 100), (90, 120, 90)).save(folder / "lawn.png")
    return {
        "half.jpg": "truncated",
        "empty.png": "the file is empty",
        "text.png": "cannot identify",
        "missing.png": "there is no file",
    }


@pytest.mark.parametrize("name", ["half.jpg", "empty.png", "text.png", "missing.png"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "strict"])
def test_a_bad_picture_is_one_sentence_and_leaves_nothing(hiva, place, trained, crops, name, alone):
    why = bad_pictures(place)[name]
    before = files(place)
    paths = (name,) if alone else (crops[0], name, "--strict")
    result = hiva("predict", *paths, "-c", trained.folder, "--cropped", "--out", "scores.json", "--plot", "plots")
    sentence = fails_with(result, name, why)
    assert len(sentence.strip().splitlines()) == 1
    assert files(place) == before


def test_a_picture_without_a_face_is_a_row_and_says_what_to_do(hiva, place, trained):
    pytest.importorskip("cv2")
    bad_pictures(place)
    result = hiva("predict", "lawn.png", "-c", trained.folder, "--out", "scores.json")
    assert result.code == 0
    assert "lawn.png: no face found" in result.out
    assert "--cropped" in result.out
    (row,) = strict_json(Path("scores.json"))
    assert (row["success"], row["face_id"], row["scores"]) == (False, -1, {})


def test_bad_pictures_among_good_ones_are_reported(hiva, place, trained, crops):
    bad = bad_pictures(place)
    del bad["missing.png"]
    mixed = [crops[0], *bad, crops[1]]
    result = hiva("predict", *mixed, "-c", trained.folder, "--cropped", "--out", "scores.json")
    assert result.code == 3
    assert [row["source"] for row in strict_json(Path("scores.json"))] == [str(path) for path in crops]
    skipped = [line for line in result.err.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == len(bad)
    assert all(name in line for name, line in zip(bad, skipped, strict=True))


def test_an_unwritable_plot_is_known_before_the_work(hiva, place, trained, crops):
    result = hiva("predict", crops[0], "-c", trained.folder, "--out", "scores.json", "--plot", "face.doc")
    fails_with(result, "`--plot`", "face.doc", ".png")
    assert not files(place)


def test_a_device_that_is_not_there(hiva, place, trained, crops):
    fails_with(hiva("predict", crops[0], "-c", trained.folder, "--device", "wheel"), "`device`", "'wheel'")


def test_a_precision_is_taken_and_kept_apart(hiva, place, trained, crops):
    def score(name, *options):
        assert hiva("predict", crops[0], "-c", trained.folder, "--cropped", "--out", name, *options).code == 0
        with open(place / name, newline="") as file:
            return float(next(csv.DictReader(file))["AU12_p"])

    whole, half = score("whole.csv"), score("half.csv", "--dtype", "bfloat16")
    assert whole != half
    assert abs(whole - half) < 0.02
    assert score("again.csv", "--dtype", "float32") == whole
    assert "int8" in hiva("predict", crops[0], "-c", trained.folder, "--dtype", "int8").err


def test_intensity_is_trained_and_predicted(hiva, place, data, crops):
    options = ("--epochs", 1, "--batch-size", 8, "--workers", 0, "--aus", "12,4", "--test-subjects", "S002")
    result = hiva("train", "-o", "run", "--data", data, "--intensity", *options)
    assert result.code == 0, result.err
    assert "ICC(3,1)" in result.out
    result = hiva("predict", crops[0], "-c", "run", "--cropped", "--out", "scores.csv", "--plot", "face.png")
    assert result.code == 0
    with open("scores.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert [name for name in row if name.startswith("AU")] == ["AU12_r", "AU04_r"]
    assert 0 <= float(row["AU12_r"]) <= 5


@pytest.fixture
def video(tmp_path):
    """Twelve frames of a rendered face."""
    face = load_rendered()[0]["image"].convert("RGB")
    return write_video(tmp_path / "face.mkv", [face] * 12)


def test_a_video_becomes_a_timeline_a_summary_and_a_video(hiva, place, trained, video):
    drawings = ("--plot", "line.png", "--summary", "sum.png", "--video-out", "seen.mp4")
    result = hiva("predict", video, "-c", trained.folder, "--cropped", *drawings, "--every", 2)
    assert result.code == 0, result.err
    assert set(files(place)) == {"face.mkv", "line.png", "sum.png", "seen.mp4"}
    assert [frame.timestamp for frame in read_video("seen.mp4")] == pytest.approx(
        [n * 0.08 for n in range(6)], abs=1e-3
    )
    for name in ("line.png", "sum.png"):
        with Image.open(name) as image:
            assert image.width > 900


def test_a_video_out_needs_one_video(hiva, place, trained, crops):
    result = hiva("predict", crops[0], "-c", trained.folder, "--cropped", "--video-out", "seen.mp4")
    fails_with(result, "`--video-out`", "0 videos")
    assert not files(place)


def test_an_unknown_detector_is_named(hiva, place, trained, crops):
    fails_with(hiva("predict", crops[0], "-c", trained.folder, "--detector", "magic"), "magic", "haar")


def test_a_broken_video_among_others_has_no_timeline_and_stops_nobody(hiva, place, trained, video):
    (place / "broken.mp4").write_text("no video")
    result = hiva("predict", "broken.mp4", video, "-c", trained.folder, "--cropped", "--plot", "lines")
    assert result.code == 3
    assert "skipped: broken.mp4" in result.err
    assert [path.name for path in Path("lines").iterdir()] == ["0001-face-timeline.png"]


def test_maps_of_all_action_units(hiva, place, trained, crops):
    assert hiva("predict", *crops, "-c", trained.folder, "--cropped", "--maps", "maps").code == 0
    assert sorted(files(place)) == ["maps", "maps/0000-first-maps.png", "maps/0001-second-maps.png"]
    assert hiva("predict", crops[0], "-c", trained.folder, "--cropped", "--maps", "one.png").code == 0
    with Image.open("one.png") as image:
        assert image.width > 900


def test_several_faces_of_one_picture_are_drawn_beside_each_other(hiva, place, trained):
    astronaut = Image.open(Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png")
    head = astronaut.convert("RGB").crop((140, 30, 300, 190))
    picture = Image.new("RGB", (520, 340), (120, 130, 140))
    picture.paste(head, (10, 20))
    picture.paste(head.resize((300, 300)), (200, 20))
    picture.save("two.png")
    assert hiva("predict", "two.png", "-c", trained.folder, "--plot", "drawn.png").code == 0
    assert sorted(files(place)) == ["drawn-1.png", "drawn.png", "two.png"]
    assert hiva("predict", "two.png", "-c", trained.folder, "--plot", "drawn").code == 0
    assert {"drawn/0000-two.png", "drawn/0000-two-1.png"} < set(files(place))


def test_one_picture_for_many_files_is_refused(hiva, place, trained, crops):
    for option in ("--plot", "--maps"):
        fails_with(hiva("predict", *crops, "-c", trained.folder, option, "all.png"), option, "folder", "2 files")


@pytest.mark.parametrize("size", ["0", "many", "-3", "1.5"])
def test_a_batch_size_that_is_none(hiva, place, trained, crops, size):
    result = hiva("predict", crops[0], "-c", trained.folder, f"--batch-size={size}")
    fails_with(result, "batch", "auto", "at least 1")
