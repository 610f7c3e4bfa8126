"""Faces that are known beforehand, from a table of boxes or points."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .alignment import box_to_points, five_points, points_to_box
from .detection import Face
from .landmarks import NUM_LANDMARKS, LandmarkLocator

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
POINT_COLUMNS = tuple(
    f"{point}_{axis}" for point in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"
)
# as OpenFace's files name them
LANDMARK_COLUMNS = tuple(f"{axis}_{number}" for number in range(NUM_LANDMARKS) for axis in "xy")
_GEOMETRY = (BOX_COLUMNS, POINT_COLUMNS, LANDMARK_COLUMNS)
_TRUTH = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0}


class GivenFaces:
    """Faces of pictures and videos by a table: one of `hiva predict`, of OpenFace, or your own.

    Args:
        table (`pandas.DataFrame`): One row a face, in pixels of the upright picture:

            - `x0`, `y0`, `x1`, `y1`, a box; or `left_eye_x`, `left_eye_y`, `right_eye_x`, ..., `nose_x`, ...,
              `left_mouth_x`, ..., `right_mouth_y`, left and right as seen in the picture; or `x_0`, `y_0`, ..., `y_67`,
              the 68 points that OpenFace writes; or box and points. Where there is a box only, the landmark network
              looks for the points in it. A row that is empty, all 0, or outside the picture is no face.
            - `source`, the file; not needed where a single one is read. Compared whole, else by the file's name.
            - `frame`, of a video, from 1; not looked at for pictures.
            - where there are: `face_id`, a whole number that is the same for the same person; `confidence`; and
              `success`, of which 0 says that there is no face.

    Raises:
        ValueError: If a column is missing, or holds what it must not.
    """

    def __init__(self, table: Any):
        # OpenFace writes a blank before the names of columns
        table = table.rename(columns=lambda name: str(name).strip()).reset_index(drop=True)
        self._places: dict[tuple[str, ...], slice] = {}
        columns: list[str] = []
        for names in _GEOMETRY:
            if set(names) <= set(table.columns):
                self._places[names] = slice(len(columns), len(columns) + len(names))
                columns += names
        if not columns:
            raise ValueError(
                f"The table of faces must have the columns {', '.join(BOX_COLUMNS)}, or {', '.join(POINT_COLUMNS)}, or "
                f"x_0, y_0, ..., y_67; got {', '.join(map(str, table.columns)) or 'none'}."
            )
        self._values = np.stack([_numbers(table, name) for name in columns], axis=1)
        present = np.isfinite(self._values).any(axis=1) & (self._values != 0).any(axis=1)
        if "success" in table.columns:
            told = table["success"].map(lambda cell: _TRUTH.get(str(cell).strip().lower(), np.nan)).to_numpy(float)
            _demand(table, "success", np.isfinite(told), "be 1 or 0")
            present &= told == 1
        self._scores = _numbers(table, "confidence") if "confidence" in table.columns else np.full(len(table), np.nan)
        frames = _whole(table, "frame", present, 1) if "frame" in table.columns else np.ones(len(table), dtype=int)
        self._ids = _whole(table, "face_id", present, 0) if "face_id" in table.columns else None
        if BOX_COLUMNS in self._places:
            corners = self._values[:, self._places[BOX_COLUMNS]]
            ordered = (corners[:, 2:] >= corners[:, :2]).all(axis=1) | np.isnan(corners).any(axis=1)
            _demand(table, "x1", ordered | ~present, "lie right of x0, and y1 below y0")
        if "source" in table.columns:
            _demand(table, "source", table["source"].notna().to_numpy() | ~present, "name a file")
        sources = table["source"].astype(str).tolist() if "source" in table.columns else [""] * len(table)
        self._named = "source" in table.columns
        self._rows: dict[str, dict[int, list[int]]] = {}
        for row, (source, frame) in enumerate(zip(sources, frames.tolist(), strict=True)):
            of_file = self._rows.setdefault(source, {})
            if present[row]:
                self._refuse_twice(of_file.setdefault(frame, []), row, source, frame)
        self._matched: dict[str, dict[int, list[int]]] = {}
        self._locator: LandmarkLocator | None = None

    def _refuse_twice(self, earlier: list[int], row: int, source: str, frame: int) -> None:
        if self._ids is not None and any(self._ids[row] == self._ids[other] for other in earlier):
            raise ValueError(
                f"The table of faces must give a face_id once a frame; {self._ids[row]} stands twice in frame {frame}"
                f"{' of ' if source else ''}{source}."
            )
        earlier.append(row)

    @classmethod
    def load(cls, path: str | Path) -> "GivenFaces":
        """Read a table.

        Args:
            path (`str` or `Path`): A `.csv`, `.parquet`, `.jsonl` or `.json` file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no table of faces.
        """
        import pandas as pd

        path = Path(path)
        readers: dict[str, Any] = {
            ".csv": lambda file: pd.read_csv(file, float_precision="round_trip"),
            ".parquet": pd.read_parquet,
            ".jsonl": lambda file: pd.read_json(file, lines=True, precise_float=True),
            ".json": lambda file: pd.DataFrame(list(map(_flat, json.loads(file.read_text(encoding="utf-8"))))),
        }
        if path.suffix.lower() not in readers:
            raise ValueError(f"A table of faces must end in {', '.join(readers)}; got {path}.")
        if not path.is_file():
            raise FileNotFoundError(f"A table of faces must be a file; there is no file {path}.")
        try:
            return cls(readers[path.suffix.lower()](path))
        except (ValueError, OSError, TypeError) as error:
            raise ValueError(f"{path} cannot be used. {error}") from None

    def match(self, sources: Sequence[str]) -> list[str]:
        """Find the rows of each file, before any is read.

        Args:
            sources (`Sequence[str]`): Files that will be read.

        Returns:
            `list[str]`: Those of which the table says nothing.

        Raises:
            ValueError: If it says nothing of all of them, or it cannot be told which file a row means.
        """
        if not self._named and len(sources) > 1:
            raise ValueError(
                f"The table of faces must have a column `source` where several files are read; {len(sources)} are."
            )
        self._matched = {}
        taken: dict[str, str] = {}
        alike = _Alike(self._rows) if self._named else None
        for source in sources:
            name = source if source in self._rows else alike.name_of(source) if alike is not None else ""
            if name is None:
                continue
            if taken.setdefault(name, source) != source:
                raise ValueError(
                    f"The table of faces must tell which file a row means; {name!r} may be {taken[name]} or {source}. "
                    "Write their paths into the column `source`."
                )
            self._matched[source] = self._rows[name]
        unlisted = [source for source in sources if source not in self._matched]
        if len(unlisted) == len(sources):
            raise ValueError(
                f"The table of faces must have rows of what is read; it names none of {len(sources)} files, such as "
                f"{sources[0]}."
            )
        return unlisted

    def __call__(self, image: Image.Image, source: str, frame: int | None = None) -> list[Face]:
        """The faces of a picture, largest first.

        Args:
            image (`PIL.Image.Image`): The picture, upright RGB.
            source (`str`): Its file, one that was matched.
            frame (`int`, *optional*): Its number in a video, from 0; `None` for a picture.
        """
        frames = self._matched.get(source, {})
        rows = [row for all_of in frames.values() for row in all_of] if frame is None else frames.get(frame + 1, [])
        faces = [face for row in rows if (face := self._face(row, image)) is not None]
        return sorted(faces, key=lambda face: -face.area)

    def _face(self, row: int, image: Image.Image) -> Face | None:
        values = {names: self._values[row, place] for names, place in self._places.items()}
        values = {names: value for names, value in values.items() if np.isfinite(value).all() and np.ptp(value) > 0}
        landmarks = values[LANDMARK_COLUMNS].reshape(-1, 2) if LANDMARK_COLUMNS in values else None
        points = values[POINT_COLUMNS].reshape(-1, 2) if POINT_COLUMNS in values else None
        if points is None and landmarks is not None:
            points = five_points(landmarks)
        if BOX_COLUMNS in values:
            box = tuple(values[BOX_COLUMNS].tolist())
        elif points is not None:
            box = points_to_box(points)
        else:
            return None
        inside = min(box[2], image.width) - max(box[0], 0), min(box[3], image.height) - max(box[1], 0)
        if min(inside) <= 0:
            return None
        if points is None:
            self._locator = self._locator or LandmarkLocator()
            (found,), (presence,) = self._locator(image, box_to_points(box)[None])
            points = five_points(found) if presence >= 0.5 else None
        number = None if self._ids is None else int(self._ids[row])
        return Face(box, float(self._scores[row]), points, landmarks, face_id=number)


class _Alike:
    """Finds which of the names in a table means a file, by its absolute path, else by its base name."""

    def __init__(self, names: Iterable[str]):
        self.names = names
        # filled when a file is first asked for that stands in the table otherwise
        self._groups: list[tuple[Callable[[str], str], dict[str, list[str]]]] = []

    def name_of(self, source: str) -> str | None:
        if not self._groups:
            self._groups = [(same, _grouped(self.names, same)) for same in (os.path.abspath, os.path.basename)]
        for same, groups in self._groups:
            names = groups.get(same(source), [])
            if len(names) > 1:
                raise ValueError(
                    f"The table of faces must tell which rows are of {source}; they may be those of {names[0]} or "
                    f"{names[1]}. Write its path into the column `source`."
                )
            if names:
                return names[0]
        return None


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _numbers(table: Any, name: str) -> np.ndarray:
    import pandas as pd

    values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    empty = table[name].isna().to_numpy() | (table[name].astype(str).str.strip() == "").to_numpy()
    _demand(table, name, np.isfinite(values) | empty, "be a number")
    return values


def _whole(table: Any, name: str, present: np.ndarray, least: int) -> np.ndarray:
    """A column of whole numbers; what stands in rows without a face does not count."""
    values = _numbers(table, name)
    good = np.isfinite(values) & (values >= least) & (values == np.floor(values))
    _demand(table, name, good | ~present, f"be a whole number from {least} on")
    return np.where(good, values, least).astype(int)


def _demand(table: Any, name: str, good: np.ndarray, rule: str) -> None:
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise ValueError(f"The column {name} must {rule}; row {row + 1} has {table[name].iloc[row]!r}.")


def _flat(result: dict) -> dict:
    """A row of a `.json` result file as one of the others."""
    box, points = result.get("box") or [None] * 4, result.get("points") or [None] * 10
    geometry = dict(zip(BOX_COLUMNS + POINT_COLUMNS, [*box, *points], strict=True))
    return {name: result[name] for name in ("source", "frame", "face_id", "confidence", "success")} | geometry


__all__ = ["BOX_COLUMNS", "LANDMARK_COLUMNS", "POINT_COLUMNS", "GivenFaces"]
