"""How far damage, turned heads and covered faces can go: curves of F1 and AUC on people no training draws.

    python examples/measure_robustness.py --checkpoint DIR --model FaceXModel
    python examples/measure_robustness.py --checkpoint DIR --model FaceXModel --faces REFERENCE

Faces are rendered without any damage by a camera and with nothing before them, then blurred, made noisy, compressed and
shrunk; turned heads and covered faces are rendered, the same people with the same expressions each time. With `--faces`
those of another renderer are damaged too; what turned or covered faces they hold stands in the tables of
`measure_default.py`. Writes `robustness.csv`, `robustness.md` and `robustness.png`.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from default_faces import RESULTS, UNSEEN, Checkpoint, KnownFaces, draw_faces, read_faces, unseen_scenes
from default_results import write_figure, write_page, write_table
from PIL import Image, ImageFilter

from hiva_hf.facs import BP4D_AUS
from hiva_hf.metrics import au_metrics
from hiva_hf.plotting import ACTIVE, BOX, INACTIVE, figure_class
from hiva_hf.render import FaceRenderer, Scenes
from hiva_hf.render.layers import covering

OWN, OTHER = "own renderer", "another renderer"
# what a camera adds, and what leaves the picture as it is
UNDAMAGED = {"blur": 0.0, "motion": 0.0, "detail": 1.0, "noise": 0.0, "quality": 100.0, "sharpen": 0.0}
TURNS = (0, 10, 20, 30, 40, 50)
# what lies before a face may miss the crop: less than this share of it is not taken
LEAST = 0.05
COVERS = {"nothing": 0, "fingers": 1, "microphone": 2, "object": 3, "face mask": 4}


def blurred(image: Image.Image, sigma: float, random: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma)) if sigma else image


def noisy(image: Image.Image, sigma: float, random: np.random.Generator) -> Image.Image:
    values = np.asarray(image) + random.normal(0, sigma, (*image.size[::-1], 3)) if sigma else np.asarray(image)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def compressed(image: Image.Image, quality: float, random: np.random.Generator) -> Image.Image:
    if quality >= 100:
        return image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality))
    return Image.open(buffer).convert("RGB")


def shrunk(image: Image.Image, side: float, random: np.random.Generator) -> Image.Image:
    if side >= image.width:
        return image
    return image.resize((int(side), int(side)), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


# what is done, its unit, and how strongly: from nothing to more than is to be expected
DAMAGES: dict[str, tuple[Callable, str, tuple[float, ...]]] = {
    "blur": (blurred, "sigma, pixels of a crop of 128", (0, 0.5, 1, 1.5, 2, 3, 4)),
    "noise": (noisy, "sigma, of 255", (0, 5, 10, 20, 30, 40, 60)),
    "JPEG": (compressed, "quality", (100, 80, 60, 40, 20, 10, 5)),
    "resolution": (shrunk, "side of the face, pixels", (128, 96, 64, 48, 32, 24, 16)),
}


def damaged(faces: KnownFaces, damage: str, amount: float, seed: int = 0) -> KnownFaces:
    """The same faces, each damaged; noise is the same in every run."""
    change, random = DAMAGES[damage][0], np.random.default_rng(seed)
    side = faces.images.shape[1]
    # amounts are those of a crop of 128 pixels
    scaled = amount * side / 128 if damage == "blur" else amount
    pictures = [np.asarray(change(Image.fromarray(image), scaled, random)) for image in faces.images]
    return faces.showing(np.stack(pictures))


def clean(scenes: Scenes) -> Scenes:
    """The same people and expressions, with nothing before the face and an ideal camera."""
    values = dict(scenes.values)
    for name, value in UNDAMAGED.items():
        values[name] = torch.full_like(values[name], value)
    values["cover"] = torch.zeros_like(values["cover"])
    values["cover_radius"] = torch.full_like(values["cover_radius"], -1.0)
    return replace(scenes, values=values)


def turned(scenes: Scenes, yaw: float) -> Scenes:
    """The same faces, every other turned to the left by so many degrees, the others to the right."""
    pose = scenes.values["pose"].clone()
    sides = torch.ones(len(pose))
    sides[1::2] = -1
    pose[:, 0] = yaw * sides
    return replace(scenes, values={**scenes.values, "pose": pose})


def covered(renderer: FaceRenderer, scenes: Scenes, kind: int, seed: int = 0) -> Scenes:
    """The same faces behind what lies before others."""
    if kind == 0:
        return scenes
    start, names = UNSEEN * 2, [name for name in scenes.values if name.startswith(("cover", "mask_"))]
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    found = 0
    while found < len(scenes):
        people = torch.arange(start, start + 2000)
        others = renderer.sample(people, torch.zeros_like(people), seed=seed).values
        rows = (others["cover"] == kind) & (_hidden(others) >= (0 if kind == COVERS["face mask"] else LEAST))
        for name in names:
            parts[name].append(others[name][rows])
        found, start = found + int(rows.sum()), start + 2000
    chosen = {name: torch.cat(part)[: len(scenes)] for name, part in parts.items()}
    return replace(scenes, values={**scenes.values, **chosen})


def _hidden(values: dict[str, torch.Tensor]) -> torch.Tensor:
    """The share of a crop that fingers and objects hide, of shape `(num_images,)`, where a face mostly lies in it."""
    side = 32
    box = side * torch.tensor([0.08, -0.03, 0.88, 1.03]).expand(len(values["cover"]), -1)
    return covering(values, box, side)[0].mean((1, 2, 3))


def quality(faces: KnownFaces, checkpoint: Checkpoint) -> dict[str, float]:
    """Means over BP4D's action units."""
    columns = [k for k, name in enumerate(checkpoint.names) if name in BP4D_AUS]
    said = checkpoint(faces.images)[0][:, columns]
    metrics = au_metrics(faces.labels[:, columns], said, threshold=list(checkpoint.limits[columns]))
    names = {"f1": "mean_f1", "auc": "mean_auc", "precision": "mean_precision", "recall": "mean_recall"}
    return {short: metrics[name] for short, name in names.items()} | {"f1_always": metrics["mean_always_positive_f1"]}


