import numpy as np
import pytest
from PIL import Image

from hiva_hf.data import load_rendered
from hiva_hf.faces import FaceTemplate, box_to_points, five_points, similarity_transform, warp_face

TEMPLATE = FaceTemplate().points


@pytest.fixture(scope="module")
def faces():
    return load_rendered().select(range(0, 600, 75))


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def turn(degrees, scale, shift):
    angle = np.deg2rad(degrees)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.hstack([rotation, np.array(shift, dtype=float)[:, None]])


def checkerboard(side, cell):
    y, x = np.mgrid[:side, :side]
    return Image.fromarray(((x // cell + y // cell) % 2 * 255).astype(np.uint8)).convert("RGB")


def shrink(image, scale, size=64):
    return np.asarray(warp_face(image, turn(0, scale, (0, 0)), size)).astype(float)


def test_template_is_an_upright_face_inside_the_crop():
    assert TEMPLATE.shape == (5, 2)
    assert ((TEMPLATE > 0) & (TEMPLATE < 1)).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = TEMPLATE
    assert left_eye[1] == right_eye[1] < nose[1] < left_mouth[1] == right_mouth[1]
    for left, right in ((left_eye, right_eye), (left_mouth, right_mouth)):
        assert left[0] < nose[0] < right[0]
        assert left[0] + right[0] == pytest.approx(1)


@pytest.mark.parametrize("degrees", [0, 15, -40, 90, 180])
@pytest.mark.parametrize(("scale", "shift"), [(1, (0, 0)), (0.2, (30, -4)), (7.5, (-100, 55))])
def test_a_known_transform_is_recovered(degrees, scale, shift):
    matrix = turn(degrees, scale, shift)
    points = TEMPLATE * 100 + 20
    found = similarity_transform(points, apply(matrix, points))
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, matrix, rtol=1e-9, atol=1e-9)


def test_two_points_are_enough():
    source, target = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 5.0]])
    np.testing.assert_allclose(similarity_transform(source, target), [[0, -2, 1], [2, 0, 1]], atol=1e-12)


def test_no_other_similarity_comes_closer():
    rng = np.random.default_rng(0)
    source = TEMPLATE * 100
    target = apply(turn(20, 0.7, (5, 9)), source) + rng.normal(0, 3, source.shape)
    found = similarity_transform(source, target)
    best = ((apply(found, source) - target) ** 2).sum()
    for change in rng.normal(0, 1e-2, (50, 4)):
        a, b = found[0, 0] + change[0], found[1, 0] + change[1]
        other = np.array([[a, -b, found[0, 2] + change[2]], [b, a, found[1, 2] + change[3]]])
        assert ((apply(other, source) - target) ** 2).sum() > best


def test_it_never_reflects():
    mirrored = TEMPLATE * [-100, 100] + [100, 0]
    target = np.vstack([TEMPLATE[:4] * 100, [[90.0, 90.0]]])
    for source in (mirrored, mirrored[:4], np.random.default_rng(1).normal(size=(5, 2))):
        rotation = similarity_transform(source, target[: len(source)])[:, :2]
        assert np.linalg.det(rotation) > 0
        assert rotation[0, 0] == rotation[1, 1]
        assert rotation[0, 1] == -rotation[1, 0]


@pytest.mark.parametrize(
    "source",
    [
        np.ones((5, 2)),
        np.zeros((5, 2)),
        np.full((5, 2), np.nan),
        np.where(np.arange(10).reshape(5, 2) == 3, np.inf, 1.0),
    ],
    ids=["one place", "zero", "nan", "inf"],
)
def test_points_without_a_scale_are_refused(source):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="`source` must hold distinct finite points"):
        similarity_transform(source, TEMPLATE)


def test_five_points_of_sixty_eight():
    landmarks = np.stack([np.arange(68.0), 100 + np.arange(68.0)], axis=1)
    expected = [[38.5, 138.5], [44.5, 144.5], [30, 130], [48, 148], [54, 154]]
    for form in (landmarks, landmarks.ravel(), landmarks.ravel().tolist(), landmarks.astype(np.float32)):
        np.testing.assert_allclose(five_points(form), expected)


@pytest.mark.parametrize("shape", [(67, 2), (5, 2), (68, 3), (68,), (0, 2)])
def test_other_numbers_of_points_are_refused(shape):
    with pytest.raises(ValueError, match="`landmarks` must hold 68 points") as error:
        five_points(np.zeros(shape))
    assert str(shape) in str(error.value)


