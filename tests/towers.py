"""Tiny towers of every kind that the tests build on."""

import pytest
import torch

from hiva_hf import HiVAConfig, HiVAForImageClassification
from hiva_hf.modeling_hiva_towers import extract_visual_tokens

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
