"""What a picture is of: people, what they show, and how they are photographed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .action_units import chosen_activation, sample_activation
from .face_model import EXPRESSIONS
from .people import linear, sample_people
from .random import Draws, derive, power

_LOOKS = tuple(f"eyeLook{way}_{side}" for side in "LR" for way in ("Out", "In", "Up", "Down"))
# shapes in the background, and pieces of what covers a face
NUM_CLUTTER, NUM_PIECES = 10, 5


@dataclass
class Scenes:
    """Pictures to be rendered.

    Args:
        subjects (`torch.Tensor` of shape `(num_images,)`): int64, number of the person.
        frames (`torch.Tensor` of shape `(num_images,)`): int64, number of the picture of this person.
        intensity (`torch.Tensor` of shape `(num_images, 22)`): int64, 0-5, in the order of `RENDERED_AUS`.
        contributions (`torch.Tensor` of shape `(num_images, 22, 53)`): What each AU adds to each shape.
        strength (`torch.Tensor` of shape `(num_images, 22)`): 0-1, for wrinkles.
        others (`torch.Tensor` of shape `(num_images, 53)`): Weights that no AU causes: the face at rest, the gaze.
        values (`dict[str, torch.Tensor]`): All other numbers, a row an image.
    """

    subjects: Tensor
    frames: Tensor
    intensity: Tensor
    contributions: Tensor
    strength: Tensor
    others: Tensor
    values: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.subjects)

    def _each(self, change) -> "Scenes":
        return Scenes(
            change(self.subjects), change(self.frames), change(self.intensity), change(self.contributions),
            change(self.strength), change(self.others), {name: change(value) for name, value in self.values.items()},
        )  # fmt: skip

    def to(self, device: str | torch.device) -> "Scenes":
        """The same on another device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def showing(self, strength: Tensor) -> "Scenes":
        """The same people and pictures with chosen action units, alike on both sides.

        Args:
            strength (`torch.Tensor` of shape `(num_images, 22)`):
                0-1, in the order of `RENDERED_AUS`; the levels A to E begin at [`LEVEL_EDGES`].

        Raises:
            ValueError: If the shape is another, or a number out of range.
        """
        if strength.shape != self.strength.shape or not 0 <= float(strength.min()) <= float(strength.max()) <= 1:
            raise ValueError(
                f"`strength` must be 0 to 1 of shape {tuple(self.strength.shape)}; got {tuple(strength.shape)} from "
                f"{float(strength.min()):.3g} to {float(strength.max()):.3g}."
            )
        made = chosen_activation(strength.to("cpu", torch.float32))
        device = self.subjects.device
        return Scenes(
            self.subjects, self.frames, made.intensity.to(device), made.contributions.to(device),
            made.strength.to(device), self.others, self.values,
        )  # fmt: skip

    def __getitem__(self, rows: slice | Tensor) -> "Scenes":
        return self._each(lambda value: value[rows])


