"""Faces of another face model, to measure on: MakeHuman's base mesh and targets (CC0), drawn without its textures.

They share nothing with the faces that checkpoints are trained on: another mesh, other people, other shapes of the
action units, another shading. No checkpoint is trained or chosen on them. Of the action units only those are coded that
a target of MakeHuman moves; several move little.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from default_faces import TRAITS, KnownFaces
from PIL import Image

from hiva_hf.faces import FaceTemplate, similarity_transform, warp_face
from hiva_hf.plotting import figure_class
from hiva_hf.render.rasterizer import barycentric, rasterize

# what each target shows; braces stand for both sides
UNITS = {
    "eyebrows-{}-inner-up": ("AU1",),
    "eyebrows-{}-extern-up": ("AU2",),
    "eyebrows-{}-up": ("AU1", "AU2"),
    "eyebrows-{}-down": ("AU4",),
    "eye-{}-opened-up": ("AU5",),
    "eye-{}-slit": ("AU7",),
    "eye-{}-closure": ("AU43",),
    "nose-{}-elevation": ("AU9",),
    "mouth-elevation": ("AU10", "AU25"),
    "mouth-corner-puller": ("AU12",),
    "mouth-upward-retraction": ("AU12", "AU25"),
    "mouth-depression": ("AU15",),
    "mouth-depression-retraction": ("AU16", "AU25"),
    "mouth-pursing": ("AU18",),
    "mouth-parling": ("AU25",),
    "mouth-open": ("AU25", "AU27"),
}
CODED = tuple(dict.fromkeys(name for names in UNITS.values() for name in names))
# one of each of these at most: a lid does not open and close at once
ONE_OF = [
    [unit for unit in UNITS if unit.startswith("eyebrows")],
    [unit for unit in UNITS if unit.startswith("eye-")],
    [unit for unit in UNITS if unit.startswith("nose")],
    [unit for unit in UNITS if unit.startswith("mouth")],
]
_ACTIVE = 0.6
_PARTS = {"body": 0, "eye": 1, "teeth": 2, "tongue": 3, "eyelashes-1": 4, "eyelashes-2": 4}
_INSIDE = (_PARTS["teeth"], _PARTS["tongue"])
_EYES = ("helper-r-eye", "helper-l-eye")
DETAILS = ("cheek", "chin", "eyebrows", "forehead", "head", "mouth", "nose")
# of the details those that only move the head, and those that are as an action unit
_LEFT_OUT = (
    "head-trans", "head-back", "mouth-trans", "mouth-angles", "mouth-dimples", "mouth-laugh-lines",
    "mouth-lowerlip-ext", "mouth-lowerlip-middle", "mouth-upperlip-ext", "mouth-upperlip-middle",
    "eyebrows-angle", "eyebrows-trans",
)  # fmt: skip
# of teeth and tongue: lips that are closed would let them through
_BACK = 0.15
# below the neck nothing is drawn
_LOWEST = 5.6
GROUPS = ("african", "asian", "caucasian")
_SKIN = np.array([[0.24, 0.14, 0.10], [0.62, 0.42, 0.30], [0.78, 0.56, 0.46]])


class MakeHuman:
    """The mesh and its targets.

    Args:
        folder (`Path`): MakeHuman's or MPFB's folder `data`, which holds `3dobjs/base.obj` and `targets`.

    Raises:
        FileNotFoundError: If it does not.
        ValueError: If the mesh lacks the eyes.
    """

    def __init__(self, folder: Path):
        base = folder / "3dobjs" / "base.obj"
        if not base.is_file() or not (folder / "targets").is_dir():
            raise FileNotFoundError(
                "`makehuman` must be the folder data of MakeHuman or MPFB, with 3dobjs/base.obj and targets; "
                f"got {folder}."
            )
        self.folder = folder
        vertices, groups, group = [], {}, []
        for line in base.read_text().splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(value) for value in rest[:3]])
            elif kind == "g":
                group = groups.setdefault(rest[0], [])
            elif kind == "f":
                corners = [int(corner.split("/")[0]) - 1 for corner in rest]
                group += [(corners[0], corners[k], corners[k + 1]) for k in range(1, len(corners) - 1)]
        for eye in _EYES:
            if eye not in groups:
                raise ValueError(f"{base} must be MakeHuman's base mesh with a group {eye}; it has none.")
        self.vertices = np.array(vertices, np.float32)
        self.eyes = [np.unique(groups[eye]) for eye in _EYES]
        shown = [
            (part, triangles)
            for group, triangles in groups.items()
            for name, part in _PARTS.items()
            if group.endswith(name) and not group.startswith("joint")
        ]
        triangles = np.concatenate([triangles for _, triangles in shown])
        parts = np.concatenate([np.full(len(triangles), part) for part, triangles in shown])
        seen = self.vertices[triangles][:, :, 1].min(1) > _LOWEST
        self.triangles, self.parts = triangles[seen], parts[seen]
        self.vertices[np.unique(self.triangles[np.isin(self.parts, _INSIDE)]), 2] -= _BACK
        self._targets: dict[str, np.ndarray] = {}
        puller = self.target("expression/units/caucasian/mouth-corner-puller")
        x, y = self.vertices[:, 0], self.vertices[:, 1]
        moved = np.linalg.norm(puller, axis=1)
        front = np.where((np.abs(x) < 0.02) & (y > 6.75) & (y < 7.2), self.vertices[:, 2], -np.inf)
        # the corners of the mouth go farthest in a smile
        self.points = [int(front.argmax()), int((moved * (x < 0)).argmax()), int((moved * (x > 0)).argmax())]

    def target(self, name: str) -> np.ndarray:
        """What a target adds to the vertices.

        Args:
            name (`str`): Its path below `targets`, without the ending.

        Returns:
            `np.ndarray` of shape `(num_vertices, 3)`: Decimetres.

        Raises:
            FileNotFoundError: If there is none.
        """
        if name not in self._targets:
            files = [self.folder / "targets" / f"{name}.target{end}" for end in (".gz", "")]
            file = next((file for file in files if file.is_file()), None)
            if file is None:
                raise FileNotFoundError(f"`makehuman` must hold targets/{name}.target; {self.folder} does not.")
            text = (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()).decode()
            rows = [line.split() for line in text.splitlines() if line[:1].isdigit()]
            added = np.zeros_like(self.vertices)
            for number, *shift in rows:
                added[int(number)] = [float(value) for value in shift[:3]]
            self._targets[name] = added
        return self._targets[name]

    def person(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw somebody at rest.

        Args:
            random (`np.random.Generator`): Source of chance.

        Returns:
            `tuple`: Vertices of shape (num_vertices, 3), and how much of each of `GROUPS` is in the face, (3,).
        """
        looks = random.dirichlet([0.4] * 3)
        sex, age = random.beta(0.5, 0.5), random.beta(0.7, 1.2)
        face = self.vertices.copy()
        for group, share in zip(GROUPS, looks, strict=True):
            for name, part in (("female", 1 - sex), ("male", sex)):
                for years, much in (("young", 1 - age), ("old", age)):
                    face += share * part * much * self.target(f"macrodetails/{group}-{name}-{years}")
        for place in DETAILS:
            names = sorted(file.name.split(".")[0] for file in (self.folder / "targets" / place).glob("*.target*"))
            names = [name for name in names if not name.startswith(_LEFT_OUT)]
            for name in random.choice(names, min(3, len(names)), replace=False):
                face += random.uniform(0, 0.5) * self.target(f"{place}/{name}")
        return face, looks

    def expression(self, random: np.random.Generator, looks: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
        """Draw what a face shows.

        Args:
            random (`np.random.Generator`): Source of chance.
            looks (`np.ndarray` of shape `(3,)`): Of [`person`]; the shapes are those of the group that is most in it.

        Returns:
            `tuple`: What it adds to the vertices, (num_vertices, 3), and the intensity, 0-5, of each of `CODED`.
        """
        group = GROUPS[int(looks.argmax())]
        added, intensity = np.zeros_like(self.vertices), dict.fromkeys(CODED, 0)
        for units in ONE_OF:
            if random.uniform() > _ACTIVE:
                continue
            unit, strength = units[random.integers(len(units))], random.uniform(0.2, 1)
            for side in ("left", "right") if "{}" in unit else ("",):
                added += strength * self.target(f"expression/units/{group}/{unit.format(side)}")
            for name in UNITS[unit]:
                intensity[name] = int(np.ceil(5 * strength))
        return added, intensity


def known_faces(
    model: MakeHuman, names: Sequence[str], side: int, template: FaceTemplate, people: int, frames: int, seed: int = 0
) -> KnownFaces:
    """Draw faces, cut out by their true points, a little off as a landmark detector would be.

    Args:
        model ([`MakeHuman`]): The face model.
        names (`Sequence[str]`): Action units, in the order of the columns; one that is not in `CODED` is NaN.
        side (`int`): Of the crops, in pixels.
        template ([`FaceTemplate`]): Where the points of a face go.
        people (`int`): How many.
        frames (`int`): Of each.
        seed (`int`, defaults to 0): Of everything that is drawn.
    """
    images, intensity, traits = [], [], []
    for person in range(people):
        random = np.random.default_rng([seed, person])
        neutral, looks = model.person(random)
        colours = Colours(random, looks)
        for _ in range(frames):
            added, shown = model.expression(random, looks)
            picture, points, yaw, pitch = draw(model, neutral + added, colours, random)
            matrix = similarity_transform(points + random.normal(0, 1.5, points.shape), template.points * side)
            images.append(np.asarray(warp_face(Image.fromarray(picture), matrix, side)))
            intensity.append([shown.get(name, np.nan) for name in names])
            traits.append({"subject": person, "yaw": yaw, "pitch": pitch})
    known = pd.DataFrame(traits).reindex(columns=list(TRAITS))
    return KnownFaces(np.stack(images), np.array(intensity, float), known)


class Colours:
    """Of a person's skin, lips, hair and eyes, and where hair and brows are."""

    def __init__(self, random: np.random.Generator, looks: np.ndarray):
        self.skin = np.clip(looks @ _SKIN * np.exp(random.normal(0, 0.05, 3)) * random.uniform(0.8, 1.2), 0.05, 0.95)
        self.lips = self.skin * np.clip(random.normal([1.0, 0.68, 0.70], 0.07), 0.4, 1.2)
        self.hair = np.array([0.07, 0.05, 0.04]) + random.beta(0.6, 2) * np.array([0.5, 0.38, 0.25])
        self.iris = np.array([[0.18, 0.09, 0.04], [0.25, 0.35, 0.45], [0.22, 0.28, 0.15]])[random.integers(3)]
        self.hairline = random.uniform(8.0, 8.25) if random.uniform() < 0.8 else 9.0
        self.brows = random.uniform(0.5, 1)
        self.brow_width = random.uniform(0.025, 0.05)


def draw(model: MakeHuman, face: np.ndarray, colours: Colours, random: np.random.Generator, side: int = 256):
    """Photograph a face from somewhere, in some light.

    Args:
        model ([`MakeHuman`]): The face model.
        face (`np.ndarray` of shape `(num_vertices, 3)`): Vertices.
        colours ([`Colours`]): Of the person.
        random (`np.random.Generator`): Source of chance.
        side (`int`, defaults to 256): Of the picture in pixels.

    Returns:
        `tuple`: Picture, uint8 of shape (side, side, 3); eyes, nose and corners of the mouth in pixels, (5, 2); yaw and
        pitch of the head in degrees.
    """
    yaw, pitch, roll = random.normal(0, [12, 6, 4]).clip(-45, 45)
    middle = np.concatenate([face[eye] for eye in model.eyes]).mean(0) - [0, 0.25, 0.7]
    placed = (face - middle) @ _turn(yaw, pitch, roll).T
    distance, scale = random.uniform(9, 20), random.uniform(0.3, 0.38) * side
    depth = distance - placed[:, 2]
    pixels = side / 2 + distance * scale * placed[:, :2] * [1, -1] / depth[:, None]
    points, near = torch.from_numpy(pixels[None]).float(), torch.from_numpy(1 / depth[None]).float()
    two_sided = torch.from_numpy(model.parts == _PARTS["eyelashes-1"])
    seen = rasterize(points, near, torch.from_numpy(model.triangles), side, two_sided=two_sided)[0].numpy()
    corners = model.triangles[seen.clip(0)]
    shares = barycentric(points, near, torch.from_numpy(corners[None]), side)[:, 0].numpy()
    on = seen >= 0
    corners, shares, part = corners[on], shares[:, on].T[..., None], model.parts[seen[on]]
    normals = (_normals(placed, model.triangles)[corners] * shares).sum(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    rest = (model.vertices[corners] * shares).sum(1)
    albedo, gloss = _albedo(model, rest, part, colours, random)
    # little light falls through a slit between the lips
    inside = np.isin(part, _INSIDE)
    albedo[inside] *= np.clip(inside.sum() / (0.004 * side * side), 0.12, 1)
    light = _unit(random.normal([0, 0.4, 0.9], [0.6, 0.4, 0.2]))
    warm, cold = (random.uniform(0.9, 1.1) * np.exp(random.normal(0, 0.05, 3)) for _ in range(2))
    sky = 0.5 + 0.5 * normals @ _unit(random.normal([0, 1, 0.4], 0.4))
    amount = random.uniform(0.45, 0.8)
    lit = amount * np.clip(normals @ light, 0, 1)[:, None] * warm + (1 - amount) * (0.4 + 0.6 * sky[:, None]) * cold
    shine = gloss * np.clip(normals @ _unit(light + np.array([0, 0, 1])), 0, 1) ** 25
    picture = random.uniform(0.1, 0.9) + random.normal(0, 0.08, 3) * np.ones((side * side, 3))
    picture = picture * (1 + 0.3 * _noise(random, side, 6).reshape(-1, 1))
    picture[on] = random.uniform(1, 1.35) * albedo * lit + shine[:, None]
    picture = np.clip(picture, 0, 1).reshape(side, side, 3) ** random.uniform(0.75, 1.1)
    picture = picture + random.normal(0, random.uniform(0.002, 0.02), picture.shape)
    eyes = [pixels[eye].mean(0) for eye in model.eyes]
    return (picture.clip(0, 1) * 255).round().astype(np.uint8), np.array([*eyes, *pixels[model.points]]), yaw, pitch


def _albedo(model: MakeHuman, rest, part, colours: Colours, random) -> tuple[np.ndarray, np.ndarray]:
    """Colour and gloss of what is seen, by its place on the mesh at rest."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    albedo, gloss = np.tile(colours.skin, (len(rest), 1)), np.full(len(rest), random.uniform(0, 0.15))
    one, other = (rest @ random.normal(0, 1, (3, 1)) for _ in range(2))
    albedo *= 1 + 0.05 * np.sin(6 * one + 2 * np.sin(11 * other))
    front = (part == 0) & (z > 1.0)

    def paint(colour, much):
        albedo[:] = albedo + (colour - albedo) * np.clip(much, 0, 1)[:, None]

    paint(colours.lips, front * (1 - (x / 0.27) ** 2 - ((y - 6.605) / 0.11) ** 2) * 6)
    brow = 7.47 + 0.05 * np.sin((x - 0.1) / 0.42 * np.pi * 0.8)
    width = colours.brow_width * (1.15 - x).clip(0.1)
    inside = front & (x > 0.09) & (x < 0.55)
    paint(colours.hair, colours.brows * inside * np.clip(2 - 2 * np.abs(y - brow) / width, 0, 1))
    scalp = (part == 0) & ((y > colours.hairline) | ((z < 0.3) & (y > 7.0)))
    paint(colours.hair, scalp.astype(float))
    for eye in model.eyes:
        centre = model.vertices[eye].mean(0)
        apart = np.hypot(rest[:, 0] - centre[0], y - centre[1])
        mine = (part == 1) & (apart < 0.2)
        white = np.where(apart[:, None] < 0.075, colours.iris, 0.85)
        albedo[mine] = np.where(apart[:, None] < 0.03, 0.02, white)[mine]
    gloss[part == 1] = 0.5
    albedo[part == 2], albedo[part == 3], albedo[part == 4] = [0.85, 0.8, 0.72], [0.55, 0.25, 0.25], 0.05
    # deep in the mouth it is dark
    inner = (part == 0) & (x < 0.3) & (y > 6.45) & (y < 6.9) & (z < 1.28) & (z > 0.2)
    albedo[inner] = [0.18, 0.05, 0.05]
    return albedo, gloss


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    across, sums = np.cross(b - a, c - a), np.zeros_like(vertices)
    for k in range(3):
        np.add.at(sums, triangles[:, k], across)
    return sums


def _turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    a, b, c = np.radians([yaw, -pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _noise(random: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Smooth, about -1 to 1."""
    coarse = Image.fromarray(random.normal(0, 0.5, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def _unit(vector) -> np.ndarray:
    return np.asarray(vector) / np.linalg.norm(vector)


def plot_faces(faces: KnownFaces, names: Sequence[str], count: int = 30) -> Any:
    """Some of them, and what they show with its level."""
    figure = figure_class()(figsize=(10, 2.05 * -(-count // 6)), layout="constrained", dpi=130)
    chosen = np.linspace(0, len(faces) - 1, count).round().astype(int)
    for axes, row in zip(figure.subplots(-(-count // 6), 6).flat, chosen, strict=False):
        axes.imshow(faces.images[row])
        levels = np.nan_to_num(faces.intensity[row]).astype(int)
        shown = [f"{name[2:]}{'ABCDE'[level - 1]}" for name, level in zip(names, levels, strict=True) if level]
        axes.set_title(" ".join(shown) or "none", fontsize=8)
        axes.axis("off")
    return figure


__all__ = [
    "CODED", "DETAILS", "GROUPS", "ONE_OF", "UNITS", "Colours", "MakeHuman", "draw", "known_faces", "plot_faces",
]  # fmt: skip
