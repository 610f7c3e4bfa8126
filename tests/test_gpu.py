"""What a GPU computes, beside what a CPU does. The renderer's test stands with the renderer."""

import os

import pytest
import torch
from conftest import AUS, SIDE
from datasets import DatasetDict
from PIL import Image
from transformers import set_seed

from hiva_hf import ActionUnitDetector, build_trainer, default_checkpoint, hiva_small, training_arguments
from hiva_hf.checkpoint import load_detector
from hiva_hf.data import load_rendered, subject_split
from hiva_hf.faces import Face
from hiva_hf.lora import add_text_lora, text_lora_config

# `HIVA_TEST_DEVICE=cpu` tries the tests themselves where there is no GPU
DEVICE = os.environ.get("HIVA_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def full_float32():
    precision = torch.get_float32_matmul_precision()
    convolution = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = convolution


@pytest.fixture
def shipped():
    return load_detector(default_checkpoint())


def nobody(image) -> list[Face]:
    """Finds no face: they are told. It needs no OpenCV."""
    return []


def faces(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 128, 128, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def answers(model, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and intensities, in float32 on the CPU."""
    outputs = model(pixel_values.to(model.device, model.dtype))
    return outputs.logits.float().sigmoid().cpu(), outputs.intensities.float().cpu()


def test_the_shipped_checkpoint_answers_as_on_a_cpu(shipped):
    model, _ = shipped
    here = answers(model, faces(4))
    there = answers(model.to(DEVICE), faces(4))
    for one, other in zip(here, there, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("dtype", "off"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_is_near(shipped, dtype, off):
    model, _ = shipped
    here = answers(model, faces(8))[0]
    there = answers(model.to(DEVICE, dtype), faces(8))[0]
    assert not torch.equal(here, there)
    assert (here - there).abs().max() < off
    assert (here - there).abs().mean() < off / 10


def test_cuda_graphs_answer_anew_for_each_batch(shipped):
    model = shipped[0].to(DEVICE)
    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    for seed in range(4):
        plain, fast = answers(model, faces(4, seed)), answers(compiled, faces(4, seed))
        for one, other in zip(plain, fast, strict=True):
            assert torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("lora", [False, True])
def test_bfloat16_trains(make_model, processor, tmp_path, lora):
    set_seed(0)
    model = make_model()
    if lora:
        model = add_text_lora(model, text_lora_config(4))
    parts = subject_split(load_rendered(aus=AUS), seed=0)
    same = parts["train"].shuffle(seed=0).select(range(16))
    settings = training_arguments(
        tmp_path, per_device_train_batch_size=16, max_steps=6, bf16=True, use_cpu=DEVICE == "cpu", disable_tqdm=True,
        eval_strategy="no", save_strategy="no", load_best_model_at_end=False, learning_rate=3e-3,
    )  # fmt: skip
    trainer = build_trainer(model, processor, DatasetDict({"train": same, "validation": same}), settings)
    assert trainer.args.device.type == DEVICE
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert all(value.isfinite().all() for value in model.parameters())


def test_a_frozen_text_tower_is_read_once(make_model, pixel_values):
    model = make_model()
    for value in model.hiva.text_model.parameters():
        value.requires_grad = False
    calls = []
    model.to(DEVICE).train().hiva.text_model.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        outputs = model(pixel_values.to(DEVICE), labels=torch.ones(2, len(AUS), device=DEVICE))
        outputs.loss.backward()
    assert len(calls) == 1
    assert outputs.text_embeds.device.type == DEVICE


def test_maps_and_attentions_come_from_where_the_model_is(make_folded, pixel_values):
    model = make_folded()
    ask = {"output_activation_maps": True, "output_attentions": True}
    with torch.inference_mode():
        here = model(pixel_values, **ask)
        there = model.to(DEVICE)(pixel_values.to(DEVICE), **ask)
    assert there.activation_maps.device.type == DEVICE
    for one, other in [
        (here.activation_maps, there.activation_maps),
        (here.graph_adjacency, there.graph_adjacency),
        *zip(here.ddca_attentions, there.ddca_attentions, strict=True),
        *zip(here.cdca_attentions, there.cdca_attentions, strict=True),
    ]:
        assert torch.allclose(one, other.cpu(), atol=1e-4)


def test_the_detector_takes_it_and_gives_back_numbers(tmp_path):
    row = load_rendered()[0]
    picture = row["image"].convert("RGB")
    face = Face(box=(0.0, 0.0, float(picture.width), float(picture.height)))
    here = ActionUnitDetector(device="cpu", faces=nobody).image(picture, faces=[face])[0]
    detector = ActionUnitDetector(device=DEVICE, faces=nobody)
    assert detector.model.device.type == DEVICE
    there = detector.image(picture, faces=[face])[0]
    assert there.scores == pytest.approx(here.scores, abs=1e-4)


def test_a_batch_that_is_too_large_is_halved():
    model, processor = hiva_small(AUS)
    detector = ActionUnitDetector(model, processor, device=DEVICE, batch_size="auto", faces=nobody)
    forward, sizes = detector.model.forward, []

    def small_memory(pixel_values, **options):
        sizes.append(len(pixel_values))
        if len(pixel_values) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(pixel_values, **options)

    detector.model.forward = small_memory
    picture = Image.new("RGB", (4 * SIDE, 4 * SIDE), "grey")
    face = Face(box=(0.0, 0.0, 4.0 * SIDE, 4.0 * SIDE))
    results = detector.image(picture, faces=[face] * 5)
    assert len(results) == 5
    assert all(result.success for result in results)
    assert sizes[0] == 5
    assert max(sizes[-2:]) <= 2
