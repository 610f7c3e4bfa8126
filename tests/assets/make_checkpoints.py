"""Makes the two tiny checkpoints that every later version must still read: `python tests/assets/make_checkpoints.py`.

Run once for each version that is released, before its release; what is there is never made again. Beside each
checkpoint lies its code, as `save_pretrained` writes it, and `expected.safetensors` with pictures (uint8) and logits.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAProcessor, __version__
from hiva_hf.descriptions import load_bank
from hiva_hf.presets import bank_tokenizer
from hiva_hf.training import save_detector

HERE = Path(__file__).parent
AUS = ["AU12", "AU4", "AU6"]
SIDE, DESCRIPTIONS = 16, 2
VISION = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 4,
    "hidden_sizes": [4, 8],
    "depths": [1, 1],
}
FUSION = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "graph_top_k": 2}


def make(folder: Path, kind: str) -> None:
    """A detector with weights that are drawn, not trained, and its answer for two pictures of noise."""
    torch.manual_seed(0)
    bank = load_bank().select(AUS)
    # small enough for a repository: the texts that it is asked to read, and no more
    tokenizer = bank_tokenizer(bank, vocab_size=120) if kind == "text" else None
    fields = {"text_folded": True, "text_embed_dim": 8} if tokenizer is None else {"text_config": text_tower(tokenizer)}
    model = HiVAForImageClassification(
        HiVAConfig(
            vision_config=VISION,
            id2label=dict(enumerate(AUS)),
            num_descriptions=DESCRIPTIONS,
            calibration_temperatures=[1.5, 0.8, 1.0],
            calibration_biases=[0.25, -0.5, 0.0],
            **FUSION,
            **fields,
        )
    )
    # of new weights, biases are zero and norms do nothing: an answer must hang on every one of them
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not name.endswith("running_var"):
            value.add_(torch.randn_like(value) * 0.3)
    processor = HiVAProcessor(
        HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        bank.to_dict(),
        thresholds={"AU12": 0.75},
    )
    if tokenizer is None:
        model.set_text_embeds(torch.randn(len(AUS), DESCRIPTIONS, 8), encoder="org/encoder", bank=bank.identifier)
    else:
        model.set_descriptions(**processor.tokenize_descriptions(num_descriptions=DESCRIPTIONS))
    # pooling leaves nothing of two noises: one is dark, and one is brighter to the right
    pictures = torch.randint(0, 64, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    pictures[1] += torch.linspace(0, 190, SIDE).byte()
    with torch.inference_mode():
        logits = model.eval()(pictures / 255).logits
    save_detector(model, processor, folder)
    save_file({"pictures": pictures, "logits": logits}, folder / "expected.safetensors")


def text_tower(tokenizer) -> dict:
    """A BERT of one layer."""
    return {
        "model_type": "bert",
        "vocab_size": len(tokenizer),
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 96,
        "pad_token_id": tokenizer.pad_token_id,
    }


if __name__ == "__main__":
    place = HERE / __version__
    if place.exists():
        sys.exit(f"{place} is there, and what was released is never made again.")
    for name in ("folded", "text"):
        make(place / name, name)
