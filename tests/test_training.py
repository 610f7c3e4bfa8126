"""The stock Trainer: it learns, accumulates, resumes and restores exactly."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import AUS, SIDE, SWIN
from datasets import DatasetDict
from torch import nn
from transformers import TrainerCallback, set_seed

from hiva_hf import HiVAConfig, HiVAForImageClassification
from hiva_hf.data import load_rendered, stream_prepared, subject_split
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.presets import PRESETS
from hiva_hf.training import (
    build_trainer,
    evaluate_detector,
    last_checkpoint,
    predict_logits,
    save_detector,
    training_arguments,
)
from hiva_hf.training_labels import label_weights


@pytest.fixture(scope="module")
def splits():
    dataset = load_rendered(aus=AUS)
    parts = subject_split(dataset, seed=0)
    return DatasetDict({name: part.shuffle(seed=0).select(range(16)) for name, part in parts.items()})


def arguments(folder, **changes):
    fields = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "num_train_epochs": 2,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "use_cpu": True,
    }
    return training_arguments(folder, **{**fields, **changes})


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)


def test_a_few_steps_lower_the_loss(make_model, processor, splits, tmp_path):
    set_seed(0)
    model = make_model()
    batch = next(iter(build_trainer(model, processor, splits, arguments(tmp_path)).get_eval_dataloader()))

    def loss():
        with torch.no_grad():
            return model.eval()(**batch).loss.item()

    before = loss()
    same = {"train": splits["validation"], "validation": splits["validation"]}
    settings = arguments(tmp_path, max_steps=3, per_device_train_batch_size=16, save_strategy="no", eval_strategy="no")
    settings.load_best_model_at_end = False
    build_trainer(model, processor, same, settings).train()
    assert loss() < before


@pytest.mark.parametrize("folded", [False, True])
def test_resuming_equals_an_uninterrupted_run(make_model, processor, splits, tmp_path, folded):
    # a Swin tower: its weights are those that a checkpoint under other key names silently loses
    def run(folder, resume=None, **changes):
        set_seed(0)
        model = make_model().fold_text() if folded else make_model()
        settings = arguments(folder, load_best_model_at_end=False, save_total_limit=None, **changes)
        trainer = build_trainer(model, processor, splits, settings)
        trainer.train(resume_from_checkpoint=resume)
        return weights(trainer.model)

    whole = run(tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-4"
    resumed = run(tmp_path / "run2", resume=str(checkpoint))
    assert largest_difference(whole, resumed) < 1e-6
    assert any("vision_model" in name for name in whole)


def test_the_best_model_is_restored_whole(make_model, processor, splits, tmp_path):
    model = make_model()
    trainer = build_trainer(
        model,
        processor,
        splits,
        arguments(tmp_path, metric_for_best_model="eval_loss", greater_is_better=False, learning_rate=0.02),
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best is not None
    stored = HiVAForImageClassification.from_pretrained(best)
    assert largest_difference(weights(trainer.model), weights(stored)) == 0


def test_gradient_accumulation_is_a_mean(make_model, processor, splits, tmp_path):
    same = {"train": splits["train"], "validation": splits["validation"]}

    def run(accumulation):
        set_seed(0)
        settings = arguments(
            tmp_path / str(accumulation),
            max_steps=1,
            per_device_train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation,
            max_grad_norm=0.0,
            optim="sgd",
            learning_rate=1.0,
            warmup_steps=0,
            lr_scheduler_type="constant",
            save_strategy="no",
            eval_strategy="no",
            load_best_model_at_end=False,
        )
        model = make_model(hidden_dropout_prob=0.0).eval()
        for module in model.modules():
            module.train = lambda mode=True, module=module: module
        trainer = build_trainer(model, processor, same, settings)
        trainer.train_dataset = trainer.eval_dataset
        trainer.train()
        return weights(model)

    assert largest_difference(run(1), run(2)) < 1e-5


def test_mixed_precision_trains_float32_weights_without_fused_attention(make_model, processor, splits, tmp_path):
    set_seed(0)
    model = make_model()
    before = weights(model)
    dtypes = set()
    model.hiva.feature_generator.register_forward_hook(lambda module, args, output: dtypes.add(output[0].dtype))
    settings = arguments(tmp_path, max_steps=2, save_strategy="no", eval_strategy="no", bf16=True)
    settings.load_best_model_at_end = False
    trainer = build_trainer(model, processor, splits, settings)
    assert model.config._attn_implementation == "eager"
    trainer.train()
    assert dtypes == {torch.bfloat16}
    after = weights(model)
    assert all(value.dtype == before[name].dtype for name, value in after.items())
    assert largest_difference(before, after) > 0


def test_columns_are_kept_for_the_transform(tmp_path):
    assert arguments(tmp_path).remove_unused_columns is False


def test_the_image_processor_travels_and_leaves_the_configuration_alone(make_model, processor, splits, tmp_path):
    # given a tokenizer, Trainer would write its padding token into the configuration
    model = make_model()
    before = copy.deepcopy(model.config.to_dict())
    trainer = build_trainer(
        model,
        processor,
        splits,
        arguments(tmp_path, max_steps=1, save_strategy="no", eval_strategy="no", load_best_model_at_end=False),
    )
    trainer.train()
    after = model.config.to_dict()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"label_weights", "use_cache"}


def test_rows_as_a_dataset_has_them_are_evaluated_too(make_model, processor, splits, tmp_path):
    trainer = build_trainer(make_model(), processor, splits, arguments(tmp_path))
    streamed = stream_prepared(SAMPLE_FILE, aus=AUS).select(range(16))
    expected = evaluate_detector(trainer, streamed)["mean_auc"]
    assert trainer.evaluate(streamed)["eval_mean_auc"] == pytest.approx(expected)
    raw = trainer.predict(splits["test"]).predictions
    assert raw == pytest.approx(predict_logits(trainer, splits["test"])[0], abs=1e-5)


def test_an_epoch_is_told_in_a_line(make_model, processor, splits, tmp_path, capsys):
    trainer = build_trainer(
        make_model(), processor, splits, arguments(tmp_path, num_train_epochs=1, logging_strategy="epoch")
    )  # fmt: skip
    trainer.train()
    out, err = capsys.readouterr()
    assert "epoch 1 of 1: loss" in err
    assert "eval_f1" not in out + err
    assert any("eval_f1_AU12" in row for row in trainer.state.log_history)


def test_arguments_stay_as_they_were(make_model, processor, splits, tmp_path):
    given = arguments(tmp_path)
    before = given.to_dict()
    build_trainer(make_model(problem_type="regression"), processor, splits, given)
    assert given.to_dict() == before


def test_what_is_drawn_more_often_is_not_weighed_up_twice():
    labels = np.array([[1, 1], [0, 1], [0, 0], [0, 0]])
    assert label_weights(labels) == pytest.approx([4 / 3, 2 / 3])
    # the first row as often as the three others
    assert label_weights(labels, np.array([3, 1, 1, 1])) == pytest.approx([8 / 7, 6 / 7])


def test_predictions_are_logits_alone(make_model, processor, splits, tmp_path):
    trainer = build_trainer(make_model(), processor, splits, arguments(tmp_path))
    predicted = trainer.predict(trainer.eval_dataset)
    assert isinstance(predicted.predictions, np.ndarray)
    assert predicted.predictions.shape == (16, len(AUS))
    metrics = evaluate_detector(trainer, splits["test"])
    assert {"f1_AU12", "auc_AU12", "always_positive_f1_AU12", "mean_f1", "mean_auc"} <= metrics.keys()


def test_labels_of_another_width_are_refused(make_model, processor, tmp_path):
    other = {"train": load_rendered(aus=("AU1", "AU2"))}
    with pytest.raises(ValueError, match=r"width 3.*AU1, AU4, AU12.*got 2\. Action units of the labels: AU1 AU2"):
        build_trainer(make_model(), processor, other, arguments(tmp_path))


@pytest.mark.parametrize("value", [9, -1, 2])
def test_labels_that_are_none_are_refused(make_model, processor, splits, tmp_path, value):
    part = splits["train"].map(lambda row, index: {"labels": [0, value if index == 3 else 1, -100]}, with_indices=True)
    with pytest.raises(ValueError, match=rf"got {value} for AU4 in row 3 and 0 more"):
        build_trainer(make_model(), processor, {"train": part}, arguments(tmp_path))


def test_processes_that_do_not_know_of_each_other_are_refused(make_model, processor, splits, tmp_path, monkeypatch):
    settings = arguments(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="must join the 2 processes that were launched"):
        build_trainer(make_model(), processor, splits, settings)


@pytest.mark.parametrize("form", ["streamed", "drawn"])
def test_an_epoch_in_an_order_of_its_own_resumes_too(make_model, processor, tmp_path, form):
    """Killed in the midst of the second epoch."""
    faces = stream_prepared(SAMPLE_FILE, aus=AUS)
    splits = {"train": faces.select(range(18)), "validation": faces.select(range(30, 40))}
    if form == "drawn":
        splits = {name: load_rendered(aus=AUS).select(part.index["row"][:]) for name, part in splits.items()}
    draws = np.linspace(1, 3, 18) if form == "drawn" else None

    def run(folder, resume=None):
        set_seed(0)
        settings = arguments(
            folder, load_best_model_at_end=False, save_strategy="steps", save_steps=7, eval_strategy="no"
        )  # fmt: skip
        trainer = build_trainer(make_model(), processor, splits, settings, sample_weights=draws)
        orders = [trainer.train_dataset.places.tolist()]
        trainer.add_callback(_Orders(trainer.train_dataset, orders))
        trainer.train(resume_from_checkpoint=resume)
        return weights(trainer.model), orders

    whole, orders = run(tmp_path / "run")
    assert orders[1] == orders[0] != orders[2]
    resumed, again = run(tmp_path / "run2", resume=str(tmp_path / "run" / "checkpoint-7"))
    assert again[-1] == orders[2]
    assert largest_difference(whole, resumed) < 1e-6


class _Orders(TrainerCallback):
    """What order each epoch ended with."""

    def __init__(self, rows, orders):
        self.rows, self.orders = rows, orders

    def on_epoch_end(self, args, state, control, **kwargs):
        self.orders.append(self.rows.places.tolist())


def test_a_stream_without_an_end_is_refused(make_model, processor, splits, tmp_path):
    with pytest.raises(TypeError, match="train is a IterableDataset"):
        build_trainer(
            make_model(), processor, {"train": splits["train"].to_iterable_dataset()}, arguments(tmp_path)
        )  # fmt: skip


def test_an_intensity_model_trains_and_keeps_its_best_epoch(make_model, processor, tmp_path):
    parts = subject_split(load_rendered(aus=AUS, intensity=True), seed=0)
    parts = {name: part.shuffle(seed=0).select(range(16)) for name, part in parts.items()}
    model = make_model(problem_type="regression")
    trainer = build_trainer(model, processor, parts, arguments(tmp_path, num_train_epochs=1))
    trainer.train()
    assert trainer.state.best_metric is not None
    assert {"mae_AU12", "icc_AU12", "mean_icc"} <= evaluate_detector(trainer, parts["test"]).keys()


def test_label_weights():
    labels = np.array([[1, 1, 0], [0, 1, -100], [0, 1, 0], [0, 0, np.nan]])
    got = np.array(label_weights(labels))
    inverse = np.array([4 / 1, 4 / 3, 2 / 1])
    assert np.allclose(got, inverse * 3 / inverse.sum())
    with pytest.raises(ValueError, match="columns 1"):
        label_weights(np.array([[1, -100], [0, -100]]))


def test_half_written_checkpoints_are_passed_over(tmp_path):
    for step, complete in ((4, True), (16, True), (20, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-16")
    assert last_checkpoint(tmp_path / "nothing") is None


def test_saving_replaces_the_folder_whole(make_model, processor, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    save_detector(make_model(), processor, folder, {"results.json": {"mean_f1": 0.5}})
    assert json.loads((folder / "results.json").read_text()) == {"mean_f1": 0.5}
    assert not (folder / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    model, processor = PRESETS[name](["AU12", "1"])
    assert model.config.au_names == processor.labels == ["AU12", "AU1"]
    assert model.config.description_bank.startswith("facs-en-v1@")
    assert sum(p.numel() for p in model.parameters()) < 6e6
    assert (model.hiva.text_model is None) == (name == "small")
    outputs = model.eval()(torch.rand(1, 3, 112, 112), output_activation_maps=True)
    assert outputs.activation_maps.shape == (1, 2, 7, 7)


def test_lora_touches_the_text_tower_alone(processor, make_model):
    from peft import LoraConfig, get_peft_model

    # a list of names would also hit HiVA's cross-attention and Swin, which call their layers q_proj too
    pattern = r".*text_model.*\.(query|key|value|dense)"
    model = get_peft_model(make_model(), LoraConfig(r=2, target_modules=pattern))
    touched = [name for name, p in model.named_parameters() if p.requires_grad]
    assert touched
    assert all(".text_model." in name for name in touched)
    everywhere = get_peft_model(make_model(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    assert [name for name, p in everywhere.named_parameters() if p.requires_grad and ".text_model." not in name]


def test_stock_configuration_of_a_tower_is_enough():
    model = HiVAForImageClassification(
        HiVAConfig(vision_config=SWIN, hidden_size=32, num_attention_heads=4, text_folded=True, text_embed_dim=8)
    )
    assert model(torch.rand(1, 3, SIDE, SIDE)).logits.shape == (1, 12)
    assert isinstance(model.hiva.graph, nn.Module)
