"""Videos with boxes and bars drawn in: the frame itself, its time, and files that are whole or not there."""

import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageColor

from hiva_hf import overlay
from hiva_hf.faces import read_video
from hiva_hf.overlay import OverlayVideo, draw_frame, face_colour, fitted_size
from hiva_hf.plotting import ACTIVE, INACTIVE
from hiva_hf.results import FaceResult

av = pytest.importorskip("av")

LABELS = ["AU1", "AU4", "AU12"]
SIZE = (320, 240)
BOX = [60.0, 70.0, 180.0, 200.0]
GREY = (120, 120, 120)
TIMES = [2.0, 2.04, 2.05, 2.5, 3.7501]


def picture(size=SIZE):
    return Image.new("RGB", size, GREY)


def face(face_id=0, box=BOX, **scores):
    return FaceResult(
        "v.mp4", 0, 0.0, face_id, True, 1.0, list(box), [], {"AU1": 0.1, "AU4": 0.2, "AU12": 0.9} | scores
    )


NOBODY = FaceResult("v.mp4", 0, 0.0, -1, False, 0.0)


def colour_at(image, x, y):
    return np.asarray(image)[y, x].astype(int)


def near(image, x, y, colour, tolerance=0):
    return np.abs(colour_at(image, x, y) - ImageColor.getrgb(colour)[:3]).max() <= tolerance


def on_the_box(box, scale=1.0):
    """Points on the four lines of a box, which are drawn inwards, and one in its middle."""
    x0, y0, x1, y1 = (side * scale for side in box)
    middle = (round((x0 + x1) / 2), round((y0 + y1) / 2))
    lines = [(round(x0), middle[1]), (round(x1) - 1, middle[1]), (middle[0], round(y0)), (middle[0], round(y1) - 1)]
    return lines, middle


def bar_lengths(image, colour):
    """Pixels of a colour in each line of the panel, in runs of lines that have any."""
    panel = np.asarray(image)[:, SIZE[0] :]
    return (panel == ImageColor.getrgb(colour)[:3]).all(axis=2).sum(axis=1)


def write(path, times=TIMES, sizes=None, results=None):
    with OverlayVideo(path, LABELS) as video:
        for index, time_ in enumerate(times):
            video.write(picture((sizes or [SIZE] * len(times))[index]), results or [face()], time_)
    return path


@pytest.mark.parametrize("face_id", [0, 1, 6, 7])
def test_a_box_in_the_colour_of_the_person(face_id):
    drawn = draw_frame(picture(), [face(face_id)], LABELS)
    lines, middle = on_the_box(BOX)
    assert all(near(drawn, *point, face_colour(face_id)) for point in lines)
    assert tuple(colour_at(drawn, *middle)) == GREY
    assert face_colour(face_id) == face_colour(face_id % 7)
    assert len({face_colour(number) for number in range(7)}) == 7


def test_the_box_follows_the_scale_of_a_large_picture():
    large = (2560, 1920)
    drawn = draw_frame(picture(large), [face(box=[8 * side for side in BOX])], LABELS)
    assert drawn.height == 960
    lines, middle = on_the_box(BOX, 4)
    assert all(near(drawn, *point, face_colour(0)) for point in lines)
    assert tuple(colour_at(drawn, *middle)) == GREY


def test_the_name_stays_within_the_picture():
    drawn = draw_frame(picture(), [face(box=[0.0, 0.0, 100.0, 100.0])], LABELS)
    assert near(drawn, 8, 3, face_colour(0))
    # at the right edge it moves to the left and not into the panel
    right = draw_frame(picture(), [face(3, box=[310.0, 60.0, 319.0, 100.0])], LABELS)
    panel = np.asarray(right)[:, SIZE[0] :]
    marks = (panel == ImageColor.getrgb(face_colour(3))[:3]).all(axis=2).sum()
    whole = np.asarray(right)[:, : SIZE[0]]
    assert near(right, 317, 50, face_colour(3))
    assert (whole == ImageColor.getrgb(face_colour(3))[:3]).all(axis=2).sum() > 500
    assert 0 < marks < 400


