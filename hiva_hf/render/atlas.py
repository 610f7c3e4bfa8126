"""Maps of the face that every face shares, on the plane before it: where lips, beard and make-up are, and wrinkles.

A point of the skin is looked up at its place on the mean face, so that what it finds sticks to the skin.
"""

import numpy as np
import torch
from torch import Tensor

# cm of the mean face that the maps show, and their resolution
X_RANGE, Y_RANGE = (-9.0, 9.0), (-11.0, 13.0)
WIDTH, HEIGHT = 324, 432
FEATURES = ("lips", "red", "eye_shade", "eyeshadow", "eyeliner", "beard", "moustache", "goatee", "blush", "oil", "bags")
VARIANTS = 3
# right half of each group of wrinkles as lines of (x, y); the left half is its mirror, `None` marks a line across
_FOLDS: dict[str, list[tuple[list[tuple[float, float]], float, float]]] = {
    "AU1": [([(0.0, y), (1.3, y + 0.22), (2.9, y - 0.08)], 0.13, 0.9) for y in (7.2, 8.0, 8.9)],
    "AU2": [([(1.3, y), (2.9, y + 0.15), (4.3, y), (5.3, y - 0.5)], 0.13, 0.9) for y in (7.3, 8.1, 9.0)],
    "AU4": [([(0.72, 4.7), (0.6, 5.6), (0.68, 6.5), (0.8, 7.1)], 0.15, 1.1), ([(0.0, 4.15), (0.9, 4.3)], 0.12, 0.6)],
    "AU6": [
        ([(4.8, 3.5), (5.5, 3.9), (6.2, 4.2)], 0.10, 0.8), ([(4.8, 3.35), (5.7, 3.4), (6.5, 3.5)], 0.10, 0.9),
        ([(4.75, 3.15), (5.6, 2.9), (6.4, 2.75)], 0.10, 0.9), ([(4.6, 2.9), (5.3, 2.4), (6.0, 2.1)], 0.10, 0.7),
        ([(1.9, 2.3), (2.8, 1.75), (4.0, 1.7), (4.9, 2.2)], 0.16, 0.8),
    ],
    "AU7": [([(2.0, 2.75), (3.0, 2.42), (4.1, 2.55), (4.7, 3.0)], 0.10, 0.9)],
    "AU9": [
        ([(0.0, 3.2), (0.8, 3.05), (1.3, 2.6)], 0.11, 0.9), ([(0.0, 2.75), (0.9, 2.6), (1.45, 2.1)], 0.11, 0.9),
        ([(0.0, 2.3), (0.9, 2.15), (1.5, 1.6)], 0.11, 0.8), ([(1.7, 2.7), (2.0, 2.0), (2.3, 1.4)], 0.12, 0.6),
    ],
    "AU10": [([(1.65, 0.3), (2.15, -0.5), (2.75, -1.4), (3.1, -2.2)], 0.20, 1.1)],
    "AU12": [([(1.9, -0.2), (2.7, -1.3), (3.25, -2.4), (3.5, -3.6), (3.4, -4.3)], 0.22, 1.2)],
    "AU14": [([(3.0, -2.7), (3.3, -3.5), (3.05, -4.3)], 0.19, 1.3)],
    "AU15": [([(2.7, -3.7), (3.1, -4.4), (3.2, -5.2)], 0.16, 1.0)],
    "AU17": [([(0.0, -4.95), (0.9, -5.05), (1.5, -5.3)], 0.18, 0.9)],
    "AU20": [([(3.0, -3.0), (3.5, -3.9), (3.6, -4.8)], 0.17, 0.8)],
    "AU23": [([(x, -2.0), (x * 1.05, -1.55)], 0.08, 0.6) for x in (0.35, 0.9, 1.45)]
    + [([(x, -4.5), (x * 1.05, -4.95)], 0.08, 0.6) for x in (0.35, 0.9, 1.45)],
    "AU24": [([(0.0, -1.6), (2.2, -1.7)], 0.16, 0.4), ([(0.0, -5.05), (2.2, -4.85)], 0.17, 0.8)],
    # of age alone: below the mouth, and cheeks
    "marionette": [([(2.7, -4.0), (3.0, -5.0), (3.2, -6.2)], 0.19, 0.9)],
    "cheek": [([(4.9, 1.5), (5.3, 0.0), (5.2, -1.8)], 0.22, 0.6), ([(5.7, 1.2), (6.1, -0.4)], 0.2, 0.5)],
}  # fmt: skip
FOLDS: tuple[str, ...] = tuple(_FOLDS)


