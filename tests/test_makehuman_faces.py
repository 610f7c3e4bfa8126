"""Faces of MakeHuman's model: read from a folder of its form, labelled as they were moved, and measured."""

# fixtures are named where they are used
# ruff: noqa: F811

import gzip

import measure_default
import numpy as np
import pandas as pd
import pytest
from makehuman_faces import CODED, DETAILS, GROUPS, ONE_OF, UNITS, Colours, MakeHuman, draw, known_faces
from measured import folder  # noqa: F401

from hiva_hf.faces import FaceTemplate

ROWS, COLUMNS = 15, 13
CORNERS = (3, 9)
MOUTH = 5


def place(row, column):
    return column / 10 - 0.6, 6.2 + row / 10 * 0.9, 1.4 - (column - 6) ** 2 / 40


def number(row, column):
    return row * COLUMNS + column


SIDES = [unit.format(side) for unit in UNITS for side in (("left", "right") if "{}" in unit else ("",))]


def mark(unit):
    """The vertex that this target alone moves."""
    return number(1 + SIDES.index(unit) // COLUMNS, SIDES.index(unit) % COLUMNS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A bent sheet with two eyes, a joint below the neck, and all targets; one is not compressed."""
    path = tmp_path_factory.mktemp("data")
    lines = ["# CC0", *(f"v {x} {y} {z}" for x, y, z in (place(r, c) for r in range(ROWS) for c in range(COLUMNS)))]
    faces = ["g body"]
    for row in range(ROWS - 1):
        for column in range(COLUMNS - 1):
            corners = [
                number(row, column),
                number(row, column + 1),
                number(row + 1, column + 1),
                number(row + 1, column),
            ]
            faces.append("f " + " ".join(f"{corner + 1}/1" for corner in corners))
    count = ROWS * COLUMNS
    for name, x in (("helper-r-eye", -0.3), ("helper-l-eye", 0.3), ("joint-l-eye", 0.3)):
        y = 2.0 if name.startswith("joint") else 7.25
        lines += [f"v {x + dx} {y + dy} 1.6" for dx, dy in ((-0.1, -0.1), (0.1, -0.1), (0.1, 0.1), (-0.1, 0.1))]
        faces += [f"g {name}", "f " + " ".join(str(count + k + 1) for k in range(4))]
        count += 4
    (path / "3dobjs").mkdir()
    (path / "3dobjs" / "base.obj").write_text("\n".join([*lines, *faces]) + "\n")

    def write(name, rows):
        file = path / "targets" / f"{name}.target.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress("\n".join(["# CC0", *rows]).encode()))

    for group in GROUPS:
        for unit in SIDES:
            corners = [number(MOUTH, column) for column in CORNERS] if unit == "mouth-corner-puller" else []
            rows = [f"{vertex} 0 .2 0" for vertex in corners] + [f"{mark(unit)} 0 .05 0"]
            write(f"expression/units/{group}/{unit}", rows)
        for sex in ("female", "male"):
            for age in ("young", "old"):
                write(f"macrodetails/{group}-{sex}-{age}", [f"{number(12, 6)} 0 0 .05"])
    for part in DETAILS:
        write(f"{part}/{part}-incr", [f"{number(8, 6)} 0 0 .02"])
    plain = path / "targets" / "nose" / "nose-incr.target.gz"
    plain.with_suffix("").write_bytes(gzip.decompress(plain.read_bytes()))
    plain.unlink()
    return path


def test_the_mesh_and_its_points(data):
    model = MakeHuman(data)
    assert len(model.triangles) == 2 * ((ROWS - 1) * (COLUMNS - 1) + 2)
    assert np.bincount(model.parts).tolist() == [2 * (ROWS - 1) * (COLUMNS - 1), 4]
    nose, right, left = model.vertices[model.points]
    assert abs(nose[0]) < 0.02
    assert (right[0], left[0]) == (pytest.approx(-0.3), pytest.approx(0.3))
    assert [model.vertices[eye][:, 0].mean().round(3) for eye in model.eyes] == [
        pytest.approx(-0.3),
        pytest.approx(0.3),
    ]


def test_what_is_moved_is_labelled(data):
    model, random, looks = MakeHuman(data), np.random.default_rng(0), np.array([0, 1, 0])
    seen = set()
    for _ in range(200):
        added, intensity = model.expression(random, looks)
        shown = {name for name, level in intensity.items() if level}
        moved = {unit for unit in UNITS if all(added[mark(unit.format(side))].any() for side in ("left", "right"))}
        assert shown == {name for unit in moved for name in UNITS[unit]}
        for unit in moved:
            strength = added[mark(unit.format("left")), 1] / 0.05
            assert {intensity[name] for name in UNITS[unit]} == {np.ceil(5 * strength - 1e-4)}
        assert set(intensity) == set(CODED)
        assert all(0 <= level <= 5 for level in intensity.values())
        assert not {"AU5", "AU43"} <= shown
        seen |= shown
    assert seen == set(CODED)
    assert sum(len(units) for units in ONE_OF) == len(UNITS)


def test_a_smile_lifts_the_corners_of_the_mouth_in_the_picture(data):
    model = MakeHuman(data)
    smile = model.target("expression/units/asian/mouth-corner-puller")
    looks = np.array([1.0, 0, 0])
    found = []
    for added in (0 * smile, smile):
        random = np.random.default_rng(5)
        face, _ = model.person(random)
        picture, points, yaw, pitch = draw(model, face + added, Colours(random, looks), random, side=96)
        assert picture.shape == (96, 96, 3)
        assert picture.dtype == np.uint8
        assert abs(yaw) <= 45
        assert abs(pitch) <= 45
        found.append(points)
    assert (found[1][3:, 1] < found[0][3:, 1] - 2).all()
    assert np.allclose(found[1][:2], found[0][:2])


def test_the_same_seed_gives_the_same_faces_and_what_is_not_coded_is_missing(data):
    names = ["AU12", "AU6"]
    first, again, other = (
        known_faces(MakeHuman(data), names, 32, FaceTemplate(), people=3, frames=2, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert first.images.shape == (6, 32, 32, 3)
    assert np.isnan(first.intensity[:, 1]).all()
    assert not np.isnan(first.intensity[:, 0]).any()
    assert first.traits["subject"].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_checkpoint_is_measured_on_them(data, folder, tmp_path):
    measure_default.main(folder, makehuman=data, out=tmp_path, people=20)
    table = pd.read_csv(tmp_path / "unseen-makehuman.csv")
    assert set(CODED) == {name for name in table["au"] if name.startswith("AU")}
    assert "MakeHuman" in (tmp_path / "unseen-makehuman.md").read_text()
    assert (tmp_path / "unseen-makehuman-faces.png").is_file()


def test_the_label_of_a_smile_is_that_of_a_smile():
    assert UNITS["mouth-corner-puller"] == ("AU12",)
    assert UNITS["eyebrows-{}-down"] == ("AU4",)
    assert UNITS["eye-{}-closure"] == ("AU43",)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be the folder data of MakeHuman.*3dobjs/base.obj"):
        MakeHuman(tmp_path)
    (tmp_path / "3dobjs").mkdir()
    (tmp_path / "targets").mkdir()
    (tmp_path / "3dobjs" / "base.obj").write_text("v 0 7 0\nv 1 7 0\nv 1 8 0\ng body\nf 1 2 3\n")
    with pytest.raises(ValueError, match=r"a group helper-r-eye; it has none"):
        MakeHuman(tmp_path)


def test_a_target_that_is_not_there_is_told(data):
    with pytest.raises(FileNotFoundError, match=r"must hold targets/mouth/mouth-none\.target"):
        MakeHuman(data).target("mouth/mouth-none")
