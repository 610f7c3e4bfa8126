"""Whether activation maps lie where an action unit moves the face: pointing game and mass, against true masks.

    python examples/measure_maps.py --checkpoint DIR --model FaceXModel
    python examples/measure_maps.py --checkpoint DIR --model FaceXModel --visual VISUAL_ONLY

The renderer tells which pixels each action unit moved. Measured are action units at level C or more. The pointing game
(Zhang et al., IJCV 2018) asks whether the highest point of a map lies on such a pixel; the mass is the share of the map
that does. Beside DDCA's maps stand Grad-CAM (Selvaraju et al., ICCV 2017) of the same model and, with `--visual`, of
one without descriptions; the place where the action unit mostly is, whatever the picture shows; and chance, which is
the share of the mask. Writes `maps.csv`, `maps.md`, `maps.png` and `maps-examples.png`.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from default_faces import RESULTS, Checkpoint, KnownFaces, draw_faces, unseen_scenes
from default_results import write_figure, write_page, write_table
from PIL import Image

from hiva_hf.facs import BP4D_AUS
from hiva_hf.files import read_record
from hiva_hf.plotting import ACTIVE, BOX, INACTIVE, PALETTE, au_title, enlarge, figure_class

LEVEL = 3
# of a mask that is nearly covered nothing can be asked
FEWEST_PIXELS = 32
DDCA, SAME, VISUAL = "DDCA", "Grad-CAM of the same model", "Grad-CAM, visual only"
PLACE, CHANCE = "usual place", "chance"
TRAINED_TO = (
    "DDCA's maps were drawn to such masks in training (`map_loss_weight`), Grad-CAM to nothing: the figures say what a "
    "user gets of each, not which way is the better one. What the training gained shows against the usual place."
)


def points_into(a_map: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the highest point of a map, smoothly enlarged, lies on a mask; a map without a highest point does not.

    Args:
        a_map (`np.ndarray` of shape `(rows, columns)`): Not below 0.
        mask (`np.ndarray` of shape `(side, side)`): bool.
    """
    if not np.ptp(a_map) > 0:
        return False
    large = enlarge(a_map, (mask.shape[1], mask.shape[0]))
    return bool(mask[np.unravel_index(large.argmax(), mask.shape)])


