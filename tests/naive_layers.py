"""What the tests of the layers share: small ones with weights that matter, and their sums written out."""

import torch
from torch import nn
from torch.nn import functional

from hiva_hf import HiVAConfig

AUS = ("AU1", "AU2", "AU4", "AU6", "AU12", "AU25")
VISION = {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8}
BATCH, AUS_HERE, DESCRIPTIONS, TOKENS, WIDTH = 2, 4, 3, 5, 8
VISUAL_ONLY = {"use_descriptions": False, "use_ddca": False, "use_cdca": False, "head": "linear"}
TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def make_config(attention="sdpa", num_aus=AUS_HERE, **fields):
    text = {} if fields.get("use_descriptions") is False else {"text_folded": True, "text_embed_dim": 6}
    fields = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 12, "graph_top_k": 2, **fields}
    config = HiVAConfig(
        vision_config=VISION, id2label=dict(enumerate(AUS[:num_aus])), hidden_dropout_prob=0.0, **text, **fields
    )
    config._attn_implementation = attention
    return config


def make_layer(layer_class, config, seed=0):
    torch.manual_seed(seed)
    layer = layer_class(config).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.5)
    return layer


def random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def assert_same(layer, outputs, expected, inputs, tolerance=TIGHT):
    """Equal values, and equal gradients of a random weighting of them for all parameters and inputs."""
    variables = [*layer.parameters(), *(tensor for tensor in inputs if tensor is not None)]
    gradients = []
    for tensors in (outputs, expected):
        total = sum((tensor * random(*tensor.shape, seed=9 + n).detach()).sum() for n, tensor in enumerate(tensors))
        gradients.append(
            torch.autograd.grad(total, variables, retain_graph=True, allow_unused=True, materialize_grads=True)
        )
    for one, other in zip(outputs, expected, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, **tolerance)
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, **tolerance)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0])


def norm(layer, vector):
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def linear(layer, vector):
    return torch.stack([(row * vector).sum() for row in layer.weight]) + layer.bias


def naive_attention(layer, queries, context):
    """(Q, D) queries and (C, D) context to updates (Q, D) and weights (Q, C), one query and one head at a time."""
    width = layer.head_dim
    context = [norm(layer.context_norm, row) for row in context]
    keys, values = ([linear(proj, row) for row in context] for proj in (layer.k_proj, layer.v_proj))
    updates, weights = [], []
    for row in queries:
        query = linear(layer.q_proj, norm(layer.query_norm, row))
        heads, head_weights = [], []
        for head in range(layer.num_heads):
            part = slice(head * width, (head + 1) * width)
            scores = torch.stack([(query[part] * key[part]).sum() / width**0.5 for key in keys])
            share = scores.exp() / scores.exp().sum()
            heads.append(sum(s * value[part] for s, value in zip(share, values, strict=True)))
            head_weights.append(share)
        updates.append(linear(layer.out_proj, torch.cat(heads)))
        weights.append(sum(head_weights) / layer.num_heads)
    return torch.stack(updates), torch.stack(weights)


def naive_feed_forward(layer, vector):
    return vector + linear(layer.fc2, functional.gelu(linear(layer.fc1, norm(layer.norm, vector))))


def stack(rows):
    return torch.stack([torch.stack(row) for row in rows])
