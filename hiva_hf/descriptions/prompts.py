"""Prompts for descriptions, as data: what a language model is asked, and what its answer must be like."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from ..facs import ACTION_UNITS, au_label, two_sided

DEFAULT_PROMPTS = Path(__file__).parent / "prompts_en_v1.json"
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


@dataclass(frozen=True)
class Prompts:
    """A versioned set of prompts.

    Args:
        prompt_version (`str`): Its name; a bank's provenance keeps it, with a hash of the content.
        language (`str`): BCP 47 code of the answers.
        system (`str`): What the language model is told to be.
        user (`str`): What it is asked; fields `name`, `muscles`, `region`, `aspect`, `hint`, `min_words`, `max_words`
            and `written`.
        nothing_written (`str`): `written` where nothing is.
        translate (`str`): What it is asked of a sentence that is there; fields `language` and `text`.
        aspects (`dict[str, str]`): What each kind of description looks at, in the order of asking.
        min_words, max_words (`int`): Length of an answer.
        common_words (`list[str]`): Words of which a sentence of the language has at least two.
        forbidden (`list[str]`): Regular expressions that no answer may match, whatever its case.
        regions (`dict[str, list[str]]`): Words of each region of the face, of which an answer has one.
    """

    prompt_version: str
    language: str
    system: str
    user: str
    nothing_written: str
    translate: str
    aspects: dict[str, str]
    min_words: int
    max_words: int
    common_words: list[str]
    forbidden: list[str]
    regions: dict[str, list[str]]

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Prompts":
        """Read a set of prompts.

        Args:
            path (`str` or `Path`, *optional*): A JSON file; by default the English one that is shipped.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a field is missing or unknown.
        """
        path = DEFAULT_PROMPTS if path is None else Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"`prompts` must be a JSON file; there is no file {path}.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**content)
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            known = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f"{path} must be a JSON object with the fields {known}; {error}.") from None

    @cached_property
    def content_hash(self) -> str:
        """`str`: 16 hexadecimal digits of the SHA-256 of the content."""
        return sha256(json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]

    def ask(self, au: str, aspect: str, written: Sequence[str]) -> list[dict[str, str]]:
        """Messages that ask for one description.

        Args:
            au (`str`): Action unit.
            aspect (`str`): One of `aspects`.
            written (`Sequence[str]`): Descriptions of this action unit that are there.
        """
        unit = ACTION_UNITS[two_sided(au_label(au))]
        text = self.user.format(
            name=unit.name,
            muscles=unit.muscles,
            region=unit.region,
            aspect=aspect,
            hint=self.aspects[aspect],
            min_words=self.min_words,
            max_words=self.max_words,
            written="\n".join(f"- {sentence}" for sentence in written) or self.nothing_written,
        )
        return [{"role": "system", "content": self.system}, {"role": "user", "content": text}]

    def ask_translation(self, text: str, language: str) -> list[dict[str, str]]:
        """Messages that ask for a description in another language."""
        user = self.translate.format(text=text, language=language)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]

    def problem(self, au: str, text: str) -> str | None:
        """What is wrong with a description, in a few words; `None` where it is good.

        Args:
            au (`str`): Action unit it is about.
            text (`str`): The description.
        """
        words = words_of(text)
        if not self.min_words <= len(words) <= self.max_words:
            return f"{len(words)} words, not {self.min_words} to {self.max_words}"
        if "\n" in text.strip():
            return "more than one line"
        if len(set(words) & set(self.common_words)) < 2:
            return f"not of the language {self.language}"
        for pattern in self.forbidden:
            if found := re.search(pattern, text, re.IGNORECASE):
                return f"says {found.group()!r}"
        region = ACTION_UNITS[two_sided(au_label(au))].region
        if not set(words) & set(self.regions[region]):
            return f"does not name the region of the {region}"
        return None


def words_of(text: str) -> list[str]:
    """Words of a text, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def overlap_of_words(first: str, second: str) -> float:
    """Share of the words of two texts that both have: intersection over union."""
    one, other = set(words_of(first)), set(words_of(second))
    return len(one & other) / max(len(one | other), 1)


def most_alike(text: str, others: Iterable[str]) -> float:
    """Largest [`overlap_of_words`] with any of several texts; 0 where there is none."""
    return max((overlap_of_words(text, other) for other in others), default=0.0)


def parse_answer(answer: str) -> str:
    """The sentence of a language model's answer.

    Args:
        answer (`str`): A JSON object with the field `text`; a code fence or words around it do no harm.

    Raises:
        ValueError: If there is none.
    """
    decoder = json.JSONDecoder()
    for brace in re.finditer(r"\{", answer):
        try:
            content, _ = decoder.raw_decode(answer, brace.start())
        except json.JSONDecodeError:
            continue
        if isinstance(content, dict) and isinstance(content.get("text"), str) and content["text"].strip():
            return " ".join(content["text"].split())
    raise ValueError("no JSON object with a text")


__all__ = ["DEFAULT_PROMPTS", "Prompts", "most_alike", "overlap_of_words", "parse_answer", "words_of"]
