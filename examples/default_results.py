"""Tables and pictures of the measurements of the default checkpoint, written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hiva_hf.files import whole_file
from hiva_hf.machine import machine
from hiva_hf.plotting import save_figure


def write_table(path: Path, rows: pd.DataFrame) -> None:
    """A CSV file; numbers have five digits."""
    with whole_file(path) as partial:
        rows.to_csv(partial, index=False, float_format="%.5g")


def write_page(path: Path, title: str, lines: Sequence[str], tables: dict[str, pd.DataFrame], device: str) -> None:
    """A page in Markdown: what was measured on what, and its tables.

    Args:
        path (`Path`): The file.
        title (`str`): Its heading.
        lines (`Sequence[str]`): Paragraphs above the tables.
        tables (`dict[str, pandas.DataFrame]`): By heading.
        device (`str`): What computed.
    """
    parts = [f"# {title}", *lines, f"Measured on {machine(device)}."]
    for heading, rows in tables.items():
        parts += [f"## {heading}", rows.to_markdown(index=False, floatfmt=".3f", missingval="-")]
    with whole_file(path) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_figure(path: Path, figure: Any) -> None:
    """A picture."""
    save_figure(figure, path)


__all__ = ["write_figure", "write_page", "write_table"]
