"""Datasets with other action units as one, and rare action units seen more often."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, DatasetInfo, Features, Image, load_from_disk
from PIL import Image as Picture

from hiva_hf import HiVAImageProcessorPil
from hiva_hf.data import (
    EpochDataset,
    FaceTransform,
    StreamedFaces,
    au_dataset,
    au_names,
    load_prepared,
    merge_datasets,
    sampling_weights,
    stream_prepared,
    subject_split,
)
from hiva_hf.data.merging import column_values, label_matrix
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.data.schema import ALIGNMENT_KEY, alignment_of
from hiva_hf.data.video_frames import FrameImage

ALIGNED = {"alignment": "similarity", "size": 128}


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


def folder_of(place, name, rows, aus, alignment, columns=("points", "box")):
    """Some rows of the sample as `hiva data prepare` writes them, in row groups of ten."""
    table = pq.read_table(SAMPLE_FILE).slice(*rows).replace_schema_metadata(None)
    count = len(table)
    table = table.select(
        ["image", "subject_id", "frame", "box", *(["landmarks"] if "landmarks" in columns else []), *aus]
    )
    if "box" not in columns:
        table = table.drop_columns("box")
    if "points" in columns:
        values = pa.array(np.tile(np.float32([30, 40, 90, 40, 60, 70, 40, 95, 80, 95]), count))
        table = table.append_column("points", pa.FixedSizeListArray.from_arrays(values, 10))
    table = table.append_column("sequence_id", pa.array(["T1"] * count)).append_column(
        "dataset", pa.array([name] * count)
    )
    schema = Features(Features.from_arrow_schema(table.schema) | {"image": Image()}).arrow_schema
    metadata = (
        schema.metadata if alignment is None else schema.metadata | {ALIGNMENT_KEY: json.dumps(alignment).encode()}
    )
    (place / name).mkdir()
    pq.write_table(table.replace_schema_metadata(metadata), place / name / "faces.parquet", row_group_size=10)
    return place / name


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    place = tmp_path_factory.mktemp("prepared")
    return [
        folder_of(place, "BP4D", (0, 100), ["AU12", "AU1"], ALIGNED),
        folder_of(place, "DISFA", (200, 150), ["AU1", "AU4"], ALIGNED, ["points"]),
        folder_of(place, "other", (400, 100), ["AU1"], None, ["landmarks"]),
    ]


@pytest.mark.parametrize("load", [load_prepared, stream_prepared])
def test_prepared_faces_stay_aligned(prepared, load):
    parts = [load(folder) for folder in prepared]
    merged = merge_datasets(parts[:2])
    assert type(merged) is type(parts[0])
    assert alignment_of(merged) == ALIGNED
    assert au_names(merged) == ["AU1", "AU4", "AU12"]
    assert merged[130]["points"] == parts[1][30]["points"]
    assert merged[130]["image"].tobytes() == parts[1][30]["image"].tobytes()
    assert merged[5]["box"] == parts[0][5]["box"]
    assert merged[130]["box"] is None
    transform = FaceTransform(HiVAImageProcessorPil(size={"height": 32, "width": 32}))
    one, other = transform(merged[[130]]), transform(parts[1][[30]])
    assert (one["pixel_values"] == other["pixel_values"]).all()


@pytest.mark.parametrize("load", [load_prepared, stream_prepared])
def test_of_several_alignments_none_is_told(prepared, load):
    parts = [load(folder) for folder in prepared]
    merged = merge_datasets([parts[1], parts[2], parts[0]])
    assert alignment_of(merged) is None
    assert merged[200]["points"] is None
    assert merged[200]["landmarks"] == parts[2][50]["landmarks"]
    assert merged[0]["landmarks"] is None
    transform = FaceTransform(HiVAImageProcessorPil(size={"height": 32, "width": 32}))
    assert transform(merged[[0, 200, 349]])["pixel_values"].shape == (3, 3, 32, 32)


@pytest.mark.parametrize("load", [load_prepared, stream_prepared])
def test_selections_of_prepared_faces_and_merged_ones_are_merged(prepared, load, tmp_path):
    parts = [load(folder) for folder in prepared]
    chosen = [parts[0].select([99, 3, 40]), parts[1], merge_datasets(parts[2:]).select(range(60, 64))]
    merged = merge_datasets(chosen)
    rows = [row for part in chosen for row in part]
    assert len(merged) == len(rows)
    copies = [merged, pickle.loads(pickle.dumps(merged))]
    if isinstance(merged, Dataset):
        merged.save_to_disk(tmp_path / "saved")
        copies.append(load_from_disk(tmp_path / "saved"))
    for copy in copies:
        assert copy.column_names == merged.column_names
        for one, other in zip(copy, rows, strict=True):
            assert one["image"].tobytes() == other["image"].tobytes()
            assert one["points"] == other.get("points")
            assert one["frame"] == other["frame"]
            assert one["subject_id"] == f"{other['dataset']}:{other['subject_id']}"
    wide = label_matrix(merged)
    assert wide.shape == (157, 3)
    assert (wide[:3, [2, 0]] == label_matrix(chosen[0])).all()
    assert (wide[:3, 1] == -100).all()


def test_streamed_faces_are_merged_like_loaded_ones(prepared):
    merged, loaded = (
        merge_datasets([load(folder) for folder in prepared]) for load in (stream_prepared, load_prepared)
    )
    assert isinstance(merged, StreamedFaces)
    assert sorted(merged.column_names) == sorted(loaded.column_names)
    assert len(merged.units) == 10 + 15 + 10
    order = merged.mixed(np.arange(350), np.random.default_rng(0))
    for place in order[:40].tolist():
        one, other = merged[place], loaded[place]
        assert one.pop("image").tobytes() == other.pop("image").tobytes()
        assert one == other


def test_one_kind_of_datasets_only(prepared):
    loaded, streamed = load_prepared(prepared[0]), stream_prepared(prepared[1])
    with pytest.raises(TypeError, match=r"got Dataset, StreamedFaces\. Load all with `load_prepared` or all with"):
        merge_datasets([loaded, streamed])
    with pytest.raises(TypeError, match=r"got DatasetDict\..* give one part"):
        merge_datasets([DatasetDict(train=loaded)])


def test_columns_that_do_not_fit(two):
    with pytest.raises(ValueError, match=r"number 2 lacks sequence_id, dataset\. Add them"):
        merge_datasets([two[0], two[1].remove_columns(["sequence_id", "dataset"])])
    with pytest.raises(ValueError, match="The column age must be of one kind in all datasets"):
        merge_datasets([two[0].add_column("age", [1, 2]), two[1].add_column("age", ["old"])])


def in_chunks(count, size):
    """Pictures of so many bytes each, a chunk each, that all lie in the same place of memory."""
    one = pa.StructArray.from_arrays(
        [pa.array([bytes(size)], pa.binary()), pa.nulls(1, pa.string())], ["bytes", "path"]
    )
    whole = au_dataset(
        "x", ["AU1"], np.ones((count, 1)), images=[""] * count, subjects=["a"] * count, sequences=["a"] * count,
        frames=range(count),
    )  # fmt: skip
    table = whole.data.table.set_column(0, "image", pa.chunked_array([one] * count))
    schema = Features(whole.features).arrow_schema
    info = DatasetInfo(features=whole.features, description=whole.info.description)
    return Dataset(table.cast(schema), info=info, fingerprint=f"{count}-{size}")


def test_pictures_of_more_than_two_gigabytes_are_not_copied():
    parts = [in_chunks(80, 2**25), in_chunks(3, 2**25)]
    merged = merge_datasets([*parts, parts[0].select([7, 2])])
    assert len(merged) == 85
    images = merged.data.column("image")
    assert images.nbytes > 2**31
    assert images.num_chunks == 80 + 3 + 80
    places = {chunk.field("bytes").buffers()[2].address for chunk in images.chunks}
    assert len(places) == 2
    assert merged["frame"][-2:] == [7, 2]


def people(name, count, first=0):
    return au_dataset(
        name, ["AU1"], np.ones((2 * count, 1)), images=[""] * (2 * count),
        subjects=[f"S{first + number // 2:03d}" for number in range(2 * count)], sequences=["a"] * (2 * count),
        frames=range(2 * count),
    )  # fmt: skip


def of(part):
    """How many people of each dataset."""
    pairs = set(zip(part["dataset"], part["subject_id"], strict=True))
    return {name: sum(pair[0] == name for pair in pairs) for name in sorted({pair[0] for pair in pairs})}


@pytest.mark.parametrize("seed", range(5))
def test_each_dataset_of_merged_ones_is_split_by_itself(seed):
    parts = subject_split(merge_datasets([people("BP4D", 41), people("DISFA", 5)]), seed=seed)
    assert of(parts["test"]) == {"BP4D": 10, "DISFA": 1}
    assert of(parts["validation"]) == {"BP4D": 5, "DISFA": 1}
    assert of(parts["train"]) == {"BP4D": 26, "DISFA": 3}


def test_streamed_merged_faces_are_split_by_dataset(prepared):
    merged = merge_datasets([stream_prepared(folder) for folder in prepared])
    for part in subject_split(merged).values():
        assert isinstance(part, StreamedFaces)
        assert list(of(part)) == ["BP4D", "DISFA", "other"]


def test_people_of_merged_datasets_can_be_tested_by_name():
    merged = merge_datasets([people("BP4D", 6), people("DISFA", 3)])
    parts = subject_split(merged, test=[f"DISFA:S{number:03d}" for number in range(3)])
    assert [of(part) for part in parts.values()] == [{"BP4D": 5}, {"BP4D": 1}, {"DISFA": 3}]
    parts = subject_split(merged, test=["DISFA:S000", "DISFA:S002"])
    assert [of(part) for part in parts.values()] == [{"BP4D": 5, "DISFA": 1}, {"BP4D": 1}, {"DISFA": 2}]
    with pytest.raises(ValueError, match=r"`test` must leave at least 2 subjects of a dataset.*got 0"):
        subject_split(merged, test=1.0)


def test_datasets_that_cannot_be_split_by_themselves_are_split_together():
    few = subject_split(merge_datasets([people("BP4D", 6), people("DISFA", 2)]))
    assert sum(sum(of(part).values()) for part in few.values()) == 8
    # without the names of their datasets these are the same people, who must not stand on two sides
    merged = merge_datasets([people("BP4D", 6), people("DISFA", 6)])
    plain = [name.split(":")[1] for name in merged["subject_id"]]
    shared = merged.remove_columns("subject_id").add_column("subject_id", plain)
    sides = [set(part["subject_id"]) for part in subject_split(shared).values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 6


def test_people_of_one_dataset_fall_where_they_fell():
    data = people("BP4D", 8)
    parts = {"train": [0, 1, 5, 6, 7], "validation": [3], "test": [2, 4]}
    for rows in (data, data.remove_columns("dataset")):
        found = {
            name: sorted({int(who[1:]) for who in part["subject_id"]}) for name, part in subject_split(rows).items()
        }
        assert found == parts


def test_columns_as_arrays(prepared, two):
    loaded, streamed = (load(prepared[0]) for load in (load_prepared, stream_prepared))
    for rows in (loaded, streamed, loaded.select([4, 80, 3]), streamed.select([4, 80, 3])):
        for name in ("subject_id", "frame"):
            values = column_values(rows, name)
            assert values.tolist() == list(rows[name])
            assert values.dtype.kind == ("U" if name == "subject_id" else "i")
    assert column_values(two[0].add_column("who", [None, "b"]), "who").tolist() == [None, "b"]
