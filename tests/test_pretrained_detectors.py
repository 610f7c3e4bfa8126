"""Face detectors of others: their answers in our order and pixels, and what is said where one cannot be had.

Where these variables name files, real models are tried too: HIVA_YUNET (.onnx), HIVA_FACE_LANDMARKER (.task) and
HIVA_BLAZEFACE (.tflite).
"""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from hiva_hf.faces import HaarDetector, WholePicture
from hiva_hf.faces.pretrained import (
    MediaPipeDetector,
    MTCNNDetector,
    YuNetDetector,
    blazeface_face,
    find_model_file,
    load_face_detector,
    mesh_face,
    yunet_faces,
)

cv2 = pytest.importorskip("cv2")

# a face as the picture shows it: left eye, right eye, nose, left and right mouth corner
SEEN = np.array([[30.0, 40.0], [70.0, 42.0], [50.0, 60.0], [35.0, 80.0], [66.0, 81.0]])


def field(number, value):
    """One field of a protocol buffer; a list is a repeated field, a dictionary a message."""
    if isinstance(value, list):
        return b"".join(field(number, each) for each in value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, dict):
        value = b"".join(field(*item) for item in value.items())
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    value, low = value >> 7, value & 127
    return bytes([low]) if not value else bytes([low | 128]) + varint(value)


def tensor(name, array):
    kind = {"float32": 1, "int64": 7}[str(array.dtype)]
    return {1: list(array.shape), 2: kind, 8: name, 9: array.tobytes()}


def node(kind, inputs, output, **lists):
    return {1: inputs, 2: [output], 4: kind, 5: [{1: name, 8: values, 20: 7} for name, values in lists.items()]}


def value(name, *shape):
    return {1: name, 2: {1: {1: 1, 2: {1: [{1: side} for side in shape]}}}}


