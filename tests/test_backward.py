"""Checkpoints of every version since the first, read by this one: with the package, and by the code beside them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

import hiva_hf
from hiva_hf.checkpoint import load_detector

LABELS = ["AU12", "AU4", "AU6"]
LIMITS = {"AU12": 0.75, "AU4": 0.5, "AU6": 0.5}
ASSETS = Path(__file__).parent / "assets"
FOLDERS = sorted(path.parent for path in ASSETS.glob("*/*/config.json"))
TOLERANCE = {"rtol": 0, "atol": 1e-5}
every_checkpoint = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")

REMOTE = """
import json, sys
sys.modules["hiva_hf"] = None  # an import of the package fails from here on
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, pipeline

folder, trust = sys.argv[1], {"trust_remote_code": True}
pixel_values = load_file(f"{folder}/expected.safetensors")["pictures"] / 255
model = AutoModel.from_pretrained(folder, **trust).eval()
processor = AutoProcessor.from_pretrained(folder, **trust)
read = pipeline("facial-action-units", model=folder, **trust)
picture = (pixel_values[0] * 255).round().byte().permute(1, 2, 0).numpy()
print(json.dumps({
    "modules": [type(thing).__module__ for thing in (model, model.config, processor, read)],
    "logits": model(pixel_values).logits.tolist(),
    "scores": processor.post_process(model(pixel_values)),
    "limits": processor.limits(processor.labels),
    "read": read(picture, cropped=True)[0]["aus"],
}))
"""


@pytest.fixture
def expected(folder):
    return load_file(folder / "expected.safetensors")


def scores(expected):
    return [dict(zip(LABELS, row, strict=True)) for row in torch.sigmoid(expected["logits"]).tolist()]


def test_there_are_checkpoints_of_this_version():
    made = {path.name for path in ASSETS.glob(f"{hiva_hf.__version__}/*")}
    assert made == {"folded", "text"}, "run python tests/assets/make_checkpoints.py before a release"


def test_their_size_is_bearable():
    for version in ASSETS.glob("[0-9]*"):
        assert sum(path.stat().st_size for path in version.rglob("*.*")) < 400_000


@every_checkpoint
def test_the_answer_hangs_on_picture_and_weights(folder, expected):
    # a checkpoint that gave a constant would prove nothing
    assert (expected["logits"][0] - expected["logits"][1]).abs().min() > 1e-3
    model, _ = load_detector(folder)
    idle = []
    for name, weight in model.named_parameters():
        before = weight.data.clone()
        weight.data.mul_(0.5)
        with torch.inference_mode():
            change = (model(expected["pictures"] / 255).logits - expected["logits"]).abs().max()
        weight.data.copy_(before)
        if change < TOLERANCE["atol"]:
            idle.append(name)
    # softmax does not see what is added to all keys alike
    assert all(name.endswith(("k_proj.bias", "key.bias")) for name in idle), idle


@every_checkpoint
def test_load_detector_gives_the_logits_of_then(folder, expected):
    model, processor = load_detector(folder)
    with torch.inference_mode():
        outputs = model(expected["pictures"] / 255)
    torch.testing.assert_close(outputs.logits, expected["logits"], **TOLERANCE)
    assert processor.labels == LABELS == model.config.au_names
    assert processor.limits(processor.labels) == LIMITS
    for row, then in zip(processor.post_process(outputs), scores(expected), strict=True):
        assert row == pytest.approx(then, abs=1e-5)
    assert model.config.hiva_version == folder.parent.name


@every_checkpoint
def test_auto_model_gives_the_logits_of_then(folder, expected):
    model = AutoModel.from_pretrained(folder).eval()
    assert type(model) is hiva_hf.HiVAForImageClassification
    with torch.inference_mode():
        torch.testing.assert_close(model(expected["pictures"] / 255).logits, expected["logits"], **TOLERANCE)


@every_checkpoint
def test_the_processor_prepares_pictures_and_texts_as_then(folder, expected):
    model, processor = load_detector(folder)
    pictures = [picture.permute(1, 2, 0).numpy() for picture in expected["pictures"]]
    mean, std = (torch.tensor(value)[:, None, None] for value in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    prepared = processor(images=pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(prepared, (expected["pictures"] / 255 - mean) / std, **TOLERANCE)
    if model.hiva.text_model is not None:
        tokens = processor.tokenize_descriptions(num_descriptions=model.config.num_descriptions)
        assert torch.equal(tokens["input_ids"], model.hiva.description_ids)
        assert torch.equal(tokens["attention_mask"], model.hiva.description_mask)
        assert tokens["bank"] == model.config.description_bank


@every_checkpoint
def test_its_own_code_gives_the_logits_of_then(folder, expected, tmp_path):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", REMOTE, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert all(module.startswith("transformers_modules.") for module in found["modules"])
    torch.testing.assert_close(torch.tensor(found["logits"]), expected["logits"], **TOLERANCE)
    for row, then in zip(found["scores"], scores(expected), strict=True):
        assert row == pytest.approx(then, abs=1e-5)
    assert found["limits"] == LIMITS
    assert [row["label"] for row in found["read"]] == LABELS


@every_checkpoint
def test_what_is_loaded_and_saved_again_gives_the_logits_of_then(folder, expected, tmp_path):
    model, processor = load_detector(folder)
    model.save_pretrained(tmp_path / "again")
    processor.save_pretrained(tmp_path / "again")
    again, _ = load_detector(tmp_path / "again")
    assert again.config.hiva_version == hiva_hf.__version__
    with torch.inference_mode():
        torch.testing.assert_close(again(expected["pictures"] / 255).logits, expected["logits"], **TOLERANCE)


@every_checkpoint
def test_it_trains_on(folder, expected):
    model, _ = load_detector(folder)
    model.train()
    model(expected["pictures"] / 255, labels=torch.tensor([[1.0, 0.0, -100], [0.0, 1.0, 1.0]])).loss.backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
    assert model.classifier.bias.grad.abs().min() > 0
