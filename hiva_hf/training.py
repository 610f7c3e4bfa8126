"""Training with the stock Trainer: arguments that suit action units, and the parts put together."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import cast

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch.distributed.tensor import DTensor
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import is_torch_bf16_gpu_available, logging

from .data import EpochDataset, FaceAugmentation, FaceCollator, FaceTransform, StreamedFaces
from .data.merging import label_matrix
from .data.schema import alignment_of
from .faces import FaceTemplate
from .groups import group_metrics
from .metrics import intensity_metrics, make_compute_metrics
from .processes import launched
from .processing_hiva import HiVAProcessor
from .terminal_training import show_epochs
from .training_labels import WhatIsNotTrained, check_labels, weights_where_coded

logger = logging.get_logger(__name__)


def training_arguments(output_dir: str | Path, **changes) -> TrainingArguments:
    """`TrainingArguments` for a model that is trained from scratch on faces; each can be changed.

    The best epoch on the validation part is kept by its mean F1, that of an intensity model by its mean ICC.

    Args:
        output_dir (`str` or `Path`): Where checkpoints go.
        changes: Fields of `TrainingArguments`.
    """
    fields = {
        "output_dir": str(output_dir),
        "num_train_epochs": 20,
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 128,
        "learning_rate": 1e-3,
        "weight_decay": 0.05,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "max_grad_norm": 1.0,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": 20,
        "load_best_model_at_end": True,
        "metric_for_best_model": "mean_f1",
        "greater_is_better": True,
        # the transform reads columns that the model does not take
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
    }
    if not torch.accelerator.is_available() or (changes.get("bf16") and not is_torch_bf16_gpu_available()):
        # a CPU must be asked for by name: else Trainer refuses bfloat16, and processes of torchrun train each alone
        fields["use_cpu"] = True
    return TrainingArguments(**{**fields, **changes})


def share_batch(args: TrainingArguments, faces: int) -> TrainingArguments:
    """Arguments by which all processes together see as many faces a step as they did when the run was begun.

    Trainer counts what was seen in steps: with a step of another size a resumed run would leave out faces, or see them
    twice.

    Args:
        args (`TrainingArguments`): Of these processes; they see at most `per_device_train_batch_size` at a time.
        faces (`int`): Of a step, of all processes.

    Returns:
        `TrainingArguments`: A copy with another batch size, and accumulation of gradients where that is too small.

    Raises:
        ValueError: If so many processes cannot share a step evenly.
    """
    if faces % args.world_size:
        able = [str(count) for count in range(1, faces + 1) if faces % count == 0][:6]
        raise ValueError(
            f"`args` must share the {faces} faces of a step evenly, as the run was begun; got {args.world_size} "
            f"processes. Go on with {', '.join(able)}."
        )
    own = faces // args.world_size
    size = max(count for count in range(1, args.per_device_train_batch_size + 1) if own % count == 0)
    args = copy.copy(args)
    args.per_device_train_batch_size, args.gradient_accumulation_steps = size, own // size
    return args


class _WholeProcessor(TrainerCallback):
    """What a Trainer pushes is a whole detector; of a processor, it could only hold one with a tokenizer."""

    def __init__(self, processor: HiVAProcessor):
        self.processor = processor

    def on_push_begin(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            self.processor.save_pretrained(args.output_dir)


def build_trainer(
    model: PreTrainedModel,
    processor: HiVAProcessor,
    splits: DatasetDict | dict[str, Dataset] | dict[str, StreamedFaces],
    args: TrainingArguments,
    augmentation: FaceAugmentation | None = None,
    sample_weights: np.ndarray | None = None,
    callbacks: list[TrainerCallback] | None = None,
    order: tuple[int, int] | None = None,
) -> Trainer:
    """A stock `Trainer` for HiVA, which tells an epoch in a line: metrics of every action unit are in its log history.

    Args:
        model (`HiVAForImageClassification`): To be trained; gets `label_weights` from the training part if it has none.
        processor (`HiVAProcessor`): Its image processor is saved with every checkpoint.
        splits (`DatasetDict` or `dict`): `train` and `validation`, each a `Dataset` or [`StreamedFaces`] with `image`,
            `labels` and, for alignment, `points` or `landmarks`; `intensities` train the second head of a model that
            has one. Several processes get equal shares and no row twice. An AU that is never coded is not trained.
        args (`TrainingArguments`): See [`training_arguments`].
        augmentation (`FaceAugmentation`, *optional*): By default the usual one.
        sample_weights (`np.ndarray` of shape `(num_rows,)`, *optional*): How often each row of `train` is drawn, in
            proportion and anew each epoch, see [`sampling_weights`]; by default each is seen once.
        callbacks (`list[TrainerCallback]`, *optional*): Passed on.
        order (`tuple[int, int]`, *optional*): As of [`EpochDataset`]; for a run that goes on with other processes.

    Raises:
        TypeError: If a part is a `datasets.IterableDataset`.
        ValueError: If the width of the labels is not `config.num_labels`, a label is none or all are missing, or `args`
            know nothing of the other processes.
    """
    args = copy.copy(args)
    names = model.config.au_names
    for part, rows in splits.items():
        if not isinstance(rows, Dataset | StreamedFaces):
            raise TypeError(
                f"`splits` must hold a `datasets.Dataset` or what `stream_prepared` gives; {part} is a "
                f"{type(rows).__name__}. A stream does not tell how many rows an epoch has, nor their labels."
            )
    if (size := launched().world_size) > 1 == args.world_size:
        raise ValueError(
            f"`args` must join the {size} processes that were launched, and would train each alone. On a CPU set "
            "`use_cpu=True` in them; of GPUs under mpirun use torchrun."
        )
    labels = label_matrix(splits["train"])
    if labels.shape[1] != len(names):
        told = splits["train"].info.description
        raise ValueError(
            f"`splits` must hold labels of width {len(names)} to match `config.num_labels` ({', '.join(names)}); "
            f"got {labels.shape[1]}. {told} Build the model for the action units of the data, as "
            "`hiva_small(au_names(dataset))`, or load the data with `aus=`."
        )
    occurrence = model.config.problem_type == "multi_label_classification"
    check_labels(labels, names, highest=1 if occurrence else 5)
    if not occurrence and args.metric_for_best_model == "mean_f1":
        args.metric_for_best_model = "mean_icc"
    if occurrence and model.config.label_weights is None:
        model.config.label_weights = weights_where_coded(labels, sample_weights)
    levels = model.config.intensity_head and "intensities" in splits["train"].column_names
    untrained = WhatIsNotTrained(labels, names, intensities=model.config.intensity_head and not levels)
    if args.bf16 and args.device.type == "cpu":
        # torch's fused attention goes backward in bfloat16 many times slower than plain attention on a CPU
        model.set_attn_implementation("eager")
    if "validation" in splits and occurrence and not (label_matrix(splits["validation"]) == 1).any():
        logger.warning("No action unit is active in the validation part: it cannot choose an epoch, the last is kept.")
    image_processor = processor.image_processor
    # how faces were aligned goes with the checkpoint
    image_processor.face_template = FaceTemplate.of(image_processor).to_dict()
    image_processor.face_alignment = alignment_of(splits["train"])
    # the order is the dataset's
    args.train_sampling_strategy = "sequential"
    train = EpochDataset(
        splits["train"],
        FaceTransform(image_processor, augmentation or FaceAugmentation(), names=names, intensities=levels),
        weights=sample_weights,
        seed=args.seed,
        shuffled=True,
        batch_size=args.train_batch_size,
        processes=args.world_size,
        workers=args.dataloader_num_workers,
        order=order,
    )
    validation = splits.get("validation")
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=None if validation is None else EpochDataset(validation, FaceTransform(image_processor)),
        processing_class=image_processor,
        data_collator=FaceCollator(FaceTransform(image_processor)),
        compute_metrics=make_compute_metrics(
            names, not occurrence, [(processor.thresholds or {}).get(name, 0.5) for name in names]
        ),
        callbacks=[*(callbacks or ()), _WholeProcessor(processor), untrained],
    )
    sharded = {name for name in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{name}", "") == "true"}
    if sharded and trainer.accelerator.distributed_type.name not in sharded:
        raise ValueError(
            f"`args` must train as `accelerate launch` was told, by {', '.join(sharded)}; here it would be "
            f"{trainer.accelerator.distributed_type.name}, for accelerate has that on GPUs alone. Leave it out."
        )
    show_epochs(trainer)
    return trainer


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest complete checkpoint of an interrupted run, or `None`.

    A checkpoint that a killed run left half-written has no `trainer_state.json` and is passed over.
    """
    folders = [state.parent for state in Path(output_dir).glob("checkpoint-*/trainer_state.json")]
    return str(max(folders, key=lambda folder: int(folder.name.split("-")[1]))) if folders else None


