"""`hiva data prepare`."""

import inspect
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .shared import cut_faces, names

app = typer.Typer(help="Datasets of others, from your own copy.", no_args_is_help=True, rich_markup_mode=None)


class Name(StrEnum):
    """Datasets that can be read."""

    bp4d = "bp4d"
    bp4d_plus = "bp4d-plus"
    disfa = "disfa"
    gft = "gft"
    aff_wild2 = "aff-wild2"
    ck_plus = "ck-plus"
    folder = "folder"


class Alignment(StrEnum):
    """How faces are brought upright."""

    detect = "detect"
    given = "given"
    none = "none"


@app.callback()
def data() -> None:
    """Datasets of others, from your own copy."""


@app.command()
def prepare(
    dataset: Annotated[Name, typer.Argument(help="Which dataset; folder: images of your own and a CSV.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the face crops, as parquet.")],
    aus: Annotated[str, typer.Option(help="Action units, such as '1,2,4'; by default those of the benchmark.")] = "",
    alignment: Annotated[
        Alignment,
        typer.Option(help="detect: the largest face; given: that of --boxes; none: images are crops."),
    ] = Alignment.detect,
    finder: Annotated[
        str, typer.Option("--detector", help="What finds faces: haar, mtcnn, or a model's file, as of hiva predict.")
    ] = "haar",
    boxes: Annotated[
        Path | None, typer.Option(help="Table of faces that are known, boxes, points or both, as of hiva predict.")
    ] = None,
    subjects: Annotated[str, typer.Option(help="Keep these subjects only, such as 'F001,M002'.")] = "",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images where it is not ROOT; not for folder."),
    ] = None,
    frame_offset: Annotated[
        int | None, typer.Option(help="Number of an image less that of its codes: bp4d, bp4d-plus, disfa, gft.")
    ] = None,
    camera: Annotated[str | None, typer.Option(help="left or right: disfa.")] = None,
    occurrence_at: Annotated[
        float | None, typer.Option(help="Intensity from which an action unit counts as active: disfa, folder.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train or validation: aff-wild2.")] = None,
    neutral: Annotated[
        bool | None, typer.Option("--neutral", help="Also the first frame of each sequence, at rest: ck-plus.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="The table, where ROOT holds several: folder.")] = None,
    intensities: Annotated[
        bool | None, typer.Option("--intensities", help="The table holds intensities 0-5: folder.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be read, instead of reporting it.")
    ] = False,
    size: Annotated[int, typer.Option(min=32, help="Side of a crop in pixels.")] = 256,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
):
    """Cut the faces of a dataset out once, for training. Started again, it goes on where it was interrupted.

    The crops stay under the dataset's licence, as the images do.
    """
    from .. import data as loaders
    from ..data.preparing import UNREADABLE
    from ..faces import GivenFaces

    if (alignment == Alignment.given) != (boxes is not None):
        raise ValueError("`--alignment given` and `--boxes` belong together; give both, or neither.")
    reports: list = []
    load = getattr(loaders, f"load_{dataset.value.replace('-', '_')}")
    chosen = {
        "aus": names(aus) or None, "subjects": names(subjects) or None, "images": images, "frame_offset": frame_offset,
        "camera": camera, "occurrence_at": occurrence_at, "split": split, "neutral": neutral, "csv": csv,
        "intensities": intensities,
    }  # fmt: skip
    chosen = {name: value for name, value in chosen.items() if value is not None}
    strange = sorted(chosen.keys() - inspect.signature(load).parameters.keys())
    if strange:
        option = f"--{strange[0].replace('_', '-')}"
        raise ValueError(f"`{option}` is not for {dataset.value}; see `hiva data prepare --help`.")
    faces = load(root, on_report=reports.append, **chosen)
    for report in reports:
        typer.echo(str(report))
    given = None if boxes is None else GivenFaces.load(boxes)
    how = loaders.Preparation(alignment=alignment.value, detector=finder, size=size)
    made = cut_faces(faces, out, workers=workers, preparation=how, given=given, strict=strict)
    typer.echo(f"{made.faces} faces in {out}")
    if UNREADABLE in made.dropped:
        raise typer.Exit(3)
