"""Faces that are read from their files while training: the same rows as loaded ones, each once, in any share."""

import pickle
from collections import Counter

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset

from hiva_hf.data import (
    EpochDataset,
    StreamedFaces,
    load_prepared,
    protocol_folds,
    sampling_weights,
    stream_prepared,
    subject_split,
)
from hiva_hf.data import streaming as streaming_module
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.data.schema import au_names

AUS = ["AU1", "AU4", "AU12"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The sample in five files of several row groups."""
    place = tmp_path_factory.mktemp("shards")
    table = pq.read_table(SAMPLE_FILE)
    for shard, start in enumerate(range(0, 600, 130)):
        pq.write_table(table.slice(start, 130), place / f"faces-{shard:05d}.parquet", row_group_size=50)
    return place


@pytest.fixture(scope="module")
def streamed(folder):
    return stream_prepared(folder, aus=AUS)


def test_rows_are_those_of_loaded_faces(folder, streamed):
    loaded = load_prepared(folder, aus=AUS)
    assert len(streamed) == len(loaded) == 600
    assert streamed.column_names == loaded.column_names
    assert au_names(streamed) == AUS
    for place in (0, 49, 50, 599):
        one, other = streamed[place], loaded[place]
        assert one.pop("image").tobytes() == other.pop("image").tobytes()
        assert one == other
    batch = streamed[[3, 400]]
    assert [image.tobytes() for image in batch["image"]] == [
        loaded[3]["image"].tobytes(),
        loaded[400]["image"].tobytes(),
    ]
    assert np.asarray(streamed["labels"]).tolist() == np.asarray(loaded["labels"]).tolist()
    assert len(list(streamed.select([1, 2]))) == 2
    with pytest.raises(ValueError, match="`subjects` must name subjects"):
        stream_prepared(folder, subjects=["nobody"])


def test_files_that_lie_elsewhere(folder):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/faces", recursive=True)
    elsewhere = stream_prepared("memory://faces", aus=AUS)
    assert len(elsewhere) == 600
    assert elsewhere[599]["image"].tobytes() == stream_prepared(folder)[599]["image"].tobytes()
    with pytest.raises(FileNotFoundError, match="memory://nowhere"):
        stream_prepared("memory://nowhere")


def test_datasets_streams_the_files_too(folder):
    rows = load_dataset("parquet", data_files=str(folder / "*.parquet"), split="train", streaming=True)
    assert sum(1 for _ in rows.select_columns(["subject_id"])) == 600


def test_it_splits_and_folds_like_a_dataset(folder, streamed):
    for parts, others in (
        (subject_split(streamed, seed=1), subject_split(load_prepared(folder), seed=1)),
        (protocol_folds(streamed, 3)[0].split(streamed), protocol_folds(streamed, 3)[0].split(load_prepared(folder))),
    ):
        assert parts.keys() == others.keys()
        for name, part in parts.items():
            assert isinstance(part, StreamedFaces)
            assert list(part["subject_id"]) == list(others[name]["subject_id"])
    assert sampling_weights(streamed) == pytest.approx(sampling_weights(load_prepared(folder, aus=AUS)))


def test_a_mixed_order_goes_through_the_files_once(streamed, monkeypatch):
    monkeypatch.setattr(streaming_module, "_WINDOW", 500_000)
    faces = StreamedFaces(streamed.index, streamed.units)
    places = faces.mixed(np.arange(600), np.random.default_rng(0))
    assert sorted(places) == list(range(600))
    assert np.abs(np.diff(places)).mean() > 50
    reads = Counter()
    read = pq.ParquetFile.read_row_group

    def counting(self, number, columns):
        reads[number, self.metadata.num_rows, id(columns)] += 1
        return read(self, number, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    for start in range(0, 600, 16):
        faces[places[start : start + 16].tolist()]
        assert sum(faces.units[unit].size for unit in faces._read) <= 1_000_000
    assert sum(reads.values()) == len(faces.units) > 10
    # what was read does not travel to the processes of a loader
    assert not pickle.loads(pickle.dumps(faces))._read


def seen(rows):
    return [tuple(row) for position in range(len(rows)) for row in [rows[position]["where"].tolist()]]


def where(batch):
    number = [int(name[1:]) for name in batch["subject_id"]]
    return {
        "where": torch.tensor(list(zip(number, batch["frame"], strict=True))),
        "labels": torch.tensor(np.asarray(batch["labels"])),
    }


def test_epochs_differ_and_repeat_by_their_seed(streamed):
    rows = EpochDataset(streamed, where, shuffled=True, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        rows.set_epoch(epoch)
        orders.append(rows.places.tolist())
    assert orders[0] == orders[2] != orders[1]
    assert EpochDataset(streamed, where, shuffled=True, seed=4).places.tolist() != orders[0]
    assert EpochDataset(streamed, where).places.tolist() == list(range(600))


def test_filling_is_not_coded(streamed):
    rows = EpochDataset(streamed.select(range(5)), where, batch_size=2, processes=2)
    # the last batch of either process is filled up
    assert rows.places.tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    batch = rows.__getitems__([3, 4, 5, 6])
    assert [row["labels"].tolist() for row in batch[2:]] == [[-100] * 3] * 2
    assert batch[0]["labels"].tolist() == streamed[3]["labels"]
    assert rows[7]["labels"].tolist() == [-100] * 3
    assert rows[7]["where"].tolist() == [0, 0]
    assert sorted(seen(rows)[:5]) == sorted(set(seen(rows)[:5]))


def test_what_is_left_over_is_shared_evenly(streamed):
    def places(count):
        return EpochDataset(streamed.select(range(count)), where, batch_size=3, processes=2).places.tolist()

    assert places(6) == [0, 1, 2, 3, 4, 5]
    assert places(10) == [0, 1, 2, 3, 4, 5, 6, 8, -1, 7, 9, -1]


def test_each_file_is_read_by_one_loader(streamed, monkeypatch):
    monkeypatch.setattr(streaming_module, "_WINDOW", 500_000)
    for processes, workers in ((1, 2), (2, 2)):
        rows = EpochDataset(streamed, where, shuffled=True, batch_size=10, processes=processes, workers=workers)
        readers = processes * workers
        assert sorted(rows.places[rows.places >= 0]) == list(range(600))
        owner = {}
        for number, batch in enumerate(rows.places.reshape(-1, 10)[:40]):
            for unit in streamed._unit[batch]:
                assert owner.setdefault(unit, number % readers) == number % readers
        assert set(owner.values()) == set(range(readers))


def test_loaders_that_live_on_are_told_the_epoch(streamed):
    rows = EpochDataset(streamed, where, shuffled=True, batch_size=50)
    loader = torch.utils.data.DataLoader(rows, batch_size=50, num_workers=1, persistent_workers=True)
    orders = []
    for epoch in range(2):
        rows.set_epoch(epoch)
        orders.append([tuple(pair) for batch in loader for pair in batch["where"].tolist()])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_an_interrupted_folder_beside_a_finished_one(folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "faces-00000.parquet").write_bytes((folder / "faces-00000.parquet").read_bytes())
        (tmp_path / name / "prepare.json").write_text("{}")
    (tmp_path / "a" / "dropped.csv").write_text("")
    with pytest.raises(ValueError, match=r"/b must be prepared to its end"):
        stream_prepared(tmp_path)
