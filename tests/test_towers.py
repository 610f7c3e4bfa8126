"""Towers of every kind: tokens, grids, prefixes, pooling."""

import pytest
import torch
from towers import (
    DESCRIPTIONS,
    LENGTH,
    PREFIX,
    STRIDE,
    USED,
    VISION,
    each_text,
    each_vision,
    make_text_model,
    make_vision_model,
    pixels,
    sentences,
    tokens_of,
)
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from hiva_hf.modeling_hiva_towers import build_tower, embed_text, extract_visual_tokens


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
