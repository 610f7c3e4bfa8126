"""Datasets with other action units as one, and rare action units seen more often."""

import numpy as np
import pytest
from datasets import Dataset, Image
from PIL import Image as Picture

from hiva_hf.data import EpochDataset, au_dataset, au_names, merge_datasets, sampling_weights
from hiva_hf.data.merging import label_matrix
from hiva_hf.data.video_frames import FrameImage


@pytest.fixture
def two(tmp_path):
    Picture.new("RGB", (8, 8), "red").save(tmp_path / "a.png")

    def make(name, aus, labels, **options):
        count = len(labels)
        return au_dataset(
            name, aus, np.array(labels), images=[str(tmp_path / "a.png")] * count, subjects=["S1"] * count,
            sequences=["S1/T1"] * count, frames=range(count), **options,
        )  # fmt: skip

    first = make("BP4D", ["AU12", "AU1"], [[1, 0], [0, -100]])
    second = make("DISFA", ["AU1", "AU25"], [[1, 1]], intensities=np.array([[3, 5]]), image_feature=FrameImage())
    return first, second


def test_the_union_with_the_rest_missing(two):
    merged = merge_datasets(two)
    assert au_names(merged) == ["AU1", "AU12", "AU25"]
    assert [row["labels"] for row in merged] == [[0, 1, -100], [-100, 0, -100], [1, -100, 1]]
    assert [row["intensities"] for row in merged] == [[-100] * 3, [-100] * 3, [3, -100, 5]]
    assert merged["subject_id"][:] == ["BP4D:S1", "BP4D:S1", "DISFA:S1"]
    assert merged["sequence_id"][2] == "DISFA:S1/T1"
    assert merged["dataset"][:] == ["BP4D", "BP4D", "DISFA"]
    assert merged[0]["image"].size == merged[2]["image"].size == (8, 8)
    assert isinstance(merged.features["image"], FrameImage)


def test_of_one_dataset_the_order_of_numbers(two):
    merged = merge_datasets(two[:1])
    assert au_names(merged) == ["AU1", "AU12"]
    assert "intensities" not in merged.column_names
    assert type(merged.features["image"]) is Image


def test_selections_are_merged_as_they_are(two):
    merged = merge_datasets([two[0].select([1]), two[1]])
    assert [row["labels"] for row in merged] == [[-100, 0, -100], [1, -100, 1]]


def test_nothing_to_merge(two):
    with pytest.raises(ValueError, match="at least one dataset"):
        merge_datasets([])
    with pytest.raises(ValueError, match="must tell the action units"):
        merge_datasets([Dataset.from_dict({"labels": [[1.0]]})])


def test_rare_action_units_weigh_more(tmp_path):
    labels = np.zeros((100, 2))
    labels[:50, 0] = 1
    labels[:4, 1] = 1
    labels[60:, 1] = -100
    data = au_dataset(
        "x", ["AU1", "AU2"], labels, images=[""] * 100, subjects=["a"] * 100, sequences=["a"] * 100, frames=range(100)
    )
    weights = sampling_weights(data)
    assert weights.mean() == pytest.approx(1)
    # active in 4 of 60 coded frames, and in 50 of 100
    assert weights[0] / weights[99] == pytest.approx((60 / 4) ** 0.5)
    assert weights[10] / weights[99] == pytest.approx(2**0.5)
    assert np.ptp(sampling_weights(data, strength=0)) == 0
    assert seen_twice_as_often(data, weights)


def seen_twice_as_often(data, weights):
    """Whether the rare action unit is seen as often as the weights say, epoch by epoch, in other draws each."""
    rows = EpochDataset(data.remove_columns("image"), lambda batch: batch, weights=weights, seed=1)
    epochs = []
    for epoch in range(40):
        rows.set_epoch(epoch)
        epochs.append(rows.places.tolist())
    assert epochs[0] != epochs[1]
    rate = (label_matrix(data)[np.concatenate(epochs), 1] == 1).mean()
    assert rate == pytest.approx(weights[:4].sum() / 100, abs=0.02)
    return rate > 2 * 0.04


def test_each_dataset_gets_its_share(two):
    merged = merge_datasets(two)
    weights = sampling_weights(merged, strength=0, shares={"BP4D": 1, "DISFA": 3})
    assert weights == pytest.approx([0.375, 0.375, 2.25])
    with pytest.raises(ValueError, match="`shares` must name the datasets BP4D, DISFA; got BP4D"):
        sampling_weights(merged, shares={"BP4D": 1})


def test_one_sided_action_units_stand_beside_those_of_both():
    def make(aus):
        return au_dataset(
            "x", aus, np.ones((1, len(aus))), images=[""], subjects=["a"], sequences=["a"], frames=[1]
        )  # fmt: skip

    assert au_names(merge_datasets([make(["AU12R", "AU2"]), make(["AU12", "12L"])])) == [
        "AU2",
        "AU12",
        "AU12L",
        "AU12R",
    ]
