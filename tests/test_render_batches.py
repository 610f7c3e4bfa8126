"""Faces that are rendered while a model trains: the same whenever they are asked for, each for so many rounds."""

import pytest
import torch
from render_model import tiny_model

from hiva_hf import HiVAImageProcessor
from hiva_hf.render import RENDERED_AUS, FaceRenderer
from hiva_hf.render.batches import RenderedBatches, first_of

NAMES = ["AU12", "AU1", "AU25"]
SIZE = 32


@pytest.fixture(scope="module")
def renderer():
    return FaceRenderer(tiny_model(), SIZE, chunk=4)


def batches(renderer, num_batches=12, **how):
    how = {"batch_size": 2, "block_size": 4, "views": 2, **how}
    return RenderedBatches(
        renderer, HiVAImageProcessor(size={"height": SIZE, "width": SIZE}), NAMES, num_batches, **how
    )


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def test_a_batch_is_the_same_whenever_it_is_asked_for(renderer):
    first = batches(renderer, masks=True)
    in_order = [first[index] for index in range(12)]
    later = batches(renderer, masks=True)
    for index in (7, 2, 11, 0):
        assert same(in_order[index], later[index]), index
    assert not same(in_order[0], in_order[1])
    assert not same(in_order[0], batches(renderer, masks=True, seed=1)[0])


