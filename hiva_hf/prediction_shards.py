"""A corpus that several processes and machines read: each a share of it, and the last one puts the parts together."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Share:
    """One of several shares of a corpus: every n-th unit of it, so that all shares end at about the same time.

    Args:
        number (`int`): Which one, from 0.
        count (`int`): How many there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """`"3/16"`, the third of sixteen.

        Raises:
            ValueError: If it is none.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"`shard` must be a share of several, such as 3/16, the third of sixteen; got {text!r}.")
        return cls(int(match[1]) - 1, int(match[2]))

    def __str__(self) -> str:
        return f"{self.number + 1}/{self.count}"

    def split(self, number: int, count: int) -> "Share":
        """One of several shares of this share."""
        return Share(self.number * count + number, self.count * count)

    def holds(self, unit: int) -> bool:
        """Whether a unit belongs to it, by its number."""
        return unit % self.count == self.number

    def begin(self, out: Path) -> Path:
        """Where the rows of this share go.

        Args:
            out (`Path`): The file of all results.

        Returns:
            `Path`: In a hidden folder beside `out`, for a [`ResultFile`].

        Raises:
            ValueError: If `out` was begun with another number of shares.
        """
        folder = _folder(out)
        rule = f"`out` must be made by as many shares as it was begun with, now {self.count};"
        alone = out.with_name(f".{out.name}.progress")
        if alone.exists() and not folder.exists():
            raise ValueError(f"{rule} {out} was begun by one process. Repeat that command, or delete {alone}.")
        begun = {path.name.rpartition("-")[2].partition(".")[0] for path in folder.glob(".*.progress")}
        if other := begun - {_digits(self.count)}:
            raise ValueError(f"{rule} {out} was begun with {int(min(other))}. Repeat that command, or delete {folder}.")
        return self._part(out)

    def forget(self, out: Path) -> None:
        """Remove the parts of all shares."""
        shutil.rmtree(_folder(out), ignore_errors=True)

    def _part(self, out: Path) -> Path:
        return _folder(out) / f"{_digits(self.number + 1)}-of-{_digits(self.count)}.jsonl"


def refuse_shares(out: Path) -> Path:
    """The file as it is, or a `ValueError` where it was begun by shares, and is now to be made by one process."""
    if _folder(out).exists():
        raise ValueError(
            f"`out` must be made by as many shares as it was begun with; {out} was begun by several. Repeat that "
            f"command, or delete {_folder(out)}."
        )
    return out


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.shares")


def _digits(number: int) -> str:
    return f"{number:05d}"


class Part(NamedTuple):
    """What a share has written.

    Args:
        rows (`Path`): Its rows and notes, see [`ResultFile.lines`].
        state (`dict`): Where it stands.
        command (`dict`): What its rows depend on.
    """

    rows: Path
    state: dict
    command: dict


def parts_of(share: Share, out: Path) -> list[Part]:
    """The parts of all shares, in their order; none unless all are read to their end.

    Args:
        share (`Share`): One of them.
        out (`Path`): The file of all results.

    Raises:
        ValueError: If they are not of the same sources and settings.
    """
    parts: list[Part] = []
    for number in range(share.count):
        path = Share(number, share.count)._part(out)
        try:
            told = json.loads(path.with_name(f".{path.name}.progress").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        if not told["state"]["read"]:
            return []
        parts.append(Part(path.with_name(f".{path.name}.rows"), told["state"], told["command"]))
    for number, part in enumerate(parts):
        changed = [name for name, value in parts[0].command.items() if part.command.get(name) != value]
        if part.state["digest"] != parts[0].state["digest"]:
            changed.append("files")
        if changed:
            raise ValueError(
                f"`out` must not mix several runs; shares 1/{share.count} and {number + 1}/{share.count} of {out} were "
                f"read with other {', '.join(changed)}. Delete {_folder(out)} and begin anew."
            )
    return parts


def rows_of(parts: Sequence[Part]) -> Iterator[bytes]:
    """Rows and notes of all shares in the order of the sources, one in memory at a time."""
    from .results import note_of

    with ExitStack() as stack:
        for file in cycle([stack.enter_context(part.rows.open("rb")) for part in parts]):
            for line in file:
                yield line.rstrip(b"\n")
                if "unit" in (note_of(line) or ()):
                    break
            else:
                # units go round: where one share has no more, none has
                return


__all__ = ["Part", "Share", "parts_of", "refuse_shares", "rows_of"]
