"""The faces of a video: searched now and then, followed in between, the same numbers throughout."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiva_hf.faces import Face, FaceFollower, HaarDetector
from hiva_hf.image_processing_hiva import open_image

BLANK = Image.new("RGB", (8, 8))


class Scripted:
    """Finds what the script says, frame by frame, and notes what it was asked."""

    def __init__(self, found, followed):
        self.found, self.followed, self.asked = found, followed, []

    def __call__(self, image):
        self.asked.append("search")
        return list(self.found)

    def follow(self, image, faces):
        self.asked.append("follow")
        return list(self.followed)


def at(x, score=1.0):
    return Face((x, 0, x + 10, 10), score, np.full((5, 2), float(x)))


def test_a_search_now_and_then_and_following_in_between():
    detector = Scripted([at(0)], [at(1)])
    follower = FaceFollower(detector, 0.1)
    numbers = [[number for number, _ in follower(BLANK, frame / 25)] for frame in range(6)]
    assert detector.asked == ["search", "follow", "follow", "follow", "search", "follow", "follow"]
    assert numbers == [[0]] * 6


def test_a_lost_face_is_searched_for_at_once():
    detector = Scripted([at(0), at(50)], [at(1)])
    follower = FaceFollower(detector, 10.0)
    follower(BLANK, 0.0)
    assert [number for number, _ in follower(BLANK, 0.04)] == [0, 1]
    assert detector.asked == ["search", "follow", "search"]


def test_an_empty_picture_is_glanced_at_every_frame():
    detector = Scripted([], [])
    follower = FaceFollower(detector, 0.1)
    for frame in range(4):
        assert follower(BLANK, frame / 25) == []
    assert detector.asked == ["search", "follow", "follow", "follow", "search"]
    detector.followed = [at(3)]
    assert [number for number, _ in follower(BLANK, 4 / 25)] == [0]
    assert detector.asked[5:] == ["follow"]


def test_who_turns_away_is_followed_where_the_search_sees_nobody():
    detector = Scripted([at(0)], [at(1)])
    follower = FaceFollower(detector, 0.1)
    follower(BLANK, 0.0)
    detector.found = []
    ((number, face),) = follower(BLANK, 1.0)
    assert (number, face.box[0]) == (0, 1)


def test_time_that_runs_back_is_no_reason_to_follow():
    detector = Scripted([at(0)], [at(1)])
    follower = FaceFollower(detector, 0.5)
    follower(BLANK, 8.0)
    follower(BLANK, 2.0)
    assert detector.asked == ["search", "follow", "search"]


def test_every_frame_where_it_was_asked_for_or_the_detector_cannot_follow():
    detector = Scripted([at(0)], [at(1)])
    for chosen, interval in ((detector, 0), (lambda image: detector(image), 10)):
        detector.asked.clear()
        follower = FaceFollower(chosen, interval)
        for frame in range(3):
            follower(BLANK, frame / 25)
        assert detector.asked == ["search"] * 3


@pytest.mark.parametrize("interval", [-1, float("nan")])
def test_an_interval_that_is_none(interval):
    with pytest.raises(ValueError, match="`search_interval`"):
        FaceFollower(Scripted([], []), interval)


def test_given_faces_are_taken_as_they_are_and_keep_their_numbers():
    detector = Scripted([], [])
    follower = FaceFollower(detector)
    known = [Face((0, 0, 5, 5), face_id=7), Face((20, 0, 25, 5), face_id=3)]
    assert [number for number, _ in follower(BLANK, 0.0, known)] == [7, 3]
    assert [number for number, _ in follower(BLANK, 0.0, [Face((0, 0, 5, 5))])] == [0]
    assert detector.asked == []


@pytest.fixture(scope="module")
def astronaut():
    pytest.importorskip("cv2")
    return open_image(Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png")


@pytest.fixture(scope="module")
def frames(astronaut):
    """A head that moves, grows and leans, 20 frames."""
    head, frames = astronaut.crop((130, 20, 320, 210)), []
    for n in range(20):
        frame = Image.new("RGB", (480, 270), (120, 130, 140))
        frame.paste(head.rotate(0.8 * n, Image.Resampling.BICUBIC).resize([150 + 3 * n] * 2), (10 + 9 * n, 20))
        frames.append(frame)
    return frames


class Counted(HaarDetector):
    searches = 0

    def __call__(self, image):
        self.searches += 1
        return super().__call__(image)


def test_following_sees_what_searching_sees(frames):
    detector = Counted()
    follower = FaceFollower(detector)
    for n, frame in enumerate(frames):
        ((number, followed),) = follower(frame, n / 25)
        (searched,) = HaarDetector()(frame)
        eyes = np.linalg.norm(searched.points[1] - searched.points[0])
        assert number == 0
        assert np.linalg.norm(followed.points - searched.points, axis=1).max() < 0.08 * eyes
        assert np.abs(np.subtract(followed.box, searched.box)).max() < 0.1 * (searched.box[2] - searched.box[0])
    assert detector.searches == 3


def test_a_face_that_jumps_to_another_size_is_not_the_face_that_was_followed(frames):
    detector = HaarDetector()
    (face,) = detector(frames[0])
    half = Face(face.box, face.score, face.points.mean(0) + 0.5 * (face.points - face.points.mean(0)))
    half.box = tuple(np.array(face.box) / 2)
    assert detector.follow(frames[0], [face])
    assert detector.follow(frames[0], [half]) == []


def test_what_was_followed_and_is_gone_is_lost(frames):
    detector = HaarDetector()
    assert detector.follow(Image.new("RGB", (480, 270), (120, 130, 140)), detector(frames[3])) == []


def test_a_restored_follower_goes_on_to_the_last_digit(frames):
    whole = FaceFollower(HaarDetector())
    expected = [whole(frame, n / 25) for n, frame in enumerate(frames)]
    first = FaceFollower(HaarDetector())
    for n in range(9):
        first(frames[n], n / 25)
    second = FaceFollower(HaarDetector())
    second.restore(json.loads(json.dumps(first.state())))
    for n in range(9, 20):
        for (number, face), (before, known) in zip(second(frames[n], n / 25), expected[n], strict=True):
            assert (number, face.box, face.score, face.points.tolist()) == (
                before, known.box, known.score, known.points.tolist()
            )  # fmt: skip


def test_where_nobody_was_the_frontal_cascade_has_a_glance(frames):
    detector = HaarDetector()
    (face,) = detector.follow(frames[4], [])
    (searched,) = detector(frames[4])
    assert face.box == searched.box


def test_a_face_that_becomes_too_small_is_not_followed(frames):
    detector = HaarDetector()
    (face,) = detector(frames[0])
    side = face.box[2] - face.box[0]
    assert HaarDetector(min_size=int(side) - 8).follow(frames[0], [face])
    assert HaarDetector(min_size=int(side) + 8).follow(frames[0], [face]) == []


def test_equal_times_are_searched_each():
    detector = Scripted([at(0)], [at(1)])
    follower = FaceFollower(detector, 0.5)
    for _ in range(3):
        follower(BLANK, 0.0)
    assert [asked for asked in detector.asked if asked == "search"] == ["search"] * 3
