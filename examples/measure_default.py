"""How well a checkpoint reads people it never saw: per action unit, level and group, with what goes wrong at rest.

    python examples/measure_default.py --checkpoint DIR --model FaceXModel   # people of this package's own renderer
    python examples/measure_default.py --checkpoint DIR --faces REFERENCE    # parquet of another renderer's faces
    python examples/measure_default.py --checkpoint DIR --makehuman DATA     # another face model

`--model` draws people whose numbers no training reaches, cut out as a landmark detector would that is a little off;
`--faces` reads rendered faces in parquet and aligns them by their true landmarks; `--makehuman` draws faces of
MakeHuman's model from its folder `data`. Each may be given. Writes `unseen-renders.*`, `unseen-reference.*` and
`unseen-makehuman.*`: CSV, a page in Markdown and pictures.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from default_faces import RESULTS, Checkpoint, KnownFaces, draw_faces, read_faces, unseen_scenes
from default_results import write_figure, write_page, write_table
from makehuman_faces import MakeHuman, known_faces, plot_faces
from sklearn.metrics import roc_auc_score

from hiva_hf.calibration import calibration_error
from hiva_hf.facs import BP4D_AUS
from hiva_hf.files import read_record
from hiva_hf.metrics import au_metrics, intensity_metrics
from hiva_hf.plotting import ACTIVE, BOX, INACTIVE, au_title, figure_class

LEVELS = "ABCDE"
MAKEHUMAN = (
    "Faces of MakeHuman's model (CC0), drawn without its textures; see [some of them](unseen-makehuman-faces.png). No "
    "checkpoint was trained on them or chosen by them. Only the action units that one of its targets moves are coded, "
    "and those are MakeHuman's own idea of the movement: several are faint, and what it draws of a brow is a painted "
    "line."
)
# fewer faces say nothing
FEWEST = 5
REFERENCES = (
    "For comparison, on faces of the reference set's kind (12 BP4D action units, unseen people, F1 / AUC): always "
    "positive .49; HOG + logistic regression on a crop aligned by the true points .62 / .80; logistic regression on "
    "true landmarks and pose .72 / .90; a plain CNN of 2.8 M parameters trained on 6,400 aligned faces of that "
    "renderer .73 / .89."
)
GROUPS: dict[str, tuple[str, tuple]] = {
    "skin tone": ("skin_tone", (("light", 0, 1 / 3), ("medium", 1 / 3, 2 / 3), ("dark", 2 / 3, 1.01))),
    "yaw": ("yaw", (("0-10°", 0, 10), ("10-20°", 10, 20), ("20-30°", 20, 30), ("30-50°", 30, 91))),
    "pitch": ("pitch", (("0-10°", 0, 10), ("10-25°", 10, 91))),
    "covered": ("occluded", (("no", 0, 1), ("yes", 1, 2))),
    "glasses": ("glasses", (("no", 0, 1), ("yes", 1, 2))),
}


def level_auc(intensity: np.ndarray, scores: np.ndarray) -> list[float]:
    """AUC of the faces at each level A to E against the faces without the action unit.

    Args:
        intensity (`np.ndarray` of shape `(num_faces,)`): 0-5, NaN where it is not known.
        scores (`np.ndarray` of shape `(num_faces,)`): Of the action unit.

    Returns:
        `list[float]`: Five; NaN where there are fewer than `FEWEST` faces on either side.
    """
    found = []
    for level in range(1, 6):
        chosen = (intensity == level) | (intensity == 0)
        truth = intensity[chosen] > 0
        enough = min(truth.sum(), len(truth) - truth.sum()) >= FEWEST
        found.append(float(roc_auc_score(truth, scores[chosen])) if enough else float("nan"))
    return found


def at_rest(faces: KnownFaces) -> np.ndarray:
    """`np.ndarray` of shape `(num_faces,)`: Which faces show no action unit at all, of those that are known."""
    return (np.nan_to_num(faces.intensity) == 0).all(1)


def unit_rows(faces: KnownFaces, checkpoint: Checkpoint, answers: tuple[np.ndarray, np.ndarray | None]) -> pd.DataFrame:
    """A row an action unit, then the means over BP4D's and over all."""
    probabilities, intensities = answers
    names, limits = checkpoint.names, checkpoint.limits
    own = au_metrics(faces.labels, probabilities, names, list(limits))
    half = au_metrics(faces.labels, probabilities, names, 0.5)
    strength = {} if intensities is None else intensity_metrics(faces.intensity, intensities, names)
    rest = at_rest(faces)
    rows = []
    for column, name in enumerate(names):
        coded = ~np.isnan(faces.intensity[:, column])
        if not coded.any():
            continue
        truth, said = faces.labels[coded, column], probabilities[coded, column]
        row = {"au": name, "active": own[f"base_rate_{name}"], "auc": own[f"auc_{name}"], "f1": own[f"f1_{name}"]}
        row |= {"f1_at_half": half[f"f1_{name}"], "f1_always": own[f"always_positive_f1_{name}"]}
        row |= {"threshold": limits[column], "precision": own[f"precision_{name}"], "recall": own[f"recall_{name}"]}
        row |= {"icc": strength.get(f"icc_{name}", np.nan), "mae": strength.get(f"mae_{name}", np.nan)}
        row["calibration_error"] = calibration_error(truth, said)
        by_level = level_auc(faces.intensity[:, column], probabilities[:, column])
        row |= {f"auc_{level}": value for level, value in zip(LEVELS, by_level, strict=True)}
        for place, level in enumerate(LEVELS, start=1):
            at = probabilities[faces.intensity[:, column] == place, column]
            row[f"found_{level}"] = float((at >= limits[column]).mean()) if len(at) >= FEWEST else np.nan
        calm = probabilities[rest, column]
        row |= {"rest_mean": calm.mean() if len(calm) else np.nan}
        row |= {"rest_called": (calm >= limits[column]).mean() if len(calm) else np.nan}
        rows.append(row)
    table = pd.DataFrame(rows)
    means = [table[table["au"].isin(BP4D_AUS)], table]
    labels = [f"mean of {len(part)} BP4D" if k == 0 else f"mean of {len(part)}" for k, part in enumerate(means)]
    added = [{"au": label, **part.drop(columns="au").mean()} for label, part in zip(labels, means, strict=True)]
    return pd.concat([table, pd.DataFrame(added)], ignore_index=True)


