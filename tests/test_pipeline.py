"""The pipeline `facial-action-units`: with the package, and from the saved folder alone."""

import json
import os
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import AUS, SIDE
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import AutoModel, AutoModelForImageClassification, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import KeyDataset

from hiva_hf import ActionUnitDetector, HiVAImageProcessorPil, HiVAProcessor, default_checkpoint
from hiva_hf.faces import Face, FaceTemplate, crop_face
from hiva_hf.image_processing_hiva import open_image
from hiva_hf.pipeline_hiva import CUSTOM_PIPELINES, TASK, FacialActionUnitsPipeline, _cut

SKEWED = {
    "left_eye": [0.25, 0.2],
    "right_eye": [0.6, 0.25],
    "nose": [0.5, 0.5],
    "left_mouth": [0.3, 0.8],
    "right_mouth": [0.7, 0.7],
}


def save(model, bank, folder, **options):
    image_processor = HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE}, face_template=SKEWED)
    model.save_pretrained(folder)
    problem_type = model.config.problem_type
    processor = HiVAProcessor(image_processor, None, bank.to_dict(), problem_type=problem_type, **options)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(make_folded, bank, tmp_path):
    return save(make_folded(), bank, tmp_path / "run", thresholds={"AU4": 0.9})


@pytest.fixture
def read(folder):
    return pipeline(TASK, model=str(folder))


@pytest.fixture(scope="module")
def pictures():
    """Three faces of three sizes, one face, and none."""
    astronaut = open_image(Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png")
    head = astronaut.crop((140, 30, 300, 190))
    group = Image.new("RGB", (900, 420), "grey")
    for side, left in ((160, 10), (400, 180), (260, 600)):
        group.paste(head.resize((side, side)), (left, 10))
    return [group, astronaut, Image.new("RGB", (200, 150), "grey")]


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


def test_the_registry_knows_it(read):
    entry = PIPELINE_REGISTRY.supported_tasks[TASK]
    known = {name: value for name, value in entry.items() if name != "default"}
    assert known == {"impl": FacialActionUnitsPipeline, "pt": (AutoModelForImageClassification,), "type": "image"}
    assert type(read) is FacialActionUnitsPipeline


def test_without_a_model_it_is_the_one_that_ships(monkeypatch):
    monkeypatch.delenv("HIVA_CHECKPOINT", raising=False)
    read = pipeline(TASK)
    assert type(read) is FacialActionUnitsPipeline
    assert read.model.name_or_path == str(default_checkpoint())


IMPORTS = {
    "package-first": "import hiva_hf\nfrom transformers import pipeline",
    "pipeline-first": "from transformers import pipeline\nimport hiva_hf",
    "inner-module": "import hiva_hf.modeling_hiva\nfrom transformers import pipeline",
    "pipeline-module": "import hiva_hf.pipeline_hiva\nfrom transformers import pipeline",
    "base": "import hiva_hf\nimport transformers.pipelines.base",
}


@pytest.mark.parametrize("first", IMPORTS)
def test_it_is_registered_whatever_is_imported_first(first):
    asked = f"from transformers.pipelines import PIPELINE_REGISTRY as known\nprint({TASK!r} in known.supported_tasks)"
    code = f"{IMPORTS[first]}\n{asked}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr


def test_a_model_needs_its_processor(make_folded, bank, tmp_path):
    model = make_folded()
    with pytest.raises(ValueError, match="`processor` must be given"):
        FacialActionUnitsPipeline(model)
    other = HiVAProcessor(HiVAImageProcessorPil(), None, bank.to_dict(), problem_type="regression")
    with pytest.raises(ValueError, match="problem_type, 'multi_label_classification'; got 'regression'"):
        pipeline(TASK, model=model, processor=other)


def test_a_saved_pipeline_is_a_checkpoint(read, pictures, tmp_path):
    read.save_pretrained(tmp_path / "again")
    assert pipeline(TASK, model=str(tmp_path / "again"))(pictures[1]) == read(pictures[1])
    stored = json.loads((tmp_path / "again" / "config.json").read_text())
    assert stored["custom_pipelines"] == CUSTOM_PIPELINES
    assert (tmp_path / "again" / "pipeline_hiva.py").is_file()
    assert not hasattr(read.model.config, "custom_pipelines")


def test_a_base_model_carries_the_code_too(make_folded, tmp_path):
    make_folded().hiva.save_pretrained(tmp_path)
    assert (tmp_path / "pipeline_hiva.py").is_file()
    AutoModel.from_pretrained(tmp_path)


REMOTE = """
import json, sys
if sys.argv[2] == "without":
    sys.modules["hiva_hf"] = None
from transformers import pipeline

read = pipeline("facial-action-units", model=sys.argv[1], trust_remote_code=True)
picture, boxes = sys.argv[3], json.loads(sys.argv[4])
answers = {
    "module": type(read).__module__,
    "config": type(read.model.config).__module__,
    "found": [read(picture), read([picture, picture], batch_size=2)],
    "boxes": read(picture, boxes=boxes),
    "cropped": read(picture, cropped=True),
}
read.save_pretrained(sys.argv[5])
print(json.dumps(answers))
"""


def remotely(folder, picture, boxes, tmp_path, package):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    arguments = [str(folder), package, str(picture), json.dumps(boxes), str(tmp_path / package)]
    command = [sys.executable, "-c", REMOTE, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1]), run.stderr


