"""`hiva evaluate`."""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .protocol import run_protocol
from .shared import CheckpointOrDefault, Data, Preset, names, part_of_data, splits_of, trainer_of, write_text

_OF_CHECKPOINT = ("data", "part", "reliability")
_OF_PROTOCOL = (
    "root",
    "seeds",
    "rule",
    "epochs",
    "batch_size",
    "learning_rate",
    "validation",
    "workers",
    "preset",
    "bf16",
    "strong_augmentation",
    "balance",
    "streaming",
)


class Rule(StrEnum):
    """Which epoch is tested."""

    validation = "validation"
    last = "last"
    best_epoch_on_test_part = "best-epoch-on-test-part"


def evaluate(
    ctx: typer.Context,
    checkpoint: CheckpointOrDefault = None,
    data: Data = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="test, validation or train as the checkpoint was split, or all; by default test, of a checkpoint that "
            "tells no parts all."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the metrics; with --protocol a folder for tables.")
    ] = None,
    reliability: Annotated[
        Path | None, typer.Option(help="Picture of what probabilities said against what was so: .png, .pdf, .svg.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Train and test part by part: bp4d or disfa, the published parts, or a number of parts."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="With --protocol: the dataset's folder, or faces that hiva data prepare made.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="With --protocol: a training each, such as '0,1,2'.")] = "0",
    rule: Annotated[
        Rule,
        typer.Option(
            metavar="<rule>",
            help="With --protocol, which epoch is tested: validation, the best on validation people; last; or "
            "best-epoch-on-test-part, the published practice, which reports too much.",
        ),
    ] = Rule.validation,
    epochs: Annotated[int, typer.Option(min=1, help="With --protocol: passes over the training part.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="With --protocol: faces a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="With --protocol: highest learning rate.")] = 1e-3,
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="With --protocol: share of training people who choose the epoch.")
    ] = 0.15,
    workers: Annotated[int, typer.Option(min=0, help="With --protocol: processes that prepare pictures.")] = 2,
    preset: Annotated[Preset, typer.Option(help="With --protocol: which model.")] = Preset.small,
    bf16: Annotated[bool, typer.Option("--bf16", help="With --protocol: mixed precision.")] = False,
    strong_augmentation: Annotated[
        bool, typer.Option("--strong-augmentation", help="With --protocol: vary faces more, for long runs.")
    ] = False,
    balance: Annotated[
        float, typer.Option(min=0, max=1, help="With --protocol: see rare action units more often, 0 to 1.")
    ] = 0.0,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="With --protocol: read faces while training, without a copy.")
    ] = False,
):
    """Print a table of metrics per action unit: of a trained detector, or of a whole cross-validation.

    A cross-validation that was interrupted goes on where it stopped.
    """
    if checkpoint is not None and protocol is not None:
        raise ValueError(f"`--checkpoint` or `--protocol` may be given, not both; got {checkpoint} and {protocol}.")
    _refuse(ctx, *(("--checkpoint", _OF_PROTOCOL) if protocol is None else ("--protocol", _OF_CHECKPOINT)))
    if protocol is not None:
        from ..data import FaceAugmentation

        if root is None or out is None:
            raise ValueError("`--protocol` needs `--root`, the dataset's folder, and `--out`, a folder for the tables.")
        if not all(seed.isdecimal() for seed in names(seeds)) or not names(seeds):
            raise ValueError(f"`--seeds` must be whole numbers such as 0,1,2; got {seeds!r}.")
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise ValueError("`--protocol` must run in one process; give each of several a seed and an `--out`.")
        run_protocol(
            protocol,
            root,
            out,
            seeds=[int(seed) for seed in names(seeds)],
            rule=rule.value,
            validation=validation,
            workers=workers,
            streaming=streaming,
            preset=preset.value,
            augmentation=FaceAugmentation.strong() if strong_augmentation else FaceAugmentation(),
            balance=balance,
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            bf16=bf16,
        )
        return
    from ..default import chosen_checkpoint

    checkpoint = checkpoint or chosen_checkpoint()
    _evaluate_checkpoint(checkpoint, data, part or ("test" if splits_of(checkpoint) else "all"), out, reliability)


def _refuse(ctx: typer.Context, chosen: str, of_the_other: tuple[str, ...]) -> None:
    """An error if options were given that nothing would come of."""
    sources = {name: ctx.get_parameter_source(name) for name in of_the_other}
    given = [name for name, source in sources.items() if source is not None and "DEFAULT" not in source.name]
    if given:
        options = ", ".join(f"`--{name.replace('_', '-')}`" for name in given)
        other = "--checkpoint" if chosen == "--protocol" else "--protocol"
        raise ValueError(f"`{chosen}` must come without {options}, which only `{other}` heeds.")


def _evaluate_checkpoint(checkpoint: str, data: Path | None, part: str, out: Path | None, reliability: Path | None):
    from ..calibration import uncalibrated
    from ..checkpoint import load_detector
    from ..data.merging import label_matrix
    from ..plotting import save_figure
    from ..plotting_reliability import plot_reliability
    from ..terminal import print_metrics
    from ..training import evaluate_detector, predict_logits, without_nan
    from .pictures import SUFFIXES

    if reliability is not None and reliability.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`--reliability` must end in {', '.join(sorted(SUFFIXES))}; got {reliability}.")
    model, processor = load_detector(checkpoint)
    aus, config = model.config.au_names, model.config
    if reliability is not None and config.problem_type == "regression":
        raise ValueError("`--reliability` needs an occurrence model; intensities are no probabilities.")
    dataset = part_of_data(checkpoint, config, data, part)
    known = config.intensity_head and "intensities" in dataset.column_names
    levels = label_matrix(dataset, "intensities") if known else None
    with trainer_of(model, processor, dataset) as trainer:
        metrics = evaluate_detector(trainer, dataset, levels)
        if reliability is not None:
            logits, labels = predict_logits(trainer, dataset)
    print_metrics(metrics, aus, f"{part}: {len(dataset)} faces")
    if levels is not None:
        start = "intensity_"
        told = {key.removeprefix(start): value for key, value in metrics.items() if key.startswith(start)}
        print_metrics(told, aus, f"{part}: intensity")
    if out is not None:
        write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")
    if reliability is not None:
        before = uncalibrated(logits, config) if config.calibration_temperatures else None
        title = f"{part}: {len(dataset)} faces of {len(set(dataset['subject_id']))} people"
        save_figure(plot_reliability(labels, logits, aus, before, title), reliability)
        typer.echo(f"Wrote {reliability}")
