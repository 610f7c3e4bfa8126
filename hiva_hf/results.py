"""Rows of results: what one holds, and writing millions of them so that nothing is lost."""

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from .faces.given import BOX_COLUMNS, POINT_COLUMNS
from .files import whole_file

FORMATS = (".csv", ".parquet", ".jsonl", ".json")
_NOTE = b'{"note": '


class InUseError(ValueError):
    """Another run is writing the file."""


@dataclass
class FaceResult:
    """One face of one picture or frame, or the statement that there is none.

    Args:
        source (`str`): The file.
        frame (`int`): Of a video, counted from 0; 0 for a picture.
        timestamp (`float`): Seconds from the first frame; 0 for a picture.
        face_id (`int`): Number of the face: by size in a picture, the same person's from frame to frame in a video; -1
            where there is none.
        success (`bool`): Whether a face was found.
        confidence (`float`): Certainty of the face detector, or that of the table of faces; 0 where there is none, NaN
            where it is not told.
        box (`list[float]`): x0, y0, x1, y1 in pixels; empty where there is no face.
        points (`list[float]`): x and y of left eye, right eye, nose tip, left and right mouth corner, in pixels.
        scores (`dict[str, float]`): By AU: probability, or intensity 0-5 from an intensity model; NaN without a face.
        active (`dict[str, bool]`): By AU: at or above its threshold; empty from an intensity model.
        intensities (`dict[str, float]`): By AU: intensity 0-5 beside its probability, from a model with a second head
            for it; empty from any other.
        above_neutral (`dict[str, float]`): By AU: score minus that of the person's neutral face, see
            [`above_neutral`]; empty where none was asked for.
        crop (`PIL.Image.Image`, *optional*): The face as the model saw it; goes into no file.
        activation_maps (`np.ndarray` of shape `(num_labels, rows, columns)`, *optional*):
            Where each AU was seen; goes into no file.
    """

    source: str
    frame: int
    timestamp: float
    face_id: int
    success: bool
    confidence: float
    box: list[float] = field(default_factory=list)
    points: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    active: dict[str, bool] = field(default_factory=dict)
    intensities: dict[str, float] = field(default_factory=dict)
    above_neutral: dict[str, float] = field(default_factory=dict)
    crop: Image.Image | None = field(default=None, repr=False, compare=False)
    activation_maps: np.ndarray | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict:
        """`dict`: Everything but the pictures, as JSON can hold it."""
        left_out = {"crop", "activation_maps"}
        left_out |= {name for name in ("intensities", "above_neutral") if not getattr(self, name)}
        return {name: value for name, value in vars(self).items() if name not in left_out}


def wide_columns(
    result: FaceResult, labels: Sequence[str], intensity: bool, neutral: bool = False, intensities: bool = False
) -> dict:
    """One row of OpenFace's form.

    An occurrence model gives `AU01_p`, a probability, and `AU01_c`, 1 where it reaches the threshold. `AU01_r` is
    intensity 0-5: of an intensity model in their place, of a model with both heads beside them. `AU01_n` is the score
    minus that of the person's neutral face. `frame` counts from 1, as OpenFace's does.

    Args:
        result (`FaceResult`): The row.
        labels (`Sequence[str]`): Action units, in the order of the columns.
        intensity (`bool`): Whether the scores are intensities.
        neutral (`bool`, defaults to `False`): Whether there are columns `AU01_n`.
        intensities (`bool`, defaults to `False`): Whether there are columns `AU01_r` beside those of occurrence.
    """
    row = {
        "frame": result.frame + 1,
        "face_id": result.face_id,
        "timestamp": result.timestamp,
        "confidence": result.confidence,
        "success": int(result.success),
        "source": result.source,
        **dict(zip(BOX_COLUMNS, result.box or [math.nan] * 4, strict=True)),
        **dict(zip(POINT_COLUMNS, result.points or [math.nan] * 10, strict=True)),
    }
    suffix = "r" if intensity else "p"
    row |= {f"{padded(label)}_{suffix}": result.scores.get(label, math.nan) for label in labels}
    if not intensity:
        row |= {f"{padded(label)}_c": int(result.active[label]) if result.active else math.nan for label in labels}
    if intensities:
        row |= {f"{padded(label)}_r": result.intensities.get(label, math.nan) for label in labels}
    if neutral:
        row |= {f"{padded(label)}_n": result.above_neutral.get(label, math.nan) for label in labels}
    return row