def evaluate_detector(
    trainer: Trainer, dataset: Dataset | StreamedFaces, intensities: np.ndarray | None = None
) -> dict[str, float]:
    """Metrics of the trainer's model on a part of the data.

    Args:
        trainer (`Trainer`): From [`build_trainer`].
        dataset (`Dataset` or `StreamedFaces`): With `image` and `labels`.
        intensities (`np.ndarray` of shape `(num_frames, num_labels)`, *optional*):
            True intensities 0-5, for a model that tells them beside occurrence (`intensity_head`); adds what
            [`intensity_metrics`] gives, as `intensity_mean_icc`.
    """
    predicted = _predict(trainer, dataset, () if intensities is None else ("intensities",))
    metrics = {key.removeprefix("test_"): value for key, value in (predicted.metrics or {}).items()}
    if intensities is not None:
        told = intensity_metrics(
            intensities, predicted.predictions[1], cast(PreTrainedModel, trainer.model).config.au_names
        )
        metrics |= {f"intensity_{key}": value for key, value in told.items()}
    return metrics


def evaluate_with_groups(trainer: Trainer, dataset: Dataset | StreamedFaces) -> tuple[dict[str, float], dict]:
    """What [`evaluate_detector`] gives, and the same for each group of people that the data tells of.

    Args:
        trainer (`Trainer`): From [`build_trainer`].
        dataset (`Dataset` or `StreamedFaces`): With `image` and `labels`.

    Returns:
        `tuple`: The metrics, and those of [`group_metrics`].
    """
    predicted = _predict(trainer, dataset)
    metrics = {key.removeprefix("test_"): value for key, value in (predicted.metrics or {}).items()}
    logits, labels = _logits(predicted)
    compute = trainer.compute_metrics
    # several processes fill up their shares
    if compute is None or len(logits) != len(dataset):
        return metrics, {}
    return metrics, group_metrics(
        dataset, logits, labels, lambda *rows: compute(EvalPrediction(predictions=rows[0], label_ids=rows[1]))
    )