def plane() -> tuple[np.ndarray, np.ndarray]:
    """X and y in cm of each texel, arrays of shape (HEIGHT, WIDTH); the first row is the highest."""
    x = X_RANGE[0] + (np.arange(WIDTH) + 0.5) / WIDTH * (X_RANGE[1] - X_RANGE[0])
    y = Y_RANGE[1] - (np.arange(HEIGHT) + 0.5) / HEIGHT * (Y_RANGE[1] - Y_RANGE[0])
    return np.meshgrid(x, y)


def smooth(value):
    """0 below 0, 1 above 1, and a smooth step between."""
    value = value.clip(0, 1)
    return value * value * (3 - 2 * value)


def _curve(points: np.ndarray, closed: bool = False, steps: int = 10) -> np.ndarray:
    """A Catmull-Rom curve through points."""
    count = len(points)
    found = []
    for k in range(count if closed else count - 1):
        at = [(k + j) % count if closed else min(max(k + j, 0), count - 1) for j in (-1, 0, 1, 2)]
        a, b, c, d = points[at]
        t = np.linspace(0, 1, steps, endpoint=False)[:, None]
        found.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*found, points[:1] if closed else points[-1:]])


def _distance(x: np.ndarray, y: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each place is from a line, and how far along it (0-1) its nearest point is."""
    a, b = line[:-1], line[1:]
    step = b - a
    px, py = x[..., None] - a[:, 0], y[..., None] - a[:, 1]
    t = ((px * step[:, 0] + py * step[:, 1]) / np.maximum((step**2).sum(1), 1e-9)).clip(0, 1)
    gap = np.hypot(px - t * step[:, 0], py - t * step[:, 1])
    nearest = gap.argmin(-1)
    take = np.take_along_axis
    return gap.min(-1), (nearest + take(t, nearest[..., None], -1)[..., 0]) / len(a)


def _inside(x: np.ndarray, y: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    odd = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        crosses = (ay > y) != (by > y)
        if crosses.any():
            odd ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay if by != ay else 1e-9) + ax)
    return odd


def feature_maps(landmarks: np.ndarray) -> Tensor:
    """Where on the face is what.

    Args:
        landmarks (`np.ndarray` of shape `(68, 3)`): Multi-PIE points of the mean face, cm.

    Returns:
        `torch.Tensor` of shape `(1, 11, HEIGHT, WIDTH)`: 0-1, in the order of [`FEATURES`].
    """
    x, y = plane()
    side = np.abs(x)

    def spot(cx, cy, wide, tall):
        return np.exp(-(((side - cx) / wide) ** 2) - ((y - cy) / tall) ** 2)

    lips = _curve(landmarks[48:60, :2], closed=True, steps=6)
    near = (side < 4) & (y < 0) & (y > -7)
    gap = np.full(x.shape, 9.0)
    gap[near] = _distance(x[near], y[near], lips)[0]
    gap = np.where(_inside(x, y, lips), gap, -gap)
    liner = np.zeros_like(x)
    for first in (36, 42):
        lid = _curve(landmarks[first : first + 4, :2])
        window = (np.abs(x - lid[:, 0].mean()) < 2.5) & (np.abs(y - lid[:, 1].mean()) < 1.5)
        away = _distance(x[window], y[window], lid)[0]
        liner[window] = np.maximum(liner[window], np.exp(-((away / 0.16) ** 2)))
    front = smooth((y + 10.5) / 2)
    jaw = smooth((-3.2 - y + 0.16 * side**1.3) / 1.2) * front
    cheeks = smooth((1.2 - y) / 1.5) * smooth((side - 5.3) / 1.0) * front
    beard = np.maximum(jaw, cheeks)
    beard *= 1 - 0.75 * spot(0, -5.0, 1.0, 0.5)
    moustache = np.exp(-(((y + 1.85 - 0.03 * side**2 * -1) / 0.6) ** 2)) * smooth((3.2 - side) / 0.9)
    maps = {
        "lips": smooth(gap / 0.22 + 0.45),
        "red": np.minimum(
            0.6 * spot(4.3, 0.2, 2.2, 2.0) + 0.5 * spot(0, 0.2, 1.5, 1.6) + 0.25 * spot(0, -6.4, 1.6, 1.2)
            + 0.2 * spot(0, 8, 4, 2.0), 1,
        ),
        "eye_shade": np.minimum(0.6 * spot(3.2, 2.45, 1.6, 0.7) + 0.4 * spot(3.2, 4.4, 1.6, 0.55), 1),
        "eyeshadow": spot(3.3, 4.45, 1.6, 0.5),
        "eyeliner": liner,
        "beard": beard,
        "moustache": moustache,
        "goatee": smooth((2.9 - side) / 0.8) * smooth((-4.6 - y) / 0.5) * front * (1 - 0.7 * spot(0, -4.9, 1.2, 0.35)),
        "blush": spot(4.6, 0.4, 1.7, 1.2),
        "oil": np.minimum(
            0.35 + 0.5 * spot(0, 1.2, 1.2, 3.2) + 0.4 * spot(0, 8.2, 3.5, 2.0) + 0.25 * spot(4.2, 1.2, 1.4, 1.0), 1.4
        ),
        "bags": spot(3.3, 2.1, 1.3, 0.38),
    }  # fmt: skip
    return torch.from_numpy(np.stack([maps[name] for name in FEATURES]).astype(np.float32))[None]


def fold_maps() -> Tensor:
    """Heights of wrinkles, in cm: furrows between slight ridges.

    Returns:
        `torch.Tensor` of shape `(num_groups * VARIANTS, HEIGHT * WIDTH)`: The drawings of [`FOLDS`], one group after
        the other; those of a group differ.
    """
    x, y = plane()
    random = np.random.default_rng(20)
    found = np.zeros((len(_FOLDS), VARIANTS, HEIGHT, WIDTH), dtype=np.float32)
    for group, lines in enumerate(_FOLDS.values()):
        for variant in range(VARIANTS):
            lift = random.normal(0, 0.18)
            for points, wide, depth in lines:
                for sign in (-1, 1):
                    line = np.array(points) + random.normal(0, 0.09, (len(points), 2)) + [0, lift]
                    line = _curve(line * [sign, 1])
                    wide_here, depth_here = wide * random.uniform(0.75, 1.3), depth * random.uniform(0.6, 1.25)
                    low, high = line.min(0) - 4 * wide_here, line.max(0) + 4 * wide_here
                    rows = (y[:, 0] > low[1]) & (y[:, 0] < high[1])
                    window = np.ix_(rows, (x[0] > low[0]) & (x[0] < high[0]))
                    gap, along = _distance(x[window], y[window], line)
                    fade = np.sin(np.pi * (0.06 + 0.88 * along)) ** 0.6
                    furrow = np.exp(-((gap / wide_here) ** 2)) - 0.4 * np.exp(-((gap / (2.4 * wide_here)) ** 2))
                    found[group, variant][window] -= 0.095 * depth_here * fade * furrow * (wide_here / 0.15)
    # the chin of AU17 wrinkles all over, like a peach stone
    chin = np.exp(-((x / 1.5) ** 2) - ((y + 6.3) / 0.9) ** 2)
    for variant in range(VARIANTS):
        bumps = random.normal(0, 1, (HEIGHT, WIDTH))
        for axis in (0, 1):
            bumps = sum(np.roll(bumps, k, axis) * np.exp(-((k / 3.5) ** 2) / 2) for k in range(-9, 10))
        bumps /= bumps.std()
        found[FOLDS.index("AU17"), variant] += (np.minimum(bumps, 0.4) * chin * 0.045).astype(np.float32)
    return torch.from_numpy(found.reshape(len(_FOLDS) * VARIANTS, -1))


def noise_texture(size: int = 256) -> Tensor:
    """Noise that repeats without a seam.

    Returns:
        `torch.Tensor` of shape `(1, 4, size, size)`: Mean 0, deviation 1: soft, soft, rough, and strands along y whose
        values are ranks from 0 to 1.
    """
    random = np.random.default_rng(21)

    def blurred(values, x_width, y_width):
        frequency = np.fft.fftfreq(size)
        x_pass = np.exp(-2 * (np.pi * frequency * x_width) ** 2)
        y_pass = np.exp(-2 * (np.pi * frequency * y_width) ** 2)
        values = np.fft.ifft2(np.fft.fft2(values) * y_pass[:, None] * x_pass[None]).real
        return (values - values.mean()) / values.std()

    white = random.normal(0, 1, (4, size, size))
    strands = blurred(white[3], 0.6, 7.0) + 0.5 * blurred(random.normal(0, 1, (size, size)), 2.5, 16.0)
    ranks = strands.ravel().argsort().argsort().reshape(size, size) / (size * size - 1)
    rough = 0.7 * blurred(white[2], 0.7, 0.7) + 0.7 * blurred(random.normal(0, 1, (size, size)), 2.0, 2.0)
    layers = [blurred(white[0], 1.2, 1.2), blurred(white[1], 1.2, 1.2), rough, ranks]
    return torch.from_numpy(np.stack(layers).astype(np.float32))[None]


__all__ = [
    "FEATURES",
    "FOLDS",
    "HEIGHT",
    "VARIANTS",
    "WIDTH",
    "X_RANGE",
    "Y_RANGE",
    "feature_maps",
    "fold_maps",
    "noise_texture",
    "smooth",
]
