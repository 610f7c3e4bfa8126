import math

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional

from hiva_hf import HiVAConfig
from hiva_hf.modeling_hiva_attention import HiVACrossAttention, HiVAFixedQueryAttention
from hiva_hf.modeling_hiva_layers import (
    HiVACDCA,
    HiVADDCA,
    HiVADescriptionPooling,
    HiVADynamicGraph,
    HiVAFeatureGenerator,
    HiVAHead,
    HiVATextProjection,
    HiVAVisionProjection,
    init_hiva_weights,
)

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


@pytest.mark.parametrize("au_projection", ["learned", "text"])
def test_feature_generator_is_one_projection_an_au(au_projection):
    layer = make_layer(HiVAFeatureGenerator, make_config(au_projection=au_projection))
    tokens, summary = random(BATCH, TOKENS, WIDTH), random(AUS_HERE, WIDTH, seed=2)

    def project(token, au):
        if au_projection == "learned":
            hidden = sum(token[d] * layer.weight[au, d] for d in range(WIDTH)) + layer.bias[au]
        else:
            hidden = linear(layer.down_proj, token) * (1 + linear(layer.gate_proj, summary[au]))
            hidden = linear(layer.up_proj, hidden) + linear(layer.bias_proj, summary[au])
        return functional.gelu(hidden)

    maps = torch.stack([stack([[project(token, au) for token in image] for au in range(AUS_HERE)]) for image in tokens])
    nodes = stack([[norm(layer.norm, sum(maps[b, k]) / TOKENS) for k in range(AUS_HERE)] for b in range(BATCH)])
    assert_same(layer, layer(tokens, summary), (maps, nodes), (tokens, summary))


def test_learned_feature_generator_needs_no_text():
    layer = make_layer(HiVAFeatureGenerator, make_config(**VISUAL_ONLY))
    maps, nodes = layer(random(BATCH, TOKENS, WIDTH), None)
    assert (maps.shape, nodes.shape) == ((BATCH, AUS_HERE, TOKENS, WIDTH), (BATCH, AUS_HERE, WIDTH))


def naive_adjacency(layer, nodes, top_k):
    count = len(nodes)
    directions = [linear(layer.similarity_proj, node) for node in nodes]
    directions = [direction / direction.norm() for direction in directions]
    similarity = [[(one * other).sum() for other in directions] for one in directions]
    kept = []
    for i in range(count):
        others = [j for j in range(count) if j != i and similarity[i][j] > 0]
        kept.append(sorted(others, key=lambda j, i=i: -similarity[i][j].item())[:top_k])
    zero, one = nodes.new_zeros(()), nodes.new_ones(())
    weights = [
        [one if i == j else similarity[i][j] if j in kept[i] or i in kept[j] else zero for j in range(count)]
        for i in range(count)
    ]
    degrees = [sum(row) for row in weights]
    return stack([[weights[i][j] / (degrees[i] * degrees[j]).sqrt() for j in range(count)] for i in range(count)])


@pytest.mark.parametrize(("num_aus", "top_k"), [(6, 1), (6, 2), (6, 4), (4, 3), (4, 9), (2, 1), (1, 1), (1, 4)])
def test_graph_links_the_strongest_neighbours(num_aus, top_k):
    layer = make_layer(HiVADynamicGraph, make_config(num_aus=num_aus, graph_top_k=top_k))
    # what all nodes share would make all of them alike
    nn.init.zeros_(layer.norm.bias)
    nn.init.zeros_(layer.similarity_proj.bias)
    nodes = random(BATCH, num_aus, WIDTH)
    adjacencies, images = [], []
    for image in nodes:
        normed = torch.stack([norm(layer.norm, node) for node in image])
        adjacency = naive_adjacency(layer, normed, top_k)
        neighbours = [linear(layer.neighbour_proj, node) for node in normed]
        images.append(
            [
                image[i]
                + functional.gelu(
                    sum(adjacency[i, j] * neighbours[j] for j in range(num_aus)) + linear(layer.self_proj, normed[i])
                )
                for i in range(num_aus)
            ]
        )
        adjacencies.append(adjacency)
    assert_same(layer, layer(nodes), (stack(images), torch.stack(adjacencies)), (nodes,))


def test_graph_is_symmetric_non_negative_and_depends_on_the_image():
    layer = make_layer(HiVADynamicGraph, make_config(num_aus=6, graph_top_k=1))
    adjacency = layer(random(3, 6, WIDTH))[1]
    assert torch.allclose(adjacency, adjacency.transpose(1, 2), **TIGHT)
    assert (adjacency >= 0).all()
    assert (adjacency.diagonal(dim1=1, dim2=2) > 0).all()
    assert not torch.allclose(adjacency[0], adjacency[1], atol=1e-2)
    # one chosen neighbour each: no more than 6 links, twice, and 6 loops
    assert ((adjacency > 0).sum(dim=(1, 2)) <= 18).all()
    assert torch.linalg.eigvalsh(adjacency).max() <= 1 + 1e-9


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


HEADS = {
    "similarity": {},
    "similarity, bias from text": {"au_projection": "text"},
    "linear": {"head": "linear"},
    "linear, maps from text": {"head": "linear", "au_projection": "text"},
    "visual only": VISUAL_ONLY,
}