def group_rows(faces: KnownFaces, checkpoint: Checkpoint, probabilities: np.ndarray) -> pd.DataFrame:
    """A row a group: means over BP4D's action units."""
    columns = [k for k, name in enumerate(checkpoint.names) if name in BP4D_AUS]
    names, limits = [checkpoint.names[k] for k in columns], checkpoint.limits[columns]
    rest = at_rest(faces)
    rows = []
    groups = [("all", "all", np.ones(len(faces), dtype=bool))]
    for group, (trait, parts) in GROUPS.items():
        values = np.abs(faces.traits[trait].to_numpy().astype(float))
        groups += [(group, part, (values >= low) & (values < high)) for part, low, high in parts]
    for group, part, chosen in groups:
        if chosen.sum() < FEWEST:
            continue
        truth, said = faces.labels[chosen][:, columns], probabilities[chosen][:, columns]
        metrics = au_metrics(truth, said, names, list(limits))
        called = (said >= limits) & ~np.isnan(truth)
        quiet = [called[truth[:, k] == 0, k].mean() for k in range(len(names)) if (truth[:, k] == 0).any()]
        calm = said[rest[chosen]]
        row = {"group": group, "part": part, "faces": int(chosen.sum())}
        row |= {"people": faces.traits["subject"][chosen].nunique(), "auc": metrics["mean_auc"]}
        row |= {"f1": metrics["mean_f1"], "f1_always": metrics["mean_always_positive_f1"]}
        row |= {"recall": metrics["mean_recall"], "false_alarms": float(np.mean(quiet)) if quiet else np.nan}
        row |= {"rest_mean": calm.mean() if len(calm) else np.nan}
        row["rest_called"] = (calm >= limits).mean() if len(calm) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def people_interval(
    faces: KnownFaces, checkpoint: Checkpoint, probabilities: np.ndarray, draws: int = 100, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of mean AUC and F1 over BP4D's action units, by drawing people anew (bootstrap)."""
    columns = [k for k, name in enumerate(checkpoint.names) if name in BP4D_AUS]
    labels, said, limits = faces.labels[:, columns], probabilities[:, columns], checkpoint.limits[columns]
    random, (_, people) = np.random.default_rng(seed), np.unique(faces.traits["subject"], return_inverse=True)
    rows_of = [np.flatnonzero(people == person) for person in range(people.max() + 1)]
    found = []
    for _ in range(draws):
        rows = np.concatenate([rows_of[k] for k in random.integers(0, len(rows_of), len(rows_of))])
        metrics = au_metrics(labels[rows], said[rows], threshold=list(limits))
        found.append((metrics["mean_auc"], metrics["mean_f1"]))
    low, high = np.quantile(found, (0.025, 0.975), axis=0)
    return {key: (float(low[k]), float(high[k])) for k, key in enumerate(("auc", "f1"))}


def plot_units(table: pd.DataFrame, title: str) -> Any:
    """Four panels beside each other, a line an action unit; the means below."""
    count = len(table)
    figure = figure_class()(figsize=(13, 0.8 + 0.3 * count), layout="constrained", dpi=130)
    f1, auc, strength, rest = figure.subplots(1, 4, sharey=True, width_ratios=[1.2, 1.2, 0.8, 0.8])
    lines = np.arange(count)
    f1.barh(lines, table["f1"], color=BOX, height=0.62, label="at the checkpoint's threshold")
    f1.scatter(table["f1_at_half"], lines, color="white", edgecolor="black", s=22, zorder=3, label="at .5")
    f1.vlines(table["f1_always"], lines - 0.42, lines + 0.42, color=ACTIVE, linewidth=2.2, label="always positive")
    f1.set_title("F1", fontsize=10)
    shades = ("#C6DBEF", "#9ECAE1", "#6BAED6", "#2171B5", "#08306B")
    for level, shade in zip(LEVELS, shades, strict=True):
        auc.scatter(table[f"auc_{level}"], lines, color=shade, s=26, zorder=2, label=f"level {level}")
    auc.scatter(table["auc"], lines, marker="|", color=ACTIVE, s=110, linewidth=2.2, zorder=3, label="all")
    auc.set_title("AUC", fontsize=10)
    strength.barh(lines, table["icc"], color=BOX, height=0.62)
    strength.set_title("ICC of intensity" if table["icc"].notna().any() else "no intensity head", fontsize=10)
    rest.barh(lines, table["rest_called"], color=INACTIVE, height=0.62, label="called active")
    rest.scatter(table["rest_mean"], lines, color=ACTIVE, s=24, zorder=3, label="mean probability")
    rest.set_title("faces without an active AU", fontsize=10)
    low = np.nanmin(table[["auc", *(f"auc_{level}" for level in LEVELS)]].to_numpy())
    auc.set_xlim(max(0.0, min(0.5, np.floor(20 * low) / 20)), 1.01)
    for axes in (f1, strength, rest):
        axes.set_xlim(min(0.0, np.nanmin(table["icc"].fillna(0)) if axes is strength else 0.0), 1)
    f1.set_yticks(lines, [au_title(name) for name in table["au"]], fontsize=8)
    f1.invert_yaxis()
    for axes in (f1, auc, strength, rest):
        axes.axhline(count - 2.5, color="black", linewidth=0.8)
        axes.margins(y=0.01)
        axes.grid(axis="x", color="#D9DEE3", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if axes is not strength:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.045), fontsize=7, ncols=3, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def plot_groups(table: pd.DataFrame, title: str) -> Any:
    """A line a group: how well it is read, and how often it is called active wrongly."""
    figure = figure_class()(figsize=(9, 0.9 + 0.27 * len(table)), layout="constrained", dpi=130)
    quality, wrong = figure.subplots(1, 2, sharey=True)
    lines = np.arange(len(table))
    for axes, keys in ((quality, ("auc", "f1", "f1_always")), (wrong, ("recall", "false_alarms", "rest_mean"))):
        labels = {"auc": "AUC", "f1": "F1", "f1_always": "F1, always positive", "recall": "found of what is there"}
        labels |= {"false_alarms": "called active of what is not", "rest_mean": "probability where nothing is shown"}
        for key, colour, marker in zip(keys, (BOX, ACTIVE, INACTIVE), "osD", strict=True):
            axes.scatter(table[key], lines, color=colour, marker=marker, s=30, label=labels[key])
        axes.set_xlim(0, 1)
        axes.grid(axis="x", color="#D9DEE3", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.06), fontsize=8, ncols=1, frameon=False)
    parts = [f"{row.group}: {row.part} ({row.faces})".replace("all: all", "all") for row in table.itertuples()]
    quality.set_yticks(lines, parts, fontsize=8)
    quality.invert_yaxis()
    figure.suptitle(title, fontsize=10)
    return figure


