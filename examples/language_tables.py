"""Tables and picture of the ablation grid: means over seeds, and differences paired by seed and person."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from hiva_hf.files import whole_file
from hiva_hf.plotting import ACTIVE, BOX, INACTIVE, figure_class

# no deviation, and no interval
ONE_SEED = "(one seed)"
LEGEND = (
    "Mean and standard deviation over seeds, on {people} people whom no training saw; the shares are of the people who "
    "are trained on. AUC within a person: of each tested person alone, then the mean. Differences are of that, paired "
    "by seed and person, with 95 % intervals for other seeds and people, each for itself: of twenty such, one is "
    "expected to leave out 0 by chance."
)
# what is claimed of language, as pairs of rows
COMPARISONS = [
    ("full", "visual only"),
    ("full", "random text"),
    ("full", "full, names"),
    ("+ graph", "visual only"),
    ("+ names", "+ graph"),
    ("+ descriptions", "+ names"),
    ("+ DDCA", "+ descriptions"),
    ("+ CDCA", "+ descriptions"),
    ("full", "+ DDCA"),
    ("full", "+ CDCA"),
    ("full, linear head", "visual only"),
    ("full, alignment loss", "full"),
    ("full, learned pooling", "full"),
    ("full, two descriptions a step", "full"),
    ("full, generated projection", "full"),
    ("full, new text tower", "full"),
    ("full, sentence encoder with LoRA", "full"),
]


def paired(table: pd.DataFrame, fraction: float, row: str, other: str) -> dict | None:
    """How much more AUC a row has than another, on the same people by models of the same seed.

    The 95 % interval is for other people and other seeds: both are random effects of a two-way table, its degrees of
    freedom are Satterthwaite's. Of three simulated seeds and 32 people it held the truth in 92 to 99 of 100 cases,
    whatever differed more; with so few seeds it is wide.
    """
    seen = table[(table["fraction"] == fraction) & (table["subject"] != "all")]
    grids = [seen[seen["row"] == name].pivot_table("auc", "seed", "subject") for name in (row, other)]
    seeds = grids[0].index.intersection(grids[1].index)
    if seeds.empty:
        return None
    # of a person who shows every action unit always or never, nothing is ranked
    differences = (grids[0].loc[seeds] - grids[1].loc[seeds]).dropna(axis=1).to_numpy()
    low, high = two_way_interval(differences)
    return {
        "fraction": fraction, "row": row, "minus": other, "difference": differences.mean(), "low": low, "high": high,
        "seeds": len(seeds), "people": differences.shape[1],
    }  # fmt: skip


def two_way_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of a table in which rows and columns are both random.

    Args:
        values (`np.ndarray` of shape `(num_seeds, num_people)`): One value each.
        level (`float`, defaults to 0.95): How often it is to hold the truth.

    Returns:
        `tuple[float, float]`: NaN where there is one row or one column only.
    """
    rows, columns = values.shape
    if min(rows, columns) < 2:
        return np.nan, np.nan
    mean, by_row, by_column = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    freedom = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    rest = values - by_row - by_column + mean
    squares = np.array(
        [columns * ((by_row - mean) ** 2).sum(), rows * ((by_column - mean) ** 2).sum(), (rest**2).sum()]
    )
    squares /= freedom
    # a variance between rows or columns below 0 is chance, and none
    total = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])
    degrees = max(total**2 / (squares**2 / freedom).sum(), 1) if total > 0 else 1
    half = stats.t.ppf((1 + level) / 2, degrees) * np.sqrt(total / values.size)
    return mean - half, mean + half


def write_summary(table: pd.DataFrame, out: Path, grid: Sequence[str], study: Sequence[str]) -> None:
    """Write `means.csv`, `differences.csv`, `tables.md` and `language.png` of all runs there are.

    Args:
        table (`pd.DataFrame`): Columns `fraction`, `row`, `seed`, `subject`, `auc`, `f1`; `subject` is `all` where
            the figures are those of all tested people together.
        out (`Path`): Folder.
        grid (`Sequence[str]`): Rows of the grid, in the order of the tables.
        study (`Sequence[str]`): Further rows.
    """
    if table.empty:
        return
    whole = table[table["subject"] == "all"]
    within = table[table["subject"] != "all"].groupby(["fraction", "row", "seed"])["auc"].mean().rename("auc_within")
    runs = whole.set_index(["fraction", "row", "seed"])[["auc", "f1"]].join(within)
    means = runs.groupby(["fraction", "row"]).agg(["mean", "std", "count"])
    fractions = sorted(table["fraction"].unique())
    against = {(name, "visual only"): None for name in [*grid, *study] if name != "visual only"}
    pairs = dict.fromkeys([*COMPARISONS, *against])
    found = [paired(table, fraction, *pair) for fraction in fractions for pair in pairs]
    differences = pd.DataFrame([difference for difference in found if difference])
    flat = means.copy()
    flat.columns = ["_".join(name) for name in flat.columns]
    for name, frame in {"means.csv": flat.reset_index(), "differences.csv": differences}.items():
        with whole_file(out / name) as partial:
            frame.to_csv(partial, index=False, float_format="%.4f")
    people = table.loc[table["subject"] != "all", "subject"].nunique()
    text = [
        LEGEND.format(people=people),
        _means_table(means, fractions, [*grid, *study]),
        _difference_table(differences, fractions),
    ]
    with whole_file(out / "tables.md") as partial:
        partial.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    with whole_file(out / "language.png") as partial:
        _figure(runs, differences, fractions, [*grid, *study]).savefig(partial)


