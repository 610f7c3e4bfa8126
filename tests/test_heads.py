"""The second head, of intensity, and the term that draws activation maps to where an action unit moves the face."""

import pytest
import torch
from conftest import AUS
from huggingface_hub.errors import StrictDataclassError

from hiva_hf import HiVAForImageClassification
from hiva_hf.loss_hiva import map_loss, masked_mean_squared_error

B, K = 2, len(AUS)
OCCURRENCE = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
INTENSITY = torch.tensor([[2.0, 0.0, 5.0], [0.0, 3.0, -100.0]])


def test_intensities_stand_beside_the_logits(make_model, pixel_values):
    model = make_model(intensity_head=True).eval()
    with torch.no_grad():
        outputs = model(pixel_values)
        plain = make_model().eval()(pixel_values)
    assert outputs.intensities.shape == outputs.logits.shape == (B, K)
    assert ((outputs.intensities >= 0) & (outputs.intensities <= 5)).all()
    assert plain.intensities is None


def test_intensities_are_cut_to_their_scale_outside_of_training_only(make_model, pixel_values):
    model = make_model(intensity_head=True)
    torch.nn.init.constant_(model.intensity_classifier.bias, 30.0)
    assert (model.train()(pixel_values).intensities > 5).all()
    assert (model.eval()(pixel_values).intensities == 5).all()


def test_the_intensity_loss_is_added_by_its_weight(make_model, pixel_values):
    model = make_model(intensity_head=True, intensity_loss_weight=0.25).train()
    torch.manual_seed(1)
    both = model(pixel_values, labels=OCCURRENCE, intensity_labels=INTENSITY)
    torch.manual_seed(1)
    alone = model(pixel_values, labels=OCCURRENCE)
    expected = alone.loss + 0.25 * masked_mean_squared_error(alone.intensities, INTENSITY)
    assert torch.allclose(both.loss, expected, atol=1e-5)
    both.loss.backward()
    assert all(value.grad is not None for value in model.intensity_classifier.parameters())


def test_both_heads_are_saved(make_model, pixel_values, tmp_path):
    model = make_model(intensity_head=True).eval()
    model.save_pretrained(tmp_path)
    loaded = HiVAForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(loaded(pixel_values).intensities, model(pixel_values).intensities, atol=1e-6)


def test_map_loss_is_the_logarithm_of_the_share_on_the_mask():
    maps = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]], [[0.25, 0.25], [0.25, 0.25]]]])
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :2, 2:] = 1  # the upper right token
    masks[0, 0, 2, :2] = 1  # half of the lower left one
    expected = -torch.log(torch.tensor(0.2 + 0.3 / 2 + 1e-3))
    assert torch.allclose(map_loss(maps, masks), expected)
    # a mask without a pixel counts for nothing
    assert map_loss(maps, torch.zeros_like(masks)) == 0


def test_maps_are_drawn_to_their_masks(make_model, pixel_values):
    torch.manual_seed(0)
    model = make_model(map_loss_weight=1.0, hidden_dropout_prob=0.0).train()
    masks = torch.zeros(B, K, 64, 64)
    masks[:, :, :32, :32] = 1
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def inside():
        with torch.no_grad():
            maps = model(pixel_values, output_activation_maps=True).activation_maps
        return maps[..., :4, :4].sum((-1, -2)).mean()

    before = inside()
    for _ in range(25):
        optimizer.zero_grad()
        model(pixel_values, labels=OCCURRENCE, mask_labels=masks).loss.backward()
        optimizer.step()
    assert inside() > before + 0.2


def test_masks_without_a_weight_change_nothing(make_model, pixel_values):
    model = make_model().eval()
    with_masks = model(pixel_values, labels=OCCURRENCE, mask_labels=torch.ones(B, K, 8, 8))
    assert torch.allclose(with_masks.loss, model(pixel_values, labels=OCCURRENCE).loss)
    assert with_masks.activation_maps is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"intensity_head": True, "problem_type": "regression"}, "`intensity_head` must be False"),
        ({"map_loss_weight": 0.1, "use_ddca": False}, "`map_loss_weight` must be 0 where"),
        ({"intensity_loss_weight": -1.0}, "`intensity_loss_weight` must not be negative"),
        ({"map_loss_weight": float("nan")}, "`map_loss_weight` must not be negative"),
    ],
)
def test_what_does_not_fit_together_is_refused(make_model, fields, told):
    with pytest.raises((ValueError, StrictDataclassError), match=told):
        make_model(**fields)