def test_points_of_a_box_scale_with_it():
    points = box_to_points((0, 0, 1, 1))
    assert points.shape == (5, 2)
    assert ((points > 0) & (points < 1)).all()
    np.testing.assert_allclose(box_to_points((10, 20, 110, 70)), points * [100, 50] + [10, 20])
    # the same shape as the template, so that an upright box gives an upright crop
    matrix = similarity_transform(points, TEMPLATE)
    assert abs(matrix[1, 0]) < 1e-9
    assert np.abs(apply(matrix, points) - TEMPLATE).max() < 0.03


def test_rendered_faces_go_to_the_template(faces):
    for row in faces:
        points = five_points(np.array(row["landmarks"]))
        matrix = similarity_transform(points, TEMPLATE * 96)
        placed = apply(matrix, points) / 96
        assert np.abs(placed[:2] - TEMPLATE[:2]).max() < 0.07
        assert np.abs(placed - TEMPLATE).max() < 0.15
        np.testing.assert_allclose(placed.mean(axis=0), TEMPLATE.mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("enlarged", [1, 4, 12])
def test_pixels_move_as_the_points_do(faces, enlarged):
    size = 96
    for row in faces.select(range(3)):
        points = five_points(np.array(row["landmarks"])) * enlarged
        matrix = similarity_transform(points, TEMPLATE * size)
        for eye in points[:2]:
            # a soft spot on the eye; coordinates count from the corner of the first pixel
            y, x = np.mgrid[: row["image"].height * enlarged, : row["image"].width * enlarged] + 0.5
            spot = np.exp(-((x - eye[0]) ** 2 + (y - eye[1]) ** 2) / (2 * (2 * enlarged) ** 2))
            image = Image.fromarray((spot * 255).astype(np.uint8))
            light = np.asarray(warp_face(image, matrix, size)).astype(float)
            y, x = np.mgrid[:size, :size] + 0.5
            centre = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
            assert np.abs(centre - apply(matrix, eye[None])[0]).max() < 0.2


@pytest.mark.parametrize("size", [1, 32, 97])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_crop_has_the_size_and_mode_asked_for(size, mode):
    image = checkerboard(50, 5).convert(mode)
    crop = warp_face(image, turn(10, size / 50, (0, 0)), size)
    assert crop.size == (size, size)
    assert crop.mode == mode


def test_identity_keeps_the_picture(faces):
    image = faces[0]["image"]
    crop = warp_face(image, turn(0, 1, (0, 0)), image.width)
    assert np.array_equal(np.asarray(crop), np.asarray(image.convert("RGB")))


def test_beyond_the_picture_is_black():
    crop = np.asarray(warp_face(Image.new("RGB", (20, 20), "white"), turn(0, 1, (20, 0)), 40))
    assert (crop[:20, 20:] == 255).all()
    assert (crop[:, :20] == 0).all()
    assert (crop[20:] == 0).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_transform_that_cannot_be_inverted_is_refused(value):
    matrix = np.array([[value, 0.0, 1.0], [0.0, value, 1.0]])
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="`matrix` must be an invertible transform"):
        warp_face(Image.new("RGB", (8, 8)), matrix, 8)


@pytest.mark.parametrize("scale", [0.061, 0.07, 1 / 9, 0.24])
def test_large_pictures_do_not_alias(scale):
    crop = shrink(checkerboard(int(64 / scale) + 16, 1), scale)
    assert crop[4:-4, 4:-4].std() < 3
    assert crop[4:-4, 4:-4].mean() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize(
    ("scale", "cell"),
    [
        *[(0.45, 1), (0.3, 1), (0.26, 1), (0.2, 2), (0.13, 2)],
        *[pytest.param(*case) for case in ((0.55, 1), (0.4, 2), (0.3, 3))],
    ],
)
def test_no_picture_aliases(scale, cell):
    image = checkerboard(int(64 / scale) + 16, cell)
    side = round(64 / scale)
    smooth = np.asarray(image.crop((0, 0, side, side)).resize((64, 64), Image.Resampling.BICUBIC)).astype(float)
    assert smooth[4:-4, 4:-4].std() < 20
    assert shrink(image, scale)[4:-4, 4:-4].std() < smooth[4:-4, 4:-4].std() + 10


def test_coarse_texture_survives():
    crop = shrink(checkerboard(1040, 128), 1 / 16)
    assert crop.std() > 100
