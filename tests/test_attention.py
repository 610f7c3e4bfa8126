"""Cross-attention, DDCA and CDCA against sums that are written out."""

import pytest
import torch
from naive_layers import (
    AUS_HERE,
    BATCH,
    DESCRIPTIONS,
    TIGHT,
    TOKENS,
    WIDTH,
    assert_same,
    make_config,
    make_layer,
    naive_attention,
    naive_feed_forward,
    random,
    stack,
)
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from hiva_hf.modeling_hiva_attention import HiVACrossAttention, HiVAFixedQueryAttention
from hiva_hf.modeling_hiva_layers import HiVACDCA, HiVADDCA


@pytest.mark.parametrize(
    ("query_shape", "context_shape"),
    [((4, 3), (4, 5)), ((2, 4), (2, 4)), ((1, 4, 3), (2, 4, 5)), ((2, 4, 1), (4, 5)), ((3,), (2, 5))],
)
def test_cross_attention_is_softmax_over_the_context(query_shape, context_shape):
    config = make_config("sdpa")
    layer = make_layer(HiVACrossAttention, config)
    hidden, context = random(*query_shape, WIDTH), random(*context_shape, WIDTH, seed=2)
    leading = torch.broadcast_shapes(query_shape[:-1], context_shape[:-1])
    queries = hidden.expand(*leading, *hidden.shape[-2:]).flatten(0, -3)
    contexts = context.expand(*leading, *context.shape[-2:]).flatten(0, -3)
    pairs = [naive_attention(layer, *pair) for pair in zip(queries, contexts, strict=True)]
    update, weights = (torch.stack(part).unflatten(0, leading) for part in zip(*pairs, strict=True))

    plain, nothing = layer(hidden, context)
    assert nothing is None
    assert_same(layer, (plain,), (update,), (hidden, context))
    with torch.no_grad():
        # a CPU takes the fused kernel where no gradient is asked for
        assert torch.allclose(layer(hidden, context)[0], update, **TIGHT)
    eager_update, eager_weights = layer(hidden, context, output_attentions=True)
    assert_same(layer, (eager_update, eager_weights), (update, weights), (hidden, context))
    assert torch.allclose(eager_weights.sum(-1), torch.ones_like(eager_weights[..., 0]), atol=1e-6)
    assert (eager_weights >= 0).all()


@pytest.mark.parametrize("wrapped", ["k_proj", "v_proj"])
def test_fixed_queries_do_not_pass_by_an_adapter_of_their_projections(wrapped):
    layer = make_layer(HiVAFixedQueryAttention, make_config())
    hidden, context = random(4, 3, WIDTH), random(BATCH, 4, TOKENS, WIDTH, seed=2)
    before = layer(hidden, context)[0]
    adapter = LoraLinear(getattr(layer, wrapped), "default", LoraConfig(r=2), r=2).double()
    nn.init.normal_(adapter.lora_B["default"].weight)
    setattr(layer, wrapped, adapter)
    adapted = layer(hidden, context)[0]
    assert not torch.allclose(adapted, before, atol=1e-3)
    adapter.merge()
    setattr(layer, wrapped, adapter.get_base_layer())
    assert torch.allclose(layer(hidden, context)[0], adapted, **TIGHT)


def test_every_weight_of_fixed_queries_has_a_gradient():
    layer = make_layer(HiVAFixedQueryAttention, make_config())
    layer(random(4, 3, WIDTH), random(BATCH, 4, TOKENS, WIDTH, seed=2))[0].sum().backward()
    assert all(value.grad is not None for value in layer.parameters())


def test_attention_dropout_acts_in_training_only():
    layer = make_layer(HiVACrossAttention, make_config("eager", attention_dropout=0.5))
    hidden, context = random(2, 4, WIDTH), random(2, 5, WIDTH, seed=2)
    first, second = (layer(hidden, context)[0] for _ in range(2))
    assert not torch.allclose(first, second)
    layer.eval()
    first, second = (layer(hidden, context)[0] for _ in range(2))
    assert torch.equal(first, second)


