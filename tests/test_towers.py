import pytest
import torch
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
from transformers.configuration_utils import PreTrainedConfig

from hiva_hf import HiVAConfig, HiVAForImageClassification
from hiva_hf.modeling_hiva_towers import build_tower, embed_text, extract_visual_tokens, load_tower

AUS = ("AU1", "AU4", "AU12")
DESCRIPTIONS, LENGTH, USED = 2, 7, 5
FOLDED = {"text_folded": True, "text_embed_dim": 6, "id2label": dict(enumerate(AUS))}
FUSION = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "graph_top_k": 1}

_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
_STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2}
_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}
VISION = {
    "swin": _SWIN,
    "swinv2": _SWIN,
    "vit": _VIT,
    "deit": _VIT,
    "dinov2": {**_VIT, "mlp_ratio": 1},
    "dinov2_with_registers": {**_VIT, "mlp_ratio": 1, "num_register_tokens": 3},
    "dinov3_vit": {**_VIT, "num_register_tokens": 3},
    "clip_vision_model": _VIT,
    "siglip_vision_model": _VIT,
    "convnext": _STAGES,
    "resnet": {"depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8, "layer_type": "basic"},
}
PREFIX = {"vit": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 4, "dinov3_vit": 4, "clip_vision_model": 1}
# pixels that one token stands for
STRIDE = {"swin": 4, "swinv2": 4}

_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 40,
    "max_position_embeddings": 20,
}
_DUAL = {**_BERT, "bos_token_id": 0, "eos_token_id": 2}
TEXT = {
    "bert": _BERT,
    "roberta": {**_BERT, "pad_token_id": 1},
    "distilbert": {
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 16,
        "vocab_size": 40,
        "max_position_embeddings": 20,
    },
    "clip_text_model": _DUAL,
}

each_vision = pytest.mark.parametrize("model_type", VISION)
each_text = pytest.mark.parametrize("model_type", TEXT)


def make_vision_model(model_type):
    torch.manual_seed(0)
    config = HiVAConfig(
        vision_config={"model_type": model_type, **VISION[model_type]},
        num_descriptions=DESCRIPTIONS,
        **FOLDED,
        **FUSION,
    )
    model = HiVAForImageClassification(config).eval()
    model.set_text_embeds(torch.randn(len(AUS), DESCRIPTIONS, 6))
    return model


def make_text_model(model_type, **fields):
    torch.manual_seed(0)
    config = HiVAConfig(
        vision_config={"model_type": "resnet", **VISION["resnet"]},
        text_config={"model_type": model_type, **TEXT[model_type]},
        id2label=dict(enumerate(AUS)),
        **FUSION,
        **fields,
    )
    return HiVAForImageClassification(config).eval()


def pixels(height, width):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def tokens_of(model, pixel_values):
    with torch.no_grad():
        return extract_visual_tokens(model.hiva.vision_model, pixel_values)


