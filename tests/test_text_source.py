"""What stands for an AU on the text side, and how its descriptions become one: choices of the configuration."""

import pytest
import torch
from conftest import AUS
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from hiva_hf import HiVAConfig, HiVAForImageClassification, hiva_small, hiva_small_text
from hiva_hf.checkpoint import load_detector
from hiva_hf.descriptions import NAME_EMBEDS, DescriptionBank, load_bank, load_text_embeds
from hiva_hf.facs import au_meaning
from hiva_hf.modeling_hiva_layers import HiVADescriptionPooling
from hiva_hf.training import save_detector

FACES = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))


def logits(model):
    with torch.no_grad():
        return model.eval()(FACES).logits


def test_names_are_the_only_text_of_both_presets():
    folded, processor = hiva_small(["AU1", "AU12"], text_source="names")
    assert folded.hiva.text_embeds.shape == (2, 1, 384)
    assert processor.description_bank["descriptions"]["AU12"]["descriptions"] == [
        {"aspect": "name", "text": "lip corner puller"}
    ]
    tower, processor = hiva_small_text(["AU1", "AU12"], text_source="names")
    assert tower.hiva.description_ids.shape[:2] == (2, 1)
    texts = processor.tokenizer.batch_decode(tower.hiva.description_ids[:, 0], skip_special_tokens=True)
    assert texts == ["inner brow raiser", "lip corner puller"]
    for model in (folded, tower):
        assert model.config.num_descriptions == 1
        assert model.config.description_bank == load_bank().names_only().select(["AU1", "AU12"]).identifier
        assert logits(model).shape == (2, 2)


def test_stored_names_are_those_of_the_bank_and_not_its_descriptions():
    aus = list(load_bank().descriptions)
    names, encoder = load_text_embeds(aus, NAME_EMBEDS, load_bank().names_only())
    texts = load_text_embeds(aus)[0]
    assert names.shape == (len(aus), 1, texts.shape[-1])
    assert encoder == load_text_embeds(aus)[1]
    # of the same encoder: a name is most like what is said of its own action unit far more often than by chance
    nearest = (names[:, 0] @ texts.mean(1).T).argmax(1)
    assert (nearest == torch.arange(len(aus))).float().mean() > 0.6
    with pytest.raises(ValueError, match="facs-en-v1-names@"):
        load_text_embeds(aus, NAME_EMBEDS)


def test_a_bank_without_names_takes_those_of_facs():
    content = load_bank().select(["AU5"]).to_dict()
    del content["descriptions"]["AU5"]["name"]
    (texts,) = DescriptionBank.from_dict(content).names_only().texts()
    assert texts == [au_meaning("AU5")]


@pytest.mark.parametrize("preset", [hiva_small, hiva_small_text])
def test_random_text_says_nothing_and_stays(preset, tmp_path):
    torch.manual_seed(0)
    model, processor = preset(["AU1", "AU12"], text_source="random")
    assert model.hiva.text_model is None
    assert processor.description_bank is None
    assert model.config.description_bank == "random"
    embeds = model.hiva.text_embeds
    # as long as those of a sentence encoder, and no two alike
    assert embeds.norm(dim=-1).mean() == pytest.approx(1, abs=0.1)
    alike = nn.functional.normalize(embeds.flatten(0, 1), dim=-1)
    assert (alike @ alike.T).fill_diagonal_(0).abs().max() < 0.4
    assert not embeds.requires_grad
    before = logits(model)
    save_detector(model, processor, tmp_path / "run")
    again, processor = load_detector(tmp_path / "run")
    assert torch.equal(again.hiva.text_embeds, embeds)
    assert torch.equal(logits(again), before)
    assert processor.labels == ["AU1", "AU12"]
    with pytest.raises(ValueError, match='must not replace the control text_source="random"'):
        again.set_text_embeds(embeds)


def test_random_text_follows_the_seed():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(hiva_small(["AU1"], text_source="random")[0].hiva.text_embeds)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_random_text_of_a_model_that_is_put_together(make_model):
    model = make_model(text_source="random")
    assert model.config.text_folded
    assert model.hiva.text_embeds.shape == (3, 8, model.config.hidden_size)
    assert model.hiva.text_embeds.abs().sum() > 0


