"""The Auto classes both ways: with this package, and from the saved folder alone."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from conftest import AUS, SIDE
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoProcessor,
    pipeline,
)

from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAModel, HiVAProcessor

REMOTE = """
import json, sys
sys.modules["hiva_hf"] = None  # an import of the package fails from here on
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoProcessor

folder, pixels = sys.argv[1:]
pixel_values = torch.load(pixels)
trust = {"trust_remote_code": True}
result = {"config": type(AutoConfig.from_pretrained(folder, **trust)).__module__}
for auto in (AutoModel, AutoModelForImageClassification):
    model = auto.from_pretrained(folder, **trust).eval()
    with torch.no_grad():
        outputs = model(pixel_values)
    result[auto.__name__] = outputs.logits.tolist() if "logits" in outputs else outputs.au_embeds.tolist()
if len(sys.argv) == 3 and "processor_config.json" in __import__("os").listdir(folder):
    processor = AutoProcessor.from_pretrained(folder, **trust)
    result["labels"] = processor.labels
    result["backend"] = AutoImageProcessor.from_pretrained(folder, **trust).backend
    result["shape"] = list(processor(images=Image.new("RGB", (50, 60)), return_tensors="pt")["pixel_values"].shape)
print(json.dumps(result))
"""


def remotely(folder, pixel_values, tmp_path):
    """What a process that cannot import hiva_hf gets from the folder."""
    torch.save(pixel_values, tmp_path / "pixels.pt")
    (tmp_path / "remote.py").write_text(REMOTE)
    command = [sys.executable, str(tmp_path / "remote.py"), str(folder), str(tmp_path / "pixels.pt")]
    environment = {**__import__("os").environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture
def detector(make_model, processor, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "detector")
    processor.save_pretrained(tmp_path / "detector")
    return model, tmp_path / "detector"


def test_locally_each_auto_class_finds_hiva(detector, pixel_values):
    model, folder = detector
    with torch.no_grad():
        expected = model(pixel_values).logits
        assert type(AutoConfig.from_pretrained(folder)) is HiVAConfig
        plain = AutoModel.from_pretrained(folder)
        assert type(plain) is HiVAForImageClassification
        assert torch.allclose(plain(pixel_values).logits, expected, atol=1e-6)
        assert torch.allclose(
            AutoModelForImageClassification.from_pretrained(folder)(pixel_values).logits, expected, atol=1e-6
        )
    assert type(AutoProcessor.from_pretrained(folder)) is HiVAProcessor
    assert AutoImageProcessor.from_pretrained(folder).__class__.__name__.startswith("HiVAImageProcessor")


def test_a_base_model_loads_as_such(detector, pixel_values, tmp_path):
    model, _ = detector
    model.hiva.save_pretrained(tmp_path / "base")
    assert type(AutoModel.from_pretrained(tmp_path / "base")) is HiVAModel
    fresh = copy.deepcopy(model.config)
    fresh.architectures = []
    assert type(AutoModel.from_config(fresh)) is HiVAForImageClassification


def test_auto_map_names_every_class(detector):
    # a checkpoint whose map held the saved class alone could not be loaded as AutoModel by remote code
    _, folder = detector
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    assert set(auto_map) >= {"AutoConfig", "AutoModel", "AutoModelForImageClassification"}
    stored = json.loads((folder / "processor_config.json").read_text())
    assert stored["auto_map"]["AutoProcessor"] == "processing_hiva.HiVAProcessor"
    for names in (*auto_map.values(), *stored["image_processor"]["auto_map"].values()):
        for name in [names] if isinstance(names, str) else names:
            assert (folder / f"{name.split('.')[0]}.py").is_file()


def test_the_folder_alone_gives_equal_logits(detector, pixel_values, tmp_path):
    model, folder = detector
    result = remotely(folder, pixel_values, tmp_path)
    assert "transformers_modules" in result["config"]
    expected = model(pixel_values).logits
    for auto in ("AutoModel", "AutoModelForImageClassification"):
        assert torch.allclose(torch.tensor(result[auto]), expected, atol=1e-6)
    assert result["labels"] == list(AUS)
    assert result["shape"] == [1, 3, SIDE, SIDE]


def test_a_folded_folder_alone_needs_no_tokenizer(make_folded, bank, pixel_values, tmp_path):
    model = make_folded()
    folder = tmp_path / "folded"
    model.save_pretrained(folder)
    image_processor = HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE})
    HiVAProcessor(image_processor, description_bank=bank.to_dict()).save_pretrained(folder)
    assert not (folder / "tokenizer_config.json").exists()
    result = remotely(folder, pixel_values, tmp_path)
    assert torch.allclose(torch.tensor(result["AutoModel"]), model(pixel_values).logits, atol=1e-6)
    assert result["labels"] == list(AUS)


@pytest.mark.parametrize("folded", [False, True])
def test_the_stock_pipeline_answers_with_sigmoid_scores(make_model, processor, tmp_path, folded):
    model = make_model()
    if folded:
        model.fold_text()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    classify = pipeline("image-classification", model=str(tmp_path), top_k=len(AUS))
    image = Image.effect_noise((40, 50), 80).convert("RGB")
    answer = {row["label"]: row["score"] for row in classify(image)}
    with torch.no_grad():
        logits = model(processor(images=image, return_tensors="pt")["pixel_values"]).logits
    expected = processor.post_process(logits)[0]
    assert answer.keys() == expected.keys()
    assert all(abs(answer[name] - expected[name]) < 1e-5 for name in expected)


def test_saving_twice_gives_the_same_files(detector, tmp_path):
    # a processor whose map is set by saving differs from the one that is loaded again
    _, folder = detector
    reloaded = AutoProcessor.from_pretrained(folder)
    reloaded.save_pretrained(tmp_path / "again")
    for name in ("processor_config.json",):
        assert (tmp_path / "again" / name).read_text() == (folder / name).read_text()
