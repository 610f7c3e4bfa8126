"""Rendered pictures: the same in any batch, aligned where they should be, with masks of what moved."""

import numpy as np
import pytest
import torch
from render_model import real_model, tiny_model

from hiva_hf.faces.alignment import FaceTemplate, five_points, similarity_transform
from hiva_hf.render import RENDERED_AUS, FaceRenderer
from hiva_hf.render.damage import damage, jpeg, resampling
from hiva_hf.render.faces import MOVED
from hiva_hf.render.figure import rotation_of

COLUMN = {au: k for k, au in enumerate(RENDERED_AUS)}
SIZE = 64


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def renderer(model):
    return FaceRenderer(model, SIZE, chunk=3)


@pytest.fixture(scope="module")
def scenes(renderer):
    return renderer.sample([k // 2 for k in range(8)], [k % 2 * 5 for k in range(8)], seed=3)


def plain(scenes):
    """Without what covers a face, turns it or damages the picture."""
    values = dict(scenes.values)
    for name in ("blur", "motion", "noise", "black", "sharpen", "vignette", "grey", "cover", "pose", "cast", "glasses"):
        values[name] = torch.zeros_like(values[name])
    for name in ("detail", "saturation", "gamma", "contrast", "exposure", "white_balance"):
        values[name] = torch.ones_like(values[name])
    values["cover_radius"] = torch.full_like(values["cover_radius"], -1.0)
    values["quality"] = torch.full_like(values["quality"], 100.0)
    return type(scenes)(
        scenes.subjects, scenes.frames, scenes.intensity, scenes.contributions, scenes.strength, scenes.others, values
    )


@pytest.mark.parametrize("way", ["render", "aligned"])
def test_a_picture_is_the_same_in_any_batch_and_order(renderer, scenes, way):
    every = getattr(renderer, way)(scenes, masks=True)
    assert every.images.shape == (8, 3, SIZE, SIZE)
    order = torch.tensor([5, 0, 7, 2])
    few = getattr(renderer, way)(scenes[order], masks=True)
    alone = getattr(renderer, way)(renderer.sample([1], [5], seed=3), masks=True)
    for name, value in vars(every).items():
        assert torch.equal(vars(few)[name], value[order]), name
        assert torch.equal(vars(alone)[name], value[3:4]), name
    assert every.images.float().std((1, 2, 3)).min() > 3


def test_labels_and_what_is_told(renderer, scenes):
    batch = renderer.render(scenes)
    assert torch.equal(batch.occurrence, (scenes.intensity > 0).float())
    assert torch.equal(batch.intensity, scenes.intensity.float())
    assert torch.equal(batch.pose, scenes.values["pose"])
    assert torch.equal(batch.occluded, scenes.values["cover"] > 0)
    assert batch.masks is None
    assert len(batch) == 8
    low, high = batch.boxes[:, None, :2], batch.boxes[:, None, 2:]
    assert ((batch.landmarks >= low - 0.01) & (batch.landmarks <= high + 0.01)).all()


def test_aligned_faces_lie_where_the_alignment_puts_them(renderer, scenes):
    found = renderer.aligned(scenes, jitter=0.0)
    whole = renderer.render(scenes)
    for crop, picture in zip(found.landmarks.numpy(), whole.landmarks.numpy(), strict=True):
        matrix = similarity_transform(five_points(picture), FaceTemplate().points * SIZE)
        assert np.allclose(picture @ matrix[:, :2].T + matrix[:, 2], crop, atol=0.02)
    loose = renderer.aligned(scenes).landmarks
    off = (loose - found.landmarks).norm(dim=2).mean(1)
    assert (off > 0.05).all()
    assert off.mean() < 0.06 * SIZE


def test_the_head_turns_as_the_pose_says(renderer, scenes):
    still = plain(scenes)
    middle = renderer.render(still).landmarks
    tip, eyes = middle[:, 30], (middle[:, 36:42].mean(1) + middle[:, 42:48].mean(1)) / 2
    for axis, which, sign in ((0, 0, 1), (1, 1, 1)):
        turned = plain(scenes)
        turned.values["pose"] = turned.values["pose"].clone()
        turned.values["pose"][:, axis] = 15.0
        points = renderer.render(turned).landmarks
        new_eyes = (points[:, 36:42].mean(1) + points[:, 42:48].mean(1)) / 2
        moved = (points[:, 30] - new_eyes) - (tip - eyes)
        assert (moved[:, which] * sign > 0.5).all()
    matrix = rotation_of(torch.tensor([[20.0, -10.0, 5.0]]))[0]
    assert torch.allclose(matrix @ matrix.T, torch.eye(3), atol=1e-6)
    tilted = rotation_of(torch.tensor([[0.0, 0.0, 90.0]]))[0] @ torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(tilted, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def drawing(renderer, scene):
    """Where the vertices of one picture lie, and which triangle each pixel shows."""
    seen = []
    rasterize = renderer._rasterize

    def watched(figure, values, side):
        seen.extend((figure.points[0].clone(), rasterize(figure, values, side)))
        return seen[1]

    renderer._rasterize = watched
    try:
        renderer.render(scene)
    finally:
        del renderer._rasterize
    return seen[0], seen[1][0]


def shown_vertices(geometry, points, triangle):
    """Vertices of the face that a triangle of theirs shows at their own pixel."""
    side = int(len(triangle) ** 0.5)
    pixel = points[: geometry.num_face].long().clamp(0, side - 1)
    found = triangle[pixel[:, 1] * side + pixel[:, 0]]
    own = (geometry.triangles[found.clamp(min=0)] == torch.arange(geometry.num_face)[:, None]).any(1)
    return own & (found >= 0)


def masks_hold(model, scenes, size):
    """Masks against the places of the same vertices, rendered with and without an action unit."""
    renderer = FaceRenderer(model, size)
    batch = renderer.render(scenes, masks=True)
    geometry = renderer.geometry
    assert not batch.masks[batch.occurrence == 0].any()
    checked = 0
    for image, unit in batch.occurrence.nonzero().tolist():
        without = scenes[image : image + 1]
        without.contributions = without.contributions.clone()
        without.contributions[:, unit] = 0
        renderer.chunk = 1
        drawn = [drawing(renderer, scene) for scene in (scenes[image : image + 1], without)]
        places = [points[: geometry.num_face] / renderer.oversampling for points, _ in drawn]
        shown = shown_vertices(geometry, *drawn[0])
        shift = (places[0] - places[1]).norm(dim=1)
        eyes = batch.landmarks[image, 36:42].mean(0) - batch.landmarks[image, 42:48].mean(0)
        limit = MOVED * eyes.norm()
        mask = batch.masks[image, unit]
        if shift.max() < 1.3 * limit:
            continue
        # at pixels of vertices that moved far or not at all, where the front of the face is seen
        front = shown & (geometry.eyeball == 0) & (geometry.neutral.view(-1, 3)[:, 2] > 5)
        pixel = places[0].long()
        front &= ((pixel > 0) & (pixel < size - 1)).all(1)
        at = mask[pixel[:, 1].clamp(0, size - 1), pixel[:, 0].clamp(0, size - 1)]
        far, near = front & (shift > 2 * limit), front & (shift < 0.25 * limit)
        if far.sum() > 20:
            assert at[far].float().mean() > 0.8, RENDERED_AUS[unit]
            checked += 1
        assert at[near].float().mean() < 0.12, RENDERED_AUS[unit]
    return checked


def test_masks_show_what_an_action_unit_moved(model, renderer):
    scenes = plain(renderer.sample(list(range(6)), [1] * 6, seed=3))
    for name in ("hair_length", "beard_length", "long_hair"):
        scenes.values[name] = torch.zeros_like(scenes.values[name])
    strength = torch.zeros(6, 22)
    for row, aus in enumerate((("AU1",), ("AU4", "AU12"), ("AU12",), ("AU15", "AU1"), ("AU27",), ())):
        strength[row, [COLUMN[au] for au in aus]] = 0.95
    assert masks_hold(model, scenes.showing(strength), 96) >= 4


def test_masks_leave_out_what_is_covered(renderer, scenes):
    free = plain(scenes)
    strength = torch.zeros(8, 22)
    strength[:, COLUMN["AU12"]] = 1.0
    free = free.showing(strength)
    seen = renderer.render(free, masks=True)
    covered = plain(free)
    covered.values["cover"] = torch.full((8,), 3)
    covered.values["cover_start"] = torch.zeros(8, 5, 2)
    covered.values["cover_end"] = torch.zeros(8, 5, 2)
    covered.values["cover_radius"] = torch.full((8, 5), 2.0)
    hidden = renderer.render(covered, masks=True)
    assert seen.masks[:, COLUMN["AU12"]].flatten(1).any(1).all()
    assert not hidden.masks.any()
    assert hidden.occluded.all()
    # cloth over the mouth hides it, and the mask of the smile with it
    worn = plain(free)
    worn.values["cover"] = torch.full((8,), 4)
    worn.values["mask_top"] = torch.full((8,), 20.0)
    cloth = renderer.render(worn, masks=True)
    assert cloth.masks[:, COLUMN["AU12"]].sum() < 0.3 * seen.masks[:, COLUMN["AU12"]].sum()


def test_an_action_unit_changes_the_picture_where_its_mask_is(renderer, scenes):
    free = plain(scenes)
    strength = torch.zeros(8, 22)
    strength[:, COLUMN["AU12"]] = 1.0
    smile = free.showing(strength)
    rest = renderer.render(free.showing(torch.zeros(8, 22))).images.float()
    shown = renderer.render(smile, masks=True)
    change = (shown.images.float() - rest).abs().mean(1)
    inside = shown.masks[:, COLUMN["AU12"]]
    assert change[inside].mean() > 3 * change[~inside].mean()


def test_jpeg_damages_more_at_low_quality_and_not_at_all_at_100():
    torch.manual_seed(0)
    line = torch.linspace(0, 1, 40)
    smooth = torch.stack([line.expand(40, 40), line[:, None].expand(40, 40), torch.full((40, 40), 0.4)])
    images = (smooth + 0.1 * torch.rand(3, 40, 40)).clamp(0, 1).expand(3, -1, -1, -1)
    made = jpeg(images, torch.tensor([10.0, 90.0, 100.0]), torch.tensor([[3.0, 5.0]] * 3))
    loss = (made - images).abs().mean((1, 2, 3))
    assert loss[2] == 0
    assert 0.001 < loss[1] < loss[0] < 0.2
    flat = jpeg(torch.full((1, 3, 16, 16), 0.5), torch.tensor([90.0]), torch.zeros(1, 2))
    assert torch.allclose(flat, torch.full_like(flat, 0.5), atol=0.01)


def test_resampling_keeps_brightness_and_loses_detail():
    values = {
        "detail": torch.tensor([1.0, 0.2, 0.5]), "blur": torch.tensor([0.0, 0.0, 2.0]),
        "motion": torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0]]),
    }  # fmt: skip
    rows, columns = resampling(values, 96)
    assert torch.allclose(rows.sum(2), torch.ones(3, 96), atol=1e-4)
    assert torch.allclose(rows[0], torch.eye(96), atol=1e-4)
    # 32 pixels are left, so a matrix of rank 32
    assert torch.linalg.matrix_rank(rows[1].double(), tol=1e-6) == 32
    assert columns[2].diagonal().mean() < rows[2].diagonal().mean() + 1e-6


