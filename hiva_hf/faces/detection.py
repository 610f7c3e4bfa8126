"""Finding faces: what a detector is, and the one that works everywhere without a download."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from .alignment import FaceTemplate, box_to_points, five_points, similarity_transform, warp_face
from .landmarks import LandmarkLocator

# a larger picture is searched at this length of its longer side: faces worth reading are larger than that blurs
SEARCH_SIDE = 1600
SMALLEST = 24


@dataclass
class Face:
    """A face in a picture.

    Args:
        box (`tuple[float, float, float, float]`): x0, y0, x1, y1 in pixels.
        score (`float`): Certainty of the detector, 0 to 1; NaN where it tells none.
        points (`np.ndarray` of shape `(5, 2)`, *optional*):
            Left eye, right eye, nose tip, left and right mouth corner as seen in the picture, in pixels.
        landmarks (`np.ndarray` of shape `(68, 2)`, *optional*): Points of the Multi-PIE scheme, in pixels.
        cropped (`bool`, defaults to `False`): The box is the crop that the model is to see, as it is.
    """

    box: tuple[float, float, float, float]
    score: float = float("nan")
    points: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    cropped: bool = False

    @property
    def area(self) -> float:
        """`float`: Square pixels of the box."""
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])


class FaceDetector(Protocol):
    """Anything that is called with an upright RGB picture and answers with its faces, largest first."""

    def __call__(self, image: Image.Image) -> list[Face]:
        """Find the faces of a picture."""
        ...


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union of two boxes.

    Args:
        first (`tuple[float, float, float, float]`): x0, y0, x1, y1 in pixels.
        second (`tuple[float, float, float, float]`): The same of the other.
    """
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def distinct(faces: list[Face], most_overlap: float = 0.4) -> list[Face]:
    """Each face once, largest first: of boxes that overlap, the most certain stays.

    Args:
        faces (`list[Face]`): In any order.
        most_overlap (`float`, defaults to 0.4): Intersection over union from which two boxes are one face.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: (-np.nan_to_num(face.score), -face.area)):
        if all(overlap(face.box, other.box) < most_overlap for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.area)


def import_cv2() -> Any:
    """OpenCV, or an error that names the extra."""
    try:
        import cv2
    except ImportError:
        raise ImportError(
            "Finding faces needs OpenCV; install it with `pip install 'hiva-hf[faces]'`, or give faces already cropped "
            "with `--cropped`."
        ) from None
    return cv2


class HaarDetector:
    """The frontal Haar cascade that OpenCV 4 carries, and our landmark network, which rejects what is no face.

    The cascade alone takes plain background for faces at times; the network looks at each of its boxes, gives the
    points, and its probability of a face is the score.

    Args:
        min_size (`int`, defaults to 24): Smallest side of a box in pixels.
        min_score (`float`, defaults to 0.5): Least score of a face.
        locator (`LandmarkLocator`, *optional*): By default the shipped network.

    Raises:
        ImportError: If OpenCV is not installed.
        ValueError: If the installed OpenCV carries no cascade, as its version 5 does not.
    """

    def __init__(self, min_size: int = SMALLEST, min_score: float = 0.5, locator: LandmarkLocator | None = None):
        self._cv2 = import_cv2()
        folder = getattr(getattr(self._cv2, "data", None), "haarcascades", "")
        self._cascade = self._cv2.CascadeClassifier(f"{folder}haarcascade_frontalface_default.xml")
        if self._cascade.empty():
            raise ValueError(
                f"OpenCV must carry Haar cascades; {self._cv2.__version__} has none. Install "
                "'opencv-python-headless>=4.8,<5', or choose another detector."
            )
        self.min_size, self.min_score = max(min_size, SMALLEST), min_score
        self.locator = locator or LandmarkLocator()

    def __call__(self, image: Image.Image) -> list[Face]:
        """Find the faces of an upright RGB picture, largest first."""
        scale = min(1.0, SEARCH_SIDE / max(image.size))
        grey = image.convert("L")
        if scale < 1:
            grey = grey.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BOX)
        smallest = max(SMALLEST, round(self.min_size * scale))
        if min(grey.size) < smallest:
            return []
        found = self._cascade.detectMultiScale(
            np.asarray(grey), scaleFactor=1.1, minNeighbors=3, minSize=(smallest, smallest)
        )
        boxes = [
            (x / scale, y / scale, (x + width) / scale, (y + height) / scale)
            for x, y, width, height in np.asarray(found, float).reshape(-1, 4).tolist()
        ]
        landmarks, presence = self.locator(image, np.array([box_to_points(box) for box in boxes]).reshape(-1, 5, 2))
        faces = [
            Face(box, float(score), five_points(points), points)
            for box, score, points in zip(boxes, presence, landmarks, strict=True)
            if score >= self.min_score
        ]
        return distinct(faces)


class WholePicture:
    """For pictures that are crops of faces already: the whole picture is the face."""

    def __call__(self, image: Image.Image) -> list[Face]:
        """One face without points, as large as the picture."""
        return [Face((0.0, 0.0, float(image.width), float(image.height)), cropped=True)]


def crop_face(image: Image.Image, face: Face, size: int, template: FaceTemplate | None = None) -> Image.Image:
    """Cut a face out as training did: its five points go to the template.

    Args:
        image (`PIL.Image.Image`): The picture.
        face (`Face`): Where it lies; without points, they are expected where an upright face has them in its box.
        size (`int`): Side of the square crop in pixels.
        template (`FaceTemplate`, *optional*): Where the points go.
    """
    if face.cropped:
        return image.resize((size, size), Image.Resampling.BICUBIC, box=face.box)
    points = box_to_points(face.box) if face.points is None else np.asarray(face.points, dtype=np.float64)
    target = (template or FaceTemplate()).points * size
    return warp_face(image, similarity_transform(points, target), size)


__all__ = ["Face", "FaceDetector", "HaarDetector", "WholePicture", "crop_face", "distinct", "import_cv2", "overlap"]
