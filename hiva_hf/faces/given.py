"""Faces that are known beforehand, from a table of boxes or points."""

import os
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


class GivenFaces:
    """Faces of pictures and videos by a table: one of `hiva predict`, of OpenFace, or your own.

    Args:
        table (`pandas.DataFrame`): One row a face, in pixels of the upright picture:

            - `x0`, `y0`, `x1`, `y1`, a box; or `left_eye_x`, `left_eye_y`, `right_eye_x`, ..., `nose_x`, ...,
              `left_mouth_x`, ..., `right_mouth_y`, left and right as seen in the picture; or `x_0`, `y_0`, ..., `y_67`,
              the 68 points that OpenFace writes; or box and points. Where there is a box only, the landmark network
              looks for the points in it.
            - `source`, the file; not needed where a single one is read. Compared whole, else by the file's name.
            - `frame`, of a video, from 1; not needed for pictures.
            - where there are: `face_id`, `confidence`, and `success`, of which 0 says that there is no face.

    Raises:
        ValueError: If a column is missing, or holds what is no number.
    """

    def __init__(self, table: Any):
        # OpenFace writes a blank before the names of columns
        table = table.rename(columns=lambda name: str(name).strip())
        self._has = {
            names: set(names) <= set(table.columns) for names in (BOX_COLUMNS, POINT_COLUMNS, LANDMARK_COLUMNS)
        }
        if not any(self._has.values()):
            raise ValueError(
                f"The table of faces must have the columns {', '.join(BOX_COLUMNS)}, or {', '.join(POINT_COLUMNS)}, or "
                f"x_0, y_0, ..., y_67; got {', '.join(map(str, table.columns)) or 'none'}."
            )
        numbers = [name for names, there in self._has.items() if there for name in names]
        try:
            table = table.astype(dict.fromkeys(numbers, np.float64))
        except (ValueError, TypeError) as error:
            raise ValueError(f"The table of faces must hold numbers in {', '.join(numbers)}; {error}.") from None
        self._rows: dict[str | None, dict[int, list[dict]]] = {}
        for row in table.to_dict("records"):
            source = None if row.get("source") is None else str(row["source"])
            self._rows.setdefault(source, {}).setdefault(int(row.get("frame", 1)), []).append(row)
        self._locator: LandmarkLocator | None = None

    @classmethod
    def load(cls, path: str | Path) -> "GivenFaces":
        """Read a table.

        Args:
            path (`str` or `Path`): A `.csv`, `.parquet` or `.jsonl` file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no table of faces.
        """
        import pandas as pd

        path = Path(path)
        readers: dict[str, Any] = {
            ".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda file: pd.read_json(file, lines=True)
        }  # fmt: skip
        if path.suffix.lower() not in readers:
            raise ValueError(f"A table of faces must end in {', '.join(readers)}; got {path}.")
        if not path.is_file():
            raise FileNotFoundError(f"A table of faces must be a file; there is no file {path}.")
        try:
            return cls(readers[path.suffix.lower()](path))
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} cannot be used. {error}") from None

    def knows(self, source: str) -> bool:
        """Whether the table has a row of this file."""
        return bool(self._of(source))

    def __call__(self, image: Image.Image, source: str, frame: int = 0) -> list[Face]:
        """The faces of a picture, largest first.

        Args:
            image (`PIL.Image.Image`): The picture, upright RGB.
            source (`str`): Its file.
            frame (`int`, defaults to 0): Its number in a video, from 0.
        """
        rows = self._of(source).get(frame + 1, [])
        faces = [face for row in rows if (face := self._face(row, image)) is not None]
        return sorted(faces, key=lambda face: -face.area)

    def _of(self, source: str) -> dict[int, list[dict]]:
        if None in self._rows:
            return self._rows[None]
        if source in self._rows:
            return self._rows[source]
        for same in (os.path.abspath, os.path.basename):
            alike = [name for name in self._rows if same(str(name)) == same(source)]
            if len(alike) == 1:
                return self._rows[alike[0]]
        return {}

    def _face(self, row: dict, image: Image.Image) -> Face | None:
        values = {names: np.array([row[name] for name in names]) for names, there in self._has.items() if there}
        values = {names: value for names, value in values.items() if np.isfinite(value).all()}
        if not values or row.get("success", 1) == 0:
            return None
        number = row.get("face_id")
        face_id = None if number is None or number != number or number < 0 else int(number)
        score = float(row.get("confidence", np.nan))
        landmarks = values[LANDMARK_COLUMNS].reshape(-1, 2) if LANDMARK_COLUMNS in values else None
        points = values[POINT_COLUMNS].reshape(-1, 2) if POINT_COLUMNS in values else None
        if points is None and landmarks is not None:
            points = five_points(landmarks)
        if points is None:
            box = tuple(values[BOX_COLUMNS].tolist())
            self._locator = self._locator or LandmarkLocator()
            (found,), (presence,) = self._locator(image, box_to_points(box)[None])
            points = five_points(found) if presence >= 0.5 else None
        else:
            box = tuple(values[BOX_COLUMNS].tolist()) if BOX_COLUMNS in values else points_to_box(points)
        return Face(box, score, points, landmarks, face_id=face_id)


__all__ = ["BOX_COLUMNS", "LANDMARK_COLUMNS", "POINT_COLUMNS", "GivenFaces"]
