"""How well faces and landmarks are found: on rendered people that no network here was trained on.

    python examples/measure_faces.py --data PACKED_FACES --subjects S128-S159
    python examples/measure_faces.py --data PACKED_FACES --detector mtcnn --detector face_landmarker.task

Prints the share of faces that the detector finds, and the error of its landmarks in percent of the distance between the
eyes, by how far the head is turned.
"""

import time
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from datasets import load_dataset
from PIL import Image
from rich.console import Console
from rich.table import Table

from hiva_hf.faces import LandmarkLocator, five_points, load_face_detector

TURNS = ((0, 10), (10, 20), (20, 30), (30, 90))


def main(
    data: Annotated[Path, typer.Option(help="Folder of packed rendered faces.")],
    subjects: Annotated[str, typer.Option(help="First and last subject to measure on.")] = "S128-S159",
    detector: Annotated[
        list[str] | None, typer.Option(help="What finds faces, as of `hiva predict`; may be given several times.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Enlarge the pictures, which are 160 pixels wide, so much.")] = 2.0,
    step: Annotated[int, typer.Option(min=1, help="Take every so-manieth picture.")] = 1,
):
    first, last = subjects.split("-")
    dataset = load_dataset("parquet", data_dir=str(data), split="train")
    rows = [i for i, name in enumerate(dataset["subject_id"]) if first <= name <= last][::step]
    console = Console(width=110)
    for name in detector or ["haar"]:
        console.print(measure(name, dataset, rows, scale, f"{name}: {len(rows)} faces of {subjects}"))


def measure(name: str, dataset, rows: list[int], scale: float, title: str) -> Table:
    """What one detector finds, by yaw."""
    detector, locator = load_face_detector(name), LandmarkLocator()
    found: list[list] = [[] for _ in TURNS]
    for index in rows:
        row = dataset[index]
        image = row["image"].convert("RGB")
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        points = np.asarray(row["landmarks"], dtype=np.float64).reshape(68, 2) * scale
        five = five_points(points)
        eyes = np.linalg.norm(five[1] - five[0])
        group = next(i for i, (low, high) in enumerate(TURNS) if low <= abs(row["yaw"]) < high)

        begin = time.perf_counter()
        faces = detector(image)
        record = {"ms": 1000 * (time.perf_counter() - begin)}
        # a face whose points lie elsewhere is not this face
        hits = [face for face in faces if np.linalg.norm(face.points.mean(0) - five.mean(0)) < eyes]
        record |= {"found": bool(hits), "others": len(faces) - len(hits)}
        if hits:
            record["five"] = np.linalg.norm(hits[0].points - five, axis=1).mean() / eyes
            if hits[0].landmarks is not None:
                record["all"] = np.linalg.norm(hits[0].landmarks - points, axis=1).mean() / eyes
        (located,), _ = locator(image, five[None])
        record["given"] = np.linalg.norm(located - points, axis=1).mean() / eyes
        found[group].append(record)

    table = Table(title=f"{title}; errors in percent of the distance between the eyes", title_justify="left")
    columns = ("yaw", "faces", "found", "5 points", "68 points", "68, place known", "false faces", "ms a picture")
    for heading in columns:
        table.add_column(heading, justify="right")
    for (low, high), records in [*zip(TURNS, found, strict=True), ((0, 90), [*chain(*found)])]:
        if records:
            means = [[r[key] for r in records if key in r] for key in ("five", "all", "given")]
            errors = [f"{100 * np.mean(values):.1f}" if values else "-" for values in means]
            share = f"{100 * np.mean([r['found'] for r in records]):.0f} %"
            extra = str(sum(r["others"] for r in records)), f"{np.median([r['ms'] for r in records]):.1f}"
            table.add_row(f"{low}-{high}", str(len(records)), share, *errors, *extra)
    return table


if __name__ == "__main__":
    typer.run(main)
