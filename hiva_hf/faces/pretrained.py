"""Face detectors of others, from a file on disk or on the Hub: YuNet, MediaPipe, MTCNN."""

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .alignment import FaceTemplate
from .detection import SEARCH_SIDE, SMALLEST, Face, FaceDetector, HaarDetector, WholePicture, distinct, import_cv2

# points of MediaPipe's face mesh: corners and lids of each eye, nose tip, mouth corners; left as seen in the picture;
# point 4 lies where the Multi-PIE scheme has the tip, point 1 a tenth of the eyes' distance below
_MESH = ((33, 133, 159, 145), (263, 362, 386, 374), (4,), (61,), (291,))
_MOST_FACES = 100


def yunet_faces(rows: np.ndarray | None) -> list[Face]:
    """Faces of what `cv2.FaceDetectorYN` answers.

    Args:
        rows (`np.ndarray` of shape `(num_faces, 15)`, *optional*):
            x, y, width and height of the box; x and y of right eye, left eye, nose tip, right and left mouth corner of
            the person, whose right is the left of the picture; the score. `None` is no face.
    """
    rows = np.empty((0, 15)) if rows is None else np.asarray(rows, dtype=np.float64).reshape(-1, 15)
    return [
        Face((row[0], row[1], row[0] + row[2], row[1] + row[3]), row[14], np.reshape(row[4:14], (5, 2)))
        for row in rows.tolist()
    ]