@pytest.mark.parametrize("fields", HEADS.values(), ids=HEADS)
def test_head_is_one_logit_an_au(fields):
    config = make_config(**fields)
    layer = make_layer(HiVAHead, config)
    visual = random(BATCH, AUS_HERE, WIDTH)
    textual = random(BATCH, AUS_HERE, WIDTH, seed=2) if config.use_descriptions else None
    summary = random(AUS_HERE, WIDTH, seed=3) if config.use_descriptions else None

    def score(b, k):
        seen = norm(layer.visual_norm, visual[b, k])
        told = norm(layer.textual_norm, textual[b, k]) if textual is not None else seen.new_empty(0)
        if config.head == "linear":
            return (layer.weight[k] * torch.cat((seen, told))).sum() + layer.bias[k]
        bias = linear(layer.bias_proj, summary[k])[0] if layer.bias_from_text else layer.bias[k]
        return (seen * told).sum() / WIDTH**0.5 + bias

    expected = stack([[score(b, k) for k in range(AUS_HERE)] for b in range(BATCH)])
    assert_same(layer, (layer(visual, textual, summary),), (expected,), (visual, textual, summary))
    assert layer.bias_from_text == (config.head == "similarity" and config.au_projection == "text")


@pytest.mark.parametrize("pooling", ["mean", "learned"])
def test_descriptions_are_pooled_an_au_at_a_time(pooling):
    layer = make_layer(HiVADescriptionPooling, make_config(description_pooling=pooling))
    text = random(BATCH, AUS_HERE, DESCRIPTIONS, WIDTH)

    def pool(sentences):
        scores = [(sentence * layer.score).sum().exp() if pooling == "learned" else 1.0 for sentence in sentences]
        return sum(score * sentence for score, sentence in zip(scores, sentences, strict=True)) / sum(scores)

    expected = stack([[pool(sentences) for sentences in image] for image in text])
    assert_same(layer, (layer(text),), (expected,), (text,), {"rtol": 1e-6, "atol": 1e-7})


def test_text_projection_norms_each_description():
    layer = make_layer(HiVATextProjection, make_config())
    text = random(AUS_HERE, DESCRIPTIONS, 6)
    expected = stack([[norm(layer.norm, linear(layer.proj, vector)) for vector in au] for au in text])
    assert_same(layer, (layer(text),), (expected,), (text,))


def naive_position(row, column, rows, columns, width):
    count = math.ceil(width / 4)
    frequencies = [math.pi * 2 ** (-1 + 5 * n / max(count - 1, 1)) for n in range(count)]
    places = ((row + 0.5) / rows, (column + 0.5) / columns)
    return [wave(place * f) for place in places for wave in (math.sin, math.cos) for f in frequencies][:width]


@pytest.mark.parametrize(("width", "heads"), [(8, 2), (4, 2), (10, 2), (7, 1)])
@pytest.mark.parametrize("positions", [True, False])
def test_vision_projection_norms_each_image_and_adds_places(width, heads, positions):
    fields = {"hidden_size": width, "num_attention_heads": heads, "use_position_embeddings": positions}
    layer = make_layer(HiVAVisionProjection, make_config(**fields))
    tokens = random(BATCH, 6, 16)
    images = []
    for image in tokens:
        projected = torch.stack([linear(layer.proj, token) for token in image])
        scaled = (projected - projected.mean()) / (projected.var(correction=0) + layer.norm.eps).sqrt()
        images.append(torch.stack([token * layer.norm.weight + layer.norm.bias for token in scaled]))
    places = tokens.new_tensor([naive_position(n // 3, n % 3, 2, 3, width) for n in range(6)])
    expected = torch.stack(images) + places * positions
    # positions are made in float32
    assert_same(layer, (layer(tokens, (2, 3)),), (expected,), (tokens,), {"rtol": 1e-9, "atol": 1e-5})


def run_all(layers, tokens, text):
    generator, graph, ddca, cdca, head = layers
    summary = text.mean(dim=1)
    maps, nodes = generator(tokens, summary)
    nodes, adjacency = graph(nodes)
    visual, textual, _, to_image = ddca(nodes, maps, text, True)
    visual, textual, to_text, _ = cdca(visual, textual, True)
    return head(visual, textual, summary), visual, textual, adjacency, to_image, to_text


@pytest.mark.parametrize(
    "fields", [{"au_projection": "text"}, {}, {"head": "linear"}], ids=["open", "closed", "linear"]
)
def test_order_of_aus_does_not_matter(fields):
    config = make_config(num_aus=6, **fields)
    layers = [
        make_layer(layer_class, config, seed)
        for seed, layer_class in enumerate((HiVAFeatureGenerator, HiVADynamicGraph, HiVADDCA, HiVACDCA, HiVAHead))
    ]
    tokens, text = random(BATCH, TOKENS, WIDTH), random(6, DESCRIPTIONS, WIDTH, seed=2)
    order = torch.tensor([3, 5, 0, 4, 1, 2])
    with torch.no_grad():
        before = run_all(layers, tokens, text)
        # what is stored by position moves along with its AU
        stored = [getattr(layer, name, None) for layer in (layers[0], layers[4]) for name in ("weight", "bias")]
        for parameter in stored:
            if parameter is not None:
                parameter.copy_(parameter[order].clone())
        after = run_all(layers, tokens, text[order])
    for n, (old, new) in enumerate(zip(before, after, strict=True)):
        moved = old[:, order][..., order] if n in (3, 5) else old[:, order]
        assert torch.allclose(moved, new, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(old, new, atol=1e-2)


def test_new_weights_have_the_stated_spread():
    torch.manual_seed(0)
    config = make_config(hidden_size=64, head="linear", initializer_range=0.3)
    generator, head = HiVAFeatureGenerator(config), HiVAHead(config)
    for layer in (generator, head):
        nn.init.constant_(layer.bias, 7.0)
        init_hiva_weights(layer, config.initializer_range)
        assert (layer.bias == 0).all()
    assert generator.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert head.weight.std().item() == pytest.approx(0.3, rel=0.1)