def mass_inside(a_map: np.ndarray, mask: np.ndarray) -> float:
    """The share of a map that lies on a mask, each cell spread evenly over its pixels; 0 of a map that is 0.

    Args:
        a_map (`np.ndarray` of shape `(rows, columns)`): Not below 0.
        mask (`np.ndarray` of shape `(side, side)`): bool; the map's cells divide it.
    """
    rows, columns = a_map.shape
    covered = mask.reshape(rows, mask.shape[0] // rows, columns, mask.shape[1] // columns).mean((1, 3))
    total = a_map.sum()
    return float((a_map * covered).sum() / total) if total > 0 else 0.0


def grad_cam(model, pixel_values: torch.Tensor) -> np.ndarray:
    """Grad-CAM of every action unit on the last feature map of the vision tower.

    Args:
        model (`HiVAForImageClassification`): In evaluation mode.
        pixel_values (`torch.Tensor` of shape `(num_faces, 3, height, width)`): Faces.

    Returns:
        `np.ndarray` of shape `(num_faces, num_labels, rows, columns)`: Not below 0.
    """
    held = {}

    def keep(_, inputs):
        # what lies below is not asked for
        held["tokens"] = inputs[0].detach().requires_grad_()
        held["grid"] = inputs[1]
        return held["tokens"], *inputs[1:]

    handle = model.hiva.vision_projection.register_forward_pre_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(pixel_values).logits
            tokens, maps = held["tokens"], []
            for column in range(logits.shape[1]):
                (slope,) = torch.autograd.grad(logits[:, column].sum(), tokens, retain_graph=True)
                maps.append((slope.mean(1, keepdim=True) * tokens).sum(-1).relu())
    finally:
        handle.remove()
    return torch.stack(maps, 1).detach().unflatten(-1, held["grid"]).float().cpu().numpy()


@torch.no_grad()
def maps_of(checkpoint: Checkpoint, images: np.ndarray, how: str, batch_size: int = 16) -> np.ndarray:
    """Maps of shape (num_faces, num_labels, rows, columns), by DDCA or Grad-CAM."""
    found = []
    for start in range(0, len(images), batch_size):
        pixels = checkpoint.pixels(images[start : start + batch_size])
        if how == DDCA:
            found.append(checkpoint.model(pixels, output_activation_maps=True).activation_maps.float().cpu().numpy())
        else:
            found.append(grad_cam(checkpoint.model, pixels))
    return np.concatenate(found)


def asked(faces: KnownFaces) -> np.ndarray:
    """`np.ndarray` of shape `(num_faces, num_labels)`: Which action units are strong enough, and are to be seen."""
    return (np.nan_to_num(faces.intensity) >= LEVEL) & (faces.moved.sum((2, 3)) >= FEWEST_PIXELS)


def usual_places(faces: KnownFaces, wanted: np.ndarray, cells: int) -> np.ndarray:
    """For each face and action unit the mean of its masks in other faces: the other half of them."""
    count, labels, side = len(faces), faces.intensity.shape[1], faces.moved.shape[-1]
    share = faces.moved.reshape(count, labels, cells, side // cells, cells, side // cells).mean((3, 5))
    half = np.arange(count) % 2
    places = np.zeros_like(share)
    for part in (0, 1):
        weights = wanted & (half != part)[:, None]
        total = np.einsum("nk,nkrc->krc", weights.astype(float), share)
        places[half == part] = total / np.maximum(weights.sum(0), 1)[:, None, None]
    return places


def measure(faces: KnownFaces, names: list[str], maps: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row an action unit and kind of map, then means over action units.

    Args:
        faces (`KnownFaces`): With masks.
        names (`list[str]`): Action units, in the order of the columns.
        maps (`dict[str, np.ndarray]`): By kind, of shape (num_faces, num_labels, rows, columns).
    """
    wanted, rows = asked(faces), []
    for column, name in enumerate(names):
        chosen = np.flatnonzero(wanted[:, column])
        if not len(chosen):
            continue
        masks = faces.moved[chosen, column]
        area = float(masks.mean())
        rows.append({"au": name, "faces": len(chosen), "map": CHANCE, "pointing": area, "mass": area})
        for kind, values in maps.items():
            own = values[chosen, column]
            hits = [points_into(a_map, mask) for a_map, mask in zip(own, masks, strict=True)]
            mass = [mass_inside(a_map, mask) for a_map, mask in zip(own, masks, strict=True)]
            row = {"au": name, "faces": len(chosen), "map": kind}
            rows.append({**row, "pointing": float(np.mean(hits)), "mass": float(np.mean(mass))})
    table = pd.DataFrame(rows)
    for label, part in (("mean of BP4D's", table[table["au"].isin(BP4D_AUS)]), ("mean of all", table)):
        means = part.groupby("map", sort=False)[["faces", "pointing", "mass"]].mean().reset_index()
        table = pd.concat([table, means.assign(au=label)], ignore_index=True)
    return table


def wide(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """A line an action unit, a column a kind of map."""
    shown = table.pivot_table(index="au", columns="map", values=key, sort=False).reset_index()
    faces = table.groupby("au", sort=False)["faces"].first().round().astype(int).to_numpy()
    shown.insert(1, "faces", faces)
    return shown.rename_axis(columns=None)


def plot_table(table: pd.DataFrame, title: str) -> Any:
    """Pointing and mass, a line an action unit."""
    kinds = [kind for kind in (DDCA, SAME, VISUAL, PLACE, CHANCE) if (table["map"] == kind).any()]
    names = list(dict.fromkeys(table["au"]))
    figure = figure_class()(figsize=(10, 1.0 + 0.28 * len(names)), layout="constrained", dpi=130)
    panels = figure.subplots(1, 2, sharey=True)
    colours = dict(
        zip((DDCA, SAME, VISUAL, PLACE, CHANCE), (BOX, PALETTE[1], PALETTE[3], ACTIVE, INACTIVE), strict=True)
    )
    lines = np.arange(len(names))
    for axes, key, label in zip(
        panels, ("pointing", "mass"), ("highest point on the mask", "share of the map on the mask"), strict=True
    ):
        for kind in reversed(kinds):
            values = table[table["map"] == kind].set_index("au")[key].reindex(names)
            if kind == DDCA:
                axes.barh(lines, values, color=colours[kind], height=0.6, label=kind)
            else:
                marker = {"marker": "|", "s": 90, "linewidth": 2} if kind in (PLACE, CHANCE) else {"s": 26}
                axes.scatter(values, lines, color=colours[kind], zorder=3, label=kind, **marker)
        axes.set_xlim(0, 1)
        axes.set_title(label, fontsize=10)
        axes.axhline(len(names) - 2.5, color="black", linewidth=0.8)
        axes.grid(axis="x", color="#D9DEE3", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(lines, [au_title(name) for name in names], fontsize=8)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=len(kinds), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_examples(faces: KnownFaces, names: list[str], maps: dict[str, np.ndarray], title: str) -> Any:
    """For every action unit a face with what moved, and the maps; faces are chosen before any map is looked at."""
    wanted = asked(faces)
    shown = [column for column in range(len(names)) if wanted[:, column].any()]
    kinds = [kind for kind in (DDCA, VISUAL, SAME) if kind in maps][:2]
    across = 4
    down = -(-len(shown) // across)
    width = len(kinds) + 1
    figure = figure_class()(figsize=(across * width * 1.25, down * 1.52), layout="constrained", dpi=130)
    outer = figure.subfigures(down, across, squeeze=False, wspace=0.02)
    turned = faces.traits["yaw"].abs().to_numpy() + 90 * faces.traits["occluded"].to_numpy()
    for place, column in enumerate(shown):
        candidates = np.flatnonzero(wanted[:, column])
        # the strongest, and of these the one that looks most into the camera
        strongest = candidates[faces.intensity[candidates, column] == faces.intensity[candidates, column].max()]
        chosen = strongest[turned[strongest].argmin()]
        part = outer[place // across, place % across]
        part.suptitle(au_title(names[column]), fontsize=8)
        panels = part.subplots(1, width)
        side = faces.images.shape[1]
        for axes, kind in zip(panels, [None, *kinds], strict=True):
            axes.set_axis_off()
            if kind is None:
                axes.imshow(faces.images[chosen])
            else:
                grey = np.asarray(Image.fromarray(faces.images[chosen]).convert("L"))
                axes.imshow(grey, cmap="gray")
                axes.imshow(enlarge(maps[kind][chosen, column], (side, side)), cmap="inferno", alpha=0.6)
            axes.contour(faces.moved[chosen, column], levels=[0.5], colors=["#56F000"], linewidths=0.9)
    for place in range(len(shown), down * across):
        outer[place // across, place % across].set_visible(False)
    order = ", ".join(["face with the outline of what the action unit moved", *(f"map by {kind}" for kind in kinds)])
    figure.suptitle(f"{title}\n{order}", fontsize=10)
    return figure


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    model: Annotated[Path, typer.Option(help="ICT-FaceKit: FaceXModel, or its compact form.")],
    visual: Annotated[Path | None, typer.Option(help="A checkpoint without descriptions, for its Grad-CAM.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    people: Annotated[int, typer.Option(min=20, help="How many faces are drawn, each of another person.")] = 500,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    device: Annotated[str, typer.Option(help="What draws and reads.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 1,
):
    torch.set_num_threads(threads)
    measured = Checkpoint(checkpoint, device)
    if not measured.model.config.use_ddca:
        raise typer.BadParameter("--checkpoint must be a model with DDCA; this one gives no maps")
    other = Checkpoint(visual, device) if visual is not None else None
    if other is not None and (other.side != measured.side or other.names != measured.names):
        raise typer.BadParameter("--visual must take crops of the same size, and know the same action units")
    made = read_record(visual / "results.json").get("command") if visual is not None else None
    renderer = measured.renderer(model, device)
    faces = draw_faces(renderer, unseen_scenes(renderer, people, seed), measured.names, masks=True)
    # nothing is asked of the others
    faces = faces[np.flatnonzero(asked(faces).any(1))]
    maps = {DDCA: maps_of(measured, faces.images, DDCA), SAME: maps_of(measured, faces.images, SAME)}
    if other is not None:
        maps[VISUAL] = maps_of(other, faces.images, VISUAL)
    maps[PLACE] = usual_places(faces, asked(faces), maps[DDCA].shape[-1])
    table = measure(faces, measured.names, maps)
    title = f"Activation maps against true masks: {len(faces):,} faces, action units at level C or more"
    lines = [
        f"Checkpoint of {measured.described}" + (f"; visual only of {other.described}." if other is not None else "."),
        "Pointing: the highest point of the map lies on a pixel that the action unit moved. Mass: the share of the map "
        f"on such pixels. `{PLACE}`: the mean mask of the action unit in other faces, a map that looks at nothing. "
        f"`{CHANCE}`: the share of the mask. A mask of fewer than {FEWEST_PIXELS} pixels is not asked for.",
        *([TRAINED_TO] if measured.model.config.map_loss_weight > 0 else []),
        *([f"The visual-only model was made by `{made}`."] if made else []),
    ]
    tables = {"Pointing": wide(table, "pointing"), "Mass": wide(table, "mass")}
    write_table(out / "maps.csv", table)
    write_page(out / "maps.md", title, lines, tables, device)
    write_figure(out / "maps.png", plot_table(table, title))
    write_figure(out / "maps-examples.png", plot_examples(faces, measured.names, maps, "Activation maps"))
    print(table.tail(2 * (len(maps) + 1)).to_string(index=False, float_format="%.3f"), flush=True)


if __name__ == "__main__":
    typer.run(main)