def long_rows(
    result: FaceResult, labels: Sequence[str], intensity: bool, neutral: bool = False, intensities: bool = False
) -> Iterator[dict]:
    """The tidy form: one row an action unit. Arguments as [`wide_columns`]."""
    for label in labels:
        yield {
            "source": result.source,
            "frame": result.frame + 1,
            "timestamp": result.timestamp,
            "face_id": result.face_id,
            "success": int(result.success),
            "au": label,
            "intensity" if intensity else "probability": result.scores.get(label, math.nan),
            **({} if intensity else {"active": int(result.active[label]) if result.active else math.nan}),
            **({"intensity": result.intensities.get(label, math.nan)} if intensities else {}),
            **({"above_neutral": result.above_neutral.get(label, math.nan)} if neutral else {}),
        }


def table_rows(
    results: Iterable[FaceResult],
    labels: Sequence[str],
    intensity: bool,
    tidy: bool,
    neutral: bool = False,
    intensities: bool = False,
) -> Iterator[dict]:
    """Rows of a table, one a face or, `tidy`, one a face and action unit; arguments as [`wide_columns`]."""
    for result in results:
        if tidy:
            yield from long_rows(result, labels, intensity, neutral, intensities)
        else:
            yield wide_columns(result, labels, intensity, neutral, intensities)


def padded(label: str) -> str:
    """`"AU1"` as files of the field write it: `"AU01"`."""
    match = re.fullmatch(r"AU(\d+)([LR]?)", label)
    return f"AU{int(match[1]):02d}{match[2]}" if match else label


