"""What lies behind and before the figure: backgrounds, lenses, and what covers a face."""

import torch
from torch import Tensor
from torch.nn import functional

from .rasterizer import rasterize
from .scene import NUM_CLUTTER, NUM_PIECES
from .shading import Shader


def background(values: dict[str, Tensor], shader: Shader, size: int) -> Tensor:
    """Gradients, clutter out of focus, stripes and noise.

    Returns:
        `torch.Tensor` of shape `(num_images, 3, size, size)`: 0-1, linear light.
    """
    side = max(16, size // 4)
    line = (torch.arange(side, device=values["backdrop"].device) + 0.5) / side
    x, y = line.view(1, 1, -1), line.view(1, -1, 1)

    def column(name: str) -> Tensor:
        return values[name].view(-1, 1, 1)

    angle = column("backdrop_angle")
    across = (x - 0.5) * angle.cos() + (y - 0.5) * angle.sin()
    share = (across + 0.5).clamp(0, 1)[:, None]
    first, second, third = (values["backdrop"][:, k, :, None, None] for k in range(3))
    plain = (values["backdrop_kind"] == 0).view(-1, 1, 1, 1)
    picture = first * (1 - share) + torch.where(plain, first * 0.7, second) * share
    cluttered = (values["backdrop_kind"] == 1).float().view(-1, 1, 1)
    for k in range(NUM_CLUTTER):
        dx, dy = (
            x - values["clutter_place"][:, k, 0].view(-1, 1, 1),
            y - values["clutter_place"][:, k, 1].view(-1, 1, 1),
        )
        turn = values["clutter_angle"][:, k].view(-1, 1, 1)
        u, v = dx * turn.cos() + dy * turn.sin(), dy * turn.cos() - dx * turn.sin()
        wide, tall = (values["clutter_size"][:, k, j].view(-1, 1, 1) for j in (0, 1))
        box = torch.maximum(u.abs() - wide, v.abs() - tall)
        oval = (torch.hypot(u / wide, v / tall) - 1) * torch.minimum(wide, tall)
        gap = torch.where(values["clutter_round"][:, k].view(-1, 1, 1) > 0, oval, box)
        cover = (0.5 - gap / (column("clutter_blur") + 1.0 / side)).clamp(0, 1) * cluttered
        picture = picture + cover[:, None] * (values["clutter"][:, k, :, None, None] - picture)
    striped = torch.sin(across * 40 * column("backdrop_scale")).clamp(-0.5, 0.5)[:, None] + 0.5
    picture = picture + column("backdrop_stripes")[:, None] * striped * (third - picture)
    scale = column("backdrop_scale") * 12
    shift = values["backdrop_shift"]
    u = (x * scale + shift[:, 0].view(-1, 1, 1)).expand(-1, side, -1)
    v = (y * scale + shift[:, 1].view(-1, 1, 1)).expand(-1, -1, side)
    grain = shader.noise_at(u, v, slice(0, 2)).sum(0)
    picture = picture * torch.exp(0.35 * column("backdrop_noise") * grain)[:, None]
    picture = functional.interpolate(picture, size=(size, size), mode="bilinear", align_corners=False)
    return picture.clamp(0, 1)


def lenses(picture: Tensor, values: dict[str, Tensor], outline: Tensor, nearness: Tensor, depth: Tensor) -> Tensor:
    """Darken and mirror where a lens lies before what is seen.

    Args:
        picture (`torch.Tensor` of shape `(num_images, 3, size, size)`): Linear light.
        values (`dict[str, torch.Tensor]`): Of [`Scenes`].
        outline (`torch.Tensor` of shape `(num_images, 2 * n, 2)`): Pixels of the outlines of both lenses.
        nearness (`torch.Tensor` of shape `(num_images, 2 * n)`): 1 / depth of them.
        depth (`torch.Tensor` of shape `(num_images, size * size)`): 1 / depth of what the picture shows, 0 behind all.

    Returns:
        `torch.Tensor`: The picture with lenses.
    """
    count, size, half = len(picture), picture.shape[-1], outline.shape[1] // 2
    # a fan around a point of the outline
    fan = torch.stack([torch.zeros(half - 2), torch.arange(1, half - 1), torch.arange(2, half)], 1).long()
    triangles = torch.cat([fan, fan + half]).to(picture.device)
    shown = nearness * values["glasses"][:, None]
    both = torch.ones(len(triangles), dtype=torch.bool, device=picture.device)
    hit = rasterize(outline, shown, triangles, size, two_sided=both)
    near = nearness.mean(1, keepdim=True)
    before = ((hit >= 0) & (near > depth * 0.97)).view(count, 1, size, size)
    line = torch.linspace(0, 1, size, device=picture.device)
    angle = values["backdrop_angle"].view(-1, 1, 1, 1)
    sweep = line.view(1, 1, 1, -1) * angle.cos() + line.view(1, 1, -1, 1) * angle.sin()
    glare = (torch.sin(sweep * 14 + values["backdrop_shift"][:, :1, None, None]) - 0.55).clamp(min=0) * 1.3
    glare = glare * 0.5 * values["lens_glare"].view(-1, 1, 1, 1)
    tinted = picture * (1 - values["lens_tint"].view(-1, 1, 1, 1)) + glare + 0.008
    return torch.where(before, tinted, picture)


def covering(values: dict[str, Tensor], box: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Fingers, a microphone or an object before the face.

    Args:
        values (`dict[str, torch.Tensor]`): Of [`Scenes`].
        box (`torch.Tensor` of shape `(num_images, 4)`): Of the face, pixels.
        size (`int`): Side of the image.

    Returns:
        `tuple`: How much of each pixel is covered, (num_images, 1, size, size), and by which colour, 0-1.
    """
    line = torch.arange(size, device=box.device) + 0.5
    middle, side = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).amax(1).view(-1, 1, 1)
    x = (line.view(1, 1, -1) - middle[:, 0].view(-1, 1, 1)) / side
    y = (line.view(1, -1, 1) - middle[:, 1].view(-1, 1, 1)) / side
    cover, height = torch.zeros_like(x + y), torch.zeros_like(x + y)
    for k in range(NUM_PIECES):
        ax, ay, bx, by = (values[name][:, k, j].view(-1, 1, 1) for name in ("cover_start", "cover_end") for j in (0, 1))
        radius = values["cover_radius"][:, k].view(-1, 1, 1)
        dx, dy = bx - ax, by - ay
        t = (((x - ax) * dx + (y - ay) * dy) / (dx**2 + dy**2).clamp(min=1e-6)).clamp(0, 1)
        gap = torch.hypot(x - ax - t * dx, y - ay - t * dy)
        edge = ((radius - gap) * side / 1.5 + 0.5).clamp(0, 1) * (radius > 0)
        round_height = (1 - (gap / radius.clamp(min=1e-3)) ** 2).clamp(min=0).sqrt()
        height = torch.where(edge > cover, round_height, height)
        cover = torch.maximum(cover, edge)
    light = 0.35 + 0.75 * height
    colour = values["cover_colour"][:, :, None, None] * light[:, None]
    return cover[:, None], colour.clamp(0, 1)


__all__ = ["background", "covering", "lenses"]
