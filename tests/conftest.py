"""What several test files share: tiny models from configuration, and no network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pyarrow.parquet as pq
import pytest
import torch
from command import crops, data, hiva, home, place, trained, verbosity  # noqa: F401
from render_model import model_file  # noqa: F401

from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.descriptions import load_bank, load_text_embeds
from hiva_hf.presets import bank_tokenizer

AUS = ("AU1", "AU4", "AU12")
SIDE = 32
SWIN = {
    "model_type": "swin",
    "image_size": SIDE,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
FUSION = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "graph_top_k": 1}


def text_config(vocab_size: int = 300) -> dict:
    return {
        "model_type": "bert",
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
    }


@pytest.fixture(scope="session")
def bank():
    return load_bank().select(AUS)


@pytest.fixture(scope="session")
def tokenizer():
    return bank_tokenizer(load_bank(), vocab_size=300)


@pytest.fixture
def processor(bank, tokenizer):
    image_processor = HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return HiVAProcessor(image_processor, tokenizer, bank.to_dict())


@pytest.fixture
def make_model(processor):
    """Builds a tiny detector with a text tower that holds the bank's descriptions."""

    def build(**fields) -> HiVAForImageClassification:
        torch.manual_seed(0)
        config = HiVAConfig(
            **{
                "vision_config": SWIN,
                "text_config": text_config(len(processor.tokenizer)),
                "id2label": dict(enumerate(AUS)),
                **FUSION,
                **fields,
            }
        )
        model = HiVAForImageClassification(config)
        if model.hiva.text_model is not None:
            model.set_descriptions(**processor.tokenize_descriptions(num_descriptions=2))
        return model.eval()

    return build


@pytest.fixture
def make_folded():
    """Builds a tiny detector that is folded from the start."""

    def build(**fields) -> HiVAForImageClassification:
        torch.manual_seed(0)
        embeds, encoder = load_text_embeds(AUS)
        base = {"text_folded": True, "text_embed_dim": embeds.shape[-1], "id2label": dict(enumerate(AUS))}
        model = HiVAForImageClassification(HiVAConfig(**{"vision_config": SWIN, **base, **FUSION, **fields}))
        model.set_text_embeds(embeds, encoder=encoder, bank="facs-en-v1")
        return model.eval()

    return build


@pytest.fixture
def pixel_values():
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Faces in four files."""
    folder = tmp_path_factory.mktemp("shards")
    table = pq.read_table(SAMPLE_FILE).slice(0, 64)
    for shard in range(4):
        pq.write_table(table.slice(16 * shard, 16), folder / f"faces-{shard:05d}.parquet")
    return folder
