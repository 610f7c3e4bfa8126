"""`hiva predict`."""

import hashlib
import os
import tempfile
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .shared import Checkpoint


class Faces(StrEnum):
    """Which faces of a picture are read."""

    all = "all"
    largest = "largest"


_PICTURES = {"", ".png", ".jpg", ".jpeg", ".pdf", ".svg"}
# more faces than these are counted, not printed
_MOST_TABLES = 8


def predict(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, videos, and folders of them.")],
    checkpoint: Checkpoint,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the results: .csv, .parquet, .jsonl or .json.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Picture of each face, timeline of each video; a folder where there are several."),
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Picture that sums up all faces on one page.")] = None,
    video_out: Annotated[
        Path | None,
        typer.Option("--video-out", help="The video with what was found drawn in: .mp4, .mkv, .mov."),
    ] = None,
    faces: Annotated[Faces, typer.Option(help="Which faces of a picture to read.")] = Faces.all,
    finder: Annotated[
        str,
        typer.Option(
            "--detector",
            help="What finds faces: haar, mtcnn, or a model of YuNet (.onnx) or MediaPipe (.task, .tflite): a file, or "
            "one on the Hub as org/name/file.onnx.",
        ),
    ] = "haar",
    min_size: Annotated[int, typer.Option("--min-size", min=1, help="Least side of a face's box in pixels.")] = 24,
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
    from ..detector import ActionUnitDetector
    from ..faces import load_face_detector
    from ..overlay import OVERLAY_SUFFIXES
    from ..prediction import find_sources, is_video, predict_sources
    from ..results import FORMATS, ResultFile
    from ..terminal import print_faces, progress
    from . import pictures

    if out is not None and out.suffix not in FORMATS:
        raise ValueError(f"`--out` must end in {', '.join(FORMATS)}; got {out}.")
    for option, path, endings in (
        ("--plot", plot, _PICTURES),
        ("--summary", summary, _PICTURES - {""}),
        ("--video-out", video_out, set(OVERLAY_SUFFIXES)),
    ):
        if path is not None and path.suffix.lower() not in endings:
            folder = "be a folder or " if "" in endings else ""
            known = ", ".join(sorted(endings - {""}))
            raise ValueError(f"`{option}` must {folder}end in {known}; got {path}.")
    detector = ActionUnitDetector(
        checkpoint,
        faces=load_face_detector("cropped" if cropped else finder, min_size),
        device=device,
        batch_size=batch_size,
        largest_only=faces == Faces.largest,
        thresholds=threshold,
        activation_maps=plot is not None,
    )
    sources = find_sources(paths)
    videos = [path for path in sources if is_video(path)]
    if video_out is not None and (len(sources), len(videos)) != (1, 1):
        raise ValueError(f"`--video-out` needs one video as input; got {len(sources)} files with {len(videos)} videos.")
    detector.activation_maps = detector.activation_maps and len(videos) < len(sources)
    digest = hashlib.sha256(b"\0".join(os.fsencode(path) for path in sources))
    settings = {
        "checkpoint": checkpoint, "sources": digest.hexdigest(), "faces": faces.value, "cropped": cropped,
        "detector": finder, "min_size": min_size, "threshold": threshold, "tidy": tidy, "every": every, "start": start,
        "end": end, "batch_size": batch_size,
    }  # fmt: skip
    part = {"every": every, "start": start, "end": end}
    shown: list = []
    drawn: list[Path] = []
    alone = len(sources) == 1

    def draw_from(rows: ResultFile) -> None:
        if plot is not None and videos:
            drawn.extend(pictures.draw_timelines(rows, plot, alone, detector.limits))
        if summary is not None:
            drawn.append(pictures.draw_summary(rows, summary, detector.limits))
        if video_out is not None:
            drawn.append(pictures.draw_video(rows, videos[0], video_out, detector.limits, **part))

    with ExitStack() as stack:
        place = out
        if out is None and ((plot is not None and videos) or summary is not None or video_out is not None):
            # what is drawn from all rows needs them kept, asked for or not
            place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "rows.jsonl"
        target = None if place is None else ResultFile(place, detector.labels, detector.intensity, tidy, settings)
        tick = stack.enter_context(progress(len(sources)))

        def on_batch(seen, results, done: int) -> None:
            shown.extend(results[: _MOST_TABLES + 1 - len(shown)])
            if plot is not None:
                drawn.extend(pictures.draw_faces(seen, results, plot, len(drawn), alone, detector, cropped))
            tick(done, len(seen))

        report = predict_sources(
            detector, sources, target, strict=strict, on_batch=on_batch, before_finish=draw_from, **part
        )
    if len(shown) <= _MOST_TABLES:
        print_faces(shown)
    typer.echo(f"{report.faces} faces in {len(sources)} files; {report.empty} pictures or frames without a face")
    for written in [*([] if out is None else [out]), *drawn[:_MOST_TABLES]]:
        typer.echo(f"Wrote {written}")
    for error in report.errors:
        typer.echo(f"skipped: {error}", err=True)
    if report.errors:
        raise typer.Exit(3)
