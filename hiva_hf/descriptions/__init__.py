"""Action unit descriptions: the shipped bank, its embeddings, reading one's own, and having one written."""

from .bank import DEFAULT_BANK, DEFAULT_EMBEDS, NAME_EMBEDS, DescriptionBank, load_bank, load_text_embeds
from .embedding import SentenceEncoder, embedding_similarity
from .generation import describe_aus, translate_bank
from .prompts import Prompts
from .tools import bank_diversity, bank_problems, diff_banks, merge_banks
from .writers import EndpointWriter, LocalWriter, Writer

__all__ = [
    "DEFAULT_BANK",
    "DEFAULT_EMBEDS",
    "NAME_EMBEDS",
    "DescriptionBank",
    "EndpointWriter",
    "LocalWriter",
    "Prompts",
    "SentenceEncoder",
    "Writer",
    "bank_diversity",
    "bank_problems",
    "describe_aus",
    "diff_banks",
    "embedding_similarity",
    "load_bank",
    "load_text_embeds",
    "merge_banks",
    "translate_bank",
]
