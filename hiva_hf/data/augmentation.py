"""Augmentation suited to faces: it changes the picture, never what the muscles do."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter

from ..loss_hiva import MISSING_LABEL


@dataclass(frozen=True)
class FaceAugmentation:
    """Random geometry, colour, blur and occlusion. Labels stay, but [`FaceTransform`] swaps left and right of a flip.

    Args:
        rotation (`float`, defaults to 5): Largest rotation in degrees, either way.
        scale (`float`, defaults to 0.05): Largest relative change of size, either way.
        shift (`float`, defaults to 0.03): Largest shift as a fraction of the crop, either way.
        flip (`float`, defaults to 0.5): Probability of a horizontal flip.
        colour (`float`, defaults to 0.3): Largest relative change of brightness, contrast and saturation.
        blur (`float`, defaults to 0.1): Probability of a Gaussian blur of up to one pixel at 112 pixels.
        erase (`float`, defaults to 0.1): Probability that a rectangle of up to a third of each side is covered.
        mixup (`float`, defaults to 0): Both parameters of the Beta distribution that says how much of each face is
            blended with another of its batch, labels alike (Zhang et al., ICLR 2018); 0 blends none.
    """

    rotation: float = 5.0
    scale: float = 0.05
    shift: float = 0.03
    flip: float = 0.5
    colour: float = 0.3
    blur: float = 0.1
    erase: float = 0.1
    mixup: float = 0.0

    @classmethod
    def strong(cls) -> "FaceAugmentation":
        """For thousands of faces and long runs, where the usual one lets a model learn its faces by heart."""
        return cls(rotation=10.0, scale=0.1, shift=0.05, erase=0.4, mixup=0.2)

    def geometry(self, matrix: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """Vary an alignment transform, so that crop and augmentation cost one interpolation.

        Args:
            matrix (`np.ndarray` of shape `(2, 3)`): From pixels of the picture to pixels of the crop.
            size (`int`): Side of the crop in pixels.
            rng (`np.random.Generator`): Source of chance.

        Returns:
            `np.ndarray` of shape (2, 3).
        """
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation))
        zoom = 1 + rng.uniform(-self.scale, self.scale)
        centre = np.full(2, size / 2)
        shift = rng.uniform(-self.shift, self.shift, 2) * size
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if rng.random() < self.flip:
            turn = np.diag([-1.0, 1.0]) @ turn
        linear = turn @ matrix[:, :2]
        offset = turn @ (matrix[:, 2] - centre) + centre + shift
        return np.hstack([linear, offset[:, None]])

    def appearance(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Vary the light, the lens and what covers the face.

        Args:
            image (`PIL.Image.Image`): An RGB crop.
            rng (`np.random.Generator`): Source of chance.
        """
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhancer(image).enhance(1 + rng.uniform(-self.colour, self.colour))
        if rng.random() < self.blur:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1) * image.width / 112))
        if rng.random() < self.erase:
            width, height = (rng.uniform(0.1, 0.33, 2) * image.width).astype(int)
            x, y = rng.integers(0, image.width - width), rng.integers(0, image.height - height)
            colour = tuple(int(value) for value in rng.integers(0, 256, 3))
            image.paste(colour, (int(x), int(y), int(x + width), int(y + height)))
        return image

    def mix(
        self, pixel_values: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Blend each face with another of its batch.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Faces.
            labels (`torch.Tensor` of shape `(batch_size, num_labels)`): Occurrence or intensity; `-100` or NaN is not
                coded, and stays so in every blend it is part of.
            rng (`np.random.Generator`): Source of chance.

        Returns:
            `tuple`: Blended faces and labels of the same shapes.
        """
        partner = torch.from_numpy(rng.permutation(len(labels)))
        share = torch.from_numpy(rng.beta(self.mixup, self.mixup, len(labels)).astype(np.float32))
        faces = torch.lerp(pixel_values[partner], pixel_values, share[:, None, None, None])
        missing = (labels == MISSING_LABEL) | labels.isnan()
        blended = torch.lerp(labels[partner], labels, share[:, None])
        return faces, blended.masked_fill(missing | missing[partner], MISSING_LABEL)


__all__ = ["FaceAugmentation"]
