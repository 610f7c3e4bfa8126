"""The layers around attention against sums that are written out."""

import math

import pytest
import torch
from naive_layers import (
    AUS_HERE,
    BATCH,
    DESCRIPTIONS,
    TIGHT,
    TOKENS,
    VISUAL_ONLY,
    WIDTH,
    assert_same,
    linear,
    make_config,
    make_layer,
    norm,
    random,
    stack,
)
from torch import nn
from torch.nn import functional

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
