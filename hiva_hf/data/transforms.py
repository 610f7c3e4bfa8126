"""From a row of a dataset to what the model takes: align, augment, process."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import default_data_collator
from transformers.image_processing_utils import BaseImageProcessor

from ..faces.alignment import FaceTemplate, five_points, similarity_transform, warp_face
from ..facs import mirrored
from ..loss_hiva import MISSING_LABEL
from .augmentation import FaceAugmentation


class FaceTransform:
    """A function for `Dataset.with_transform`: rows in, `pixel_values` and `labels` out.

    Faces with `points` or `landmarks` are aligned to the template; others are taken as cropped already. Chance comes
    from torch's generator, which Trainer seeds, stores and restores. Where faces are blended, it is with others of the
    same call. A face that is flipped has the label of `AU12R` as that of `AU12L`; where the other side was not coded,
    it is missing.

    Args:
        image_processor (`BaseImageProcessor`): Its `size` is the side of the crop.
        augmentation (`FaceAugmentation`, *optional*): Given for training only.
        template (`FaceTemplate`, *optional*): Where the points go; by default as `image_processor` says.
        names (`Sequence[str]`, *optional*): Action units of the labels; needed where one of them has a side.
        intensities (`bool`, defaults to `False`): Give `intensities`, too, as `intensity_labels` of the second head.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        augmentation: FaceAugmentation | None = None,
        template: FaceTemplate | None = None,
        names: Sequence[str] = (),
        intensities: bool = False,
    ):
        self.image_processor = image_processor
        self.augmentation = augmentation
        self.columns = {"labels": "labels"} | ({"intensities": "intensity_labels"} if intensities else {})
        self.target = (template or FaceTemplate.of(image_processor)).points
        # where the label of each action unit stands in a mirror; -1 where it was not coded
        self.mirror = None
        if any(mirrored(name) != name for name in names):
            places = {name: place for place, name in enumerate(names)}
            self.mirror = [places.get(mirrored(name), -1) for name in names]

    def crop(self, image, points: np.ndarray | None, rng: np.random.Generator | None):
        """One aligned, augmented crop as an RGB `PIL.Image.Image`, and whether it is flipped."""
        image = image.convert("RGB")
        size = self.image_processor.size["height"]
        if points is not None:
            matrix = similarity_transform(points, self.target * size)
        else:
            matrix = np.array([[size / image.width, 0.0, 0.0], [0.0, size / image.height, 0.0]])
        if self.augmentation is None or rng is None:
            return warp_face(image, matrix, size), False
        varied = self.augmentation.geometry(matrix, size, rng)
        flipped = bool(np.linalg.det(varied[:, :2]) < 0)
        return self.augmentation.appearance(warp_face(image, varied, size), rng), flipped

    def __call__(self, batch: dict) -> dict:
        """Process a batch of columns.

        Args:
            batch (`dict`): `image`, and where present `points` (five), `landmarks` (68), `labels` and `intensities`.

        Returns:
            `dict` with `pixel_values` and, where present, `labels` and `intensity_labels`, one tensor a row.
        """
        crops, flipped = [], []
        for index, image in enumerate(batch["image"]):
            rng = None
            if self.augmentation is not None:
                rng = _new_rng()
            crop, is_flipped = self.crop(image, _points(batch, index), rng)
            crops.append(crop)
            flipped.append(is_flipped)
        output = dict(self.image_processor(crops, do_resize=False, return_tensors="pt"))
        told = {name: self._labels(batch[column], flipped) for column, name in self.columns.items() if column in batch}
        if told and self.augmentation is not None and self.augmentation.mixup > 0:
            # blended alike: a face is as much of another as its labels are
            together = torch.cat(list(told.values()), dim=1)
            output["pixel_values"], together = self.augmentation.mix(output["pixel_values"], together, _new_rng())
            told = dict(zip(told, together.chunk(len(told), dim=1), strict=True))
        return output | told

    def _labels(self, rows, flipped: list[bool]) -> torch.Tensor:
        labels = np.array(rows, dtype=np.float32)
        # Trainer counts what is coded by this alone
        labels[np.isnan(labels)] = MISSING_LABEL
        if self.mirror is not None:
            known = np.append(labels, np.full((len(labels), 1), MISSING_LABEL, np.float32), axis=1)
            labels[flipped] = known[flipped][:, self.mirror]
        return torch.from_numpy(labels)


class FaceCollator:
    """A `data_collator` that takes rows as a dataset has them, too: `trainer.evaluate(splits["test"])` just works.

    Args:
        transform (`FaceTransform`): For rows that hold an `image`; others are put together as they are.
    """

    def __init__(self, transform: FaceTransform):
        self.transform = transform

    def __call__(self, rows: list[dict]) -> dict:
        """A batch of `pixel_values` and `labels`."""
        if "pixel_values" not in rows[0]:
            columns = self.transform({name: [row[name] for row in rows] for name in rows[0]})
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return default_data_collator(rows)


def _points(batch: dict, index: int) -> np.ndarray | None:
    if batch.get("points") is not None and batch["points"][index] is not None:
        return np.reshape(batch["points"][index], (5, 2)).astype(np.float64)
    if batch.get("landmarks") is not None and batch["landmarks"][index] is not None:
        return five_points(batch["landmarks"][index])
    return None


def _new_rng() -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**63 - 1, ()).item()))


__all__ = ["FaceCollator", "FaceTransform"]
