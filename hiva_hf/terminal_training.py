"""What a training shows a person: a bar at a terminal, and a line an epoch in place of every metric of every unit."""

import sys

from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

_SHOWN = {"eval_loss": "validation loss", "eval_mean_f1": "F1", "eval_mean_auc": "AUC", "eval_mean_icc": "ICC(3,1)"}


class EpochLines(TrainerCallback):
    """A line an epoch on standard error: its loss, and what was measured on the validation part."""

    def __init__(self) -> None:
        self.loss = float("nan")

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Called by Trainer with what it measured."""
        logs = logs or {}
        if "loss" in logs:
            self.loss = float(logs["loss"])
        if "eval_loss" in logs or ("loss" in logs and args.eval_strategy == "no"):
            told = [f"{name} {float(logs[key]):.4f}" for key, name in _SHOWN.items() if key in logs]
            line = ", ".join([f"epoch {state.epoch:.0f} of {args.num_train_epochs:.0f}: loss {self.loss:.4f}", *told])
            if state.is_world_process_zero:
                tqdm.write(line, file=sys.stderr)


class _Bar(ProgressCallback):
    """The stock bar alone."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Nothing: lines come from [`EpochLines`]."""


def show_epochs(trainer: Trainer) -> None:
    """Let a trainer tell an epoch in a line, with its bar unless `disable_tqdm` is set."""
    bars = not trainer.args.disable_tqdm
    for shown in (ProgressCallback, PrinterCallback, EpochLines, _Bar):
        trainer.remove_callback(shown)
    trainer.add_callback(EpochLines())
    if bars:
        trainer.add_callback(_Bar())


__all__ = ["EpochLines", "show_epochs"]
