"""A small face model for tests of the renderer: an egg with two eyes, in the coordinates of the real one."""

import json
import os

import numpy as np
import pytest

from hiva_hf.render import FaceModel
from hiva_hf.render.face_model import EXPRESSIONS

# where a shape moves the skin, for a person's left side, and which way
PLACES = {
    "browDown": ((3.2, 6.0), (-0.1, -0.7, 0.1)), "browInner": ((1.4, 6.0), (0, 0.8, 0)),
    "browOuter": ((4.6, 6.0), (0, 0.8, 0)), "cheek": ((4.2, 1.0), (0, 0.6, 0.2)), "eye": ((3.2, 3.9), (0, -0.6, 0)),
    "nose": ((1.0, 1.5), (0, 0.6, 0)), "mouthSmile": ((2.5, -3.5), (0.7, 0.7, -0.2)),
    "mouthFrown": ((2.5, -3.6), (0.1, -0.7, 0)), "mouthUpper": ((1.2, -2.5), (0, 0.6, 0)),
    "mouthLower": ((1.2, -4.4), (0, -0.6, 0)), "mouth": ((1.0, -3.4), (0.3, -0.2, 0.2)),
    "jaw": ((0.0, -6.0), (0, -1.5, 0)),
}  # fmt: skip


def _ball(columns, rows, radii, centre):
    turn, fall = np.meshgrid(np.arange(columns) / columns * 2 * np.pi, np.linspace(0.02, np.pi - 0.02, rows))
    places = np.stack([np.sin(fall) * np.sin(turn), np.cos(fall), np.sin(fall) * np.cos(turn)], -1).reshape(-1, 3)
    a = np.arange((rows - 1) * columns)
    b = a // columns * columns + (a + 1) % columns
    triangles = np.concatenate([np.stack([a, a + columns, b], 1), np.stack([b, a + columns, b + columns], 1)])
    return places * radii + centre, triangles


def _marks():
    arc = np.linspace(-1, 1, 17)
    jaw = np.stack([7.2 * np.sin(arc * 1.5), 3.5 - 11 * np.cos(arc * 1.5)], 1)
    brow = np.stack([np.linspace(-5.8, -1.2, 5), [5.2, 6.0, 6.3, 6.2, 5.9]], 1)
    nose = np.stack([np.zeros(4), [3.7, 2.6, 1.6, 0.4]], 1)
    nostrils = np.stack([np.linspace(-1.2, 1.2, 5), np.full(5, -1.1)], 1)
    eye = np.array([[-4.5, 3.4], [-3.9, 3.9], [-2.8, 3.9], [-1.8, 3.3], [-2.7, 3.0], [-3.9, 3.0]])
    turn = np.linspace(np.pi, -np.pi, 13)[:-1]
    mouth = np.stack([2.5 * np.cos(turn), -3.4 + np.sin(turn)], 1)
    turn = np.linspace(np.pi, -np.pi, 9)[:-1]
    inner = np.stack([2.1 * np.cos(turn), -3.4 + 0.2 * np.sin(turn)], 1)
    flip = [-1, 1]
    right_eye = (eye * flip)[[3, 2, 1, 0, 5, 4]]
    return np.concatenate([jaw, brow, brow[::-1] * flip, nose, nostrils, eye, right_eye, mouth, inner])


def tiny_model(modes=4):
    head, triangles = _ball(56, 44, (7.6, 11.5, 9.5), (0.0, 1.0, 2.5))
    parts, regions = [head], {"face": (0, len(head) - 1), "narrow_face": (0, len(head) - 1)}
    for name, x in (("sclera_L", 3.1), ("sclera_R", -3.1)):
        eye, of_eye = _ball(16, 12, 1.5, (x, 3.5, 9.6))
        start = sum(map(len, parts))
        regions[name] = (start, start + len(eye) - 1)
        parts.append(eye)
        triangles = np.concatenate([triangles, of_eye + start])
    neutral = np.concatenate(parts)
    front = np.where(head[:, 2] > 4, 0, 99)
    marks = [int((np.linalg.norm(head[:, :2] - mark, axis=1) + front).argmin()) for mark in _marks()]
    shapes = np.zeros((len(EXPRESSIONS), *neutral.shape))
    for row, name in enumerate(EXPRESSIONS):
        key = next(key for key in PLACES if name.startswith(key))
        (x, y), push = PLACES[key]
        for sign in {"L": (1,), "R": (-1,)}.get(name[-1] if "_" in name else "", (1, -1)):
            near = np.exp(-((neutral[:, 0] - sign * x) ** 2 + (neutral[:, 1] - y) ** 2) / 1.8) * (neutral[:, 2] > 2)
            shapes[row] += near[:, None] * push * np.array([sign, 1, 1])
    random = np.random.default_rng(0)
    waves = np.stack([np.sin(neutral * random.uniform(0.1, 0.3) + random.uniform(0, 6)) for _ in range(modes)]) * 0.25
    # the precision of the compact file, so that it gives back what it was given
    half = [np.float16(values).astype(np.float32) for values in (shapes, waves)]
    return FaceModel(neutral.astype(np.float32), triangles, half[0], half[1], regions, np.array(marks))


def write_folder(model, folder):
    """As users clone the toolkit: a Wavefront file a shape."""
    folder.mkdir(parents=True)

    def write(name, vertices):
        lines = ["# a comment", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices), "vt 0.0 0.0", "usemtl M_Face"]
        lines += [f"f {a + 1}/1/1 {b + 1}/1/1 {c + 1}/1/1" for a, b, c in model.triangles]
        (folder / name).write_text("\n".join(lines) + "\n")

    write("generic_neutral_mesh.obj", model.neutral)
    for name, shape in zip(EXPRESSIONS, model.expressions, strict=True):
        write(f"{name}.obj", model.neutral + shape)
    for number, mode in enumerate(model.identities):
        write(f"identity{number:03d}.obj", model.neutral + mode)
    (folder / "vertex_indices.json").write_text(json.dumps({"expressions": list(EXPRESSIONS)}))


def real_model():
    """ICT-FaceKit, where the environment names it."""
    path = os.environ.get("HIVA_ICT_FACEKIT")
    if not path:
        pytest.skip("HIVA_ICT_FACEKIT names no face model")
    return FaceModel.load(path)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("kit") / "model.npz"
    tiny_model().save(path)
    return path