def test_bars_are_as_long_as_the_scores():
    full = bar_lengths(draw_frame(picture(), [face(AU12=1.0)], LABELS, {"AU12": 0.0}), ACTIVE).max()
    for value in (0.6, 0.75, 0.9):
        drawn = draw_frame(picture(), [face(AU12=value)], LABELS)
        # the mark of the threshold takes two or three pixels of it
        assert bar_lengths(drawn, ACTIVE).max() == pytest.approx(value * full, abs=5)
    small = draw_frame(picture(), [face(AU4=0.0, AU1=0.0, AU12=0.4)], LABELS)
    assert not bar_lengths(small, ACTIVE).any()
    assert bar_lengths(small, INACTIVE).max() == pytest.approx(0.4 * full, abs=4)


def test_thresholds_decide_the_colour_and_are_marked():
    for thresholds, active in (({"AU12": 0.95}, False), ({"AU12": 0.9}, True), (None, True)):
        drawn = draw_frame(picture(), [face()], LABELS, thresholds)
        assert bar_lengths(drawn, ACTIVE).any() == active
    low, high = (np.asarray(draw_frame(picture(), [NOBODY], LABELS, {"AU12": limit})) for limit in (0.2, 0.8))
    moved = np.flatnonzero((low != high).any(axis=(0, 2)))
    panel = overlay._panel(SIZE, tuple(LABELS), (0.5, 0.5, 0.2))
    assert moved.max() - moved.min() == pytest.approx(0.6 * (panel.bar[1] - panel.bar[0]), abs=3)


def test_intensities_have_no_mark_and_another_scale():
    panel = overlay._panel(SIZE, tuple(LABELS), None)
    drawn = draw_frame(picture(), [face(AU12=2.5, AU1=0.0, AU4=0.0)], LABELS, intensity=True)
    assert bar_lengths(drawn, ACTIVE).max() == pytest.approx(0.5 * (panel.bar[1] - panel.bar[0]), abs=2)
    assert bar_lengths(draw_frame(picture(), [face(AU12=1.9)], LABELS, intensity=True), ACTIVE).max() == 0


def test_the_panel_tells_of_the_lowest_number_and_of_nobody():
    first, second = face(0, AU12=0.9), face(1, [200, 20, 300, 120], AU12=0.1)
    alone, both, turned = (
        np.asarray(draw_frame(picture(), faces, LABELS)) for faces in ([first], [first, second], [second, first])
    )
    panel = slice(SIZE[0], None)
    assert (alone[:, panel] == both[:, panel]).all()
    assert (both == turned).all()
    assert near(Image.fromarray(both), 250, 20, face_colour(1))
    nobody = draw_frame(picture(), [NOBODY], LABELS)
    assert not bar_lengths(nobody, ACTIVE).any()
    assert not bar_lengths(nobody, INACTIVE).any()
    # the words "no face" make it differ from an empty panel
    empty = overlay._panel(SIZE, tuple(LABELS), (0.5,) * 3).empty
    assert (np.asarray(nobody)[:, panel] != np.asarray(empty)[:, panel]).any()
    assert (np.asarray(nobody)[:, : SIZE[0]] == GREY).all()


@pytest.mark.parametrize(
    ("size", "fitted"),
    [((1920, 1080), (1280, 720)), ((1080, 1920), (720, 1280)), ((33, 21), (32, 20)), ((1281, 1), (1280, 2))],
)
def test_sizes_are_even_and_not_too_large(size, fitted):
    assert fitted_size(size) == fitted
    assert all(side % 2 == 0 for side in draw_frame(picture(size), [], LABELS).size)


def test_a_small_picture_gets_a_panel_that_can_be_read():
    drawn = draw_frame(picture((40, 30)), [face(box=[5, 5, 30, 25])], [f"AU{n}" for n in range(1, 13)])
    assert drawn.height >= 12 * 16
    middle = drawn.height // 2
    assert near(drawn, 5, middle, face_colour(0))
    assert tuple(colour_at(drawn, 38, middle)) == GREY
    assert tuple(colour_at(drawn, 20, 2)) == (0, 0, 0)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
