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


class Faces(StrEnum):
    """Which faces of a picture are read."""

    all = "all"
    largest = "largest"


_PICTURES = {"", ".png", ".jpg", ".jpeg", ".pdf", ".svg"}
# more faces than these are counted, not printed
_MOST_TABLES = 8


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the trained model.")],
    data: Data = None,
    preset: Annotated[Preset, typer.Option(help="Which model to begin with.")] = Preset.small,
    aus: Annotated[str, typer.Option(help="Action units, such as '1,2,4'; by default the 12 of BP4D.")] = "",
    intensity: Annotated[bool, typer.Option("--intensity", help="Learn intensity 0-5 in place of occurrence.")] = False,
    bank: Annotated[
        Path | None, typer.Option(help="Description bank of your own, a JSON file; for a preset with a text tower.")
    ] = None,
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
    from .descriptions import load_bank
    from .facs import BP4D_AUS
    from .presets import PRESETS
    from .terminal import print_metrics
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
    held = output.exists() and any(output.iterdir())
    if not resume and (state.exists() or held):
        raise ValueError(
            f"`--output` must be new; {output} holds a run already. Add `--resume`, or choose another folder."
        )
    if resume and checkpoint is None and held:
        raise ValueError(
            f"`--resume` needs a checkpoint in {state}; there is none, and {output} is not empty. "
            "Choose another folder for a new run."
        )

    names = _au_list(aus) or BP4D_AUS
    problem_type = "regression" if intensity else "multi_label_classification"
    options: dict = {"problem_type": problem_type}
    if bank is not None:
        if preset != Preset.small_text:
            raise ValueError(
                "`--bank` needs `--preset small-text`: the small preset holds stored embeddings, no texts."
            )
        options["bank"] = load_bank(bank)
    dataset = load_rendered(data, aus=names, intensity=intensity)
    settings = {
        "data": None if data is None else str(data.resolve()),
        "preset": preset.value,
        "aus": list(names),
        "intensity": intensity,
        "bank": None if bank is None else str(bank),
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "test_subjects": _names(test_subjects),
        "validation": validation,
        "bf16": bf16,
        "strong_augmentation": strong_augmentation,
    }
    _refuse_other_settings(state / "run.json", settings)
    splits = subject_split(dataset, validation=validation, test=_names(test_subjects) or 0.25, seed=seed)
    parts = {name: sorted(set(part["subject_id"])) for name, part in splits.items()}
    typer.echo(", ".join(f"{name}: {len(splits[name])} faces of {len(parts[name])} subjects" for name in splits))

    set_seed(seed)
    model, processor = PRESETS[preset.value](names, **options)
    arguments = training_arguments(
        state,
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        bf16=bf16,
        # workers that outlive an epoch would not start from its seed, and a resumed run would vary faces otherwise
        dataloader_num_workers=workers,
        **_quiet(),
    )
    augmentation = FaceAugmentation.strong() if strong_augmentation else FaceAugmentation()
    trainer = build_trainer(model, processor, splits, arguments, augmentation)
    _write_text(state / "run.json", json.dumps(settings, indent=2) + "\n", quiet=True)
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = evaluate_detector(trainer, splits["test"])
    results = {**settings, "epochs": epochs, "part": "test", "metrics": without_nan(metrics)}
    save_detector(model, processor, output, {"splits.json": parts, "results.json": results})
    print_metrics(metrics, list(names), f"Unseen subjects: {', '.join(parts['test'])}")
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
    from .terminal import print_metrics
    from .training import build_trainer, evaluate_detector, training_arguments, without_nan

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
            scratch, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, **_quiet()
        )
        trainer = build_trainer(model, processor, {"train": dataset}, arguments)
        metrics = evaluate_detector(trainer, dataset)
    print_metrics(metrics, names, f"{part}: {len(dataset)} faces")
    if out is not None:
        _write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, videos, and folders of them.")],
    checkpoint: Checkpoint,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the results: .csv, .parquet, .jsonl or .json.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Overlay picture; a folder where several faces are found. Not for videos.")
    ] = None,
    faces: Annotated[Faces, typer.Option(help="Which faces of a picture to read.")] = Faces.all,
    cropped: Annotated[bool, typer.Option("--cropped", help="The pictures are face crops; look for no face.")] = False,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability from which an AU is active.")
    ] = None,
    tidy: Annotated[bool, typer.Option("--tidy", help="One row a face and action unit.")] = False,
    every: Annotated[int, typer.Option(min=1, help="Of a video, every so-manieth frame.")] = 1,
    start: Annotated[float, typer.Option(min=0, help="Of a video, from this second on.")] = 0.0,
    end: Annotated[float | None, typer.Option(min=0, help="Of a video, up to this second.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures or frames a step.")] = 32,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first file that cannot be read, instead of reporting it.")
    ] = False,
):
    """Find faces in pictures and videos and write their action units, a row a face.

    Started again after an interruption, the same command goes on where it stopped. Exit codes: 0 done, 3 done but some
    files could not be read, 2 a mistake.
    """
    from .detector import ActionUnitDetector
    from .faces import WholePicture
    from .prediction import find_sources, predict_sources
    from .results import FORMATS, ResultFile
    from .terminal import print_faces, progress

    if out is not None and out.suffix not in FORMATS:
        raise ValueError(f"`--out` must end in {', '.join(FORMATS)}; got {out}.")
    if plot is not None and plot.suffix.lower() not in _PICTURES:
        raise ValueError(f"`--plot` must be a folder or end in {', '.join(sorted(_PICTURES - {''}))}; got {plot}.")
    detector = ActionUnitDetector(
        checkpoint,
        faces=WholePicture() if cropped else None,
        device=device,
        batch_size=batch_size,
        largest_only=faces == Faces.largest,
        thresholds=threshold,
        activation_maps=plot is not None,
    )
    sources = find_sources(paths)
    settings = {
        "checkpoint": checkpoint, "sources": [str(path) for path in sources], "faces": faces.value, "cropped": cropped,
        "threshold": threshold, "tidy": tidy, "every": every, "start": start, "end": end, "batch_size": batch_size,
    }  # fmt: skip
    target = None if out is None else ResultFile(out, detector.labels, detector.intensity, tidy, settings)
    shown: list = []
    drawn: list[Path] = []
    with progress(len(sources)) as tick:

        def on_batch(pictures, results, done: int) -> None:
            shown.extend(results[: _MOST_TABLES + 1 - len(shown)])
            if plot is not None:
                drawn.extend(
                    _draw(pictures, results, plot, len(drawn), len(sources) == 1, detector, threshold, cropped)
                )
            tick(done, len(pictures))

        report = predict_sources(
            detector, sources, target, strict=strict, on_batch=on_batch, every=every, start=start, end=end
        )
    if len(shown) <= _MOST_TABLES:
        print_faces(shown)
    typer.echo(f"{report.faces} faces in {len(sources)} files; {report.empty} pictures or frames without a face")
    for path in [*([] if target is None else [target.path]), *drawn[:_MOST_TABLES]]:
        typer.echo(f"Wrote {path}")
    for error in report.errors:
        typer.echo(f"skipped: {error}", err=True)
    if report.errors:
        raise typer.Exit(3)


