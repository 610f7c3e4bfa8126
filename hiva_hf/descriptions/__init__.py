"""Action unit descriptions: the shipped bank, its embeddings, and reading one's own."""

from .bank import DEFAULT_BANK, DEFAULT_EMBEDS, DescriptionBank, load_bank, load_text_embeds

__all__ = ["DEFAULT_BANK", "DEFAULT_EMBEDS", "DescriptionBank", "load_bank", "load_text_embeds"]
