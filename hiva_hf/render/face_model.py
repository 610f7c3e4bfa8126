"""The face model: ICT-FaceKit Light as tensors, from its folder `FaceXModel` or one compact file.

Li et al., *Learning Formation of Physically-Based Face Attributes*, CVPR 2020; MIT licence. Lengths are in cm, y is up,
z out of the face, x to the person's left.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# ranges of vertices, both ends included, as the toolkit's own table gives them
REGIONS: dict[str, tuple[int, int]] = {
    "face": (0, 9408),
    "head_neck": (9409, 11247),
    "mouth_socket": (11248, 13293),
    "eye_socket_L": (13294, 13677),
    "eye_socket_R": (13678, 14061),
    "gums_tongue": (14062, 17038),
    "teeth": (17039, 21450),
    "sclera_L": (21451, 22220),
    "iris_L": (22221, 23020),
    "sclera_R": (23021, 23790),
    "iris_R": (23791, 24590),
    "lacrimal_L": (24591, 24794),
    "lacrimal_R": (24795, 24998),
    "eyeblend_L": (24999, 25022),
    "eyeblend_R": (25023, 25046),
    "eyeocc_L": (25047, 25198),
    "eyeocc_R": (25199, 25350),
    "lashes_L": (25351, 26034),
    "lashes_R": (26035, 26718),
}
# vertices of the 68 points of the Multi-PIE scheme, as the toolkit's own table gives them
LANDMARKS: tuple[int, ...] = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443, 268, 493, 1914,
    2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542, 1537,
    1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957,
    5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
# whole shapes that both sides share, and those with a left and a right half
_WHOLE = (
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthFunnel", "mouthLeft", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
)  # fmt: skip
_HALVES = (
    "browDown", "browInnerUp", "browOuterUp", "cheekPuff", "cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookIn",
    "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown", "mouthLowerDown", "mouthPress",
    "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
)  # fmt: skip
EXPRESSIONS: tuple[str, ...] = tuple(sorted([*_WHOLE, *(f"{half}_{side}" for half in _HALVES for side in "LR")]))
NEUTRAL_FILE = "generic_neutral_mesh.obj"
_TREE = f"FaceXModel/\n  {NEUTRAL_FILE}\n  browDown_L.obj ...      one a shape\n  identity000.obj ...     one a mode"


@dataclass(frozen=True)
class FaceModel:
    """A face that is a sum of shapes.

    Args:
        neutral (`np.ndarray` of shape `(num_vertices, 3)`): The mean face, cm.
        triangles (`np.ndarray` of shape `(num_triangles, 3)`): Vertices, counter-clockwise as seen from outside.
        expressions (`np.ndarray` of shape `(53, num_vertices, 3)`): What each of [`EXPRESSIONS`] adds at full strength.
        identities (`np.ndarray` of shape `(num_modes, num_vertices, 3)`): What one standard deviation adds.
        regions (`dict[str, tuple[int, int]]`): First and last vertex of each part.
        landmarks (`np.ndarray` of shape `(68,)`): Vertices of the Multi-PIE points.
    """

    neutral: np.ndarray
    triangles: np.ndarray
    expressions: np.ndarray
    identities: np.ndarray
    regions: dict[str, tuple[int, int]]
    landmarks: np.ndarray

    @classmethod
    def load(cls, path: str | Path, **tables) -> "FaceModel":
        """Read a face model.

        Args:
            path (`str` or `Path`):
                The folder `FaceXModel` of ICT-FaceKit, the folder that holds it, or an `.npz` with the arrays
                `neutral`, `tri`, `expr`, `expr_names`, `ident` (deltas), `region_names`, `region_first_last` and
                `landmarks68`, as [`FaceModel.save`] writes it.
            tables: `regions` and `landmarks`, where a folder is numbered otherwise than the toolkit.

        Raises:
            FileNotFoundError: If there is no such file or folder, or a shape is missing in it.
            ValueError: If a file is not what it should be.
        """
        path = Path(path)
        if path.is_dir():
            return cls._of_folder(path, **tables)
        if not path.is_file():
            raise FileNotFoundError(
                f"`model` must be the folder FaceXModel of ICT-FaceKit or an .npz made of it; {path} is not there. "
                f"Expected:\n{_TREE}"
            )
        return cls._of_file(path)

    def save(self, path: str | Path) -> None:
        """Write one compact file, which loads in a second; deltas are rounded to half precision (.01 mm at most)."""
        from ..files import whole_file

        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                neutral=self.neutral,
                tri=self.triangles.astype(np.int32),
                expr=self.expressions.astype(np.float16),
                expr_names=np.array(EXPRESSIONS),
                ident=self.identities.astype(np.float16),
                region_names=np.array(list(self.regions)),
                region_first_last=np.array(list(self.regions.values()), dtype=np.int32),
                landmarks68=self.landmarks.astype(np.int32),
            )

    @classmethod
    def _of_file(cls, path: Path) -> "FaceModel":
        try:
            with np.load(path) as file:
                held = {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} must be an .npz of a face model; {error}.") from None
        needed = (
            "neutral", "tri", "expr", "expr_names", "ident", "region_names", "region_first_last", "landmarks68",
        )  # fmt: skip
        missing = [name for name in needed if name not in held]
        if missing:
            raise ValueError(
                f"{path} must hold the arrays {', '.join(needed)}; it lacks {', '.join(missing)}. "
                "Give the folder FaceXModel instead."
            )
        names = [str(name) for name in held["expr_names"]]
        missing = [name for name in EXPRESSIONS if name not in names]
        if missing:
            raise ValueError(f"{path} must hold all {len(EXPRESSIONS)} shapes; it lacks {', '.join(missing)}.")
        ranges = zip(held["region_names"].tolist(), held["region_first_last"].tolist(), strict=True)
        return cls._checked(
            path,
            held["neutral"],
            held["tri"],
            held["expr"][[names.index(name) for name in EXPRESSIONS]],
            held["ident"],
            {str(name): (int(first), int(last)) for name, (first, last) in ranges},
            held["landmarks68"],
        )

    @classmethod
    def _of_folder(cls, folder: Path, regions=REGIONS, landmarks=LANDMARKS) -> "FaceModel":
        if not (folder / NEUTRAL_FILE).is_file() and (folder / "FaceXModel" / NEUTRAL_FILE).is_file():
            folder = folder / "FaceXModel"
        modes = sorted(folder.glob("identity[0-9][0-9][0-9].obj"))
        missing = [
            name for name in (NEUTRAL_FILE, *(f"{name}.obj" for name in EXPRESSIONS)) if not (folder / name).is_file()
        ]
        if missing or not modes:
            raise FileNotFoundError(
                f"{folder} must be the folder FaceXModel of ICT-FaceKit; it lacks {', '.join(missing[:3])}"
                f"{' and others' if len(missing) > 3 else ''}{'' if modes else ' identity000.obj'}. Expected:\n{_TREE}"
            )
        neutral, triangles = read_obj(folder / NEUTRAL_FILE, faces=True)

        def deltas(files: list[Path]) -> np.ndarray:
            found = np.empty((len(files), *neutral.shape), dtype=np.float32)
            for row, file in enumerate(files):
                vertices, _ = read_obj(file)
                if vertices.shape != neutral.shape:
                    raise ValueError(
                        f"{file} must have the {len(neutral)} vertices of {NEUTRAL_FILE}; it has {len(vertices)}."
                    )
                found[row] = vertices - neutral
            return found

        shapes = deltas([folder / f"{name}.obj" for name in EXPRESSIONS])
        return cls._checked(folder, neutral, triangles, shapes, deltas(modes), dict(regions), np.array(landmarks))

    @classmethod
    def _checked(cls, path, neutral, triangles, expressions, identities, regions, landmarks) -> "FaceModel":
        count = len(neutral)
        shapes = (neutral, expressions[0], identities[0])
        highest = max(int(np.max(triangles)), int(np.max(landmarks)))
        if any(shape.shape != (count, 3) for shape in shapes) or len(landmarks) != 68 or highest >= count:
            raise ValueError(
                f"{path} must hold shapes of one number of vertices, and triangles and 68 landmarks among them; it has "
                f"{count} vertices, shapes of {expressions.shape[1]} and {identities.shape[1]}, {len(landmarks)} "
                f"landmarks and a vertex number {highest}."
            )
        return cls(
            np.asarray(neutral, np.float32), np.asarray(triangles, np.int64), np.asarray(expressions, np.float32),
            np.asarray(identities, np.float32), regions, np.asarray(landmarks, np.int64),
        )  # fmt: skip


def read_obj(path: Path, faces: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a Wavefront file, and its faces as triangles.

    Args:
        path (`Path`): The file.
        faces (`bool`, defaults to `False`): Read these too; otherwise there are none.

    Returns:
        `tuple`: (num_vertices, 3) float32, and (num_triangles, 3) int64 counted from 0.

    Raises:
        ValueError: If a line is not what it should be.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    try:
        vertices = np.array([line.split()[1:4] for line in re.findall(r"^v .*$", text, re.M)], dtype=np.float32)
        triangles = []
        for line in re.findall(r"^f .*$", text, re.M) if faces else ():
            corners = [int(corner.split("/")[0]) - 1 for corner in line.split()[1:]]
            triangles += [(corners[0], corners[k], corners[k + 1]) for k in range(1, len(corners) - 1)]
    except ValueError as error:
        raise ValueError(f"{path} must be a Wavefront .obj; {error}.") from None
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"{path} must be a Wavefront .obj with vertices of three numbers; it has none.")
    return vertices, np.array(triangles, dtype=np.int64).reshape(-1, 3)


__all__ = ["EXPRESSIONS", "LANDMARKS", "NEUTRAL_FILE", "REGIONS", "FaceModel", "read_obj"]
