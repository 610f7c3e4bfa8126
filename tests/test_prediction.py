"""From files and folders to rows: every file has its place, and an interrupted run goes on."""

import csv
import json
import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from command import write_video
from PIL import Image

from hiva_hf import hiva_small
from hiva_hf.data import load_rendered
from hiva_hf.detector import ActionUnitDetector
from hiva_hf.faces import Face, WholePicture
from hiva_hf.prediction import find_sources, predict_sources
from hiva_hf.results import ResultFile


@pytest.fixture(scope="module")
def model():
    return hiva_small(["AU1", "AU12"])


@pytest.fixture(scope="module")
def detector(model):
    return ActionUnitDetector(*model, faces=WholePicture(), batch_size=4)


@pytest.fixture
def folder(tmp_path):
    """Ten faces, a text file and three pictures that are none, in folders."""
    place = tmp_path / "in put ü"
    (place / "below").mkdir(parents=True)
    dataset = load_rendered()
    for number in range(10):
        dataset[number]["image"].save(place / ("below" if number > 5 else ".") / f"{number}.png")
    (place / "2b.png").write_bytes((place / "2.png").read_bytes()[:900])
    (place / "4b.jpg").touch()
    (place / "5b.png").write_text("text")
    (place / "notes.txt").write_text("no picture")
    os.symlink(place, place / "below" / "again")
    return place


@pytest.fixture
def video(tmp_path):
    """Twelve frames of a rendered face that moves to the right."""
    face = load_rendered()[0]["image"].convert("RGB")
    pictures = [Image.new("RGB", (256, 160)) for _ in range(12)]
    for index, picture in enumerate(pictures):
        picture.paste(face, (4 * index, 16))
    return write_video(tmp_path / "face.mkv", pictures)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(detector, path, settings=None):
    return ResultFile(path, detector.labels, detector.intensity, command=settings)


def test_folders_are_searched_in_order_and_loops_entered_once(folder):
    names = [path.relative_to(folder).as_posix() for path in find_sources([folder])]
    inside = [f"below/{number}.png" for number in (6, 7, 8, 9)]
    assert names == ["0.png", "1.png", "2.png", "2b.png", "3.png", "4.png", "4b.jpg", "5.png", "5b.png", *inside]


def test_a_named_file_is_taken_whatever_its_ending(folder):
    assert find_sources([folder / "notes.txt", folder / "0.png"]) == [folder / "notes.txt", folder / "0.png"]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_nothing_to_read_is_said(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=name):
        find_sources([tmp_path / name])


