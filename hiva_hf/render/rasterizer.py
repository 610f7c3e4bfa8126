"""Which triangle each pixel shows: a z-buffer for batches of meshes of one topology, in plain torch.

Triangles of a face are a few pixels wide. So each tests every pixel of a small square at the corner of its bounding
box, all triangles of one size at once; what it covers competes for the pixel by one integer, depth above triangle.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# bits for the number of a triangle, below those of its depth
_BITS = 20
_TILES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024)
Keep = Callable[[Tensor, Tensor, Tensor], Tensor]


def rasterize(
    points: Tensor,
    nearness: Tensor,
    triangles: Tensor,
    size: int,
    *,
    two_sided: Tensor | None = None,
    first_sparse: int | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """Draw meshes into z-buffers.

    Args:
        points (`torch.Tensor` of shape `(num_images, num_vertices, 2)`):
            x to the right and y down in pixels; the centre of the first pixel is (.5, .5).
        nearness (`torch.Tensor` of shape `(num_images, num_vertices)`):
            1 / depth; a triangle with a vertex of 0 or less is not drawn.
        triangles (`torch.Tensor` of shape `(num_triangles, 3)`):
            Vertices, counter-clockwise as seen from the front; from behind they are not drawn.
        size (`int`): Side of the square image.
        two_sided (`torch.Tensor` of shape `(num_triangles,)`, *optional*): Which are drawn from behind too.
        first_sparse (`int`, *optional*): From this triangle on `keep` is asked.
        keep (`Callable`, *optional*):
            Takes numbers of images, triangles and (n, 3) barycentric coordinates of n fragments; tells
            which of them are there.

    Returns:
        `torch.Tensor` of shape `(num_images, size * size)`: The nearest triangle of each pixel, -1 where there is none.
        Of two at the same depth the later one.
    """
    count, total = len(points), len(triangles)
    if total >= 1 << _BITS:
        raise ValueError(f"`triangles` must be fewer than {1 << _BITS}; got {total}.")
    x, y = points[..., 0].contiguous(), points[..., 1].contiguous()
    a, b, c = (corner.contiguous() for corner in triangles.unbind(1))
    ax, bx, cx, ay, by, cy = (values.index_select(1, index) for values in (x, y) for index in (a, b, c))
    # y points down, so the front has a negative area
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    visible = area < -1e-9 if two_sided is None else (area < -1e-9) | (two_sided & (area > 1e-9))
    there = nearness > 0
    visible &= there.index_select(1, a) & there.index_select(1, b) & there.index_select(1, c)
    # most look away: go on with the others alone
    which = true_places(visible)
    ax, bx, cx, ay, by, cy, area = (values.flatten().take(which) for values in (ax, bx, cx, ay, by, cy, area))
    low_x = (torch.minimum(torch.minimum(ax, bx), cx) - 0.5).ceil().clamp(0, size)
    high_x = (torch.maximum(torch.maximum(ax, bx), cx) - 0.5).floor().clamp(-1, size - 1)
    low_y = (torch.minimum(torch.minimum(ay, by), cy) - 0.5).ceil().clamp(0, size)
    high_y = (torch.maximum(torch.maximum(ay, by), cy) - 0.5).floor().clamp(-1, size - 1)
    wide, tall = high_x - low_x + 1, high_y - low_y + 1
    extent = torch.where((wide > 0) & (tall > 0), torch.maximum(wide, tall), 0.0)
    buffer = torch.full((count * size * size,), -1, dtype=torch.int64, device=points.device)
    smaller = 0
    for tile in _TILES:
        chosen = true_places((extent > smaller) & (extent <= tile))
        smaller = tile
        # large tiles in pieces, so that memory stays bounded
        for part in chosen.split(max(1, (1 << 27) // (tile * tile))) if len(chosen) else ():
            box = [values.take(part) for values in (ax, bx, cx, ay, by, cy, area, low_x, low_y, wide, tall)]
            number = which.take(part)
            row, place, one, two = _covered(box, tile)
            image, triangle = number // total, number % total
            of_corners = [triangles[:, k].contiguous().take(triangle) + image * nearness.shape[1] for k in range(3)]
            nears = [nearness.flatten().take(corner).take(row) for corner in of_corners]
            image, triangle = image.take(row), triangle.take(row)
            near = nears[0] * one + nears[1] * two + nears[2] * (1.0 - one - two)
            origin = box[8].long() * size + box[7].long()
            pixel = origin.take(row) + place // tile * size + place % tile + image * (size * size)
            # the bits of positive floats are ordered as the floats are
            key = (near.clamp(min=1e-30).view(torch.int32).long() << _BITS) | triangle
            if keep is not None and first_sparse is not None:
                sparse = true_places(triangle >= first_sparse)
                shares = torch.stack([one.take(sparse), two.take(sparse)], 1)
                shares = torch.cat([shares, 1.0 - shares.sum(1, keepdim=True)], 1)
                stays = keep(image.take(sparse), triangle.take(sparse), shares)
                key[sparse] = torch.where(stays, key.take(sparse), -1)
            buffer.scatter_reduce_(0, pixel, key, "amax")
        if tile >= size:
            break
    triangle = buffer & ((1 << _BITS) - 1)
    return torch.where(buffer >= 0, triangle, -1).unflatten(0, (count, size * size))


def true_places(mask: Tensor) -> Tensor:
    """Where a mask is true, counted along all of it; int64."""
    if mask.device.type == "cpu":
        # ten times as fast as `nonzero`
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero()[:, 0]


def _covered(box: list[Tensor], tile: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the triangles of one size cover: row of the triangle, place in its tile, two barycentric coordinates."""
    ax, bx, cx, ay, by, cy, area, x0, y0, wide, tall = box
    inverse = 1.0 / area
    px, py = x0 + 0.5, y0 + 0.5
    # barycentric coordinates are linear in the pixel: value at the corner of the tile, slope to the right, slope down
    first = [((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse, (by - cy) * inverse, (cx - bx) * inverse]
    second = [((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse, (cy - ay) * inverse, (ax - cx) * inverse]
    steps = torch.arange(tile, device=ax.device, dtype=ax.dtype)

    def plane(start, right, down):
        return (start[:, None] + down[:, None] * steps)[:, :, None] + (right[:, None] * steps)[:, None, :]

    one, two = plane(*first), plane(*second)
    inside = torch.minimum(torch.minimum(one, two), 1.0 - one - two) >= -1e-5
    if tile > 1:
        inside &= (steps < wide[:, None])[:, None, :] & (steps < tall[:, None])[:, :, None]
    at = true_places(inside)
    return at // (tile * tile), at % (tile * tile), one.flatten().take(at), two.flatten().take(at)


def barycentric(points: Tensor, nearness: Tensor, corners: Tensor, size: int) -> Tensor:
    """Perspective-correct weights of the three corners at each pixel.

    Args:
        points (`torch.Tensor` of shape `(num_images, num_vertices, 2)`): As for [`rasterize`].
        nearness (`torch.Tensor` of shape `(num_images, num_vertices)`): As for [`rasterize`].
        corners (`torch.Tensor` of shape `(num_images, size * size, 3)`): Vertices of the triangle at each pixel.
        size (`int`): Side of the image.

    Returns:
        `torch.Tensor` of shape `(3, num_images, size * size)`: They add up to 1.
    """
    count = len(points)
    rows = torch.arange(count, device=points.device)[:, None] * points.shape[1]
    places = (corners.permute(2, 0, 1) + rows).reshape(3, -1)
    tables = (points[..., 0].flatten(), points[..., 1].flatten(), nearness.flatten())
    ax, ay, aw, bx, by, bw, cx, cy, cw = (table.take(place) for place in places for table in tables)
    line = torch.arange(size, device=points.device, dtype=points.dtype) + 0.5
    px = line.repeat(size).repeat(count)
    py = line.repeat_interleave(size).repeat(count)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    inverse = torch.where(area.abs() > 1e-12, 1.0 / area, 0.0)
    one = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
    two = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
    shares = torch.stack([one * aw, two * bw, (1.0 - one - two) * cw])
    return (shares / shares.sum(0).clamp(min=1e-12)).unflatten(1, (count, size * size))


__all__ = ["barycentric", "rasterize"]
