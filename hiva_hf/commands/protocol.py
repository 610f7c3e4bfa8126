"""What `hiva evaluate --protocol` does: train and test part by part, and write what a paper reports."""

from pathlib import Path

import typer

from .shared import cut_faces, quiet, write_text

_HEADINGS = {
    "sd_parts": "SD parts",
    "sd_seeds": "SD seeds",
    "low": "95 % from",
    "high": "to",
    "always_positive": "always positive",
}
_NOTE = "Below the mean, published ones; most chose the epoch on the tested people, which reports too much."


def run_protocol(
    protocol: str,
    root: Path,
    out: Path,
    *,
    seeds: list[int],
    rule: str,
    validation: float,
    workers: int,
    streaming: bool,
    **options,
) -> None:
    """Cross-validate a dataset and write tables and a picture into a folder; options are [`cross_validate`]'s."""
    from ..crossvalidation import cross_validate
    from ..data import au_names, protocol_folds
    from ..plotting import save_figure
    from ..plotting_protocol import plot_protocol
    from ..protocol_table import all_metrics, beside_published, summarise
    from ..terminal import print_protocol
    from ..terminal_training import show_epochs

    dataset = _faces(protocol, root, out, workers, streaming)
    names = au_names(dataset)
    chosen: str | int = int(protocol) if protocol.isdecimal() else protocol
    share = validation if rule == "validation" else 0.0
    folds = protocol_folds(dataset, chosen, validation=share, seed=0)
    _tell_parts(dataset, folds, protocol)
    runs = cross_validate(
        dataset,
        folds,
        out / "runs",
        seeds=seeds,
        rule=rule,  # type: ignore[arg-type]
        on_run=lambda run: typer.echo(f"{run.part}, seed {run.seed}: {len(run.labels):,} frames tested"),
        on_trainer=show_epochs,
        dataloader_num_workers=workers,
        **options,
        **quiet(),
    )
    table = summarise(runs, names)
    title = _title(chosen, len(folds), len(dataset), len(set(dataset["subject_id"])), seeds, rule)
    shown = beside_published(table, protocol)
    note = f"\n{_NOTE}\n" if len(shown) > len(table) else ""
    shown.to_csv(out / "f1.csv", index_label="au", float_format="%.2f")
    all_metrics(runs, names).to_csv(out / "metrics.csv", index=False, float_format="%.4f")
    write_text(out / "f1.md", f"{title}\n\n{_formatted(shown, 'github')}\n{note}", quiet=True)
    write_text(out / "f1.tex", f"% {title}\n{_ruled(_formatted(shown, 'latex_booktabs'))}\n", quiet=True)
    save_figure(plot_protocol(table, title, protocol), out / "f1.png")
    print_protocol(shown.rename(columns=_HEADINGS), title)
    typer.echo(note.strip() or f"Means are over {len(folds)} parts.")
    written = ("f1.csv", "f1.md", "f1.tex", "f1.png", "metrics.csv")
    typer.echo(f"Wrote {', '.join(str(out / name) for name in written)}")


def _title(protocol: str | int, parts: int, faces: int, people: int, seeds: list[int], rule: str) -> str:
    whose = "by subject" if isinstance(protocol, int) else f"of {protocol.upper()}"
    numbers = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"F1 in percent, {parts} parts {whose}: {faces:,} faces of {people} people, {numbers}, epoch by {rule}"


def _faces(protocol: str, root: Path, out: Path, workers: int, streaming: bool):
    """Prepared faces as they are; a dataset in its own layout is prepared first."""
    from .. import data

    read = data.stream_prepared if streaming else data.load_prepared
    if root.is_file() or (root.is_dir() and any(root.glob("*.parquet"))):
        return read(root)
    load = {"bp4d": data.load_bp4d, "disfa": data.load_disfa}.get(protocol, data.load_folder)
    faces = load(root)
    typer.echo(f"Cutting the faces of {root} out into {out / 'faces'}")
    cut_faces(faces, out / "faces", workers=max(workers, 1))
    return read(out / "faces")


def _tell_parts(dataset, folds, protocol: str) -> None:
    """Who is tested when, and whether the data are as complete as the published ones."""
    from collections import Counter

    from ..data.protocols import PROTOCOLS, PUBLISHED_FRAMES

    frames = Counter(dataset["subject_id"])
    for fold in folds:
        counted = sum(frames[name] for name in fold.test)
        beside = ""
        if protocol in PROTOCOLS:
            everyone, published = PROTOCOLS[protocol][fold.tested], PUBLISHED_FRAMES[protocol][fold.tested]
            beside = f"; published: {len(everyone)} people, {published:,} frames"
        typer.echo(f"{fold.tested}: {len(fold.test)} people, {counted:,} faces{beside}")


def _formatted(table, form: str) -> str:
    from tabulate import tabulate

    # to tabulate only None is missing
    shown = table.astype(object).where(table.notna(), None)
    shown = shown.rename(columns=_HEADINGS).rename_axis("AU").reset_index()
    # a column of which nothing is known would stand left
    sides = ["left"] + ["right"] * (shown.shape[1] - 1)
    return tabulate(
        shown, headers="keys", tablefmt=form, floatfmt=".1f", missingval="-", showindex=False, colalign=sides
    )


def _ruled(latex: str) -> str:
    """Lines of booktabs around the row of the mean; below the last row there is one already."""
    rows = latex.splitlines()
    (mean,) = (place for place, row in enumerate(rows) if row.split("&")[0].strip() == "mean")
    below = [] if rows[mean + 1].strip() == r"\bottomrule" else [r"\midrule"]
    return "\n".join([*rows[:mean], r"\midrule", rows[mean], *below, *rows[mean + 1 :]])
