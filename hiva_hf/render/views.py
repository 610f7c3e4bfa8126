"""The same faces as another camera would have taken them: batches, on any device."""

import math

import torch
from torch import Tensor
from torch.nn import functional

# standard deviations of a shift as a share of the side, of the logarithm of the scale, and of the angle in degrees
_SHIFT, _SCALE, _TURN = 0.02, 0.05, 3.0
# of the logarithm of width over height, and of how far each of 5x5 places goes as a share of the side: other faces
# than one model makes; half a pixel of 128 hides no action unit
_STRETCH, _BEND, _BENDS = 0.04, 0.004, 5
# of the logarithms of gamma and of saturation
_GAMMA, _SATURATION = 0.15, 0.3
# shares of the faces that are coarse, noisy, grey, covered and at the edge of their picture
_COARSE, _NOISY, _GREY, _COVERED, _EDGED = 0.12, 0.12, 0.08, 0.12, 0.06
_LUMA = (0.299, 0.587, 0.114)


def new_views(
    images: Tensor, size: int, generator: torch.Generator, strength: float = 1.0, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Turn, shift, enlarge, bend, flip, tint, blur and cover faces a little, each its own way. Labels stay true.

    Args:
        images (`torch.Tensor` of shape `(num_faces, 3, side, side)`):
            Aligned faces, 0-1; the crop that is meant is their middle, what is around it comes into view.
        size (`int`): Side of the crops in pixels, at most `side`.
        generator (`torch.Generator`): Source of chance, on the device of the images.
        strength (`float`, defaults to 1.0):
            Multiplies how far the faces are turned, shifted and enlarged; how far they are bent it leaves as it is.
        masks (`torch.Tensor` of shape `(num_faces, num_aus, rows, columns)`, *optional*):
            0-1, of the crop that is meant; they go where the face goes.

    Returns:
        `tuple` of `torch.Tensor`: Crops of shape (num_faces, 3, size, size), and masks of their shape or `None`.
    """
    chance = _Chance(len(images), generator)
    matrix = _moves(chance, strength)
    bend = chance.normal(2, _BENDS, _BENDS) * 2 * _BEND
    crops = _moved(images, matrix, bend, size, size / images.shape[-1])
    if masks is not None:
        # outside the crop nothing is known, and nothing is asked
        masks = _moved(masks, matrix, bend, masks.shape[-1], 1.0, "zeros")
    return _seen(crops, chance), masks


class _Chance:
    """Numbers for a batch, a row a face."""

    def __init__(self, count: int, generator: torch.Generator):
        self.count, self.generator = count, generator

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.count, *shape, generator=self.generator, device=self.generator.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.count, *shape, generator=self.generator, device=self.generator.device)

    def some(self, share: float) -> Tensor:
        """Whether, for each face; it stands beside images."""
        return self.uniform(1, 1, 1) < share

    def number(self, low: float, high: float) -> float:
        """One for all."""
        drawn = torch.rand((), generator=self.generator, device=self.generator.device).item()
        return low + (high - low) * drawn


def _moves(chance: _Chance, strength: float) -> Tensor:
    """From places in the crop to places in the picture, both from -1 to 1; (num_faces, 2, 3)."""
    turn = chance.normal() * math.radians(_TURN) * strength
    scale = (chance.normal() * _SCALE * strength).exp()
    flip = 1 - 2 * (chance.uniform() < 0.5).float()
    shift = chance.normal(2) * 2 * _SHIFT * strength
    stretch = (chance.normal() * _STRETCH / 2).exp()
    wide, tall = scale * stretch, scale / stretch
    cosine, sine = turn.cos(), turn.sin()
    rows = torch.stack([flip * wide * cosine, -tall * sine, flip * wide * sine, tall * cosine], 1).unflatten(1, (2, 2))
    return torch.cat([rows, shift[..., None]], 2)


def _moved(values: Tensor, matrix: Tensor, bend: Tensor, size: int, inner: float, padding: str = "border") -> Tensor:
    grid = functional.affine_grid(matrix * inner, [len(values), 1, size, size], align_corners=False)
    bend = functional.interpolate(bend, size=(size, size), mode="bicubic", align_corners=False)
    grid = grid + bend.permute(0, 2, 3, 1) * inner
    return functional.grid_sample(values, grid, padding_mode=padding, align_corners=False)


def _seen(crops: Tensor, chance: _Chance) -> Tensor:
    """Light, sensor, resolution, and what is in the way."""
    gain, shift, tint = chance.normal(1, 1, 1), chance.normal(1, 1, 1), chance.normal(3, 1, 1)
    crops = crops.clamp(1e-4, 1) ** (_GAMMA * chance.normal(1, 1, 1)).exp()
    grey = _grey(crops)
    crops = grey + (crops - grey) * (_SATURATION * chance.normal(1, 1, 1)).exp()
    crops = (crops - 0.5) * (0.12 * gain).exp() * (0.04 * tint).exp() + 0.5 + 0.06 * shift
    size = crops.shape[-1]
    # a resolution a batch: faces of one size are resampled together
    coarse = functional.interpolate(
        crops, scale_factor=chance.number(0.22, 0.7), mode="bilinear", antialias=True, align_corners=False
    )
    coarse = functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    crops = torch.where(chance.some(_COARSE), coarse, crops)
    crops = crops + chance.normal(3, size, size) * 0.07 * chance.uniform(1, 1, 1) * chance.some(_NOISY)
    crops = torch.where(chance.some(_GREY), _grey(crops), crops).clamp(0, 1)
    place = (torch.arange(size, device=crops.device) + 0.5) / size
    middle, half = chance.uniform(2), 0.05 + 0.12 * chance.uniform(2)
    down, across = ((place - middle[:, axis : axis + 1]).abs() < half[:, axis : axis + 1] for axis in (0, 1))
    covered = (down[:, None, :, None] & across[:, None, None, :]) & chance.some(_COVERED)
    crops = torch.where(covered, chance.uniform(3, 1, 1), crops)
    # beyond the edge of a picture a crop is black
    side, depth = chance.uniform(), 0.18 * chance.uniform()[:, None]
    near = torch.where((side < 0.5)[:, None], place, 1 - place) < depth
    lies = (side * 4 % 2 < 1)[:, None, None, None]
    beyond = torch.where(lies, near[:, None, :, None], near[:, None, None, :]) & chance.some(_EDGED)
    return crops.masked_fill(beyond, 0.0)


def _grey(images: Tensor) -> Tensor:
    return (images * images.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)


__all__ = ["new_views"]
