"""`hiva evaluate`."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .shared import Checkpoint, Data, part_of_data, quiet, write_text


def evaluate(
    checkpoint: Checkpoint,
    data: Data = None,
    part: Annotated[str, typer.Option(help="test, validation or train as the checkpoint was split, or all.")] = "test",
    out: Annotated[Path | None, typer.Option(help="JSON file for the metrics.")] = None,
    reliability: Annotated[
        Path | None, typer.Option(help="Picture of what probabilities said against what was so: .png, .pdf, .svg.")
    ] = None,
):
    """Print a table of metrics per action unit for a trained detector."""
    from ..calibration import uncalibrated
    from ..checkpoint import load_detector
    from ..plotting import save_figure
    from ..plotting_reliability import plot_reliability
    from ..terminal import print_metrics
    from ..training import build_trainer, evaluate_detector, predict_logits, training_arguments, without_nan
    from .pictures import SUFFIXES

    if reliability is not None and reliability.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`--reliability` must end in {', '.join(sorted(SUFFIXES))}; got {reliability}.")
    model, processor = load_detector(checkpoint)
    names, config = model.config.au_names, model.config
    if reliability is not None and config.problem_type == "regression":
        raise ValueError("`--reliability` needs an occurrence model; intensities are no probabilities.")
    dataset = part_of_data(checkpoint, config, data, part)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(
            scratch, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, **quiet()
        )
        trainer = build_trainer(model, processor, {"train": dataset}, arguments)
        metrics = evaluate_detector(trainer, dataset)
        if reliability is not None:
            logits, labels = predict_logits(trainer, dataset)
    print_metrics(metrics, names, f"{part}: {len(dataset)} faces")
    if out is not None:
        write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")
    if reliability is not None:
        before = uncalibrated(logits, config) if config.calibration_temperatures else None
        title = f"{part}: {len(dataset)} faces of {len(set(dataset['subject_id']))} people"
        save_figure(plot_reliability(labels, logits, names, before, title), reliability)
        typer.echo(f"Wrote {reliability}")
