"""LoRA on the text tower: it alone is touched, saved alone, loaded, merged, folded and resumed."""

import copy
import json

import pytest
import torch
from command import fails_with
from conftest import AUS, text_config
from peft import PeftModel
from towers import DESCRIPTIONS, each_text, make_text_model, pixels, sentences
from transformers import AutoModelForImageClassification, set_seed

from hiva_hf import HiVAConfig, HiVAForImageClassification, build_trainer
from hiva_hf.checkpoint import load_detector
from hiva_hf.data import load_rendered
from hiva_hf.lora import BASE_FILE, add_text_lora, is_adapter, load_adapter, text_lora_config
from hiva_hf.training import training_arguments

LAYERS = 2


def adapted(model):
    """Modules that an adapter was put into."""
    return [name for name, module in model.named_modules() if hasattr(module, "lora_A")]


def changed(model):
    """LoRA begins as nothing: give it something to say."""
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(len(name)))
    return model.eval()


@each_text
def test_the_attention_of_every_text_encoder_and_nothing_else(model_type):
    model = add_text_lora(make_text_model(model_type))
    touched = adapted(model)
    # query, key, value and output of each layer
    assert len(touched) == 4 * LAYERS
    assert all(".hiva.text_model." in name for name in touched)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert len(trained) == 2 * len(touched)
    assert all("lora_" in name for name in trained)


def test_a_base_model_too():
    assert len(adapted(add_text_lora(make_text_model("bert").hiva))) == 4 * LAYERS


@each_text
def test_merged_logits_are_equal_and_fold(model_type):
    model = make_text_model(model_type)
    ids, mask = sentences()
    model.set_descriptions(ids, mask)
    before = model(pixels(32, 32)).logits
    peft_model = changed(add_text_lora(model))
    with torch.no_grad():
        expected = peft_model(pixels(32, 32)).logits
        assert (expected - before).abs().max() > 1e-4
        merged = peft_model.merge_and_unload()
        assert type(merged) is HiVAForImageClassification
        torch.testing.assert_close(merged(pixels(32, 32)).logits, expected, atol=1e-5, rtol=0)
        folded = merged.fold_text()
        torch.testing.assert_close(folded(pixels(32, 32)).logits, expected, atol=1e-5, rtol=0)
    assert folded.hiva.text_embeds.shape[:2] == (len(AUS), DESCRIPTIONS)


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"rslora": True}], ids=["lora", "dora", "rslora"])
def test_the_adapter_alone_is_saved_and_loaded(make_model, processor, tmp_path, pixel_values, options):
    base = make_model()
    base.save_pretrained(tmp_path / "base")
    base = HiVAForImageClassification.from_pretrained(tmp_path / "base")
    model = changed(add_text_lora(base, text_lora_config(4, **options)))
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = model(pixel_values).logits
    files = {path.name: path.stat().st_size for path in (tmp_path / "adapter").iterdir()}
    assert "model.safetensors" not in files
    assert files["adapter_model.safetensors"] < 0.2 * (tmp_path / "base" / "model.safetensors").stat().st_size
    assert is_adapter(tmp_path / "adapter")
    assert not is_adapter(tmp_path / "base")
    stored = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (stored["use_dora"], stored["use_rslora"]) == (options.get("dora", False), options.get("rslora", False))
    on_base = PeftModel.from_pretrained(
        HiVAForImageClassification.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    in_one_line = AutoModelForImageClassification.from_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        for loaded in (on_base, in_one_line):
            torch.testing.assert_close(loaded.eval()(pixel_values).logits, expected, atol=1e-5, rtol=0)


@pytest.fixture
def adapter(make_model, tmp_path):
    """An adapter and the logits that it gives on its base."""
    base = make_model()
    base.save_pretrained(tmp_path / "base")
    model = changed(add_text_lora(HiVAForImageClassification.from_pretrained(tmp_path / "base")))
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def test_an_adapter_tells_its_base_and_loads_on_it(make_model, adapter, pixel_values):
    model, folder = adapter
    told = json.loads((folder / BASE_FILE).read_text())
    assert told["action_units"] == list(AUS)
    assert told["text_tower"] == {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300}
    assert told["descriptions"] == model.config.description_bank
    loaded = load_adapter(make_model(), folder)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(pixel_values).logits, model(pixel_values).logits, atol=1e-5, rtol=0)
    # as the Trainer and what is copied write it
    copy.deepcopy(model).save_pretrained(folder.parent / "again")
    assert json.loads((folder.parent / "again" / BASE_FILE).read_text()) == told


