"""`hiva bank`."""

from pathlib import Path
from typing import Annotated

import typer

from .describe import BaseUrl, Hub, Model, PromptsFile, Seed, Temperature, writer_of

app = typer.Typer(help="Description banks: show, check, compare, join.", no_args_is_help=True, rich_markup_mode=None)
Bank = Annotated[Path | None, typer.Argument(help="A JSON file; by default the bank that is shipped.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="JSON file of the new bank.")]


@app.command()
def show(
    bank: Bank = None,
    aus: Annotated[str, typer.Option(help="Action units whose descriptions are printed, such as '1,2,4'.")] = "",
):
    """Tell where a bank comes from and what it describes."""
    from ..descriptions import load_bank
    from .shared import names

    content = load_bank(bank)
    typer.echo(f"{content.identifier}, language {content.language}, license {content.license}")
    for key, value in content.provenance.items():
        typer.echo(f"{key}: {value}")
    if not aus:
        for au, entry in content.descriptions.items():
            typer.echo(f"{au}, {entry.get('name', '')}: {len(entry['descriptions'])} descriptions")
        return
    for au, entry in content.select(names(aus)).descriptions.items():
        typer.echo(f"\n{au}, {entry.get('name', '')}")
        for item in entry["descriptions"]:
            typer.echo(f"  {item.get('aspect', '')}: {item['text']}")


@app.command()
def validate(bank: Bank = None, prompts: PromptsFile = None):
    """Hold every description to the rules. Exit code 3 where one breaks them."""
    from ..descriptions import Prompts, bank_problems, load_bank

    content = load_bank(bank)
    problems = bank_problems(content, Prompts.load(prompts))
    for problem in problems:
        typer.echo(problem)
    count = sum(len(entry["descriptions"]) for entry in content.descriptions.values())
    typer.echo(f"{content.identifier}: {count} descriptions, {len(problems)} problems")
    if problems:
        raise typer.Exit(3)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="A JSON file.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
):
    """Compare two banks. Exit code 3 where they differ."""
    from ..descriptions import diff_banks, load_bank

    difference = diff_banks(load_bank(first), load_bank(second))
    for sign, texts in (("-", difference.removed), ("+", difference.added)):
        for au, group in texts.items():
            for text in group:
                typer.echo(f"{sign} {au}: {text}")
    if difference:
        raise typer.Exit(3)
    typer.echo("No difference.")


@app.command()
def merge(
    banks: Annotated[list[Path], typer.Argument(help="Two or more JSON files.")],
    out: Out,
    bank_id: Annotated[str | None, typer.Option(help="Name of the new bank; by default that of the file.")] = None,
):
    """Join banks of one language; of two descriptions that are nearly alike the first stays."""
    from ..descriptions import load_bank, merge_banks

    _require_new(out)
    made = merge_banks([load_bank(path) for path in banks], bank_id or out.stem)
    made.save(out)
    counts = [len(entry["descriptions"]) for entry in made.descriptions.values()]
    typer.echo(f"Wrote {out}: {made.identifier}, {len(counts)} action units, {sum(counts)} descriptions")


@app.command()
def translate(
    bank: Annotated[Path, typer.Argument(help="A JSON file.")],
    to: Annotated[str, typer.Option(help="Language of the new bank, such as de.")],
    model: Model,
    out: Out,
    bank_id: Annotated[str | None, typer.Option(help="Name of the new bank; by default that of the file.")] = None,
    base_url: BaseUrl = None,
    hub: Hub = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a local model.")] = None,
    prompts: PromptsFile = None,
    seed: Seed = 0,
    temperature: Temperature = 0.3,
):
    """Have a language model translate a bank. Started again, it goes on where it was interrupted."""
    from ..descriptions import Prompts, load_bank, translate_bank
    from ..terminal import counting

    content = load_bank(bank)
    writer = writer_of(model, base_url, hub, revision, temperature)
    count = sum(len(entry["descriptions"]) for entry in content.descriptions.values())
    with counting("Translating", count) as tick:
        made = translate_bank(
            content,
            writer,
            out,
            to,
            bank_id=bank_id,
            prompts=Prompts.load(prompts),
            seed=seed,
            on_description=lambda done, total: tick(done),
        )
    typer.echo(f"Wrote {out}: {made.identifier}, {count} descriptions in {to}")


@app.command()
def diversity(
    bank: Bank = None,
    encoder: Annotated[
        str | None, typer.Option(help="Sentence encoder, Hub id or folder; by default words in common are counted.")
    ] = None,
    aus: Annotated[str, typer.Option(help="Of these action units, such as '1,2,4'; by default all.")] = "",
    plot: Annotated[Path | None, typer.Option(help="Heat map: .png, .pdf or .svg.")] = None,
):
    """Tell how alike the descriptions are, within an action unit and across."""
    from ..descriptions import SentenceEncoder, bank_diversity, load_bank
    from .shared import names

    content = load_bank(bank)
    if aus:
        content = content.select(names(aus))
    found = bank_diversity(content, None if encoder is None else SentenceEncoder(encoder))
    measure = "shared words" if encoder is None else f"cosine by {encoder}"
    for name, value in zip(found.names, found.matrix.diagonal(), strict=True):
        typer.echo(f"{name}: {value:.3f}")
    summary = f"{measure}: within {found.within:.3f}, across {found.across:.3f}"
    typer.echo(summary)
    if plot is not None:
        from ..plotting import save_figure
        from ..plotting_bank import plot_diversity

        save_figure(plot_diversity(found, f"{content.bank_id}, {summary}"), plot)
        typer.echo(f"Wrote {plot}")


def _require_new(out: Path) -> None:
    if out.exists():
        raise ValueError(f"`--out` must be new; {out} is there. Choose another file, or delete it.")