def report(
    faces: KnownFaces, checkpoint: Checkpoint, out: Path, stem: str, what: str, remarks: list[str]
) -> pd.DataFrame:
    """Measure on these faces and write all files; the table of the action units."""
    answers = checkpoint(faces.images)
    units = unit_rows(faces, checkpoint, answers)
    groups = group_rows(faces, checkpoint, answers[0])
    people, calm = faces.traits["subject"].nunique(), int(at_rest(faces).sum())
    title = f"{what}: {len(faces):,} faces of {people} unseen people"
    levels = ["au", *(f"auc_{level}" for level in LEVELS), *(f"found_{level}" for level in LEVELS)]
    first = ["au", "active", "auc", "f1", "f1_at_half", "f1_always", "threshold", "icc", "calibration_error"]
    span = people_interval(faces, checkpoint, answers[0])
    mean = next(row for row in units.to_dict("records") if "BP4D" in row["au"])
    said = [f"{key.upper()} {mean[key]:.3f} ({span[key][0]:.3f} to {span[key][1]:.3f})" for key in ("auc", "f1")]
    lines = [
        f"Checkpoint of {checkpoint.described}. {len(faces):,} faces of {people} people; {calm} of the faces show no "
        f"action unit. Mean over BP4D's action units: {' and '.join(said)}, with 95 % intervals over people.",
        *remarks,
        "`f1` is taken at the checkpoint's own thresholds. `auc_A` sets the faces at level A against those without the "
        "action unit, `found_A` is the share of them that is called active. `rest_mean` and `rest_called` tell of the "
        "faces without an active one: mean probability, and share called active. Labels are what a face was told to "
        "do, visible or not.",
    ]
    tables = {
        "By action unit": units[first],
        "By level": units[levels],
        "Faces without an active action unit": units[["au", "rest_mean", "rest_called"]],
        "By group, means over BP4D's action units": groups,
    }
    write_table(out / f"{stem}.csv", units)
    write_table(out / f"{stem}-groups.csv", groups)
    write_page(out / f"{stem}.md", title, lines, tables, checkpoint.model.device.type)
    write_figure(out / f"{stem}.png", plot_units(units, title))
    write_figure(out / f"{stem}-groups.png", plot_groups(groups, f"{title}; means over BP4D's action units"))
    return units


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    faces: Annotated[Path | None, typer.Option(help="Folder of rendered faces of unseen people, in parquet.")] = None,
    model: Annotated[Path | None, typer.Option(help="ICT-FaceKit: FaceXModel, or its compact form.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    makehuman: Annotated[Path | None, typer.Option(help="Folder `data` of MakeHuman or MPFB.")] = None,
    people: Annotated[int, typer.Option(min=20, help="How many are drawn with --model and --makehuman.")] = 800,
    count: Annotated[int, typer.Option(min=0, help="How many of --faces are read; 0 takes all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    device: Annotated[str, typer.Option(help="What draws and reads.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 1,
):
    if faces is None and model is None and makehuman is None:
        raise typer.BadParameter("give --faces, --model, --makehuman, or several")
    torch.set_num_threads(threads)
    measured = Checkpoint(checkpoint, device)
    sets = {}
    if faces is not None:
        known = read_faces(faces, measured.names, measured.side, measured.template, count)
        mixed = read_record(checkpoint / "results.json").get("faces", {}).get("mixed in")
        seen = [f"Of the faces it was trained on, {mixed:,} are other people's by this same renderer."] if mixed else []
        sets["unseen-reference"] = (known, "Another renderer of the same face model", [*seen, REFERENCES])
    if model is not None:
        renderer = measured.renderer(model, device)
        known = draw_faces(renderer, unseen_scenes(renderer, people, seed), measured.names)
        sets["unseen-renders"] = (known, "The package's own renderer", [])
    if makehuman is not None:
        known = known_faces(MakeHuman(makehuman), measured.names, measured.side, measured.template, people, 2, seed)
        sets["unseen-makehuman"] = (known, "Another face model", [MAKEHUMAN])
        write_figure(out / "unseen-makehuman-faces.png", plot_faces(known, measured.names))
    for stem, (known, what, remarks) in sets.items():
        units = report(known, measured, out, stem, what, remarks)
        shown = ["au", "auc", "f1", "f1_at_half", "f1_always", "icc", "rest_mean", "rest_called"]
        print(f"{what}\n{units[shown].tail(2).to_string(index=False, float_format='%.3f')}\n", flush=True)


if __name__ == "__main__":
    typer.run(main)
