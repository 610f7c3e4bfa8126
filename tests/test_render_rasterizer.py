"""The z-buffer against a loop over every triangle and pixel."""

import numpy as np
import pytest
import torch

from hiva_hf.render.rasterizer import barycentric, rasterize

SIZE = 24


def mesh(seed, count=40, images=2, spread=1.4):
    random = np.random.default_rng(seed)
    centres = random.uniform(-0.1, 1.1, (images, count, 1, 2)) * SIZE
    reach = random.choice([0.6, 2.0, 6.0, 30.0], (images, count, 1, 1))
    points = (centres + random.normal(0, 1, (images, count, 3, 2)) * reach * spread).reshape(images, -1, 2)
    near = random.uniform(0.02, 0.1, (images, count * 3))
    triangles = np.arange(count * 3).reshape(count, 3)
    return [torch.tensor(points).float(), torch.tensor(near).float(), torch.tensor(triangles)]


def naive(points, near, triangles, two_sided=None, keep=None):
    """What is nearest at each pixel, how near, and how close a call it was."""
    images = len(points)
    found = np.full((images, SIZE * SIZE), -1)
    best = np.zeros((images, SIZE * SIZE))
    sure = np.ones((images, SIZE * SIZE), dtype=bool)
    for image in range(images):
        p, w = points[image].double().numpy(), near[image].double().numpy()
        for number, (a, b, c) in enumerate(triangles.numpy()):
            if min(w[a], w[b], w[c]) <= 0:
                continue
            area = (p[b, 0] - p[a, 0]) * (p[c, 1] - p[a, 1]) - (p[b, 1] - p[a, 1]) * (p[c, 0] - p[a, 0])
            if area > 0 and not (two_sided is not None and two_sided[number]):
                continue
            for y in range(SIZE):
                for x in range(SIZE):
                    q = np.array([x + 0.5, y + 0.5])
                    shares = np.array([
                        (p[b, 0] - q[0]) * (p[c, 1] - q[1]) - (p[b, 1] - q[1]) * (p[c, 0] - q[0]),
                        (p[c, 0] - q[0]) * (p[a, 1] - q[1]) - (p[c, 1] - q[1]) * (p[a, 0] - q[0]),
                    ]) / area  # fmt: skip
                    shares = np.append(shares, 1 - shares.sum())
                    pixel = y * SIZE + x
                    if abs(shares.min()) < 1e-3:
                        sure[image, pixel] = False
                    if shares.min() < 0 or (keep is not None and not keep(number, shares)):
                        continue
                    depth = shares @ w[[a, b, c]]
                    if abs(depth - best[image, pixel]) < 1e-5:
                        sure[image, pixel] = False
                    if depth > best[image, pixel]:
                        best[image, pixel], found[image, pixel] = depth, number
    return found, sure


@pytest.mark.parametrize("seed", range(3))
def test_every_pixel_shows_what_a_loop_finds(seed):
    points, near, triangles = mesh(seed)
    expected, sure = naive(points, near, triangles)
    found = rasterize(points, near, triangles, SIZE).numpy()
    assert sure.mean() > 0.9
    assert (expected[sure] >= 0).any()
    assert (expected[sure] < 0).any()
    assert np.array_equal(found[sure], expected[sure])


def test_two_sides_and_what_is_not_there():
    points, near, triangles = mesh(3)
    both = torch.arange(len(triangles)) % 2 == 0
    every = rasterize(points, near, triangles, SIZE, two_sided=both).numpy()
    assert not np.array_equal(every, rasterize(points, near, triangles, SIZE).numpy())
    gone = [int(number) for number in np.unique(every[every >= 0])[-3:]]
    # one corner that is not there is enough
    near[:, [3 * number + 1 for number in gone]] = 0
    expected, sure = naive(points, near, triangles, both)
    found = rasterize(points, near, triangles, SIZE, two_sided=both).numpy()
    assert np.array_equal(found[sure], expected[sure])
    assert not np.isin(found, gone).any()


def test_fragments_that_are_not_kept_let_others_show():
    points, near, triangles = mesh(4)
    expected, sure = naive(points, near, triangles, keep=lambda number, shares: number < 10 or shares[0] > 0.3)
    told = []

    def keep(image, triangle, shares):
        told.append((image, triangle))
        assert torch.allclose(shares.sum(1), torch.ones(len(shares)), atol=1e-5)
        return shares[:, 0] > 0.3

    found = rasterize(points, near, triangles, SIZE, first_sparse=10, keep=keep).numpy()
    assert (found[sure] == expected[sure]).mean() > 0.995
    assert min(int(triangle.min()) for _, triangle in told if len(triangle)) >= 10


def test_neighbours_leave_no_gap():
    line = torch.linspace(-2.0, SIZE + 2.0, 14)
    y, x = torch.meshgrid(line, line, indexing="ij")
    bend = torch.stack([x + 0.3 * torch.sin(y), y + 0.3 * torch.sin(x)], 2).view(1, -1, 2)
    a = (torch.arange(13)[:, None] * 14 + torch.arange(13)).flatten()
    triangles = torch.cat([torch.stack([a, a + 14, a + 1], 1), torch.stack([a + 1, a + 14, a + 15], 1)])
    found = rasterize(bend, torch.ones(1, 196), triangles, SIZE)
    assert (found >= 0).all()


def test_barycentric_coordinates_are_those_of_space_not_of_the_picture():
    # a plane that leans away: at the middle of the picture its near corner weighs less than half
    points, near = torch.tensor([[[0.0, 0.0], [0.0, 24.0], [24.0, 0.0]]]), torch.tensor([[0.1, 0.1, 0.02]])
    triangles = torch.tensor([[0, 1, 2]])
    found = rasterize(points, near, triangles, SIZE)
    shares = barycentric(points, near, triangles[found.clamp(min=0)], SIZE)[:, 0, 12]
    picture = torch.tensor([1 - 12.5 / 24 - 0.5 / 24, 0.5 / 24, 12.5 / 24])
    expected = picture * near[0]
    assert torch.allclose(shares, expected / expected.sum(), atol=1e-5)
    assert shares[2] < 0.25


def test_too_many_triangles_are_refused():
    with pytest.raises(ValueError, match="`triangles` must be fewer than 1048576"):
        rasterize(torch.zeros(1, 3, 2), torch.ones(1, 3), torch.zeros(1 << 20, 3, dtype=torch.long), 8)
