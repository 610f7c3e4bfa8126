"""Options and habits that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer

Checkpoint = Annotated[str, typer.Option("--checkpoint", "-c", help="Folder of a checkpoint, or its Hub id.")]
Data = Annotated[
    Path | None, typer.Option(help="Parquet file or folder of rendered faces; by default the embedded sample.")
]


def names(text: str) -> list[str]:
    """What stands between the commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def quiet() -> dict:
    """`TrainingArguments`: progress bars for people, lines for logs."""
    return {"disable_tqdm": not sys.stderr.isatty(), "logging_strategy": "epoch", "log_level": "error"}


def write_text(path: Path, text: str, quiet: bool = False) -> None:
    """Write a file whole or not at all, and say so."""
    from ..files import whole_file

    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    if not quiet:
        typer.echo(f"Wrote {path}")
