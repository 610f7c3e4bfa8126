"""Who is seen: shape, skin, hair, beard, glasses, clothes; one set of numbers a person."""

import torch
from torch import Tensor

from .face_model import EXPRESSIONS
from .random import Draws, derive, power

# sRGB, light to dark
_SKIN = (
    (250, 221, 205), (240, 200, 178), (228, 182, 152), (208, 158, 124), (178, 124, 92), (142, 94, 66), (104, 67, 48),
    (70, 45, 34),
)  # fmt: skip
_HAIR = ((20, 17, 16), (36, 27, 22), (60, 42, 28), (95, 66, 42), (142, 106, 66), (192, 162, 112), (126, 62, 32),
         (140, 138, 136), (208, 206, 202))  # fmt: skip
_IRIS = ((58, 36, 20), (84, 54, 30), (42, 28, 18), (112, 92, 56), (88, 116, 96), (96, 128, 156), (122, 142, 150))
# the hairline, as the height in cm at angles around the head from the middle of the forehead to that of the neck
HAIRLINE_ANGLES = (0.0, 25.0, 41.0, 55.0, 66.0, 77.0, 83.0, 90.0, 98.0, 110.0, 120.0, 128.0, 150.0, 180.0)
_HAIRLINE = (10.6, 10.4, 9.6, 8.3, 6.4, 3.6, 0.3, 1.3, 3.4, 2.7, -0.6, -4.0, -6.8, -7.0)
# shapes that also differ between faces at rest
_REST = tuple(
    name for name in EXPRESSIONS if name.startswith(("brow", "eyeSquint", "eyeWide", "mouth", "cheek", "nose", "jawF"))
)
# groups of wrinkles, see `atlas`
NUM_WRINKLES = 16


def linear(srgb) -> Tensor:
    """SRGB 0-255 as linear light, by a gamma of 2.2."""
    return power(torch.as_tensor(srgb, dtype=torch.float32) / 255.0, 2.2)


def _between(colours: Tensor, place: Tensor) -> Tensor:
    low = place.long().clamp(0, len(colours) - 2)
    share = (place - low)[:, None]
    return colours[low] * (1 - share) + colours[low + 1] * share


def sample_people(subject: Tensor, num_modes: int) -> dict[str, Tensor]:
    """Draw what stays the same from frame to frame.

    Args:
        subject (`torch.Tensor` of shape `(num_faces,)`): Keys of people.
        num_modes (`int`): Identity modes of the face model.

    Returns:
        `dict[str, torch.Tensor]`: A row a face.
    """
    d = Draws(derive(subject, 1))
    p: dict[str, Tensor] = {}
    spread = torch.where(d.chance(0.3), d.uniform(1.1, 1.5), d.uniform(0.75, 1.05))[:, None]
    p["identity"] = (d.normal(n=num_modes) * spread).clamp(-2.8, 2.8)
    p["rest"] = _resting_face(d)
    woman, age = d.chance(0.5), d.skewed(1.5, 1.8)
    p["age"] = age
    place = power(d.uniform(0, 1), 1.2) * (len(_SKIN) - 1.01)
    p["skin_tone"] = place / (len(_SKIN) - 1)
    stylised = d.chance(0.09)
    odd = torch.where(stylised, 0.16, 0.05)[:, None]
    p["skin"] = (_between(linear(_SKIN), place) * torch.exp(d.normal(0, 1, 3) * odd)).clamp(0.01, 0.95)
    grey = (0.3 * p["skin"][:, 0] + 0.59 * p["skin"][:, 1] + 0.11 * p["skin"][:, 2])[:, None]
    p["skin"] = p["skin"] + d.uniform(0.0, 0.3)[:, None] * (grey - p["skin"])
    p["smoothness"] = torch.where(stylised, 0.15, d.uniform(0.4, 1.6))
    _skin_marks(p, d, age, woman)
    _hair(p, d, age, woman)
    _brows_and_beard(p, d, age, woman)
    pale = d.choice([0.28, 0.2, 0.12, 0.12, 0.1, 0.1, 0.08])
    p["iris"] = linear(_IRIS)[torch.where(p["skin_tone"] > 0.5, pale % 3, pale)] * d.uniform(0.8, 1.5)[:, None]
    p["iris_size"], p["pupil"] = d.uniform(0.54, 0.66), d.uniform(0.16, 0.30)
    # the picture of dark skin is exposed longer, which leaves white parts too bright
    dim = (1 - 0.45 * p["skin_tone"])[:, None]
    p["sclera"] = linear((214, 204, 198)) * torch.exp(d.normal(0, 0.06, 3)) * d.uniform(0.7, 1.1)[:, None] * dim
    p["teeth"] = linear((212, 200, 176)) * torch.exp(d.normal(0, 0.03, 3)) * d.uniform(0.65, 1.25)[:, None] * dim
    p["gums"] = linear((172, 84, 82)) * torch.exp(d.normal(0, 0.1, 3))
    p["lash_thinning"] = torch.where(woman, d.uniform(0.35, 0.65), d.uniform(0.6, 0.9))
    _glasses(p, d)
    p["cloth"] = (power(d.uniform(0.02, 0.8, 3), 1.5) + 0.01).clamp(0, 0.8)
    p["cloth_pattern"] = d.uniform(0, 1) * d.chance(0.5)
    p["collar"] = d.uniform(-15.5, -10.5)
    p["shoulders"] = d.uniform(0.82, 1.12)
    return p


