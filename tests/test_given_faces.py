"""Faces that are known beforehand: from a table of ours, of OpenFace's form, or of boxes alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import fails_with, strict_json, write_video
from PIL import Image

from hiva_hf import hiva_small
from hiva_hf.data import load_rendered
from hiva_hf.detector import ActionUnitDetector
from hiva_hf.faces import Face, GivenFaces, box_to_points, five_points, points_to_box
from hiva_hf.faces.given import LANDMARK_COLUMNS, POINT_COLUMNS

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def rendered():
    row = load_rendered()[0]
    return row["image"].convert("RGB"), np.asarray(row["landmarks"], dtype=np.float64).reshape(68, 2)


@pytest.fixture(scope="module")
def detector():
    return ActionUnitDetector(*hiva_small(["AU1", "AU12"]))


def test_a_box_by_points_expects_the_points_where_they_are():
    box = (10.0, 20.0, 110.0, 120.0)
    assert points_to_box(box_to_points(box)) == pytest.approx(box)


def test_results_read_back_give_the_same_scores_to_the_last_digit(hiva, place, trained):
    astronaut = Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png"
    Image.open(astronaut).save("a.png")
    video = write_video(Path("v.mkv"), [Image.open("a.png").convert("RGB").crop((0, 0, 400, 300))] * 5)
    command = ("predict", "a.png", video, "-c", trained.folder)
    assert hiva(*command, "--out", "first.csv").code == 0
    first = pd.read_csv("first.csv")
    assert first["success"].tolist() == [1] * 6
    assert hiva(*command, "--out", "again.csv", "--boxes", "first.csv").code == 0
    assert Path("again.csv").read_bytes() == Path("first.csv").read_bytes()
    # the points are what counts: moved, they give other scores
    moved = pd.read_csv("first.csv")
    moved[[name for name in POINT_COLUMNS if name.endswith("_x")]] += 9
    moved.to_parquet("moved.parquet")
    assert hiva(*command, "--out", "moved.csv", "--boxes", "moved.parquet").code == 0
    assert (pd.read_csv("moved.csv")["AU12_p"] != first["AU12_p"]).all()


def test_the_form_of_openface(rendered, tmp_path):
    image, landmarks = rendered
    values = dict(zip(LANDMARK_COLUMNS, landmarks.ravel(), strict=True))
    table = pd.DataFrame([{"frame": 2, "face_id": 4, "confidence": 0.88, "success": 1, **values}])
    table.columns = [f" {name}" for name in table.columns]
    table.to_csv(tmp_path / "openface.csv", index=False)
    given = GivenFaces.load(tmp_path / "openface.csv")
    assert given(image, "any.mp4", 0) == []
    (face,) = given(image, "any.mp4", 1)
    assert np.allclose(face.points, five_points(landmarks))
    assert (face.face_id, face.score) == (4, 0.88)
    assert np.allclose(box_to_points(face.box).mean(0), face.points.mean(0), atol=1)


def test_of_a_box_alone_the_network_finds_the_points(rendered):
    image, landmarks = rendered
    five = five_points(landmarks)
    box = dict(zip(("x0", "y0", "x1", "y1"), points_to_box(five), strict=True))
    (face,) = GivenFaces(pd.DataFrame([box]))(image, "a.png")
    assert np.linalg.norm(face.points - five, axis=1).max() < 0.2 * np.linalg.norm(five[1] - five[0])
    (nothing,) = GivenFaces(pd.DataFrame([box]))(Image.new("RGB", image.size), "a.png")
    assert nothing.points is None


def test_several_faces_and_none(rendered):
    image, _ = rendered
    rows = [
        {"source": "in/a.png", "x0": 0, "y0": 0, "x1": 10, "y1": 10},
        {"source": "in/a.png", "x0": 0, "y0": 0, "x1": 90, "y1": 90},
        {"source": "in/b.png", "x0": np.nan, "y0": np.nan, "x1": np.nan, "y1": np.nan},
        {"source": "in/c.png", "x0": 0, "y0": 0, "x1": 90, "y1": 90, "success": 0},
    ]
    given = GivenFaces(pd.DataFrame(rows).fillna({"success": 1}))
    assert [face.area for face in given(image, "in/a.png")] == [8100, 100]
    assert given(image, "in/b.png") == given(image, "in/c.png") == given(image, "in/d.png") == []


def test_files_are_compared_whole_and_else_by_name(rendered, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    box = {"x0": 0, "y0": 0, "x1": 90, "y1": 90}
    given = GivenFaces(pd.DataFrame([{"source": name, **box} for name in ("x/a.png", "y/a.png", "y/b.png")]))
    assert given.knows("x/a.png")
    assert given.knows(str(tmp_path / "x/a.png"))
    assert given.knows("elsewhere/b.png")
    # two rows have that name
    assert not given.knows("elsewhere/a.png")


def test_in_python(detector, rendered):
    image, landmarks = rendered
    (known,) = detector.image(image, faces=[Face((0, 0, 128, 128), points=five_points(landmarks))])
    (other,) = detector.image(image, faces=[Face((0, 0, 128, 128), points=five_points(landmarks) + 6)])
    assert known.success
    assert known.scores != other.scores
    (nobody,) = detector.image(image, faces=[])
    assert not nobody.success


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("source,x0,y0,x1\na.png,1,2,3\n", ["x0, y0, x1, y1", "left_eye_x", "got source, x0, y0, x1"]),
        ("x0,y0,x1,y1\n1,2,3,wide\n", ["numbers", "wide"]),
        ("", ["known.csv"]),
    ],
)
def test_a_table_that_is_none_is_one_sentence(hiva, place, trained, crops, content, parts):
    Path("known.csv").write_text(content)
    fails_with(hiva("predict", crops[0], "-c", trained.folder, "--boxes", "known.csv"), *parts)


def test_a_table_of_other_files_is_told(hiva, place, trained, crops):
    Path("known.csv").write_text("source,x0,y0,x1,y1\nelsewhere.png,1,2,30,40\n")
    result = hiva("predict", crops[0], "-c", trained.folder, "--boxes", "known.csv", "--out", "out.csv")
    fails_with(result, "none of 1 files", crops[0])
    assert not Path("out.csv").exists()
    fails_with(hiva("predict", crops[0], "-c", trained.folder, "--boxes", "nowhere.csv"), "nowhere.csv")
    fails_with(hiva("predict", crops[0], "-c", trained.folder, "--boxes", "known.txt"), ".parquet", "known.txt")


def test_a_picture_without_a_row_is_a_row_without_a_face(hiva, place, trained, crops):
    Path("known.csv").write_text(f"source,x0,y0,x1,y1\n{crops[0]},0,0,128,128\n")
    assert hiva("predict", *crops, "-c", trained.folder, "--boxes", "known.csv", "--out", "out.json").code == 0
    assert [row["success"] for row in strict_json(Path("out.json"))] == [True, False]
