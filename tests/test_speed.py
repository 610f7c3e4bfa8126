"""What makes HiVA fast, in numbers that do not depend on the clock: operators, calls, parameters, graphs and memory.

The times themselves are measured by `examples/benchmark.py`.
"""

import gc
from collections import Counter

import psutil
import pytest
import torch
from benchmark_gpu import traffic_of
from conftest import AUS, SIDE
from safetensors import safe_open
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import Trainer, TrainingArguments

from hiva_hf import hiva_small
from hiva_hf.facs import BP4D_AUS
from hiva_hf.lora import add_text_lora

TOWER = "the tower"
# outside of the tower a folded pass makes 213 calls, views among them; the rest is room for other versions of torch
MOST_OPERATORS = 220
STEPS = 4
RESNET = {
    "model_type": "resnet", "layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]
}  # fmt: skip


def operators(model, pixel_values):
    """Calls of torch in a forward pass outside of the vision tower, each with the shapes it was given."""
    tower, ranges = model.hiva.vision_model, []

    def enter(module, arguments, keywords):
        ranges.append(record_function(TOWER))
        ranges[-1].__enter__()

    def leave(module, arguments, answer):
        ranges.pop().__exit__(None, None, None)

    hooks = [tower.register_forward_pre_hook(enter, with_kwargs=True), tower.register_forward_hook(leave)]
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        model(pixel_values)
    for hook in hooks:
        hook.remove()

    def parents(event):
        while event.cpu_parent is not None:
            event = event.cpu_parent
            yield event.name

    found = [event for event in profiler.events() if event.name.startswith("aten::")]
    outside = [event for event in found if TOWER not in parents(event)]
    return outside, [event for event in outside if not any(name.startswith("aten::") for name in parents(event))]


def elements(event):
    return max((torch.Size(shape).numel() for shape in event.input_shapes if shape), default=0)


def test_a_folded_pass_calls_few_operators_and_no_more_for_more_action_units(pixel_values):
    models = [hiva_small(aus, vision_config=RESNET, graph_top_k=1)[0].eval() for aus in (AUS, BP4D_AUS)]
    few, many = (len(operators(model, pixel_values)[1]) for model in models)
    assert 100 < few <= MOST_OPERATORS
    assert many == few


@pytest.mark.parametrize("au_projection", ["learned", "text"])
def test_no_map_of_an_action_unit_is_copied(make_folded, pixel_values, au_projection):
    model = make_folded(au_projection=au_projection)
    with torch.inference_mode():
        tokens = model.hiva(pixel_values).last_hidden_state
    maps = len(AUS) * tokens.numel()
    large = [event for event in operators(model, pixel_values)[0] if elements(event) >= maps]
    counts = Counter(event.name for event in large)
    assert counts["aten::gelu"] == counts["aten::native_layer_norm"] == 1
    # a product begins with a copy of its bias
    copies = [event.cpu_parent.name for event in large if event.name in ("aten::copy_", "aten::clone")]
    assert set(copies) <= {"aten::addmm", "aten::baddbmm"}


def epoch(model, processor, folder):
    """How often the text tower runs while Trainer makes so many steps of two pictures."""
    calls = Counter()
    text = next(module for name, module in model.named_modules() if name.endswith("text_model"))
    text.register_forward_hook(lambda *call: calls.update(text=1))
    rows = [{"pixel_values": torch.rand(3, SIDE, SIDE), "labels": torch.ones(len(AUS))} for _ in range(2 * STEPS)]
    arguments = TrainingArguments(
        folder, num_train_epochs=1, per_device_train_batch_size=2, save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    assert trainer.state.global_step == STEPS
    return calls["text"]


def test_a_frozen_text_tower_runs_once_an_epoch(make_model, processor, tmp_path):
    model = make_model()
    model.hiva.text_model.requires_grad_(False)
    assert epoch(model, processor, tmp_path) == 1


def test_an_adapted_text_tower_runs_once_a_step(make_model, processor, tmp_path):
    assert epoch(add_text_lora(make_model()), processor, tmp_path) == STEPS


def test_a_folded_checkpoint_holds_no_text_tower(make_model, tmp_path):
    model = make_model()
    parts = {name: sum(value.numel() for value in part.parameters()) for name, part in model.hiva.named_children()}
    whole = sum(value.numel() for value in model.parameters())
    model.fold_text().save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as weights:
        sizes = {name: torch.Size(weights.get_slice(name).get_shape()).numel() for name in weights.keys()}  # noqa: SIM118
    assert not [name for name in sizes if "text_model" in name or "description" in name]
    buffers = {name for name, _ in model.named_buffers()}
    kept = sum(size for name, size in sizes.items() if name not in buffers)
    assert kept == whole - parts["text_model"]
    assert sizes["hiva.text_embeds"] == model.hiva.text_embeds.numel()


def test_the_small_preset_stays_small():
    assert sum(value.numel() for value in hiva_small()[0].parameters()) < 4.6e6


def test_a_forward_pass_is_one_graph(make_folded, make_model, pixel_values):
    for model in (make_folded(), make_model()):
        torch._dynamo.reset()
        with torch.no_grad():
            explained = torch._dynamo.explain(model)(pixel_values)
        assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained.break_reasons


def test_memory_is_flat_over_a_thousand_batches(make_folded, pixel_values):
    model, taken = make_folded(vision_config=RESNET), []
    with torch.inference_mode():
        for batch in range(1000):
            model(pixel_values, output_activation_maps=True)
            if batch in (199, 999):
                gc.collect()
                tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
                taken.append((tensors, psutil.Process().memory_info().rss))
    (tensors, bytes_before), (tensors_after, bytes_after) = taken
    assert tensors_after <= tensors
    # for what Python does not know of: one map of the 12 KiB of a batch, kept, would be 9 MiB
    assert bytes_after - bytes_before < 6 * 2**20


def test_traffic_of_memory_is_counted_once_for_what_is_expanded():
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.row = torch.arange(4.0)

        def forward(self, numbers):
            # a view costs nothing, a copy is read and written, a row that is shown often lies in memory once
            return numbers.view(4, 256).T.contiguous() + self.row.expand(256, 4)

    copy, added = 2 * 4096, 4096 + 16 + 4096
    assert traffic_of(Sum(), torch.rand(1024)) == copy + added
