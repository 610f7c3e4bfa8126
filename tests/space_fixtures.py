"""What the tests of the demo Space share: its page, two checkpoints with their detectors, and pictures."""

import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hiva_hf import ActionUnitDetector, hiva_small, hiva_small_text
from hiva_hf.training import save_detector

FOLDER = Path(__file__).parents[1] / "hub_cards" / "space"
THRESHOLDS = {"AU1": 0.3, "AU4": 0.8}
JAW = "The mouth is stretched wide open."
OPEN_AUS = ["AU1", "AU4", "AU12"]
# files of the page, which are modules while it is there
PARTS = ("reading", "drawing")


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", FOLDER / "app.py")
    module = importlib.util.module_from_spec(spec)
    # as for a script, its folder is looked through for its parts
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
        yield module
        for part in PARTS:
            del sys.modules[part]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two checkpoints, one of them open to other action units, and pictures with two faces, with none, and broken."""
    folder = tmp_path_factory.mktemp("space")
    torch.manual_seed(0)
    model, processor = hiva_small()
    processor.thresholds = THRESHOLDS
    save_detector(model, processor, folder / "closed")
    save_detector(*hiva_small_text(OPEN_AUS, au_projection="text"), folder / "open")
    astronaut = Image.fromarray(pytest.importorskip("skimage.data").astronaut())
    two = Image.new("RGB", (800, 512), "white")
    two.paste(astronaut, (0, 0))
    two.paste(astronaut.crop((130, 0, 330, 250)).resize((160, 200)), (560, 150))
    two.save(folder / "two.png")
    Image.new("RGB", (300, 300), "gray").save(folder / "nobody.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def closed(folder):
    return ActionUnitDetector(folder / "closed", activation_maps=True)


@pytest.fixture(scope="module")
def opened(folder):
    return ActionUnitDetector(folder / "open", activation_maps=True)


@pytest.fixture(scope="module")
def faces(closed, folder):
    faces = closed.image(folder / "two.png")
    assert [face.face_id for face in faces] == [0, 1]
    assert any(abs(faces[0].scores[label] - faces[1].scores[label]) > 0.002 for label in closed.labels)
    return faces


@pytest.fixture(scope="module")
def two(folder):
    return Image.open(folder / "two.png").convert("RGB")


def same_table(text, detector, faces, name):
    """A CSV that is read back against the detector's own table; all but the file's name."""
    table, expected = pd.read_csv(io.StringIO(text)), detector.to_dataframe(faces)
    assert list(table) == list(expected)
    assert table["source"].tolist() == [name] * len(faces)
    for column in set(expected) - {"source"}:
        assert np.allclose(table[column], expected[column], rtol=1e-5, atol=1e-5), column
