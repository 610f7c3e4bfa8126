"""Rendered faces, splits by subject, and the way from a row to what the model takes."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps

from hiva_hf import HiVAImageProcessorPil
from hiva_hf.data import FaceAugmentation, FaceTransform, load_rendered, subject_split
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.descriptions import load_bank
from hiva_hf.faces import FaceTemplate, five_points, similarity_transform, warp_face
from hiva_hf.facs import BP4D_AUS

SIDE = 48
STILL = FaceAugmentation(rotation=0, scale=0, shift=0, flip=0, colour=0, blur=0, erase=0)


@pytest.fixture(scope="module")
def faces():
    return load_rendered()


@pytest.fixture(scope="module")
def table():
    return pq.read_table(SAMPLE_FILE)


@pytest.fixture
def image_processor():
    return HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE})


@pytest.fixture(scope="module")
def square():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def subjects(part):
    return set(part["subject_id"])


def test_the_sample_is_whole(faces):
    assert len(faces) == 600
    assert faces.column_names == [
        "image",
        "subject_id",
        "frame",
        "landmarks",
        "box",
        "skin_tone",
        "labels",
        "intensities",
    ]
    assert len(subjects(faces)) == 24
    for subject in subjects(faces):
        frames = [frame for frame, owner in zip(faces["frame"], faces["subject_id"], strict=True) if owner == subject]
        assert sorted(frames) == list(range(25))


def test_a_row_holds_a_face_with_its_labels_and_points(faces):
    row = faces[0]
    assert row["image"].size == (128, 128)
    assert len(row["labels"]) == len(BP4D_AUS)
    points, (x0, y0, x1, y1) = np.array(row["landmarks"]).reshape(68, 2), row["box"]
    assert 0 <= x0 < x1 <= 128
    assert 0 <= y0 < y1 <= 128
    assert ((points >= [x0 - 12, y0 - 12]) & (points <= [x1 + 12, y1 + 12])).all()


def test_labels_are_the_columns_of_the_file(faces, table):
    labels = np.array(faces["labels"])
    assert labels.shape == (600, len(BP4D_AUS))
    assert set(np.unique(labels)) == {0.0, 1.0}
    for index, au in enumerate(BP4D_AUS):
        np.testing.assert_array_equal(labels[:, index], table[au].to_numpy())


def test_labels_follow_the_order_that_was_asked_for(table):
    dataset = load_rendered(aus=["AU12", 4, "au01"])
    labels = np.array(dataset["labels"])
    assert labels.shape == (600, 3)
    for index, au in enumerate(("AU12", "AU4", "AU1")):
        np.testing.assert_array_equal(labels[:, index], table[au].to_numpy())
    assert dataset.features["labels"].length == 3
    assert dataset.features["labels"].feature.dtype == "float32"


def test_intensity_replaces_occurrence(faces, table):
    labels = np.array(load_rendered(intensity=True)["labels"])
    assert labels.min() == 0
    assert 3 <= labels.max() <= 5
    np.testing.assert_array_equal(labels[:, 2], table["AU4_intensity"].to_numpy())
    # occurrence is never without intensity
    assert (labels[np.array(faces["labels"]) == 1] > 0).all()


def test_subjects_can_be_chosen():
    dataset = load_rendered(aus=["AU1"], subjects=["S003", "S001"])
    assert subjects(dataset) == {"S001", "S003"}
    assert len(dataset) == 50


def test_a_folder_of_files_is_one_dataset(tmp_path, table):
    (tmp_path / "below").mkdir()
    pq.write_table(table.slice(0, 3), tmp_path / "a.parquet")
    pq.write_table(table.slice(25, 2), tmp_path / "below" / "b.parquet")
    dataset = load_rendered(tmp_path, aus=["AU1"])
    assert dataset["subject_id"][:] == table["subject_id"].slice(0, 3).to_pylist() + ["S001"] * 2
    assert len(load_rendered(tmp_path / "a.parquet", aus=["AU1"])) == 3


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_no_parquet_file_shows_the_tree(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"(?s)must be a parquet file or a folder of them.*Expected:\nROOT/.*\.parquet.*subject_id",
    ) as caught:
        load_rendered(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_an_action_unit_that_is_not_in_the_file_lists_those_that_are():
    with pytest.raises(ValueError, match=r"got AU11\. Coded: AU1, AU2, AU4, AU5") as caught:
        load_rendered(aus=["AU1", "AU11"])
    assert "intensity" not in str(caught.value)


def test_unknown_subjects_are_refused():
    with pytest.raises(ValueError, match=r"`subjects`.*got S998, S999, not there"):
        load_rendered(subjects=["S999", "S998"])


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "damaged.parquet"
    path.write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match="parquet") as caught:
        load_rendered(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_subject_stands_in_two_parts(faces, seed):
    splits = subject_split(faces, seed=seed)
    parts = [subjects(splits[name]) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 24
    assert sum(map(len, splits.values())) == len(faces)
    # a quarter of all, then 15 % of the rest
    assert [len(part) for part in parts] == [15, 3, 6]


def test_the_seed_decides_who_falls_where(faces):
    first, again, other = (subject_split(faces, seed=seed) for seed in (3, 3, 4))
    assert [subjects(part) for part in first.values()] == [subjects(part) for part in again.values()]
    assert subjects(first["test"]) != subjects(other["test"])


def test_order_of_rows_does_not_change_the_split(faces):
    turned = subject_split(faces.select(range(599, -1, -1)))
    for name, part in subject_split(faces).items():
        assert subjects(part) == subjects(turned[name])


def test_test_subjects_can_be_named(faces):
    splits = subject_split(faces, test=["S020", "S021"], validation=0.5)
    assert subjects(splits["test"]) == {"S020", "S021"}
    assert len(subjects(splits["validation"])) == len(subjects(splits["train"])) == 11


def test_every_part_has_at_least_one_subject(faces):
    three = faces.select(range(75))
    for shares in ({}, {"validation": 0.0, "test": 0.0}, {"validation": 1.0, "test": 0.3}):
        assert [len(subjects(part)) for part in subject_split(three, **shares).values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (50, {}, "at least 3 subjects.*got 2"),
        (600, {"test": ["S001", "S998", "S999"]}, r"`test` must name subjects of the data; got S998, S999\."),
        (75, {"test": ["S000", "S001"]}, "`test` must leave at least 2 subjects.*got 1"),
        (600, {"test": 1.0}, "`test` must leave at least 2 subjects.*got 0"),
    ],
)
def test_a_split_that_cannot_be_is_refused(faces, rows, options, message):
    with pytest.raises(ValueError, match=message):
        subject_split(faces.select(range(rows)), **options)


def test_transform_gives_tensors(faces, image_processor):
    batch = FaceTransform(image_processor)(faces[:3])
    assert batch["pixel_values"].shape == (3, 3, SIDE, SIDE)
    assert batch["pixel_values"].dtype == batch["labels"].dtype == torch.float32
    np.testing.assert_array_equal(batch["labels"].numpy(), faces[:3]["labels"])


def test_transform_serves_a_dataset(faces, image_processor):
    row = faces.with_transform(FaceTransform(image_processor))[7]
    assert row["pixel_values"].shape == (3, SIDE, SIDE)
    assert row["labels"].shape == (len(BP4D_AUS),)


def test_transform_without_labels_and_landmarks(image_processor, square):
    batch = FaceTransform(image_processor)({"image": [square]})
    assert list(batch) == ["pixel_values"]
    expected = image_processor(square, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch["pixel_values"], expected, rtol=0, atol=1e-6)


def test_without_augmentation_nothing_is_left_to_chance(faces, image_processor):
    transform = FaceTransform(image_processor)
    torch.manual_seed(0)
    first = transform(faces[:2])["pixel_values"]
    torch.manual_seed(1)
    assert torch.equal(first, transform(faces[:2])["pixel_values"])


def test_augmentation_differs_and_repeats_by_the_seed_of_torch(faces, image_processor):
    plain, varied = FaceTransform(image_processor), FaceTransform(image_processor, FaceAugmentation())
    torch.manual_seed(0)
    first, second = varied(faces[:2])["pixel_values"], varied(faces[:2])["pixel_values"]
    torch.manual_seed(0)
    assert torch.equal(first, varied(faces[:2])["pixel_values"])
    assert not torch.equal(first, second)
    assert not torch.allclose(first, plain(faces[:2])["pixel_values"], atol=0.1)
    # two rows of the same face vary apart from each other
    twins = varied({"image": [faces[0]["image"]] * 2})["pixel_values"]
    assert not torch.allclose(twins[0], twins[1], atol=0.1)


def test_augmentation_without_any_range_changes_nothing(faces, image_processor):
    plain, still = FaceTransform(image_processor), FaceTransform(image_processor, STILL)
    torch.testing.assert_close(still(faces[:2])["pixel_values"], plain(faces[:2])["pixel_values"], rtol=0, atol=1e-5)


def test_faces_are_aligned_to_the_template(faces, image_processor):
    row, size = faces[11], 112
    source = five_points(row["landmarks"])
    matrix = similarity_transform(source, FaceTemplate().points * size)
    moved = source @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(moved - FaceTemplate().points * size).max() < 0.12 * size
    side = image_processor.size["height"]
    expected = warp_face(row["image"], similarity_transform(source, FaceTemplate().points * side), side)
    found = FaceTransform(image_processor).crop(row["image"], five_points(row["landmarks"]), None)[0]
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_zero_ranges_leave_the_matrix_as_it_is():
    matrix = np.array([[0.4, 0.1, -3.0], [-0.1, 0.4, 9.0]])
    np.testing.assert_allclose(STILL.geometry(matrix, SIDE, np.random.default_rng(0)), matrix, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_turning_and_scaling_keep_the_centre(seed):
    turning = FaceAugmentation(rotation=30, scale=0.3, shift=0, flip=0.5)
    matrix = np.array([[0.5, 0.0, 2.0], [0.0, 0.5, -7.0]])
    changed = turning.geometry(matrix, SIDE, np.random.default_rng(seed))
    centre = np.linalg.solve(matrix[:, :2], np.full(2, SIDE / 2) - matrix[:, 2])
    np.testing.assert_allclose(changed[:, :2] @ centre + changed[:, 2], np.full(2, SIDE / 2), atol=1e-9)
    assert not np.allclose(changed, matrix)


def test_geometry_stays_within_its_ranges():
    ranges = FaceAugmentation(rotation=10, scale=0.1, shift=0.05, flip=0.5)
    identity, rng = np.hstack([np.eye(2), np.zeros((2, 1))]), np.random.default_rng(0)
    middle = np.full(2, SIDE / 2)
    flipped = 0
    for _ in range(200):
        changed = ranges.geometry(identity, SIDE, rng)
        linear = changed[:, :2]
        flipped += np.linalg.det(linear) < 0
        linear = np.diag([np.sign(np.linalg.det(linear)), 1]) @ linear
        assert 0.9 <= np.sqrt(np.linalg.det(linear)) <= 1.1
        assert abs(np.rad2deg(np.arctan2(linear[1, 0], linear[0, 0]))) <= 10
        assert np.abs(changed[:, :2] @ middle + changed[:, 2] - middle).max() <= 0.05 * SIDE
    assert 60 < flipped < 140


def test_a_flip_is_the_mirror_of_the_crop(image_processor, square):
    always = FaceAugmentation(rotation=0, scale=0, shift=0, flip=1, colour=0, blur=0, erase=0)
    crop, flipped = FaceTransform(image_processor, always).crop(square, None, np.random.default_rng(0))
    assert flipped
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(ImageOps.mirror(square)))


@pytest.mark.parametrize("change", [{"colour": 0.8}, {"blur": 1.0}, {"erase": 1.0}, {}], ids=str)
@pytest.mark.parametrize("size", [(SIDE, SIDE), (16, 16)])
def test_appearance_keeps_size_and_mode(square, change, size):
    crop = square.resize(size)
    settings = {"colour": 0, "blur": 0, "erase": 0, **change} if change else {}
    different = 0
    for seed in range(5):
        varied = FaceAugmentation(**settings).appearance(crop.copy(), np.random.default_rng(seed))
        assert varied.size == size
        assert varied.mode == "RGB"
        different += varied.tobytes() != crop.tobytes()
    # at 16 pixels the strongest blur is too small to see
    assert different > 0 or (size == (16, 16) and "blur" in change)


def test_appearance_leaves_its_input_alone(square):
    before = square.tobytes()
    for seed in range(5):
        FaceAugmentation(erase=1.0).appearance(square, np.random.default_rng(seed))
    assert square.tobytes() == before


def test_mixup_blends_faces_and_labels_alike():
    rng = np.random.default_rng(0)
    labels = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    # faces that state their labels in their two channels: what is true of one before must be true of the blend
    faces = labels[:, :, None, None].expand(-1, -1, 3, 3).clone()
    blends, blended = FaceAugmentation(mixup=0.5).mix(faces, labels, rng)
    torch.testing.assert_close(blends[:, :, 1, 2], blended)
    assert ((blended > 0) & (blended < 1)).any()


def test_mixup_keeps_missing_labels_missing():
    labels = torch.tensor([[-100.0, 1.0], [1.0, float("nan")], [0.0, 1.0]])
    for seed in range(10):
        _, blended = FaceAugmentation(mixup=0.5).mix(torch.zeros(3, 1, 2, 2), labels, np.random.default_rng(seed))
        coded = blended != -100
        assert not coded[0, 0]
        assert not coded[1, 1]
        assert ((blended[coded] >= 0) & (blended[coded] <= 1)).all()


def test_only_strong_augmentation_blends(faces, image_processor):
    def fractions(augmentation):
        torch.manual_seed(0)
        labels = FaceTransform(image_processor, augmentation)(faces[:16])["labels"]
        return ((labels > 0) & (labels < 1)).sum()

    assert fractions(FaceAugmentation()) == 0
    assert fractions(FaceAugmentation.strong()) > 0


def test_every_coded_action_unit_is_described(table):
    coded = [name for name in table.column_names if re.fullmatch(r"AU\d+", name)]
    assert len(coded) == 22
    assert set(coded) <= set(load_bank().descriptions)
    assert np.array(load_rendered(aus=coded, subjects=["S000"])["labels"]).shape == (25, 22)
