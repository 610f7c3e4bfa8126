"""Rendered data: columns, files that appear whole, runs that go on, and the command."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from hiva_hf.data import load_rendered
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.render import RENDERED_AUS, Rendering, render_faces, write_faces

SMALL = Rendering(frames=3, seed=5, size=48, masks=True)


@pytest.fixture(scope="module")
def faces(model_file):
    return render_faces(model_file, 2, SMALL)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_columns_are_those_of_rendered_faces(faces):
    sample = pq.read_schema(SAMPLE_FILE)
    made = faces.features.arrow_schema
    for name in sample.names:
        assert made.field(name).type == sample.field(name).type or name in ("box", "landmarks"), name
    assert set(made.names) - set(sample.names) == {f"{au}_mask" for au in RENDERED_AUS}
    assert faces["subject_id"][:] == ["S000"] * 3 + ["S001"] * 3
    assert faces["frame"][:] == [0, 1, 2] * 2
    for row in faces:
        assert row["image"].size == (48, 48)
        assert np.shape(row["landmarks"]) == (136,)
        for au in RENDERED_AUS:
            assert row[au] == (row[f"{au}_intensity"] > 0)
            mask = row[f"{au}_mask"]
            assert (mask is not None) == bool(row[au])
            assert mask is None or (mask.size == (48, 48) and set(np.unique(mask)) <= {False, True})


def test_files_hold_what_memory_holds_and_load_as_data(model_file, faces, tmp_path):
    told = []
    assert write_faces(model_file, tmp_path, 2, SMALL, on_faces=lambda *seen: told.append(seen)) == 6
    assert told == [(6, 6)]
    table = pq.read_table(tmp_path / "faces-00000.parquet")
    assert table.to_pylist() == faces.with_format("arrow")[:].to_pylist()
    loaded = load_rendered(tmp_path, aus=["AU12", "AU1"])
    assert [row[0] for row in loaded["labels"]] == faces["AU12"][:]
    assert load_rendered(tmp_path, aus=["AU12"], intensity=True)[0]["labels"] == [faces[0]["AU12_intensity"]]


def test_a_run_goes_on_with_the_same_bytes(model_file, tmp_path, monkeypatch):
    from hiva_hf.render import dataset

    monkeypatch.setattr(dataset, "_ROWS_PER_SHARD", 4)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_faces(model_file, whole, 5, SMALL)
    assert len(list(whole.glob("*.parquet"))) == 3
    written, write = [], pq.write_table

    def stop(table, where, **options):
        if len(written) == 2:
            write(table, where, **options)
            raise KeyboardInterrupt
        written.append(where)
        write(table, where, **options)

    monkeypatch.setattr(dataset.pq, "write_table", stop)
    with pytest.raises(KeyboardInterrupt):
        write_faces(model_file, broken, 5, SMALL)
    monkeypatch.setattr(dataset.pq, "write_table", write)
    assert sorted(path.name for path in broken.glob("*.parquet")) == ["faces-00000.parquet", "faces-00001.parquet"]
    with pytest.raises(ValueError, match="must be prepared to its end"):
        load_rendered(broken)
    before = (broken / "faces-00000.parquet").stat().st_mtime_ns
    assert write_faces(model_file, broken, 5, SMALL) == 15
    assert (broken / "faces-00000.parquet").stat().st_mtime_ns == before
    assert contents(broken) == contents(whole)


def test_other_faces_are_not_mixed_in(model_file, tmp_path):
    write_faces(model_file, tmp_path / "a", 1, SMALL)
    for people, rendering, what in (
        (1, Rendering(frames=3, seed=6, size=48, masks=True), "seed"), (2, SMALL, "subjects, people"),
        ([4], SMALL, "people"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"`out` must be new or hold the same faces; .* with other {what}\."):
            write_faces(model_file, tmp_path / "a", people, rendering)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "other.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="holds parquet files of something else"):
        write_faces(model_file, tmp_path / "b", 1, SMALL)


def test_numbers_are_checked(model_file, tmp_path):
    with pytest.raises(ValueError, match="`subjects` must be at least 1"):
        render_faces(model_file, 0, SMALL)
    with pytest.raises(ValueError, match="different numbers"):
        render_faces(model_file, [1, 1], SMALL)
    with pytest.raises(ValueError, match="`workers` must be at least 1"):
        write_faces(model_file, tmp_path, 1, SMALL, workers=0)
    with pytest.raises(ValueError, match="`frames` must be at least 1"):
        Rendering(frames=0)
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"broken.npz must be an .npz of a face model"):
        write_faces(tmp_path / "broken.npz", tmp_path / "out", 1, SMALL)
    with pytest.raises(FileNotFoundError, match="`model` must be the folder FaceXModel"):
        write_faces(tmp_path / "none.npz", tmp_path / "out", 1, SMALL)
    assert not (tmp_path / "out").exists()


def run(*arguments):
    call = [sys.executable, "-m", "hiva_hf.cli", "render", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def test_the_command_and_its_workers_give_the_same_bytes(model_file, tmp_path):
    write_faces(model_file, tmp_path / "here", range(2, 4), Rendering(frames=120, seed=1, size=32))
    options = ("--model", model_file, "--subjects", 2, "--first", 2, "--frames", 120, "--seed", 1, "--size", 32)
    done = run(*options, "--out", tmp_path / "there", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"240 faces of 2 people in {tmp_path / 'there'}\n")
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert there == here
    assert json.loads(there["prepare.json"])["frames"] == 120


def test_a_mistake_is_one_sentence(tmp_path):
    done = run("--model", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: `model` must be the folder FaceXModel")
