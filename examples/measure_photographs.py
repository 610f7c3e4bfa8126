"""Real photographs: what a checkpoint that saw none says of them, and whether it tells a smile from a face at rest.

    python examples/measure_photographs.py --checkpoint DIR                      # photographs of scikit-image
    python examples/measure_photographs.py --checkpoint DIR --folder PORTRAITS   # your own, the larger face of each

Faces are found and cut out by the package's own detector. In a folder with sub-folders, each is named for what its
people show, such as `neutral` and `smiling`; the AUC of every action unit is then measured against `neutral`, and how
faces at rest read. Writes `photographs-expressions.csv` and `photographs.md`, means alone: names and faces of those in
a folder go nowhere unless `--sheets` says where, a contact sheet each, and a table with a row a picture.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from default_faces import RESULTS
from default_results import write_figure, write_page, write_table
from PIL import UnidentifiedImageError
from sklearn.metrics import roc_auc_score

from hiva_hf import ActionUnitDetector
from hiva_hf.faces import Face, crop_face
from hiva_hf.image_processing_hiva import open_image
from hiva_hf.plotting import ACTIVE, INACTIVE, figure_class
from hiva_hf.results import FaceResult

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
REST = ("neutral", "rest", "calm")
# what FACS expects of each (EMFACS; Ekman and Friesen); other names are measured all the same
EXPECTED: dict[str, tuple[str, ...]] = {
    "smiling": ("AU6", "AU12", "AU25"),
    "surprise": ("AU1", "AU2", "AU5", "AU25", "AU26"),
    "anger": ("AU4", "AU5", "AU7", "AU23"),
    "disgust": ("AU4", "AU9", "AU10"),
    "sadness": ("AU1", "AU4", "AU15", "AU17"),
    "fear": ("AU1", "AU2", "AU4", "AU5", "AU20", "AU25"),
    "contempt": ("AU14",),
}
SAME = {
    "smile": "smiling", "happy": "smiling", "happiness": "smiling", "joy": "smiling", "surprised": "surprise",
    "angry": "anger", "disgusted": "disgust", "sad": "sadness", "afraid": "fear", "fearful": "fear",
}  # fmt: skip
# fewer pictures say nothing
FEWEST = 10


def shown_by(folder: Path, file: Path) -> str:
    """What the first sub-folder says that a picture shows; empty without one."""
    inside = file.relative_to(folder).parts
    name = inside[0].lower() if len(inside) > 1 else ""
    name = SAME.get(name, name)
    return "neutral" if name in REST else name


def pictures_in(folder: Path) -> list[Path]:
    """All pictures in and below a folder."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


def _spread(items: list, most: int) -> list:
    """At most so many, evenly spread."""
    return items if len(items) <= most else [items[k] for k in np.linspace(0, len(items) - 1, most).round().astype(int)]


def read(detector: ActionUnitDetector, files: Iterable[Path]) -> Iterator[FaceResult]:
    """The largest face of each picture; what is no picture is told and left out."""
    for file in files:
        try:
            image = open_image(file)
        except (ValueError, OSError, UnidentifiedImageError) as error:
            print(f"left out: {error}")
            continue
        (result,) = detector.image(image)[:1]
        result.source = str(file)
        if result.success:
            x0, y0, x1, y1 = result.box
            face = Face((x0, y0, x1, y1), result.confidence, np.reshape(result.points, (5, 2)))
            side = detector.processor.image_processor.size["height"]
            result.crop = crop_face(image, face, side, detector.template)
        yield result


def against_rest(shown: np.ndarray, scores: np.ndarray, names: list[str], limits: np.ndarray) -> pd.DataFrame:
    """A row an expression and action unit: mean score, share called active, and AUC against the faces at rest.

    Args:
        shown (`np.ndarray` of shape `(num_faces,)`): Names of what each face shows, `neutral` among them.
        scores (`np.ndarray` of shape `(num_faces, num_labels)`): Probabilities.
        names (`list[str]`): Action units.
        limits (`np.ndarray` of shape `(num_labels,)`): From what score each counts as active.
    """
    rows, rest = [], shown == "neutral"
    for kind in sorted(set(shown), key=lambda name: (name != "neutral", name)):
        chosen = shown == kind
        for column, name in enumerate(names):
            own, calm = scores[chosen, column], scores[rest, column]
            auc = np.nan
            if kind != "neutral" and min(len(own), len(calm)) >= FEWEST:
                auc = roc_auc_score(np.r_[np.ones(len(own)), np.zeros(len(calm))], np.r_[own, calm])
            row = {"shown": kind, "faces": int(chosen.sum()), "au": name}
            row |= {"expected": name in EXPECTED.get(kind, ()), "auc": auc, "mean": own.mean()}
            rows.append({**row, "called": (own >= limits[column]).mean()})
    return pd.DataFrame(rows)


