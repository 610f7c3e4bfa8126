"""Action units that no training label named, asked for by their descriptions."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from command import fails_with
from conftest import text_config
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig

from hiva_hf import ActionUnitDetector, hiva_small, hiva_small_text
from hiva_hf.descriptions import SentenceEncoder
from hiva_hf.open_vocabulary import add_action_units
from hiva_hf.training import save_detector

FACES = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))
JAW = "The mouth is stretched wide open by a lowered jaw."
LIPS = "Both lips are pushed forward."


def logits(model):
    with torch.no_grad():
        return model.eval()(FACES).logits


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tokenizer):
    """A small sentence encoder in a folder."""
    torch.manual_seed(5)
    fields = text_config(len(tokenizer))
    fields.pop("model_type")
    folder = tmp_path_factory.mktemp("encoder")
    model = AutoModel.from_config(BertConfig(**fields)).eval()
    # new weights say nearly the same of every sentence
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folded(encoder):
    """An open detector on stored embeddings of that encoder."""
    torch.manual_seed(0)
    model, processor = hiva_small(["AU1", "AU25"], au_projection="text", text_embed_dim=32, text_source="random")
    # as a preset on stored embeddings of another encoder would be
    model.config.text_source = "descriptions"
    full, processor = hiva_small(["AU1", "AU25"])
    texts = processor._descriptions()
    embed = SentenceEncoder(encoder)
    model.config.description_bank = None
    model.set_text_embeds(
        torch.stack([embed(sentences) for sentences in texts.values()]),
        encoder=encoder,
        bank=full.config.description_bank,
    )
    return model.eval(), processor


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    model, processor = hiva_small_text(["AU1", "AU25"], au_projection="text")
    return model.eval(), processor


@pytest.mark.parametrize("kind", ["folded", "tower"])
def test_the_new_ones_come_behind_and_stay_with_the_detector(kind, request, tmp_path):
    model, processor = request.getfixturevalue(kind)
    before = logits(model)
    asked, reader = add_action_units(model, processor, {"AU27": JAW, "au18": [LIPS, JAW]})
    assert asked.config.au_names == reader.labels == ["AU1", "AU25", "AU27", "AU18"]
    scores = logits(asked)
    assert scores.shape == (2, 4)
    assert torch.isfinite(scores).all()
    # the given one is as it was
    assert model.config.au_names == processor.labels == ["AU1", "AU25"]
    assert torch.equal(logits(model), before)
    save_detector(asked, reader, tmp_path / "asked")
    detector = ActionUnitDetector(tmp_path / "asked")
    assert detector.labels == ["AU1", "AU25", "AU27", "AU18"]
    assert torch.allclose(logits(detector.model), scores, atol=1e-6)


@pytest.mark.parametrize("kind", ["folded", "tower"])
def test_the_answer_is_that_of_all_descriptions_in_one_call(kind, request, encoder):
    model, processor = request.getfixturevalue(kind)
    asked, _ = add_action_units(model, processor, {"AU27": JAW})
    texts = {**processor._descriptions(), "AU27": [JAW] * 8}
    with torch.no_grad():
        if kind == "tower":
            expected = model(FACES, **processor.tokenize_descriptions(texts)).logits
        else:
            embed = SentenceEncoder(encoder)
            expected = model(FACES, text_embeds=torch.stack([embed(sentences) for sentences in texts.values()])).logits
    assert torch.allclose(logits(asked), expected, atol=1e-5)
    # another sentence, another answer
    other = add_action_units(model, processor, {"AU27": LIPS})[0]
    assert (logits(other)[:, 2] - logits(asked)[:, 2]).abs().max() > 1e-4


def test_it_can_be_asked_for_alone(tower):
    model, processor = tower
    inputs = processor(descriptions={"AU27": [JAW, LIPS]})
    with torch.no_grad():
        assert model(FACES, **inputs).logits.shape == (2, 1)


def test_what_is_asked_for_alone_is_not_calibrated_as_another(tower):
    model, processor = tower
    inputs = processor(descriptions={"AU27": [JAW], "AU18": [LIPS]})
    with torch.no_grad():
        plain = model(FACES, **inputs).logits
        model.config.calibration_temperatures, model.config.calibration_biases = [2.0, 3.0], [0.5, -0.5]
        stored = model(FACES).logits
        try:
            assert torch.equal(model(FACES, **inputs).logits, plain)
            assert model(
                FACES, **processor(descriptions={au: [JAW] for au in ("AU5", "AU27", "AU18")})
            ).logits.shape == (
                2,
                3,
            )
        finally:
            model.config.calibration_temperatures = model.config.calibration_biases = None
        assert not torch.equal(model(FACES).logits, stored)
    (row, _) = processor.post_process(plain, labels=["AU27", "AU18"])
    assert list(row) == ["AU27", "AU18"]


def test_it_is_told_who_described_and_the_result_trains(tower, tmp_path):
    asked, reader = add_action_units(*tower, {"AU27": JAW})
    bank = reader.description_bank
    assert bank["provenance"]["added"] == "AU27: given by the user"
    assert bank["bank_id"].endswith("+added")
    asked, reader = add_action_units(asked, reader, {"AU18": LIPS})
    assert reader.description_bank["provenance"]["added"] == "AU27: given by the user; AU18: given by the user"
    assert reader.description_bank["bank_id"].count("+added") == 1
    before = {name: value.clone() for name, value in asked.named_parameters()}
    optimizer = torch.optim.SGD(asked.parameters(), lr=0.1)
    asked.train()(FACES, labels=torch.tensor([[0.0, 1, 1, 0], [1, 0, -100, 1]])).loss.backward()
    optimizer.step()
    assert any(not torch.equal(value, before[name]) for name, value in asked.named_parameters())
    save_detector(asked, reader, tmp_path / "trained")
    assert ActionUnitDetector(tmp_path / "trained").labels == ["AU1", "AU25", "AU27", "AU18"]


def test_a_text_encoder_that_is_not_needed_or_not_there(tower, folded, tmp_path):
    with pytest.raises(ValueError, match="`text_encoder` must be left out"):
        add_action_units(*tower, {"AU27": JAW}, "org/encoder")
    with pytest.raises(OSError, match="`text_encoder` must be the sentence encoder"):
        add_action_units(*folded, {"AU27": JAW}, str(tmp_path / "none"))


def test_calibration_stays_with_those_it_was_fitted_on(tower):
    model, processor = tower
    model.config.calibration_temperatures, model.config.calibration_biases = [2.0, 3.0], [0.5, -0.5]
    processor.thresholds = {"AU1": 0.3}
    try:
        asked, reader = add_action_units(model, processor, {"AU27": JAW})
    finally:
        model.config.calibration_temperatures = model.config.calibration_biases = processor.thresholds = None
    assert asked.config.calibration_temperatures == [2.0, 3.0, 1.0]
    assert asked.config.calibration_biases == [0.5, -0.5, 0.0]
    assert reader.limits(reader.labels) == {"AU1": 0.3, "AU25": 0.5, "AU27": 0.5}


@pytest.mark.parametrize(
    ("descriptions", "said"),
    [
        ({}, "at least one action unit; got none"),
        ({"AU1": JAW}, "other action units than the model has"),
        ({"AU27": JAW, "27": LIPS}, "each once; got 27"),
        ({"AU99": JAW}, "must name an action unit"),
        ({"AU27": []}, r"must give AU27 1 to 8 sentences; got \[\]"),
        ({"AU27": [" "]}, "1 to 8 sentences"),
        ({"AU27": [JAW] * 9}, "1 to 8 sentences"),
    ],
)
def test_what_cannot_be_asked(tower, descriptions, said):
    with pytest.raises(ValueError, match=said):
        add_action_units(*tower, descriptions)


@pytest.mark.parametrize("fields", [{}, {"au_projection": "text", "head": "linear"}])
def test_a_closed_model_is_told(fields):
    with pytest.raises(ValueError, match="hiva train --open-vocabulary"):
        add_action_units(*hiva_small(["AU1"], **fields), {"AU27": JAW})


def test_another_encoder_is_seen(folded, tmp_path, encoder):
    model, processor = folded
    other = tmp_path / "other"
    AutoModel.from_pretrained(encoder).save_pretrained(other)
    SentenceEncoder(encoder).tokenizer.save_pretrained(other)
    weights = load_file(other / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    weights[name] = weights[name] + torch.randn(weights[name].shape)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="must be the encoder that made the model's embeddings"):
        add_action_units(model, processor, {"AU27": JAW}, str(other))


def test_a_model_folded_from_its_own_tower_cannot_read(tower):
    model, processor = tower
    folded = copy.deepcopy(model).fold_text()
    with pytest.raises(ValueError, match="Then use the unfolded checkpoint"):
        add_action_units(folded, processor, {"AU27": JAW})


def test_the_command_from_training_to_the_table(hiva, data, crops, tmp_path):
    model, out = tmp_path / "open", tmp_path / "table.csv"
    options = ["--data", data, "--aus", "1,12", "--epochs", 1, "--workers", 0, "--preset", "small-text"]
    done = hiva("train", "-o", model, *options, "--open-vocabulary")
    assert done.code == 0, done.err
    config = json.loads((model / "config.json").read_text())
    assert config["au_projection"] == "text"
    assert json.loads((model / "results.json").read_text())["open_vocabulary"] is True
    asked = ["--describe", f"AU27={JAW}", "--describe", f"AU27={LIPS}", "--describe", f"18={LIPS}"]
    done = hiva("predict", *crops, "-c", model, "--cropped", "--out", out, *asked)
    assert done.code == 0, done.err
    assert "AU27 was asked for by description: never trained, not calibrated." in done.out
    assert "AU18 by" in done.err
    assert "5 words, not" in done.err
    table = pd.read_csv(out)
    assert [name for name in table if name.endswith("_p")] == ["AU01_p", "AU12_p", "AU27_p", "AU18_p"]
    detector = ActionUnitDetector(model)
    expected = add_action_units(detector.model, detector.processor, {"AU27": [JAW, LIPS], "AU18": LIPS})
    from hiva_hf.faces import load_face_detector

    reader = ActionUnitDetector(*expected, faces=load_face_detector("cropped"))
    scores = [face.scores["AU27"] for face in reader.images(crops)]
    assert np.allclose(table["AU27_p"], scores, atol=1e-6)


@pytest.mark.parametrize("given", ["AU27", "=Open.", "AU27= "])
def test_the_command_says_what_it_expects(hiva, crops, given, trained):
    fails_with(
        hiva("predict", *crops, "-c", trained.folder, "--cropped", "--describe", given), "--describe", "AU27=The mouth"
    )


def test_the_command_needs_an_open_model(hiva, crops, trained):
    fails_with(
        hiva("predict", *crops, "-c", trained.folder, "--cropped", "--describe", f"AU27={JAW}"), "--open-vocabulary"
    )
    fails_with(hiva("predict", *crops, "-c", trained.folder, "--cropped", "--text-encoder", "x"), "--describe")