def test_shapes_and_labels(renderer):
    batch = batches(renderer, masks=True)[0]
    assert batch["pixel_values"].shape == (2, 3, SIZE, SIZE)
    assert batch["labels"].shape == batch["intensity_labels"].shape == (2, 3)
    assert batch["mask_labels"].shape == (2, 3, SIZE // 8, SIZE // 8)
    assert ((batch["labels"] == 1) == (batch["intensity_labels"] > 0)).all()
    assert "mask_labels" not in batches(renderer)[0]


def test_labels_stand_in_the_order_of_the_names(renderer):
    plain = batches(renderer, views=1, num_batches=2, augmented=False)
    scenes = renderer.sample(range(4), [0] * 4, seed=0)
    wanted = scenes.intensity[:, [RENDERED_AUS.index(name) for name in NAMES]]
    shown = torch.cat([plain[0]["intensity_labels"], plain[1]["intensity_labels"]])
    assert sorted(map(tuple, shown.tolist())) == sorted(map(tuple, wanted.tolist()))


def test_pictures_are_normalised_as_the_processor_says(renderer):
    plain = batches(renderer, views=1, num_batches=2, augmented=False, jitter=0.0)
    faces = renderer.aligned(renderer.sample(range(4), [0] * 4, seed=0), jitter=0.0).images
    wanted = (faces.float() / 255 - plain.mean) / plain.std
    shown = torch.cat([plain[0]["pixel_values"], plain[1]["pixel_values"]])
    for face in shown:
        assert (wanted - face).abs().amax((1, 2, 3)).min() < 1e-5


def test_every_face_is_seen_as_often_as_asked(renderer):
    plain = batches(renderer, num_batches=12, augmented=False)  # three rounds of four batches
    seen = torch.cat([plain[index]["pixel_values"].flatten(1) for index in range(12)])
    _, counts = torch.unique(seen, dim=0, return_counts=True)
    # the first and the last block are in one round only
    assert sorted(counts.tolist()) == [1] * 8 + [2] * 8


def test_each_view_of_a_face_differs(renderer):
    augmented = batches(renderer, num_batches=12)
    seen = torch.cat([augmented[index]["pixel_values"].flatten(1) for index in range(12)])
    assert len(torch.unique(seen, dim=0)) == len(seen)


def test_parts_show_other_people(renderer):
    one, other = batches(renderer, augmented=False), batches(renderer, augmented=False, first_subject=1000)
    gap = (one[0]["pixel_values"][:, None] - other[0]["pixel_values"][None]).abs().amax((2, 3, 4))
    assert gap.min() > 0.1


def test_masks_are_moved_with_the_faces(renderer):
    plain, moving = (batches(renderer, views=1, masks=True, augmented=chosen) for chosen in (False, True))
    sizes = []
    for index in range(12):
        before, after = (part[index]["mask_labels"] for part in (plain, moving))
        if before.sum() > 0:
            assert not torch.equal(before, after)
            sizes.append((after.sum() / before.sum()).item())
    assert 0.7 < sorted(sizes)[len(sizes) // 2] < 1.4


def others(count=6, side=SIZE + 4):
    """Faces of one colour each, which no render is; and labels that tell which."""
    colours = torch.linspace(200, 250, count).to(torch.uint8)
    labels = torch.arange(count).float()[:, None].expand(count, 3)
    return {
        "pixel_values": colours[:, None, None, None].expand(count, 3, side, side).clone(),
        "labels": (labels > 2).float(),
        "intensity_labels": labels.clone(),
    }


def test_others_are_mixed_in(renderer):
    how = {"batch_size": 4, "others": others(), "share": 0.5, "masks": True, "num_batches": 40}
    mixed = batches(renderer, augmented=False, **how)
    seen = set()
    for index in range(40):
        batch = mixed[index]
        assert batch["pixel_values"].shape == (4, 3, SIZE, SIZE)
        known = batch["intensity_labels"][2:, 0]
        colours = others()["pixel_values"][known.long(), :, 0, 0].float() / 255
        colours = (colours - mixed.mean.flatten()) / mixed.std.flatten()
        assert torch.allclose(batch["pixel_values"][2:].amax((2, 3)), colours, atol=1e-5)
        assert torch.equal(batch["labels"][2:, 0], (known > 2).float())
        # of them no masks are known: they ask for nothing
        assert not batch["mask_labels"][2:].any()
        seen |= set(known.tolist())
    assert len(seen) == 6
    alone = batches(renderer, augmented=False, masks=True, num_batches=40)
    assert torch.equal(mixed[7]["labels"][:2], alone[7]["labels"])


def test_a_mixed_batch_is_the_same_whenever_it_is_asked_for(renderer):
    how = {"batch_size": 4, "others": others(), "share": 0.25, "block_size": 6}
    first, later = batches(renderer, **how), batches(renderer, **how)
    assert [first[index]["labels"].shape[0] for index in range(3)] == [4, 4, 4]
    assert same(first[2], later[2])
    assert not torch.equal(first[2]["pixel_values"][3:], first[1]["pixel_values"][3:])


def test_a_share_of_none_is_the_rendered_faces_alone(renderer):
    alone, none = batches(renderer), batches(renderer, others=others(), share=0.0)
    assert same(alone[0], none[0])
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"`share` must be at least 0 and less than 1; got {share}"):
            batches(renderer, others=others(), share=share)


@pytest.mark.parametrize(("batch_size", "block_size"), [(2, 16), (100, 800), (200, 1200), (2000, 2000)])
def test_a_block_is_of_eight_batches_that_are_small(renderer, batch_size, block_size):
    assert batches(renderer, batch_size=batch_size, block_size=None).block_size == block_size


@pytest.mark.parametrize(
    ("how", "told"), [({"block_size": 3}, "multiple of the faces"), ({"views": 0}, "`views` at least 1")]
)
def test_numbers_are_checked(renderer, how, told):
    with pytest.raises(ValueError, match=told):
        batches(renderer, **how)


def test_action_units_that_are_not_rendered_are_refused(renderer):
    with pytest.raises(ValueError, match="got AU99"):
        RenderedBatches(renderer, HiVAImageProcessor(), ["AU12", "AU99"], 1)


def test_an_item_is_a_batch(renderer):
    plain = batches(renderer)
    assert len(plain) == 12
    loader = torch.utils.data.DataLoader(plain, batch_size=1, collate_fn=first_of)
    assert same(next(iter(loader)), plain[0])
    with pytest.raises(IndexError):
        plain[12]
