"""Reading the face model: the toolkit's folder, the compact file, and what is wrong with either."""

import numpy as np
import pytest
from render_model import real_model, tiny_model, write_folder

from hiva_hf.render import FaceModel
from hiva_hf.render.face_model import EXPRESSIONS, REGIONS


@pytest.fixture(scope="module")
def model():
    return tiny_model(2)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("kit") / "FaceXModel"
    write_folder(model, place)
    return place


def same(a, b, tolerance=0.0):
    for name in ("neutral", "triangles", "expressions", "identities", "landmarks"):
        assert np.allclose(getattr(a, name), getattr(b, name), rtol=0, atol=tolerance), name
    assert a.regions == b.regions


def test_the_folder_and_the_file_made_of_it_are_the_same(model, folder, tmp_path):
    tables = {"regions": model.regions, "landmarks": model.landmarks}
    read = FaceModel.load(folder, **tables)
    # six digits are written
    same(read, model, 5e-6)
    same(FaceModel.load(folder.parent, **tables), read)
    read.save(tmp_path / "model.npz")
    same(FaceModel.load(tmp_path / "model.npz"), read, 1e-3)
    model.save(tmp_path / "exact.npz")
    same(FaceModel.load(tmp_path / "exact.npz"), model)


def test_quads_are_split(tmp_path):
    from hiva_hf.render.face_model import read_obj

    (tmp_path / "quad.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1/1 2/2 3/3 4/4\n")
    vertices, triangles = read_obj(tmp_path / "quad.obj", faces=True)
    assert vertices.tolist()[2] == [1, 1, 0]
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`model` must be the folder FaceXModel .* is not there.*Expected"):
        FaceModel.load(tmp_path / "nothing.npz")
    with pytest.raises(FileNotFoundError, match=r"it lacks generic_neutral_mesh.obj, .* and others identity000.obj"):
        FaceModel.load(tmp_path)
    (tmp_path / "kit").mkdir()
    for file in folder.iterdir():
        (tmp_path / "kit" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "kit" / "jawOpen.obj").unlink()
    with pytest.raises(FileNotFoundError, match=r"it lacks jawOpen.obj\. Expected"):
        FaceModel.load(tmp_path / "kit")


def test_what_is_damaged_is_named(model, folder, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"broken.npz must be an .npz of a face model"):
        FaceModel.load(tmp_path / "broken.npz")
    np.savez(tmp_path / "few.npz", neutral=model.neutral)
    with pytest.raises(ValueError, match=r"few.npz must hold the arrays .*; it lacks tri, expr"):
        FaceModel.load(tmp_path / "few.npz")
    (tmp_path / "kit").mkdir()
    for file in folder.iterdir():
        (tmp_path / "kit" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "kit" / "identity001.obj").write_text("v 0 0 0\n")
    with pytest.raises(
        ValueError, match=r"identity001.obj must have the \d+ vertices of generic_neutral_mesh.obj; it has 1"
    ):
        FaceModel.load(tmp_path / "kit", regions=model.regions, landmarks=model.landmarks)
    (tmp_path / "kit" / "identity001.obj").write_text("v 0 zero 0\n")
    with pytest.raises(ValueError, match=r"identity001.obj must be a Wavefront .obj"):
        FaceModel.load(tmp_path / "kit", regions=model.regions, landmarks=model.landmarks)
    # the toolkit's own numbers do not fit so small a model
    (tmp_path / "kit" / "identity001.obj").unlink()
    with pytest.raises(ValueError, match=r"68 landmarks among them; it has \d+ vertices"):
        FaceModel.load(tmp_path / "kit")


def test_a_shape_that_is_missing_in_a_file_is_named(model, tmp_path):
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        held = dict(file)
    held["expr_names"] = np.array([name.replace("jawOpen", "jawShut") for name in EXPRESSIONS])
    np.savez(tmp_path / "model.npz", **held)
    with pytest.raises(ValueError, match=r"must hold all 53 shapes; it lacks jawOpen"):
        FaceModel.load(tmp_path / "model.npz")


def test_the_real_model_has_the_numbers_that_are_written_down():
    model = real_model()
    assert {name: model.regions[name] for name in REGIONS} == REGIONS
    assert model.identities.shape == (100, 26719, 3)
    # the tip of the nose is the foremost landmark, the lids are above one another
    assert model.neutral[model.landmarks][:, 2].argmax() == 30
    assert model.neutral[model.landmarks[37], 1] > model.neutral[model.landmarks[41], 1]