def test_learned_pooling_begins_at_the_mean_and_leaves_it(make_folded, pixel_values):
    mean, learned = make_folded(), make_folded(description_pooling="learned")
    # all but the new scores
    missing = learned.load_state_dict(mean.state_dict(), strict=False).missing_keys
    assert sorted(missing) == ["hiva.ddca.description_pooling.score", "hiva.description_pooling.score"]
    with torch.no_grad():
        assert torch.allclose(learned(pixel_values).logits, mean(pixel_values).logits, atol=1e-6)
    learned.train()(pixel_values, labels=torch.tensor([[1.0, 0, 1], [0, 1, 0]])).loss.backward()
    grad = learned.hiva.ddca.description_pooling.score.grad
    assert grad is not None
    assert grad.abs().max() > 0
    with torch.no_grad():
        learned.hiva.ddca.description_pooling.score.add_(1.0 * torch.sign(grad))
        assert not torch.allclose(learned.eval()(pixel_values).logits, mean(pixel_values).logits, atol=1e-4)


def test_learned_pooling_is_a_weighted_mean_of_each_action_unit():
    layer = HiVADescriptionPooling(HiVAConfig(hidden_size=16, num_attention_heads=2, description_pooling="learned"))
    with torch.no_grad():
        layer.score.zero_()
        layer.score[0] = 50.0
    embeds = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(1))
    pooled = layer(embeds)
    best = embeds[..., 0].argmax(1)
    # so high a score lets one description stand for all
    assert torch.allclose(pooled, embeds[torch.arange(3), best], atol=0.05)
    assert layer(embeds[None].expand(5, -1, -1, -1)).shape == (5, 3, 16)


def test_each_choice_trains_without_attention_too(pixel_values):
    for fields in ({"text_source": "names"}, {"text_source": "random"}, {"description_pooling": "learned"}):
        model, _ = hiva_small(AUS, use_ddca=False, use_cdca=False, **fields)
        loss = model.train()(pixel_values, labels=torch.tensor([[1.0, 0, 1], [0, 1, 0]])).loss
        loss.backward()
        assert model.hiva.text_projection.proj.weight.grad.abs().max() > 0


def test_a_names_model_takes_one_name_an_action_unit():
    model, processor = hiva_small_text(["AU1", "AU12"], text_source="names")
    with pytest.raises(ValueError, match="reads one name an action unit; got 2"):
        model.set_descriptions(**processor.tokenize_descriptions({"AU1": ["a", "b"], "AU12": ["c", "d"]}))
    folded = hiva_small(["AU1"], text_source="names")[0]
    with pytest.raises(ValueError, match="reads one name an action unit; got 8"):
        folded.set_text_embeds(torch.zeros(1, 8, 384))


@pytest.mark.parametrize(("field", "value"), [("text_source", "nouns"), ("description_pooling", "max")])
def test_an_unknown_choice_is_refused(field, value):
    with pytest.raises(StrictDataclassError, match=field):
        HiVAConfig(**{field: value})


def test_a_pretrained_text_encoder_in_the_preset(tmp_path, tokenizer):
    from conftest import text_config
    from transformers import AutoModel, BertConfig

    torch.manual_seed(5)
    config = text_config(len(tokenizer))
    config.pop("model_type")
    tower = AutoModel.from_config(BertConfig(**config)).eval().half()
    tower.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    model, processor = hiva_small_text(["AU1", "AU4"], text_encoder=str(tmp_path / "encoder"))
    assert isinstance(model, HiVAForImageClassification)
    assert model.dtype == torch.float32
    loaded = model.hiva.text_model.state_dict()
    assert all(torch.equal(value.float(), loaded[name]) for name, value in tower.state_dict().items() if name in loaded)
    assert "encoder.layer.1.attention.self.query.weight" in loaded
    assert model.config.text_encoder == str(tmp_path / "encoder")
    assert processor.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert logits(model).shape == (2, 2)
