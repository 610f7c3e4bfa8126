"""Options and habits that several commands share."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..files import read_record

_HELP = "Folder of a checkpoint, or its Hub id; by default HIVA_CHECKPOINT, else the one that ships with the package."
Checkpoint = Annotated[str, typer.Option("--checkpoint", "-c", help="Folder of a checkpoint, or its Hub id.")]
CheckpointOrDefault = Annotated[str | None, typer.Option("--checkpoint", "-c", help=_HELP)]
Data = Annotated[
    Path | None, typer.Option(help="Parquet file or folder of rendered faces; by default the embedded sample.")
]


class Preset(StrEnum):
    """Names of the presets."""

    small = "small"
    small_text = "small-text"


def names(text: str) -> list[str]:
    """What stands between the commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def part_of_data(checkpoint: str, config, data: Path | None, part: str, intensity: bool | None = None):
    """The faces of a part of what a checkpoint was trained and tested on, or of other data.

    Args:
        checkpoint (`str`): Its folder or Hub id.
        config (`HiVAConfig`): Its configuration.
        data (`Path`, *optional*): Other data; by default what it was trained on, and not what happens to be embedded.
        part (`str`): `test`, `validation` or `train` as its `splits.json` has them, or `all`.
        intensity (`bool`, *optional*): Labels are intensities; by default of an intensity model.
    """
    from ..data import load_rendered

    folder, subjects = Path(checkpoint), None
    if data is None:
        trained_on = read_record(folder / "results.json").get("data")
        data = None if trained_on is None else Path(trained_on)
    if part != "all":
        splits = splits_of(checkpoint)
        if part not in splits:
            known = ", ".join([*splits, "all"])
            raise ValueError(f"`--part` must be one of {known} for {checkpoint}; got {part!r}.")
        subjects = splits[part]
    if intensity is None:
        intensity = config.problem_type == "regression"
    # a detector may know more action units than the data codes
    return load_rendered(data, aus=config.au_names, intensity=intensity, subjects=subjects, allow_uncoded=True)


def splits_of(checkpoint: str) -> dict[str, list[str]]:
    """Who trained, validated and tested a checkpoint; empty where it does not tell."""
    return read_record(Path(checkpoint) / "splits.json")


@contextmanager
def trainer_of(model, processor, dataset) -> Iterator:
    """A trainer that only predicts: it writes into a folder that goes away."""
    from ..training import build_trainer, training_arguments

    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(
            scratch, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, **quiet()
        )
        told = processor.image_processor.face_alignment
        trainer = build_trainer(model, processor, {"train": dataset}, arguments)
        # it does not train on these
        processor.image_processor.face_alignment = told
        yield trainer


def cut_faces(faces, out: Path, *, workers: int, **options):
    """Prepare a dataset with a progress bar, and say what was dropped; options as of [`prepare_faces`]."""
    from ..data import prepare_faces
    from ..terminal import counting

    with counting("Preparing", len(faces)) as tick:
        made = prepare_faces(faces, out, workers=workers, on_shard=lambda done, total: tick(done), **options)
    for reason, count in sorted(made.dropped.items()):
        typer.echo(f"{count} dropped: {reason}; see {out / 'dropped.csv'}")
    return made


def is_first() -> bool:
    """Whether this is the only process, or that of several which writes."""
    from ..processes import launched

    return launched().rank == 0


def leave_together() -> None:
    """End several processes that trained together; one alone goes on."""
    import torch

    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return
    # a gloo thread that frees its last tensor while Python shuts down aborts the process (torch 2.13, 2 runs in 25), so
    # all meet here and leave without that shutdown
    torch.distributed.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def quiet() -> dict:
    """`TrainingArguments`: progress bars for people, lines for logs."""
    watched = sys.stderr.isatty()
    if not watched:
        import datasets
        from transformers.utils.logging import disable_progress_bar

        datasets.disable_progress_bars()
        disable_progress_bar()
    return {"disable_tqdm": not watched, "logging_strategy": "epoch", "log_level": "error"}


def write_text(path: Path, text: str, quiet: bool = False) -> None:
    """Write a file whole or not at all, and say so."""
    from ..files import whole_file

    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    if not quiet:
        typer.echo(f"Wrote {path}")
