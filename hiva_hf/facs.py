"""The Facial Action Coding System as data: one table of action units and the lists that benchmarks use.

Source: Ekman, Friesen and Hager, *Facial Action Coding System* (2002), for numbers, names and muscles.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Region = Literal["brow", "eye", "nose", "cheek", "mouth", "chin", "jaw"]


@dataclass(frozen=True)
class ActionUnit:
    """One action unit (AU).

    Args:
        number (`int`): FACS number.
        name (`str`): FACS name, lower case.
        muscles (`str`): What moves the face.
        region (`str`): Where it shows first: brow, eye, nose, cheek, mouth, chin or jaw.
    """

    number: int
    name: str
    muscles: str
    region: Region

    @property
    def label(self) -> str:
        """`str`: The unpadded label that models and tables use, such as `"AU1"`."""
        return f"AU{self.number}"


_TABLE = (
    ActionUnit(1, "inner brow raiser", "frontalis, pars medialis", "brow"),
    ActionUnit(2, "outer brow raiser", "frontalis, pars lateralis", "brow"),
    ActionUnit(4, "brow lowerer", "corrugator supercilii, depressor supercilii, procerus", "brow"),
    ActionUnit(5, "upper lid raiser", "levator palpebrae superioris", "eye"),
    ActionUnit(6, "cheek raiser", "orbicularis oculi, pars orbitalis", "cheek"),
    ActionUnit(7, "lid tightener", "orbicularis oculi, pars palpebralis", "eye"),
    ActionUnit(9, "nose wrinkler", "levator labii superioris alaeque nasi", "nose"),
    ActionUnit(10, "upper lip raiser", "levator labii superioris", "mouth"),
    ActionUnit(11, "nasolabial deepener", "zygomaticus minor", "cheek"),
    ActionUnit(12, "lip corner puller", "zygomaticus major", "mouth"),
    ActionUnit(13, "sharp lip puller", "levator anguli oris", "mouth"),
    ActionUnit(14, "dimpler", "buccinator", "mouth"),
    ActionUnit(15, "lip corner depressor", "depressor anguli oris", "mouth"),
    ActionUnit(16, "lower lip depressor", "depressor labii inferioris", "mouth"),
    ActionUnit(17, "chin raiser", "mentalis", "chin"),
    ActionUnit(18, "lip pucker", "incisivii labii", "mouth"),
    ActionUnit(19, "tongue show", "genioglossus and other tongue muscles", "mouth"),
    ActionUnit(20, "lip stretcher", "risorius, platysma", "mouth"),
    ActionUnit(22, "lip funneler", "orbicularis oris", "mouth"),
    ActionUnit(23, "lip tightener", "orbicularis oris", "mouth"),
    ActionUnit(24, "lip pressor", "orbicularis oris", "mouth"),
    ActionUnit(25, "lips part", "depressor labii inferioris, relaxed mentalis", "mouth"),
    ActionUnit(26, "jaw drop", "masseter and temporalis relaxed", "jaw"),
    ActionUnit(27, "mouth stretch", "pterygoids, digastric", "jaw"),
    ActionUnit(28, "lip suck", "orbicularis oris", "mouth"),
    ActionUnit(32, "lip bite", "orbicularis oris with the jaw closers", "mouth"),
    ActionUnit(38, "nostril dilator", "nasalis, pars alaris", "nose"),
    ActionUnit(39, "nostril compressor", "nasalis, pars transversa", "nose"),
    ActionUnit(43, "eyes closed", "orbicularis oculi, relaxed levator palpebrae superioris", "eye"),
    ActionUnit(45, "blink", "orbicularis oculi, relaxed levator palpebrae superioris", "eye"),
    ActionUnit(46, "wink", "orbicularis oculi of one eye", "eye"),
)

ACTION_UNITS: dict[str, ActionUnit] = {au.label: au for au in _TABLE}

BP4D_AUS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24")
GFT_AUS = ("AU1", "AU2", "AU4", "AU6", "AU10", "AU12", "AU14", "AU15", "AU23", "AU24")
AFF_WILD2_AUS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")
# what CK+ codes often enough to learn from (Lucey et al., CVPR Workshops 2010, table 3)
CK_PLUS_AUS = (
    "AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU11", "AU12", "AU15", "AU17", "AU20", "AU23", "AU24", "AU25",
    "AU26", "AU27",
)  # fmt: skip
DISFA_AUS = ("AU1", "AU2", "AU4", "AU6", "AU9", "AU12", "AU25", "AU26")

# a small r is no side: `AU12_r` is how files of the field name an intensity
_SPELLING = re.compile(r"(?:[Aa][Uu][ _-]?)?([LR])?0*(\d+)([LR])?")
_SIDES = {"L": "left", "R": "right"}
_OTHER = {"L": "R", "R": "L"}


def au_label(au: str | int) -> str:
    """Bring any spelling of an action unit to its label.

    Args:
        au (`str` or `int`): `1`, `"1"`, `"AU1"`, `"au01"` or `"AU_1"`; one that was coded on one side only is `"AU12L"`
            or `"L12"`, on the person's own left.

    Returns:
        `str`: The unpadded label, such as `"AU1"` or `"AU12L"`.

    Raises:
        ValueError: If it names no action unit of [`ACTION_UNITS`].
    """
    label = _read(str(au).strip())
    if label is None or two_sided(label) not in ACTION_UNITS:
        raise ValueError(f"`au` must name an action unit; got {au!r}. Known: {', '.join(ACTION_UNITS)}.")
    return label


def _read(text: str) -> str | None:
    match = _SPELLING.fullmatch(text)
    if match is None or (match[1] and match[3]):
        return None
    return f"AU{match[2]}{match[1] or match[3] or ''}"


def two_sided(label: str) -> str:
    """`"AU12"` of `"AU12L"`, `"AU12R"` and itself."""
    return label.rstrip("LR")


def mirrored(label: str) -> str:
    """What a label is called in a mirror: `"AU12R"` of `"AU12L"`; one of both sides is itself."""
    return label[:-1] + _OTHER[label[-1]] if label[-1] in _OTHER else label


def au_order(label: str) -> tuple[int, str]:
    """Key that sorts labels by number, then side."""
    return int(two_sided(label).removeprefix("AU")), label


def au_columns(header: Sequence[str], *, prefer: Literal["c", "r"] = "c") -> dict[str, int]:
    """Places of action units in the header of a table, whatever their spelling; `_r`, `_c` or `_p` may follow.

    Args:
        header (`Sequence[str]`): Names of columns.
        prefer (`str`, defaults to `"c"`): Which of an action unit's columns is taken where none is plain: `"c"`, of
            occurrence, or `"r"`, of intensity; then the other one, then `_p`.

    Raises:
        ValueError: If two columns of one form name one action unit, as `AU12` and `AU012`.
    """
    ranks = {form: rank for rank, form in enumerate(["", *(("r", "c") if prefer == "r" else ("c", "r")), "p"])}
    found: dict[str, tuple[int, int]] = {}
    for place, name in enumerate(header):
        form = name[-1] if re.search(r"_[rcp]$", name) else ""
        label = _read(name[:-2] if form else name)
        # numbers that are none of the table stay: datasets code more than it has
        if label is None or label == "AU0":
            continue
        rank, earlier = found.get(label, (len(ranks), place))
        if rank == ranks[form]:
            raise ValueError(
                f"`header` must name an action unit once; {header[earlier]!r} and {name!r} are both {label}. "
                "Take one away."
            )
        if ranks[form] < rank:
            found[label] = ranks[form], place
    return {label: place for label, (_, place) in found.items()}


def au_meaning(label: str) -> str:
    """Name of an action unit, such as `"lip corner puller"` for `"AU12"`; empty where the table does not have it."""
    unit = ACTION_UNITS.get(two_sided(label))
    if unit is None:
        return ""
    return f"{unit.name}, {_SIDES[label[-1]]}" if label[-1] in _SIDES else unit.name


__all__ = [
    "ACTION_UNITS",
    "AFF_WILD2_AUS",
    "BP4D_AUS",
    "CK_PLUS_AUS",
    "DISFA_AUS",
    "GFT_AUS",
    "ActionUnit",
    "au_columns",
    "au_label",
    "au_meaning",
    "au_order",
    "mirrored",
    "two_sided",
]