def _draw(pictures, results, plot: Path, number: int, alone: bool, detector, threshold, cropped: bool) -> list[Path]:
    """One overlay a face of the pictures, videos left out."""
    from .plotting import plot_prediction, save_figure
    from .prediction import is_video

    images = {picture.source: picture.image for picture in pictures}
    found = [result for result in results if result.success and not is_video(Path(result.source))]
    single = alone and len(found) == 1 and plot.suffix != "" and not plot.is_dir()
    paths = []
    for count, r in enumerate(found, start=number):
        target = plot if single else plot / f"{count:04d}-{Path(r.source).stem}.png"
        limits = dict.fromkeys(r.scores, threshold) if threshold is not None else detector.processor.thresholds
        figure = plot_prediction(
            images[r.source],
            r.scores,
            r.crop,
            r.activation_maps,
            None if cropped else r.box,
            limits,
            intensity=detector.intensity,
        )
        paths.append(save_figure(figure, target))
    return paths


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _au_list(text: str) -> list[str]:
    from .facs import au_label

    return [au_label(name) for name in _names(text)]


def _quiet() -> dict:
    """Progress bars for people, lines for logs."""
    return {"disable_tqdm": not sys.stderr.isatty(), "logging_strategy": "epoch", "log_level": "error"}


def _write_text(path: Path, text: str, quiet: bool = False) -> None:
    from .files import whole_file

    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    if not quiet:
        typer.echo(f"Wrote {path}")


def _refuse_other_settings(file: Path, settings: dict) -> None:
    """A run goes on with what it was begun with: other people would be tested on, or other weights trained."""
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    changed = [name for name, value in stored.items() if settings.get(name) != value]
    if changed:
        options = ", ".join(f"--{name.replace('_', '-')} (was {stored[name]!r})" for name in changed)
        raise ValueError(f"`--resume` must repeat the options of the run it continues; changed: {options}.")


def _mistakes() -> tuple[type[Exception], ...]:
    """What a user's mistake raises; looked up once there is one, for the import takes longer than `--help`."""
    from huggingface_hub.errors import StrictDataclassError

    return ValueError, OSError, ImportError, StrictDataclassError


def main() -> None:
    """Run the command; a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except SystemExit:
        raise
    except _mistakes() as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
