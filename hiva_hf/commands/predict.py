"""`hiva predict`."""

import hashlib
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from ..facs import au_label
from ..prediction_shards import Share
from .shared import CheckpointOrDefault


class Faces(StrEnum):
    """Which faces of a picture are read."""

    all = "all"
    largest = "largest"


class Dtype(StrEnum):
    """Precisions a model computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


# more faces than these are counted, not printed
_MOST_TABLES = 8


def predict(
    paths: Annotated[
        list[Path], typer.Argument(help="Pictures, videos, folders of them; webcam, or webcam:1 for the second.")
    ],
    checkpoint: CheckpointOrDefault = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the results: .csv, .parquet, .jsonl or .json.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Picture of each face, timeline of each video; a folder where there are several."),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(help="Picture of where each AU was seen, for each face; a folder where there are several."),
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
    min_size: Annotated[int, typer.Option("--min-size", min=1, help="Least side of a face's box in pixels.")] = 48,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Table of faces that are known (.csv, .parquet, .jsonl), such as one written by --out."),
    ] = None,
    search_interval: Annotated[
        float,
        typer.Option(
            "--search-interval",
            help="Of a video, seconds between searches for faces, which are followed in between; 0: search each frame.",
        ),
    ] = 0.25,
    cropped: Annotated[bool, typer.Option("--cropped", help="The pictures are face crops; look for no face.")] = False,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability from which an AU is active.")
    ] = None,
    neutral: Annotated[
        str | None,
        typer.Option(
            help="Also write what each score is above the person's neutral face: median over a video, or over its "
            "frames at rest, such as 1-50."
        ),
    ] = None,
    tidy: Annotated[bool, typer.Option("--tidy", help="One row a face and action unit.")] = False,
    every: Annotated[int, typer.Option(min=1, help="Of a video, every n-th frame.")] = 1,
    start: Annotated[float, typer.Option(min=0, help="Of a video, from this second on.")] = 0.0,
    end: Annotated[float | None, typer.Option(min=0, help="Of a video, up to this second.")] = None,
    describe: Annotated[
        list[str] | None,
        typer.Option(
            help="Also ask an open-vocabulary model for an action unit it was not trained on, as 'AU27=The mouth is "
            "stretched wide open.'; given again, one more sentence or action unit."
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            "--text-encoder", help="With --describe: folder or Hub id of the encoder, by default the model's own."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda.")] = "auto",
    dtype: Annotated[
        Dtype,
        typer.Option(
            metavar="<type>",
            help="Precision: float32, bfloat16 or float16. bfloat16 is faster where the device has it, and less exact.",
        ),
    ] = Dtype.float32,
    batch_size: Annotated[
        str, typer.Option("--batch-size", help="Pictures or frames a step: a number, or auto.")
    ] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first file that cannot be read, instead of reporting it.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the files on this machine.")] = 1,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Read one of several shares of the files, as 3/16; whichever ends last writes --out. For clusters; "
            "torchrun and accelerate launch tell it by themselves."
        ),
    ] = None,
):
    """Find faces in pictures and videos and write their action units, a row a face.

    Started again after an interruption, the same command goes on where it stopped. Exit codes: 0 done, 3 done but some
    files could not be read, 2 a mistake.
    """
    options = dict(locals())

    from ..default import chosen_checkpoint
    from ..descriptions import Prompts
    from ..detector import ActionUnitDetector, load_any
    from ..export import OnnxModel
    from ..faces import GivenFaces, load_face_detector
    from ..faces.webcam import is_webcam
    from ..neutral import above_neutral, neutral_scores, parse_neutral
    from ..open_vocabulary import add_action_units
    from ..prediction import is_video, join_shares, predict_sources
    from ..prediction_shards import refuse_shares
    from ..prediction_sources import Sources
    from ..processes import own_device, run_together
    from ..results import FORMATS, ResultFile
    from ..terminal import print_faces, progress, until_interrupt
    from .pictures import Drawings

    if out is not None and out.suffix not in FORMATS:
        raise ValueError(f"`--out` must end in {', '.join(FORMATS)}; got {out}.")
    if batch_size != "auto" and not batch_size.isdecimal():
        raise ValueError(f"`--batch-size` must be auto or a whole number of at least 1; got {batch_size}.")
    if boxes is not None and cropped:
        raise ValueError(
            "`--boxes` says where the faces are, `--cropped` that there is nothing to find; give one of them."
        )
    share, local_rank = _share(shard, workers, out, any(map(is_webcam, paths)))
    if workers > 1:
        if 3 in run_together(_work, workers, options, share):
            raise typer.Exit(3)
        return
    checkpoint = checkpoint or chosen_checkpoint()
    sources = Sources(paths)
    # a drawing is named by its place among all; else no list of all is held
    listed = list(sources) if neutral is not None or any((plot, maps, summary, video_out)) else []
    videos = [path for path in listed if is_video(path)]
    part: dict = {"every": every, "start": start, "end": end}
    drawings = Drawings(listed, plot, maps, summary, video_out, part, cropped)
    rest = None if neutral is None else parse_neutral(neutral)
    if neutral is not None and out is None:
        raise ValueError("`--neutral` needs a file for its columns; add `--out`.")
    if neutral is not None and len(videos) < len(listed):
        raise ValueError(
            f"`--neutral` needs videos; got {len(listed) - len(videos)} pictures, which do not tell who is who. In "
            "Python, `hiva_hf.neutral.above_neutral` takes a function that does."
        )
    given = None if boxes is None else GivenFaces.load(boxes)
    asked = _described(describe or [])
    if text_encoder is not None and not asked:
        raise ValueError("`--text-encoder` reads what `--describe` says; give it, or leave both out.")
    model, processor = load_any(checkpoint)
    if asked and isinstance(model, OnnxModel):
        raise ValueError(
            f"`--describe` needs a checkpoint, which can read; {checkpoint} holds the text it was exported with."
        )
    rules = Prompts.load() if asked else None
    for label, sentences in asked.items():
        for sentence in sentences:
            if rules and (problem := rules.problem(label, sentence.strip())):
                typer.echo(
                    f"{label} by {sentence.strip()!r}: {problem}; others than such sentences were trained", err=True
                )
    if asked and not isinstance(model, OnnxModel):
        model, processor = add_action_units(model, processor, asked, text_encoder)
    detector = ActionUnitDetector(
        model,
        processor,
        faces=load_face_detector("cropped" if cropped or given is not None else finder, min_size),
        device=own_device(device, local_rank),
        # what is not asked for is not asked of a file
        dtype=None if dtype == Dtype.float32 else dtype.value,
        batch_size=batch_size if batch_size == "auto" else int(batch_size),
        search_interval=search_interval,
        largest_only=faces == Faces.largest,
        thresholds=threshold,
        activation_maps=drawings.needs_maps,
    )
    if drawings.maps is not None and not detector.activation_maps:
        raise ValueError(
            "`--maps` needs pictures, and a model with DDCA, which sees where; got none. An ONNX file has no maps."
        )
    known = None if boxes is None else hashlib.sha256(boxes.read_bytes()).hexdigest()
    settings = {
        "checkpoint": checkpoint, "faces": faces.value, "cropped": cropped, "detector": finder,
        "min_size": min_size, "boxes": known,
        "search_interval": search_interval, "threshold": threshold, "neutral": neutral, "tidy": tidy, **part,
        "batch_size": detector.batch_size, "dtype": dtype.value, "described": asked,
    }  # fmt: skip
    shown: list = []

    with ExitStack() as stack:
        place = out
        if out is None and drawings.needs_rows:
            # what is drawn from all rows needs them kept, asked for or not
            place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "rows.jsonl"
        elif out is not None:
            place = refuse_shares(out) if share is None else share.begin(out)

        def table(path: Path) -> ResultFile:
            rows = ResultFile(path, detector.labels, detector.intensity, tidy, settings, detector.intensities)
            if neutral is not None:
                rows.complete = lambda all_: above_neutral(all_.rows(), neutral_scores(all_.rows(), all_.labels, rest))
            return rows

        def before_finish(rows: ResultFile) -> None:
            if share is not None:
                shown[:] = islice(rows.rows(), _MOST_TABLES + 1)
            drawings.of_rows(rows, detector)

        target = None
        if place is not None:
            target = table(place)
            stack.callback(target.close)
        stop = stack.enter_context(until_interrupt()) if any(map(is_webcam, paths)) else None
        camera = stack.enter_context(drawings.camera(detector))
        tick = stack.enter_context(progress(sources, quiet=local_rank > 0))

        def on_batch(seen, results, done: int) -> None:
            shown.extend(results[: _MOST_TABLES + 1 - len(shown)])
            drawings.of_batch(seen, results, detector)
            if seen:
                camera(seen[0], results)
            tick(done, seen, results)

        report = predict_sources(
            detector,
            listed or sources,
            target,
            strict=strict,
            on_batch=on_batch,
            before_finish=before_finish,
            given=given,
            stop=stop,
            share=share,
            **part,
        )
    if share is not None and out is not None:
        joined = join_shares(share, out, lambda: table(out), before_finish)
        if joined is None:
            typer.echo(f"Share {share} is read: {report.faces} faces. {out} is written when all shares are.")
            return
        report = replace(joined, unlisted=report.unlisted)
    if len(shown) <= _MOST_TABLES:
        print_faces(shown)
    typer.echo(f"{report.faces} faces in {report.sources} files; {report.empty} pictures or frames without a face")
    for label in asked:
        typer.echo(f"{label} was asked for by description: never trained, not calibrated.")
    for written in [*([] if out is None else [out]), *drawings.paths[:_MOST_TABLES]]:
        typer.echo(f"Wrote {written}")
    if report.unlisted:
        typer.echo(f"{len(report.unlisted)} files are not in {boxes}, such as {report.unlisted[0]}", err=True)
    for error in report.errors:
        typer.echo(f"skipped: {error}", err=True)
    if report.errors:
        raise typer.Exit(3)


def _share(text: str | None, workers: int, out: Path | None, camera: bool) -> tuple[Share | None, int]:
    """What of the files this process reads, and its number on this machine."""
    from ..processes import launched

    process = launched()
    share = None if text is None else Share.parse(text)
    if process.world_size > 1:
        if workers > 1:
            raise ValueError(
                f"`--workers` must be left out where {process.world_size} processes were launched already."
            )
        share = (share or Share(0, 1)).split(process.rank, process.world_size)
    if share is not None or workers > 1:
        if out is None:
            raise ValueError("`--out` must be given where several processes read: what they find meets in that file.")
        if camera:
            raise ValueError("`webcam` must be read by one process; leave out `--workers` and `--shard`.")
    return share, process.local_rank


def _work(number: int, count: int, options: dict, share: Share | None) -> int:
    """One of several workers; the exit code."""
    own = (share or Share(0, 1)).split(number, count)
    try:
        predict(**{**options, "workers": 1, "shard": str(own)})
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def _described(given: list[str]) -> dict[str, list[str]]:
    """Sentences by action unit of `AU27=The mouth ...`."""
    asked: dict[str, list[str]] = {}
    for text in given:
        name, sign, sentence = text.partition("=")
        if not sign or not name.strip() or not sentence.strip():
            raise ValueError(
                f"`--describe` must be an action unit, = and a sentence, as 'AU27=The mouth ...'; got {text!r}."
            )
        asked.setdefault(au_label(name), []).append(sentence)
    return asked
