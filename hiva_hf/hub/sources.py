"""Where data comes from: what is known of a dataset's licence, its terms, and the consent of its people."""

import json
import re
from collections.abc import Iterable
from functools import cache

from .measured import MISSING, RENDERED, card_file, named_base

# what loaders write where they do not know whose faces they are
_NAMELESS = "folder"


@cache
def known_datasets() -> dict[str, dict]:
    """By name what is known of it, as `datasets.json` tells."""
    return json.loads(card_file("datasets.json").read_text(encoding="utf-8"))


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.casefold())


def usual_name(name: str) -> str:
    """A dataset's name as `datasets.json` writes it, whatever its case, signs or alias; unknown ones as they are."""
    for usual, entry in known_datasets().items():
        if _key(name) in {_key(usual), *map(_key, entry.get("aliases", []))}:
            return usual
    return name.strip()


def licensed_in(text: str) -> list[str]:
    """Datasets named anywhere in a text whose images and labels must not be passed on."""
    parts = re.split(r"[\s/\\,;:()_]+", text)
    words, found = {_key(word) for part in parts for word in (part, *part.split("-"))}, []
    for usual, entry in known_datasets().items():
        keys = {_key(usual), *map(_key, entry.get("aliases", []))}
        if entry["licensed"] and (keys & words or _key(text) in keys):
            found.append(usual)
    return found


def joined_names(found: Iterable[str], told: Iterable[str] | None) -> list[str]:
    """Names that data tells, and those its owner tells, who alone knows what a folder of images is."""
    told = [usual_name(name) for name in told or ()]
    found = [usual_name(name) for name in found]
    return list(dict.fromkeys([name for name in found if not (told and name == _NAMELESS)] + told))


def unknown_names(names: Iterable[str]) -> list[str]:
    """Those that say nothing of a licence."""
    known = known_datasets()
    return [name for name in names if name not in known and not licensed_in(name)]


def _of_base(base: str | None, what: str) -> str:
    return (
        f" {what} of {named_base(base)}, with which the training began, is told in its card, if at all." if base else ""
    )


def terms_of(names: list[str], base: str | None = None) -> str:
    """A sentence a dataset on the terms of its data; `base` is the checkpoint with which the training began."""
    known = known_datasets()
    told = [
        f"{name[:1].upper()}{name[1:]} ({known[name]['source']}): {known[name]['terms']}."
        if name in known
        else f"{name}: {MISSING}."
        for name in names
    ]
    said = " ".join(told) or "Which data it was trained on is not told."
    return said + _of_base(base, "The data")


def consent_of(names: list[str], base: str | None = None) -> str:
    """What is known of the people in the data; arguments as [`terms_of`]."""
    known = known_datasets()
    if names == [RENDERED] and not base:
        return "Nobody is seen in the data: its faces are rendered."
    told = [
        known[name]["consent"]
        if name in known
        else f"Whether the people of {name} agreed to be recorded, and to this use, is not told."
        for name in names
    ]
    said = " ".join(told) or "Whether the people of the training data agreed to this use is not told."
    return said + _of_base(base, "Who is seen in the data")
