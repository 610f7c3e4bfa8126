"""`hiva describe`."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="Chat model: a Hub id, a folder, or its name behind --base-url.")]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        help="Server that speaks the chat-completions protocol; default: OPENAI_BASE_URL. Token: OPENAI_API_KEY."
    ),
]
Hub = Annotated[bool, typer.Option("--hub", help="Ask the Hub's inference providers, with the token of HF_TOKEN.")]
PromptsFile = Annotated[
    Path | None, typer.Option("--prompts", help="Prompts of your own, a JSON file; by default the English ones.")
]
Seed = Annotated[int, typer.Option(help="Seed of all answers.")]
Temperature = Annotated[float, typer.Option(min=0, help="How freely the model writes; 0 takes the likeliest words.")]


def describe(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file of the bank.")],
    aus: Annotated[str, typer.Option(help="Action units, such as '1,2,4' or 1 2 4.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[AU]...", help="Further action units of --aus.")] = None,
    num_descriptions: Annotated[int, typer.Option(min=1, help="Descriptions an action unit.")] = 8,
    base_url: BaseUrl = None,
    hub: Hub = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a local model.")] = None,
    prompts: PromptsFile = None,
    bank_id: Annotated[str | None, typer.Option(help="Name of the bank; by default that of the file.")] = None,
    license: Annotated[str, typer.Option(help="SPDX identifier that the model's terms allow.")] = "unknown",
    encoder: Annotated[
        str | None, typer.Option(help="Sentence encoder, Hub id or folder, that refuses what means the same.")
    ] = None,
    seed: Seed = 0,
    temperature: Temperature = 0.8,
):
    """Have a language model describe action units. Started again, it goes on where it was interrupted.

    Every answer is checked (length, language, region of the face, duplicates) and asked for again where it is refused.
    """
    from ..descriptions import Prompts, SentenceEncoder, describe_aus, embedding_similarity
    from ..facs import au_label
    from ..terminal import counting
    from .shared import names

    wanted = [au_label(name) for name in names(",".join([*aus.replace(" ", ",").split(","), *(more or [])]))]
    writer = writer_of(model, base_url, hub, revision, temperature)
    similarity = None if encoder is None else embedding_similarity(SentenceEncoder(encoder))
    with counting("Describing", len(set(wanted)) * num_descriptions) as tick:
        bank = describe_aus(
            wanted,
            writer,
            out,
            num_descriptions=num_descriptions,
            prompts=Prompts.load(prompts),
            bank_id=bank_id,
            license=license,
            seed=seed,
            similarity=similarity,
            on_description=lambda done, total: tick(done),
        )
    refused = sum(bank.provenance["rejected_answers"].values())
    typer.echo(f"Wrote {out}: {bank.identifier}, {len(bank.descriptions)} action units; {refused} answers were refused")


def writer_of(model: str, base_url: str | None, hub: bool, revision: str | None, temperature: float):
    """What answers: a server where there is an address, else a model on this machine."""
    import os

    from ..descriptions import EndpointWriter, LocalWriter

    if hub or base_url or os.environ.get("OPENAI_BASE_URL"):
        return EndpointWriter(model, base_url=base_url, temperature=temperature)
    return LocalWriter(model, revision=revision, temperature=temperature)
