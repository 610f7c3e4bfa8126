"""Finding a face, and writing what was found."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from hiva_hf.image_processing_hiva import open_image
from hiva_hf.prediction import FacePrediction, crop_to_box, find_face, write_predictions

ROWS = [
    FacePrediction("first.png", {"AU1": 0.25, "AU12": 0.75}, ["AU12"], (1.0, 2.0, 30.0, 40.0)),
    FacePrediction("a, b.png", {"AU1": 0.5, "AU12": 0.125}, ["AU1"]),
]


@pytest.fixture(scope="module")
def astronaut():
    pytest.importorskip("cv2")
    return open_image(Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png")


def test_the_face_is_found_and_not_what_is_beside_it(astronaut):
    x0, y0, x1, y1 = find_face(astronaut)
    # the tip of her nose
    assert x0 < 224 < x1
    assert y0 < 125 < y1


def test_a_face_alone_is_found(astronaut):
    x0, y0, x1, y1 = find_face(astronaut.crop((120, 20, 320, 220)))
    assert x0 < 104 < x1
    assert y0 < 105 < y1
    assert 70 < x1 - x0 == y1 - y0 < 140


def test_no_face_is_none():
    pytest.importorskip("cv2")
    assert find_face(Image.new("RGB", (100, 80), (90, 120, 90))) is None


def test_the_crop_is_a_square_around_the_face(astronaut):
    box = (176.0, 65.0, 273.0, 162.0)
    crop = crop_to_box(astronaut, box, 64)
    assert crop.size == (64, 64)
    # the middle of the crop shows her skin, not the background
    red, _, blue = crop.resize((1, 1), box=(24, 24, 40, 40)).getpixel((0, 0))
    assert red > blue + 30


def test_json_holds_everything(tmp_path):
    path = write_predictions(ROWS, tmp_path / "above" / "rows.json")
    assert json.loads(path.read_text()) == [
        {"image": row.path, "box": list(row.box) if row.box else None, "scores": row.scores, "active": row.active}
        for row in ROWS
    ]
    assert [file.name for file in path.parent.iterdir()] == ["rows.json"]


def test_csv_holds_a_line_a_face(tmp_path):
    path = write_predictions(ROWS, str(tmp_path / "rows.csv"))
    with open(path, newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "x0", "y0", "x1", "y1", "AU1", "AU12"],
            ["first.png", "1.0", "2.0", "30.0", "40.0", "0.250000", "0.750000"],
            ["a, b.png", "", "", "", "", "0.500000", "0.125000"],
        ]


def test_an_earlier_file_is_replaced_and_an_unknown_ending_refused(tmp_path):
    (tmp_path / "rows.json").write_text("earlier")
    write_predictions([], tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == []
    with pytest.raises(ValueError, match=r"\.json or \.csv; got .*rows\.txt"):
        write_predictions(ROWS, tmp_path / "rows.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["rows.json"]
