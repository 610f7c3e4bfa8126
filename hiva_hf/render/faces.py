"""Pictures of faces, rendered in batches on any device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..faces.alignment import FaceTemplate
from .action_units import RENDERED_AUS
from .damage import damage
from .face_model import FaceModel
from .figure import CAMERA, Figure, build_figure, project, project_points
from .geometry import SHELL, Geometry
from .layers import background, covering, lenses
from .rasterizer import barycentric, rasterize
from .scene import Scenes, sample_scenes
from .shading import Shader, Surface, dot, exposure_of

# a point is moved by an action unit where it moves by more than this share of the distance of the eyes
MOVED = 0.02


@dataclass
class RenderedBatch:
    """Pictures and what is in them.

    Args:
        images (`torch.Tensor` of shape `(num_images, 3, size, size)`): uint8, RGB.
        occurrence (`torch.Tensor` of shape `(num_images, 22)`): 1 from level A on, in the order of `RENDERED_AUS`.
        intensity (`torch.Tensor` of shape `(num_images, 22)`): float32, 0-5.
        landmarks (`torch.Tensor` of shape `(num_images, 68, 2)`): Multi-PIE points, pixels.
        boxes (`torch.Tensor` of shape `(num_images, 4)`): x0, y0, x1, y1 of the face, pixels.
        pose (`torch.Tensor` of shape `(num_images, 3)`): Yaw, pitch, roll, degrees; of the head before the camera.
        skin_tone (`torch.Tensor` of shape `(num_images,)`): 0 light to 1 dark.
        occluded, glasses (`torch.Tensor` of shape `(num_images,)`): bool.
        subjects, frames (`torch.Tensor` of shape `(num_images,)`): int64.
        masks (`torch.Tensor` of shape `(num_images, 22, size, size)`, *optional*):
            bool, the visible pixels whose point of the face each action unit moved; empty where it is absent.
    """

    images: Tensor
    occurrence: Tensor
    intensity: Tensor
    landmarks: Tensor
    boxes: Tensor
    pose: Tensor
    skin_tone: Tensor
    occluded: Tensor
    glasses: Tensor
    subjects: Tensor
    frames: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


class FaceRenderer:
    """Renders scenes.

    Args:
        model ([`FaceModel`]): The face model.
        size (`int`, defaults to 160): Side of the pictures in pixels.
        device (`str` or `torch.device`, defaults to `"cpu"`): Where.
        chunk (`int`, *optional*): Pictures at once; by default 4 on the CPU and 64 elsewhere.
        oversampling (`int`, defaults to 2): Pixels that are drawn along each side of a pixel.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        model: FaceModel,
        size: int = 160,
        device: str | torch.device = "cpu",
        chunk: int | None = None,
        oversampling: int = 2,
    ):
        self.device = torch.device(device)
        self.chunk = (4 if self.device.type == "cpu" else 64) if chunk is None else chunk
        if not 32 <= size <= 512 or self.chunk < 1 or not 1 <= oversampling <= 4 or size * oversampling > 1024:
            raise ValueError(
                "`size` must be 32 to 512, `chunk` at least 1, `oversampling` 1 to 4 and size * oversampling at most "
                f"1024; got {size}, {self.chunk}, {oversampling}."
            )
        self.size, self.oversampling = size, oversampling
        geometry = Geometry(model)
        self.shader = Shader(geometry).to(self.device)
        self.geometry = geometry.to(self.device)
        self.num_modes = geometry.num_modes
        self._template = torch.tensor(FaceTemplate().points, dtype=torch.float32, device=self.device)

    def sample(self, subjects, frames, seed: int = 0) -> Scenes:
        """[`sample_scenes`] with the identity modes of this face model."""
        return sample_scenes(subjects, frames, seed=seed, num_modes=self.num_modes)

    def render(self, scenes: Scenes, *, size: int | None = None, masks: bool = False) -> RenderedBatch:
        """Render pictures as a camera takes them, the face not aligned.

        Args:
            scenes ([`Scenes`]): From [`FaceRenderer.sample`]; on any device.
            size (`int`, *optional*): Side in pixels; by default that of the renderer.
            masks (`bool`, defaults to `False`): Also tell which pixels each action unit moved.

        Returns:
            [`RenderedBatch`] on the device of the renderer.
        """
        return self._render(scenes, size or self.size, masks, None)

    def aligned(
        self, scenes: Scenes, *, size: int | None = None, jitter: float = 1.0, masks: bool = False
    ) -> RenderedBatch:
        """Render crops as `hiva_hf.faces` cuts them out: the camera is set so that no pixel is sampled twice.

        Args:
            scenes ([`Scenes`]): As for [`FaceRenderer.render`].
            size (`int`, *optional*): Side of the crop in pixels.
            jitter (`float`, defaults to 1.0):
                How far crops are off, as those of a landmark detector are: at 1 the places vary by 1.5 % of the side,
                the scale by 4 % and the angle by 2.5 degrees (standard deviations).
            masks (`bool`, defaults to `False`): As for [`FaceRenderer.render`].

        Returns:
            [`RenderedBatch`]; landmarks and boxes are those in the crop.
        """
        return self._render(scenes, size or self.size, masks, jitter)

    # not inference_mode: what comes out is trained on
    @torch.no_grad()
    def _render(self, scenes: Scenes, size: int, masks: bool, jitter: float | None) -> RenderedBatch:
        if not 32 <= size <= 512 or size * self.oversampling > 1024:
            raise ValueError(f"`size` must be 32 to 512, and size * oversampling at most 1024; got {size}.")
        # places of vertices need more digits than a training in half precision would leave them
        with torch.autocast(self.device.type, enabled=False):
            return self._whole(scenes, size, masks, jitter)

    def _whole(self, scenes: Scenes, size: int, masks: bool, jitter: float | None) -> RenderedBatch:
        parts = []
        for start in range(0, len(scenes), self.chunk):
            piece = scenes[start : start + self.chunk]
            count = len(piece)
            if count < self.chunk:
                # sums in a matrix product depend on its shape in their last digit: it is always the same
                piece = piece[torch.arange(self.chunk, device=piece.subjects.device) % count]
            parts.append(self._chunk(piece.to(self.device), size, masks, jitter, count))
        return _joined(parts, lambda name: torch.cat([vars(part)[name] for part in parts]))

    def _chunk(self, scenes: Scenes, size: int, masks: bool, jitter: float | None, count: int) -> RenderedBatch:
        values, geometry = scenes.values, self.geometry
        shapes = self._shapes(scenes)
        figure = build_figure(geometry, values, shapes, self.shader.beard_features)
        side = size * self.oversampling
        project(figure, values, side)
        crop = None
        if jitter is not None:
            crop = self._crop(figure, values, side, jitter)
            figure.points = _moved(figure.points, crop)
        landmarks = figure.points[:, geometry.landmarks] / self.oversampling
        outline = figure.points[:, geometry.narrow]
        boxes = torch.cat([outline.amin(1), outline.amax(1)], 1) / self.oversampling
        triangle = self._rasterize(figure, values, side)
        surface, corners, shares, near = self._surface(figure, triangle, side)
        image, worn = self._picture(scenes, figure, surface, near, side, crop)
        cover, colour = covering(values, boxes, size)
        image = (image + cover * (colour - image)).clamp(min=0) ** (1 / 2.2)
        found = None
        if masks:
            seen = ((corners < geometry.num_face).all(2) & (triangle >= 0)) & ~worn
            found = self._masks(scenes, figure, shapes, seen, corners, shares, crop, side) & (cover < 0.5)
        batch = RenderedBatch(
            images=damage(image, values),
            occurrence=(scenes.intensity > 0).float(),
            intensity=scenes.intensity.float(),
            landmarks=landmarks,
            boxes=boxes,
            pose=values["pose"],
            skin_tone=values["skin_tone"],
            occluded=values["cover"] > 0,
            glasses=values["glasses"] > 0,
            subjects=scenes.subjects,
            frames=scenes.frames,
            masks=found,
        )
        return _joined([batch], lambda name: vars(batch)[name][:count])

    def _crop(self, figure: Figure, values: dict[str, Tensor], side: int, jitter: float) -> Tensor:
        """The similarity that takes the five points to their places, off by a little; (num_images, 2, 3)."""
        marks = figure.points[:, self.geometry.landmarks]
        five = [marks[:, 36:42].mean(1), marks[:, 42:48].mean(1), marks[:, 30], marks[:, 48], marks[:, 54]]
        source, target = torch.stack(five, 1), self._template * side
        centre, aim = source.mean(1), target.mean(0)
        s, t = source - centre[:, None], target - aim
        spread = (s**2).sum((1, 2)).clamp(min=1e-6)
        a = (s * t).sum((1, 2)) / spread
        b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / spread
        off = values["jitter"] * jitter
        turn, scale = torch.deg2rad(2.5 * off[:, 3]), torch.exp(0.04 * off[:, 2])
        a, b = scale * (a * turn.cos() - b * turn.sin()), scale * (a * turn.sin() + b * turn.cos())
        turned = torch.stack([a, -b, b, a], 1).unflatten(1, (2, 2))
        shift = aim + 0.015 * side * off[:, :2] - (turned @ centre[..., None])[..., 0]
        return torch.cat([turned, shift[..., None]], 2)

    def _rasterize(self, figure: Figure, values: dict[str, Tensor], side: int) -> Tensor:
        geometry, shader = self.geometry, self.shader
        vertices = figure.points.shape[1]
        curls = (1 + 7 * values["curls"])[:, None]
        along = geometry.strand[:, 1] * curls + values["strand_shift"][:, 1:]
        across = geometry.strand[:, 0] + values["strand_shift"][:, :1]
        sparse, across, along = figure.sparse.flatten(), across.flatten(), along.flatten()
        columns = geometry.triangles.T.contiguous()

        def keep(image: Tensor, triangle: Tensor, shares: Tensor) -> Tensor:
            corners = [columns[k].take(triangle) + image * vertices for k in range(3)]

            def mixed(values: Tensor) -> Tensor:
                a, b, c = (values.take(corner) * shares[:, k] for k, corner in enumerate(corners))
                return a + b + c

            return shader.strand_rank(mixed(across), mixed(along)) >= mixed(sparse)

        return rasterize(
            figure.points, figure.nearness, geometry.triangles, side, two_sided=geometry.two_sided,
            first_sparse=geometry.first_sparse, keep=keep,
        )  # fmt: skip

    def _surface(self, figure: Figure, triangle: Tensor, side: int):
        geometry = self.geometry
        count, vertices = figure.nearness.shape
        shown = triangle.clamp(min=0)
        kind = torch.where(triangle >= 0, geometry.kinds.take(shown), -1)
        corners = torch.stack([geometry.triangles[:, k].contiguous().take(shown) for k in range(3)], 2)
        shares = barycentric(figure.points, figure.nearness, corners, side)
        own = torch.cat(
            [
                figure.normals,
                figure.positions,
                figure.lit[..., None],
                figure.hair[..., None],
                figure.nearness[..., None],
            ],
            2,
        )
        shared = torch.cat([geometry.place, geometry.occlusion[:, None], geometry.layer[:, None], geometry.strand], 1)
        rows = torch.arange(count, device=kind.device).view(-1, 1) * vertices
        own = own.flatten(0, 1)

        def mixed(table: Tensor, offset: Tensor | int) -> Tensor:
            found = [
                functional.embedding((corners[..., k] + offset).flatten(), table) * shares[k].reshape(-1, 1)
                for k in range(3)
            ]
            return (found[0] + found[1] + found[2]).T.contiguous().unflatten(1, kind.shape)

        planes, fixed = mixed(own, rows), mixed(shared, 0)
        surface = Surface(
            kind, planes[:3], planes[3:6], fixed[:3], planes[6], planes[7], fixed[3], fixed[4], fixed[5:7]
        )
        near = torch.where(triangle >= 0, planes[8], 0.0)
        return surface, corners, shares, near

    def _picture(self, scenes, figure, surface, near, side, crop):
        """The figure before its background, (num_images, 3, size, size), linear light."""
        values = scenes.values
        behind = dot(surface.normal, figure.camera.T[:, :, None] - surface.position) < 0
        flip = torch.where(behind & (surface.kind >= 0) & (surface.kind != SHELL), -1.0, 1.0)
        surface.normal = surface.normal * flip
        light, worn = self.shader(surface, values, scenes.strength, figure.rotation, figure.camera)
        light = (light * exposure_of(values)[:, None]).transpose(0, 1).unflatten(2, (side, side))
        shown = (surface.kind >= 0).view(-1, 1, side, side)
        picture = torch.where(shown, light, background(values, self.shader, side))
        lens, lens_near = project_points(figure.lens, values, side)
        if crop is not None:
            lens = _moved(lens, crop)
        picture = lenses(picture, values, lens, lens_near, near)
        picture = picture * values["white_balance"][:, :, None, None]
        # bright light saturates softly
        picture = torch.where(picture > 0.8, 0.8 + 0.2 * torch.tanh((picture - 0.8) / 0.35), picture)
        return functional.avg_pool2d(picture, self.oversampling), worn

    def _masks(self, scenes, figure, shapes, seen, corners, shares, crop, side) -> Tensor:
        """Pixels whose point of the face lies elsewhere without each action unit."""
        geometry = self.geometry
        count, face = len(scenes), geometry.num_face
        found = torch.zeros(count, len(RENDERED_AUS), side * side, dtype=torch.bool, device=self.device)
        marks = figure.points[:, geometry.landmarks]
        eyes = (marks[:, 36:42].mean(1) - marks[:, 42:48].mean(1)).norm(dim=1)
        at = corners.clamp(max=face)
        basis = geometry.basis[geometry.num_modes :]
        for pairs in (scenes.intensity > 0).nonzero().split(self.chunk):
            image, unit = pairs.T
            without = self._shapes(scenes[image], leave_out=unit)
            change = ((without - shapes[image]) @ basis).unflatten(1, (-1, 3))
            moved = figure.positions[image, :face] + change @ figure.rotation[image].transpose(1, 2)
            points, _ = project_points(moved, {name: scenes.values[name][image] for name in CAMERA}, side)
            if crop is not None:
                points = _moved(points, crop[image])
            shift = functional.pad((points - figure.points[image, :face]).norm(dim=2), (0, 1))
            pixel = sum(shift.gather(1, at[image, :, k]) * shares[k, image] for k in range(3))
            found[image, unit] = (pixel > MOVED * eyes[image, None]) & seen[image]
        square = found.view(count, len(RENDERED_AUS), side, side).float()
        return functional.avg_pool2d(square, self.oversampling) >= 0.5

    @staticmethod
    def _shapes(scenes: Scenes, leave_out: Tensor | None = None) -> Tensor:
        """Weights of the expression shapes, (num_images, 53), with or without an action unit of each image."""
        total = scenes.contributions.sum(1) + scenes.others
        if leave_out is not None:
            total = total - scenes.contributions[torch.arange(len(leave_out), device=total.device), leave_out]
        return total.clamp(-0.25, 1.7)


def _joined(batches: list[RenderedBatch], of: Callable[[str], Tensor]) -> RenderedBatch:
    """A batch whose fields a function gives; there are masks where the first has some."""
    fields: dict[str, Any] = {name: None if held is None else of(name) for name, held in vars(batches[0]).items()}
    return RenderedBatch(**fields)


def _moved(points: Tensor, matrix: Tensor) -> Tensor:
    return points @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]


__all__ = ["MOVED", "FaceRenderer", "RenderedBatch"]
