"""The command `hiva`. What each of its commands does stands in `commands`."""

import os
import sys

import typer

from .commands.bank import app as bank
from .commands.calibrate import calibrate
from .commands.data import app as data
from .commands.describe import describe
from .commands.evaluate import evaluate
from .commands.export import app as export
from .commands.hub import card, pull, push
from .commands.predict import predict
from .commands.render import render
from .commands.train import train

app = typer.Typer(
    help="Facial action unit detection with HiVA.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
for command in (train, evaluate, calibrate, predict, describe, render, push, pull, card):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(bank, name="bank")
app.add_typer(export, name="export")


def _mistakes() -> tuple[type[Exception], ...]:
    """What a user's mistake raises; looked up once there is one, for the import takes longer than `--help`."""
    from huggingface_hub.errors import HTTPError, StrictDataclassError

    return ValueError, OSError, ImportError, HTTPError, StrictDataclassError


def _own(error: Exception) -> str | None:
    """Our own sentence, which names the argument first: what the Hub said is only its cause."""
    return str(error) if str(error).startswith("`") else None


def main() -> None:
    """Run the command; a user's mistake is one sentence and exit code 2."""
    if not sys.stderr.isatty():
        # bars are for people; read when those libraries are imported
        for name in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(name, "1")
    try:
        app()
    except SystemExit:
        raise
    except _mistakes() as error:
        from .hub.transfer import hub_sentence

        typer.echo(f"error: {_own(error) or hub_sentence(error) or error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
