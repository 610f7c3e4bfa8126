"""What the tests of the pipeline share: a saved detector, the pipeline of it, and pictures."""

from pathlib import Path

import pytest
from conftest import SIDE
from PIL import Image
from transformers import pipeline

from hiva_hf import HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.image_processing_hiva import open_image
from hiva_hf.pipeline_hiva import TASK

SKEWED = {
    "left_eye": [0.25, 0.2],
    "right_eye": [0.6, 0.25],
    "nose": [0.5, 0.5],
    "left_mouth": [0.3, 0.8],
    "right_mouth": [0.7, 0.7],
}


def save(model, bank, folder, **options):
    image_processor = HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE}, face_template=SKEWED)
    model.save_pretrained(folder)
    problem_type = model.config.problem_type
    processor = HiVAProcessor(image_processor, None, bank.to_dict(), problem_type=problem_type, **options)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(make_folded, bank, tmp_path):
    return save(make_folded(), bank, tmp_path / "run", thresholds={"AU4": 0.9})


@pytest.fixture
def read(folder):
    return pipeline(TASK, model=str(folder))


@pytest.fixture(scope="module")
def pictures():
    """Three faces of three sizes, one face, and none."""
    astronaut = open_image(Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png")
    head = astronaut.crop((140, 30, 300, 190))
    group = Image.new("RGB", (900, 420), "grey")
    for side, left in ((160, 10), (400, 180), (260, 600)):
        group.paste(head.resize((side, side)), (left, 10))
    return [group, astronaut, Image.new("RGB", (200, 150), "grey")]