def _resting_face(d: Draws) -> Tensor:
    """Small weights of expression shapes that a face has at rest, alike on both sides but for a little."""
    rest = torch.zeros(len(d.keys), len(EXPRESSIONS))
    spread = torch.where(d.chance(0.35), d.uniform(0.06, 0.11), d.uniform(0.01, 0.05))
    for name in sorted({shape.removesuffix("_L").removesuffix("_R") for shape in _REST}):
        both = d.normal()
        for shape in [name] if name in EXPRESSIONS else [f"{name}_L", f"{name}_R"]:
            rest[:, EXPRESSIONS.index(shape)] = ((both + 0.35 * d.normal()) * spread).clamp(-0.13, 0.13)
    lids = d.normal(0.0, 0.07).clamp(-0.05, 0.2)
    for side in "LR":
        rest[:, EXPRESSIONS.index(f"eyeBlink_{side}")] = lids + d.normal(0, 0.015)
    # lips that touch at rest would part or sink into each other otherwise
    for shape in ("mouthClose", "mouthRollLower", "mouthRollUpper", "mouthFunnel"):
        rest[:, EXPRESSIONS.index(shape)] *= 0.4
    return rest


def _skin_marks(p: dict[str, Tensor], d: Draws, age: Tensor, woman: Tensor) -> None:
    p["redness"], p["blotches"] = d.uniform(0.1, 1.4), d.uniform(0.0, 1.2) * (0.5 + 0.8 * age)
    p["shadows_of_eyes"], p["grain"] = d.uniform(0.0, 1.3) * (0.5 + age), d.uniform(0.3, 1.4)
    p["freckles"] = d.uniform(0.2, 1.0) * d.chance(0.16) * (1 - p["skin_tone"])
    p["moles"] = d.uniform(0.3, 1.0) * d.chance(0.5)
    p["oil"] = d.uniform(0.2, 1.8)
    p["noise_shift"] = d.uniform(0, 256, 2)
    p["lips"] = p["skin"] * torch.tensor([0.80, 0.50, 0.50]) * d.uniform(0.75, 1.15)[:, None]
    stick = linear(torch.stack([d.uniform(110, 215), d.uniform(20, 110), d.uniform(35, 115)], 1))
    painted = woman & d.chance(0.45)
    p["lips"] = torch.where(painted[:, None], stick, p["lips"])
    p["lip_strength"] = torch.where(painted, d.uniform(0.6, 0.95), d.uniform(0.25, 0.95))
    made_up = woman & d.chance(0.5)
    p["eyeshadow"] = made_up * d.uniform(0.1, 1.1)
    p["eyeshadow_colour"] = d.uniform(0.2, 1.4, 3)
    p["eyeliner"] = torch.where(made_up, d.uniform(0.3, 1.0), d.uniform(0.0, 0.35))
    p["blush"] = made_up * d.uniform(0.0, 1.2)
    # how deep wrinkles are when an action unit folds the skin, and which are there at rest
    p["fold_depth"] = d.normal(0.35 + 0.8 * age, 0.25).clamp(0.03, 1.4)
    resting = d.normal(0.6 * age - 0.05, 0.18).clamp(0, 0.9)
    p["resting_folds"] = resting[:, None] * d.uniform(0.0, 1.3, NUM_WRINKLES) * d.chance(0.75, NUM_WRINKLES)
    p["fold_variant"] = d.uniform(0, 1, NUM_WRINKLES)
    p["bags"] = d.uniform(0, 1.2) * age


