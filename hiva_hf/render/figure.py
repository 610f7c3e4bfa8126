"""One figure an image, placed before the camera: vertices of the head and of all that it wears, projected."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .face_model import EXPRESSIONS
from .geometry import HEAD_CENTRE, SHELLS, Geometry, light_reaches

# what of the values of scenes tells how points are projected
CAMERA = ("focal", "extent", "shift")
_BLINKS = [EXPRESSIONS.index(f"eyeBlink_{side}") for side in "LR"]


@dataclass
class Figure:
    """Vertices before the camera.

    Args:
        points (`torch.Tensor` of shape `(num_images, num_vertices, 2)`): In pixels of the square that is drawn.
        nearness (`torch.Tensor` of shape `(num_images, num_vertices)`): 1 / depth, 1/cm; 0 for what is not there.
        positions (`torch.Tensor` of shape `(num_images, num_vertices, 3)`): Turned, cm, about the centre of the head.
        normals (`torch.Tensor` of shape `(num_images, num_vertices, 3)`): Turned.
        lit (`torch.Tensor` of shape `(num_images, num_vertices)`): Whether the key light reaches it.
        hair (`torch.Tensor` of shape `(num_images, num_vertices)`): Within the scalp, or how much beard.
        sparse (`torch.Tensor` of shape `(num_images, num_vertices)`): The rank of a strand below which it is not there.
        camera (`torch.Tensor` of shape `(num_images, 3)`): Its place.
        rotation (`torch.Tensor` of shape `(num_images, 3, 3)`): Of the head.
        lens (`torch.Tensor` of shape `(num_images, 58, 3)`): Outlines of the lenses, turned.
    """

    points: Tensor
    nearness: Tensor
    positions: Tensor
    normals: Tensor
    lit: Tensor
    hair: Tensor
    sparse: Tensor
    camera: Tensor
    rotation: Tensor
    lens: Tensor


def rotation_of(pose: Tensor) -> Tensor:
    """Rotations of a pose.

    Args:
        pose (`torch.Tensor` of shape `(num_images, 3)`):
            Degrees: yaw, positive turns the face to the right of the picture; pitch, positive turns it down; roll,
            positive tilts the head to the left of the picture.

    Returns:
        `torch.Tensor` of shape `(num_images, 3, 3)`.
    """
    (cy, cp, cr), (sy, sp, sr) = (torch.deg2rad(pose).cos().unbind(1), torch.deg2rad(pose).sin().unbind(1))
    zero, one = torch.zeros_like(cy), torch.ones_like(cy)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, 1).unflatten(1, (3, 3))

    about_y = matrix(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_x = matrix(one, zero, zero, zero, cp, -sp, zero, sp, cp)
    about_z = matrix(cr, -sr, zero, sr, cr, zero, zero, zero, one)
    return about_z @ about_x @ about_y


def build_figure(geometry: Geometry, values: dict[str, Tensor], shapes: Tensor, beard_features: Tensor) -> Figure:
    """Compute and turn all vertices; `points` and `nearness` are set by [`project`].

    Args:
        geometry ([`Geometry`]): Of the face model.
        values (`dict[str, torch.Tensor]`): Of [`Scenes`].
        shapes (`torch.Tensor` of shape `(num_images, 53)`): Weights of expression shapes.
        beard_features (`torch.Tensor` of shape `(num_face, 3)`): Where beard, moustache and goatee are.
    """
    count = len(shapes)
    still, face = geometry.blend(values["identity"], shapes)
    # a lid that closes would let the eye show through here and there
    closed = (shapes[:, _BLINKS] - 0.4).clamp(min=0) * 0.22
    back = torch.nn.functional.pad(closed, (1, 0)).index_select(1, geometry.eyeball)
    face[..., 2] -= back
    normals = geometry.normals(face)
    grown = geometry.hair_share(values)
    beard = geometry.beard_share(values, beard_features)
    share = torch.maximum(grown, beard * (values["beard_length"][:, None] > 0))
    shell_faces, shell_normals, shell_sparse, length = _shells(geometry, values, face, normals, grown, beard)
    torso = geometry.torso * values["shoulders"][:, None, None] + face.new_tensor([0.0, -25.5, -3.0])
    rims, rim_normals, lens = _rims(geometry, values, still)
    drape, drape_normals = _drape(geometry, values)
    there = drape.new_ones(count, drape.shape[1])
    turn = rotation_of(values["pose"])
    centre = face.new_tensor(HEAD_CENTRE)
    body = rotation_of(values["pose"] * face.new_tensor([0.35, 0.2, 0.2]))
    head = torch.cat([face, rims, *shell_faces, drape], 1)
    head_normals = torch.cat([normals, rim_normals, *shell_normals, drape_normals], 1)
    head = (head - centre) @ turn.transpose(1, 2)
    head_normals = head_normals @ turn.transpose(1, 2)
    torso = (torso - centre) @ body.transpose(1, 2)
    torso_normals = torch.nn.functional.normalize(
        geometry.torso / geometry.torso.new_tensor([22.0, 9.5, 9.5]) ** 2, dim=1
    )
    torso_normals = torso_normals @ body.transpose(1, 2)
    first = geometry.num_face
    positions = torch.cat([head[:, :first], torso, head[:, first:]], 1)
    all_normals = torch.cat([head_normals[:, :first], torso_normals, head_normals[:, first:]], 1)
    plain = torch.zeros(count, torso.shape[1] + rims.shape[1], device=face.device)
    hair = torch.cat([share, plain, *[share[:, geometry.shell_vertices]] * SHELLS, there], 1)
    lash = values["lash_thinning"][:, None] * geometry.lash + geometry.lash_sparse
    fall, side = geometry.drape_fall, geometry.drape_angle.abs()
    ragged = (fall - 0.75).clamp(min=0) * 3.2 + (side - 0.86).clamp(min=0) * 5
    ragged = ragged.expand(count, -1) * (1 - values["scarf"][:, None])
    sparse = torch.cat([lash, plain, *shell_sparse, ragged], 1)
    lit = light_reaches(positions, all_normals, values["key"], geometry.solid)
    empty = positions.new_zeros(0)
    nearness = _presence(geometry, values, length)
    return Figure(
        empty, nearness, positions, all_normals, lit, hair, sparse, empty, turn, (lens - centre) @ turn.transpose(1, 2)
    )


def _presence(geometry: Geometry, values: dict[str, Tensor], grown: Tensor) -> Tensor:
    """1 for vertices of what is there; 0 for the others, so that no triangle with them is drawn.

    `grown` (num_images, num_shell) tells how long hair is at each vertex of a shell, cm.
    """
    count = len(grown)

    def part(number: int, there: Tensor) -> Tensor:
        return there[:, None].float().expand(count, number)

    always = grown.new_ones(count)
    shell = (grown > 0.02).float()
    return torch.cat([
        part(geometry.num_face + len(geometry.torso), always),
        part(geometry.num_rim, values["glasses"]),
        *[shell] * SHELLS,
        part(len(geometry.drape_angle), values["long_hair"] > 0),
    ], 1)  # fmt: skip


def _shells(geometry, values, face, normals, grown, beard):
    """Copies of the scalp and the beard, further and further out, and how sparse strands are on them."""
    at = geometry.shell_vertices
    base, out = face[:, at], normals[:, at]
    hair, hairs = grown[:, at], beard[:, at]
    place = geometry.neutral.view(-1, 3)[at]
    hat = values["hat"][:, None]
    # a parting, and more volume on top than at the sides
    parted = 1 - 0.45 * torch.exp(-(((place[:, 0] - values["parting"][:, None]) / 0.5) ** 2)) * (1 - hat)
    volume = (0.55 + 0.45 * ((place[:, 1] - 2) / 9).clamp(0, 1)) * parted
    length = values["hair_length"][:, None] * (hair * 1.3 - 0.1).clamp(0, 1).sqrt() * volume
    long_beard = values["beard_length"][:, None] * (hairs * 1.3 - 0.1).clamp(0, 1).sqrt()
    length = torch.maximum(length, long_beard)
    # a beard that is not worn long has no shells
    share = torch.maximum(hair, hairs * (values["beard_length"][:, None] > 0))
    share = share * (length > 0.02)
    faces, outs, sparse = [], [], []
    for k in range(SHELLS):
        height = (k + 1) / SHELLS
        lean = out + out.new_tensor([0.0, -0.35, -0.1]) * height * (1 - hat[..., None])
        faces.append(base + lean * (length * height)[..., None])
        outs.append(out)
        strands = 0.10 + 0.5 * height + 1.3 * (1 - (share * 1.25).clamp(0, 1))
        solid = torch.where(share > 0.3, 0.0, 2.0)
        sparse.append(torch.where((hat > 0) & (hairs < 0.1), solid, strands))
    return faces, outs, sparse, length


def _rims(geometry, values, still):
    """Rims, bridge and temples, and the outline of the lenses as (num_images, 2 * 29, 3)."""
    marks = geometry.landmarks[[27, 39, 42]]
    shift = (still[:, marks] - geometry.neutral.view(-1, 3)[marks]).mean(1)
    turn, power = geometry.rim_turn, values["rim_power"][:, None]
    wide, tall = values["rim_width"][:, None], values["rim_height"][:, None]
    cosine, sine = turn.cos(), turn.sin()
    across, up = cosine.sign() * cosine.abs() ** (1 / power), sine.sign() * sine.abs() ** (1 / power)
    thick = values["rim_thickness"][:, None] * (1 - values["rimless"][:, None] * (up < 0.1).float() * 0.8)
    drop = values["rim_drop"][:, None]
    parts, lens = [], []
    for side in (-1.0, 1.0):
        for out in (thick, torch.zeros_like(thick)):
            x = side * 3.3 + across * (wide + out)
            parts.append(torch.stack([x, 3.1 + drop + up * (tall + out), 11.2 - 0.045 * x**2], 2))
        lens.append(parts[-1][:, :-1])
    bar = values["rim_thickness"][:, None] * 0.6
    step = torch.linspace(-1, 1, 5, device=turn.device)
    for lift in (bar, -bar):
        x = (step * (3.3 - wide)).expand(len(wide), -1)
        parts.append(torch.stack([x, 3.8 + drop + 0.15 * (1 - step**2) + lift, 11.25 - 0.02 * x**2], 2))
    for side in (-1.0, 1.0):
        for lift in (bar, -bar):
            edge = 3.3 + wide
            x = side * torch.cat([edge, 0 * edge + 7.5, 0 * edge + 8.3, 0 * edge + 8.3], 1)
            y = 3.8 + drop + lift + torch.zeros_like(x)
            z = torch.cat([11.2 - 0.045 * edge**2, 0 * edge + 8.2, 0 * edge + 3.0, 0 * edge], 1)
            parts.append(torch.stack([x, y, z], 2))
    rims = torch.cat(parts, 1) + shift[:, None]
    facing = rims.new_tensor([0.0, 0.35, 0.94]).expand_as(rims)
    return rims, facing, torch.cat(lens, 1) + shift[:, None]


def _drape(geometry, values):
    """Long hair, or a scarf."""
    fall, share = geometry.drape_fall, geometry.drape_angle
    opening = torch.deg2rad(values["long_hair_opening"])[:, None]
    # from the opening on one side over the back to the other
    angle = torch.pi + share * (torch.pi - opening)
    angle = angle + share * fall * 0.10
    lower = 7.0 - fall * (8.0 + 16.0 * values["long_hair"][:, None])
    bulge = torch.sin(fall.clamp(max=0.55) / 0.55 * torch.pi / 2)
    thick = 0.4 * values["hair_length"].clamp(max=2.0)[:, None]
    radius = 7.4 + 1.5 * bulge + thick - 0.9 * (fall - 0.6).clamp(min=0)
    waves = 0.25 * torch.sin(lower * 1.1 + share * 9 + values["strand_shift"][:, :1]) * values["curls"][:, None]
    x, z = (radius + waves) * angle.sin(), 1.0 + (radius + waves) * angle.cos() * 0.95
    sheet = torch.stack([x, lower, z], 2)
    out = torch.stack([angle.sin(), torch.full_like(angle, 0.15), angle.cos()], 2)
    return sheet, torch.nn.functional.normalize(out, dim=2)


def project(figure: Figure, values: dict[str, Tensor], size: int) -> None:
    """Set `points`, `nearness` and `camera` of a figure for a square of so many pixels."""
    focal = values["focal"][:, None]
    distance = focal * 20.0 / values["extent"][:, None]
    depth = distance - figure.positions[..., 2]
    near = torch.where(depth > 1.0, 1.0 / depth.clamp(min=1.0), 0.0)
    scale = (focal * size * near)[..., None]
    middle = size / 2 + values["shift"] * size
    flip = figure.positions.new_tensor([1.0, -1.0])
    figure.points = middle[:, None] + scale * figure.positions[..., :2] * flip
    figure.nearness = near * figure.nearness
    figure.camera = torch.cat([torch.zeros_like(distance).expand(-1, 2), distance], 1)


def project_points(positions: Tensor, values: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Pixels and nearness of any turned positions, (num_images, n, 2) and (num_images, n)."""
    focal = values["focal"].view(-1, *[1] * (positions.ndim - 2))
    depth = focal * 20.0 / values["extent"].view_as(focal) - positions[..., 2]
    near = 1.0 / depth.clamp(min=1.0)
    middle = size / 2 + values["shift"] * size
    middle = middle.view(len(middle), *[1] * (positions.ndim - 2), 2)
    flip = positions.new_tensor([1.0, -1.0])
    return middle + (focal * size * near)[..., None] * positions[..., :2] * flip, near


__all__ = ["CAMERA", "Figure", "build_figure", "project", "project_points", "rotation_of"]
