"""One step of training is the same in parts and in half precision: a mean over labels, not over batches."""

import numpy as np
import pytest
import torch
from conftest import AUS, SWIN
from transformers import set_seed

from hiva_hf.data import FaceAugmentation, load_rendered
from hiva_hf.training import build_trainer, share_batch, training_arguments

STILL = FaceAugmentation(rotation=0, scale=0, shift=0, flip=0, colour=0, blur=0, erase=0)


@pytest.fixture(scope="module")
def faces():
    """Eight faces, of which some have all labels and some a single one."""
    rows = load_rendered(aus=AUS).select(range(0, 400, 50))

    def coded(row, index):
        labels = np.array(row["labels"], dtype=np.float32)
        labels[: (0, 2, 2, 0, 1, 0, 2, 1)[index]] = (-100, np.nan)[index % 2]
        return {"labels": labels.tolist()}

    return rows.map(coded, with_indices=True)


@pytest.fixture
def step(make_model, processor, faces, tmp_path):
    """What one step changes."""

    def run(batch=8, accumulation=1, **changes):
        set_seed(0)
        model = make_model(
            alignment_loss_weight=0.3, hidden_dropout_prob=0.0, vision_config={**SWIN, "drop_path_rate": 0.0}
        )
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        before = torch.cat([value.detach().flatten().clone() for value in model.parameters()])
        arguments = training_arguments(
            tmp_path, max_steps=1, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            max_grad_norm=0.0, optim="sgd", learning_rate=1.0, warmup_steps=0, lr_scheduler_type="constant",
            save_strategy="no", eval_strategy="no", load_best_model_at_end=False, disable_tqdm=True, use_cpu=True,
            logging_steps=1, **changes,
        )  # fmt: skip
        trainer = build_trainer(model, processor, {"train": faces}, arguments, STILL)
        trainer.train()
        after = torch.cat([value.detach().flatten() for value in model.parameters()])
        return after - before, trainer.state.log_history[0]["loss"]

    return run


@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_a_step_in_parts_is_the_step(step, accumulation):
    whole, loss = step()
    parts, told = step(8 // accumulation, accumulation)
    assert whole.abs().max() > 0.01
    assert (whole - parts).abs().max() < 1e-5
    assert told == pytest.approx(loss, abs=1e-4)


def test_half_precision_takes_the_same_step(step):
    whole, loss = step()
    half, told = step(bf16=True)
    assert (whole - half).norm() < 0.1 * whole.norm()
    assert told == pytest.approx(loss, rel=0.01)
    parts, _ = step(4, 2, bf16=True)
    assert (half - parts).norm() < 0.05 * half.norm()


def test_filling_adds_nothing(make_model):
    model = make_model(
        alignment_loss_weight=0.3, hidden_dropout_prob=0.0, vision_config={**SWIN, "drop_path_rate": 0.0}
    ).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, 32, 32, generator=generator)
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1], [-100, -100, -100]])
    alone = model(pixels[:2], labels=labels[:2]).loss
    assert model(pixels, labels=labels).loss.item() == pytest.approx(alone.item(), abs=1e-6)
    nothing = model(pixels[2:], labels=labels[2:], num_items_in_batch=torch.tensor(0)).loss
    assert nothing.item() == 0
    halves = [model(pixels[n : n + 1], labels=labels[n : n + 1], num_items_in_batch=6).loss.item() for n in (0, 1)]
    assert sum(halves) == pytest.approx(alone.item(), abs=1e-6)


def test_faces_of_a_step_are_shared_out(tmp_path, monkeypatch):
    def shared(processes, batch, faces):
        given = training_arguments(tmp_path, per_device_train_batch_size=batch, use_cpu=True)
        monkeypatch.setattr(type(given), "world_size", processes)
        made = share_batch(given, faces)
        assert given.per_device_train_batch_size == batch
        return made.per_device_train_batch_size, made.gradient_accumulation_steps

    assert shared(1, 64, 64) == (64, 1)
    assert shared(2, 64, 64) == (32, 1)
    assert shared(1, 64, 128) == (64, 2)
    assert shared(1, 64, 3 * 64) == (64, 3)
    assert shared(2, 10, 36) == (9, 2)
    with pytest.raises(ValueError, match=r"64 faces of a step evenly.* got 3 processes. Go on with 1, 2, 4, 8, 16, 32"):
        shared(3, 64, 64)