def _hair(p: dict[str, Tensor], d: Draws, age: Tensor, woman: Tensor) -> None:
    count = len(age)
    dark = torch.tensor([0.5, 0.3, 0.14, 0.03, 0.01, 0.01, 0.01])
    mixed = torch.tensor([0.14, 0.2, 0.22, 0.18, 0.13, 0.08, 0.05])
    a, b = d.choice(dark), d.choice(mixed)
    colour = torch.where(p["skin_tone"] > 0.5, a, b)
    colour = torch.where(d.chance((age * 1.6 - 0.9).clamp(0, 0.9)), 7 + d.choice([0.5, 0.5]), colour)
    p["hair"] = linear(_HAIR)[colour] * torch.exp(d.normal(0, 0.15))[:, None]
    dyed = d.chance(0.04)[:, None]
    p["hair"] = torch.where(dyed, d.uniform(0.02, 0.6, 3), p["hair"])
    # bald or shaved, short, medium, full, very full
    man_style, woman_style = d.choice([0.14, 0.22, 0.36, 0.22, 0.06]), d.choice([0.02, 0.05, 0.28, 0.45, 0.2])
    style = torch.where(woman, woman_style, man_style)
    lengths = torch.tensor([[0.0, 0.05], [0.15, 0.5], [0.5, 1.2], [1.0, 2.0], [1.8, 3.8]])[style]
    p["hair_length"] = lengths[:, 0] + (lengths[:, 1] - lengths[:, 0]) * d.uniform()
    p["scalp"] = torch.where(style == 0, d.uniform(0.0, 0.35), 0.94)
    line = torch.tensor(_HAIRLINE).repeat(count, 1)
    receding = d.uniform(-0.9, 0.9) + torch.where(woman, 0.0, 1.8 * age * d.uniform())
    line[:, :4] += receding[:, None]
    line[:, 1:4] += (d.uniform(0, 1.0) * receding.clamp(min=0))[:, None]
    line[:, 4:7] += d.uniform(-0.6, 0.8)[:, None]
    p["hairline"] = line + d.normal(0, 0.15, len(_HAIRLINE))
    fringe = d.chance(torch.where(woman, 0.38, 0.22)) & (style >= 2)
    p["fringe"] = fringe * d.uniform(1.2, 5.2)
    p["fringe_place"], p["fringe_width"] = d.normal(0, 3.0), d.uniform(2.0, 7.0)
    p["parting"] = d.normal(0, 2.5)
    p["curls"] = d.chance(torch.where(p["skin_tone"] > 0.55, 0.6, 0.2)) * d.uniform(0.3, 1.0)
    p["strand_shift"] = d.uniform(0, 256, 2)
    long_hair = d.chance(torch.where(woman, 0.55, 0.05)) & (style >= 2)
    p["long_hair"] = long_hair * d.uniform(0.25, 1.0)
    p["long_hair_opening"] = d.uniform(62, 100)
    covered = d.chance(0.09)
    p["hat"] = covered.float()
    scarf = covered & woman & d.chance(0.55)
    p["scarf"] = scarf.float()
    p["long_hair"] = torch.where(scarf, 1.0, p["long_hair"])
    p["long_hair_opening"] = torch.where(scarf, d.uniform(52, 70), p["long_hair_opening"])
    p["hat_colour"] = power(d.uniform(0.02, 0.8, 3), 1.4)
    p["hairline"] = torch.where(
        covered[:, None], p["hairline"] * torch.tensor([0.0] * 3 + [1.0] * 11) + d.uniform(7.6, 9.6)[:, None]
        * torch.tensor([1.0] * 3 + [0.0] * 11), p["hairline"],
    )  # fmt: skip
    p["hair_length"] = torch.where(covered, d.uniform(0.4, 1.1), p["hair_length"])
    p["fringe"] = torch.where(covered, 0.0, p["fringe"])


