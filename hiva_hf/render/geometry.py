"""The mesh that is drawn: the face, hair and beard as shells over it, long hair, glasses and shoulders.

Its topology is the same for everybody, so that faces are computed in batches; what somebody has not is put behind the
camera.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .face_model import FaceModel
from .people import HAIRLINE_ANGLES

# what a triangle is
SKIN, SOCKET, GUMS, TEETH, EYE, CLOTH, RIM, LASHES, SHELL, LONG_HAIR = range(10)
SHELLS = 3
_DROPPED = ("iris_", "lacrimal_", "eyeblend_", "eyeocc_")
_KINDS = {
    "mouth_socket": SOCKET, "eye_socket": SOCKET, "gums_tongue": GUMS, "teeth": TEETH, "sclera": EYE, "eyeball": EYE,
    "lashes": LASHES,
}  # fmt: skip
HEAD_CENTRE = (0.0, 1.2, 3.0)
_RIM_POINTS, _DRAPE_COLUMNS, _DRAPE_ROWS, _TORSO_COLUMNS, _TORSO_ROWS = 30, 28, 12, 24, 12
_DEGREE = 8


def _grid(columns: int, rows: int, start: int) -> np.ndarray:
    """Triangles of a sheet of rows x columns vertices, numbered row by row."""
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel() + start
    return np.concatenate([np.stack([a, a + columns, a + 1], 1), np.stack([a + 1, a + columns, a + columns + 1], 1)])


class Geometry(torch.nn.Module):
    """Vertices of everything, in batches.

    Args:
        model ([`FaceModel`]): The face model.

    Its tensors: `triangles` (num_triangles, 3) and `kinds` of them, `two_sided`; `first_sparse`, from which triangle on
    strands decide what is there; and for each vertex `place` on the mean face, `occlusion` of ambient light, `strand`
    coordinates and `layer`, the share of the height of the hair.
    """

    neutral: Tensor
    basis: Tensor
    landmarks: Tensor
    narrow: Tensor
    smooth_corners: Tensor
    neighbours: Tensor
    eye_centres: Tensor
    triangles: Tensor
    kinds: Tensor
    two_sided: Tensor
    solid: Tensor
    place: Tensor
    occlusion: Tensor
    strand: Tensor
    layer: Tensor
    hairline_shares: Tensor
    hair_grows: Tensor
    wave: Tensor
    shell_vertices: Tensor
    rim_turn: Tensor
    drape_angle: Tensor
    drape_fall: Tensor
    torso: Tensor
    lash: Tensor
    lash_sparse: Tensor
    eyeball: Tensor

    def __init__(self, model: FaceModel):
        super().__init__()
        regions, kinds = model.regions, np.zeros(len(model.neutral), dtype=np.int64)
        dropped = np.zeros(len(model.neutral), dtype=bool)
        for name, (first, last) in regions.items():
            dropped[first : last + 1] |= name.startswith(_DROPPED)
            for start, kind in _KINDS.items():
                if name.startswith(start):
                    kinds[first : last + 1] = kind
        of_triangles = kinds[model.triangles].max(1)
        front = np.ones(len(model.triangles), dtype=bool)
        # the back of jaws is never seen
        inner = np.isin(of_triangles, (GUMS, TEETH))
        front[inner] = model.neutral[model.triangles[inner]][..., 2].max(1) > 5.0
        used = ~dropped[model.triangles].any(1) & front
        triangles, of_triangles = model.triangles[used], of_triangles[used]
        vertices, inverse = np.unique(triangles, return_inverse=True)
        # those of lashes go last, among what strands decide
        triangles = inverse.reshape(-1, 3)
        lashes = of_triangles == LASHES
        self.num_face = len(vertices)
        place = model.neutral[vertices]
        renumbered = np.full(len(model.neutral), -1)
        renumbered[vertices] = np.arange(len(vertices))
        basis = np.concatenate([model.identities[:, vertices], model.expressions[:, vertices]])
        self.num_modes = len(model.identities)
        self._keep("neutral", place.reshape(-1))
        self._keep("basis", basis.reshape(len(basis), -1))
        self._keep("landmarks", renumbered[model.landmarks])
        narrow = regions.get("narrow_face", (0, 6705))
        self._keep("narrow", renumbered[[v for v in range(narrow[0], narrow[1] + 1) if renumbered[v] >= 0]])
        self._keep("smooth_corners", triangles.T)
        self._keep("neighbours", self._around(triangles, self.num_face).T)
        eyes = [place[(kinds[vertices] == EYE) & (place[:, 0] * sign > 0)] for sign in (1, -1)]
        boxes = [(eye.min(0) + eye.max(0)) / 2 if len(eye) else np.array([3.1, 3.6, 8.0]) for eye in eyes]
        self._keep("eye_centres", np.stack(boxes))
        self._hair(place, kinds[vertices])
        parts = [triangles[~lashes]]
        types = [of_triangles[~lashes]]
        rim, drape, torso = self._rims(), self._drape(), self._torso()
        shell = self._shell_triangles(triangles, of_triangles)
        at = self.num_face
        for sheet, kind, count in ((torso, CLOTH, self.torso.shape[0]), (rim, RIM, self.num_rim)):
            parts.append(sheet + at)
            types.append(np.full(len(sheet), kind))
            at += count
        self.first_sparse = sum(len(part) for part in parts)
        parts.append(triangles[lashes])
        types.append(of_triangles[lashes])
        for _ in range(SHELLS):
            parts.append(shell + at)
            types.append(np.full(len(shell), SHELL))
            at += len(self.shell_vertices)
        parts.append(drape + at)
        types.append(np.full(len(drape), LONG_HAIR))
        self.num_vertices = at + self.drape_angle.numel()
        self._keep("triangles", np.concatenate(parts))
        self._keep("kinds", np.concatenate(types))
        two_sided = torch.isin(self.kinds, torch.tensor([CLOTH, RIM, LASHES, LONG_HAIR]))
        self.register_buffer("two_sided", two_sided, persistent=False)
        self._static(place, kinds[vertices])

    def _keep(self, name: str, values) -> None:
        values = torch.as_tensor(np.ascontiguousarray(values))
        self.register_buffer(name, values.float() if values.is_floating_point() else values.long(), persistent=False)

    @staticmethod
    def _around(triangles: np.ndarray, count: int) -> np.ndarray:
        """Triangles around each vertex, at most 8, filled up with one behind the last."""
        order = np.argsort(triangles.ravel(), kind="stable")
        owners = triangles.ravel()[order]
        rank = np.arange(len(owners)) - np.searchsorted(owners, owners)
        found = np.full((count, _DEGREE), len(triangles))
        few = rank < _DEGREE
        found[owners[few], rank[few]] = order[few] // 3
        return found

    def _hair(self, place: np.ndarray, kinds: np.ndarray) -> None:
        x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
        angle = np.degrees(np.arctan2(x, z - 2.0))
        hats = np.stack([np.interp(angle, HAIRLINE_ANGLES, row) for row in np.eye(len(HAIRLINE_ANGLES))], 1)
        ears = (x > 7.3) & (z > -2.2) & (z < 2.9) & (y > -3) & (y < 4.3)
        self._keep("hairline_shares", hats)
        self._keep("hair_grows", ((kinds == SKIN) & ~ears).astype(np.float32))
        self._keep("wave", np.sin(place[:, 0] * 1.3) + 0.6 * np.sin(place[:, 0] * 2.9 + 1))
        around = np.arctan2(place[:, 0], z - 2.0) / (2 * np.pi)
        rise = np.hypot(place[:, 0], z - 2.0)
        height = np.arctan2(y - 4.0, rise) * 9.0
        self.strand_of_face = np.stack([around * 4 * 256, height * 16], 1)

    def _shell_triangles(self, triangles: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        """Triangles on which hair or a beard may grow; sets their vertices."""
        place = self.neutral.view(-1, 3).numpy()[triangles].mean(1)
        x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
        angle = np.degrees(np.arctan2(x, z - 2.0))
        lowest = np.interp(angle, (0, 30, 66, 83, 90, 110, 128, 180), (5.5, 5.5, 4.5, -1.0, 0.0, 1.5, -5.0, -8.0))
        scalp = y > lowest
        beard = (y < 1.5) & (z > 1.0) & (y > -10) & ((y < -1.0) | (x > 4.5))
        chosen = (kinds == SKIN) & (scalp | beard)
        vertices, inverse = np.unique(triangles[chosen], return_inverse=True)
        self._keep("shell_vertices", vertices)
        return inverse.reshape(-1, 3)

    def _rims(self) -> np.ndarray:
        """Two rims as flat rings, a bridge, two temples."""
        turn = np.linspace(0, 2 * np.pi, _RIM_POINTS)
        self._keep("rim_turn", turn)
        sheets, at = [], 0
        for _ in range(2):
            sheets.append(_grid(_RIM_POINTS, 2, at))
            at += 2 * _RIM_POINTS
        for columns in (5, 4, 4):
            sheets.append(_grid(columns, 2, at))
            at += 2 * columns
        self.num_rim = at
        return np.concatenate(sheets)

    def _drape(self) -> np.ndarray:
        """Hair that hangs around the head from one temple over the neck to the other."""
        share, fall = np.meshgrid(np.linspace(-1, 1, _DRAPE_COLUMNS), np.linspace(0, 1, _DRAPE_ROWS))
        self._keep("drape_angle", share.ravel())
        self._keep("drape_fall", fall.ravel())
        return _grid(_DRAPE_COLUMNS, _DRAPE_ROWS, 0)

    def _torso(self) -> np.ndarray:
        around, down = np.meshgrid(
            np.linspace(0, 2 * np.pi, _TORSO_COLUMNS), np.linspace(0.02, np.pi / 2 + 0.6, _TORSO_ROWS)
        )
        shape = [22 * np.sin(down) * np.sin(around), 9.5 * np.cos(down), 9.5 * np.sin(down) * np.cos(around)]
        self._keep("torso", np.stack(shape, -1).reshape(-1, 3))
        return _grid(_TORSO_COLUMNS, _TORSO_ROWS, 0)

    def _static(self, place: np.ndarray, kinds: np.ndarray) -> None:
        """What stays with a vertex: place, occlusion, strand coordinates, layer; (num_vertices, 7)."""
        shell = self.shell_vertices.numpy()
        occlusion = ambient_occlusion(self, kinds)
        lash = kinds == LASHES
        strand = self.strand_of_face.copy()
        strand[lash] = np.stack([place[lash, 0] * 150, place[lash, 1] * 5], 1)
        drape = np.stack([self.drape_angle.numpy() * 256 * 2.5, self.drape_fall.numpy() * 120], 1)
        torso, rim = self.torso.numpy(), np.zeros((self.num_rim, 3), np.float32)
        layers = [np.full(len(shell), (k + 1) / SHELLS) for k in range(SHELLS)]
        heights = np.concatenate([np.zeros(len(place) + len(torso) + len(rim)), *layers, np.ones(len(drape))])
        shells = np.concatenate([place[shell]] * SHELLS)
        shifted = [strand[shell] + [3.0 * k, 0.0] for k in range(SHELLS)]
        drape_place = np.zeros((len(drape), 3), np.float32)
        self._keep("place", np.concatenate([place, torso, rim, shells, drape_place]))
        ones = [np.ones(len(torso)), np.ones(len(rim)), *[occlusion[shell]] * SHELLS, np.ones(len(drape))]
        self._keep("occlusion", np.concatenate([occlusion, *ones]))
        empty = np.zeros((len(torso) + len(rim), 2))
        self._keep("strand", np.concatenate([strand, empty, *shifted, drape]))
        self._keep("layer", heights)
        # the face and the outermost hair throw shadows
        solid = np.zeros(self.num_vertices, dtype=bool)
        solid[: len(place)] = ~np.isin(kinds, (LASHES, GUMS, TEETH))
        outer = len(place) + len(torso) + len(rim) + (SHELLS - 1) * len(shell)
        solid[outer : outer + len(shell)] = True
        self.register_buffer("solid", torch.from_numpy(solid).nonzero()[:, 0], persistent=False)
        # lashes: next to none along the lower lid, thin at their tips
        centre = np.where(place[:, :1] > 0, self.eye_centres[0].numpy(), self.eye_centres[1].numpy())
        tip = ((np.linalg.norm(place - centre, axis=1) - 1.55) / 0.9).clip(0, 1)
        upper = place[:, 1] > 3.35
        self._keep("lash", np.where(lash & upper, 1.0, 0.0))
        self._keep("lash_sparse", np.where(lash, np.where(upper, 0.3 * tip, 0.94 + 0.07 * tip), 0.0))
        self._keep("eyeball", ((kinds == EYE) * np.where(place[:, 0] > 0, 1, 2)).astype(np.int64))

    def blend(self, identity: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
        """Vertices of faces, at rest and as they are.

        Args:
            identity (`torch.Tensor` of shape `(num_faces, num_modes)`): Weights of identity modes.
            shapes (`torch.Tensor` of shape `(num_faces, 53)`): Weights of expression shapes.

        Returns:
            `tuple` of two `torch.Tensor` of shape `(num_faces, num_face, 3)`, cm.
        """
        still = self.neutral + identity @ self.basis[: self.num_modes]
        moved = still + shapes @ self.basis[self.num_modes :]
        return still.unflatten(1, (-1, 3)), moved.unflatten(1, (-1, 3))

    def normals(self, vertices: Tensor) -> Tensor:
        """Unit normals of the face, (num_faces, num_face, 3)."""
        planes = vertices.permute(2, 0, 1).flatten(0, 1).contiguous()
        a, b, c = (planes.index_select(1, self.smooth_corners[k]).unflatten(0, (3, -1)) for k in range(3))
        (ux, uy, uz), (vx, vy, vz) = b - a, c - a
        faces = torch.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx]).flatten(0, 1)
        faces = functional.pad(faces, (0, 1))
        total = faces.index_select(1, self.neighbours[0])
        for k in range(1, _DEGREE):
            total += faces.index_select(1, self.neighbours[k])
        x, y, z = total.unflatten(0, (3, -1))
        length = (x * x + y * y + z * z).clamp(min=1e-18).rsqrt()
        return torch.stack([x * length, y * length, z * length], 2)

    def hair_share(self, values: dict[str, Tensor]) -> Tensor:
        """How far each vertex of the face lies within the scalp, 0-1; (num_faces, num_face)."""
        line = values["hairline"] @ self.hairline_shares.T
        place = self.neutral.view(-1, 3)
        x, y = place[:, 0], place[:, 1]
        away = (x - values["fringe_place"][:, None]) / values["fringe_width"][:, None]
        front = (place[:, 2] > 3.5).float() * torch.exp(-((x / 6.3) ** 4))
        line = line - values["fringe"][:, None] * torch.exp(-(away**2)) * front
        line = (line + 0.12 * self.wave * (1 - 0.7 * values["hat"][:, None])).float()
        soft = 0.9 - 0.7 * values["hat"][:, None]
        return ((y - line) / soft + 0.3).clamp(0, 1) * self.hair_grows

    def beard_share(self, values: dict[str, Tensor], features: Tensor) -> Tensor:
        """How much beard grows at each vertex of the face, from what `features` (num_face, 3) says of each."""
        parts = torch.stack([values["beard"], values["moustache"], values["goatee"]], 1)
        return (parts[:, None] * features).amax(2).clamp(0, 1)


def ambient_occlusion(geometry: Geometry, kinds: np.ndarray, directions: int = 48) -> np.ndarray:
    """Share of the light from all around that reaches each vertex of the mean face; inner parts by how deep they lie.

    Returns:
        `np.ndarray` of shape `(num_face,)`: 0-1.
    """
    vertices = geometry.neutral.view(1, -1, 3)
    normals = geometry.normals(vertices)
    solid = torch.from_numpy(np.flatnonzero(~np.isin(kinds, (LASHES, GUMS, TEETH))))
    seen, total = torch.zeros(vertices.shape[1]), torch.zeros(vertices.shape[1])
    for k in range(directions):
        height = 1 - 2 * (k + 0.5) / directions
        if height < -0.75:
            continue
        turn = math.pi * (1 + 5**0.5) * k
        flat = math.sqrt(1 - height * height)
        towards = torch.tensor([[math.cos(turn) * flat, height, math.sin(turn) * flat]])
        reached = light_reaches(vertices, normals, towards, solid, cell=0.45)[0]
        weight = (normals[0] @ towards[0]).clamp(min=0)
        seen += reached * weight
        total += weight
    open_share = (seen / total.clamp(min=1e-6)).numpy()
    place = geometry.neutral.view(-1, 3).numpy()
    depth = ((place[:, 2] - 6.8) / 4.0).clip(0.05, 1)
    inner = np.isin(kinds, (GUMS, TEETH))
    open_share = np.where(inner, 0.15 + 0.75 * depth, open_share)
    mouth = (kinds == SOCKET) & (place[:, 1] < 1.0)
    open_share = np.where(mouth, 0.6 * depth**1.5, open_share)
    open_share = np.where(kinds == EYE, 0.55 + 0.45 * open_share, open_share)
    return np.where(kinds == LASHES, 1.0, open_share).clip(0.03, 1)


def light_reaches(vertices: Tensor, normals: Tensor, towards: Tensor, solid: Tensor, cell: float = 0.4) -> Tensor:
    """Whether light from a direction reaches vertices, by the nearest vertex in each cell of a grid across the light.

    Args:
        vertices (`torch.Tensor` of shape `(num_faces, n, 3)`): cm.
        normals (`torch.Tensor` of shape `(num_faces, n, 3)`): Unit normals.
        towards (`torch.Tensor` of shape `(num_faces, 3)`): Unit vectors to the light.
        solid (`torch.Tensor` of shape `(m,)`): Numbers of the vertices that throw shadow.
        cell (`float`, defaults to .4): Width of a cell, cm.

    Returns:
        `torch.Tensor` of shape `(num_faces, n)`: 0-1, softly.
    """
    count, span = len(vertices), int(36 / cell)
    up = torch.tensor([0.0, 1.0, 0.02], device=vertices.device).expand_as(towards)
    right = torch.linalg.cross(up, towards)
    right = right / right.norm(dim=1, keepdim=True).clamp(min=1e-6)
    above = torch.linalg.cross(towards, right)
    lifted = vertices + 0.25 * normals
    axes = torch.stack([right / cell, above / cell, towards], 2)
    along = torch.bmm(vertices, axes[..., 2:])[..., 0]
    cells = []
    for points in (vertices, lifted):
        u, v = (torch.bmm(points, axes[..., :2]) + span / 2).clamp(1, span - 2).unbind(2)
        cells.append((u, v))
    rows = torch.arange(count, device=vertices.device)[:, None] * span * span
    (u, v), (lifted_u, lifted_v) = cells
    index = rows + v.long() * span + u.long()
    nearest = torch.full((count * span * span,), -1e3, device=vertices.device)
    nearest.scatter_reduce_(0, index.index_select(1, solid).flatten(), along.index_select(1, solid).flatten(), "amax")
    limit = along + 0.25 * torch.bmm(normals, towards[..., None])[..., 0] + 0.45
    centre = rows + lifted_v.long() * span + lifted_u.long()
    total = torch.zeros_like(along)
    for step_v in (-1, 0, 1):
        for step_u in (-1, 0, 1):
            total += nearest.take(centre + (step_v * span + step_u)) < limit
    return total / 9


__all__ = [
    "CLOTH",
    "EYE",
    "GUMS",
    "HEAD_CENTRE",
    "LASHES",
    "LONG_HAIR",
    "RIM",
    "SHELL",
    "SHELLS",
    "SKIN",
    "SOCKET",
    "TEETH",
    "Geometry",
    "light_reaches",
]
