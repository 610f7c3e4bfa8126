"""Finding faces: what a detector is, and the one that works everywhere without a download."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from .alignment import FaceTemplate, box_to_points, five_points, points_to_box, similarity_transform, warp_face
from .landmarks import LandmarkLocator

# a larger picture is searched at this length of its longer side: faces worth reading are larger than that blurs
SEARCH_SIDE = 1600
_CASCADES = ("frontalface_default", "frontalface_alt2", "profileface")
# the window of a cascade
_WINDOW = 24
SMALLEST = 48
# shares of the shorter side that a large face has
_LARGE = (0.25, 0.1)


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
        face_id (`int`, *optional*): Number of the person, where it is known beforehand.
    """

    box: tuple[float, float, float, float]
    score: float = float("nan")
    points: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    cropped: bool = False
    face_id: int | None = None

    @property
    def area(self) -> float:
        """`float`: Square pixels of the box."""
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])


class FaceDetector(Protocol):
    """Anything that is called with an upright RGB picture and answers with its faces, largest first.

    One with a method `follow(image, faces)`, which looks for the faces of one frame of a video in the next, makes
    videos faster; see [`FaceFollower`]. One with a method `largest(image)`, which gives the largest face alone, makes
    preparing a dataset faster.
    """

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
    """The Haar cascades that OpenCV 4 carries, and our landmark network, which rejects what is no face.

    The frontal cascade is asked for every place that looks like a face at all, plain background among them; the network
    looks at each, gives the points, and its probability of a face is the score. Where no face is left, a second frontal
    cascade and the one for profiles, both ways, are asked as well. The picture is searched reduced, so that the
    smallest face that is wanted just fills the cascade's window: four times as fast for 48 pixels as for 24.

    Args:
        min_size (`int`, defaults to 48):
            Smallest side of a box in pixels. A face below that is an enlargement to the model, not a look at it.
        min_score (`float`, defaults to 0.9): Least score of a face.
        locator (`LandmarkLocator`, *optional*): By default the shipped network.

    Raises:
        ImportError: If OpenCV is not installed.
        ValueError: If the installed OpenCV carries no cascade, as its version 5 does not.
    """

    def __init__(self, min_size: int = SMALLEST, min_score: float = 0.9, locator: LandmarkLocator | None = None):
        self._cv2 = import_cv2()
        self._frontal, self._second, self._profile = map(self._cascade, _CASCADES)
        self.min_size, self.min_score = max(min_size, _WINDOW), min_score
        self.locator = locator or LandmarkLocator()

    def _cascade(self, name: str) -> Any:
        folder = getattr(getattr(self._cv2, "data", None), "haarcascades", "")
        # version 5 has them in a module of its own, which need not be there
        classifier = getattr(self._cv2, "CascadeClassifier", None)
        cascade = classifier and classifier(f"{folder}haarcascade_{name}.xml")
        if cascade is None or cascade.empty():
            raise ValueError(
                f"OpenCV must carry Haar cascades; {self._cv2.__version__} has none. Install "
                "'opencv-python-headless>=4.8,<5', or choose another detector."
            )
        return cascade

    def __call__(self, image: Image.Image) -> list[Face]:
        """Find the faces of an upright RGB picture, largest first."""
        return self._look(image, self.candidates(image)) or self._look(image, self.candidates(image, thorough=True))

    def largest(self, image: Image.Image) -> list[Face]:
        """The largest face of an upright RGB picture, or none: large ones are looked for first, which is quicker."""
        for share in _LARGE:
            size = round(share * min(image.size))
            if size > self.min_size and (found := self._look(image, self.candidates(image, min_size=size))):
                return found[:1]
        return self(image)[:1]

    def _look(self, image: Image.Image, boxes: Sequence[tuple[float, float, float, float]]) -> list[Face]:
        expected = np.array([box_to_points(box) for box in boxes]).reshape(-1, 5, 2)
        landmarks, presence = self.locator(image, expected)
        kept = presence >= self.min_score
        return distinct([_face(*found) for found in zip(landmarks[kept], presence[kept], strict=True)])

    def candidates(
        self, image: Image.Image, thorough: bool = False, min_size: int | None = None
    ) -> list[tuple[float, float, float, float]]:
        """Boxes in pixels of the picture, before the network has looked at them.

        Args:
            image (`PIL.Image.Image`): Upright RGB.
            thorough (`bool`, defaults to `False`): Those of the other cascades in place of the frontal one's.
            min_size (`int`, *optional*): Smallest side of a box in pixels; by default that of the detector.
        """
        min_size = min_size or self.min_size
        scale = min(1.0, SEARCH_SIDE / max(image.size), _WINDOW / min_size)
        grey = image.convert("L")
        if scale < 1:
            grey = grey.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BOX)
        smallest = max(_WINDOW, round(min_size * scale))
        if min(grey.size) < smallest:
            return []
        pixels = np.asarray(grey)
        if not thorough:
            found = self._boxes(self._frontal, pixels, smallest)
        else:
            # the cascade knows profiles of one side
            mirrored = self._boxes(self._profile, np.ascontiguousarray(pixels[:, ::-1]), smallest)
            mirrored[:, 0] = grey.width - mirrored[:, 0] - mirrored[:, 2]
            ahead, side = (self._boxes(cascade, pixels, smallest) for cascade in (self._second, self._profile))
            found = np.concatenate([ahead, side, mirrored])
        found = found / scale
        return [(x, y, x + width, y + height) for x, y, width, height in found.tolist()]

    def _boxes(self, cascade: Any, pixels: np.ndarray, smallest: int) -> np.ndarray:
        found = cascade.detectMultiScale(pixels, scaleFactor=1.1, minNeighbors=1, minSize=(smallest, smallest))
        return np.array(found, dtype=float).reshape(-1, 4)

    def follow(self, image: Image.Image, faces: list[Face]) -> list[Face]:
        """Look for the faces of a frame in the next one, by the landmark network alone.

        Where there was none, the frontal cascade has a glance.

        Args:
            image (`PIL.Image.Image`): The next frame, upright RGB.
            faces (`list[Face]`): Faces of the frame before, with points.

        Returns:
            `list[Face]`: Where they are now, largest first, without those that are lost.
        """
        if not faces:
            return self._look(image, self.candidates(image))
        landmarks, presence = self.locator(image, np.array([face.points for face in faces]))
        found = []
        for face, points, score in zip(faces, landmarks, presence, strict=True):
            now = _face(points, score)
            # no face grows by a third from one frame to the next: the network saw something else
            steady = 0.56 < now.area / face.area < 1.78
            if score >= self.min_score and steady and now.box[2] - now.box[0] >= self.min_size:
                found.append(now)
        return distinct(found)


def _face(landmarks: np.ndarray, score: float) -> Face:
    """A face by its landmarks: boxes of the cascade lie less firmly than boxes by points."""
    points = five_points(landmarks)
    return Face(points_to_box(points), float(score), points, landmarks)


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
