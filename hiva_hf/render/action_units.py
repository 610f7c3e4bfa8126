"""Which action units a face shows, how strongly, and the shapes that make them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .face_model import EXPRESSIONS
from .random import Draws, derive, mixed

# shapes at full strength (level E); a name without its side is both sides. The anchor is the toolkit's own table of
# shapes closest to FACS; AU10 and AU23 differ from it, for they look like the units when rendered
_SHAPES: dict[str, dict[str, float]] = {
    "AU1": {"browInnerUp": 1.2},
    "AU2": {"browOuterUp": 1.15},
    "AU4": {"browDown": 1.4},
    "AU5": {"eyeWide": 1.15},
    "AU6": {"cheekSquint": 1.1, "eyeSquint": 0.2},
    "AU7": {"eyeSquint": 1.1, "eyeBlink": 0.2},
    "AU9": {"noseSneer": 1.1, "browDown": 0.3},
    "AU10": {"mouthUpperUp": 0.9, "noseSneer": 0.12},
    "AU12": {"mouthSmile": 1.0, "cheekSquint": 0.15},
    "AU14": {"mouthDimple": 0.9},
    "AU15": {"mouthFrown": 1.0},
    "AU16": {"mouthLowerDown": 0.9},
    "AU17": {"mouthShrugLower": 1.0},
    "AU18": {"mouthPucker": 0.9},
    "AU20": {"mouthStretch": 1.0},
    "AU22": {"mouthFunnel": 0.85},
    "AU23": {"mouthRollLower": 0.45, "mouthRollUpper": 0.45, "mouthPucker": 0.25},
    "AU24": {"mouthPress": 1.0, "mouthRollLower": 0.2, "mouthRollUpper": 0.2},
    "AU25": {"mouthLowerDown": 0.38, "mouthUpperUp": 0.14, "jawOpen": 0.07},
    "AU26": {"jawOpen": 0.45},
    "AU27": {"jawOpen": 0.95},
    "AU43": {"eyeBlink": 1.0},
}
RENDERED_AUS: tuple[str, ...] = tuple(_SHAPES)
# how often each is there in frames that are neither at rest nor of one or two units; over all frames common ones
# come close to BP4D, rare ones are more common than in life
_RATES = dict(
    zip(
        RENDERED_AUS,
        (0.28, 0.24, 0.30, 0.12, 0.56, 0.58, 0.13, 0.56, 0.68, 0.52, 0.24, 0.14, 0.40, 0.09, 0.12, 0.10, 0.26, 0.22,
         0.44, 0.24, 0.06, 0.07),
        strict=True,
    )
)  # fmt: skip
_TOGETHER = {
    (1, 2): 0.6, (1, 4): 0.15, (1, 5): 0.3, (2, 5): 0.35, (4, 7): 0.25, (4, 9): 0.35, (6, 7): 0.45, (6, 10): 0.4,
    (6, 12): 0.6,
    (7, 10): 0.35, (7, 12): 0.3, (10, 12): 0.4, (10, 14): 0.2, (12, 14): 0.2, (6, 14): 0.15, (9, 10): 0.35,
    (15, 17): 0.5, (4, 15): 0.2, (17, 23): 0.3, (17, 24): 0.4, (23, 24): 0.3, (12, 15): -0.3, (6, 15): -0.2,
    (12, 17): -0.2, (12, 25): 0.35, (6, 25): 0.25, (10, 25): 0.25, (25, 26): 0.5, (24, 25): -0.6, (23, 25): -0.4,
    (17, 25): -0.35, (24, 26): -0.5, (23, 26): -0.3, (12, 23): -0.2, (12, 24): -0.15, (5, 26): 0.25, (1, 26): 0.2,
    (5, 7): -0.3, (26, 27): 0.5, (4, 20): 0.2, (12, 18): -0.3, (16, 25): 0.3,
}  # fmt: skip
# shares of the levels A to E, and the strength at which each begins and ends
_LEVELS = (0.16, 0.28, 0.28, 0.17, 0.11)
LEVEL_EDGES: tuple[float, ...] = (0.16, 0.30, 0.46, 0.64, 0.82, 1.0)
_INDEX = {name: k for k, name in enumerate(RENDERED_AUS)}
_SHAPE = {name: k for k, name in enumerate(EXPRESSIONS)}
_SPEECH = ("AU10", "AU16", "AU17", "AU18", "AU20", "AU22", "AU24")
_ONE_SIDED = ("AU2", "AU4", "AU6", "AU10", "AU12", "AU14", "AU15", "AU20")


def _shape_table() -> Tensor:
    table = torch.zeros(len(RENDERED_AUS), len(EXPRESSIONS))
    for au, shapes in _SHAPES.items():
        for name, strength in shapes.items():
            for full in [name] if name in _SHAPE else [f"{name}_L", f"{name}_R"]:
                table[_INDEX[au], _SHAPE[full]] = strength
    return table


def _correlations() -> Tensor:
    matrix = torch.eye(len(RENDERED_AUS), dtype=torch.float64)
    for (a, b), value in _TOGETHER.items():
        i, j = _INDEX[f"AU{a}"], _INDEX[f"AU{b}"]
        matrix[i, j] = matrix[j, i] = value
    values, vectors = torch.linalg.eigh(matrix)
    matrix = (vectors * values.clamp(min=0.03)) @ vectors.T
    scale = matrix.diagonal().sqrt()
    return torch.linalg.cholesky(matrix / scale[:, None] / scale).float()


_TABLE, _FACTOR = _shape_table(), _correlations()
_SIDE = torch.tensor([1 if n.endswith("_L") else 2 if n.endswith("_R") else 0 for n in EXPRESSIONS])


@dataclass
class Activation:
    """What a face does.

    Args:
        intensity (`torch.Tensor` of shape `(num_faces, 22)`): int64, 0 where absent, 1-5 for the levels A-E.
        contributions (`torch.Tensor` of shape `(num_faces, 22, 53)`): What each unit adds to the weight of each shape.
        strength (`torch.Tensor` of shape `(num_faces, 22)`): 0-1 and continuous; a trace of it is there in units that
            are absent.
    """

    intensity: Tensor
    contributions: Tensor
    strength: Tensor


def level_of(strength: Tensor) -> Tensor:
    """Levels 0-5 of strengths; below the first of [`LEVEL_EDGES`] a unit is absent."""
    return torch.bucketize(strength, torch.tensor(LEVEL_EDGES[:-1], device=strength.device), right=True)


def sample_activation(subject: Tensor, frame_number: Tensor) -> Activation:
    """Draw what faces show: moods of a few frames, habits of people, and rules of what excludes what.

    Args:
        subject (`torch.Tensor` of shape `(num_faces,)`): Keys of people.
        frame_number (`torch.Tensor` of shape `(num_faces,)`): int64.
    """
    person = Draws(derive(subject, 11))
    mood = Draws(derive(subject, 12, frame_number // 6))
    draw = Draws(derive(subject, 13, frame_number))
    count = len(RENDERED_AUS)
    habit = person.normal(0, 0.45, count)
    latent = mixed(0.6 * mood.normal(n=count) + 0.8 * draw.normal(n=count), _FACTOR) + habit
    tail = 0.5 * torch.erfc(latent / (2 * (1 + 0.45**2)) ** 0.5)
    rates = torch.tensor([_RATES[au] for au in RENDERED_AUS])
    present = tail < rates
    rank = (0.5 * (1 - tail / rates) + 0.5 * draw.uniform(n=count)).clamp(0, 0.999)
    rank = ((rank - 0.14) / 0.72).clamp(0, 0.999)
    strength = torch.where(present, _strength(rank), 0.0)
    strength = _special_frames(strength, draw)
    strength = _exclusions(strength)
    intensity = level_of(strength)
    trace = (draw.normal(0, 0.035, count)).clamp(0, 0.1)
    strength = torch.where(intensity > 0, strength, trace)
    return Activation(intensity, _contributions(strength, person, draw), strength)


def _strength(rank: Tensor) -> Tensor:
    """Strength from a rank among the faces that show a unit."""
    edges = torch.tensor([0.0, *_LEVELS]).cumsum(0)
    level = torch.bucketize(rank, edges[1:-1], right=True)
    low, high = edges[level], edges[level + 1]
    marks = torch.tensor(LEVEL_EDGES)
    return marks[level] + (rank - low) / (high - low) * (marks[level + 1] - marks[level]) * 0.999


def _special_frames(strength: Tensor, draw: Draws) -> Tensor:
    """Frames at rest, frames of one or two units alone, and mouths that speak."""
    count = len(RENDERED_AUS)
    kind = draw.choice([0.14, 0.16, 0.14, 0.56])
    alone, second = draw.choice([1.0] * count), draw.choice([1.0] * count)
    level = _strength(draw.uniform(0, 0.999, 2))
    single = torch.zeros_like(strength).scatter_(1, alone[:, None], level[:, :1])
    pair = single.scatter(1, second[:, None], level[:, 1:])
    single = torch.where(draw.chance(0.4)[:, None], pair, single)
    speech = strength.clone()
    for au in ("AU12", "AU14", "AU15", "AU23", "AU24", "AU27"):
        quiet = draw.chance(0.5)
        speech[:, _INDEX[au]] = torch.where(quiet, 0.0, speech[:, _INDEX[au]] * 0.6)
    speech[:, _INDEX["AU25"]] = draw.uniform(0.2, 0.85)
    jaw = draw.uniform(-0.2, 0.75)
    speech[:, _INDEX["AU26"]] = torch.where(jaw > LEVEL_EDGES[0], jaw, 0.0)
    shaped, depth = draw.choice([1.0] * len(_SPEECH)), draw.uniform(0.0, 0.6)
    for k, au in enumerate(_SPEECH[:-1]):
        speech[:, _INDEX[au]] = torch.where((shaped == k) & (depth > LEVEL_EDGES[0]), depth, speech[:, _INDEX[au]])
    kinds = torch.stack([torch.zeros_like(strength), single, speech, strength])
    return kinds[kind, torch.arange(len(kind))]


def _exclusions(strength: Tensor) -> Tensor:
    s = dict(zip(RENDERED_AUS, strength.unbind(1), strict=True))

    def off(au: str, where: Tensor) -> None:
        s[au] = torch.where(where, 0.0, s[au])

    def level(au: str, at_least: int = 1) -> Tensor:
        return s[au] >= LEVEL_EDGES[at_least - 1]

    off("AU26", level("AU27"))
    open_mouth = level("AU26") | level("AU27")
    off("AU24", open_mouth)
    off("AU23", open_mouth & level("AU23", 3))
    parted = level("AU26", 2) | level("AU27")
    s["AU25"] = torch.where(parted, s["AU25"].clamp(min=0.36), s["AU25"])
    for au in ("AU25", "AU16", "AU22"):
        off(au, level("AU24"))
    off("AU22", level("AU23", 2))
    for au in ("AU16", "AU27"):
        off(au, level("AU17", 3))
    for au in ("AU18", "AU20", "AU22"):
        off(au, level("AU12", 3))
    off("AU5", level("AU43"))
    off("AU7", level("AU43"))
    # eyes are closed from level B on; weaker lowering of the lid is no unit
    s["AU43"] = torch.where(level("AU43"), s["AU43"].clamp(min=0.75), s["AU43"])
    return torch.stack(list(s.values()), 1)


def _contributions(strength: Tensor, person: Draws, draw: Draws) -> Tensor:
    """What each unit adds to each shape, with uneven sides, and with sums that no face exceeds scaled down."""
    count = len(RENDERED_AUS)
    gain = person.normal(0.97, 0.12, count).clamp(0.7, 1.25)
    sides = person.normal(1, 0.07, 2 * count) * draw.normal(1, 0.07, 2 * count)
    sides = sides.clamp(0.7, 1.25).unflatten(1, (count, 2))
    weak, side = draw.chance(0.10), draw.choice([0.5, 0.5])
    unit, left = draw.choice([1.0] * len(_ONE_SIDED)), draw.uniform(0.0, 0.35)
    numbers = torch.tensor([_INDEX[au] for au in _ONE_SIDED])[unit]
    rows = torch.arange(len(unit))
    sides[rows, numbers, side] = torch.where(weak, sides[rows, numbers, side] * left, sides[rows, numbers, side])
    both = torch.stack([sides.mean(2), sides[..., 0], sides[..., 1]], 2)
    parts = (strength * gain)[:, :, None] * _TABLE * both[:, :, _SIDE]
    return parts * _limit(parts.sum(1))[:, None]


def chosen_activation(strength: Tensor) -> Activation:
    """Exactly these units, alike on both sides.

    Args:
        strength (`torch.Tensor` of shape `(num_faces, 22)`): 0-1, in the order of `RENDERED_AUS`.

    Returns:
        [`Activation`]: Its intensities are those of [`level_of`].
    """
    parts = strength[:, :, None] * _TABLE
    return Activation(level_of(strength), parts * _limit(parts.sum(1))[:, None], strength)


def _limit(total: Tensor) -> Tensor:
    """A factor a shape, so that sums stay within what a face does."""
    # brows and cheeks move less in the face model than in life: they may go beyond its full shapes
    limited = torch.minimum(total, _MOST)
    for side in "LR":
        at = {name: _SHAPE[f"{name}_{side}"] for name in _HALVES_LIMITED}
        blink = limited[:, at["eyeBlink"]].clamp(max=1.0)
        limited[:, at["eyeBlink"]] = blink
        limited[:, at["eyeSquint"]] = torch.minimum(limited[:, at["eyeSquint"]], 1.2 - 0.7 * blink)
        for group, most in ((("mouthUpperUp", "noseSneer"), 1.25), (_CORNER, 1.35)):
            columns = [at[name] for name in group]
            limited[:, columns] *= (most / limited[:, columns].sum(1, keepdim=True).clamp(min=1e-6)).clamp(max=1.0)
    return torch.where(total > 1e-6, limited / total.clamp(min=1e-6), 1.0)


_MOST = torch.tensor([1.6 if n.startswith(("brow", "cheekS", "eyeWide")) else 1.15 for n in EXPRESSIONS])
_CORNER = ("mouthSmile", "mouthDimple", "mouthFrown", "mouthStretch")
_HALVES_LIMITED = ("eyeBlink", "eyeSquint", "mouthUpperUp", "noseSneer", *_CORNER)

__all__ = ["LEVEL_EDGES", "RENDERED_AUS", "Activation", "chosen_activation", "level_of", "sample_activation"]
