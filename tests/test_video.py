"""Videos: frames, times, rotation, damage; and people followed from frame to frame."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from hiva_hf.faces import Face, FaceTracker, read_video

av = pytest.importorskip("av")


def write_video(path, times=None, count=10, size=(64, 48), rotation=0, codec="mpeg4", audio_only=False):
    """A video whose frame n is grey of brightness 20 n; red in its upper left quarter."""
    with av.open(str(path), "w") as container:
        if audio_only:
            stream = container.add_stream("pcm_s16le", rate=8000)
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            samples.rate = 8000
            container.mux(stream.encode(samples))
            container.mux(stream.encode(None))
            return path
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times or [n / 25 for n in range(count)]):
            picture = np.full((size[1], size[0], 3), 20 * index % 256, np.uint8)
            picture[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def brightness(image):
    return np.asarray(image.convert("L"))[-8:, -8:].mean()


def red_corner(image):
    """Row and column, 0 or 1, of the quarter that is red."""
    pixels = np.asarray(image, dtype=int)
    redness = pixels[..., 0] - pixels[..., 2]
    half = redness.shape[0] // 2, redness.shape[1] // 2
    quarters = [[redness[i * half[0] :, j * half[1] :][: half[0], : half[1]].mean() for j in (0, 1)] for i in (0, 1)]
    return np.unravel_index(np.argmax(quarters), (2, 2))


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv", "c.avi", "ein Film ü.mov"])
def test_every_frame_in_its_order(tmp_path, name):
    frames = list(read_video(write_video(tmp_path / name)))
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.timestamp for frame in frames] == pytest.approx([n / 25 for n in range(10)], abs=2e-3)
    assert frames[0].image.size == (64, 48)
    assert np.allclose([brightness(frame.image) for frame in frames], [20 * n for n in range(10)], atol=6)


def test_times_are_those_of_the_container_where_the_rate_varies(tmp_path):
    times = [0, 0.04, 0.5, 0.54, 2.0]
    frames = read_video(write_video(tmp_path / "v.mkv", times=times))
    assert [frame.timestamp for frame in frames] == pytest.approx(times, abs=2e-3)


def test_a_part_of_the_frames(tmp_path):
    path = write_video(tmp_path / "v.mp4")
    assert [frame.index for frame in read_video(path, every=3)] == [0, 3, 6, 9]
    assert [frame.index for frame in read_video(path, start=0.1, end=0.3)] == [3, 4, 5, 6, 7]
    assert [frame.index for frame in read_video(path, every=2, skip_frames=5)] == [6, 8]


def test_a_turned_video_is_upright(tmp_path):
    # containers say how a camera was held; here by the display matrix that ffmpeg itself writes
    plain, turned = write_video(tmp_path / "v.mp4"), tmp_path / "turned.mp4"
    data = bytearray(plain.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    unit = (1 << 16).to_bytes(4, "big")
    minus = ((1 << 32) - (1 << 16)).to_bytes(4, "big")
    zero = bytes(4)
    width = (64 << 16).to_bytes(4, "big")
    # a quarter clockwise: x' = height - y, y' = x
    matrix = (
        zero + unit + zero + minus + zero + zero + (48 << 16).to_bytes(4, "big") + zero + (1 << 30).to_bytes(4, "big")
    )
    assert bytes(data[place + 36 : place + 40]) == width
    data[place : place + 36] = matrix
    turned.write_bytes(data)
    first, second = next(read_video(plain)).image, next(read_video(turned)).image
    assert tuple(red_corner(first)) == (0, 0)
    assert second.size == (48, 64)
    assert tuple(red_corner(second)) == (0, 1)


def test_a_damaged_end_gives_what_came_before(tmp_path):
    path = write_video(tmp_path / "v.mkv", count=100, size=(160, 120))
    told = []
    assert len(list(read_video(path, on_damage=told.append))) == 100
    assert not told
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = list(read_video(path, on_damage=told.append))
    assert 5 < len(frames) < 100
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert len(told) == 1
    assert str(path) in told[0]
    with pytest.warns(UserWarning, match=r"v\.mkv is"):
        list(read_video(path))


@pytest.mark.parametrize(("content", "message"), [(b"", "the file is empty"), (b"no video " * 99, "FFmpeg can read")])
def test_what_is_no_video_is_refused(tmp_path, content, message):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_video(path))
    assert str(path) in str(caught.value)


def test_sound_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold a video stream"):
        list(read_video(write_video(tmp_path / "v.wav", audio_only=True)))


@pytest.mark.parametrize(
    ("options", "name"), [({"every": 0}, "every"), ({"start": -1}, "start"), ({"start": 2, "end": 1}, "end")]
)
def test_arguments_out_of_their_range(tmp_path, options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        list(read_video(write_video(tmp_path / "v.mp4"), **options))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        list(read_video(tmp_path / "nowhere.mp4"))


def at(x, y=0, side=10):
    return Face((x, y, x + side, y + side), 1.0)


def test_people_keep_their_numbers_whatever_their_order():
    tracker = FaceTracker()
    assert tracker([at(0), at(100)]) == [0, 1]
    assert tracker([at(102), at(2)]) == [1, 0]
    assert tracker([at(4), at(50), at(104)]) == [0, 2, 1]


def test_the_best_assignment_is_that_of_all_together():
    tracker = FaceTracker()
    tracker([at(0), at(6)])
    # the first overlaps both old boxes, the second only one of them
    assert tracker([at(4), at(10)]) == [0, 1]


def test_who_is_away_briefly_is_remembered_and_who_is_away_long_is_not():
    tracker = FaceTracker(patience=2)
    tracker([at(0)])
    tracker([])
    assert tracker([at(0)]) == [0]
    for _ in range(3):
        tracker([])
    assert tracker([at(0)]) == [1]


def test_a_restored_tracker_goes_on():
    first, second = FaceTracker(), FaceTracker()
    first([at(0), at(50)])
    first([at(50)])
    second.restore(first.state())
    faces = [at(2), at(50), at(90)]
    assert second(faces) == first(faces) == [0, 1, 2]


def test_images_are_pictures(tmp_path):
    assert isinstance(next(read_video(write_video(tmp_path / "v.mp4"))).image, Image.Image)
