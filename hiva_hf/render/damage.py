"""What cameras, compression and screens do to pictures; batches of them, each its own way."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from .random import pixel_noise

_GREY = (0.299, 0.587, 0.114)
# the quantisation tables of Annex K of the JPEG standard (ITU-T T.81)
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17,
    18,
    24,
    47,
    99,
    99,
    99,
    99,
    18,
    21,
    26,
    66,
    99,
    99,
    99,
    99,
    24,
    26,
    56,
    99,
    99,
    99,
    99,
    99,
    47,
    66,
    *[99] * 38,
)


def damage(images: Tensor, values: dict[str, Tensor]) -> Tensor:
    """Damage pictures.

    Args:
        images (`torch.Tensor` of shape `(num_images, 3, size, size)`): 0-1, as a screen shows them (gamma applied).
        values (`dict[str, torch.Tensor]`): Of [`Scenes`].

    Returns:
        `torch.Tensor`: uint8 of the same shape.
    """
    v = {name: values[name].view(-1, 1, 1, 1) for name in _NUMBERS}
    size = images.shape[-1]
    rows, columns = resampling(values, size)
    images = rows[:, None] @ images @ columns[:, None].transpose(2, 3)
    images = images + v["sharpen"] * (images - _soft(images))
    images = images.clamp(1e-4, 1) ** v["gamma"]
    images = (images - 0.45) * v["contrast"] + 0.45 + values["cast"].view(-1, 3, 1, 1)
    images = images * (1 - v["black"]) + v["black"]
    line = torch.linspace(-1, 1, size, device=images.device)
    images = images * (1 - v["vignette"] * 0.5 * (line[:, None] ** 2 + line**2))
    grey = (images * images.new_tensor(_GREY).view(3, 1, 1)).sum(1, keepdim=True)
    images = grey + (images - grey) * (v["saturation"] * (1 - v["grey"]))
    images = images + _noise(values, v, images)
    images = jpeg(images.clamp(0, 1), values["quality"], values["block_shift"])
    # a grey picture stays grey, whatever noise was added
    shade = (images * images.new_tensor(_GREY).view(3, 1, 1)).sum(1, keepdim=True)
    images = torch.where(v["grey"] > 0, shade, images)
    return (images.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def resampling(values: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Blur, loss of resolution and enlargement as one matrix for rows and one for columns.

    Returns:
        `tuple` of two `torch.Tensor` of shape `(num_images, size, size)`: Their rows add up to 1.
    """
    place = torch.arange(size, device=values["detail"].device, dtype=torch.float32) + 0.5
    detail = (values["detail"] * 160.0 / size).clamp(32.0 / size, 1.0)
    coarse = (detail * size).round().clamp(min=16)[:, None, None]
    step = size / coarse
    centre = place[:, None] * step

    def rows_of(weights: Tensor) -> Tensor:
        return weights / weights.sum(2, keepdim=True).clamp(min=1e-6)

    # shrink by a triangle filter, enlarge linearly; rows beyond the coarse size are never asked for
    shrink = rows_of((1 - (place - centre).abs() / step).clamp(min=0))
    at = (place[:, None] / step - 0.5).clamp(min=0)
    at = torch.minimum(at, coarse - 1)
    enlarge = (1 - (at - (place - 0.5)).abs()).clamp(min=0)
    enlarge = rows_of(enlarge * (place - 0.5 < coarse))
    found = []
    for axis in (1, 0):
        wide = (values["blur"] ** 2 + values["motion"][:, axis] ** 2).sqrt()[:, None, None] * size / 160
        blur = rows_of(torch.exp(-0.5 * ((place[:, None] - place) / wide.clamp(min=0.08)) ** 2))
        found.append(torch.where(coarse < size, enlarge @ (shrink @ blur), blur))
    return found[0], found[1]


def _soft(images: Tensor) -> Tensor:
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    across = 0.25 * padded[..., :-2] + 0.5 * padded[..., 1:-1] + 0.25 * padded[..., 2:]
    return 0.25 * across[..., :-2, :] + 0.5 * across[..., 1:-1, :] + 0.25 * across[..., 2:, :]


def _noise(values, v, images: Tensor) -> Tensor:
    """Of the sensor: more where it is bright, partly alike in all colours, in some pictures of coarse grain."""
    size = images.shape[-1]
    raw = pixel_noise(values["noise_key"], 3 * size * size).view(images.shape)
    shared = raw[:, :1]
    raw = v["noise_colour"] * raw + (1 - v["noise_colour"]) * shared
    raw = torch.where(v["noise_grain"] > 0, 1.9 * _soft(raw), raw)
    return raw * v["noise"] * (0.4 + images.clamp(min=0).sqrt())


def jpeg(images: Tensor, quality: Tensor, shift: Tensor) -> Tensor:
    """What the quantisation of JPEG does; blocks begin at a place of their own, as in a crop.

    Args:
        images (`torch.Tensor` of shape `(num_images, 3, size, size)`): 0-1.
        quality (`torch.Tensor` of shape `(num_images,)`): 1-100; from 100 on nothing is done.
        shift (`torch.Tensor` of shape `(num_images, 2)`): 0-8, where blocks begin.

    Returns:
        `torch.Tensor`: Of the same shape.
    """
    count, _, size, _ = images.shape
    device = images.device
    side = -(-size // 8) * 8 + 8
    line = torch.arange(side, device=device)
    rows, columns = ((line - shift[:, k : k + 1].long()).clamp(0, size - 1) for k in (0, 1))
    padded = images.gather(2, rows[:, None, :, None].expand(-1, 3, -1, size))
    padded = padded.gather(3, columns[:, None, None, :].expand(-1, 3, side, -1))
    red, green, blue = (padded * 255).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = torch.stack([luma - 128, 0.564 * (blue - luma), 0.713 * (red - luma)], 1)
    k = torch.arange(8, device=device, dtype=torch.float32)
    cosine = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) * 0.5
    cosine[0] *= math.sqrt(0.5)
    q = quality.clamp(1, 99)
    scale = torch.where(q < 50, 50.0 / q, 2.0 - q / 50.0)
    tables = torch.tensor([_LUMA, _CHROMA, _CHROMA], device=device, dtype=torch.float32).view(1, 3, 1, 1, 8, 8)
    tables = (tables * scale.view(-1, 1, 1, 1, 1, 1)).clamp(min=1)
    blocks = planes.view(count, 3, side // 8, 8, side // 8, 8).transpose(3, 4)
    coefficients = cosine @ blocks @ cosine.T
    coefficients = (coefficients / tables).round() * tables
    blocks = cosine.T @ coefficients @ cosine
    luma, chroma_blue, chroma_red = blocks.transpose(3, 4).reshape(count, 3, side, side).unbind(1)
    luma = luma + 128
    red, blue = luma + chroma_red / 0.713, luma + chroma_blue / 0.564
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    made = torch.stack([red, green, blue], 1) / 255
    line = torch.arange(size, device=device)
    rows, columns = (line + shift[:, k : k + 1].long() for k in (0, 1))
    made = made.gather(2, rows[:, None, :, None].expand(-1, 3, -1, side))
    made = made.gather(3, columns[:, None, None, :].expand(-1, 3, size, -1))
    return torch.where(quality.view(-1, 1, 1, 1) < 100, made, images)


_NUMBERS = (
    "sharpen",
    "gamma",
    "contrast",
    "black",
    "vignette",
    "saturation",
    "grey",
    "noise_colour",
    "noise_grain",
    "noise",
)

__all__ = ["damage", "jpeg", "resampling"]
