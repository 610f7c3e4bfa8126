"""`hiva render`."""

from pathlib import Path
from typing import Annotated

import typer


def render(
    model: Annotated[
        Path, typer.Option(help="Folder FaceXModel of ICT-FaceKit, or an .npz made of it; --compact makes that.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the faces, as parquet.")],
    subjects: Annotated[int, typer.Option(min=1, help="People.")] = 20,
    first: Annotated[int, typer.Option(min=0, help="Number of the first of them.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Pictures a person.")] = 50,
    seed: Annotated[int, typer.Option(help="Another seed gives other people.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=512, help="Side of a picture in pixels.")] = 160,
    masks: Annotated[bool, typer.Option("--masks", help="Also a mask an action unit, of the pixels it moved.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one core each.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compact: Annotated[
        Path | None, typer.Option(help="Write the face model into this .npz first, which loads in a second.")
    ] = None,
):
    """Render faces of people who do not exist, with what they do.

    Started again, it goes on where it was interrupted.
    """
    from ..render import FaceModel
    from ..render.dataset import Rendering, write_faces
    from ..terminal import counting

    if compact is not None:
        if compact.suffix != ".npz":
            raise ValueError(f"`--compact` must end in .npz; got {compact}.")
        if not compact.is_file():
            FaceModel.load(model).save(compact)
        model = compact
    rendering = Rendering(frames=frames, seed=seed, size=size, masks=masks)
    people = range(first, first + subjects)
    with counting("Rendering", subjects * frames) as tick:
        made = write_faces(
            model, out, people, rendering, workers=workers, device=device, on_faces=lambda done, total: tick(done)
        )
    typer.echo(f"{made} faces of {subjects} people in {out}")
