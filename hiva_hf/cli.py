"""The command `hiva`: train, evaluate, predict. Heavy imports wait until a command runs."""

import json
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Facial action unit detection with HiVA.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

Checkpoint = Annotated[str, typer.Option("--checkpoint", "-c", help="Folder of a checkpoint, or its Hub id.")]
Data = Annotated[
    Path | None, typer.Option(help="Parquet file or folder of rendered faces; by default the embedded sample.")
]


class Preset(StrEnum):
    """Names of the presets."""

    small = "small"
    small_text = "small-text"


class OnError(StrEnum):
    """What to do with a picture that cannot be used."""

    stop = "stop"
    skip = "skip"


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the trained model.")],
    data: Data = None,
    preset: Annotated[Preset, typer.Option(help="Which model to begin with.")] = Preset.small,
    aus: Annotated[str, typer.Option(help="Action units, such as '1,2,4'; by default the 12 of BP4D.")] = "",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Seed of the split, the weights and the augmentation.")] = 0,
    test_subjects: Annotated[
        str, typer.Option(help="Subjects to test on, such as 'S020,S021'; default: a quarter.")
    ] = "",
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the other subjects that choose the best epoch.")
    ] = 0.15,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare pictures.")] = 2,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Mixed precision; faster where the machine has bfloat16.")
    ] = False,
    strong_augmentation: Annotated[
        bool, typer.Option("--strong-augmentation", help="Vary faces more; for thousands of faces and long runs.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
):
    """Train a detector on faces, keep its best epoch on validation subjects, and test it on unseen subjects."""
    from transformers import set_seed

    from .data import FaceAugmentation, load_rendered, subject_split
    from .facs import BP4D_AUS
    from .presets import PRESETS
    from .training import (
        build_trainer,
        evaluate_detector,
        last_checkpoint,
        save_detector,
        training_arguments,
        without_nan,
    )

    if output.exists() and not output.is_dir():
        raise ValueError(f"`--output` must be a folder; {output} is a file.")
    state = output.with_name(f"{output.name}-checkpoints")
    checkpoint = last_checkpoint(state) if resume else None
    if not resume and (state.exists() or (output.exists() and any(output.iterdir()))):
        raise ValueError(
            f"`--output` must be new; {output} holds a run already. Add `--resume`, or choose another folder."
        )

    names = _au_list(aus) or BP4D_AUS
    dataset = load_rendered(data, aus=names)
    splits = subject_split(dataset, validation=validation, test=_names(test_subjects) or 0.25, seed=seed)
    parts = {name: sorted(set(part["subject_id"])) for name, part in splits.items()}
    typer.echo(", ".join(f"{name}: {len(splits[name])} faces of {len(parts[name])} subjects" for name in splits))

    set_seed(seed)
    model, processor = PRESETS[preset.value](names)
    arguments = training_arguments(
        state,
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        bf16=bf16,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
        **_quiet(),
    )
    augmentation = FaceAugmentation.strong() if strong_augmentation else FaceAugmentation()
    trainer = build_trainer(model, processor, splits, arguments, augmentation)
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = evaluate_detector(trainer, splits["test"])
    results = {"preset": preset.value, "epochs": epochs, "seed": seed, "part": "test", "metrics": without_nan(metrics)}
    save_detector(model, processor, output, {"splits.json": parts, "results.json": results})
    _print_metrics(metrics, list(names), f"Unseen subjects: {', '.join(parts['test'])}")
    typer.echo(f"Saved to {output}")


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data: Data = None,
    part: Annotated[str, typer.Option(help="test, validation or train as the checkpoint was split, or all.")] = "test",
    out: Annotated[Path | None, typer.Option(help="JSON file for the metrics.")] = None,
):
    """Print a table of metrics per action unit for a trained detector."""
    from .checkpoint import load_detector
    from .data import load_rendered
    from .training import build_trainer, evaluate_detector, training_arguments, without_nan

    model, processor = load_detector(checkpoint)
    names = model.config.au_names
    subjects = None
    if part != "all":
        stored = Path(checkpoint) / "splits.json"
        splits = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
        if part not in splits:
            known = ", ".join([*splits, "all"])
            raise ValueError(f"`--part` must be one of {known} for {checkpoint}; got {part!r}.")
        subjects = splits[part]
    dataset = load_rendered(data, aus=names, subjects=subjects)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(
            scratch, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, **_quiet()
        )
        trainer = build_trainer(model, processor, {"train": dataset}, arguments)
        metrics = evaluate_detector(trainer, dataset)
    _print_metrics(metrics, names, f"{part}: {len(dataset)} faces")
    if out is not None:
        _write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Picture files.")],
    checkpoint: Checkpoint,
    out: Annotated[Path | None, typer.Option(help="File for the results, .json or .csv.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Overlay picture; a folder where several pictures are given.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability from which an AU is active.")
    ] = None,
    cropped: Annotated[bool, typer.Option("--cropped", help="The pictures are face crops; look for no face.")] = False,
    on_error: Annotated[OnError, typer.Option(help="Stop at a bad picture, or skip and report it.")] = OnError.stop,
):
    """Print the action units of faces in pictures."""
    from .checkpoint import load_detector
    from .prediction import predict_files, write_predictions

    if out is not None and out.suffix not in (".json", ".csv"):
        raise ValueError(f"`--out` must end in .json or .csv; got {out}.")
    model, processor = load_detector(checkpoint)
    errors: list[str] = []
    found = predict_files(
        model,
        processor,
        images,
        cropped=cropped,
        maps=plot is not None and model.config.use_ddca,
        thresholds=threshold,
        on_error="skip" if on_error == OnError.skip else "raise",
        errors=errors,
    )
    with typer.progressbar(found, length=len(images), label="Predicting", file=sys.stderr) as bar:
        predictions = list(bar)
    _print_predictions(predictions)
    if out is not None:
        typer.echo(f"Wrote {write_predictions(predictions, out)}")
    if plot is not None:
        _plot(predictions, plot, processor.thresholds, threshold)
    for error in errors:
        typer.echo(f"skipped: {error}", err=True)
    if errors:
        raise typer.Exit(1)


