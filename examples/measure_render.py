"""Faces that are rendered a second of one core's time: `python examples/measure_render.py --model FaceXModel`."""

import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

from hiva_hf.machine import machine
from hiva_hf.render import FaceModel, FaceRenderer


def main(
    model: Annotated[Path, typer.Option(help="ICT-FaceKit: FaceXModel, or its compact form.")],
    faces: Annotated[int, typer.Option(min=1, help="Rendered for each figure.")] = 64,
    size: Annotated[int, typer.Option(min=32, help="Side in pixels.")] = 160,
    rounds: Annotated[int, typer.Option(min=1, help="Medians are over so many.")] = 3,
    out: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
):
    torch.set_num_threads(1)
    renderer = FaceRenderer(FaceModel.load(model), size=size)
    ways = {
        "picture": (renderer.render, {}),
        "aligned crop": (renderer.aligned, {}),
        "aligned crop and masks": (renderer.aligned, {"masks": True}),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        people = torch.arange(faces) + number * faces
        scenes = renderer.sample(people, torch.zeros_like(people), seed=0)
        for name, (draw, options) in ways.items():
            start = time.process_time()
            draw(scenes, **options)
            found[name].append(time.process_time() - start)
    rows = [
        # the first round also loads and compiles
        {"what": name, "pixels": size, "faces_a_core_second": faces / sorted(times[1:])[rounds // 2]}
        for name, times in found.items()
    ]
    table = pd.DataFrame(rows).assign(faces=faces, machine=machine("cpu"))
    print(table.to_string(index=False, float_format="%.1f"))
    if out is not None:
        table.to_csv(out, index=False, float_format="%.4g")


if __name__ == "__main__":
    typer.run(main)
