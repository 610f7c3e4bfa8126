"""What prepared faces hold, without reading a picture."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as pads


@dataclass
class ParquetFolder:
    """What parquet files hold.

    Args:
        rows (`int`): Of all files.
        people (`int`): Different `subject_id`.
        columns (`dict[str, str]`): Types by name.
        datasets (`list[str]`): Where rows come from, by the column `dataset`.
    """

    rows: int
    people: int
    columns: dict[str, str]
    datasets: list[str]

    @classmethod
    def read(cls, folder: str | Path) -> "ParquetFolder":
        """Look into all files of a folder; pictures are not read.

        Raises:
            FileNotFoundError: If there is none.
        """
        files = sorted(Path(folder).glob("*.parquet"))
        if not files:
            raise FileNotFoundError(f"{folder} must hold parquet files; `hiva data prepare` makes them.")
        table = pads.dataset([str(file) for file in files], format="parquet")
        columns = {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)}

        def distinct(name: str) -> list[str]:
            if name not in columns:
                return []
            values = table.to_table(columns=[name])[name].unique().to_pylist()
            return sorted(str(value) for value in values if value)

        return cls(table.count_rows(), len(distinct("subject_id")), columns, distinct("dataset"))

    @property
    def coded(self) -> bool:
        """`bool`: Whether there are labels of action units."""
        return any(name.removeprefix("AU")[:1].isdigit() for name in self.columns if name.startswith("AU"))

    @property
    def pictures(self) -> bool:
        """`bool`: Whether there are images."""
        return "image" in self.columns


__all__ = ["ParquetFolder"]
