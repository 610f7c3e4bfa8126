"""Pretrained towers: weights, precision and attention as they were stored or asked for."""

import pytest
import torch
from towers import (
    _BERT,
    _DUAL,
    _VIT,
    AUS,
    FOLDED,
    FUSION,
    TEXT,
    VISION,
    each_text,
    each_vision,
    pixels,
    sentences,
)
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from hiva_hf import HiVAForImageClassification
from hiva_hf.modeling_hiva_towers import load_tower


def assert_equal_weights(tower, saved):
    ours, theirs = tower.state_dict(), saved.state_dict()
    assert ours
    assert set(ours) <= set(theirs)
    assert not [name for name in set(theirs) - set(ours) if "pooler" not in name]
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name


def save_tower(path, model_type, fields):
    torch.manual_seed(7)
    tower = AutoModel.from_config(AutoConfig.for_model(model_type, **fields))
    tower.save_pretrained(path)
    return tower


@each_vision
def test_pretrained_vision_towers_keep_their_weights(model_type, tmp_path):
    saved = save_tower(tmp_path, model_type, VISION[model_type])
    fields = {**FOLDED, **FUSION, "id2label": {0: "AU6", 1: "AU12"}}
    model = HiVAForImageClassification.from_vision_text_pretrained(str(tmp_path), **fields)
    assert_equal_weights(model.hiva.vision_model, saved)
    assert model.hiva.text_model is None
    assert model.config.vision_config.model_type == model_type
    assert model.config.au_names == ["AU6", "AU12"]
    assert model(pixels(32, 32)).logits.shape == (2, 2)


@each_text
def test_pretrained_text_encoders_keep_their_weights(model_type, tmp_path):
    save_tower(tmp_path / "vision", "resnet", VISION["resnet"])
    saved = save_tower(tmp_path / "text", model_type, TEXT[model_type])
    paths = str(tmp_path / "vision"), str(tmp_path / "text")
    model = HiVAForImageClassification.from_vision_text_pretrained(*paths, id2label=dict(enumerate(AUS)), **FUSION)
    assert_equal_weights(model.hiva.text_model, saved)
    assert model.config.text_config.model_type == model_type
    assert model.config.text_embed_dim == 16
    assert model.config.text_encoder == paths[1]


def save_dual(path, model_class, config_class):
    torch.manual_seed(7)
    dual = model_class(config_class(text_config=_DUAL, vision_config=_VIT))
    dual.save_pretrained(path)
    return dual


def assert_half(tower, half):
    ours, theirs = dict(tower.named_parameters()), dict(half.named_parameters())
    assert ours
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_both_halves_of_a_dual_encoder(tmp_path):
    dual = save_dual(tmp_path, CLIPModel, CLIPConfig)
    path = str(tmp_path)
    model = HiVAForImageClassification.from_vision_text_pretrained(path, path, id2label=dict(enumerate(AUS)), **FUSION)
    assert_half(model.hiva.vision_model, dual.vision_model)
    assert_half(model.hiva.text_model, dual.text_model)
    assert_half(load_tower(path, "vision_config"), dual.vision_model)
    assert model.config.text_pooling == "last"
    model.set_descriptions(*sentences())
    with torch.no_grad():
        assert model(pixels(48, 32)).logits.isfinite().all()


def test_siglip_gives_its_vision_half(tmp_path):
    dual = save_dual(tmp_path, SiglipModel, SiglipConfig)
    model = HiVAForImageClassification.from_vision_text_pretrained(str(tmp_path), **FOLDED, **FUSION)
    assert_half(model.hiva.vision_model, dual.vision_model)
    with pytest.raises(ValueError, match="SiglipTextConfig"):
        load_tower(str(tmp_path), "text_config")


def test_keywords_reach_the_towers(tmp_path):
    save_tower(tmp_path / "vision", "vit", VISION["vit"])
    save_tower(tmp_path / "text", "bert", TEXT["bert"])
    model = HiVAForImageClassification.from_vision_text_pretrained(
        str(tmp_path / "vision"),
        str(tmp_path / "text"),
        vision_kwargs={"dtype": torch.bfloat16},
        text_kwargs={"config": AutoConfig.for_model("bert", **{**_BERT, "num_hidden_layers": 1})},
        id2label=dict(enumerate(AUS)),
        **FUSION,
    )
    assert model.hiva.vision_model.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.hiva.parameters()} <= {torch.bfloat16, torch.float32}
    assert len(model.hiva.text_model.encoder.layer) == 1


def test_towers_stored_in_half_precision_train_in_float32(tmp_path):
    AutoModel.from_config(AutoConfig.for_model("vit", **VISION["vit"])).half().save_pretrained(tmp_path / "vision")
    model = HiVAForImageClassification.from_vision_text_pretrained(
        str(tmp_path / "vision"), id2label=dict(enumerate(AUS)), text_folded=True, text_embed_dim=24, **FUSION
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loaded_towers_keep_their_attention_and_the_model_its_precision(tmp_path, attention):
    save_tower(tmp_path / "vision", "vit", VISION["vit"])
    model = HiVAForImageClassification.from_vision_text_pretrained(
        str(tmp_path / "vision"),
        vision_kwargs={"dtype": torch.bfloat16, "attn_implementation": attention},
        id2label=dict(enumerate(AUS)),
        text_folded=True,
        text_embed_dim=24,
        **FUSION,
    )
    assert model.config.vision_config._attn_implementation == attention
    side = model.config.vision_config.image_size
    assert model(torch.zeros(1, 3, side, side, dtype=torch.bfloat16)).logits.dtype == torch.bfloat16
