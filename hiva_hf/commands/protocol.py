"""What `hiva evaluate --protocol` does: train and test part by part, and write what a paper reports."""

from pathlib import Path

import typer

from .shared import cut_faces, quiet, write_text

_HEADINGS = {"mean": "mean", "sd_parts": "SD parts", "sd_seeds": "SD seeds", "low": "95 % from", "high": "to"}


def run_protocol(
    protocol: str,
    root: Path,
    out: Path,
    *,
    seeds: list[int],
    rule: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    workers: int,
    validation: float,
) -> None:
    """Cross-validate a dataset and write tables and a picture into a folder."""
    from ..crossvalidation import cross_validate, summarise
    from ..data import au_names, protocol_folds
    from ..plotting import save_figure
    from ..plotting_protocol import plot_protocol
    from ..terminal import print_protocol

    dataset = _faces(protocol, root, out, workers)
    names = au_names(dataset)
    chosen: str | int = int(protocol) if protocol.isdecimal() else protocol
    share = validation if rule == "validation" else 0.0
    folds = protocol_folds(dataset, chosen, validation=share, seed=0)
    runs = cross_validate(
        dataset,
        folds,
        out / "runs",
        seeds=seeds,
        rule=rule,  # type: ignore[arg-type]
        on_run=lambda run: typer.echo(f"{run.part}, seed {run.seed}: {len(run.labels)} frames"),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        dataloader_num_workers=workers,
        **quiet(),
    )
    table = summarise(runs, names)
    people = len(set(dataset["subject_id"]))
    title = (
        f"F1 in percent, {protocol}: {len(dataset)} faces of {people} people, {len(folds)} parts, seeds "
        f"{', '.join(map(str, seeds))}, epoch by {rule}"
    )
    table.to_csv(out / "f1.csv", index_label="au", float_format="%.2f")
    write_text(out / "f1.md", f"{title}\n\n{_formatted(table, 'github')}\n", quiet=True)
    write_text(out / "f1.tex", f"% {title}\n{_formatted(table, 'latex_booktabs')}\n", quiet=True)
    save_figure(plot_protocol(table, title, protocol), out / "f1.png")
    print_protocol(table, title, protocol)
    typer.echo(f"Wrote {', '.join(str(out / name) for name in ('f1.csv', 'f1.md', 'f1.tex', 'f1.png'))}")


def _faces(protocol: str, root: Path, out: Path, workers: int):
    """Prepared faces as they are; a dataset in its own layout is prepared first."""
    from .. import data

    if root.is_file() or (root.is_dir() and any(root.glob("*.parquet"))):
        return data.load_prepared(root)
    load = {"bp4d": data.load_bp4d, "disfa": data.load_disfa}.get(protocol, data.load_folder)
    faces = load(root)
    typer.echo(f"Cutting the faces of {root} out into {out / 'faces'}")
    cut_faces(faces, out / "faces", workers=workers)
    return data.load_prepared(out / "faces")


def _formatted(table, form: str) -> str:
    from tabulate import tabulate

    shown = table.rename(columns={**_HEADINGS, "always_positive": "always positive"}).rename_axis("AU").reset_index()
    return tabulate(shown, headers="keys", tablefmt=form, floatfmt=".1f", missingval="-", showindex=False)
