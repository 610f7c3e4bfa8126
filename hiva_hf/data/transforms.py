"""From a row of a dataset to what the model takes: align, augment, process."""

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor

from ..faces.alignment import FaceTemplate, five_points, similarity_transform, warp_face
from .augmentation import FaceAugmentation


class FaceTransform:
    """A function for `Dataset.with_transform`: rows in, `pixel_values` and `labels` out.

    Faces with `points` or `landmarks` are aligned to the template; others are taken as cropped already. Chance comes
    from torch's generator, which Trainer seeds, stores and restores. Where faces are blended, it is with others of the
    same call.

    Args:
        image_processor (`BaseImageProcessor`): Its `size` is the side of the crop.
        augmentation (`FaceAugmentation`, *optional*): Given for training only.
        template (`FaceTemplate`, *optional*): Where the points go; by default as `image_processor` says.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        augmentation: FaceAugmentation | None = None,
        template: FaceTemplate | None = None,
    ):
        self.image_processor = image_processor
        self.augmentation = augmentation
        self.target = (template or FaceTemplate.of(image_processor)).points

    def crop(self, image, points: np.ndarray | None, rng: np.random.Generator | None):
        """One aligned, augmented crop as an RGB `PIL.Image.Image`."""
        image = image.convert("RGB")
        size = self.image_processor.size["height"]
        if points is not None:
            matrix = similarity_transform(points, self.target * size)
        else:
            matrix = np.array([[size / image.width, 0.0, 0.0], [0.0, size / image.height, 0.0]])
        if self.augmentation is None or rng is None:
            return warp_face(image, matrix, size)
        crop = warp_face(image, self.augmentation.geometry(matrix, size, rng), size)
        return self.augmentation.appearance(crop, rng)

    def __call__(self, batch: dict) -> dict:
        """Process a batch of columns.

        Args:
            batch (`dict`): `image`, and where present `points` (five), `landmarks` (68) and `labels`.

        Returns:
            `dict` with `pixel_values` and, where present, `labels`, one tensor a row.
        """
        crops = []
        for index, image in enumerate(batch["image"]):
            rng = None
            if self.augmentation is not None:
                rng = _new_rng()
            crops.append(self.crop(image, _points(batch, index), rng))
        output = dict(self.image_processor(crops, do_resize=False, return_tensors="pt"))
        if "labels" in batch:
            output["labels"] = torch.tensor(np.asarray(batch["labels"], dtype=np.float32))
            if self.augmentation is not None and self.augmentation.mixup > 0:
                output["pixel_values"], output["labels"] = self.augmentation.mix(
                    output["pixel_values"], output["labels"], _new_rng()
                )
        return output


def _points(batch: dict, index: int) -> np.ndarray | None:
    if batch.get("points") is not None and batch["points"][index] is not None:
        return np.reshape(batch["points"][index], (5, 2)).astype(np.float64)
    if batch.get("landmarks") is not None:
        return five_points(batch["landmarks"][index])
    return None


def _new_rng() -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**63 - 1, ()).item()))


__all__ = ["FaceTransform"]