def sentences():
    """Random tokens of three AUs in two descriptions, the last two of them padding."""
    ids = torch.randint(3, 40, (len(AUS), DESCRIPTIONS, LENGTH), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[..., USED:] = 0
    return ids, mask


@each_vision
@pytest.mark.parametrize("size", [(32, 32), (48, 64), (64, 32), (16, 24), (96, 96)], ids=str)
def test_every_vision_tower_gives_logits_and_maps(model_type, size):
    model = make_vision_model(model_type)
    with torch.no_grad():
        outputs = model(pixels(*size), output_activation_maps=True)
    stride = STRIDE.get(model_type, 8)
    assert outputs.logits.shape == (2, 3)
    assert outputs.logits.isfinite().all()
    assert outputs.activation_maps.shape == (2, 3, size[0] // stride, size[1] // stride)
    assert torch.allclose(outputs.activation_maps.sum(dim=(2, 3)), torch.ones(2, 3), atol=1e-4)


@pytest.mark.parametrize("model_type", ["swin", "swinv2"])
@pytest.mark.parametrize(("size", "grid"), [((30, 34), (8, 9)), ((33, 37), (9, 10)), ((26, 50), (7, 13))], ids=str)
def test_hierarchical_towers_pad_odd_sides(model_type, size, grid):
    tokens, found, _ = tokens_of(make_vision_model(model_type), pixels(*size))
    assert tuple(found) == grid
    assert tokens.shape == (2, grid[0] * grid[1], 16)


@pytest.mark.parametrize("model_type", ["vit", "deit", "dinov2", "clip_vision_model", "siglip_vision_model"])
def test_patches_that_do_not_fit_are_cut(model_type):
    tokens, grid, _ = tokens_of(make_vision_model(model_type), pixels(39, 61))
    assert tuple(grid) == (4, 7)
    assert tokens.shape == (2, 28, 32)


@pytest.mark.parametrize("model_type", ["dinov2_with_registers", "dinov3_vit"])
def test_registers_are_no_column(model_type):
    tokens, grid, _ = tokens_of(make_vision_model(model_type), pixels(24, 41))
    assert tuple(grid) == (3, 5)
    assert tokens.shape == (2, 15, 32)


@each_vision
def test_prefix_tokens_are_dropped(model_type):
    model = make_vision_model(model_type)
    tokens, grid, outputs = tokens_of(model, pixels(32, 32))
    with torch.no_grad():
        own = model.hiva.vision_model(pixel_values=pixels(32, 32)).last_hidden_state
    if own.ndim == 4:
        expected = torch.stack([own[:, :, row, column] for row in range(grid[0]) for column in range(grid[1])], dim=1)
    else:
        expected = own[:, PREFIX.get(model_type, 0) :]
    assert torch.equal(tokens, expected)
    assert tokens.shape[1] == grid[0] * grid[1]
    assert torch.equal(outputs.last_hidden_state, own)


@each_vision
def test_tokens_lie_where_the_picture_changed(model_type):
    model = make_vision_model(model_type)
    picture = pixels(32, 64)
    changed = picture.clone()
    changed[:, :, 16:, 48:] += 3.0
    before, (rows, columns), _ = tokens_of(model, picture)
    after = tokens_of(model, changed)[0]
    change = (after - before).abs().sum(-1).unflatten(1, (rows, columns))
    for index in change.flatten(1).argmax(dim=-1).tolist():
        assert index // columns >= rows // 2
        assert index % columns >= columns * 3 // 4


@pytest.mark.parametrize("model_type", ["vit", "deit", "dinov2", "clip_vision_model", "siglip_vision_model"])
def test_positions_are_interpolated_for_other_sizes(model_type):
    model = make_vision_model(model_type)
    with torch.no_grad():
        for name, parameter in model.hiva.vision_model.named_parameters():
            if "position_embed" in name:
                parameter.normal_()
    # the same picture everywhere, so that tokens differ by their position alone
    tokens = tokens_of(model, torch.ones(1, 3, 48, 64))[0]
    assert tokens.shape == (1, 48, 32)
    assert torch.pdist(tokens[0]).min() > 1e-3


@pytest.mark.parametrize("model_type", ["vit", "dinov2"])
def test_image_size_of_a_tower_may_be_a_pair(model_type):
    config = AutoConfig.for_model(model_type, **{**VISION[model_type], "image_size": [32, 32]})
    tower = build_tower(config).eval()
    with torch.no_grad():
        assert tuple(extract_visual_tokens(tower, pixels(32, 32))[1]) == (4, 4)


class Sequence(torch.nn.Module):
    """A vision tower of one row of tokens."""

    config = PreTrainedConfig()

    def __init__(self, count):
        super().__init__()
        self.states = torch.zeros(2, count, 8)

    def forward(self, pixel_values, return_dict=True):
        return type("Output", (), {"last_hidden_state": self.states})


@pytest.mark.parametrize("count", [40, 77, 168])
def test_tokens_without_a_grid_are_refused(count):
    with pytest.raises(ValueError, match=rf"`vision_config` must give a grid of tokens; got {count} tokens .* 32 x 48"):
        extract_visual_tokens(Sequence(count), pixels(32, 48))


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("hiera", {"embed_dim": 8, "image_size": [64, 64], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}),
        ("dinov3_convnext", {"hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1]}),
    ],
    ids=["hiera", "dinov3_convnext"],
)
def test_wide_pictures_have_wide_grids(model_type, fields):
    tower = build_tower(AutoConfig.for_model(model_type, **fields)).eval()
    with torch.no_grad():
        assert tuple(extract_visual_tokens(tower, pixels(64, 128))[1]) == (2, 4)


@each_vision
def test_vision_towers_have_no_pooler(model_type):
    names = [name for name, _ in make_vision_model(model_type).hiva.vision_model.named_parameters()]
    assert names
    assert not [name for name in names if "pooler" in name]


@each_vision
def test_hidden_states_of_the_tower(model_type):
    model = make_vision_model(model_type)
    with torch.no_grad():
        outputs = model(pixels(32, 32), output_hidden_states=True)
    assert len(outputs.hidden_states) >= 2


@each_vision
def test_every_tower_learns(model_type):
    model = make_vision_model(model_type).train()
    model(pixels(32, 32), labels=torch.ones(2, 3)).loss.backward()
    gradients = [parameter.grad for parameter in model.hiva.vision_model.parameters()]
    assert sum(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients) > 0.6 * len(gradients)


@each_text
def test_every_text_encoder_reads_descriptions(model_type):
    model = make_text_model(model_type)
    ids, mask = sentences()
    model.set_descriptions(ids, mask, bank="random")
    with torch.no_grad():
        outputs = model(pixels(32, 32))
        embeds = model.hiva.encode_descriptions()
        elsewhere = model(pixels(32, 32), input_ids=ids.flip(0), attention_mask=mask.flip(0))
    assert outputs.logits.shape == (2, 3)
    assert outputs.text_embeds.shape == (3, DESCRIPTIONS, 16)
    assert embeds.shape == (3, DESCRIPTIONS, 16)
    assert not torch.allclose(outputs.text_embeds[0], outputs.text_embeds[1], atol=1e-3)
    assert torch.allclose(elsewhere.text_embeds, outputs.text_embeds.flip(0), atol=1e-5)
    assert (model.config.num_descriptions, model.config.description_length) == (DESCRIPTIONS, LENGTH)
    assert model.config.description_bank == "random"


@each_text
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_pooling_ignores_padding(model_type, pooling):
    model = make_text_model(model_type, text_pooling=pooling)
    ids, mask = sentences()
    padded = ids.clone()
    padded[..., USED:] = 4
    assert not torch.equal(ids, padded)
    with torch.no_grad():
        embeds = model.hiva.encode_descriptions(ids, mask)
        again = model.hiva.encode_descriptions(padded, mask)
        states = model.hiva.text_model(input_ids=ids.flatten(0, 1), attention_mask=mask.flatten(0, 1)).last_hidden_state
    assert torch.allclose(embeds, again, atol=1e-6)
    expected = {"mean": states[:, :USED].mean(dim=1), "first": states[:, 0], "last": states[:, USED - 1]}[pooling]
    assert torch.allclose(embeds.flatten(0, 1), expected, atol=1e-6)


class Positions(torch.nn.Module):
    """A text encoder whose states are the positions."""

    def forward(self, input_ids, attention_mask, return_dict=True):
        states = torch.arange(1.0, input_ids.shape[1] + 1).expand(len(input_ids), -1)[..., None]
        return type("Output", (), {"last_hidden_state": states})


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [2.5, 1.0, 0.0]), ("first", [1, 1, 1]), ("last", [4, 1, 1])]
)
def test_pooling_of_sentences_of_different_length(pooling, expected):
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    pooled = embed_text(Positions(), torch.zeros_like(mask), mask, pooling)
    assert pooled[:, 0].tolist() == expected


def test_last_token_where_padding_comes_first():
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    assert embed_text(Positions(), torch.zeros_like(mask), mask, "last").item() == 5


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
    assert len(model.hiva.text_model.encoder.layer) == 1
