"""Scores above a person's neutral face."""

import csv
from pathlib import Path

import numpy as np
import pytest
from command import fails_with, write_video
from PIL import Image

from hiva_hf import hiva_small
from hiva_hf.data import load_rendered
from hiva_hf.detector import ActionUnitDetector
from hiva_hf.faces import WholePicture
from hiva_hf.neutral import above_neutral, neutral_scores, parse_neutral
from hiva_hf.results import FaceResult

LABELS = ["AU1", "AU12"]


def row(frame, person, brow, source="v.mp4"):
    if brow is None:
        return FaceResult(source, frame, 0.0, -1, False, 0.0)
    return FaceResult(source, frame, 0.0, person, True, 1.0, scores={"AU1": brow, "AU12": 0.5})


ROWS = [row(0, 0, 0.1), row(0, 1, 0.6), row(1, 0, 0.2), row(1, 1, 0.8), row(2, 0, 0.9), row(3, 0, None)]


def test_the_median_of_each_person():
    neutral = neutral_scores(ROWS, LABELS, fewest=2)
    assert neutral["v.mp4", 0] == pytest.approx({"AU1": 0.2, "AU12": 0.5})
    assert neutral["v.mp4", 1] == pytest.approx({"AU1": 0.7, "AU12": 0.5})
    assert set(neutral) == {("v.mp4", 0), ("v.mp4", 1)}


def test_the_same_number_in_two_videos_is_two_people():
    neutral = neutral_scores([row(0, 0, 0.25), row(0, 0, 0.75, "w.mp4")], LABELS, fewest=1)
    assert [scores["AU1"] for scores in neutral.values()] == [0.25, 0.75]


def test_frames_at_rest():
    neutral = neutral_scores(ROWS, LABELS, parse_neutral("2-3"))
    assert neutral["v.mp4", 0]["AU1"] == pytest.approx(0.55)
    assert neutral["v.mp4", 1]["AU1"] == pytest.approx(0.8)


def test_scores_above_and_nan_where_nobody_was_at_rest():
    rows = list(above_neutral(ROWS, neutral_scores(ROWS, LABELS, parse_neutral("3-3"))))
    assert [r.above_neutral.get("AU1") for r in rows] == pytest.approx(
        [-0.8, np.nan, -0.7, np.nan, 0.0, None], nan_ok=True, abs=1e-6
    )
    assert rows[0].scores == ROWS[0].scores
    assert ROWS[0].above_neutral == {}


def test_people_by_any_rule():
    by_folder = lambda result: result.source.split("/")[0]  # noqa: E731
    rows = [row(0, 0, 0.2, "ann/1.png"), row(0, 0, 0.4, "ann/2.png"), row(0, 0, 0.9, "bob/1.png")]
    above = above_neutral(rows, neutral_scores(rows, LABELS, person=by_folder, fewest=1), by_folder)
    assert [r.above_neutral["AU1"] for r in above] == pytest.approx([-0.1, 0.1, 0.0], abs=1e-6)


@pytest.mark.parametrize("text", ["mean", "0-5", "5-2", "3", "a-b", ""])
def test_what_is_no_baseline(text):
    with pytest.raises(ValueError, match="`neutral` must be median, or frames"):
        parse_neutral(text)


@pytest.fixture
def video(tmp_path):
    faces = [load_rendered()[index]["image"].convert("RGB") for index in (0, 3, 3, 3, 9)]
    return write_video(tmp_path / "face.mkv", faces)


@pytest.mark.parametrize("tidy", [False, True])
def test_columns_of_the_command(hiva, place, trained, video, tidy):
    command = ("predict", video, "-c", trained.folder, "--cropped", "--neutral", "median", *(["--tidy"] * tidy))
    result = hiva(*command, "--out", "out.csv")
    assert result.code == 0, result.err
    with open("out.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if not tidy or r["au"] == "AU12"]
    score, above = ("probability", "above_neutral") if tidy else ("AU12_p", "AU12_n")
    scores = np.array([float(r[score]) for r in rows])
    assert [float(r[above]) for r in rows] == pytest.approx((scores - np.median(scores)).tolist(), abs=1e-6)


def test_it_needs_a_video_and_a_file(hiva, place, trained, crops, video):
    command = ("predict", "-c", trained.folder, "--cropped", "--neutral")
    fails_with(hiva(*command, "median", crops[0], "--out", "out.csv"), "`--neutral`", "1 pictures")
    fails_with(hiva(*command, "median", video), "`--neutral`", "--out")
    fails_with(hiva(*command, "rest", video, "--out", "out.csv"), "`neutral`", "'rest'")
    assert not Path("out.csv").exists()


def test_who_is_seen_for_a_moment_is_above_nothing():
    assert set(neutral_scores(ROWS, LABELS, fewest=3)) == {("v.mp4", 0)}
    assert neutral_scores(ROWS, LABELS) == {}


def test_frames_without_a_face_are_told(hiva, place, trained, video):
    with pytest.raises(ValueError, match="in 100-200 there is none"):
        neutral_scores(ROWS, LABELS, parse_neutral("100-200"))
    command = ("predict", video, "-c", trained.folder, "--cropped", "--out", "out.csv", "--neutral", "100-200")
    fails_with(hiva(*command), "`neutral`", "100-200")


def test_in_pandas(video):
    detector = ActionUnitDetector(*hiva_small(LABELS), faces=WholePicture())
    table = detector.to_dataframe(detector.video(video), neutral="median")
    above = (table["AU12_p"] - table["AU12_p"].median()).to_numpy()
    assert table["AU12_n"].to_numpy() == pytest.approx(above, abs=1e-6)
    assert "AU12_n" not in detector.to_dataframe(detector.video(video))
    with pytest.raises(ValueError, match="`neutral` needs the frames of a video"):
        detector.to_dataframe(detector.images([Image.new("RGB", (112, 112))] * 9), neutral="median")
