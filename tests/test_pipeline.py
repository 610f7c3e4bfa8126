"""The pipeline `facial-action-units`: what it says of pictures, boxes and crops, and what it refuses."""

# fixtures are imported by name
# ruff: noqa: F811
import json
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from conftest import AUS
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from pipeline_fixtures import SKEWED, folder, pictures, read, save  # noqa: F401
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hiva_hf import ActionUnitDetector, HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.faces import Face, FaceTemplate, crop_face
from hiva_hf.pipeline_hiva import TASK, FacialActionUnitsPipeline, _cut


def as_answer(results, intensity=False):
    """What [`ActionUnitDetector`] says, in the form of the pipeline."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    return [
        {
            "box": dict(zip(sides, face.box, strict=True)),
            "score": face.confidence,
            "aus": [
                {"label": au, "score": score, "active": score >= 2 if intensity else face.active[au]}
                for au, score in face.scores.items()
            ],
        }
        for face in results
        if face.success
    ]


def test_every_number_is_that_of_the_detector(folder, read, pictures):
    detector = ActionUnitDetector(folder)
    answers = [read(picture) for picture in pictures]
    assert answers == [as_answer(detector.image(picture)) for picture in pictures]
    assert [len(answer) for answer in answers] == [3, 1, 0]
    widths = [face["box"]["xmax"] - face["box"]["xmin"] for face in answers[0]]
    assert widths == sorted(widths, reverse=True)
    assert [row["label"] for row in answers[0][0]["aus"]] == list(AUS)
    json.dumps(answers, allow_nan=False)


@pytest.mark.parametrize("batch_size", [2, 4])
def test_batches_of_pictures_with_any_number_of_faces(folder, read, pictures, batch_size):
    many = [*pictures, pictures[1], pictures[2], pictures[0]]
    detector = ActionUnitDetector(folder, batch_size=batch_size)
    answers = read(many, batch_size=batch_size)
    assert [face for answer in answers for face in answer] == as_answer(detector.images(many))
    assert [len(answer) for answer in answers] == [3, 1, 0, 1, 0, 3]


def test_no_more_faces_at_once_than_the_batch_allows(read, pictures):
    sizes = []
    read.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    read([pictures[0]] * 3, batch_size=2)
    assert sizes == [2, 2, 2, 2, 1]
    sizes.clear()
    read(pictures[0])
    assert sizes == [3]


def test_the_batch_size_of_the_pipeline_is_the_default(folder, pictures):
    sizes = []
    read = pipeline(TASK, model=str(folder), batch_size=2)
    read.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    read([pictures[1], pictures[1]])
    assert sizes == [2]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_whatever_holds_a_picture(read, pictures, tmp_path):
    expected = read(pictures[1])
    path = tmp_path / "one face.png"
    pictures[1].save(path)
    assert read(path) == read(str(path)) == read(np.asarray(pictures[1])) == expected
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert read(f"http://127.0.0.1:{server.server_port}/one%20face.png", timeout=5) == expected
    finally:
        server.shutdown()
        server.server_close()
    assert read([path, pictures[1]]) == read((path, pictures[1])) == [expected, expected]
    assert list(read(picture for picture in [path, pictures[1]])) == [expected, expected]
    table = Dataset.from_dict({"image": [str(path)] * 2}).cast_column("image", ImageFeature())
    assert list(read(KeyDataset(table, "image"))) == [expected, expected]
    assert read([]) == []


def test_a_turned_photograph_is_read_upright(read, pictures, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures[1].transpose(Image.Transpose.ROTATE_90).save(tmp_path / "r.jpg", exif=exif, quality=95)
    (face,) = read(tmp_path / "r.jpg")
    assert face["box"] == pytest.approx(read(pictures[1])[0]["box"], abs=3)


def test_what_is_no_picture_is_refused(read, tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(FileNotFoundError, match="there is no file nowhere"):
        read("nowhere.png")
    with pytest.raises(ValueError, match="must be an image that Pillow can read"):
        read([tmp_path / "x.png"])
    with pytest.raises(ValueError, match="paths, URLs, PIL pictures or arrays; got int"):
        read(5)


def test_a_bad_picture_stops_or_is_told_and_skipped(folder, read, pictures, tmp_path, monkeypatch):
    pictures[1].save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    paths = [tmp_path / name for name in ("good.png", "bad.png", "none.png", "cut.png", "good.png")]
    told = []
    monkeypatch.setattr("hiva_hf.pipeline_hiva.logger.warning", told.append)
    with pytest.raises(ValueError, match=r"bad\.png"):
        read(paths)
    assert not told
    expected = read(pictures[1])
    for batch_size in (1, 2):
        told.clear()
        assert read(paths, strict=False, batch_size=batch_size) == [expected, None, None, None, expected]
        assert [name in text for name, text in zip(("bad.png", "none.png", "cut.png"), told, strict=True)] == [True] * 3
        assert all(text.startswith("skipped: ") for text in told)
    assert read(tmp_path / "bad.png", strict=False) is None
    assert pipeline(TASK, model=str(folder), strict=False)(paths[:2]) == [expected, None]
    assert list(read((path for path in paths[:2]), strict=False)) == [expected, None]
    # a box is an argument of the call, and no picture
    with pytest.raises(ValueError, match="`boxes` must"):
        read(pictures[1], boxes=[(5, 5, 5, 9)], strict=False)
    with pytest.raises(ValueError, match="`inputs` must be paths"):
        read([5], strict=False)


def test_a_picture_of_the_web_that_is_not_there_is_skipped_too(read, pictures):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/x.png"
    assert read([address, pictures[1]], strict=False)[0] is None
    with pytest.raises(ValueError, match=r"`inputs` must be pictures that can be fetched; .*/x\.png"):
        read([address])


def test_thresholds_and_active_only(folder, read, pictures):
    (face,) = read(pictures[1])
    scores = {row["label"]: row["score"] for row in face["aus"]}
    assert {row["label"]: row["active"] for row in face["aus"]} == {
        label: score >= {"AU4": 0.9}.get(label, 0.5) for label, score in scores.items()
    }
    (all_of_it,) = read(pictures[1], thresholds=0.0)
    assert [row["active"] for row in all_of_it["aus"]] == [True] * 3
    limit = {"AU1": scores["AU1"], "AU4": scores["AU4"] + 1e-6, "AU12": 1.0}
    (few,) = read(pictures[1], thresholds=limit, active_only=True)
    assert few["aus"] == [{"label": "AU1", "score": scores["AU1"], "active": True}]
    strict = pipeline(TASK, model=str(folder), thresholds=1.0, active_only=True)
    assert strict(pictures[1])[0]["aus"] == []
    assert len(strict(pictures[1], active_only=False)[0]["aus"]) == 3


def test_a_threshold_of_another_au_is_refused_before_anything_is_read(read):
    with pytest.raises(ValueError, match="got AU99"):
        read("nowhere.png", thresholds={"AU99": 0.5})


def test_an_intensity_model_gives_intensities(make_folded, bank, pictures, tmp_path):
    model = make_folded(problem_type="regression")
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([9.0, 3.0, -9.0]))
    read = pipeline(TASK, model=str(save(model, bank, tmp_path / "run")))
    (face,) = read(pictures[1])
    assert [face] == as_answer(ActionUnitDetector(tmp_path / "run").image(pictures[1]), intensity=True)
    assert [row["active"] for row in face["aus"]] == [True, True, False]
    assert face["aus"][0]["score"] == 5.0
    assert face["aus"][2]["score"] == 0.0


def test_given_boxes_are_read_in_their_order(folder, read, pictures):
    boxes = [(20.0, 30.0, 120.0, 150.0), (200.5, 40, 560, 400)]
    expected = as_answer(ActionUnitDetector(folder).image(pictures[0], [Face(box) for box in boxes]))
    answer = read(pictures[0], boxes=boxes)
    assert [face["score"] for face in answer] == [None, None]
    assert answer == [{**face, "score": None} for face in expected]
    again = [face["box"] for face in answer]
    assert read({"image": pictures[0], "boxes": again}) == answer
    assert read([pictures[0], pictures[1]], boxes=[boxes, []]) == [answer, []]


@pytest.mark.parametrize(
    "box", [(1, 2, 3), (5, 5, 5, 9), (9, 5, 2, 9), (0, 0, float("nan"), 5), "box", {"xmin": 1}, (0, 0, 5, "x"), None]
)
def test_a_box_that_is_none_is_refused(read, pictures, box):
    with pytest.raises(ValueError, match="`boxes` must hold"):
        read(pictures[0], boxes=[box])


def test_boxes_of_other_pictures_are_refused(read, pictures):
    with pytest.raises(ValueError, match="for each of 2 pictures; got 1"):
        read(pictures[:2], boxes=[[]])


def test_crops_are_taken_as_they_are(folder, read, pictures):
    crop = pictures[1].crop((176, 65, 273, 162))
    detector = ActionUnitDetector(folder)
    expected = as_answer(detector.image(crop, [Face((0.0, 0.0, 97.0, 97.0), cropped=True)]))
    assert read(crop, cropped=True) == [{**expected[0], "score": None}]
    inside = as_answer(detector.image(pictures[1], [Face((176.0, 65.0, 273.0, 162.0), cropped=True)]))
    assert read(pictures[1], boxes=[(176, 65, 273, 162)], cropped=True) == [{**inside[0], "score": None}]
    with pytest.raises(ValueError, match="must show at least 4 pixels of the picture of 97 x 97"):
        read(crop, boxes=[(100, 100, 120, 120)], cropped=True)


@pytest.mark.parametrize("template", [None, SKEWED])
@pytest.mark.parametrize("size", [32, 112])
@pytest.mark.parametrize(
    "box",
    [(176.0, 65.0, 273.0, 162.0), (10.3, 8.7, 30.1, 29.2), (-90.0, -40.0, 300.0, 600.0), (900.0, 9.0, 999.0, 99.0)],
)
def test_a_box_is_cut_as_the_package_cuts_it(pictures, box, size, template):
    known = FaceTemplate() if template is None else FaceTemplate(**{key: tuple(v) for key, v in template.items()})
    expected = crop_face(pictures[1], Face(box), size, known)
    assert np.array_equal(np.asarray(_cut(pictures[1], box, size, template)), np.asarray(expected))


def test_a_model_needs_its_processor(make_folded, bank, tmp_path):
    model = make_folded()
    with pytest.raises(ValueError, match="`processor` must be given"):
        FacialActionUnitsPipeline(model)
    other = HiVAProcessor(HiVAImageProcessorPil(), None, bank.to_dict(), problem_type="regression")
    with pytest.raises(ValueError, match="problem_type, 'multi_label_classification'; got 'regression'"):
        pipeline(TASK, model=model, processor=other)


@pytest.mark.parametrize("box", [[2000, 2000, 2100, 2100], [10, 10, 10.5, 10.5], [-90, 0, 2, 90]])
@pytest.mark.parametrize("cropped", [True, False])
def test_a_box_that_shows_nothing_is_told(read, pictures, box, cropped):
    with pytest.raises(ValueError, match="must show at least 4 pixels of the picture"):
        read(pictures[1], boxes=[box], cropped=cropped)


@pytest.mark.parametrize("array", [np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8)])
def test_an_array_that_is_no_picture_is_told(read, array):
    with pytest.raises(ValueError, match="arrays of uint8 and of shape"):
        read(array)