def write_red_net(path, prefix=""):
    """A network with a YuNet's outputs that takes a pure red cell of 8 x 8 pixels for a face of 80 x 96 pixels."""
    nodes, weights, outputs = [], [], []
    for stride in (8, 16, 32):
        for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{prefix}{kind}_{stride}"
            kernel = np.zeros((channels, 3, stride, stride), np.float32)
            bias = np.zeros(channels, np.float32)
            if stride == 8 and kind in ("cls", "obj"):
                # in blue, green, red
                kernel[0] = np.array([-1, -1, 1], np.float32)[:, None, None] / (255 * 64)
            if kind == "bbox":
                bias = np.array([0.5, 0.5, np.log(10), np.log(12)], np.float32)
            if kind == "kps":
                bias = np.array([-1, -2, 2, -2, 0.5, 0, -1, 3, 2, 3], np.float32)
            weights += [tensor(f"{name}_w", kernel), tensor(f"{name}_b", bias)]
            weights += [tensor(f"{name}_s", np.array([1, -1, channels]))]
            sides = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
            nodes += [
                node("Conv", ["input", f"{name}_w", f"{name}_b"], f"{name}_c", **sides),
                node("Transpose", [f"{name}_c"], f"{name}_t", perm=[0, 2, 3, 1]),
                node("Reshape", [f"{name}_t", f"{name}_s"], name),
            ]
            outputs.append(value(name, 1, (640 // stride) ** 2, channels))
    graph = {1: nodes, 2: "red", 5: weights, 11: [value("input", 1, 3, 640, 640)], 12: outputs}
    model = {1: 6, 7: graph, 8: {1: "", 2: 11}}
    path.write_bytes(b"".join(field(*item) for item in model.items()))
    return path


@pytest.fixture(scope="module")
def red_net(tmp_path_factory):
    return write_red_net(tmp_path_factory.mktemp("yunet") / "red.onnx")


@pytest.fixture(scope="module")
def astronaut():
    path = Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png"
    return Image.open(path).convert("RGB")


def red_cells(size, *cells, colour=(255, 0, 0), side=8):
    image = Image.new("RGB", size)
    for x, y in cells:
        image.paste(colour, (x, y, x + side, y + side))
    return image


def test_a_row_of_yunet():
    # the person's right eye comes first: it is the left one in the picture
    right_eye, left_eye, nose, right_mouth, left_mouth = SEEN
    row = np.concatenate([[20, 25, 60, 70], right_eye, left_eye, nose, right_mouth, left_mouth, [0.75]])
    (face,) = yunet_faces(row[None].astype(np.float32))
    assert face.box == (20, 25, 80, 95)
    assert face.score == 0.75
    np.testing.assert_array_equal(face.points, SEEN)
    assert yunet_faces(None) == []


def test_a_mesh():
    mesh = np.full((478, 2), 50.0)
    # outer corner, inner corner, upper and lower lid
    mesh[[33, 133, 159, 145]] = SEEN[0] + [[-9, 1], [9, -1], [1, -4], [-1, 4]]
    mesh[[263, 362, 386, 374]] = SEEN[1] + [[9, 1], [-9, -1], [1, -4], [-1, 4]]
    mesh[[4, 61, 291]] = SEEN[2:]
    mesh[10], mesh[152] = (48, 5), (52, 99)
    face = mesh_face(mesh)
    np.testing.assert_allclose(face.points, SEEN)
    assert face.box == (21, 5, 79, 99)
    assert np.isnan(face.score)
    np.testing.assert_array_equal(mesh_face(mesh[:468]).points, face.points)
    with pytest.raises(ValueError, match=r"468 or 478 points .* got shape \(68, 2\)"):
        mesh_face(mesh[:68])


def test_keypoints_of_blazeface():
    keypoints = np.array([[30, 40], [68, 40], [50, 60], [50, 80], [10, 45], [90, 45]])
    face = blazeface_face((20, 25, 60, 70), 0.8, keypoints)
    assert face.box == (20, 25, 80, 95)
    assert face.score == 0.8
    # eyes 38 apart have mouth corners 30 apart
    np.testing.assert_allclose(face.points, [[30, 40], [68, 40], [50, 60], [35, 80], [65, 80]])
    turned = blazeface_face((20, 25, 60, 70), 0.8, keypoints[:, ::-1])
    np.testing.assert_allclose(turned.points, face.points[:, ::-1])
    with pytest.raises(ValueError, match=r"six points .* got shape \(5, 2\)"):
        blazeface_face((0, 0, 1, 1), 0.8, keypoints[:5])


def test_opencv_is_shown_bgr_and_answers_in_pixels(red_net):
    detector = YuNetDetector(red_net)
    (face,) = detector(red_cells((300, 200), (160, 80)))
    np.testing.assert_allclose(face.box, (124, 36, 204, 132), atol=0.01)
    np.testing.assert_allclose(face.points, [[152, 64], [176, 64], [164, 80], [152, 104], [176, 104]], atol=0.01)
    assert face.score == pytest.approx(1, abs=1e-3)
    assert detector(red_cells((300, 200), (160, 80), colour=(0, 0, 255))) == []


def test_a_large_picture_is_searched_reduced(red_net):
    # 4800 pixels become 1600: a red square of 24 pixels is a cell
    (face,) = YuNetDetector(red_net)(red_cells((4800, 1200), (2400, 480), side=24))
    np.testing.assert_allclose(face.box, np.array([764, 116, 844, 212]) * 3, atol=0.1)
    np.testing.assert_allclose(face.points[0], np.array([792, 144]) * 3, atol=0.1)
    assert YuNetDetector(red_net, min_size=239)(red_cells((4800, 1200), (2400, 480), side=24))
    assert not YuNetDetector(red_net, min_size=241)(red_cells((4800, 1200), (2400, 480), side=24))


def test_too_small_or_too_uncertain_is_left_out(red_net):
    picture = red_cells((300, 200), (160, 80), colour=(180, 0, 0))
    (face,) = YuNetDetector(red_net, min_size=80)(picture)
    assert face.score == pytest.approx(180 / 255, abs=1e-3)
    # the smaller side of the box is 80
    assert YuNetDetector(red_net, min_size=81)(picture) == []
    assert YuNetDetector(red_net, min_score=0.72)(picture) == []
    assert len(YuNetDetector(red_net, min_score=0.69)(picture)) == 1
    assert YuNetDetector(red_net, min_score=1.01)(picture) == []


def test_all_faces_and_each_once(red_net):
    faces = YuNetDetector(red_net)(red_cells((640, 200), (80, 80), (88, 80), (400, 80)))
    assert sorted(round(face.points[2][0]) for face in faces) in ([84, 404], [92, 404])


@pytest.mark.parametrize("size", [(100, 80), (1, 1), (2000, 20)])
def test_no_face_is_no_face(red_net, size):
    assert YuNetDetector(red_net)(Image.new("RGB", size, (90, 120, 90))) == []


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
def test_a_file_that_is_no_network(tmp_path, content):
    (tmp_path / "y.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"y\.onnx must be a YuNet that OpenCV .* can read") as caught:
        load_face_detector(tmp_path / "y.onnx")
    assert "\n" not in str(caught.value)


def test_a_network_that_is_no_yunet(tmp_path):
    with pytest.raises(ValueError, match=r"other\.onnx must be a YuNet"):
        YuNetDetector(write_red_net(tmp_path / "other.onnx", prefix="other_"))


def test_names_of_detectors():
    assert isinstance(load_face_detector("cropped"), WholePicture)
    haar = load_face_detector("haar", min_size=60, min_score=0.7)
    assert isinstance(haar, HaarDetector)
    assert (haar.min_size, haar.min_score) == (60, 0.7)
    assert load_face_detector("haar").min_score == 0.9


def test_a_file_is_loaded_by_its_ending(red_net, monkeypatch):
    detector = load_face_detector(str(red_net), min_size=30)
    assert isinstance(detector, YuNetDetector)
    assert (detector.min_size, detector.min_score) == (30, 0.6)
    monkeypatch.chdir(red_net.parent)
    assert load_face_detector("red.onnx", min_score=0.3).min_score == 0.3


@pytest.mark.parametrize("name", ["yunet", "model.pt", "Haar", "", "org/name", "org/name/file.bin"])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(ValueError, match=r"haar, mtcnn, cropped, .*\.onnx, \.task, \.tflite .* Hub; got"):
        load_face_detector(name)


@pytest.mark.parametrize(
    "name", ["y.onnx", "./a/b/y.onnx", "/nowhere/at/all/y.task", "models/y.tflite", "../a/b/y.onnx"]
)
def test_a_missing_file_is_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the Hub"))
    with pytest.raises(FileNotFoundError, match=f"there is no file {name}"):
        load_face_detector(name)


def test_a_file_on_the_hub(red_net, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *which: asked.append(which) or str(red_net))
    assert isinstance(load_face_detector("org/name/sub/y.onnx"), YuNetDetector)
    assert asked == [("org/name", "sub/y.onnx")]


def test_a_hub_that_cannot_be_reached():
    # the tests are offline; see conftest
    with pytest.raises(FileNotFoundError, match=r"y\.onnx of org/name could not be had from the Hub: ."):
        find_model_file("org/name/y.onnx")
    with pytest.raises(FileNotFoundError, match="could not be had from the Hub"):
        find_model_file("org/a name that is none/y.onnx")


@pytest.mark.parametrize(
    ("name", "module", "cure"),
    [("x.task", "mediapipe", "pip install mediapipe"), ("mtcnn", "facenet_pytorch", "pip install --no-deps facenet")],
)
def test_a_missing_package_is_named(name, module, cure, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.chdir(tmp_path)
    Path("x.task").touch()
    with pytest.raises(ImportError, match=cure):
        load_face_detector(name)


def test_mediapipe_takes_two_endings():
    with pytest.raises(ValueError, match=r"\.task or \.tflite file of MediaPipe; got"):
        MediaPipeDetector("x.onnx")


class StandInMTCNN:
    """Answers as `facenet_pytorch.MTCNN` of pictures of 1600 pixels."""

    min_face_size = 20

    def __init__(self, keep_all):
        assert keep_all

    def detect(self, image, landmarks):
        assert landmarks
        if image.width != 1600:
            return None, [None], None
        boxes = np.array([[20, 25, 80, 95], [200, 25, 300, 145], [400, 25, 500, 145]], np.float32)
        points = np.stack([SEEN, SEEN + 180, SEEN + 380]).astype(np.float32)
        return boxes.astype(object), np.array([0.95, 0.99, 0.8], np.float32), points


def test_mtcnn_in_our_pixels(monkeypatch):
    module = ModuleType("facenet_pytorch")
    module.MTCNN = StandInMTCNN
    monkeypatch.setitem(sys.modules, "facenet_pytorch", module)
    detector = load_face_detector("mtcnn")
    larger, smaller = detector(Image.new("RGB", (3200, 400)))
    assert larger.box == (400, 50, 600, 290)
    np.testing.assert_array_equal(smaller.points, SEEN * 2)
    assert smaller.score == pytest.approx(0.95)
    assert [len(MTCNNDetector(min_score=least)(Image.new("RGB", (1600, 200)))) for least in (0.7, 0.97)] == [3, 1]
    assert detector(Image.new("RGB", (300, 200))) == []
    assert detector(Image.new("RGB", (1600, 10))) == []


class StandInTask:
    """Answers as a task of MediaPipe, in fractions of the picture, and keeps its options."""

    def __init__(self, options):
        self.options = options

    create_from_options = classmethod(lambda cls, options: cls(options))

    def detect(self, picture):
        pixels = picture.data
        assert pixels.dtype == np.uint8
        assert tuple(pixels[0, 0]) == (255, 0, 0)
        height, width = pixels.shape[:2]
        places = np.vstack([SEEN[:3], [[50, 80], [10, 45], [90, 45]]]) / [width, height]
        points = [SimpleNamespace(x=x, y=y) for x, y in places]
        box = SimpleNamespace(origin_x=20, origin_y=25, width=60, height=70)
        detection = SimpleNamespace(bounding_box=box, categories=[SimpleNamespace(score=0.8)], keypoints=points)
        return SimpleNamespace(detections=[detection], face_landmarks=[points[:1] * 200 + points[1:2] * 278])

    def close(self):
        self.options.base_options.closed = True


@pytest.fixture
def stand_in_mediapipe(monkeypatch):
    package, python = ModuleType("mediapipe"), ModuleType("mediapipe.tasks.python")
    package.Image, package.ImageFormat = SimpleNamespace, SimpleNamespace(SRGB="srgb")
    python.BaseOptions = SimpleNamespace
    python.vision = SimpleNamespace(
        FaceLandmarker=StandInTask,
        FaceDetector=StandInTask,
        FaceLandmarkerOptions=SimpleNamespace,
        FaceDetectorOptions=SimpleNamespace,
    )
    monkeypatch.setitem(sys.modules, "mediapipe", package)
    monkeypatch.setitem(sys.modules, "mediapipe.tasks", ModuleType("mediapipe.tasks"))
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python", python)


def test_mediapipe_in_our_pixels(stand_in_mediapipe, tmp_path):
    for name in ("x.task", "x.tflite"):
        (tmp_path / name).touch()
    picture = Image.new("RGB", (200, 100), (255, 0, 0))
    (face,) = load_face_detector(tmp_path / "x.tflite", min_score=0.6)(picture)
    assert face.box == (20, 25, 80, 95)
    assert face.score == 0.8
    np.testing.assert_allclose(face.points[:3], SEEN[:3])
    assert load_face_detector(tmp_path / "x.tflite", min_score=0.9)(picture) == []
    landmarker = load_face_detector(tmp_path / "x.task", min_size=1, min_score=0.6)
    (face,) = landmarker(picture)
    np.testing.assert_allclose(face.box, (30, 40, 70, 42))
    assert np.isnan(face.score)
    assert landmarker._detector.options.num_faces > 10
    options = landmarker._detector.options
    assert options.min_face_detection_confidence == 0.6
    assert not hasattr(options.base_options, "closed")
    del landmarker
    assert options.base_options.closed


@pytest.mark.parametrize("name", ["x.task", "x.tflite"])
def test_a_file_that_mediapipe_cannot_read(name, tmp_path):
    pytest.importorskip("mediapipe")
    (tmp_path / name).write_bytes(b"nonsense" * 100)
    with pytest.raises(ValueError, match=rf"{name} must be .* that MediaPipe can read"):
        load_face_detector(tmp_path / name)


def real(variable, module="cv2"):
    if variable not in os.environ:
        pytest.skip(f"{variable} names no file")
    pytest.importorskip(module)
    return load_face_detector(os.environ[variable])


# by eye, in pixels; BlazeFace sees no mouth corners
@pytest.mark.parametrize(("which", "most"), [("yunet", 6), ("landmarker", 6), ("blazeface", 14), ("mtcnn", 6)])
def test_a_real_model_sees_the_astronaut(which, most, astronaut):
    if which == "mtcnn":
        pytest.importorskip("facenet_pytorch", exc_type=(ImportError, RuntimeError))
        detector = load_face_detector("mtcnn")
    elif which == "yunet":
        detector = real("HIVA_YUNET")
    else:
        detector = real({"landmarker": "HIVA_FACE_LANDMARKER", "blazeface": "HIVA_BLAZEFACE"}[which], "mediapipe")
    places = np.array([(202, 102), (246, 103), (226, 128), (203, 140), (244, 141)])
    mirrored = (places * [-1, 1] + [512, 0])[[1, 0, 2, 4, 3]]
    for picture, expected in ((astronaut, places), (ImageOps.mirror(astronaut), mirrored)):
        (face,) = detector(picture)
        assert np.linalg.norm(face.points - expected, axis=1).max() < most
        x0, y0, x1, y1 = face.box
        assert ((x0, y0) < expected).all()
        assert (expected < (x1, y1)).all()
    (large,) = detector(astronaut.resize((2048, 2048)))
    (small,) = detector(astronaut)
    assert np.abs(large.points / 4 - small.points).max() < 3
