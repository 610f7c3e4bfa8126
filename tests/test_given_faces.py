"""Faces that are known beforehand: from a table of ours, of OpenFace's form, or of boxes alone."""

import os
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
from hiva_hf.results import ResultFile

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def rendered():
    row = load_rendered()[0]
    return row["image"].convert("RGB"), np.asarray(row["landmarks"], dtype=np.float64).reshape(68, 2)


@pytest.fixture(scope="module")
def detector():
    return ActionUnitDetector(*hiva_small(["AU1", "AU12"]))


def matched(given, *sources):
    given.match(sources)
    return given


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
    given = matched(GivenFaces.load(tmp_path / "openface.csv"), "any.mp4")
    assert given(image, "any.mp4", 0) == []
    (face,) = given(image, "any.mp4", 1)
    assert np.allclose(face.points, five_points(landmarks))
    assert (face.face_id, face.score) == (4, 0.88)
    assert np.allclose(box_to_points(face.box).mean(0), face.points.mean(0), atol=1)


def test_of_a_box_alone_the_network_finds_the_points(rendered):
    image, landmarks = rendered
    five = five_points(landmarks)
    box = dict(zip(("x0", "y0", "x1", "y1"), points_to_box(five), strict=True))
    given = matched(GivenFaces(pd.DataFrame([box])), "a.png")
    (face,) = given(image, "a.png")
    assert np.linalg.norm(face.points - five, axis=1).max() < 0.2 * np.linalg.norm(five[1] - five[0])
    (nothing,) = given(Image.new("RGB", image.size), "a.png")
    assert nothing.points is None


def test_several_faces_and_none(rendered):
    image, _ = rendered
    rows = [
        {"source": "in/a.png", "x0": 0, "y0": 0, "x1": 10, "y1": 10},
        {"source": "in/a.png", "x0": 0, "y0": 0, "x1": 90, "y1": 90},
        {"source": "in/b.png", "x0": np.nan, "y0": np.nan, "x1": np.nan, "y1": np.nan},
        {"source": "in/c.png", "x0": 0, "y0": 0, "x1": 90, "y1": 90, "success": 0},
    ]
    names = ("in/a.png", "in/b.png", "in/c.png", "in/d.png")
    given = matched(GivenFaces(pd.DataFrame(rows).fillna({"success": 1})), *names)
    assert [face.area for face in given(image, "in/a.png")] == [8100, 100]
    assert given(image, "in/b.png") == given(image, "in/c.png") == given(image, "in/d.png") == []


