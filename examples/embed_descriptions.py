"""Embed a description bank with a sentence encoder, for models that are folded from the start.

    python examples/embed_descriptions.py --encoder sentence-transformers/all-MiniLM-L6-v2

The encoder may also be a folder. Sentences are embedded as all-MiniLM-L6-v2 asks: mean over tokens, unit length.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from hiva_hf.descriptions import DEFAULT_BANK, DEFAULT_EMBEDS, load_bank
from hiva_hf.files import whole_file


@torch.no_grad()
def main(
    encoder: Annotated[str, typer.Option(help="Hub id or folder of the encoder.")],
    name: Annotated[str, typer.Option(help="Name to record for it.")] = "sentence-transformers/all-MiniLM-L6-v2",
    bank: Annotated[Path, typer.Option(help="Description bank.")] = DEFAULT_BANK,
    out: Annotated[Path, typer.Option(help="File to write.")] = DEFAULT_EMBEDS,
):
    content = load_bank(bank)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    tensors = {}
    for au, texts in zip(content.descriptions, content.texts(), strict=True):
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        pooled = (states * mask).sum(1) / mask.sum(1)
        tensors[au] = torch.nn.functional.normalize(pooled, dim=-1)
    metadata = {"encoder": name, "bank_id": content.bank_id, "content_hash": content.content_hash}
    with whole_file(out) as partial:
        save_file(tensors, partial, metadata=metadata)
    print(f"{out}: {len(tensors)} action units, {tuple(tensors['AU1'].shape)} each, by {name}")


if __name__ == "__main__":
    typer.run(main)