def test_the_folder_alone_reads_given_faces_and_says_what_it_cannot_do(folder, read, pictures, tmp_path):
    pictures[1].save(tmp_path / "a.png")
    box = [176.0, 65.0, 273.0, 162.0]
    answers, told = remotely(folder, tmp_path / "a.png", [box], tmp_path, "without")
    assert answers["module"].startswith("transformers_modules.")
    assert answers["boxes"] == read(pictures[1], boxes=[box])
    whole = read(pictures[1], cropped=True)
    assert answers["cropped"] == whole
    assert answers["found"][0] == whole
    assert [face["box"] for (face,) in answers["found"][1]] == [whole[0]["box"]] * 2
    assert told.count("pip install 'hiva-hf[faces]'") == 1
    # what code from a checkpoint saves is a checkpoint again
    assert (tmp_path / "without" / "pipeline_hiva.py").read_bytes() == (folder / "pipeline_hiva.py").read_bytes()
    assert pipeline(TASK, model=str(tmp_path / "without"))(pictures[1]) == read(pictures[1])


def test_code_of_the_folder_finds_faces_where_the_package_is_installed(folder, read, pictures, tmp_path):
    pictures[1].save(tmp_path / "a.png")
    answers, told = remotely(folder, tmp_path / "a.png", [[0, 0, 50, 50]], tmp_path, "with")
    assert answers["module"].startswith("transformers_modules.")
    assert answers["found"][0] == read(pictures[1])
    assert "hiva-hf[faces]" not in told


def test_code_of_the_folder_needs_trust(folder, tmp_path):
    code = REMOTE.replace("trust_remote_code=True", "trust_remote_code=False")
    command = [sys.executable, "-c", code, str(folder), "without", "x", "[]", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1
    assert "trust_remote_code=True" in run.stderr


@pytest.mark.parametrize("box", [[2000, 2000, 2100, 2100], [10, 10, 10.5, 10.5], [-90, 0, 2, 90]])
@pytest.mark.parametrize("cropped", [True, False])
def test_a_box_that_shows_nothing_is_told(read, pictures, box, cropped):
    with pytest.raises(ValueError, match="must show at least 4 pixels of the picture"):
        read(pictures[1], boxes=[box], cropped=cropped)


@pytest.mark.parametrize("array", [np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8)])
def test_an_array_that_is_no_picture_is_told(read, array):
    with pytest.raises(ValueError, match="arrays of uint8 and of shape"):
        read(array)
