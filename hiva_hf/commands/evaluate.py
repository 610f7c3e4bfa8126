"""`hiva evaluate`."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .shared import Checkpoint, Data, quiet, write_text


def evaluate(
    checkpoint: Checkpoint,
    data: Data = None,
    part: Annotated[str, typer.Option(help="test, validation or train as the checkpoint was split, or all.")] = "test",
    out: Annotated[Path | None, typer.Option(help="JSON file for the metrics.")] = None,
):
    """Print a table of metrics per action unit for a trained detector."""
    from ..checkpoint import load_detector
    from ..data import load_rendered
    from ..terminal import print_metrics
    from ..training import build_trainer, evaluate_detector, training_arguments, without_nan

    model, processor = load_detector(checkpoint)
    names = model.config.au_names
    subjects = None
    if data is None:
        # what it was trained and tested on, not what happens to be embedded
        stored = Path(checkpoint) / "results.json"
        trained_on = json.loads(stored.read_text(encoding="utf-8")).get("data") if stored.is_file() else None
        data = None if trained_on is None else Path(trained_on)
    if part != "all":
        stored = Path(checkpoint) / "splits.json"
        splits = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
        if part not in splits:
            known = ", ".join([*splits, "all"])
            raise ValueError(f"`--part` must be one of {known} for {checkpoint}; got {part!r}.")
        subjects = splits[part]
    intensity = model.config.problem_type == "regression"
    dataset = load_rendered(data, aus=names, intensity=intensity, subjects=subjects)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(
            scratch, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, **quiet()
        )
        trainer = build_trainer(model, processor, {"train": dataset}, arguments)
        metrics = evaluate_detector(trainer, dataset)
    print_metrics(metrics, names, f"{part}: {len(dataset)} faces")
    if out is not None:
        write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")
