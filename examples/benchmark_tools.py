"""What the benchmarks share: models with random weights, turns of what is compared, and lines of a table."""

import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from transformers import AutoModel

from hiva_hf import HiVAConfig, HiVAForImageClassification
from hiva_hf.presets import hiva_small, hiva_small_text

TOWERS = {
    "resnet-50": {"model_type": "resnet"},
    "swin-t": {"model_type": "swin"},
    "vit-b/16": {"model_type": "vit"},
}
TEXT = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
Times = dict[str, list[tuple[float, float]]]


def folded(name: str, aus: list[str] | None = None) -> HiVAForImageClassification:
    """HiVA on a tower of [`TOWERS`], its text replaced by embeddings."""
    labels = {} if aus is None else {"id2label": dict(enumerate(aus))}
    width = TEXT["hidden_size"]
    config = HiVAConfig(vision_config=TOWERS[name], text_folded=True, text_embed_dim=width, **labels)
    model = HiVAForImageClassification(config)
    model.set_text_embeds(torch.randn(config.num_labels, config.num_descriptions, width))
    return model.eval()


def with_text(name: str) -> HiVAForImageClassification:
    """HiVA on a tower of [`TOWERS`], with a text tower of six layers."""
    model = HiVAForImageClassification(HiVAConfig(vision_config=TOWERS[name], text_config=TEXT))
    model.set_descriptions(torch.randint(1000, 20000, (model.config.num_labels, 8, 40)))
    return model.eval()


def variants(name: str) -> tuple[dict[str, nn.Module], int]:
    """The bare tower, HiVA and HiVA folded, and the side of the image in pixels."""
    if name == "small preset":
        models, size = (hiva_small_text()[0], hiva_small()[0]), 112
    else:
        models, size = (with_text(name), folded(name)), 224
    return {"bare tower": bare(models[1]), "HiVA": models[0].eval(), "HiVA folded": models[1].eval()}, size


def bare(model: HiVAForImageClassification) -> nn.Module:
    """The tower of a model alone, with weights of its own."""
    return AutoModel.from_config(model.config.vision_config).eval()


def faces(count: int, size: int) -> torch.Tensor:
    """Random pictures, in the order of memory that convolutions are fastest on: for the bare tower, too."""
    return torch.rand(count, 3, size, size).contiguous(memory_format=torch.channels_last)


def own_time() -> float:
    return time.process_time()


def childrens_time() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


def turns(calls: dict[str, Callable], rounds: int, clock: Callable[[], float] = own_time, warm: int = 1) -> Times:
    """CPU and wall seconds of each call, one after the other in every round; the first rounds do not count."""
    spent: Times = {name: [] for name in calls}
    for turn in range(rounds + warm):
        for name, call in calls.items():
            start, start_cpu = time.perf_counter(), clock()
            call()
            if turn >= warm:
                spent[name].append((clock() - start_cpu, time.perf_counter() - start))
    return spent


def row(times: Times, one: str, other: str, per: str, count: int = 1, claim: str = "", **names) -> dict:
    """A line of the table: what `one` takes beside `other`; a claim is `ratio <= 1.1` or on another column."""
    cpu, wall = ([[pair[i] for pair in times[name]] for name in (one, other)] for i in range(2))
    found = {**names, "variant": one, "beside": other, "per": per}
    for kind, spent in (("cpu", cpu), ("wall", wall)):
        for prefix, values in zip(("", "beside_"), spent, strict=True):
            found[f"{prefix}{kind}_ms"] = 1000 * statistics.median(values) / count
    found["ratio"] = statistics.median(mine / its for mine, its in zip(*cpu, strict=True))
    return judged(found, claim)


def judged(found: dict, claim: str) -> dict:
    """A row with its claim, and whether that holds."""
    if claim:
        column, sign, limit = claim.split()
        value = found[column]
        found |= {"claim": claim, "holds": value <= float(limit) if sign == "<=" else value >= float(limit)}
    return found
