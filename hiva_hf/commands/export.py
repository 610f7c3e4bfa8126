"""`hiva export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Detectors for other programs.", no_args_is_help=True, rich_markup_mode=None)


class Precision(StrEnum):
    """What numbers a file holds."""

    float32 = "float32"
    float16 = "float16"
    int8_dynamic = "int8-dynamic"
    int8_static = "int8-static"


@app.callback()
def export() -> None:
    """Detectors for other programs."""


@app.command()
def onnx(
    checkpoint: Annotated[str, typer.Argument(help="Folder of a checkpoint, or its Hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, .onnx.")],
    precision: Annotated[
        Precision,
        typer.Option(
            metavar="<precision>",
            help="float32; float16, half the file, for GPUs; int8-dynamic, for transformer towers; or int8-static, a "
            "quarter of the file and twice as fast on a CPU.",
        ),
    ] = Precision.float32,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Prepared faces (parquet) like those the file is for, for int8-static; not those you test on."
        ),
    ] = None,
    faces: Annotated[int, typer.Option(min=16, help="How many of them int8-static takes its scales from.")] = 128,
):
    """Write a detector as an ONNX file, which onnxruntime runs without PyTorch; hiva predict takes it as a checkpoint.

    A text tower is folded first. The file is compared with the detector before it is written.
    """
    from ..checkpoint import load_detector
    from ..data import load_prepared
    from ..export import export_onnx

    if precision == Precision.int8_static and calibrate is None:
        raise ValueError("`--precision int8-static` needs `--calibrate`, prepared faces to take its scales from.")
    model, processor = load_detector(checkpoint)
    known = None if calibrate is None else load_prepared(calibrate)
    done = export_onnx(model, processor, out, precision.value, known, faces)
    if done.folded:
        typer.echo("Folded the text tower: the file holds the embeddings of its descriptions.")
    typer.echo(
        f"Wrote {done.path}: {done.precision}, {done.megabytes:.1f} MB. On {done.faces} faces logits differ from those "
        f"of PyTorch by at most {done.largest_logit:.1e}, scores by {done.mean_score:.1e} of their range on average."
    )
    if precision.value.startswith("int8"):
        typer.echo("What that does to F1 tells examples/measure_export.py on faces with labels.")