def predict_logits(trainer: Trainer, dataset: Dataset | StreamedFaces) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, both of shape `(num_frames, num_labels)`; arguments as [`evaluate_detector`]."""
    return _logits(_predict(trainer, dataset))


def _logits(predicted) -> tuple[np.ndarray, np.ndarray]:
    logits = predicted.predictions[0] if isinstance(predicted.predictions, tuple) else predicted.predictions
    return np.asarray(logits), np.asarray(predicted.label_ids)


def _predict(trainer: Trainer, dataset: Dataset | StreamedFaces, kept: tuple[str, ...] = ()):
    """Logits, and which other outputs are to be kept."""
    transform = FaceTransform(cast(BaseImageProcessor, trainer.processing_class))
    left_out = cast(PreTrainedModel, trainer.model).config.keys_to_ignore_at_inference
    left_out = [name for name in left_out if name not in kept]
    return trainer.predict(EpochDataset(dataset, transform), left_out, metric_key_prefix="test")


def without_nan(metrics: dict[str, float]) -> dict[str, float | None]:
    """Metrics for a JSON file: what does not exist is `None`, because JSON knows no NaN."""
    return {key: None if value != value else value for key, value in metrics.items()}


def whole_weights(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """All weights of the trainer's model, where each process holds a part of them (FSDP, DeepSpeed).

    To be called in all processes; at least the first is given them.

    Args:
        trainer (`Trainer`): After training.

    Returns:
        `dict[str, torch.Tensor]` for [`save_detector`]; `None` where each process holds all.
    """
    model = cast(PreTrainedModel, trainer.model)
    if any(isinstance(value, DTensor) for value in model.parameters()):
        weights = model.state_dict().items()
        return {name: (value.full_tensor() if isinstance(value, DTensor) else value).cpu() for name, value in weights}
    if trainer.accelerator.distributed_type.name not in ("FSDP", "DEEPSPEED"):
        return None
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def save_detector(
    model: PreTrainedModel,
    processor: HiVAProcessor,
    folder: str | Path,
    records: dict[str, dict] | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Save a model, its processor and what is known of its training, whole or not at all.

    Args:
        model (`HiVAForImageClassification`): The model.
        processor (`HiVAProcessor`): Its processor.
        folder (`str` or `Path`): Written next to its place first, then moved; an earlier one is replaced.
        records (`dict[str, dict]`, *optional*): JSON files to add, by name.
        weights (`dict[str, torch.Tensor]`, *optional*): Of [`whole_weights`]; by default the model's.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    _remove(partial)
    try:
        model.save_pretrained(partial, state_dict=weights)
        processor.save_pretrained(partial)
        for file in partial.glob("*.safetensors"):
            # written for their owner alone, where all other files follow the umask
            shutil.copymode(partial / "config.json", file)
        for name, content in (records or {}).items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        _remove(folder)
        os.replace(partial, folder)
    finally:
        _remove(partial)
    return folder


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


__all__ = [
    "build_trainer",
    "evaluate_detector",
    "evaluate_with_groups",
    "last_checkpoint",
    "predict_logits",
    "save_detector",
    "share_batch",
    "training_arguments",
    "whole_weights",
    "without_nan",
]
