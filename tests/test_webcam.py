"""Cameras: OpenCV reads a file or a stream as it reads a device, so a file stands for one here."""

import csv
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from command import fails_with, write_video
from PIL import Image

from hiva_hf import terminal
from hiva_hf.data import load_rendered
from hiva_hf.faces import read_video, read_webcam
from hiva_hf.faces.webcam import is_webcam
from hiva_hf.prediction import find_sources

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A rendered face in a red field, 2000 frames."""
    picture = Image.new("RGB", (320, 176), (200, 20, 20))
    picture.paste(load_rendered()[0]["image"].convert("RGB"), (96, 24))
    return write_video(tmp_path_factory.mktemp("camera") / "face.mkv", [picture] * 2000)


def test_which_names_are_cameras(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all(map(is_webcam, ["webcam", "webcam:2", Path("webcam:0")]))
    assert not any(map(is_webcam, ["webcams", "my webcam", "webcam.mp4", "in/webcam"]))
    assert find_sources(["webcam"]) == [Path("webcam")]
    Path("webcam").touch()
    assert not is_webcam("webcam")


def test_frames_come_upright_in_colour_and_in_time(recording):
    frames = []
    for frame in read_webcam(f"webcam:{recording}"):
        frames.append(frame)
        if len(frames) == 5:
            break
    assert [frame.index for frame in frames] == list(range(5))
    assert frames[0].timestamp == 0.0
    assert all(a.timestamp < b.timestamp < 5 for a, b in pairwise(frames))
    red, green, blue = np.asarray(frames[0].image)[4, 4].tolist()
    assert frames[0].image.size == (320, 176)
    assert red > 150 > 80 > max(green, blue)


def test_it_ends_when_it_is_told_to(recording):
    seen = []
    for frame in read_webcam(f"webcam:{recording}", every=3, stop=lambda: len(seen) == 4):
        seen.append(frame.index)
    assert seen == [0, 3, 6, 9]


def test_it_ends_after_its_time(recording):
    begin = time.monotonic()
    times = []
    for frame in read_webcam(f"webcam:{recording}", start=0.05, end=0.2):
        times.append(frame.timestamp)
        time.sleep(0.02)
    assert 0.15 < time.monotonic() - begin < 2
    assert 0.05 <= times[0] <= times[-1] < 0.2


def test_a_camera_that_goes_away_leaves_what_was_read(tmp_path):
    short = write_video(tmp_path / "short.mkv", [Image.new("RGB", (64, 48))] * 3)
    told = []
    assert len(list(read_webcam(f"webcam:{short}", on_damage=told.append))) == 3
    assert len(told) == 1
    assert "stopped after 3 frames" in told[0]


def test_opencv_says_nothing_of_a_camera_that_is_not_there(capfd):
    with pytest.raises(ValueError, match="`webcam:97` must be a camera"):
        next(read_webcam("webcam:97"))
    assert capfd.readouterr().err == ""


def test_no_camera_is_one_sentence(hiva, place, trained):
    fails_with(hiva("predict", "webcam:97", "-c", trained.folder, "--out", "out.csv"), "webcam:97", "camera")
    assert os.listdir(place) == []


def test_ctrl_c_ends_the_recording_and_keeps_it(place, trained, recording):
    call = ["predict", f"webcam:{recording}", "-c", trained.folder, "--out", "out.csv", "--video-out", "seen.mp4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hiva_hf.cli", *map(str, call)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    spool, deadline = Path(".out.csv.rows"), time.monotonic() + 60
    while (not spool.exists() or spool.read_bytes().count(b"\n") < 6) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 6 <= len(rows) < 2000
    assert {row["success"] for row in rows} == {"1"}
    assert {row["face_id"] for row in rows} == {"0"}
    assert len(list(read_video("seen.mp4"))) == len(rows)
    assert sorted(os.listdir(place)) == ["out.csv", "seen.mp4"]
    assert "Wrote seen.mp4" in output


def test_a_recording_that_was_shot_is_finished_with_what_was_read(hiva, place, trained, recording):
    command = ["predict", f"webcam:{recording}", "-c", trained.folder, "--out", "out.csv"]
    process = subprocess.Popen([sys.executable, "-m", "hiva_hf.cli", *map(str, command)])
    progress, deadline = Path(".out.csv.progress"), time.monotonic() + 60
    while not progress.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept = Path(".out.csv.rows").read_bytes().count(b"\n")
    # the camera is not opened again, and that is told
    result = hiva(*command, "--video-out", "seen.mp4", "--summary", "page.png")
    assert result.code == 3
    assert "nothing was recorded now" in result.err
    assert not Path("seen.mp4").exists()
    assert Path("page.png").exists()
    with open("out.csv", newline="") as file:
        # of the last row perhaps only the text was there, not yet the word that it counts
        assert len(list(csv.DictReader(file))) in (kept, kept - 1)


@pytest.fixture
def interruptible():
    """What runs in the background of a shell does not hear of interrupts."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


def test_a_second_interrupt_ends_the_program(interruptible):
    before = signal.getsignal(signal.SIGINT)
    with terminal.until_interrupt() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
