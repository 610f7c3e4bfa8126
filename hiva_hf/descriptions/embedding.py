"""Descriptions as vectors, by a sentence encoder."""

from collections.abc import Callable, Sequence

import numpy as np
import torch


class SentenceEncoder:
    """A transformers text encoder; a sentence is the mean over its tokens, of unit length, as all-MiniLM-L6-v2 asks.

    Args:
        name (`str`): Hub id or folder.
        revision (`str`, *optional*): Branch, tag or commit.
    """

    def __init__(self, name: str, revision: str | None = None):
        from transformers import AutoModel, AutoTokenizer

        # the name may come from a checkpoint of others: no code of theirs runs, and no pickle is read
        kwargs = {"revision": revision, "trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(name, **kwargs)
        self.model = AutoModel.from_pretrained(name, use_safetensors=True, **kwargs).eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed sentences.

        Args:
            texts (`Sequence[str]`): Sentences.

        Returns:
            `torch.Tensor` of shape (num_texts, hidden_size).
        """
        inputs = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        states = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        pooled = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1)


def embedding_similarity(encoder: SentenceEncoder) -> Callable[[str, Sequence[str]], float]:
    """Cosine similarity for [`describe_aus`]: of a text with the most alike of others."""

    def similarity(text: str, others: Sequence[str]) -> float:
        first, *rest = encoder([text, *others])
        return float((torch.stack(rest) @ first).max())

    return similarity


def similarity_matrix(texts: Sequence[str], encoder: SentenceEncoder | None = None) -> np.ndarray:
    """How alike each two of several texts are.

    Args:
        texts (`Sequence[str]`): Descriptions.
        encoder (`SentenceEncoder`, *optional*): Cosine of its embeddings; by default the share of words in common.

    Returns:
        `np.ndarray` of shape (num_texts, num_texts), symmetric, 1 on its diagonal.
    """
    if encoder is not None:
        embeds = encoder(texts).numpy().astype(np.float64)
        return embeds @ embeds.T
    from sklearn.feature_extraction.text import CountVectorizer

    from .prompts import words_of

    has = CountVectorizer(analyzer=words_of, binary=True).fit_transform(texts).toarray().astype(float)
    both = has @ has.T
    sizes = has.sum(1)
    return both / (sizes[:, None] + sizes[None] - both)


__all__ = ["SentenceEncoder", "embedding_similarity", "similarity_matrix"]