def contact_sheet(results: list[FaceResult], names: list[str], limits: np.ndarray, title: str, across: int = 8) -> Any:
    """Faces as the model sees them; below each a bar an action unit, with its number where it is called active."""
    down = -(-len(results) // across)
    figure = figure_class()(figsize=(1.7 * across, 2.25 * down + 0.4), layout="constrained", dpi=100)
    grid = figure.subplots(
        2 * down, across, squeeze=False, gridspec_kw={"height_ratios": [1, 0.34] * down, "wspace": 0.05}
    )
    places = np.arange(len(names))
    for number in range(down * across):
        picture, bars = grid[2 * (number // across), number % across], grid[2 * (number // across) + 1, number % across]
        picture.set_axis_off()
        bars.set_axis_off()
        if number >= len(results):
            continue
        picture.imshow(results[number].crop)
        scores = np.array([results[number].scores[name] for name in names])
        active = scores >= limits
        bars.bar(places, np.maximum(scores, 0.01), color=np.where(active, ACTIVE, INACTIVE), width=0.8)
        bars.plot(places, np.zeros(len(names)), color="black", linewidth=0.5)
        bars.set_ylim(0, 1.35)
        for place in np.flatnonzero(active):
            bars.text(place, scores[place] + 0.05, names[place].removeprefix("AU"), fontsize=6, ha="center")
    figure.suptitle(title, fontsize=10)
    return figure


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A line an expression: how well what is expected is told from rest."""
    rows = []
    for kind, part in table.groupby("shown", sort=False):
        wanted = part[part["expected"]]
        named = ", ".join(f"{row.au} {row.auc:.2f}" for row in wanted.itertuples() if row.auc == row.auc)
        row = {"shown": kind, "pictures": part["pictures"].iloc[0], "faces": part["faces"].iloc[0]}
        row |= {"AUC of what is expected": named or "-"}
        rows.append(row | {"mean of all AUs": part["mean"].mean(), "called active": part["called"].mean()})
    return pd.DataFrame(rows)


def samples() -> dict[str, Path]:
    """Photographs of people that scikit-image carries."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return {name: folder / f"{name}.png" for name in ("astronaut", "camera") if (folder / f"{name}.png").is_file()}


def measure_folder(
    detector: ActionUnitDetector, folder: Path, files: list[Path], sheets: Path | None, per_sheet: int
) -> pd.DataFrame:
    """The table of [`against_rest`] of one folder, with how many pictures there were."""
    names, limits = detector.labels, np.array([detector.limits[name] for name in detector.labels])
    results = list(read(detector, files))
    shown = np.array([shown_by(folder, Path(result.source)) or "any" for result in results])
    found = np.array([result.success for result in results], dtype=bool)
    if not found.any():
        raise typer.BadParameter(f"no face was found in the {len(files)} pictures of {folder}")
    scores = np.array([[result.scores[name] for name in names] for result in results if result.success])
    table = against_rest(shown[found], scores, names, limits)
    looked = pd.DataFrame({"shown": shown, "found": found}).groupby("shown")["found"].agg(["size", "sum"])
    table["pictures"] = table["shown"].map(looked["size"])
    if sheets is not None:
        rows = pd.DataFrame(scores, columns=names)
        sources = [result.source for result in results if result.success]
        rows.insert(0, "picture", [Path(source).relative_to(folder).as_posix() for source in sources])
        write_table(sheets / f"{folder.name}.csv", rows)
        for kind in dict.fromkeys(shown):
            chosen = [result for result, own in zip(results, shown, strict=True) if own == kind and result.success]
            title = f"{folder.name}, {kind}: probability of each action unit"
            if chosen:
                sheet = contact_sheet(_spread(chosen, per_sheet), names, limits, title)
                write_figure(sheets / f"{folder.name}-{kind}.png", sheet)
    return table


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    folder: Annotated[list[Path] | None, typer.Option(help="Photographs, in sub-folders by expression or not.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    sheets: Annotated[Path | None, typer.Option(help="Folder for contact sheets and scores of each picture.")] = None,
    source: Annotated[str, typer.Option(help="Where the photographs come from, for the page.")] = "",
    most: Annotated[int, typer.Option(min=1, help="Pictures that are read of each sub-folder.")] = 400,
    per_sheet: Annotated[int, typer.Option(min=1, help="Faces on a contact sheet.")] = 40,
    device: Annotated[str, typer.Option(help="What reads.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 1,
):
    torch.set_num_threads(threads)
    detector = ActionUnitDetector(checkpoint, device=device, largest_only=True)
    names, tables = detector.labels, {}
    rows = []
    for name, file in samples().items():
        (result,) = read(detector, [file])
        rows.append({"picture": name, "found": result.success, **{au: result.scores.get(au, np.nan) for au in names}})
        if result.success:
            write_figure(out / f"photograph-{name}.png", detector.plot(file))
    if rows:
        write_table(out / "photographs.csv", pd.DataFrame(rows))
        tables["Photographs of scikit-image"] = pd.DataFrame(rows).set_index("picture").T.reset_index(names="")
    measured = []
    for place in folder or []:
        files = pictures_in(place)
        kinds: dict[str, list[Path]] = {}
        for file in files:
            kinds.setdefault(shown_by(place, file), []).append(file)
        chosen = [file for part in kinds.values() for file in _spread(part, most)]
        table = measure_folder(detector, place, chosen, sheets, per_sheet)
        measured.append(table.assign(folder=place.name))
        tables[f"{place.name}: by what is shown"] = summary(table)
        by_unit = table.pivot(index="au", columns="shown", values="auc").reindex(names).dropna(axis=1, how="all")
        if by_unit.shape[1]:
            tables[f"{place.name}: AUC against neutral"] = by_unit.reset_index().rename_axis(columns=None)
        means = table.pivot(index="au", columns="shown", values="mean").reindex(names)
        tables[f"{place.name}: mean probability"] = means.reset_index().rename_axis(columns=None)
        print(summary(table).to_string(index=False, float_format="%.3f"), flush=True)
    if measured:
        write_table(out / "photographs-expressions.csv", pd.concat(measured, ignore_index=True))
    lines = [
        "Real photographs; the checkpoint was trained on rendered faces alone, and nothing was chosen by these. Faces "
        "are found by the package's own detector, the largest of each picture; those that it missed are left out.",
        "Expected are the action units that EMFACS (Ekman and Friesen) names for the emotion. A label of an expression "
        f"is no coding of action units: of each face nobody knows which are there. AUCs are of {FEWEST} faces or more.",
        *([source] if source else []),
    ]
    write_page(out / "photographs.md", "Real photographs", lines, tables, device)


if __name__ == "__main__":
    typer.run(main)