def test_grey_pictures_are_grey_and_clean_ones_stay(renderer, scenes):
    values = {**plain(scenes).values, "grey": torch.tensor([1.0] * 4 + [0.0] * 4), "noise": torch.full((8,), 0.05)}
    images = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    made = damage(images, values)
    assert (made[:4].float().std(1) < 1).all()
    clean = damage(images, plain(scenes).values).float() / 255
    assert (clean - images).abs().max() < 0.01


def test_numbers_are_checked(model):
    for options in ({"size": 16}, {"chunk": 0}, {"oversampling": 5}):
        with pytest.raises(ValueError, match="`size` must be 32 to 512"):
            FaceRenderer(model, **options)


def test_what_comes_out_can_be_trained_on(renderer, scenes):
    plainly = renderer.aligned(scenes[:2])
    with torch.autocast("cpu", torch.bfloat16):
        batch = renderer.aligned(scenes[:2])
        logits = torch.zeros(2, 22, requires_grad=True)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.occurrence).backward()
    assert logits.grad is not None
    # half precision around it does not reach the places of vertices
    assert torch.equal(batch.images, plainly.images)
    with pytest.raises(ValueError, match="`size` must be 32 to 512"):
        renderer.aligned(scenes, size=1000)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_renders_what_the_cpu_renders(model, renderer, scenes):
    there = FaceRenderer(model, SIZE, "cuda", chunk=5)
    for way in ("render", "aligned"):
        here, away = getattr(renderer, way)(scenes, masks=True), getattr(there, way)(scenes, masks=True)
        assert away.images.device.type == "cuda"
        assert torch.allclose(away.landmarks.cpu(), here.landmarks, atol=0.02)
        off = (away.images.cpu().float() - here.images.float()).abs()
        assert off.mean() < 1.0
        assert (off > 12).float().mean() < 0.01
        assert (away.masks.cpu() == here.masks).float().mean() > 0.999
        again = getattr(there, way)(scenes[torch.tensor([4, 1])], masks=True)
        assert torch.equal(again.images, away.images[[4, 1]])


def test_the_real_face_model():
    model = real_model()
    renderer = FaceRenderer(model, 96)
    scenes = renderer.sample([0, 1, 2, 3, 4], [0] * 5, seed=2)
    every, one = renderer.aligned(scenes), renderer.aligned(scenes[3:4])
    assert torch.equal(every.images[3:4], one.images)
    strength = torch.zeros(5, 22)
    for row, au in enumerate(("AU12", "AU4", "AU27", "AU9", "AU43")):
        strength[row, COLUMN[au]] = 0.95
    bald = plain(scenes.showing(strength))
    for name in ("hair_length", "beard_length", "long_hair"):
        bald.values[name] = torch.zeros_like(bald.values[name])
    assert masks_hold(model, bald, 96) >= 3
