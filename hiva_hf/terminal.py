"""What the command shows a person at a terminal: tables and a progress bar."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from .detector import Picture
from .faces.video import VIDEO_SUFFIXES, video_seconds
from .faces.webcam import is_webcam
from .facs import au_meaning
from .prediction_sources import Sources
from .results import FaceResult

if TYPE_CHECKING:
    # it brings the whole of training along
    from .calibration import Calibration

_OCCURRENCE = {
    "f1": "F1",
    "always_positive_f1": "always positive F1",
    "auc": "AUC",
    "accuracy": "accuracy",
    "base_rate": "base rate",
}
_INTENSITY = {"icc": "ICC(3,1)", "pcc": "PCC", "mae": "MAE", "mse": "MSE", "mean_intensity": "mean intensity"}


def print_metrics(metrics: dict[str, float], names: Sequence[str], title: str) -> None:
    """A table of metrics, one row an action unit.

    Args:
        metrics (`dict[str, float]`): Of [`au_metrics`] or [`intensity_metrics`].
        names (`Sequence[str]`): Action units.
        title (`str`): Printed above.
    """
    columns = _INTENSITY if f"icc_{names[0]}" in metrics else _OCCURRENCE
    table = Table(title=title, title_justify="left")
    table.add_column("AU")
    table.add_column("name")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name in names:
        table.add_row(name, au_meaning(name), *(_number(metrics.get(f"{key}_{name}")) for key in columns))
    table.add_section()
    table.add_row("mean", "", *(_number(metrics.get(f"mean_{key}")) for key in columns))
    _console().print(table)


def print_protocol(frame, title: str) -> None:
    """The table of a cross-validation, and below it what papers report; no heading or number is cut short.

    Args:
        frame (`pandas.DataFrame`): Of [`beside_published`]; its columns are named as they are to be printed.
        title (`str`): Printed above.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("AU or method", min_width=12)
    for heading in frame.columns:
        # only the first column may wrap
        table.add_column("\n".join(heading.rsplit(" ", 1)), justify="right", no_wrap=True)
    for name, row in frame.iterrows():
        if name == "mean":
            table.add_section()
        table.add_row(str(name), *("-" if value != value else f"{value:.1f}" for value in row))
        if name == "mean":
            table.add_section()
    console = _console()
    needed = Console(width=1000).measure(table)
    # a file is as wide as the table; a terminal that is too narrow wraps it, which is better than cut numbers
    console.width = max(console.width, needed.minimum if console.is_terminal else needed.maximum)
    console.print(table)


def print_calibration(calibration: "Calibration", title: str) -> None:
    """A table of what a calibration changed, one row an action unit.

    Args:
        calibration (`Calibration`): Of [`calibrate_detector`].
        title (`str`): Printed above.
    """
    table = Table(title=title, title_justify="left")
    for heading in (
        "AU",
        "name",
        "threshold",
        "Brier score uncalibrated",
        "now",
        "calibration error uncalibrated",
        "now",
    ):
        table.add_column(heading, justify="left" if heading in ("AU", "name") else "right")
    for name, row in calibration.report.items():
        numbers = (row[f"{key}_{moment}"] for key in ("brier", "error") for moment in ("before", "after"))
        threshold = "as it was" if name in calibration.untouched else f"{calibration.thresholds[name]:.3f}"
        table.add_row(name, au_meaning(name), threshold, *map(_number, numbers))
    _console().print(table)


def print_faces(results: Sequence[FaceResult]) -> None:
    """A table of action units a face, and a sentence for a picture without one."""
    for result in results:
        if not result.success:
            print(f"{result.source}: no face found. A picture that is a crop of a face needs `--cropped`.")
            continue
        table = Table(title=f"{result.source}, face {result.face_id}", title_justify="left")
        table.add_column("AU")
        table.add_column("name")
        table.add_column("score" if result.active else "intensity", justify="right")
        if result.active:
            table.add_column("active")
        if result.intensities:
            table.add_column("intensity", justify="right")
        for label, value in result.scores.items():
            more = ["yes" if result.active[label] else ""] if result.active else []
            more += [f"{result.intensities[label]:.2f}"] if result.intensities else []
            table.add_row(label, au_meaning(label), f"{value:.3f}", *more)
        _console().print(table)


@contextmanager
def progress(
    sources: Sources, quiet: bool = False
) -> Iterator[Callable[[int, Sequence[Picture], Sequence[FaceResult]], None]]:
    """A progress bar on standard error with rate and time left; nothing where nobody looks.

    Of a camera, which has no end, it says what is seen instead.

    Args:
        sources (`Sources`): Files to do; counted only where somebody looks.
        quiet (`bool`, defaults to `False`): Whether another process shows one.

    Yields:
        `Callable`: To be told the files done so far, and the pictures of the last batch with their rows.
    """
    console = Console(stderr=True)
    watched = console.is_terminal and not quiet
    live = any(map(is_webcam, sources.paths))
    columns: list[ProgressColumn] = [TextColumn("Predicting"), BarColumn(), MofNCompleteColumn()]
    columns += [TextColumn("{task.fields[rate]:.1f} pictures/s")]
    columns += [TextColumn("{task.fields[seen]}")] if live else [TimeRemainingColumn()]
    with Progress(*columns, console=console, disable=not watched) as bar:
        first, *others = sources.paths
        single = not others and not live and first.suffix.lower() in VIDEO_SUFFIXES
        seconds = video_seconds(first) if single and watched else None
        # a single video is told in its seconds
        total = None if live or not watched else round(seconds) if seconds else len(sources)
        task = bar.add_task("", total=total, rate=0.0, seen="")
        begin, count = time.monotonic(), 0

        def tick(done: int, pictures: Sequence[Picture], results: Sequence[FaceResult]) -> None:
            nonlocal count
            count += len(pictures)
            if seconds:
                done = int(pictures[-1].timestamp) if pictures else round(seconds)
            active = [f"{r.face_id}: " + " ".join(au for au, there in r.active.items() if there) for r in results]
            seen = "; ".join(active) + "  (Ctrl-C ends the recording)"
            bar.update(task, completed=done, rate=count / max(time.monotonic() - begin, 1e-3), seen=seen)

        yield tick


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A plain progress bar on standard error; nothing where nobody looks.

    Args:
        what (`str`): What is done.
        total (`int`): How many there are.

    Yields:
        `Callable`: To be told how many are done.
    """
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def until_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, or a polite kill, ends a recording and not the program; a second one ends the program.

    Yields:
        `Callable`: Whether that was asked for.
    """
    asked = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number, frame):
        asked.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _console() -> Console:
    return Console(width=110 if not sys.stdout.isatty() else None)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


__all__ = [
    "counting",
    "print_calibration",
    "print_faces",
    "print_metrics",
    "print_protocol",
    "progress",
    "until_interrupt",
]
