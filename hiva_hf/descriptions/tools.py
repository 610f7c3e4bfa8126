"""What can be done with banks: compare, join, check, and tell how diverse they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..facs import au_order
from .bank import DescriptionBank
from .embedding import SentenceEncoder, similarity_matrix
from .prompts import Prompts, overlap_of_words


@dataclass(frozen=True)
class BankDifference:
    """What one bank has and another has not.

    Args:
        removed (`dict[str, list[str]]`): Texts of the first alone, by action unit.
        added (`dict[str, list[str]]`): Texts of the second alone, by action unit.
    """

    removed: dict[str, list[str]]
    added: dict[str, list[str]]

    def __bool__(self) -> bool:
        return bool(self.removed or self.added)


def bank_texts(bank: DescriptionBank) -> dict[str, list[str]]:
    """Texts by action unit."""
    return {au: [item["text"] for item in entry["descriptions"]] for au, entry in bank.descriptions.items()}


def diff_banks(first: DescriptionBank, second: DescriptionBank) -> BankDifference:
    """Compare two banks text by text; the order of texts does not count."""
    one, other = bank_texts(first), bank_texts(second)

    def only(these: dict[str, list[str]], those: dict[str, list[str]]) -> dict[str, list[str]]:
        left = {au: [text for text in texts if text not in those.get(au, ())] for au, texts in these.items()}
        return {au: texts for au, texts in left.items() if texts}

    return BankDifference(only(one, other), only(other, one))


def merge_banks(banks: Sequence[DescriptionBank], bank_id: str, most_alike: float = 0.6) -> DescriptionBank:
    """All descriptions of several banks of one language; of two that are nearly alike, the first stays.

    Args:
        banks (`Sequence[DescriptionBank]`): At least two.
        bank_id (`str`): Name of the result.
        most_alike (`float`, defaults to 0.6): Share of words in common from which two descriptions of an action unit
            are one.

    Returns:
        [`DescriptionBank`], whose provenance holds that of each; its license is theirs, or all of them joined by AND.

    Raises:
        ValueError: If there are fewer than two, or their languages differ.
    """
    if len(banks) < 2 or len({bank.language for bank in banks}) != 1:
        languages = ", ".join(bank.language for bank in banks)
        raise ValueError(f"`banks` must be two or more of one language; got {languages or 'none'}.")
    entries: dict[str, dict] = {}
    for bank in banks:
        for au, entry in bank.descriptions.items():
            made = entries.setdefault(au, {**entry, "descriptions": []})
            for item in entry["descriptions"]:
                held = [other["text"] for other in made["descriptions"]]
                if all(overlap_of_words(item["text"], text) < most_alike for text in held):
                    made["descriptions"].append(item)
    aspects: dict[str, str] = {}
    for bank in reversed(banks):
        aspects |= bank.aspects
    licenses = list(dict.fromkeys(bank.license for bank in banks))
    ordered = {au: entries[au] for au in sorted(entries, key=au_order)}
    provenance = {"merged_from": {bank.identifier: bank.provenance for bank in banks}}
    return DescriptionBank(bank_id, banks[0].language, " AND ".join(licenses), provenance, aspects, ordered)


def bank_problems(bank: DescriptionBank, prompts: Prompts | None = None, most_alike: float = 0.6) -> list[str]:
    """What is wrong with the descriptions of a bank, a sentence each.

    Args:
        bank (`DescriptionBank`): To check.
        prompts (`Prompts`, *optional*): Whose rules hold; by default the English ones. Rules of another language than
            the bank's are left out.
        most_alike (`float`, defaults to 0.6): Share of words in common from which two descriptions are one.
    """
    prompts = prompts or Prompts.load()
    found = []
    for au, texts in bank_texts(bank).items():
        for place, text in enumerate(texts):
            problem = prompts.problem(au, text) if prompts.language == bank.language else None
            if problem is not None:
                found.append(f"{au} {place + 1}: {problem}")
            for before, other in enumerate(texts[:place]):
                if overlap_of_words(text, other) >= most_alike:
                    found.append(f"{au} {place + 1}: nearly the same as {before + 1}")
    return found


@dataclass(frozen=True)
class Diversity:
    """How alike the descriptions of a bank are.

    Args:
        names (`list[str]`): Action units.
        matrix (`np.ndarray` of shape `(num_labels, num_labels)`): Mean similarity of descriptions of two action units;
            on the diagonal of two different ones of the same.
    """

    names: list[str]
    matrix: np.ndarray

    @property
    def within(self) -> float:
        """`float`: Mean similarity of two descriptions of one action unit."""
        return float(np.nanmean(np.diag(self.matrix)))

    @property
    def across(self) -> float:
        """`float`: Mean similarity of two descriptions of different action units; NaN where there is only one."""
        others = self.matrix[~np.eye(len(self.names), dtype=bool)]
        return float(others.mean()) if others.size else float("nan")


def bank_diversity(bank: DescriptionBank, encoder: SentenceEncoder | None = None) -> Diversity:
    """Mean pairwise similarity within and across action units.

    Args:
        bank (`DescriptionBank`): Whose descriptions.
        encoder (`SentenceEncoder`, *optional*): See [`similarity_matrix`].
    """
    texts = bank_texts(bank)
    owner = np.repeat(np.arange(len(texts)), [len(group) for group in texts.values()])
    alike = similarity_matrix([text for group in texts.values() for text in group], encoder)
    np.fill_diagonal(alike, np.nan)
    matrix = np.full((len(texts), len(texts)), np.nan)
    for row in range(len(texts)):
        for column in range(len(texts)):
            block = alike[np.ix_(owner == row, owner == column)]
            if np.isfinite(block).any():
                matrix[row, column] = np.nanmean(block)
    return Diversity(list(texts), matrix)


__all__ = [
    "BankDifference",
    "Diversity",
    "bank_diversity",
    "bank_problems",
    "bank_texts",
    "diff_banks",
    "merge_banks",
]