def series(
    checkpoint: Checkpoint, renderer: FaceRenderer, scenes: Scenes, reference: KnownFaces | None, seed: int
) -> Iterator[dict]:
    """A row a kind, amount and set of faces."""
    plain = draw_faces(renderer, scenes, checkpoint.names)
    sets = [(OWN, plain)] + ([] if reference is None else [(OTHER, reference)])
    for damage, (_, unit, amounts) in DAMAGES.items():
        for label, faces in sets:
            for amount in amounts:
                row = {"kind": damage, "unit": unit, "amount": amount, "faces_of": label, "faces": len(faces)}
                yield row | quality(damaged(faces, damage, amount, seed), checkpoint)
    for yaw in TURNS:
        faces = draw_faces(renderer, turned(scenes, yaw), checkpoint.names)
        row = {"kind": "yaw", "unit": "degrees", "amount": yaw, "faces_of": OWN, "faces": len(faces)}
        yield row | quality(faces, checkpoint)
    for name, kind in COVERS.items():
        faces = draw_faces(renderer, covered(renderer, scenes, kind, seed), checkpoint.names) if kind else plain
        row = {"kind": "covered", "unit": "by", "amount": name, "faces_of": OWN, "faces": len(faces)}
        yield row | quality(faces, checkpoint)