def test_files_are_compared_whole_and_else_by_name(rendered, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    box = {"x0": 0, "y0": 0, "x1": 90, "y1": 90}
    given = GivenFaces(pd.DataFrame([{"source": name, **box} for name in ("x/a.png", "y/a.png", "y/b.png")]))
    assert given.match(["x/a.png", str(tmp_path / "y/a.png"), "elsewhere/b.png", "c.png"]) == ["c.png"]
    assert len(given(rendered[0], "elsewhere/b.png")) == len(given(rendered[0], str(tmp_path / "y/a.png"))) == 1
    with pytest.raises(ValueError, match=r"which rows are of elsewhere/a\.png; they may be those of x/a\.png or y/a"):
        given.match(["elsewhere/a.png"])
    with pytest.raises(ValueError, match=r"'y/b\.png' may be y/b\.png or z/b\.png"):
        given.match(["y/b.png", "z/b.png"])
    with pytest.raises(ValueError, match=r"names none of 1 files, such as c\.png"):
        given.match(["c.png"])
    with pytest.raises(ValueError, match="a column `source` where several files are read; 2 are"):
        GivenFaces(pd.DataFrame([box])).match(["a.png", "b.png"])


def test_many_files_are_matched_by_one_pass(monkeypatch):
    count, calls = 200, []
    whole = os.path.abspath
    box = {"x0": 0, "y0": 0, "x1": 90, "y1": 90}
    given = GivenFaces(pd.DataFrame([{"source": f"faces/{number}.png", **box} for number in range(count)]))
    monkeypatch.setattr(os.path, "abspath", lambda path: calls.append(path) or whole(path))
    for place in ("./faces", "elsewhere"):
        calls.clear()
        assert given.match([f"{place}/{number}.png" for number in range(count)]) == []
        assert len(calls) == 2 * count


def test_what_is_no_face_in_a_table(rendered):
    image, _ = rendered
    empty = {"x0": 0, "y0": 0, "x1": 0, "y1": 0}
    point, outside = dict.fromkeys(empty, 50), dict(zip(empty, (5000, 5000, 5200, 5200), strict=True))
    given = matched(GivenFaces(pd.DataFrame([empty, point, outside])), "a.png")
    assert given(image, "a.png") == []


def test_a_frame_counts_for_videos_only(rendered):
    table = pd.DataFrame([{"frame": 5, "x0": 0, "y0": 0, "x1": 90, "y1": 90}])
    given = matched(GivenFaces(table), "frame5.png")
    assert len(given(rendered[0], "frame5.png")) == 1
    assert given(rendered[0], "frame5.png", 0) == []
    assert len(given(rendered[0], "frame5.png", 4)) == 1


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
        ("x0,y0,x1,y1\n1,2,3,wide\n", ["y1 must be a number", "row 1", "wide"]),
        ("x0,y0,x1,y1\n0,0,9,9\n50,2,30,40\n", ["x1 must lie right of x0", "row 2"]),
        ("x0,y0,x1,y1,face_id\n1,2,30,40,P01\n", ["face_id must be a number", "P01"]),
        ("x0,y0,x1,y1,face_id\n1,2,30,40,\n", ["face_id must be a whole number from 0 on", "nan"]),
        ("x0,y0,x1,y1,face_id\n1,2,30,40,1\n5,2,30,40,1\n", ["face_id once a frame; 1 stands twice"]),
        ("x0,y0,x1,y1,frame\n1,2,30,40,1.5\n", ["frame must be a whole number", "1.5"]),
        ("x0,y0,x1,y1,frame\n1,2,30,40,f1\n", ["frame must be a number", "f1"]),
        ("x0,y0,x1,y1,success\n1,2,30,40,perhaps\n", ["success must be 1 or 0", "perhaps"]),
        ("x0,y0,x1,y1,confidence\n1,2,30,40,high\n", ["confidence must be a number", "high"]),
        ("source,x0,y0,x1,y1\n,2,30,40,50\n", ["source must name a file", "row 1"]),
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
    # no hidden file is left either
    assert [path.name for path in place.iterdir()] == ["known.csv"]
    fails_with(hiva("predict", crops[0], "-c", trained.folder, "--boxes", "nowhere.csv"), "nowhere.csv")
    fails_with(hiva("predict", crops[0], "-c", trained.folder, "--boxes", "known.txt"), ".parquet", "known.txt")
    fails_with(hiva("predict", crops[0], "-c", trained.folder, "--boxes", "known.csv", "--cropped"), "`--cropped`")


def test_a_picture_without_a_row_is_a_row_without_a_face(hiva, place, trained, crops):
    Path("known.csv").write_text(f"source,x0,y0,x1,y1\n{crops[0]},0,0,128,128\n")
    result = hiva("predict", *crops, "-c", trained.folder, "--boxes", "known.csv", "--out", "out.json")
    assert result.code == 0
    assert f"1 files are not in known.csv, such as {crops[1]}" in result.err
    assert [row["success"] for row in strict_json(Path("out.json"))] == [True, False]


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_every_form_of_the_results_is_read_back(hiva, place, trained, crops, ending):
    Path("known.csv").write_text(f"source,x0,y0,x1,y1,face_id\n{crops[0]},1.5,2,100,120,3\n{crops[1]},,,,,\n")
    command = ("predict", *crops, "-c", trained.folder, "--out")
    assert hiva(*command, f"first.{ending}", "--boxes", "known.csv").code == 0
    assert hiva(*command, "again.json", "--boxes", f"first.{ending}").code == 0
    assert hiva(*command, "whole.json", "--boxes", "known.csv").code == 0
    assert Path("again.json").read_bytes() == Path("whole.json").read_bytes()
    assert [row["face_id"] for row in strict_json(Path("again.json"))] == [3, -1]


def test_people_keep_their_numbers(hiva, place, trained):
    video = write_video(Path("v.mkv"), [Image.new("RGB", (200, 100), "grey")] * 3)
    rows = [(1, 7, 0), (1, 3, 100), (2, 3, 100), (3, 7, 0), (3, 3, 100)]
    lines = [f"{frame},{who},{x},0,{x + 90},90" for frame, who, x in rows]
    Path("known.csv").write_text("frame,face_id,x0,y0,x1,y1\n" + "\n".join(lines) + "\n")
    assert hiva("predict", video, "-c", trained.folder, "--boxes", "known.csv", "--out", "out.csv").code == 0
    table = pd.read_csv("out.csv")
    assert sorted(zip(table["frame"], table["face_id"], table["x0"], strict=True)) == sorted(rows)


def test_a_table_that_was_changed_does_not_go_on(hiva, place, trained, crops, monkeypatch):
    Path("known.csv").write_text("source,x0,y0,x1,y1\n" + "".join(f"{crop},0,0,128,128\n" for crop in crops))
    command = ("predict", *crops, "-c", trained.folder, "--boxes", "known.csv", "--out", "out.csv", "--batch-size", 1)
    write, calls = ResultFile.write, []

    def die(self, results, state):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        write(self, results, state)

    monkeypatch.setattr(ResultFile, "write", die)
    assert hiva(*command).code != 0
    monkeypatch.setattr(ResultFile, "write", write)
    Path("known.csv").write_text(Path("known.csv").read_text().replace("0,0,128,128", "9,0,128,128"))
    fails_with(hiva(*command), "other boxes")
