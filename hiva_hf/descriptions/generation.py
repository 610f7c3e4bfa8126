"""A description bank written by a language model: asked, checked, asked again, and resumed where it was interrupted."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from .._version import __version__
from ..facs import ACTION_UNITS, au_label, au_meaning, two_sided
from ..files import alone, whole_file
from .bank import DescriptionBank
from .prompts import Prompts, most_alike, parse_answer
from .writers import Writer

# of two descriptions of one action unit, and of two
_MOST_ALIKE, _MOST_ALIKE_ACROSS = 0.6, 0.8
TRIES = 5


@dataclass
class _Progress:
    """What is written so far: a line a description, whole or not at all.

    Args:
        path (`Path`): The file; its first line holds the settings.
        settings (`dict`): What must be the same when a run goes on.
        written (`list[dict]`): `au`, `aspect` and `text`.
        rejected (`Counter`): Why answers were refused, and how many.
    """

    path: Path
    settings: dict
    written: list[dict] = field(default_factory=list)
    rejected: Counter = field(default_factory=Counter)
    file: TextIO | None = None

    def read(self) -> None:
        """Take over what an interrupted run has written.

        Raises:
            ValueError: If it had other settings.
        """
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").split("\n")
        # what follows the last line end was cut off by a kill
        rows = [json.loads(line) for line in lines[:-1]]
        if not rows:
            return
        changed = [key for key in self.settings if rows[0].get(key) != self.settings[key]]
        if changed:
            raise ValueError(
                f"`out` must be new or go on with the same settings; {self.path} was begun with other "
                f"{', '.join(changed)}. Repeat the first command, choose another file, or delete it."
            )
        for row in rows[1:]:
            if "rejected" in row:
                self.rejected[row["rejected"]] += 1
            else:
                self.written.append(row)

    def begin(self) -> None:
        """Open the file for more, with its settings in front; a half line is dropped."""
        with whole_file(self.path) as partial, partial.open("w", encoding="utf-8") as file:
            rejected = [{"rejected": reason} for reason in self.rejected.elements()]
            for row in [self.settings, *self.written, *rejected]:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file = self.path.open("a", encoding="utf-8")

    def add(self, row: dict) -> None:
        """Write a row so that a kill does not lose it."""
        assert self.file is not None
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        if "rejected" in row:
            self.rejected[row["rejected"]] += 1
        else:
            self.written.append(row)

    def texts(self, au: str) -> list[str]:
        """Descriptions of an action unit."""
        return [row["text"] for row in self.written if row["au"] == au]


def describe_aus(
    aus: Sequence[str | int],
    writer: Writer,
    out: str | Path,
    *,
    num_descriptions: int = 8,
    prompts: Prompts | None = None,
    bank_id: str | None = None,
    license: str = "unknown",
    seed: int = 0,
    similarity: Callable[[str, Sequence[str]], float] | None = None,
    on_description: Callable[[int, int], object] | None = None,
) -> DescriptionBank:
    """Have a language model describe action units, and write the bank.

    Each description is asked for on its own, one aspect after the other, with those that are there so that it differs.
    An answer that is no JSON, too short or too long, of another language, of another region of the face, forbidden or
    nearly what is there already is refused and asked for again with another seed.

    Args:
        aus (`Sequence`): Action units.
        writer (`Writer`): [`LocalWriter`] or [`EndpointWriter`].
        out (`str` or `Path`): JSON file of the bank. What is accepted is kept beside it at once; an interrupted call
            goes on there.
        num_descriptions (`int`, defaults to 8): How many an action unit.
        prompts (`Prompts`, *optional*): By default the English ones.
        bank_id (`str`, *optional*): By default the name of the file.
        license (`str`, defaults to `"unknown"`): SPDX identifier; what the model's terms allow.
        seed (`int`, defaults to 0): Of all answers.
        similarity (`Callable`, *optional*): From a text and others to the largest similarity with them, see
            [`embedding_similarity`]; refuses above .95. By default shared words alone decide.
        on_description (`Callable`, *optional*): Told after each how many are there, and how many there will be.

    Returns:
        [`DescriptionBank`]

    Raises:
        ValueError: If an AU is unknown, `out` holds something else, or the model gives no good answer in five tries.
    """
    labels = list(dict.fromkeys(au_label(au) for au in aus))
    if not labels or num_descriptions < 1:
        raise ValueError(f"`aus` and `num_descriptions` must ask for something; got {labels} and {num_descriptions}.")
    prompts = prompts or Prompts.load()
    aspects = list(prompts.aspects)
    wanted = [(au, aspects[number % len(aspects)], number) for au in labels for number in range(num_descriptions)]
    settings = {**_settings(writer, prompts, seed), "aus": labels, "num_descriptions": num_descriptions}

    def ask(progress: _Progress, place: int) -> dict:
        au, aspect, number = wanted[place]
        written = progress.texts(au)

        def refuse(text: str) -> str | None:
            problem = prompts.problem(au, text)
            if problem is not None:
                return problem
            if most_alike(text, written) >= _MOST_ALIKE:
                return "nearly what is there already"
            others = [row["text"] for row in progress.written if row["au"] != au]
            if most_alike(text, others) >= _MOST_ALIKE_ACROSS:
                return "nearly what another action unit has"
            if similarity is not None and written and similarity(text, written) >= 0.95:
                return "means what is there already"
            return None

        what = f"{au} ({au_meaning(au)}), {aspect}"
        text = _good_answer(writer, prompts.ask(au, aspect, written), seed + 1000 * place, refuse, progress, what)
        return {"au": au, "aspect": aspect, "number": number, "text": text}

    out = Path(out)
    with _resumed(out, settings) as progress:
        for place in range(len(progress.written), len(wanted)):
            progress.add(ask(progress, place))
            if on_description is not None:
                on_description(place + 1, len(wanted))
        entries = {
            au: {
                "name": ACTION_UNITS[two_sided(au)].name,
                "descriptions": [
                    {"aspect": row["aspect"], "text": row["text"]} for row in progress.written if row["au"] == au
                ],
            }
            for au in labels
        }
        provenance = _provenance(writer, prompts, seed, progress.rejected)
        bank = DescriptionBank(bank_id or out.stem, prompts.language, license, provenance, prompts.aspects, entries)
        bank.save(out)
    return bank


def translate_bank(
    bank: DescriptionBank,
    writer: Writer,
    out: str | Path,
    language: str,
    *,
    bank_id: str | None = None,
    prompts: Prompts | None = None,
    seed: int = 0,
    on_description: Callable[[int, int], object] | None = None,
) -> DescriptionBank:
    """Have a language model translate a bank, sentence by sentence.

    Args:
        bank (`DescriptionBank`): What to translate; license and aspects stay.
        writer (`Writer`): As of [`describe_aus`], like `out`, `seed` and `on_description`.
        out (`str` or `Path`): JSON file of the new bank.
        language (`str`): BCP 47 code of the new one.
        bank_id (`str`, *optional*): By default the name of the file.
        prompts (`Prompts`, *optional*): Its `translate` asks. Only where its language is `language` are answers held to
            its rules; else an answer must be one sentence that is not the old one.
        seed (`int`, defaults to 0): Of all answers.
        on_description (`Callable`, *optional*): Told after each how many are there, and how many there will be.

    Returns:
        [`DescriptionBank`], whose provenance names the bank it was made from.
    """
    prompts = prompts or Prompts.load()
    rows = [(au, item) for au, entry in bank.descriptions.items() for item in entry["descriptions"]]
    settings = {**_settings(writer, prompts, seed), "bank": bank.identifier, "language": language}
    out = Path(out)
    with _resumed(out, settings) as progress:
        for place in range(len(progress.written), len(rows)):
            au, item = rows[place]

            def refuse(text: str, au: str = au, before: str = item["text"]) -> str | None:
                if text == before:
                    return "not translated"
                return prompts.problem(au, text) if prompts.language == language else None

            messages = prompts.ask_translation(item["text"], language)
            what = f"{au}, {item['text'][:40]!r}"
            text = _good_answer(writer, messages, seed + 1000 * place, refuse, progress, what)
            progress.add({"au": au, "aspect": item.get("aspect"), "text": text})
            if on_description is not None:
                on_description(place + 1, len(rows))
        entries = {
            au: {
                **entry,
                "descriptions": [
                    {"aspect": row["aspect"], "text": row["text"]} for row in progress.written if row["au"] == au
                ],
            }
            for au, entry in bank.descriptions.items()
        }
        provenance = {
            **_provenance(writer, prompts, seed, progress.rejected),
            "translated_from": bank.identifier,
            "original": bank.provenance,
        }
        made = DescriptionBank(bank_id or out.stem, language, bank.license, provenance, bank.aspects, entries)
        made.save(out)
    return made


def _settings(writer: Writer, prompts: Prompts, seed: int) -> dict[str, Any]:
    return {"writer": writer.provenance, "prompts": f"{prompts.prompt_version}@{prompts.content_hash}", "seed": seed}


def _provenance(writer: Writer, prompts: Prompts, seed: int, rejected: Counter) -> dict[str, Any]:
    return {
        **writer.provenance,
        "prompt_version": prompts.prompt_version,
        "prompt_hash": prompts.content_hash,
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
        "rejected_answers": dict(sorted(rejected.items())),
        "made_with": f"hiva_hf {__version__}",
        "review": "checked by rules; not reviewed by a certified FACS coder",
    }


def _good_answer(writer: Writer, messages, seed: int, refuse, progress: _Progress, what: str) -> str:
    """The first answer that is not refused."""
    reasons = []
    for attempt in range(TRIES):
        answer = writer(messages, seed + attempt)
        try:
            text = parse_answer(answer)
            problem = refuse(text)
        except ValueError as error:
            text, problem = answer, str(error)
        if problem is None:
            return text
        reasons.append(f"{problem} ({' '.join(text.split())[:60]!r})")
        progress.add({"rejected": problem})
    raise ValueError(
        f"The language model must describe {what}; none of {TRIES} answers was good: {'; '.join(reasons)}. What is "
        "written so far is kept: run it again with another seed or a larger model."
    )


@contextmanager
def _resumed(out: Path, settings: dict) -> Iterator[_Progress]:
    """Progress of a bank's file, which is there when the block ends without an error."""
    if out.suffix.lower() != ".json":
        raise ValueError(f"`out` must end in .json; got {out}.")
    state = out.with_name(f".{out.name}.progress")
    if out.exists() and not state.exists():
        raise ValueError(f"`out` must be new; {out} is there. Choose another file, or delete it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    progress = _Progress(state, settings)
    with alone(out.with_name(f".{out.name}.lock"), out):
        try:
            progress.read()
            progress.begin()
            yield progress
            state.unlink()
        finally:
            if progress.file is not None:
                progress.file.close()


__all__ = ["TRIES", "describe_aus", "translate_bank"]