def plot(table: pd.DataFrame, title: str) -> Any:
    """Small multiples: a column a kind, F1 above and AUC below, from harmless on the left to worst on the right."""
    kinds = list(dict.fromkeys(table["kind"]))
    figure = figure_class()(figsize=(2.3 * len(kinds), 4.4), layout="constrained", dpi=160)
    grid = figure.subplots(2, len(kinds), sharey="row", squeeze=False)
    for column, kind in enumerate(kinds):
        part = table[table["kind"] == kind]
        for line, key in enumerate(("f1", "auc")):
            axes = grid[line, column]
            for label, colour, marker in ((OWN, BOX, "o"), (OTHER, ACTIVE, "s")):
                rows = part[part["faces_of"] == label]
                if not len(rows):
                    continue
                if kind == "covered":
                    axes.bar(np.arange(len(rows)), rows[key], color=colour, width=0.62)
                    axes.set_xticks(np.arange(len(rows)), rows["amount"], rotation=35, ha="right", fontsize=8)
                else:
                    amounts = rows["amount"].astype(float)
                    axes.plot(amounts, rows[key], color=colour, marker=marker, markersize=4, linewidth=1.6)
            if line == 0:
                always = part[part["faces_of"] == OWN]["f1_always"]
                axes.axhline(always.mean(), color=INACTIVE, linestyle="--", linewidth=1.2)
                axes.set_title(kind, fontsize=10)
            if kind == "resolution":
                axes.set_xscale("log", base=2)
                axes.set_xticks([16, 32, 64, 128], ["16", "32", "64", "128"])
            if kind in ("JPEG", "resolution"):
                axes.invert_xaxis()
            axes.grid(axis="y", color="#D9DEE3", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            if line == 1 and kind != "covered":
                axes.set_xlabel(part["unit"].iloc[0], fontsize=8)
    grid[0, 0].set_ylabel("F1", fontsize=10)
    grid[1, 0].set_ylabel("AUC", fontsize=10)
    grid[0, 0].set_ylim(0, 1)
    grid[1, 0].set_ylim(0.5, 1)
    marks = [(OWN, BOX, "o", "-")]
    if (table["faces_of"] == OTHER).any():
        marks.append((OTHER, ACTIVE, "s", "-"))
    marks.append(("F1, always positive", INACTIVE, "", "--"))
    handles = [grid[0, 0].plot([], [], color=c, marker=m, linestyle=s, label=label)[0] for label, c, m, s in marks]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    model: Annotated[Path, typer.Option(help="ICT-FaceKit: FaceXModel, or its compact form.")],
    faces: Annotated[Path | None, typer.Option(help="Folder of rendered faces of unseen people, in parquet.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    people: Annotated[int, typer.Option(min=20, help="How many faces are drawn, each of another person.")] = 64,
    count: Annotated[int, typer.Option(min=20, help="How many of --faces are damaged.")] = 64,
    seed: Annotated[int, typer.Option(help="Of what is drawn, and of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="What draws and reads.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 1,
):
    torch.set_num_threads(threads)
    measured = Checkpoint(checkpoint, device)
    renderer = measured.renderer(model, device)
    reference = None
    if faces is not None:
        reference = read_faces(faces, measured.names, measured.side, measured.template, count)
    scenes = clean(unseen_scenes(renderer, people, seed))
    rows = []
    for row in series(measured, renderer, scenes, reference, seed):
        print(
            f"{row['kind']} {row['amount']} ({row['faces_of']}): F1 {row['f1']:.3f}, AUC {row['auc']:.3f}", flush=True
        )
        rows.append(row)
    table = pd.DataFrame(rows)
    numbers = " and ".join(
        f"{part['faces'].iloc[0]} ({label})" for label, part in table.groupby("faces_of", sort=False)
    )
    title = f"Means over BP4D's action units; faces of unseen people: {numbers}"
    lines = [
        f"Checkpoint of {measured.described}. {people} rendered faces, each of another person, without damage by a "
        "camera and with nothing before them, are damaged, turned or covered; F1 at the checkpoint's thresholds. A "
        "face fills the crop, so a resolution of 32 is a face of 32 pixels. Fingers, microphones and objects hide at "
        f"least {100 * LEAST:.0f} % of the crop. Crops keep their place: what a detector would miss on such pictures "
        "is not counted here.",
    ]
    tables = {}
    for kind, part in table.groupby("kind", sort=False):
        shown = part[["amount", "faces_of", "f1", "auc", "precision", "recall", "f1_always"]]
        tables[f"{kind}: {part['unit'].iloc[0]}"] = shown
    write_table(out / "robustness.csv", table)
    write_page(out / "robustness.md", "Robustness", lines, tables, device)
    write_figure(out / "robustness.png", plot(table, title))


if __name__ == "__main__":
    typer.run(main)
