"""`hiva predict` against what happens to long runs: kill -9, full disks, files that are no pictures, crowds."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command import fails_with, files, write_video
from PIL import Image

from hiva_hf import detector
from hiva_hf.checkpoint import load_detector
from hiva_hf.data import load_rendered
from hiva_hf.detector import ActionUnitDetector

av = pytest.importorskip("av")
resource = pytest.importorskip("resource")

BATCH = 4


@pytest.fixture
def quick(monkeypatch, loaded):
    """The command, without reading the checkpoint anew each time."""
    monkeypatch.setattr(detector, "load_detector", lambda path: loaded)


@pytest.fixture(scope="module")
def loaded(trained):
    return load_detector(trained.folder)


@pytest.fixture
def read_anew(monkeypatch):
    """Names and frames of all pictures that this interpreter looks at."""
    seen = []
    step = ActionUnitDetector.step

    def counted(self, pictures, follower=None):
        seen.extend((picture.source, picture.frame) for picture in pictures)
        return step(self, pictures, follower)

    monkeypatch.setattr(ActionUnitDetector, "step", counted)
    return seen


def process(*arguments, **options):
    call = [sys.executable, "-m", "hiva_hf.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def progress(path):
    return json.loads(Path(f".{path}.progress").read_text(encoding="utf-8"))


def pictures_in(folder, count):
    Path(folder).mkdir()
    dataset = load_rendered()
    for number in range(count):
        dataset[7 * number]["image"].save(Path(folder) / f"{number:03d}.png")
    return Path(folder)


def video(path, count):
    """Two people, of whom the first leaves after two frames."""
    people = [load_rendered()[row]["image"].convert("RGB").resize((160, 160)) for row in (5, 17)]
    pictures = [Image.new("RGB", (352, 160), (90, 120, 90)) for _ in range(count)]
    for index, picture in enumerate(pictures):
        for place, face in enumerate(people[int(index > 1) :], start=int(index > 1)):
            picture.paste(face, (176 * place + index % 16, 0))
    return write_video(Path(path), pictures)


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_a_run_that_was_shot_goes_on_to_the_same_bytes(hiva, quick, place, trained, read_anew, kind):
    count = 32
    given = pictures_in("faces", count) if kind == "folder" else video("face.mkv", count)
    cropped = ["--cropped"] if kind == "folder" else []
    command = ["predict", given, "-c", trained.folder, *cropped, "--batch-size", BATCH, "--out"]
    assert hiva(*command, "whole.csv").code == 0
    assert len(read_anew) == count
    whole = rows("whole.csv")
    assert len({(row["source"], row["frame"]) for row in whole}) == count
    # who was second at first is so to the end
    assert whole[-1]["face_id"] == ("0" if kind == "folder" else "1")
    read_anew.clear()

    shot = process(*command, "shot.csv")
    deadline = time.monotonic() + 60
    reached = {"folder": "source", "video": "frame"}[kind]
    while not Path(".shot.csv.progress").exists() or progress("shot.csv")["state"][reached] < 3 * BATCH:
        assert shot.poll() is None, shot.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    shot.kill()
    shot.communicate()
    assert shot.returncode == -9
    assert not Path("shot.csv").exists()

    done = progress("shot.csv")["state"][reached]
    assert 3 * BATCH <= done < count
    # shot between the rows and the word that they are there
    with open(".shot.csv.rows", "ab") as file:
        file.write(b'{"source": "half a r')
    assert hiva(*command, "shot.csv").code == 0
    assert Path("shot.csv").read_bytes() == Path("whole.csv").read_bytes()
    # what was on the disk is not looked at again
    assert len(read_anew) == len(set(read_anew)) == count - done
    assert not [name for name in files(place) if Path(name).name.startswith(".")]


@pytest.mark.parametrize(("ending", "room"), [("csv", 6_000), ("json", None)], ids=["rows", "file"])
def test_a_full_disk_is_one_sentence_and_loses_nothing(hiva, quick, place, trained, read_anew, ending, room):
    """The rows do not fit, or they do and the file itself does not."""
    count = 24
    given = pictures_in("faces", count)
    command = ["predict", given, "-c", trained.folder, "--cropped", "--batch-size", BATCH, "--out"]
    assert hiva(*command, f"whole.{ending}").code == 0
    read_anew.clear()
    out = Path(f"out.{ending}")
    room = room or Path("whole.json").stat().st_size - 1

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    full = process(*command, out, preexec_fn=small_disk)
    _, error = full.communicate(timeout=60)
    assert full.returncode == 2
    fails_with(type("Done", (), {"code": 2, "err": error}), "File too large")
    assert "Exception" not in error
    assert not out.exists()
    done = progress(out)["state"]["faces"]
    assert done >= BATCH
    assert (done == count) == (ending == "json")

    assert hiva(*command, out).code == 0
    assert out.read_bytes() == Path(f"whole.{ending}").read_bytes()
    assert len(read_anew) == count - done
    assert set(files(place)) - set(files(given)) >= {out.name, f"whole.{ending}"}
    assert not [name for name in files(place) if Path(name).name.startswith(".")]


def test_a_disk_that_was_full_from_the_start(hiva, quick, place, trained, crops):
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        result = hiva("predict", *crops, "-c", trained.folder, "--cropped", "--out", "out.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    fails_with(result, "File too large")
    assert not files(place)


# every maker writes the file and returns what a model is to see in it, where a picture says that


def face():
    return load_rendered()[31]["image"].convert("RGB")


def truncated_jpg(path):
    face().save(path)
    path.write_bytes(path.read_bytes()[:1500])


def text(path):
    path.write_text("no picture, no video")


def animated_gif(path):
    first, second = face().quantize(64), Image.new("P", (128, 128))
    first.save(path, save_all=True, append_images=[second], duration=40)
    return first.convert("RGB")


def tiff_of_two_pages(path):
    face().save(path, save_all=True, append_images=[Image.new("RGB", (40, 30))])
    return face()


def cmyk_jpg(path):
    face().convert("CMYK").save(path, quality=95)
    with Image.open(path) as image:
        return image.convert("RGB")


def sixteen_bit_png(path):
    grey = np.asarray(face().convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    return Image.fromarray(grey).convert("RGB")


def one_pixel(path):
    Image.new("RGB", (1, 1), (200, 30, 30)).save(path)
    return Image.new("RGB", (8, 8), (200, 30, 30))


def huge(path):
    Image.new("L", (6000, 7497), 117).save(path, **({"compress_level": 1} if path.suffix == ".png" else {}))
    return Image.new("RGB", (8, 8), (117, 117, 117))


def wide(path):
    face().resize((4000, 200)).save(path)


def plain(path):
    face().save(path)
    return face()


def sound_alone(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        for packet in [*stream.encode(sound), *stream.encode(None)]:
            container.mux(packet)


READ = {
    "animated.gif": animated_gif,
    "pages.tiff": tiff_of_two_pages,
    "cmyk.jpg": cmyk_jpg,
    "deep.png": sixteen_bit_png,
    "pixel.png": one_pixel,
    "huge.png": huge,
    "huge.jpg": huge,
    "wide.png": wide,
    "größe и 顔 😀 .png": plain,
    "100%s {x} 'a'\t,b.png": plain,
}
UNREADABLE = {
    "half.jpg": (truncated_jpg, "truncated"),
    "empty.jpg": (Path.touch, "the file is empty"),
    "text.jpg": (text, "cannot identify"),
    "pipe.jpg": (os.mkfifo, "there is no file"),
    "dangling.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "there is no file"),
    "sound.mp4": (sound_alone, "must hold a video stream"),
    "empty.mp4": (Path.touch, "the file is empty"),
    "text.mp4": (text, "video that FFmpeg can read"),
}


def predicted(hiva, trained, *options):
    """`hiva predict` on the folder `in`: the result, the rows by name."""
    result = hiva("predict", "in", "-c", trained.folder, "--cropped", "--out", "out.csv", *options)
    assert "Traceback" not in result.err
    return result, {Path(row["source"]).name: row for row in rows("out.csv")}


@pytest.fixture
def beside(place):
    """A folder with a good picture."""
    folder = place / "in"
    folder.mkdir()
    load_rendered()[0]["image"].save(folder / "good.png")
    return folder


@pytest.mark.parametrize("name", READ)
def test_a_strange_picture_is_read_as_what_it_shows(hiva, quick, beside, trained, name):
    shows = READ[name](beside / name)
    if shows is not None:
        shows.save(beside / "shows.png")
    result, found = predicted(hiva, trained)
    assert (result.code, result.err) == (0, "")
    assert set(found) == {path.name for path in beside.iterdir()}
    assert all(row["success"] == "1" for row in found.values())
    if shows is not None:
        for column in ("AU12_p", "AU04_p", "AU06_p"):
            assert float(found[name][column]) == pytest.approx(float(found["shows.png"][column]), abs=2e-3)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_picture_is_one_sentence_beside_the_good_ones(hiva, quick, beside, trained, name):
    make, why = UNREADABLE[name]
    make(beside / name)
    result, found = predicted(hiva, trained)
    assert result.code == 3
    assert set(found) == {"good.png"}
    (sentence,) = result.err.splitlines()
    assert sentence.startswith("skipped: ")
    assert name in sentence
    assert why in sentence


def test_a_file_that_may_not_be_read(hiva, quick, beside, trained):
    plain(beside / "closed.png")
    (beside / "closed.png").chmod(0)
    if os.access(beside / "closed.png", os.R_OK):
        pytest.skip("root reads everything")
    result, found = predicted(hiva, trained)
    assert (result.code, set(found)) == (3, {"good.png"})
    (sentence,) = result.err.splitlines()
    assert "closed.png" in sentence
    assert "Permission denied" in sentence


def test_folders_in_a_ring_and_with_the_names_of_files(hiva, quick, beside, trained):
    (beside / "folder.jpg" / "deeper.mp4").mkdir(parents=True)
    plain(beside / "folder.jpg" / "deeper.mp4" / "face.PNG")
    (beside / "folder.jpg" / "again").symlink_to(beside)
    (beside / "self").symlink_to("self")
    result, found = predicted(hiva, trained)
    assert (result.code, result.err) == (0, "")
    assert set(found) == {"good.png", "face.PNG"}
    assert len(rows("out.csv")) == 2


def test_what_else_lies_in_a_folder_is_no_mistake(hiva, quick, beside, trained):
    for name in ("paper.pdf", "labels.h5", "labels.hdf", "figure.eps", "notes.txt", "scores.csv", ".hidden.png"):
        text(beside / name)
    result, found = predicted(hiva, trained)
    assert (result.code, result.err, set(found)) == (0, "", {"good.png"})


def test_a_name_that_is_no_utf8(hiva, quick, beside, trained):
    try:
        plain(beside / os.fsdecode(b"gr\xfc\xdfe.png"))
    except OSError:
        pytest.skip("this file system has no such names")
    result, found = predicted(hiva, trained)
    assert result.code == 0
    assert len(found) == 2


def test_many_bad_files_stop_a_strict_run_at_the_first(hiva, quick, beside, trained):
    for name, (make, _) in UNREADABLE.items():
        make(beside / name)
    result = hiva("predict", "in", "-c", trained.folder, "--cropped", "--out", "out.csv", "--strict")
    fails_with(result, min(UNREADABLE))
    assert os.listdir() == ["in"]


def test_a_crowd_of_48(hiva, quick, place, trained):
    pytest.importorskip("cv2")
    dataset, cell = load_rendered(), 160
    sheet = Image.new("RGB", (8 * cell, 6 * cell))
    for number in range(48):
        picture = dataset[5 + 12 * number]["image"].convert("RGB").resize((cell, cell))
        sheet.paste(picture, (number % 8 * cell, number // 8 * cell))
    sheet.save("crowd.png")
    assert hiva("predict", "crowd.png", "-c", trained.folder, "--batch-size", 7, "--out", "out.csv").code == 0
    found = rows("out.csv")
    assert 40 <= len(found) <= 48
    assert [int(row["face_id"]) for row in found] == list(range(len(found)))
    boxes = np.array([[float(row[name]) for name in ("x0", "y0", "x1", "y1")] for row in found])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    assert (np.diff(areas) <= 1e-3 * areas[1:]).all()
    centres = {tuple((box[:2] + box[2:]) // (2 * cell)) for box in boxes}
    assert len(centres) == len(found)
    # every face has scores of its own
    assert all(0 < float(row["AU12_p"]) < 1 for row in found)
    assert len({(row["AU12_p"], row["AU04_p"], row["AU06_p"]) for row in found}) > 0.9 * len(found)