def _plot(predictions, plot: Path, thresholds, threshold) -> None:
    from .plotting import plot_prediction, save_figure

    several = len(predictions) > 1 or plot.is_dir() or not plot.suffix
    for number, p in enumerate(predictions):
        target = plot / f"{number:04d}-{Path(p.path).stem}.png" if several else plot
        limits = dict.fromkeys(p.scores, threshold) if threshold is not None else thresholds
        figure = plot_prediction(p.image, p.scores, p.crop, p.activation_maps, p.box, limits)
        typer.echo(f"Wrote {save_figure(figure, target)}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _au_list(text: str) -> list[str]:
    from .facs import au_label

    return [au_label(name) for name in _names(text)]


def _quiet() -> dict:
    """Progress bars for people, lines for logs."""
    return {"disable_tqdm": not sys.stderr.isatty(), "logging_strategy": "epoch", "log_level": "error"}


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    typer.echo(f"Wrote {path}")


def _print_metrics(metrics: dict[str, float], names: list[str], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from .facs import ACTION_UNITS

    columns = {
        "f1": "F1",
        "always_positive_f1": "always positive F1",
        "auc": "AUC",
        "accuracy": "accuracy",
        "base_rate": "base rate",
    }
    table = Table(title=title, title_justify="left")
    table.add_column("AU")
    table.add_column("name")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name in names:
        unit = ACTION_UNITS.get(name)
        table.add_row(name, unit.name if unit else "", *(_number(metrics.get(f"{key}_{name}")) for key in columns))
    table.add_section()
    table.add_row("mean", "", *(_number(metrics.get(f"mean_{key}")) for key in columns))
    Console(width=110 if not sys.stdout.isatty() else None).print(table)


def _print_predictions(predictions) -> None:
    from rich.console import Console
    from rich.table import Table

    from .facs import ACTION_UNITS

    for p in predictions:
        table = Table(title=p.path, title_justify="left")
        table.add_column("AU")
        table.add_column("name")
        table.add_column("score", justify="right")
        table.add_column("active")
        for label, value in p.scores.items():
            unit = ACTION_UNITS.get(label)
            table.add_row(label, unit.name if unit else "", f"{value:.3f}", "yes" if label in p.active else "")
        Console(width=110 if not sys.stdout.isatty() else None).print(table)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def main() -> None:
    """Run the command; a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
