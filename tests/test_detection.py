"""Finding faces and their landmarks, and cutting them out as training did."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiva_hf.data import load_rendered
from hiva_hf.faces import (
    Face,
    FaceTemplate,
    HaarDetector,
    LandmarkLocator,
    LandmarkNetwork,
    WholePicture,
    crop_face,
    five_points,
    similarity_transform,
    warp_face,
)
from hiva_hf.faces.detection import distinct, overlap
from hiva_hf.image_processing_hiva import open_image, upright_rgb

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def detector():
    return HaarDetector()


@pytest.fixture(scope="module")
def astronaut():
    return open_image(Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png")


@pytest.fixture(scope="module")
def rendered():
    """Pictures of twelve people and their 68 true points."""
    dataset = load_rendered()
    rows = [dataset[index] for index in range(0, 600, 50)]
    return [(row["image"].convert("RGB"), np.asarray(row["landmarks"]).reshape(68, 2)) for row in rows]


def eye_distance(points):
    five = five_points(points)
    return np.linalg.norm(five[1] - five[0])


def test_landmarks_are_found_from_a_rough_guess(rendered):
    locator, rng, errors = LandmarkLocator(), np.random.default_rng(0), []
    for image, points in rendered:
        guess = five_points(points) + rng.normal(0, 0.12 * eye_distance(points), 2)
        (found,), (presence,) = locator(image, guess[None])
        errors.append(np.linalg.norm(found - points, axis=1).mean() / eye_distance(points))
        assert presence > 0.5
    assert np.mean(errors) < 0.08


def test_a_second_look_is_better_than_one(rendered):
    def error(locator):
        rng, errors = np.random.default_rng(0), []
        for image, points in rendered:
            five = five_points(points)
            # a box a third too large and beside the face
            guess = five.mean(0) + 1.35 * (five - five.mean(0)) + rng.normal(0, 0.2 * eye_distance(points), 2)
            (found,), _ = locator(image, guess[None])
            errors.append(np.linalg.norm(found - points, axis=1).mean() / eye_distance(points))
        return np.mean(errors)

    assert error(LandmarkLocator()) < 0.9 * error(LandmarkLocator(passes=1))


@pytest.mark.parametrize("degrees", [-30, 30])
def test_landmarks_follow_a_turned_head(rendered, degrees):
    locator, errors = LandmarkLocator(), []
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for image, points in rendered:
        size = image.width
        matrix = np.hstack([turn, (np.full(2, size / 2) - turn @ np.full(2, size / 2))[:, None]])
        true = points @ turn.T + matrix[:, 2]
        # expected as if the head were upright
        guess = five_points(points) - five_points(points).mean(0) + five_points(true).mean(0)
        (found,), _ = locator(warp_face(image, matrix, size), guess[None])
        errors.append(np.linalg.norm(found - true, axis=1).mean() / eye_distance(points))
    assert np.mean(errors) < 0.12


def test_where_there_is_no_face_presence_says_so(rendered):
    image, points = rendered[0]
    upside_down = image.transpose(Image.Transpose.ROTATE_180)
    guess = image.width - five_points(points)
    _, (presence,) = LandmarkLocator()(upside_down, guess[[1, 0, 2, 4, 3]][None] * [1, 1])
    _, (texture,) = LandmarkLocator()(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)), guess[None]
    )
    assert presence < 0.5
    assert texture < 0.5


def test_no_faces_are_no_points():
    points, presence = LandmarkLocator()(Image.new("RGB", (50, 50)), np.empty((0, 5, 2)))
    assert points.shape == (0, 68, 2)
    assert presence.shape == (0,)


def test_the_network_is_small_and_batches_do_not_mix():
    network = LandmarkLocator().network
    assert isinstance(network, LandmarkNetwork)
    assert sum(value.numel() * value.element_size() for value in network.state_dict().values()) < 3e6
    views = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = network(views)[0], torch.cat([network(view[None])[0] for view in views])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_face_is_found_and_not_what_is_beside_it(detector, astronaut):
    (face,) = detector(astronaut)
    left_eye, right_eye, nose, left_mouth, right_mouth = face.points
    assert face.score > 0.5
    assert face.landmarks.shape == (68, 2)
    # by eye, in pixels of the picture
    for point, place in zip(face.points, [(202, 102), (246, 103), (226, 128), (203, 140), (244, 141)], strict=True):
        assert np.linalg.norm(point - place) < 6, (point, place)
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[1] > nose[1] < right_mouth[1]


def test_every_face_largest_first(detector, astronaut):
    head = astronaut.crop((140, 30, 300, 190))
    picture = Image.new("RGB", (520, 340), (120, 130, 140))
    picture.paste(head, (10, 20))
    picture.paste(head.resize((300, 300)), (200, 20))
    faces = detector(picture)
    assert len(faces) == 2
    assert faces[0].points[2][0] > 200 > faces[1].points[2][0]
    (largest,) = HaarDetector(min_size=150)(picture)
    assert overlap(largest.box, faces[0].box) > 0.7


def test_the_largest_face_alone(detector, astronaut):
    (found,), (first, *_) = detector.largest(astronaut), detector(astronaut)
    assert np.abs(found.points - first.points).max() < 3
    head = astronaut.crop((140, 30, 300, 190))
    picture = Image.new("RGB", (1200, 900), (120, 130, 140))
    assert detector.largest(picture) == []
    # too small to be looked for first
    picture.paste(head, (50, 60))
    (small,) = detector.largest(picture)
    assert np.linalg.norm(small.points[2] - (50 + 226 - 140, 60 + 128 - 30)) < 8
    picture.paste(head.resize((640, 640)), (400, 100))
    (large,) = detector.largest(picture)
    assert large.points[2][0] > 400
    assert overlap(large.box, detector(picture)[0].box) > 0.7


def test_a_large_picture_has_its_face_in_the_same_place(detector, astronaut):
    (small,) = detector(astronaut)
    (large,) = detector(astronaut.resize((512 * 6, 512 * 6)))
    assert np.abs(large.points / 6 - small.points).max() < 4


@pytest.mark.parametrize("size", [(100, 80), (1, 1), (2000, 20)])
def test_no_face_is_no_face(detector, size):
    assert detector(Image.new("RGB", size, (90, 120, 90))) == []


def test_a_photograph_that_exif_says_is_rotated(detector, astronaut, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    astronaut.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "r.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "r.jpg") as image:
        (face,) = detector(upright_rgb(image))
    assert np.linalg.norm(face.points[2] - (225, 128)) < 10


def test_a_score_threshold_of_one_accepts_nobody(astronaut):
    assert HaarDetector(min_score=1.01)(astronaut) == []


def test_points_go_to_the_template(rendered):
    image, landmarks = rendered[0]
    face = Face((0, 0, 10, 10), points=five_points(landmarks))
    crop = crop_face(image, face, 112)
    target = FaceTemplate().points * 112
    expected = warp_face(image, similarity_transform(five_points(landmarks), target), 112)
    assert crop.tobytes() == expected.tobytes()


def test_a_box_alone_gives_an_upright_crop(astronaut):
    crop = crop_face(astronaut, Face((176.0, 65.0, 273.0, 162.0)), 64)
    assert crop.size == (64, 64)
    # the middle of the crop shows her skin, not the background
    red, _, blue = crop.resize((1, 1), box=(24, 24, 40, 40)).getpixel((0, 0))
    assert red > blue + 30


def test_a_crop_is_taken_as_it_is(rendered):
    image = rendered[0][0]
    (face,) = WholePicture()(image)
    assert crop_face(image, face, image.width).tobytes() == image.tobytes()


def test_overlap_of_boxes():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_of_boxes_on_one_face_the_most_certain_stays():
    sure, unsure, other = Face((1, 1, 11, 11), 0.9), Face((0, 0, 12, 12), 0.6), Face((30, 30, 60, 60), 0.7)
    assert distinct([unsure, sure, other]) == [other, sure]


def test_a_face_that_is_where_it_was_expected_is_looked_at_once(rendered):
    locator, looks = LandmarkLocator(), []
    locator.network.register_forward_hook(lambda *_: looks.append(1))
    image, points = rendered[0]
    eyes = eye_distance(points)
    (found,), _ = locator(image, five_points(points)[None] + 0.5 * eyes)
    assert len(looks) == 2
    locator(image, five_points(found)[None] + 0.02 * eyes)
    assert len(looks) == 3
    (alone,), _ = locator(image, five_points(found)[None] + 0.02 * eyes)
    assert np.linalg.norm(alone - found, axis=1).max() < 0.1 * eyes
    # of two faces one is not settled: both are looked at again
    locator(image, np.stack([five_points(found), five_points(found) + 0.5 * eyes]))
    assert len(looks) == 6


class Without:
    """OpenCV 5, which has no cascades; as a build that holds their reader, and as one that does not."""

    __version__ = "5.0.0"


class Unread(Without):
    class CascadeClassifier:
        def __init__(self, file):
            assert file == "haarcascade_frontalface_default.xml"

        def empty(self):
            return True


@pytest.mark.parametrize("build", [Without, Unread])
def test_an_opencv_without_cascades_is_told(build, monkeypatch):
    monkeypatch.setattr("hiva_hf.faces.detection.import_cv2", build)
    with pytest.raises(ValueError, match=r"must carry Haar cascades; 5\.0\.0 has none.*<5"):
        HaarDetector()


def test_a_turned_face_is_found_by_the_other_cascades(detector):
    dataset = load_rendered()
    turned = []
    for index in range(600):
        points = np.asarray(dataset[index]["landmarks"]).reshape(68, 2)
        five = five_points(points)
        # the nose lies far from the middle of the eyes
        if abs(five[2, 0] - five[:2, 0].mean()) > 0.45 * eye_distance(points):
            turned.append((dataset[index]["image"].convert("RGB").resize((256, 256)), 2 * five))
    found = [[], []]
    for image, five in turned:
        for thorough in (False, True):
            faces = detector._look(image, detector.candidates(image, thorough))
            found[thorough].append(any(np.linalg.norm(face.points.mean(0) - five.mean(0)) < 20 for face in faces))
    either = np.logical_or(*found)
    assert len(turned) > 15
    assert np.mean(either) > np.mean(found[0]) + 0.1
    assert [bool(detector(image)) for image, _ in turned] == either.tolist()