def test_the_video_has_the_frames_at_their_times(tmp_path, ending):
    path = write(tmp_path / "above" / f"seen{ending}")
    frames = list(read_video(path))
    # Matroska counts milliseconds
    assert [frame.timestamp for frame in frames] == pytest.approx([t - TIMES[0] for t in TIMES], abs=6e-4)
    lines, middle = on_the_box(BOX)
    for frame in frames:
        assert frame.image.size == draw_frame(picture(), [face()], LABELS).size
        assert all(near(frame.image, *point, face_colour(0), 45) for point in lines)
        assert np.abs(colour_at(frame.image, *middle) - GREY).max() < 8
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_times_that_stand_still_or_go_back_lose_no_frame(tmp_path):
    frames = list(read_video(write(tmp_path / "v.mp4", times=[0.0, 0.1, 0.1, 0.05, 0.4])))
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.1, 0.1, 0.1, 0.4], abs=1e-4)


def test_without_x264_there_is_another_codec(tmp_path, monkeypatch):
    monkeypatch.setattr(overlay, "_CODECS", ("not-installed", "mpeg4"))
    path = write(tmp_path / "v.mp4")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert [f.timestamp for f in read_video(path)] == pytest.approx([t - TIMES[0] for t in TIMES], abs=1e-4)
    monkeypatch.undo()
    with av.open(str(write(path))) as container:
        assert container.streams.video[0].codec_context.name == "h264"


def test_another_size_is_fitted_into_the_first(tmp_path):
    path = write(tmp_path / "v.mp4", times=[0.0, 0.1], sizes=[SIZE, (120, 240)], results=[face(box=[20, 70, 100, 200])])
    first, second = (frame.image for frame in read_video(path))
    assert first.size == second.size
    assert np.abs(colour_at(first, 150, 120) - GREY).max() < 8
    # black, and the picture and its box 100 pixels to the right
    assert colour_at(second, 50, 120).max() < 8
    assert near(second, 120, 135, face_colour(0), 45)
    assert near(second, 199, 135, face_colour(0), 45)
    assert np.abs(colour_at(second, 160, 120) - GREY).max() < 8


@pytest.mark.parametrize("frames", [0, 1, 100])
def test_an_error_leaves_nothing_and_an_earlier_file(tmp_path, frames):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"earlier")

    # it lives on, so that nothing is tidied up only because it is forgotten
    video = OverlayVideo(path, LABELS)

    def break_off():
        with video:
            for index in range(frames):
                video.write(picture(), [face()], index / 10)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        break_off()
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]
    assert path.read_bytes() == b"earlier"


def test_a_block_without_a_frame_is_an_error(tmp_path):
    with (
        pytest.raises(ValueError, match=r"v\.mp4 must hold at least one frame"),
        OverlayVideo(tmp_path / "v.mp4", LABELS),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_no_file_under_the_name(tmp_path):
    code = f"""
import time
from PIL import Image
from hiva_hf.overlay import OverlayVideo
with OverlayVideo({str(tmp_path / "v.mp4")!r}, ["AU1"]) as video:
    for index in range(200):
        video.write(Image.effect_noise((320, 240), 90), [], index / 25)
    print("written", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "written\n"
    finally:
        process.kill()
        process.wait()
    assert [file.name for file in tmp_path.iterdir()] == [".v.partial.mp4"]
    # the same command again takes over what the killed one left
    write(tmp_path / "v.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


def test_other_endings_and_a_missing_library(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"`path` must end in \.mp4, \.mkv, \.mov; got .*v\.avi"):
        OverlayVideo(tmp_path / "v.avi", LABELS)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"hiva-hf\[faces\]"):
        OverlayVideo(tmp_path / "v.mp4", LABELS)


def test_drawing_is_quick():
    image, people = picture((1280, 720)), [face()]
    draw_frame(image, people, LABELS)
    start = time.process_time()
    for _ in range(10):
        draw_frame(image, people, LABELS)
    # 2 ms measured; an order of magnitude for slow machines
    assert (time.process_time() - start) / 10 < 0.04