def _share(fraction: float) -> str:
    return f"{fraction:.0%}".replace("%", " %")


def _means_table(means: pd.DataFrame, fractions: Sequence[float], names: Sequence[str]) -> str:
    """AUC and F1 of each row, mean and deviation over seeds."""
    columns = [(fraction, metric) for fraction in fractions for metric in ("auc_within", "auc", "f1")]
    heads = {"auc_within": "AUC within a person", "auc": "AUC", "f1": "F1"}
    lines = [
        "| row | " + " | ".join(f"{_share(fraction)}: {heads[metric]}" for fraction, metric in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name in names:
        cells = []
        for fraction, metric in columns:
            if (fraction, name) not in means.index:
                cells.append("")
                continue
            mean, deviation, _ = means.loc[(fraction, name), metric]
            cells.append(f"{mean:.3f}" + (f" {ONE_SEED}" if np.isnan(deviation) else f" ± {deviation:.3f}"))
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference_table(differences: pd.DataFrame, fractions: Sequence[float]) -> str:
    """Differences of the AUC within a person, with their 95 % intervals, each for itself; bold where 0 is outside."""
    lines = ["| row | minus | " + " | ".join(map(_share, fractions)) + " |", "|---|---|" + "---|" * len(fractions)]
    for pair in COMPARISONS:
        rows = differences[(differences["row"] == pair[0]) & (differences["minus"] == pair[1])].set_index("fraction")
        cells = []
        for fraction in fractions:
            if fraction not in rows.index:
                cells.append("")
                continue
            one = rows.loc[fraction]
            interval = ONE_SEED if np.isnan(one["low"]) else f"[{one['low']:+.3f}, {one['high']:+.3f}]"
            cell = f"{one['difference']:+.3f} {interval}"
            cells.append(f"**{cell}**" if one["low"] * one["high"] > 0 else cell)
        if any(cells):
            lines.append(f"| {pair[0]} | {pair[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(runs: pd.DataFrame, differences: pd.DataFrame, fractions: Sequence[float], names: Sequence[str]):
    """How much more than the visual row, by fraction, with its interval; ticks are seeds."""
    done = set(runs.index.get_level_values("row"))
    names = [name for name in names if name != "visual only" and name in done]
    figure = figure_class()(
        figsize=(3.3 * len(fractions) + 2.6, 0.33 * len(names) + 1.6), layout="constrained", dpi=130
    )
    columns = figure.subplots(1, len(fractions), sharex=True, sharey=True, squeeze=False)[0]
    places = np.arange(len(names))[::-1]
    for axes, fraction in zip(columns, fractions, strict=True):
        scores = runs["auc_within"].xs(fraction, level="fraction").unstack("seed")
        axes.axvline(0, color=INACTIVE, linewidth=1)
        for place, name in zip(places, names, strict=True):
            if name not in scores.index or "visual only" not in scores.index:
                continue
            each = (scores.loc[name] - scores.loc["visual only"]).dropna()
            one = differences[
                (differences["fraction"] == fraction)
                & (differences["row"] == name)
                & (differences["minus"] == "visual only")
            ]
            colour = ACTIVE if name == "full" else INACTIVE if name == "random text" else BOX
            axes.plot(each, np.full(len(each), place), "|", color="black", markersize=9, zorder=3)
            if len(one):
                axes.hlines(place, one["low"], one["high"], color=colour, linewidth=2)
                axes.plot(one["difference"], [place], "o", color=colour, markersize=6)
        base = scores.loc["visual only"].mean() if "visual only" in scores.index else np.nan
        axes.set_title(f"{_share(fraction)} of the people (visual only: {base:.3f})", fontsize=9, loc="left")
        axes.set_xlabel("AUC within a person, more than visual only", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    columns[0].set_yticks(places, names, fontsize=8)
    return figure