WIDER = {**text_config(300), "hidden_size": 48}


@pytest.mark.parametrize("record", [True, False], ids=["told", "by-shape"])
def test_an_adapter_of_another_text_tower_is_one_sentence(make_model, adapter, record):
    _, folder = adapter
    if not record:
        (folder / BASE_FILE).unlink()
    with pytest.raises(ValueError, match="`adapter` must belong to this base") as error:
        load_adapter(make_model(text_config=WIDER), folder)
    assert "a text encoder of type bert, width 48, 2 layers and 300 tokens" in str(error.value)
    assert f"Load the base that it was trained on, {folder.parent / 'base'}" in str(error.value)
    with pytest.raises(ValueError, match="`adapter` must belong to this base"):
        load_adapter(make_text_model("distilbert"), folder)
    # fewer layers
    with pytest.raises(ValueError, match="`adapter` must belong to this base"):
        load_adapter(make_model(text_config={**text_config(300), "num_hidden_layers": 1}), folder)


def test_an_adapter_of_other_action_units_or_descriptions_is_one_sentence(make_model, make_folded, processor, adapter):
    _, folder = adapter
    other = make_model()
    other.config.id2label = {0: "AU1", 1: "AU4", 2: "AU6"}
    with pytest.raises(ValueError, match="on the action units AU1, AU4, AU12, and this base has AU1, AU4, AU6"):
        load_adapter(other, folder)
    other = make_model()
    other.set_descriptions(**processor.tokenize_descriptions({au: ["One sentence."] for au in AUS}))
    with pytest.raises(ValueError, match=r"on the descriptions facs-en-v1@.*, and this base has custom"):
        load_adapter(other, folder)
    with pytest.raises(ValueError, match="and this base has no text encoder"):
        load_adapter(make_folded(), folder)
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        load_adapter(make_model(), folder)


def test_trainer_trains_it_and_resumes(make_model, processor, tmp_path):
    faces = load_rendered(aus=AUS)
    splits = {"train": faces.select(range(16)), "validation": faces.select(range(30, 40))}

    def run(folder, resume=None):
        set_seed(0)
        model = add_text_lora(make_model(hidden_dropout_prob=0.0), text_lora_config(2))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        settings = training_arguments(
            folder, num_train_epochs=2, per_device_train_batch_size=4, learning_rate=0.01, save_strategy="steps",
            save_steps=4, eval_strategy="no", load_best_model_at_end=False, save_total_limit=None, disable_tqdm=True,
        )  # fmt: skip
        trainer = build_trainer(model, processor, splits, settings)
        trainer.train(resume_from_checkpoint=resume)
        after = model.state_dict()
        return {name for name in after if not torch.equal(after[name], before[name])}, after

    moved, whole = run(tmp_path / "run")
    assert moved
    assert all("lora_" in name for name in moved)
    assert is_adapter(tmp_path / "run" / "checkpoint-4")
    _, resumed = run(tmp_path / "run2", str(tmp_path / "run" / "checkpoint-4"))
    for name in moved:
        torch.testing.assert_close(resumed[name], whole[name], atol=1e-6, rtol=0)