class ResultFile:
    """A result file that appears whole, and whose making can be interrupted at any moment.

    Rows go to a hidden file beside it, batch by batch; a second one, replaced atomically, says how much of that is
    valid and where the work stood. A killed run loses the batch at hand; the same command goes on behind it. When all
    is done the file itself is written and takes its place in one step.

    Args:
        path (`str` or `Path`): Ends in `.csv`, `.parquet` or `.jsonl`.
        labels (`Sequence[str]`): Action units, in the order of the columns.
        intensity (`bool`): Whether the scores are intensities.
        tidy (`bool`, defaults to `False`): One row an action unit in place of one row a face.
        command (`dict`, *optional*): What the rows depend on; a file begun with something else is not continued.
        intensities (`bool`, defaults to `False`): Whether the rows tell intensities beside probabilities.

    `complete`, where it is set, is given this file when all rows are there, and yields rows with `above_neutral`, which
    are written in their place with a column more an action unit.

    Raises:
        ValueError: If the ending is another one, the file was begun by another command, or another run is at it.
    """

    def __init__(
        self,
        path: str | Path,
        labels: Sequence[str],
        intensity: bool,
        tidy: bool = False,
        command: dict | None = None,
        intensities: bool = False,
    ):
        self.path = Path(path)
        if self.path.suffix not in FORMATS:
            raise ValueError(f"`out` must end in {', '.join(FORMATS)}; got {self.path}.")
        self.labels, self.intensity, self.tidy = list(labels), intensity, tidy
        self.intensities = intensities
        self.complete: Callable[[ResultFile], Iterable[FaceResult]] | None = None
        self.command = json.loads(json.dumps(command or {}))
        self.spool = self.path.with_name(f".{self.path.name}.rows")
        self.progress = self.path.with_name(f".{self.path.name}.progress")
        self.state: dict = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InUseError(
                f"`out` must be written by one run at a time; another is writing {self.path}. Wait for it, or choose "
                "another file."
            ) from None
        try:
            self._begin()
        except (OSError, ValueError):
            self._unlock()
            raise

    def _begin(self) -> None:
        valid = 0
        if self.progress.is_file():
            stored = json.loads(self.progress.read_text(encoding="utf-8"))
            if stored["command"] != self.command:
                changed = ", ".join(key for key in self.command if stored["command"].get(key) != self.command[key])
                raise ValueError(
                    f"`out` must not mix two runs; {self.path} was begun with other {changed or 'settings'}. "
                    f"Repeat the first command, choose another file, or delete {self.progress}."
                )
            valid, self.state = stored["bytes"], stored["state"]
        self._file = self.spool.open("ab")
        self._file.truncate(valid)
        self._file.seek(valid)

    def write(self, results: Iterable[FaceResult], state: dict, note: dict | None = None) -> None:
        """Add a batch.

        Args:
            results (`Iterable[FaceResult]`): The rows.
            state (`dict`): Where the work stands after them; a later run finds it in `state`. Written anew each time,
                so that it must not grow.
            note (`dict`, *optional*): What is to be kept beside the rows, see [`ResultFile.notes`].
        """
        lines = (json.dumps(result.to_dict(), ensure_ascii=False).encode() for result in results)
        self.write_lines(chain(lines, [] if note is None else [_NOTE + json.dumps(note).encode() + b"}"]), state)

    def write_lines(self, lines: Iterable[bytes], state: dict) -> None:
        """As [`ResultFile.write`], of lines that [`ResultFile.lines`] of another file gave."""
        with self._writing():
            for line in lines:
                self._file.write(line + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            content = {"bytes": self._file.tell(), "state": state, "command": self.command}
            with whole_file(self.progress) as partial:
                partial.write_text(json.dumps(content), encoding="utf-8")
        self.state = state

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"`out` must be writable; {self.path}: {error.strerror or error}. Make room and repeat the command; it "
                "goes on where it stopped."
            ) from None

    def rows(self) -> Iterator[FaceResult]:
        """The rows so far, one in memory at a time."""
        for line in self.lines():
            if not line.startswith(_NOTE):
                yield FaceResult(**json.loads(line))

    def notes(self) -> Iterator[dict]:
        """What was kept beside the rows so far."""
        for line in self.lines():
            if (note := note_of(line)) is not None:
                yield note

    def lines(self) -> Iterator[bytes]:
        """Rows and notes as they lie on the disk."""
        with self.spool.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\n")

    def finish(self) -> Path:
        """Write the file itself, put it in its place, and remove the hidden ones."""
        with self._writing(), whole_file(self.path) as partial:
            self._file.close()
            getattr(self, f"_write_{self.path.suffix.removeprefix('.')}")(partial)
        self.discard()
        return self.path

    def restart(self) -> None:
        """Forget the rows so far."""
        self.progress.unlink(missing_ok=True)
        self._file.truncate(0)
        self.state = {}

    def discard(self) -> None:
        """Remove the hidden files; the file itself stays as it was."""
        self._close_file()
        self.progress.unlink(missing_ok=True)
        self.spool.unlink(missing_ok=True)
        self._unlock()

    def close(self) -> None:
        """Leave the work as it is, for a later run to go on with."""
        self._close_file()
        self._unlock()

    def _close_file(self) -> None:
        # a full disk does not take what is still in the buffer
        with suppress(OSError):
            self._file.close()

    def _unlock(self) -> None:
        if self._lock.is_locked:
            # not everywhere can a file be removed that is open
            with suppress(OSError):
                Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def _completed(self) -> Iterable[FaceResult]:
        return self.rows() if self.complete is None else self.complete(self)

    def _table(self) -> Iterator[dict]:
        return self._table_of(self._completed())

    def _table_of(self, results: Iterable[FaceResult]) -> Iterator[dict]:
        neutral = self.complete is not None
        return table_rows(results, self.labels, self.intensity, self.tidy, neutral, self.intensities)

    def _header(self) -> list[str]:
        return list(next(self._table_of([FaceResult("", 0, 0.0, -1, False, 0.0)])))

    def _write_csv(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._header(), lineterminator="\n")
            writer.writeheader()
            for row in self._table():
                writer.writerow({key: _cell(value) for key, value in row.items()})

    def _write_jsonl(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for row in self._table():
                file.write(json.dumps(_without_nan(row), ensure_ascii=False) + "\n")

    def _write_json(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.write("[")
            for number, result in enumerate(self._completed()):
                file.write(",\n" if number else "\n")
                row = {**result.to_dict(), "frame": result.frame + 1}
                if self.intensities:
                    row["intensities"] = result.intensities
                file.write(json.dumps(_without_nan(row), ensure_ascii=False))
            file.write("\n]\n")

    def _write_parquet(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        integers, texts = {"frame", "face_id", "success"}, {"source", "au"}
        kinds = [
            (name, pa.int64() if name in integers else pa.string() if name in texts else pa.float64())
            for name in self._header()
        ]
        schema = pa.schema(kinds)
        with pq.ParquetWriter(path, schema) as writer:
            group: list[dict] = []
            for row in self._table():
                group.append(row)
                if len(group) == 10_000:
                    writer.write_table(pa.Table.from_pylist(group, schema))
                    group = []
            writer.write_table(pa.Table.from_pylist(group, schema))


def note_of(line: bytes) -> dict | None:
    """The note that a line of [`ResultFile.lines`] holds; `None` if it is a row."""
    return json.loads(line)["note"] if line.startswith(_NOTE) else None


def _cell(value):
    """A number with all its digits, so that a table read back holds what was found; NaN as pandas and R know it."""
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def _without_nan(value):
    """For JSON, which knows no NaN: `None` in its place."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


__all__ = [
    "FORMATS",
    "FaceResult",
    "InUseError",
    "ResultFile",
    "long_rows",
    "note_of",
    "padded",
    "table_rows",
    "wide_columns",
]
