"""Loading a detector with its processor, and the plain error where a folder is no checkpoint of ours."""

import json
import shutil

import pytest
import torch

from hiva_hf import hiva_small
from hiva_hf.checkpoint import load_detector
from hiva_hf.training import save_detector

# in alphabetical order, but not in that of their numbers
LABELS = ["AU12", "AU4", "AU6"]


def save(folder, *aus):
    torch.manual_seed(0)
    model, processor = hiva_small(*aus)
    return model.eval(), save_detector(model, processor, folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("checkpoints") / "run", LABELS)


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved[1], tmp_path / "run")


def test_model_and_processor_come_back(saved):
    model, folder = saved
    for place in (folder, str(folder)):
        loaded, processor = load_detector(place)
        assert not loaded.training
        assert loaded.config.au_names == processor.labels == LABELS
    pixel_values = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(pixel_values).logits, model(pixel_values).logits, rtol=0, atol=1e-5)


def test_options_reach_the_model(copy):
    model, _ = load_detector(copy, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16


def test_the_usual_action_units_come_back(tmp_path):
    _, folder = save(tmp_path / "run")
    model, processor = load_detector(folder)
    assert processor.labels == model.config.au_names


def test_a_processor_with_other_action_units_is_refused(copy):
    path = copy / "config.json"
    config = json.loads(path.read_text())
    config["id2label"]["1"] = "AU9"
    config["label2id"] = {name: int(index) for index, name in config["id2label"].items()}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"AU12, AU9, AU6; it describes AU12, AU4, AU6.*together"):
        load_detector(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "processor_config.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {name}\. Expected:\nDIR/") as caught:
        load_detector(copy)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_missing_folder_shows_the_tree(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder or a Hub id.*\nDIR/\n  config.json"):
        load_detector(name)


def damaged_config(folder):
    (folder / "config.json").write_text("{")


def damaged_processor(folder):
    (folder / "processor_config.json").write_text("{")


def damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"damaged")


def half_the_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_model(folder):
    (folder / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')


@pytest.mark.parametrize(
    "damage",
    [
        damaged_config,
        damaged_processor,
        damaged_weights,
        half_the_weights,
        another_model,
    ],
)
def test_a_damaged_checkpoint_is_named(copy, damage):
    damage(copy)
    with pytest.raises((ValueError, OSError)) as caught:
        load_detector(copy)
    assert str(copy) in str(caught.value)


def test_a_base_model_without_its_head_is_refused(saved, copy):
    saved[0].hiva.save_pretrained(copy)
    with pytest.raises(ValueError, match=r"whole detector; .*classifier\."):
        load_detector(copy)


def test_an_intensity_model_comes_back_with_its_processor(tmp_path):
    model, processor = hiva_small(LABELS, problem_type="regression")
    _, again = load_detector(save_detector(model, processor, tmp_path / "run"))
    assert again.post_process(torch.tensor([[3.5, -1.0, 9.0]])) == [{"AU12": 3.5, "AU4": 0.0, "AU6": 5.0}]
    assert again.post_process(torch.tensor([[3.5, 1.9, 2.0]]), active_only=True) == [{"AU12": 3.5, "AU6": 2.0}]
