"""What the tests of the measurements share: tiny checkpoints, tiny faces, and faces that are made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from default_faces import KnownFaces

from hiva_hf import hiva_small
from hiva_hf.presets import VISUAL_ONLY
from hiva_hf.render import RENDERED_AUS, FaceModel, FaceRenderer, Rendering, write_faces
from hiva_hf.training import save_detector

SIDE = 48
TOWER = {
    "model_type": "resnet", "layer_type": "basic", "embedding_size": 16, "hidden_sizes": [16, 16, 32],
    "depths": [1, 1, 1],
}  # fmt: skip


def saved(folder, **fields):
    torch.manual_seed(0)
    model, processor = hiva_small(RENDERED_AUS, vision_config=TOWER, **fields)
    processor.image_processor.size = {"height": SIDE, "width": SIDE}
    if fields.get("use_descriptions", True):
        processor.thresholds = dict.fromkeys(RENDERED_AUS, 0.4)
    return save_detector(model, processor, folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("default") / "model", intensity_head=True)


@pytest.fixture(scope="session")
def visual(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("visual") / "model", **VISUAL_ONLY)


@pytest.fixture(scope="session")
def parquet(model_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("faces")
    write_faces(model_file, path, 4, Rendering(frames=8, seed=3, size=64))
    return path


@pytest.fixture(scope="session")
def renderer(model_file):
    return FaceRenderer(FaceModel.load(model_file), size=SIDE)


def traits(count):
    return pd.DataFrame(
        {"subject": range(count), "yaw": 0.0, "pitch": 0.0, "skin_tone": 0.5, "occluded": False, "glasses": False}
    )


def known(intensity, masks=None):
    intensity = np.asarray(intensity, dtype=float)
    images = np.zeros((len(intensity), 8, 8, 3), np.uint8)
    return KnownFaces(images, intensity, traits(len(intensity)), masks)