def sample_scenes(
    subjects: Sequence[int] | Tensor, frames: Sequence[int] | Tensor, *, seed: int = 0, num_modes: int = 100
) -> Scenes:
    """Draw pictures; each depends on (seed, subject, frame) alone.

    Args:
        subjects (`Sequence[int]` or `torch.Tensor`): Number of the person of each picture; a person stays the same.
        frames (`Sequence[int]` or `torch.Tensor`): Number of the picture among those of the person.
        seed (`int`, defaults to 0): Another seed gives other people.
        num_modes (`int`, defaults to 100): Identity modes of the face model.

    Returns:
        [`Scenes`] on the CPU; thousands take a second.

    Raises:
        ValueError: If `subjects` and `frames` differ in length, are empty, or hold what is no whole number above -1.
    """
    who, when = torch.as_tensor(subjects), torch.as_tensor(frames)
    whole = not (who.is_floating_point() or when.is_floating_point())
    if who.ndim != 1 or who.shape != when.shape or not len(who) or not whole or min(who.min(), when.min()) < 0:
        raise ValueError(
            "`subjects` and `frames` must be lists of one length, at least 1, of whole numbers from 0 on; got shapes "
            f"{tuple(who.shape)} and {tuple(when.shape)} of {who.dtype} and {when.dtype}."
        )
    who, when = who.to("cpu", torch.int64), when.to("cpu", torch.int64)
    keys = derive(torch.tensor([seed], dtype=torch.int64).expand(len(who)), who)
    activation = sample_activation(keys, when)
    values = sample_people(keys, num_modes)
    place, frame = derive(keys, 2, when // 4), derive(keys, 3, when)
    others = values.pop("rest") + _gaze(Draws(derive(frame, 1)))
    values |= _camera(Draws(derive(place, 2)), Draws(derive(frame, 2)))
    values |= _light(Draws(derive(place, 3)))
    values |= _background(Draws(derive(place, 4)))
    values |= _covering(Draws(derive(frame, 5)))
    values |= _damage(Draws(derive(place, 6)), Draws(derive(frame, 6)))
    values["noise_key"] = derive(frame, 7)
    return Scenes(who, when, activation.intensity, activation.contributions, activation.strength, others, values)


def _gaze(d: Draws) -> Tensor:
    weights = torch.zeros(len(d.keys), len(EXPRESSIONS))
    spread = torch.where(d.chance(0.15), 0.55, 0.25)
    across, up = (d.normal() * spread).clamp(-0.9, 0.9), (d.normal() * spread * 0.8).clamp(-0.8, 0.8)
    amounts = {"Up": up, "Down": -up}
    for side, sign in (("L", 1.0), ("R", -1.0)):
        for way, amount in ({"Out": sign * across, "In": -sign * across} | amounts).items():
            weights[:, EXPRESSIONS.index(f"eyeLook{way}_{side}")] = amount.clamp(min=0)
    shift = d.normal(0, 0.12) * d.chance(0.2)
    weights[:, EXPRESSIONS.index("jawLeft")] = shift.clamp(min=0)
    weights[:, EXPRESSIONS.index("jawRight")] = (-shift).clamp(min=0)
    return weights


def _camera(place: Draws, d: Draws) -> dict[str, Tensor]:
    base = place.normal(0, 1, 3) * torch.tensor([11.0, 6.0, 4.0])
    pose = base + d.normal(0, 1, 3) * torch.tensor([9.0, 6.0, 5.0])
    turned = d.chance(0.12)
    pose[:, 0] += turned * d.uniform(15, 35) * torch.where(d.chance(0.5), 1.0, -1.0)
    limit = torch.tensor([50.0, 25.0, 20.0])
    return {
        "pose": torch.maximum(torch.minimum(pose, limit), -limit),
        "focal": torch.exp(place.uniform(0.45, 2.1)),
        "extent": d.uniform(0.60, 0.98),
        "shift": d.normal(0, 0.03, 2).clamp(-0.08, 0.08),
        # what a landmark detector gets wrong: places, scale, angle
        "jitter": d.normal(0, 1, 4).clamp(-2.5, 2.5),
    }


def _directions(d: Draws, low: float, high: float, spread: float) -> Tensor:
    around, above = d.normal(0, spread), d.uniform(low, high)
    flat = above.cos()
    return torch.stack([around.sin() * flat, above.sin(), around.cos() * flat], 1)


def _tint(d: Draws, spread: float) -> Tensor:
    warmth = d.normal(0, spread)[:, None] * torch.tensor([1.0, 0.1, -1.0])
    return torch.exp(warmth + d.normal(0, 0.03, 3))


def _light(d: Draws) -> dict[str, Tensor]:
    hard = d.chance(0.25)
    key = torch.where(hard, d.uniform(1.2, 3.0), d.uniform(0.3, 1.5))
    coloured = torch.where(d.chance(0.08), 0.35, 0.09)
    return {
        "key": _directions(d, -0.2, 1.15, 0.9),
        "key_light": key[:, None] * _tint(d, 0.1),
        "fill": _directions(d, -0.5, 0.9, 1.5),
        "fill_light": d.uniform(0, 0.7)[:, None] * torch.exp(d.normal(0, 1, 3) * coloured[:, None]),
        "rim": _directions(d, -0.3, 0.8, 0.5) * torch.tensor([1.0, 1.0, -0.6]),
        "rim_light": (d.uniform(0.3, 2.0) * d.chance(0.3))[:, None] * _tint(d, 0.15),
        "ambient": torch.where(hard, d.uniform(0.12, 0.45), d.uniform(0.3, 1.0))[:, None] * _tint(d, 0.08),
        "ambient_slope": d.normal(0, 0.3, 3) + torch.tensor([0.0, 0.32, 0.12]),
        "ambient_bend": d.normal(0, 0.12, 3),
        "exposure": torch.exp(d.normal(0, 0.33).clamp(-0.8, 0.7)),
        "shadow_softness": d.uniform(0, 1),
        "white_balance": _tint(d, 0.07)
        * torch.exp(d.normal(0, 1, 3) * torch.where(d.chance(0.12), 0.15, 0.02)[:, None]),
    }


def _background(d: Draws) -> dict[str, Tensor]:
    def colours(n: int) -> Tensor:
        vivid = torch.where(d.chance(0.25), 0.7, 0.2)[:, None, None]
        grey = power(d.uniform(0.01, 0.9, n), 1.3)
        return (grey[..., None] * torch.exp(d.normal(0, 1, 3 * n).unflatten(1, (n, 3)) * vivid)).clamp(0, 1)

    return {
        "backdrop": colours(3),
        "backdrop_kind": d.choice([0.3, 0.45, 0.25]),
        "backdrop_angle": d.uniform(0, 6.2832),
        "backdrop_noise": d.uniform(0, 1.2) * d.chance(0.6),
        "backdrop_scale": torch.exp(d.uniform(-1.2, 2.2)),
        "backdrop_shift": d.uniform(0, 256, 2),
        "backdrop_stripes": d.uniform(0.1, 0.7) * d.chance(0.15),
        "clutter": colours(NUM_CLUTTER),
        "clutter_place": d.uniform(-0.1, 1.1, 2 * NUM_CLUTTER).unflatten(1, (NUM_CLUTTER, 2)),
        "clutter_size": torch.exp(d.uniform(-3.6, -1.0, 2 * NUM_CLUTTER)).unflatten(1, (NUM_CLUTTER, 2)),
        "clutter_angle": d.uniform(0, 3.1416, NUM_CLUTTER),
        "clutter_round": d.chance(0.5, NUM_CLUTTER).float(),
        "clutter_blur": torch.exp(d.uniform(-5.0, -1.6)),
    }


def _covering(d: Draws) -> dict[str, Tensor]:
    """What lies over the face: fingers, a microphone, any object, or a mask of cloth."""
    kind = d.choice([0.83, 0.055, 0.035, 0.05, 0.03])
    centre, angle = d.normal(0, 0.30, 2), d.uniform(0, 6.2832)
    along = torch.stack([angle.cos(), angle.sin()], 1)
    across = torch.stack([-angle.sin(), angle.cos()], 1)
    n = NUM_PIECES
    steps = torch.arange(n) - n // 2
    width = d.uniform(0.055, 0.085)
    length = d.uniform(0.3, 0.6)[:, None] * d.uniform(0.75, 1.0, n)
    spread = (2.05 * width)[:, None] * steps + d.normal(0, 0.01, n)
    start = centre[:, None] + spread[..., None] * across[:, None]
    fan = d.normal(0, 0.12, n)[..., None] * across[:, None]
    finger_end = start + length[..., None] * (along[:, None] + fan)
    number = d.choice([0.3, 0.2, 0.2, 0.3]) + 2
    finger_radius = torch.where(torch.arange(n) < number[:, None], width[:, None], -1.0)
    # a microphone is a thick short piece before the mouth and a thin long one below; an object is one piece or two
    mouth = torch.stack([d.normal(0, 0.10), d.normal(0.36, 0.06)], 1)
    hand = mouth + torch.stack([d.normal(0, 0.25), d.uniform(0.5, 0.9)], 1)
    ball = torch.stack([mouth, mouth], 1)
    micro_start = torch.cat([ball, mouth[:, None].expand(-1, n - 2, -1)], 1)
    micro_end = torch.cat([mouth[:, None], hand[:, None].expand(-1, n - 1, -1)], 1)
    micro_radius = torch.tensor([1.0, 0.5] + [-1.0] * (n - 2)) * d.uniform(0.09, 0.17)[:, None]
    micro_radius = torch.where(micro_radius < 0, -1.0, micro_radius)
    box_end = centre + along * d.uniform(0.0, 0.5)[:, None]
    box_start, box_end = centre[:, None].expand(-1, n, -1), box_end[:, None].expand(-1, n, -1)
    box_radius = torch.tensor([1.0] + [-1.0] * (n - 1)) * d.uniform(0.07, 0.24)[:, None]
    box_radius = torch.where(box_radius < 0, -1.0, box_radius)
    none = torch.full_like(box_radius, -1.0)
    rows = torch.arange(len(kind))
    skin_like = linear((205, 160, 132)) * d.uniform(0.15, 1.2)[:, None] * torch.exp(d.normal(0, 0.1, 3))
    colour = torch.where((kind == 1)[:, None], skin_like, power(d.uniform(0.01, 0.8, 3), 1.3))
    return {
        "cover": kind,
        "cover_start": torch.stack([start, start, micro_start, box_start, start])[kind, rows],
        "cover_end": torch.stack([finger_end, finger_end, micro_end, box_end, finger_end])[kind, rows],
        "cover_radius": torch.stack([none, finger_radius, micro_radius, box_radius, none])[kind, rows],
        "cover_colour": colour,
        "mask_top": d.uniform(-1.2, 1.4),
        "mask_colour": torch.where(d.chance(0.6)[:, None], linear((190, 210, 225)), d.uniform(0.02, 0.8, 3)),
    }


def _damage(place: Draws, d: Draws) -> dict[str, Tensor]:
    """What camera, compression and screen do to a picture."""
    low = d.chance(0.3)
    moving = d.chance(0.12)
    return {
        "blur": torch.where(d.chance(0.5), d.uniform(0.2, 1.0), 0.0) + d.chance(0.1) * d.uniform(0.3, 1.4),
        "motion": torch.where(moving[:, None], d.uniform(0.0, 3.0, 2), 0.0),
        # a share of 160 pixels, down to 32 of them
        "detail": torch.where(low, torch.exp(d.uniform(-1.61, -0.1)), 1.0),
        "noise": torch.where(d.chance(0.7), d.uniform(0.0, 0.025), 0.0) + d.chance(0.1) * d.uniform(0.0, 0.06),
        "noise_colour": d.uniform(0, 1),
        "noise_grain": d.chance(0.4).float(),
        "grey": (place.chance(0.08) | d.chance(0.02)).float(),
        "saturation": place.uniform(0.55, 1.35),
        "gamma": torch.exp(place.normal(0, 0.16).clamp(-0.4, 0.4)),
        "contrast": torch.exp(place.normal(0, 0.14).clamp(-0.35, 0.35)),
        "black": place.uniform(0.0, 0.07) * place.chance(0.4),
        "sharpen": d.uniform(0.0, 0.9) * d.chance(0.3),
        "vignette": place.uniform(0, 0.5) * place.chance(0.25),
        "quality": torch.where(d.chance(0.55), d.uniform(15, 92), 100.0),
        "block_shift": d.uniform(0, 8, 2),
        "cast": place.normal(0, 0.02, 3),
    }


__all__ = ["NUM_CLUTTER", "NUM_PIECES", "Scenes", "sample_scenes"]
