"""Prepared faces read from their files while they are trained on: no copy on disk, and never all of them in memory."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetInfo, Features, Image, Value

# pictures that are mixed at a time, in bytes: some 6,000 faces of 256 pixels
_WINDOW = 128 * 2**20
_PLACE = ("unit", "row")


class RowGroup(NamedTuple):
    """What is read of a parquet file at once.

    Args:
        file (`str`): Which file.
        number (`int`): Of the row group in it.
        size (`int`): Bytes of its pictures.
    """

    file: str
    number: int
    size: int


class StreamedFaces:
    """Faces in parquet, like a `datasets.Dataset` of them whose pictures stay in the files.

    What is small (labels, people, points) is an index in memory; pictures are read a row group at a time. Rows in the
    order of the files cost one pass over them; [`StreamedFaces.mixed`] gives a chance order that costs hardly more.

    Args:
        index (`Dataset`): All columns but `image`, and `unit`, which row group, and `row`, which place in it.
        units (`Sequence[RowGroup]`): The row groups.
    """

    def __init__(self, index: Dataset, units: Sequence[RowGroup]):
        self.index, self.units = index, list(units)
        self._unit = index.select_columns("unit").with_format("arrow")[:]["unit"].to_numpy()
        self._read: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    @classmethod
    def of_files(cls, files: Sequence[str]) -> "StreamedFaces":
        """All rows of parquet files; no picture is read.

        Args:
            files (`Sequence[str]`): Of the same columns, one of which is `image`.
        """
        tables: list[pa.Table] = []
        units: list[RowGroup] = []
        for file in files:
            with open_parquet(file) as parquet:
                small = [name for name in parquet.schema_arrow.names if name != "image"]
                groups = range(parquet.num_row_groups)
                sizes = [parquet.metadata.row_group(number).num_rows for number in groups]
                place = {
                    "unit": np.repeat(np.arange(len(sizes)) + len(units), sizes),
                    "row": np.concatenate([np.arange(size) for size in sizes]),
                }
                table = parquet.read(columns=small)
                for name in _PLACE:
                    table = table.append_column(name, pa.array(place[name], pa.int32()))
                tables.append(table)
                units += [RowGroup(file, number, _image_bytes(parquet, number)) for number in groups]
        with open_parquet(files[0]) as parquet:
            features = Features.from_arrow_schema(parquet.schema_arrow)
        del features["image"]
        features.update({name: Value("int32") for name in _PLACE})
        table = pa.concat_tables(table.select(list(features)).cast(features.arrow_schema) for table in tables)
        return cls(Dataset(table, info=DatasetInfo(features=features)), units)

    @property
    def column_names(self) -> list[str]:
        """`list[str]`: Columns of a row."""
        return ["image", *(name for name in self.index.column_names if name not in _PLACE)]

    @property
    def info(self) -> DatasetInfo:
        """`DatasetInfo`: Its description tells the action units."""
        return self.index.info

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[dict]:
        for place in range(len(self)):
            yield self[place]

    def __getitem__(self, key: str | int | Sequence[int]) -> Any:
        """A column other than `image`, a row, or the columns of several rows, as of a `datasets.Dataset`."""
        rows = self.index[key]
        if isinstance(key, str):
            return rows
        unit, row = (rows.pop(name) for name in _PLACE)
        if isinstance(key, int | np.integer):
            return {"image": self._image(unit, row), **rows}
        return {"image": [self._image(*place) for place in zip(unit, row, strict=True)], **rows}

    def __repr__(self) -> str:
        return f"StreamedFaces({len(self):,} rows in {len(self.units)} row groups, columns {self.column_names})"

    def select(self, indices: Sequence[int] | np.ndarray) -> "StreamedFaces":
        """These rows, in this order."""
        return StreamedFaces(self.index.select(indices), self.units)

    def mixed(self, places: np.ndarray, rng: np.random.Generator, readers: int = 1, batch_size: int = 1) -> np.ndarray:
        """A chance order of rows in which each file is read by one process, row groups by chance and many at a time.

        Args:
            places (`np.ndarray`): Rows; one may stand there more than once.
            rng (`np.random.Generator`): Source of chance.
            readers (`int`, defaults to 1): Processes that take batches in turn; each gets row groups of its own, but
                for what is left over at the end.
            batch_size (`int`, defaults to 1): Rows of a batch.
        """
        units = self._unit[places]
        counts = np.bincount(units, minlength=len(self.units))
        loads, window = np.zeros(readers), np.zeros(readers)
        reader_of, window_of = np.zeros((2, len(self.units)), dtype=int)
        for unit in rng.permutation(np.flatnonzero(counts)):
            reader = int(loads.argmin())
            reader_of[unit], window_of[unit] = reader, int(window[reader] // _WINDOW)
            loads[reader] += counts[unit]
            window[reader] += self.units[unit].size
        ordered = places[np.lexsort((rng.random(len(places)), window_of[units], reader_of[units]))]
        shares = np.split(ordered, np.cumsum(loads[:-1]).astype(int))
        rounds = min(len(share) // batch_size for share in shares)
        whole = [share[: rounds * batch_size].reshape(rounds, batch_size) for share in shares]
        rest = [share[rounds * batch_size :] for share in shares]
        return np.concatenate([np.stack(whole, axis=1).ravel(), *rest])

    def _image(self, unit: int, row: int):
        if unit not in self._read:
            with open_parquet(self.units[unit].file) as parquet:
                self._read[unit] = parquet.read_row_group(self.units[unit].number, columns=["image"])["image"]
            # a batch may lie in two windows
            while len(self._read) > 1 and sum(self.units[held].size for held in self._read) > 2 * _WINDOW:
                self._read.popitem(last=False)
        self._read.move_to_end(unit)
        return Image().decode_example(self._read[unit][row].as_py())

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_read": OrderedDict()}


@contextmanager
def open_parquet(file: str) -> Iterator[pq.ParquetFile]:
    """A parquet file, wherever it lies, to be read a row group at a time."""
    if "://" not in file:
        # many small reads are several times slower through a file object of Python
        with pq.ParquetFile(file) as parquet:
            yield parquet
        return
    with fsspec.open(file, "rb") as stream, pq.ParquetFile(stream) as parquet:
        yield parquet


def _image_bytes(parquet: pq.ParquetFile, number: int) -> int:
    group = parquet.metadata.row_group(number)
    columns = (group.column(place) for place in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema.startswith("image."))


__all__ = ["StreamedFaces", "open_parquet"]
