"""What the card of a dataset says of its columns, its labels, and how it was made."""

import csv
import re
from collections import Counter
from pathlib import Path

from ..data.schema import DROPPED_FILE, SETTINGS_FILE
from ..facs import au_meaning
from .measured import MISSING, record
from .parquet import ParquetFolder
from .remarks import cut_as

# what is known of a column, by the whole of its name
_COLUMNS = {
    r"image": "the picture",
    r"subject_id": "who is seen; split by it",
    r"sequence_id": "the recording",
    r"frame": "number of the picture in its recording",
    r"dataset": "where the row comes from",
    r"labels?|occurrences?": "1 active, 0 not active, -100 not coded; one an action unit",
    r"intensit(y|ies)": "0 to 5, -100 not coded; one an action unit",
    r"AU\d+[LR]?": "1 active, 0 not active, -100 not coded",
    r"AU\d+[LR]?_intensity": "0 to 5, -100 not coded",
    r"points": "x and y of eye centres, nose tip and mouth corners, in pixels",
    r"landmarks": "x and y of 68 points of the Multi-PIE scheme, in pixels",
    r"box": "x0, y0, x1, y1 of the face, in pixels",
    r"yaw|pitch|roll": "how the head is turned, in degrees",
    r"occluded|glasses": "whether the face is covered in part; whether it wears glasses",
    r"skin_tone|sex|age": "of the person, as the data tells it",
}


def column_table(faces: ParquetFolder) -> str:
    """Markdown, a row a kind of column; what is not known of one is not told."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, kind in faces.columns.items():
        said = next((text for pattern, text in _COLUMNS.items() if re.fullmatch(pattern, name)), MISSING)
        # many of one kind stand together
        together = kind if re.match(r"AU\d|yaw|pitch|roll|occluded|glasses", name) else name
        rows.setdefault((together, said), []).append(name)
    lines = ["| column | type | what it holds |", "|---|---|---|"]
    for (_, said), names in rows.items():
        shown = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {shown} | {_kind(faces.columns[names[0]])} | {said} |")
    return "\n".join(lines)


def _kind(kind: str) -> str:
    """An Arrow type as people write it."""
    if kind.startswith("struct<bytes"):
        return "image"
    listed = re.fullmatch(r"fixed_size_list<\w+: (\w+)[^>]*>\[(\d+)\]", kind)
    return f"{listed[2]} x {listed[1]}" if listed else kind.replace("|", "/")


def label_table(faces: ParquetFolder) -> str:
    """Markdown, how often each action unit was coded and active; empty where no column tells."""
    if not faces.labels:
        return ""
    lines = ["| AU | action unit | coded | active | base rate |", "|---|---|---|---|---|"]
    for name, (coded, active) in faces.labels.items():
        rate = f"{active / coded:.3f}" if coded else "-"
        lines.append(f"| {name} | {_meaning(name)} | {coded} | {active} | {rate} |")
    return "\n".join(lines)


def _meaning(name: str) -> str:
    try:
        return au_meaning(name)
    except ValueError:
        return MISSING


def made_of(folder: Path) -> str:
    """How prepared faces were made, and what was left out, in a sentence or two."""
    made = record(folder, SETTINGS_FILE)
    if not made:
        return "How it was made is not told."
    file, dropped = folder / DROPPED_FILE, Counter[str]()
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as text:
            dropped.update(row.get("reason") or MISSING for row in csv.DictReader(text))
    left = "; ".join(f"{count} for `{reason}`" for reason, count in sorted(dropped.items()))
    rows = f"Of {made['rows']} rows" if "rows" in made else "Of the rows"
    return f"By `hiva data prepare`. {cut_as(made)} {rows} these were left out: {left or 'none'}."


__all__ = ["column_table", "label_table", "made_of"]