def ddca_inputs():
    return (
        random(BATCH, AUS_HERE, WIDTH),
        random(BATCH, AUS_HERE, TOKENS, WIDTH, seed=2),
        random(AUS_HERE, DESCRIPTIONS, WIDTH, seed=3),
    )


@pytest.mark.parametrize("attentions", [False, True])
def test_ddca_attends_both_ways_within_each_au(attentions):
    layer = make_layer(HiVADDCA, make_config())
    nodes, maps, text = ddca_inputs()
    visual, textual, to_text, to_image = [], [], [], []
    for b in range(BATCH):
        rows = []
        for k in range(AUS_HERE):
            update, weights = naive_attention(layer.visual_to_text, nodes[b, k][None], text[k])
            back, map_weights = naive_attention(layer.text_to_visual, text[k], maps[b, k])
            rows.append((nodes[b, k] + update[0], sum(text[k] + back) / DESCRIPTIONS, weights[0], map_weights))
        for target, column in zip((visual, textual, to_text, to_image), zip(*rows, strict=True), strict=True):
            target.append(column)
    expected = [stack(part) for part in (visual, textual, to_text, to_image)]
    outputs = layer(nodes, maps, text, attentions)
    if attentions:
        assert_same(layer, outputs, expected, (nodes, maps, text))
    else:
        assert outputs[2:] == (None, None)
        assert_same(layer, outputs[:2], expected[:2], (nodes, maps, text))


@pytest.mark.parametrize(("changed", "au_dim"), [(0, 1), (1, 1), (2, 0)])
def test_ddca_keeps_aus_apart(changed, au_dim):
    layer = make_layer(HiVADDCA, make_config())
    inputs = [tensor.detach().clone() for tensor in ddca_inputs()]
    before = layer(*inputs)[:2]
    one_au = inputs[changed].select(au_dim, 1)
    one_au.copy_(random(*one_au.shape, seed=8).detach())
    after = layer(*inputs)[:2]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[:, [0, 2, 3]], new[:, [0, 2, 3]])
    assert any(not torch.allclose(old[:, 1], new[:, 1]) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("attentions", [False, True])
def test_cdca_attends_both_ways_across_aus(attentions):
    layer = make_layer(HiVACDCA, make_config())
    visual, textual = random(BATCH, AUS_HERE, WIDTH), random(BATCH, AUS_HERE, WIDTH, seed=2)
    columns = []
    for seen, told in zip(visual, textual, strict=True):
        update, to_text = naive_attention(layer.visual_to_text, seen, told)
        back, to_visual = naive_attention(layer.text_to_visual, told, seen)
        seen = [naive_feed_forward(layer.visual_feed_forward, row) for row in seen + update]
        told = [naive_feed_forward(layer.textual_feed_forward, row) for row in told + back]
        columns.append((torch.stack(seen), torch.stack(told), to_text, to_visual))
    expected = [torch.stack(column) for column in zip(*columns, strict=True)]
    outputs = layer(visual, textual, attentions)
    if attentions:
        assert_same(layer, outputs, expected, (visual, textual))
    else:
        assert outputs[2:] == (None, None)
        assert_same(layer, outputs[:2], expected[:2], (visual, textual))


def test_cdca_carries_one_au_to_the_others():
    layer = make_layer(HiVACDCA, make_config())
    visual, textual = random(1, AUS_HERE, WIDTH), random(1, AUS_HERE, WIDTH, seed=2)
    seen, told, *_ = layer(visual, textual)
    assert (torch.autograd.grad(seen[0, 0].sum(), textual)[0][0].abs().amax(-1) > 1e-6).all()
    assert (torch.autograd.grad(told[0, 0].sum(), visual)[0][0].abs().amax(-1) > 1e-6).all()