def test_the_command(hiva, place, data):
    common = ("--data", data, "--epochs", 3, "--batch-size", 4, "--workers", 0, "--test-subjects", "S002")
    result = hiva("train", "-o", "base", "--preset", "small-text", "--aus", "12,4", *common)
    assert result.code == 0, result.err
    result = hiva("train", "-c", "base", "-o", "tuned", "--lora-rank", 4, "--dora", *common)
    assert result.code == 0, result.err
    # the adapter alone, and the merged detector, which is one like any other
    assert (place / "tuned" / "adapter" / "adapter_model.safetensors").stat().st_size < 400_000
    stored = json.loads((place / "tuned" / "adapter" / "adapter_config.json").read_text())
    assert (stored["r"], stored["use_dora"]) == (4, True)
    assert stored["base_model_name_or_path"] == str(place / "base")
    merged = HiVAForImageClassification.from_pretrained("tuned").eval()
    base = HiVAForImageClassification.from_pretrained("base").eval()
    moved = {name for name, value in merged.state_dict().items() if not torch.equal(value, base.state_dict()[name])}
    assert moved
    assert all(name.startswith("hiva.text_model.") for name in moved)
    # and loaded on its base it is that detector, its calibration and thresholds with it
    loaded, processor = load_detector("base")
    loaded.config.calibration_temperatures, loaded.config.calibration_biases = [2.0, 2.0], [9.0, 9.0]
    processor.thresholds = {"AU12": 0.9, "AU4": 0.9}
    adapted = load_adapter(loaded, place / "tuned" / "adapter", processor).eval()
    faces = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(adapted(pixel_values=faces).logits, merged(faces).logits, atol=1e-5, rtol=0)
    assert processor.thresholds == load_detector("tuned")[1].thresholds
    assert hiva("evaluate", "-c", "tuned", "--data", data).code == 0
    settings = json.loads((place / "tuned" / "results.json").read_text())
    assert (settings["lora_rank"], settings["checkpoint"]) == (4, "base")
    # without LoRA everything is trained on
    assert hiva("train", "-c", "base", "-o", "again", *common).code == 0
    fails_with(hiva("train", "-o", "x", "--lora-rank", 4, *common), "`--rslora` need `--checkpoint`")
    fails_with(hiva("train", "-o", "x", "-c", "base", "--aus", "1", *common), "leave out --aus")
    fails_with(hiva("train", "-o", "x", "-c", "base", "--dora", *common), "`--lora-rank`")


def text_calls(model):
    """Counts how often the text tower runs."""
    calls = []
    tower = next(module for name, module in model.named_modules() if name.endswith("text_model"))
    tower.register_forward_hook(lambda *args: calls.append(1))
    return calls


def steps(model, count, pixel_values):
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.01)
    for _ in range(count):
        model(pixel_values, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_frozen_text_tower_runs_once(make_model, processor, pixel_values):
    model = make_model(hidden_dropout_prob=0.0)
    model.hiva.text_model.requires_grad_(False)
    calls = text_calls(model)
    with torch.no_grad():
        cached = model.train().hiva._projected_text(None, None, None)
        torch.testing.assert_close(model.eval().hiva._projected_text(None, None, None), cached)
    calls.clear()
    before = model.hiva.text_projection.proj.weight.clone()
    steps(model.train(), 4, pixel_values)
    assert calls == []
    assert not torch.equal(model.hiva.text_projection.proj.weight, before)
    # other descriptions, other weights, or a tower that learns again
    model.set_descriptions(**processor.tokenize_descriptions(num_descriptions=3))
    steps(model, 2, pixel_values)
    assert len(calls) == 1
    model.load_state_dict(model.state_dict())
    steps(model, 2, pixel_values)
    assert len(calls) == 2
    model.hiva.text_model.requires_grad_(True)
    steps(model.train(), 2, pixel_values)
    assert len(calls) == 4
    # no part of a checkpoint
    assert not any("embedded" in name for name in model.state_dict())


def test_a_text_tower_with_lora_runs_once_a_step(make_model, pixel_values):
    model = add_text_lora(make_model()).train()
    calls = text_calls(model)
    steps(model, 3, pixel_values.repeat(1, 1, 1, 1))
    assert len(calls) == 3


def test_frozen_towers_stay_as_they_are_in_evaluation(make_model, pixel_values):
    vision = {
        "model_type": "resnet",
        "depths": [1, 1],
        "hidden_sizes": [8, 16],
        "embedding_size": 8,
        "layer_type": "basic",
    }
    model = add_text_lora(make_model(vision_config=vision)).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    steps(model, 2, pixel_values)
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model.requires_grad_(True)
    steps(model.train(), 1, pixel_values)
    assert not all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_what_cannot_be_adapted(make_folded, make_model):
    with pytest.raises(ValueError, match="adapts the text tower; this model has none"):
        add_text_lora(make_folded())
    with pytest.raises(ValueError, match="`rank` must be at least 1; got 0"):
        text_lora_config(0)
    with pytest.raises(ValueError, match="BertModel calls them otherwise"):
        add_text_lora(make_model(), text_lora_config(target_modules=r"text_model\.nothing"))
    assert text_lora_config(4).lora_alpha == 8
    assert isinstance(make_model().config, HiVAConfig)