def mesh_face(landmarks: np.ndarray) -> Face:
    """The face of a MediaPipe face mesh, whose box is the extent of its points; the mesh tells no score.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): x and y in pixels.

    Raises:
        ValueError: If there are neither 468 points nor 478, with the irises.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.shape not in ((468, 2), (478, 2)):
        raise ValueError(f"`landmarks` must hold 468 or 478 points (x, y) of a mesh; got shape {landmarks.shape}.")
    (x0, y0), (x1, y1) = landmarks.min(0).tolist(), landmarks.max(0).tolist()
    return Face((x0, y0, x1, y1), points=np.stack([landmarks[list(part)].mean(0) for part in _MESH]))


def blazeface_face(box: tuple[float, float, float, float], score: float, keypoints: np.ndarray) -> Face:
    """The face that MediaPipe's BlazeFace detected.

    It knows the middle of the mouth only. The corners are put beside it, along the line of the eyes and as far apart as
    [`FaceTemplate`] has them.

    Args:
        box (`tuple[float, float, float, float]`): x, y, width and height in pixels.
        score (`float`): 0 to 1.
        keypoints (`np.ndarray` of shape `(6, 2)`):
            Right eye, left eye, nose tip, middle of the mouth, right and left ear of the person, in pixels.

    Raises:
        ValueError: If there are not six points.
    """
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if keypoints.shape != (6, 2):
        raise ValueError(f"`keypoints` must hold the six points (x, y) of BlazeFace; got shape {keypoints.shape}.")
    template = FaceTemplate()
    width = (template.right_mouth[0] - template.left_mouth[0]) / (template.right_eye[0] - template.left_eye[0])
    left_eye, right_eye, nose, mouth = keypoints[:4]
    half = width * (right_eye - left_eye) / 2
    x, y, box_width, box_height = map(float, box)
    points = np.stack([left_eye, right_eye, nose, mouth - half, mouth + half])
    return Face((x, y, x + box_width, y + box_height), float(score), points)


class _PretrainedDetector:
    """Searches large pictures reduced, brings faces back to pixels of the picture, and leaves out what is too little.

    Args:
        min_size (`int`): Smallest side of a box in pixels.
        min_score (`float`): Least score of a face; one without a score stays.
    """

    def __init__(self, min_size: int, min_score: float):
        self.min_size, self.min_score = min_size, min_score

    def _find(self, pixels: np.ndarray) -> list[Face]:
        """Faces in RGB pixels, uint8 of shape (height, width, 3)."""
        raise NotImplementedError

    def __call__(self, image: Image.Image) -> list[Face]:
        """Find the faces of an upright RGB picture, largest first."""
        view = image.convert("RGB")
        scale = SEARCH_SIDE / max(image.size)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in image.size)
            view = view.resize((width, height), Image.Resampling.BOX)
        back = np.array(image.size) / view.size
        faces = []
        # a copy, because what PIL lends is read-only
        for face in self._find(np.array(view)):
            x0, y0, x1, y1 = (np.reshape(face.box, (2, 2)) * back).ravel().tolist()
            points = None if face.points is None else face.points * back
            if min(x1 - x0, y1 - y0) >= self.min_size and not face.score < self.min_score:
                faces.append(Face((x0, y0, x1, y1), face.score, points))
        return distinct(faces)


class YuNetDetector(_PretrainedDetector):
    """YuNet by OpenCV's `cv2.FaceDetectorYN`.

    Args:
        model (`str` or `Path`):
            An `.onnx` file of YuNet as of 2023, on disk or as `org/name/file.onnx` on the Hub.
        min_size (`int`, defaults to 48): Smallest side of a box in pixels.
        min_score (`float`, defaults to 0.6): Least score of a face.

    Raises:
        ImportError: If OpenCV is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If OpenCV cannot use it as a YuNet.
    """

    def __init__(self, model: str | Path, min_size: int = SMALLEST, min_score: float = 0.6):
        super().__init__(min_size, min_score)
        cv2 = import_cv2()
        path = find_model_file(model)
        try:
            self._detector = cv2.FaceDetectorYN.create(str(path), "", (64, 64), min(max(min_score, 0.0), 1.0))
            # that a network has other outputs than a YuNet shows no earlier
            self._detector.detect(np.zeros((64, 64, 3), np.uint8))
        except cv2.error as error:
            raise ValueError(
                f"{path} must be a YuNet that OpenCV {cv2.__version__} can read; it says: {_first_line(error)} Take a "
                "face_detection_yunet file of 2023 or later."
            ) from None

    def _find(self, pixels: np.ndarray) -> list[Face]:
        height, width = pixels.shape[:2]
        self._detector.setInputSize((width, height))
        return yunet_faces(self._detector.detect(np.ascontiguousarray(pixels[:, :, ::-1]))[1])


class MediaPipeDetector(_PretrainedDetector):
    """A face landmarker or a face detector of MediaPipe.

    Args:
        model (`str` or `Path`):
            A `.task` file, the bundle of a FaceLandmarker, or a `.tflite` file, a BlazeFace; on disk or as
            `org/name/file.task` on the Hub. A landmarker tells no scores.
        min_size (`int`, defaults to 48): Smallest side of a box in pixels.
        min_score (`float`, defaults to 0.5): Least certainty with which MediaPipe takes something for a face.

    Raises:
        ImportError: If MediaPipe is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If it has another ending, or MediaPipe cannot read it.
    """

    def __init__(self, model: str | Path, min_size: int = SMALLEST, min_score: float = 0.5):
        super().__init__(min_size, min_score)
        suffix = Path(model).suffix.lower()
        if suffix not in (".task", ".tflite"):
            raise ValueError(f"`model` must be a .task or .tflite file of MediaPipe; got {str(model)!r}.")
        path = find_model_file(model)
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise ImportError(
                f"`{path.name}` needs MediaPipe, which cannot be imported ({error}); install it with "
                "`pip install mediapipe`."
            ) from None
        self._mediapipe, self._gives_mesh = mediapipe, suffix == ".task"
        base, least = BaseOptions(model_asset_path=str(path)), min(max(min_score, 0.0), 1.0)
        try:
            if self._gives_mesh:
                options = vision.FaceLandmarkerOptions(
                    base_options=base,
                    num_faces=_MOST_FACES,
                    min_face_detection_confidence=least,
                    min_face_presence_confidence=least,
                )
                self._detector = vision.FaceLandmarker.create_from_options(options)
            else:
                options = vision.FaceDetectorOptions(base_options=base, min_detection_confidence=least)
                self._detector = vision.FaceDetector.create_from_options(options)
        except (ValueError, RuntimeError, OSError) as error:
            kind = "the bundle of a FaceLandmarker" if self._gives_mesh else "a face detector with its metadata"
            raise ValueError(f"{path} must be {kind} that MediaPipe can read; it says: {_first_line(error)}") from None
        # left to the end of Python, MediaPipe closes itself after what it needs for that is gone, and complains
        weakref.finalize(self, self._detector.close)

    def _find(self, pixels: np.ndarray) -> list[Face]:
        height, width = pixels.shape[:2]
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=pixels)
        found = self._detector.detect(picture)
        if self._gives_mesh:
            return [mesh_face(_in_pixels(mesh, width, height)) for mesh in found.face_landmarks]
        faces = []
        for detection in found.detections:
            box = detection.bounding_box
            faces.append(
                blazeface_face(
                    (box.origin_x, box.origin_y, box.width, box.height),
                    detection.categories[0].score,
                    _in_pixels(detection.keypoints, width, height),
                )
            )
        return faces


class MTCNNDetector(_PretrainedDetector):
    """The MTCNN of `facenet-pytorch`, which brings its weights along.

    Args:
        min_size (`int`, defaults to 48): Smallest side of a box in pixels.
        min_score (`float`, defaults to 0.9): Least score of a face.

    Raises:
        ImportError: If `facenet-pytorch` is not installed, or cannot be imported.
    """

    def __init__(self, min_size: int = SMALLEST, min_score: float = 0.9):
        super().__init__(min_size, min_score)
        try:
            from facenet_pytorch import MTCNN
        except (ImportError, RuntimeError) as error:
            # a torchvision that does not fit torch is a RuntimeError
            raise ImportError(
                f"MTCNN needs facenet-pytorch and a torchvision that fits torch, which cannot be imported ({error}); "
                "install them with `pip install torchvision` and `pip install --no-deps facenet-pytorch`, which leaves "
                "torch and Pillow as they are."
            ) from None
        self._mtcnn = MTCNN(keep_all=True)

    def _find(self, pixels: np.ndarray) -> list[Face]:
        if min(pixels.shape[:2]) < self._mtcnn.min_face_size:
            return []
        boxes, scores, points = self._mtcnn.detect(Image.fromarray(pixels), landmarks=True)
        if boxes is None:
            return []
        return [
            Face((x0, y0, x1, y1), float(score), np.asarray(five, dtype=np.float64))
            for (x0, y0, x1, y1), score, five in zip(np.asarray(boxes, float).tolist(), scores, points, strict=True)
        ]


_BY_NAME: dict[str, Any] = {"haar": HaarDetector, "mtcnn": MTCNNDetector}
_BY_ENDING: dict[str, Any] = {".onnx": YuNetDetector, ".task": MediaPipeDetector, ".tflite": MediaPipeDetector}


def load_face_detector(name: str | Path, min_size: int = SMALLEST, min_score: float | None = None) -> FaceDetector:
    """The face detector of a name or a file.

    Args:
        name (`str` or `Path`):
            `"haar"`, `"mtcnn"`, `"cropped"` (every picture is a face), or a file: `.onnx` (YuNet), `.task` (MediaPipe
            FaceLandmarker) or `.tflite` (MediaPipe BlazeFace), on disk or as `org/name/file.onnx` on the Hub.
        min_size (`int`, defaults to 48): Smallest side of a box in pixels.
        min_score (`float`, *optional*): Least score of a face; by default that of the detector.

    Raises:
        ImportError: If the package that the detector needs is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If the name is none of these, or the file is none that its detector can read.
    """
    options: dict[str, Any] = {"min_size": min_size}
    if min_score is not None:
        options["min_score"] = min_score
    if str(name) == "cropped":
        return WholePicture()
    if str(name) in _BY_NAME:
        return _BY_NAME[str(name)](**options)
    detector = _BY_ENDING.get(Path(name).suffix.lower())
    if detector is None:
        raise ValueError(
            f"`name` must be haar, mtcnn, cropped, or a file ending in {', '.join(_BY_ENDING)} on disk or, as "
            f"org/name/file.onnx, on the Hub; got {str(name)!r}."
        )
    return detector(name, **options)


def find_model_file(model: str | Path) -> Path:
    """The file of a model, downloaded from the Hub where it is none on disk.

    Args:
        model (`str` or `Path`): A path, or `org/name/file` on the Hub.

    Raises:
        FileNotFoundError: If it is neither.
    """
    path = Path(model)
    if path.is_file():
        return path
    parts = os.fspath(model).split("/")
    if len(parts) < 3 or path.is_absolute() or parts[0] in ("", ".", "..", "~"):
        raise FileNotFoundError(
            f"`model` must be a file, or org/name/{path.name} on the Hub; there is no file {os.fspath(model)}."
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        return Path(hf_hub_download(repo, file))
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise FileNotFoundError(
            f"`model` must be a file on disk or on the Hub; there is no file {os.fspath(model)}, and {file} of {repo} "
            f"could not be had from the Hub: {_first_line(error)}"
        ) from None


def _in_pixels(points: Any, width: int, height: int) -> np.ndarray:
    """Points that MediaPipe gives as fractions of the picture."""
    return np.array([(point.x * width, point.y * height) for point in points], dtype=np.float64).reshape(-1, 2)


def _first_line(error: Exception) -> str:
    """What an error says, as the rest of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".") + "."


__all__ = [
    "MTCNNDetector",
    "MediaPipeDetector",
    "YuNetDetector",
    "blazeface_face",
    "find_model_file",
    "load_face_detector",
    "mesh_face",
    "yunet_faces",
]
