"""What prepared faces hold, without reading a picture, and copies of them that tell nothing of this machine."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..data.schema import ALIGNMENT_KEY
from ..files import link_or_copy

# whatever else stands in the metadata, such as the sources of what was dropped, stays here
_METADATA = (b"huggingface", ALIGNMENT_KEY)
_LABELS = ("label", "labels", "intensity", "intensities", "occurrence", "occurrences")
_UNIT = re.compile(r"AU\d+[LR]?")
_PATH = re.compile(r"^(?:file:/|[/~]/?[^/]+/|\.{1,2}/|[A-Za-z]:[\\/])")


@dataclass
class ParquetFolder:
    """What parquet files hold.

    Args:
        rows (`int`): Of all files.
        people (`int`): Different `subject_id`.
        columns (`dict[str, str]`): Types by name.
        datasets (`list[str]`): Where rows come from, by the column `dataset`.
        pictures (`bool`): Whether there are images, under whatever name.
        coded (`bool`): Whether there are labels of action units.
        paths (`list[str]`): Columns with paths of this machine, each with one of them.
        labels (`dict[str, tuple[int, int]]`): By action unit how many rows are coded, and active.
    """

    rows: int
    people: int
    columns: dict[str, str]
    datasets: list[str]
    pictures: bool
    coded: bool
    paths: list[str]
    labels: dict[str, tuple[int, int]]

    @classmethod
    def read(cls, folder: str | Path) -> "ParquetFolder":
        """Look into all files of a folder; pictures are not read.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If one is no parquet file.
        """
        files = sorted(file for file in Path(folder).glob("*.parquet") if not file.name.startswith("."))
        if not files:
            raise FileNotFoundError(f"{folder} must hold parquet files; `hiva data prepare` makes them.")
        rows, people, datasets = 0, set(), set()
        kinds: dict[str, pa.DataType] = {}
        paths: dict[str, str] = {}
        labels: dict[str, tuple[int, int]] = {}
        for file in files:
            try:
                with pq.ParquetFile(file) as parquet:
                    rows += parquet.metadata.num_rows
                    schema = parquet.schema_arrow
                    kinds |= dict(zip(schema.names, schema.types, strict=True))
                    people |= set(_values(parquet, "subject_id"))
                    datasets |= {str(value) for value in _values(parquet, "dataset") if value}
                    for name in filter(_UNIT.fullmatch, schema.names):
                        coded, active = labels.get(name, (0, 0))
                        for code, count in _counts(parquet, name).items():
                            coded, active = coded + count * (code in (0, 1)), active + count * (code == 1)
                        labels[name] = coded, active
                    for leaf in _texts(schema):
                        paths.update((leaf, text) for text in _values(parquet, leaf) if text and _PATH.match(text))
            except pa.ArrowInvalid as error:
                raise ValueError(f"{file} must be a parquet file; {error}") from None
        return cls(
            rows,
            len(people - {None}),
            {name: str(kind) for name, kind in kinds.items()},
            sorted(datasets),
            any(_holds_bytes(kind) for kind in kinds.values()) or "image" in kinds,
            any(re.match(r"AU\d", name, re.I) or name.casefold() in _LABELS for name in kinds),
            [f"{name} ({text})" for name, text in paths.items()],
            labels,
        )


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column can hold pictures: bytes, or arrays of pixels."""
    if isinstance(kind, pa.BaseExtensionType):
        return True
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if kind.num_fields:
        return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_uint8(kind)
    )


def _texts(schema: pa.Schema) -> list[str]:
    """Columns of text, also those within an image."""
    found = []
    for entry in schema:
        inner = {entry.name: entry.type}
        if pa.types.is_struct(entry.type):
            fields = [entry.type.field(place) for place in range(entry.type.num_fields)]
            inner = {f"{entry.name}.{part.name}": part.type for part in fields}
        found += [name for name, kind in inner.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
    return found


def _values(parquet: pq.ParquetFile, leaf: str) -> Iterator:
    """Different values of a column, group by group."""
    if leaf.split(".")[0] not in parquet.schema_arrow.names:
        return
    for batch in parquet.iter_batches(columns=[leaf]):
        column = batch.column(0)
        for part in leaf.split(".")[1:]:
            column = column.field(part)
        yield from column.unique().to_pylist()


def _counts(parquet: pq.ParquetFile, name: str) -> Counter:
    """How often each value of a column of numbers stands there."""
    found: Counter = Counter()
    for batch in parquet.iter_batches(columns=[name]):
        for entry in batch.column(0).value_counts().to_pylist():
            found[entry["values"]] += entry["counts"]
    return found


def copy_parquet(path: Path, to: Path) -> None:
    """A parquet file without what its metadata tells of this machine; the same file where it tells nothing."""
    with pq.ParquetFile(path) as parquet:
        schema, held = parquet.schema_arrow, parquet.schema_arrow.metadata or {}
        kept = {name: value for name, value in held.items() if name in _METADATA}
        if kept == held:
            link_or_copy(path, to)
            return
        with pq.ParquetWriter(to, schema.with_metadata(kept)) as writer:
            for group in range(parquet.num_row_groups):
                writer.write_table(parquet.read_row_group(group).replace_schema_metadata(kept))


__all__ = ["ParquetFolder", "copy_parquet"]
