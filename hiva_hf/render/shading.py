"""From what each pixel shows to its light: skin, eyes, mouth, hair, and the lamps.

All planes have the shape (num_images, num_pixels); colours have three of them in front: (3, num_images, num_pixels).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from . import atlas
from .geometry import CLOTH, EYE, GUMS, LASHES, LONG_HAIR, RIM, SHELL, SKIN, SOCKET, TEETH, Geometry
from .rasterizer import true_places


@dataclass
class Surface:
    """What the pixels show.

    Args:
        kind (`torch.Tensor`): int64; -1 is the background.
        normal, position, place (`torch.Tensor` of shape `(3, num_images, num_pixels)`):
            Unit normal and position before the camera, and the place on the mean face.
        lit, hair, occlusion, layer (`torch.Tensor`): As of the vertices.
        strand (`torch.Tensor` of shape `(2, num_images, num_pixels)`): Coordinates along and across hair, in texels.
    """

    kind: Tensor
    normal: Tensor
    position: Tensor
    place: Tensor
    lit: Tensor
    hair: Tensor
    occlusion: Tensor
    layer: Tensor
    strand: Tensor


class Shader(torch.nn.Module):
    """Colours surfaces.

    Args:
        geometry ([`Geometry`]): Of the face model.
    """

    maps: Tensor
    folds: Tensor
    noise: Tensor
    eye_centres: Tensor
    beard_features: Tensor

    def __init__(self, geometry: Geometry):
        super().__init__()
        places = geometry.neutral.view(-1, 3)
        maps = atlas.feature_maps(places[geometry.landmarks].numpy())
        self.register_buffer("maps", maps, persistent=False)
        self.register_buffer("folds", atlas.fold_maps(), persistent=False)
        self.register_buffer("noise", atlas.noise_texture(), persistent=False)
        self.register_buffer("eye_centres", geometry.eye_centres, persistent=False)
        rows = [atlas.FEATURES.index(name) for name in ("beard", "moustache", "goatee")]
        at = _grid_of(places[:, 0], places[:, 1])[None, None]
        beards = functional.grid_sample(maps[:, rows], at, align_corners=False)[0, :, 0].T
        front = (places[:, 2] > 1.5).float()[:, None]
        lips = functional.grid_sample(maps[:, :1], at, align_corners=False)[0, 0, 0]
        self.register_buffer("beard_features", beards * front * (1 - lips[:, None]), persistent=False)

    def noise_at(self, u: Tensor, v: Tensor, channels: slice) -> Tensor:
        """The noise at coordinates in texels; (channels, *shape of u)."""
        size = self.noise.shape[-1]
        flat = torch.stack([u - (u / size).floor() * size, v - (v / size).floor() * size], -1)
        # the last texel is met by the first one less than a texel away: nearly seamless
        grid = (flat * (2.0 / (size - 1)) - 1.0).clamp(-1, 1).view(1, 1, -1, 2)
        found = functional.grid_sample(self.noise[:, channels], grid, align_corners=True, padding_mode="border")
        return found[0, :, 0].view(-1, *u.shape)

    def strand_rank(self, u: Tensor, v: Tensor) -> Tensor:
        """The rank of the strand at coordinates in texels, without smoothing."""
        size = self.noise.shape[-1]
        # a power of two: its bits take the remainder, of negative numbers too
        index = ((v.floor().long() & (size - 1)) * size) + (u.floor().long() & (size - 1))
        return self.noise[0, 3].flatten().take(index)

    def fold_heights(self, values: dict[str, Tensor], strength: Tensor) -> Tensor:
        """Height and slopes of the wrinkles of each face; (num_images, 3, HEIGHT, WIDTH)."""
        groups = len(atlas.FOLDS)
        active = strength.new_zeros(len(strength), groups)
        for row, name in enumerate(atlas.FOLDS):
            if name in _COLUMNS:
                active[:, row] = strength[:, _COLUMNS[name]] ** 1.3
        weight = values["fold_depth"][:, None] * active + values["resting_folds"] * 0.8
        variant = (values["fold_variant"] * (atlas.VARIANTS - 1)).unsqueeze(2)
        steps = torch.arange(atlas.VARIANTS, device=strength.device)
        share = (1 - (variant - steps).abs()).clamp(min=0)
        height = (weight[..., None] * share).flatten(1) @ self.folds
        height = height.unflatten(1, (1, atlas.HEIGHT, atlas.WIDTH))
        cell = (atlas.X_RANGE[1] - atlas.X_RANGE[0]) / atlas.WIDTH
        right = functional.pad(height[..., 2:] - height[..., :-2], (1, 1)) / (2 * cell)
        up = functional.pad(height[..., :-2, :] - height[..., 2:, :], (0, 0, 1, 1)) / (2 * cell)
        return torch.cat([height, right, up], 1)

    def forward(self, surface: Surface, values: dict[str, Tensor], strength: Tensor, rotation: Tensor, camera: Tensor):
        """Light of each pixel.

        Args:
            surface ([`Surface`]): What the pixels show.
            values (`dict[str, torch.Tensor]`): Of [`Scenes`].
            strength (`torch.Tensor` of shape `(num_images, 22)`): Of action units, for wrinkles.
            rotation (`torch.Tensor` of shape `(num_images, 3, 3)`): Of the head.
            camera (`torch.Tensor` of shape `(num_images, 3)`): Its place.

        Returns:
            `tuple`: Linear light, (3, num_images, num_pixels), undefined in the background; and where cloth hides the
            face, bool of shape (num_images, num_pixels).
        """
        kind = surface.kind
        x, y, z = surface.place
        grid = _grid_of(x, y)
        maps = functional.grid_sample(self.maps, grid.view(1, 1, -1, 2), align_corners=False, padding_mode="border")
        maps = maps[0, :, 0].view(-1, *x.shape)
        folds = functional.grid_sample(self.fold_heights(values, strength), grid[:, None], align_corners=False)
        front = atlas.smooth((z - 2.0) / 3.0)
        height, slope_x, slope_y = (folds[:, k, 0] * front for k in range(3))
        is_skin = kind == SKIN
        around = torch.atan2(x, z + 1.0) * 10.0
        albedo, gloss = self._skin(values, maps, around, x, y, z, surface, front)
        normal = surface.normal
        # furrows tilt the normal against their slope, along the axes of the head
        bend_x, bend_y = ((-slope * is_skin).clamp(-0.8, 0.8) for slope in (slope_x, slope_y))
        normal = normal + rotation[:, :, 0].T[:, :, None] * bend_x + rotation[:, :, 1].T[:, :, None] * bend_y
        cavity = torch.where(is_skin, torch.exp(height.clamp(max=0) * 6.0), 1.0)
        worn = self._mask(values, is_skin | (kind == SOCKET) | (kind == TEETH) | (kind == GUMS), x, y, z)
        away = unit(surface.position)
        normal = torch.where(worn, away + 0.15 * normal, normal)
        normal = unit(normal)
        strands = self.noise_at(surface.strand[0], surface.strand[1], slice(3, 4))[0]
        albedo = self._others(albedo, values, kind, strands, surface, worn)
        albedo, gloss, sharp = self._eyes(albedo, gloss, values, kind, surface)
        return self._light(albedo, gloss, sharp, normal, cavity, surface, values, camera, kind, worn), worn

    def _skin(self, values, maps, around, x, y, z, surface, front):
        """Albedo and gloss of skin, brows, beard and shaved scalp."""
        v = {name: values[name][:, None] for name in _SKIN_NUMBERS}
        f = dict(zip(atlas.FEATURES, maps * front, strict=True))
        shift_u, shift_v = values["noise_shift"][:, :1], values["noise_shift"][:, 1:]
        broad = self.noise_at(around * 1.1 + shift_u, y * 1.1 + shift_v, slice(0, 2))
        middle = self.noise_at(around * 4.3 + shift_v, y * 4.3 + shift_u, slice(0, 2))
        fine = self.noise_at(around * 17.0 + shift_u, y * 17.0 - shift_v, slice(1, 3))
        smoothness = v["smoothness"]
        bright = smoothness * (0.045 * broad[0] + 0.035 * middle[0] + v["grain"] * (0.03 * fine[0] + 0.04 * fine[1]))
        blood = 0.25 * v["redness"] * f["red"] + smoothness * v["blotches"] * (0.06 * broad[1] + 0.05 * middle[1])
        dark = 0.6 * v["shadows_of_eyes"] * f["eye_shade"] + 0.35 * v["bags"] * f["bags"]
        spots = v["freckles"] * ((fine[0] + 0.4 * middle[1] - 1.0) * 1.3).clamp(0, 1)
        spots = spots * torch.exp(-(((y - 0.8) / 3.2) ** 2)) + v["moles"] * ((fine[1] - 3.1) * 2).clamp(0, 1)
        shadow = v["eyeshadow"] * f["eyeshadow"]
        blush = v["blush"] * f["blush"] * 0.35
        liner = 1.3 * v["eyeliner"] * f["eyeliner"]
        channels = []
        rosy, dusky = (0.10, 1.0, 0.85), (0.6, 0.9, 1.1)
        for k in range(3):
            fall = blood * rosy[k] + blush * rosy[k] + dark * (0.55, 0.75, 0.7)[k] + 0.8 * spots * dusky[k]
            fall = fall + shadow * values["eyeshadow_colour"][:, k : k + 1] + liner - bright
            channels.append(values["skin"][:, k : k + 1] * torch.exp(-fall))
        colour = torch.stack(channels)
        lips = v["lip_strength"] * f["lips"]
        grooves = 1 + 0.10 * fine[1]
        colour = colour + lips * (_rows(values["lips"]) * grooves - colour)
        brow = self._brows(v, x, y, front, around)
        colour = colour + brow * (_rows(values["brow_colour"]) * (1 + 0.25 * fine[1]) - colour)
        stubble = torch.maximum(
            torch.maximum(v["beard"] * f["beard"], v["moustache"] * f["moustache"]), v["goatee"] * f["goatee"]
        )
        stubble = (stubble * (1 - f["lips"]) * (0.70 + 0.20 * fine[1])).clamp(0, 0.94)
        colour = colour + stubble * (_rows(values["beard_colour"]) - colour)
        # what grows out in shells is hair below them as well
        bearded = f["beard"].maximum(f["moustache"]).maximum(f["goatee"]) > 0.05
        scalp = torch.where(bearded & (y < 3), 0.0, surface.hair * v["scalp"])
        scalp = (scalp * (0.9 + 0.2 * fine[1])).clamp(0, 1)
        under = torch.where(v["hat"] > 0, _rows(values["hat_colour"]), _rows(values["hair"]) * 0.8)
        colour = colour + scalp * (under - colour)
        clothed = atlas.smooth((v["collar"] - (y + 0.10 * z)) / 0.3 + 0.5)
        colour = colour + clothed * (_rows(values["cloth"]) - colour)
        gloss = v["oil"] * f["oil"] * (1 + 0.35 * fine[1] * smoothness) + 1.1 * lips
        return colour, gloss * (1 - 0.8 * stubble) * (1 - 0.85 * scalp) * (1 - clothed) * (1 - 0.7 * brow)

    def _brows(self, v, x, y, front, around):
        side = x.abs()
        line = 6.02 + v["brow_height"] + v["brow_tilt"] * (side - 3.3)
        outer = (side - 3.3).clamp(min=0)
        inner = (3.3 - side).clamp(min=0)
        line = line - v["brow_arch"] * (0.13 * outer**2 + 0.06 * inner**2)
        share = ((side - v["brow_inner"]) / (v["brow_outer"] - v["brow_inner"])).clamp(0, 1)
        thick = v["brow_thickness"] * (1 - 0.62 * share**1.5)
        ends = atlas.smooth((side - v["brow_inner"]) / 0.35 + 0.5) * atlas.smooth((v["brow_outer"] - side) / 0.5 + 0.5)
        cover = atlas.smooth((1.15 - (y - line).abs() / thick) / 0.6)
        # single hairs lean outwards
        hairs = self.noise_at(side * 34.0 - (y - line) * 22.0, (y - line) * 26.0 + side * 6, slice(3, 4))[0]
        strength = v["brow_density"] * (0.45 + 0.75 * hairs)
        return (cover * ends * strength * front).clamp(0, 0.95)

    def _mask(self, values, on_face, x, y, z):
        """Where cloth covers mouth and nose."""
        worn = (values["cover"] == 4)[:, None]
        top = values["mask_top"][:, None] - 0.10 * x.abs()
        return worn & on_face & (y < top) & (y > -7.4 + 0.25 * x.abs()) & (z > 3.2)

    def _others(self, albedo, values, kind, strands, surface, worn):
        """Albedo of what is not skin."""
        depth = 0.35 + 0.65 * surface.layer
        scarf = (values["scarf"][:, None] > 0) & (kind == LONG_HAIR)
        covered = (values["hat"][:, None] > 0) & (kind != LONG_HAIR) | scarf
        hair = torch.where(covered, _rows(values["hat_colour"]), _rows(values["hair"]))
        hair = hair * torch.where(covered, 0.85 + 0.15 * strands, (0.35 + 1.1 * strands) * depth)
        bearded = (surface.place[1] < 1.6) & (surface.place[2] > 1.5) & (kind == SHELL)
        beard = _rows(values["beard_colour"]) * (0.4 + 0.9 * strands) * depth
        hair = torch.where(bearded & (surface.place[0].abs() < 7.6), beard, hair)
        stripes = torch.sin(surface.place[1] * 2.5) * torch.sin(surface.place[0] * 1.3)
        cloth = _rows(values["cloth"]) * (1 - 0.6 * values["cloth_pattern"][:, None] * (stripes > 0.1).float())
        inner = values["gums"].mul(values["gums"].new_tensor([0.55, 0.4, 0.4]))
        for chosen, colour in (
            (kind == SOCKET, _rows(inner)), (kind == GUMS, _rows(values["gums"])),
            (kind == TEETH, _rows(values["teeth"])),
            (kind == CLOTH, cloth), (kind == RIM, _rows(values["rim_colour"])),
            (kind == LASHES, _rows(values["brow_colour"] * 0.25)), ((kind == SHELL) | (kind == LONG_HAIR), hair),
            (worn, _rows(values["mask_colour"])),
        ):  # fmt: skip
            albedo = torch.where(chosen, colour, albedo)
        return albedo

    def _eyes(self, albedo, gloss, values, kind, surface):
        """Iris, pupil and white; and how glossy what is not skin is."""
        table = gloss.new_tensor([1.0, 0.6, 1.3, 1.1, 2.2, 0.05, 2.0, 0.0, 1.1, 1.1, 0.0])
        sharp = gloss.new_tensor([13.0, 30.0, 45.0, 50.0, 220.0, 8.0, 70.0, 8.0, 16.0, 16.0, 8.0])[kind]
        gloss = torch.where(kind == SKIN, gloss, table[kind])
        at = true_places(kind == EYE)
        image = at // kind.shape[1]
        x, y = surface.place[0].flatten()[at], surface.place[1].flatten()[at]
        centre = self.eye_centres[(x < 0).long()]
        dx, dy = x - centre[:, 0], y - centre[:, 1]
        away, turn = torch.hypot(dx, dy), torch.atan2(dy, dx)
        iris, pupil = values["iris_size"][image], values["pupil"][image]
        ray = 1 + 0.22 * torch.sin(turn * 23 + 3 * torch.sin(turn * 7)) + 0.1 * torch.sin(turn * 11)
        ring = ((iris * 1.02 - away) / 0.10).clamp(0.25, 1) * (0.6 + 0.6 * (away / iris).clamp(max=1))
        coloured = values["iris"][image] * (ray * ring)[:, None]
        coloured = coloured * ((away - pupil) / 0.04).clamp(0.03, 1)[:, None]
        white = values["sclera"][image] * torch.exp(
            -(away[:, None] - 0.7).clamp(min=0) * away.new_tensor([0.25, 0.7, 0.65])
        )
        share = atlas.smooth((away - iris) / 0.05 + 0.5)[:, None]
        found = coloured * (1 - share) + white * share
        flat = albedo.flatten(1)
        flat[:, at] = found.T
        return flat.view_as(albedo), gloss, sharp

    def _light(self, albedo, gloss, sharp, normal, cavity, surface, values, camera, kind, worn):
        soft = ((kind == SKIN) & ~worn).float()
        inner = ((kind == GUMS) | (kind == TEETH) | ((kind == SOCKET) & (surface.place[1] < 1.5))) & ~worn
        lit = torch.where(inner, 0.3 + 0.3 * surface.lit, surface.lit)
        lit = torch.where(kind == CLOTH, 1.0, lit)
        contrast = values["shadow_softness"][:, None] * 0.45
        lit = contrast + (1 - contrast) * lit
        nx, ny, nz = normal
        slope, bend = values["ambient_slope"], values["ambient_bend"]
        sky = 1 + nx * slope[:, :1] + ny * slope[:, 1:2] + nz * slope[:, 2:]
        sky = sky + (nx**2 - 1 / 3) * bend[:, :1] + (ny**2 - 1 / 3) * bend[:, 1:2] + (nz**2 - 1 / 3) * bend[:, 2:]
        sky = sky.clamp(min=0.06)
        view = unit(camera.T[:, :, None] - surface.position)
        facing = dot(normal, view).clamp(0, 1)
        edge = 0.03 + 0.35 * (1 - facing) ** 5
        shut = torch.where(worn, 0.85, surface.occlusion * cavity)
        total = [values["ambient"][:, k : k + 1] * sky * shut ** (0.8, 1.0, 1.05)[k] for k in range(3)]
        shines = []
        for name, reach in (("key", lit), ("fill", shut), ("rim", shut)):
            towards = values[name].T[:, :, None]
            cosine = dot(normal, towards)
            # light goes around the edge of skin a little, red furthest
            for k, around in enumerate((0.30, 0.13, 0.08)):
                wrapped = ((cosine + around * soft) / (1 + around * soft)).clamp(0, 1)
                dim = reach * (0.35 + 0.65 * shut) if name == "key" else reach
                total[k] = total[k] + values[f"{name}_light"][:, k : k + 1] * wrapped * dim
            mirror = dot(normal, unit(towards + view)).clamp(1e-4, 1)
            shine = torch.exp(sharp * mirror.log()) * (sharp + 8) / 25.0 * edge * gloss * reach
            shines.append((shine * (cosine * 4).clamp(0, 1), values[f"{name}_light"]))
        outcome = []
        for k in range(3):
            light = albedo[k] * total[k] + 0.2 * values["ambient"][:, k : k + 1] * edge * gloss * surface.occlusion
            for shine, colour in shines:
                light = light + shine * colour[:, k : k + 1]
            outcome.append(light)
        return torch.stack(outcome)


def exposure_of(values: dict[str, Tensor]) -> Tensor:
    """The factor that brings skin to a usual brightness, (num_images,), from the lamps alone: no pixel is asked."""
    weights = values["skin"].new_tensor([0.3, 0.59, 0.11])
    facing = values["key"][:, 2].clamp(min=0.1)
    light = 0.85 * values["ambient"] + (0.35 + 0.5 * facing[:, None]) * values["key_light"] + 0.3 * values["fill_light"]
    reached = ((light * values["skin"]) @ weights).clamp(min=1e-3)
    aim = 0.41 * values["exposure"] * (0.40 + 0.60 * (1 - values["skin_tone"]))
    return (aim / reached).clamp(0.15, 8.0)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Products of vectors whose numbers come first; by hand, for a sum over so short a first dimension is slow."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(vectors: Tensor) -> Tensor:
    """The same directions, of length 1."""
    return vectors * dot(vectors, vectors).clamp(min=1e-12).rsqrt()


def _rows(colour: Tensor) -> Tensor:
    """(num_images, 3) as (3, num_images, 1)."""
    return colour.T[:, :, None]


def _grid_of(x: Tensor, y: Tensor) -> Tensor:
    """Places on the mean face as coordinates of the maps, -1 to 1."""
    u = (x - atlas.X_RANGE[0]) / (atlas.X_RANGE[1] - atlas.X_RANGE[0]) * 2 - 1
    v = (atlas.Y_RANGE[1] - y) / (atlas.Y_RANGE[1] - atlas.Y_RANGE[0]) * 2 - 1
    return torch.stack([u, v], -1)


_SKIN_NUMBERS = (
    "smoothness", "redness", "blotches", "grain", "shadows_of_eyes", "bags", "freckles", "moles", "eyeshadow", "blush",
    "eyeliner", "lip_strength", "oil", "scalp", "collar", "hat", "beard", "moustache", "goatee", "brow_height",
    "brow_tilt", "brow_arch", "brow_inner", "brow_outer", "brow_thickness", "brow_density",
)  # fmt: skip


def _columns() -> dict[str, int]:
    from .action_units import RENDERED_AUS

    return {name: k for k, name in enumerate(RENDERED_AUS)}


_COLUMNS = _columns()

__all__ = ["Shader", "Surface", "dot", "exposure_of", "unit"]
