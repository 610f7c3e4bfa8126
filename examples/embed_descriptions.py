"""Embed a description bank with a sentence encoder, for models that are folded from the start.

    python examples/embed_descriptions.py --encoder sentence-transformers/all-MiniLM-L6-v2
    python examples/embed_descriptions.py --encoder sentence-transformers/all-MiniLM-L6-v2 --names

The second embeds the names of the action units alone, which descriptions are compared with. The encoder may also be a
folder. Sentences are embedded as all-MiniLM-L6-v2 asks: mean over tokens, unit length.
"""

from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save_file

from hiva_hf.descriptions import DEFAULT_BANK, DEFAULT_EMBEDS, NAME_EMBEDS, SentenceEncoder, load_bank
from hiva_hf.files import whole_file


def main(
    encoder: Annotated[str, typer.Option(help="Hub id or folder of the encoder.")],
    name: Annotated[str, typer.Option(help="Name to record for it.")] = "sentence-transformers/all-MiniLM-L6-v2",
    bank: Annotated[Path, typer.Option(help="Description bank.")] = DEFAULT_BANK,
    names: Annotated[bool, typer.Option("--names", help="Embed the names, not the descriptions.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; by default the one that is shipped.")] = None,
):
    content = load_bank(bank).names_only() if names else load_bank(bank)
    out = out or (NAME_EMBEDS if names else DEFAULT_EMBEDS)
    embed = SentenceEncoder(encoder)
    tensors = {au: embed(texts) for au, texts in zip(content.descriptions, content.texts(), strict=True)}
    metadata = {"encoder": name, "bank_id": content.bank_id, "content_hash": content.content_hash}
    with whole_file(out) as partial:
        save_file(tensors, partial, metadata=metadata)
    print(f"{out}: {len(tensors)} action units, {tuple(tensors['AU1'].shape)} each, by {name}")


if __name__ == "__main__":
    typer.run(main)