def test_bad_pictures_among_many_are_reported(detector, folder, tmp_path):
    out = tmp_path / "out.csv"
    report = predict_sources(detector, find_sources([folder]), table(detector, out))
    assert (report.faces, report.empty) == (10, 0)
    assert len(report.errors) == 3
    for name, error in zip(("2b.png", "4b.jpg", "5b.png"), report.errors, strict=True):
        assert str(folder / name) in error
    assert [Path(row["source"]).stem for row in read(out)] == [str(number) for number in range(10)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in put ü", "out.csv"]


def test_strict_stops_at_the_first_and_leaves_nothing(detector, folder, tmp_path):
    with pytest.raises(ValueError, match=r"2b\.png"):
        predict_sources(detector, find_sources([folder]), table(detector, tmp_path / "out.csv"), strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in put ü"]


def test_nothing_readable_is_an_error_with_every_sentence(detector, folder, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)4b\.jpg.*5b\.png"):
        predict_sources(detector, [folder / "4b.jpg", folder / "5b.png"], table(detector, tmp_path / "out.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["in put ü"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(1, 7))
def test_a_killed_run_goes_on_to_the_same_bytes(detector, folder, video, tmp_path, after):
    sources = [*find_sources([folder]), video, folder / "0.png"]
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    first = predict_sources(detector, sources, table(detector, whole))
    assert (first.faces, len(first.errors)) == (23, 3)
    steps = []

    def kill(pictures, results, done):
        if sum(1 for count in steps if count) == after:
            # after some batches, while the next is drawn
            raise Killed
        steps.append(len(results))

    with pytest.raises(Killed):
        predict_sources(detector, sources, table(detector, killed), on_batch=kill)
    assert not killed.exists()
    rest = []
    second = predict_sources(
        detector, sources, table(detector, killed), on_batch=lambda pictures, results, done: rest.append(len(results))
    )
    assert killed.read_bytes() == whole.read_bytes()
    assert second == first
    # only what was not yet written was read twice
    assert sum(steps) + sum(rest) == 23


def test_a_file_of_another_command_is_not_continued(detector, folder, tmp_path):
    seen = []

    def kill(pictures, results, done):
        if any(seen):
            raise Killed
        seen.append(results)

    with pytest.raises(Killed):
        predict_sources(
            detector, find_sources([folder]), table(detector, tmp_path / "o.csv", {"every": 1}), on_batch=kill
        )
    with pytest.raises(ValueError, match="begun with other every"):
        table(detector, tmp_path / "o.csv", {"every": 2})


def test_a_video_has_times_and_one_person(model, video, tmp_path):
    class Moving:
        def __call__(self, image):
            """Two boxes, the larger first in every other frame."""
            self.count = getattr(self, "count", 0) + 1
            x = 4.0 * (self.count - 1)
            first, second = Face((x, 16, x + 128, 144), 0.9), Face((x + 130, 100, x + 150, 120), 0.6)
            return [first, second] if self.count % 2 else [second, first]

    detector = ActionUnitDetector(*model, faces=Moving(), batch_size=5)
    predict_sources(detector, [video], table(detector, tmp_path / "out.csv"))
    rows = read(tmp_path / "out.csv")
    assert [int(row["frame"]) for row in rows] == [n for n in range(1, 13) for _ in range(2)]
    assert [float(row["timestamp"]) for row in rows[::2]] == pytest.approx([n / 25 for n in range(12)], abs=2e-3)
    for row in rows:
        assert float(row["confidence"]) == {"0": 0.9, "1": 0.6}[row["face_id"]]


def test_a_frame_without_a_face_is_a_row_that_says_so(model, tmp_path):
    detector = ActionUnitDetector(*model, faces=lambda image: [])
    path = tmp_path / "lawn.png"
    Image.new("RGB", (60, 50), (90, 120, 90)).save(path)
    report = predict_sources(detector, [path], table(detector, tmp_path / "out.jsonl"))
    assert (report.faces, report.empty, report.errors) == (0, 1, [])
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["success"], row["face_id"], row["AU01_p"], row["x0"]) == (0, -1, None, None)


def test_largest_only(model):
    faces = [Face((0, 0, 50, 50), 0.7), Face((60, 60, 80, 80), 0.9)]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8))
    both = ActionUnitDetector(*model, faces=lambda image: faces).image(image)
    largest = ActionUnitDetector(*model, faces=lambda image: faces, largest_only=True).image(image)
    assert [face.face_id for face in both] == [0, 1]
    assert [face.box for face in largest] == [[0, 0, 50, 50]]
    assert largest[0].scores == pytest.approx(both[0].scores, abs=1e-6)


def test_one_answer_from_python_and_from_the_model(model, detector):
    import torch

    image = load_rendered()[5]["image"]
    (face,) = detector.image(image)
    inputs = model[1](images=image, return_tensors="pt")
    with torch.no_grad():
        (scores,) = model[1].post_process(model[0](inputs["pixel_values"]))
    assert face.scores == pytest.approx(scores, abs=1e-6)
    assert face.active == {name: value >= 0.5 for name, value in face.scores.items()}


def test_a_table_for_pandas(detector, folder):
    faces = list(detector.images([folder / "0.png", folder / "1.png"]))
    wide = detector.to_dataframe(faces)
    assert list(wide["source"]) == [str(folder / "0.png"), str(folder / "1.png")]
    assert list(wide["AU12_p"]) == [face.scores["AU12"] for face in faces]
    tidy = detector.to_dataframe(faces, tidy=True)
    assert list(tidy["au"]) == ["AU1", "AU12"] * 2


def test_a_model_needs_its_processor(model):
    with pytest.raises(ValueError, match="`processor`"):
        ActionUnitDetector(model[0])


def as_nobody(function):
    """The answer of a function, as text, from a process without the rights of an administrator."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            os.write(writing, repr(function()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix")
def test_a_folder_that_must_not_be_read_stops_nobody(folder, detector):
    for above in [folder, *folder.parents]:
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)
    (folder / "below").chmod(0)
    try:
        names = as_nobody(lambda: [path.name for path in find_sources([folder])])
    finally:
        (folder / "below").chmod(0o755)
    assert names == repr(["0.png", "1.png", "2.png", "2b.png", "3.png", "4.png", "4b.jpg", "5.png", "5b.png", "below"])
    report = predict_sources(detector, [folder / "0.png", folder / "below"])
    assert report.faces == 1
    assert report.errors == [f"{folder / 'below'} must be a folder that can be read; permission is denied."]


def test_two_runs_do_not_write_one_file(detector, tmp_path):
    first = table(detector, tmp_path / "out.csv")
    with pytest.raises(ValueError, match="written by one run at a time"):
        table(detector, tmp_path / "out.csv")
    first.close()
    table(detector, tmp_path / "out.csv").discard()
    assert os.listdir(tmp_path) == []


def test_where_the_memory_does_not_hold_a_batch_it_is_halved(model, folder):
    alone = ActionUnitDetector(*model, faces=WholePicture(), batch_size=1)
    detector = ActionUnitDetector(*model, faces=WholePicture(), batch_size=8)
    sizes = []

    def little_memory(module, arguments):
        sizes.append(len(arguments[0]))
        if sizes[-1] > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = detector.model.register_forward_pre_hook(little_memory)
    try:
        results = list(detector.images([folder / f"{n}.png" for n in range(5)]))
    finally:
        hook.remove()
    assert sizes == [5, 4, 2, 2, 1]
    for n, result in enumerate(results):
        (expected,) = alone.image(folder / f"{n}.png")
        assert result.scores == pytest.approx(expected.scores, abs=1e-5)


def test_another_fault_of_the_model_is_no_lack_of_memory(model, folder):
    detector = ActionUnitDetector(*model, faces=WholePicture())

    def fault(module, arguments):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    hook = detector.model.register_forward_pre_hook(fault)
    try:
        with pytest.raises(RuntimeError, match="mat1"):
            detector.image(folder / "0.png")
    finally:
        hook.remove()


@pytest.mark.parametrize("size", ["many", 0, 2.5])
def test_a_batch_size_that_is_none(model, size):
    with pytest.raises(ValueError, match="`batch_size` must be auto or"):
        ActionUnitDetector(*model, faces=WholePicture(), batch_size=size)
    assert ActionUnitDetector(*model, faces=WholePicture()).batch_size == 32


def test_a_precision_is_near_the_other(model, folder):
    whole = ActionUnitDetector(*model, faces=WholePicture(), activation_maps=True)
    again = deepcopy(model[0]), model[1]
    half = ActionUnitDetector(*again, faces=WholePicture(), dtype="bfloat16", activation_maps=True)
    assert (whole.model.dtype, half.model.dtype) == (torch.float32, torch.bfloat16)
    one, other = (detector.image(folder / "0.png")[0] for detector in (whole, half))
    assert one.scores != other.scores
    assert one.scores == pytest.approx(other.scores, abs=0.02)
    assert other.activation_maps.dtype == np.float32


@pytest.mark.parametrize("dtype", ["int8", "", torch.float64])
def test_a_precision_that_is_none(model, dtype):
    with pytest.raises(ValueError, match="`dtype` must be float32, bfloat16 or float16; got"):
        ActionUnitDetector(*model, faces=WholePicture(), dtype=dtype)
