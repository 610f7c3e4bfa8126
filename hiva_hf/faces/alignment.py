"""Upright face crops by similarity transform, the same for training and for prediction.

Five points (eye centres, nose tip, mouth corners) go to fixed places in the crop by least squares. The field's usual
crop (JAA-Net, ECCV 2018: level eyes, a square 2.9 times the extent of these points, then a random 176 of 200 pixels)
shows the same part of the face; a template keeps its scale when the mouth opens, which a measured extent does not.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

# the five points as fractions of the box of a Haar cascade
_IN_BOX = np.array([[0.31, 0.42], [0.69, 0.42], [0.50, 0.61], [0.335, 0.80], [0.665, 0.80]])


@dataclass(frozen=True)
class FaceTemplate:
    """Where the five points go, as fractions of the side of a square crop; left and right as seen in the picture.

    Args:
        left_eye, right_eye, nose, left_mouth, right_mouth (`tuple[float, float]`): x and y from the upper left corner.
    """

    left_eye: tuple[float, float] = (0.31, 0.30)
    right_eye: tuple[float, float] = (0.69, 0.30)
    nose: tuple[float, float] = (0.50, 0.52)
    left_mouth: tuple[float, float] = (0.35, 0.69)
    right_mouth: tuple[float, float] = (0.65, 0.69)

    @property
    def points(self) -> np.ndarray:
        """`np.ndarray` of shape (5, 2)."""
        return np.array([self.left_eye, self.right_eye, self.nose, self.left_mouth, self.right_mouth])

    def to_dict(self) -> dict[str, list[float]]:
        """`dict`: As an image processor's `face_template` holds it."""
        return {name: list(place) for name, place in asdict(self).items()}

    @classmethod
    def of(cls, image_processor) -> "FaceTemplate":
        """The template that a checkpoint was trained with.

        Args:
            image_processor (`BaseImageProcessor`): Its `face_template` is read; without one it is the default.

        Raises:
            ValueError: If that names other points than the five, or a place is not a pair of finite numbers.
        """
        stored = getattr(image_processor, "face_template", None)
        if stored is None:
            return cls()
        names = list(asdict(cls()))
        good = isinstance(stored, Mapping) and sorted(stored) == sorted(names)
        if not good or not all(np.shape(place) == (2,) and np.isfinite(place).all() for place in stored.values()):
            raise ValueError(
                f"`face_template` must give x and y, as fractions of the crop's side, of {', '.join(names)}; got "
                f"{stored}."
            )
        return cls(**{name: (float(x), float(y)) for name, (x, y) in stored.items()})


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners of the 68 points of the Multi-PIE scheme.

    Args:
        landmarks (`np.ndarray` of shape `(68, 2)` or `(136,)`): x and y in pixels.

    Returns:
        `np.ndarray` of shape (5, 2): left eye, right eye, nose, left and right mouth corner, as seen in the picture.

    Raises:
        ValueError: If there are not 68 points.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.size != 136:
        raise ValueError(f"`landmarks` must hold 68 points (x, y); got an array of shape {points.shape}.")
    points = points.reshape(68, 2)
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def box_to_points(box: tuple[float, float, float, float]) -> np.ndarray:
    """Where the five points of an upright frontal face lie in a detector's box, for want of landmarks.

    Proportions measured on rendered faces between boxes of OpenCV's frontal Haar cascade and true landmarks
    (`examples/measure_haar_box.py`).

    Args:
        box (`tuple`): x0, y0, x1, y1 in pixels.

    Returns:
        `np.ndarray` of shape (5, 2): As [`five_points`].
    """
    x0, y0, x1, y1 = box
    return np.array([x0, y0]) + _IN_BOX * np.array([x1 - x0, y1 - y0])


def points_to_box(points: np.ndarray) -> tuple[float, float, float, float]:
    """The upright square in which [`box_to_points`] expects these points, as well as they allow.

    Args:
        points (`np.ndarray` of shape `(5, 2)`): As [`five_points`].

    Raises:
        ValueError: If the points coincide.
    """
    matrix = similarity_transform(_IN_BOX, np.asarray(points, dtype=np.float64))
    x, y = matrix[:, :2] @ [0.5, 0.5] + matrix[:, 2]
    half = float(np.sqrt(np.linalg.det(matrix[:, :2]))) / 2
    return float(x) - half, float(y) - half, float(x) + half, float(y) + half


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that take `source` closest to `target` (Umeyama, 1991, without reflection).

    Args:
        source (`np.ndarray` of shape `(num_points, 2)`): Points of the picture.
        target (`np.ndarray` of shape `(num_points, 2)`): Where each of them is to go.

    Returns:
        `np.ndarray` of shape (2, 3): `target ~ source @ matrix[:, :2].T + matrix[:, 2]`.

    Raises:
        ValueError: If the points coincide, so that no scale exists.
    """
    centre_s, centre_t = source.mean(0), target.mean(0)
    s, t = source - centre_s, target - centre_t
    spread = (s**2).sum()
    if not np.isfinite(spread) or spread < 1e-9:
        raise ValueError(f"`source` must hold distinct finite points; got {source.tolist()}.")
    a = (s * t).sum() / spread
    b = (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / spread
    rotation = np.array([[a, -b], [b, a]])
    return np.hstack([rotation, (centre_t - rotation @ centre_s)[:, None]])


def warp_face(image: Image.Image, matrix: np.ndarray, size: int) -> Image.Image:
    """Cut the crop that a transform describes.

    Args:
        image (`PIL.Image.Image`): The picture.
        matrix (`np.ndarray` of shape `(2, 3)`): From pixels of the picture to pixels of the crop.
        size (`int`): Side of the square crop in pixels.

    Returns:
        `PIL.Image.Image`: The crop; black where it reaches beyond the picture.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if not np.isfinite(scale) or scale == 0:
        raise ValueError(f"`matrix` must be an invertible transform; got {matrix.tolist()}.")
    if scale < 1:
        # an affine warp samples single pixels: shrink what will be seen first, so that fine texture does not alias
        x0, y0, x1, y1 = _seen(matrix, size, image.size, margin=4 / scale)
        if x1 <= x0 or y1 <= y0:
            return Image.new(image.mode, (size, size))
        width, height = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
        matrix = np.hstack([matrix[:, :2], (matrix[:, :2] @ [x0, y0] + matrix[:, 2])[:, None]])
        matrix = matrix * [(x1 - x0) / width, (y1 - y0) / height, 1.0]
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1), reducing_gap=3.0)
    inverse = np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))
    return image.transform((size, size), Image.Transform.AFFINE, inverse[:2].ravel().tolist(), Image.Resampling.BICUBIC)


def _seen(matrix: np.ndarray, size: int, limits: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """The part of a picture that a crop shows: x0, y0, x1, y1 in whole pixels, inside the picture."""
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) - matrix[:, 2]
    places = corners @ np.linalg.inv(matrix[:, :2]).T
    low = np.maximum(np.floor(places.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(places.max(0) + margin), limits).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


__all__ = [
    "FaceTemplate",
    "box_to_points",
    "five_points",
    "points_to_box",
    "similarity_transform",
    "warp_face",
]