def _brows_and_beard(p: dict[str, Tensor], d: Draws, age: Tensor, woman: Tensor) -> None:
    p["brow_colour"] = (p["hair"] * d.uniform(0.5, 1.0)[:, None]).clamp(max=0.3)
    thick = torch.where(woman, d.uniform(0.2, 0.48), d.uniform(0.32, 0.75))
    p["brow_thickness"] = thick
    p["brow_density"] = torch.where(d.chance(0.07), d.uniform(0.0, 0.25), d.uniform(0.45, 1.15))
    p["brow_height"], p["brow_tilt"] = d.normal(0.0, 0.22).clamp(-0.5, 0.5), d.normal(0.0, 0.07)
    p["brow_arch"] = d.uniform(0.5, 1.7)
    p["brow_inner"] = torch.where(d.chance(0.06), d.uniform(0.1, 0.5), d.uniform(0.85, 1.6))
    p["brow_outer"] = d.uniform(5.0, 6.1)
    kind = torch.where(woman, 0, d.choice([0.36, 0.28, 0.12, 0.14, 0.10]))
    # none, stubble, moustache, beard, moustache and chin
    shade = d.uniform(0.25, 0.75)
    full = d.uniform(0.75, 1.0)
    p["beard"] = torch.stack([0 * shade, shade, 0.4 * shade, full, 0.3 * shade], 1).gather(1, kind[:, None])[:, 0]
    p["moustache"] = torch.stack([0 * shade, shade, full, full, full], 1).gather(1, kind[:, None])[:, 0]
    p["goatee"] = torch.stack([0 * shade, shade, 0.3 * shade, full, full], 1).gather(1, kind[:, None])[:, 0]
    p["beard_length"] = (kind >= 2) * d.uniform(0.05, 0.9)
    p["beard_colour"] = (p["hair"] * d.uniform(0.6, 1.1)[:, None]).clamp(max=0.5)


def _glasses(p: dict[str, Tensor], d: Draws) -> None:
    p["glasses"] = d.chance(0.2).float()
    p["rim_width"], p["rim_height"] = d.uniform(1.9, 2.7), d.uniform(1.3, 2.2)
    p["rim_power"], p["rim_thickness"] = d.uniform(1.0, 1.9), d.uniform(0.05, 0.26)
    p["rimless"] = d.chance(0.15).float()
    bright = d.chance(0.3)[:, None]
    p["rim_colour"] = torch.where(bright, d.uniform(0.05, 0.55, 3), d.uniform(0.004, 0.05, 3))
    p["rim_drop"] = d.uniform(-0.35, 0.25)
    dark = d.chance(0.12)
    p["lens_tint"] = torch.where(dark, d.uniform(0.45, 0.95), d.uniform(0.0, 0.12))
    p["lens_glare"] = d.uniform(0.0, 1.0) ** 2


__all__ = ["HAIRLINE_ANGLES", "NUM_WRINKLES", "linear", "sample_people"]
