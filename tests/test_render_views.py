"""Views of a face: moved, tinted, covered, and the masks with them."""

import pytest
import torch

from hiva_hf.render.views import new_views

SIZE = 32


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def marked(count=64, side=SIZE + 8, at=(14, 24)):
    """Grey faces with a bright spot, and the masks of the spot, in the crop that is their middle."""
    images, margin = torch.full((count, 3, side, side), 0.3), (side - SIZE) // 2
    images[:, :, at[0] + margin - 2 : at[0] + margin + 2, at[1] + margin - 2 : at[1] + margin + 2] = 1.0
    masks = torch.zeros(count, 1, SIZE, SIZE)
    masks[:, :, at[0] - 2 : at[0] + 2, at[1] - 2 : at[1] + 2] = 1.0
    return images, masks


def centres(values):
    """Where the weight of (num_faces, SIZE, SIZE) lies: rows and columns."""
    place = torch.arange(SIZE, dtype=torch.float32)
    total = values.sum((1, 2)).clamp(min=1e-6)
    return torch.stack([(values.sum(2) * place).sum(1), (values.sum(1) * place).sum(1)], 1) / total[:, None]


def test_shapes_and_range():
    images, masks = marked()
    seen, moved = new_views(images, SIZE, generator(), masks=masks)
    assert seen.shape == (64, 3, SIZE, SIZE)
    assert moved.shape == masks.shape
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert new_views(images, SIZE, generator())[1] is None


def test_the_same_generator_gives_the_same_views():
    images, _ = marked(8)
    first, again = (new_views(images, SIZE, generator(3))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, new_views(images, SIZE, generator(4))[0])


def test_masks_go_where_the_face_goes():
    images, masks = marked(256)
    seen, moved = new_views(images, SIZE, generator(), masks=masks)
    spot = (seen.mean(1) - seen.mean(1).flatten(1).median(1).values[:, None, None]).clamp(min=0)
    # where nothing covers the spot, nor noise outweighs it
    plain = (spot.amax((1, 2)) > 0.25) & ((spot > 0.15).sum((1, 2)) < 40)
    assert plain.sum() > 100
    apart = (centres((spot > 0.15).float()) - centres(moved[:, 0])).norm(dim=1)[plain]
    assert apart.median() < 0.5
    assert apart.quantile(0.8) < 1.0


def test_half_of_the_faces_are_flipped():
    images, masks = marked(400)
    moved = new_views(images, SIZE, generator(), masks=masks)[1]
    right = centres(moved[:, 0])[:, 1] > SIZE / 2
    assert 0.4 < right.float().mean() < 0.6


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_strength_says_how_far_faces_are_moved(strength):
    images, masks = marked(600)
    places = centres(new_views(images, SIZE, generator(), strength, masks)[1][:, 0])
    # rows of a spot near the middle: of the shift alone, 2 % of the side
    spread = places[:, 0].std() / SIZE
    assert spread == pytest.approx(0.022 * strength, rel=0.25)


def spots(places, count=400, size=64):
    """Where spots at these rows and columns of a face come to lie in views of it: (num_faces, num_spots, 2)."""
    masks = torch.zeros(count, len(places), size, size)
    for channel, (row, column) in enumerate(places):
        masks[:, channel, row - 3 : row + 3, column - 3 : column + 3] = 1.0
    moved = new_views(torch.full((count, 3, size, size), 0.5), size, generator(), masks=masks)[1]
    place = torch.arange(size, dtype=torch.float32)
    total = moved.sum((2, 3)).clamp(min=1e-6)
    return torch.stack([(moved.sum(3) * place).sum(2) / total, (moved.sum(2) * place).sum(2) / total], 2)


def test_faces_become_wider_or_taller():
    at = spots([(20, 32), (44, 32), (32, 20), (32, 44)])
    ratio = ((at[:, 3] - at[:, 2]).norm(dim=1) / (at[:, 1] - at[:, 0]).norm(dim=1)).log()
    assert 0.03 < ratio.std() < 0.06
    assert ratio.mean().abs() < 0.01


def test_a_straight_line_of_a_face_bends_a_little():
    at = spots([(32, 16), (32, 32), (32, 48)])
    line = at[:, 2] - at[:, 0]
    across = torch.stack([-line[:, 1], line[:, 0]], 1) / line.norm(dim=1, keepdim=True)
    apart = ((at[:, 1] - at[:, 0]) * across).sum(1) / 64
    assert 0.002 < apart.std() < 0.008


def test_some_colours_are_deeper_and_some_paler():
    images = torch.tensor([0.7, 0.5, 0.4]).view(1, 3, 1, 1).expand(400, 3, SIZE, SIZE)
    seen = new_views(images, SIZE, generator())[0].median(3).values.median(2).values
    depth = (seen.amax(1) - seen.amin(1)) / seen.mean(1)
    assert depth[depth > 0.01].log().std() > 0.25


def test_what_lies_around_the_crop_comes_into_view():
    images, _ = marked(200)
    images[:] = 0.5
    images[:, :, :4] = images[:, :, -4:] = 0.0
    seen = new_views(images, SIZE, generator(), 3.0)[0]
    assert (seen[:, :, 0].mean((1, 2)) < 0.15).float().mean() > 0.2


def test_some_are_covered_and_some_at_the_edge_of_their_picture():
    images = torch.full((500, 3, SIZE, SIZE), 0.5)
    seen = new_views(images, SIZE, generator())[0]
    black = (seen.amax(1) == 0).flatten(1).any(1).float().mean()
    assert 0.02 < black < 0.12
    # a flat picture stays flat unless it is covered, noisy or at the edge
    flat = (seen.amax((2, 3)) - seen.amin((2, 3))).amax(1) < 1e-4
    assert 0.6 < flat.float().mean() < 0.85
