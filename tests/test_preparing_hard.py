"""What can go wrong when data are prepared: other data, other mistakes than a bad image, kills, two runs at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import fails_with
from filelock import FileLock
from PIL import Image

from hiva_hf.data import Preparation, load_folder, load_prepared, load_rendered, prepare_faces
from hiva_hf.faces import GivenFaces

pytest.importorskip("cv2")
CROPS = Preparation(alignment="none", size=64)


@pytest.fixture
def folder(tmp_path):
    """Ten pictures, one of them none."""
    root = tmp_path / "own"
    root.mkdir()
    rows = load_rendered(aus=["AU12"])
    lines = ["file_name,subject,AU12"]
    for n in range(10):
        rows[n]["image"].save(root / f"{n}.png")
        lines.append(f"{n}.png,S{n % 3},{n % 2}")
    (root / "4.png").write_text("no picture")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def test_corrected_labels_are_other_data(folder, tmp_path):
    prepare_faces(load_folder(folder), tmp_path / "out", CROPS)
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("1.png,S1,1", "1.png,S1,0"))
    with pytest.raises(ValueError, match="made with other data"):
        prepare_faces(load_folder(folder), tmp_path / "out", CROPS)


def test_pictures_of_another_folder_and_another_table_of_faces_are_other_data(folder, tmp_path):
    prepare_faces(load_folder(folder), tmp_path / "out", CROPS)
    folder.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="made with other data"):
        prepare_faces(load_folder(tmp_path / "moved"), tmp_path / "out", CROPS)
    tables = []
    for n, corner in enumerate((100, 110)):
        (tmp_path / f"{n}.csv").write_text(f"source,x0,y0,x1,y1\n0.png,20,20,{corner},{corner}\n")
        tables.append(GivenFaces.load(tmp_path / f"{n}.csv"))
    how = Preparation(alignment="given", size=64)
    prepare_faces(load_folder(tmp_path / "moved"), tmp_path / "given", how, given=tables[0])
    prepare_faces(load_folder(tmp_path / "moved"), tmp_path / "given", how, given=GivenFaces.load(tmp_path / "0.csv"))
    with pytest.raises(ValueError, match="made with other data"):
        prepare_faces(load_folder(tmp_path / "moved"), tmp_path / "given", how, given=tables[1])


def test_an_image_that_was_mended_is_read(folder, tmp_path):
    data = load_folder(folder)
    assert prepare_faces(data, tmp_path / "out", CROPS, rows_per_shard=3).dropped == {"image cannot be read": 1}
    assert "cannot identify image file" in (tmp_path / "out" / "dropped.csv").read_text()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    Image.open(folder / "3.png").save(folder / "4.png")
    later = time.time() + 5
    os.utime(folder / "4.png", (later, later))
    report = prepare_faces(data, tmp_path / "out", CROPS, rows_per_shard=3)
    assert (report.faces, report.dropped) == (10, {})
    changed = [
        path.name for path in (tmp_path / "out").glob("*.parquet") if path.stat().st_mtime_ns != before[path.name]
    ]
    assert changed == ["faces-00001.parquet"]


def test_a_detector_that_is_none_is_not_taken_for_bad_images(hiva, folder, place):
    result = hiva("data", "prepare", "folder", folder, "--out", "out", "--detector", "nonsense.onnx", "--workers", 1)
    fails_with(result, "nonsense.onnx")
    assert not list(Path("out").glob("*.parquet"))
    fails_with(hiva("data", "prepare", "folder", folder, "--out", "x", "--alignment", "given"), "--boxes")


def test_an_error_of_the_machine_ends_the_run(folder, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(OSError, match="No space left"):
        prepare_faces(load_folder(folder), tmp_path / "out", CROPS)
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_strict_does_not_make_the_rest_first(tmp_path):
    root = tmp_path / "many"
    root.mkdir()
    image = load_rendered()[0]["image"]
    (root / "0.png").write_text("none")
    image.save(root / "1.png")
    for n in range(2, 400):
        os.link(root / "1.png", root / f"{n}.png")
    (root / "l.csv").write_text("file_name,AU12\n" + "".join(f"{n}.png,1\n" for n in range(400)))
    with pytest.raises(ValueError, match=r"0\.png must be an image"):
        prepare_faces(load_folder(root), tmp_path / "out", CROPS, rows_per_shard=1, workers=2, strict=True)
    assert len(list((tmp_path / "out").glob("*.parquet"))) < 300


def test_two_runs_do_not_write_into_one_folder(folder, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".prepare.lock"), pytest.raises(ValueError, match="another run writes into"):
        prepare_faces(load_folder(folder), tmp_path / "out", CROPS)
    assert prepare_faces(load_folder(folder), tmp_path / "out", CROPS).faces == 9


def test_workers_of_a_run_that_was_shot_end_with_it(folder, tmp_path):
    code = """
import sys, time
from hiva_hf.data import Preparation, load_folder, prepare_faces
import hiva_hf.data.preparing as preparing
if __name__ == "__main__":
    prepare_faces(
        load_folder(sys.argv[1]), sys.argv[2], Preparation(alignment="none", size=64), rows_per_shard=1, workers=2,
        on_shard=lambda done, total: (print("made", flush=True), time.sleep(60)),
    )
"""
    script = tmp_path / "run.py"
    script.write_text(code)
    run = subprocess.Popen(
        [sys.executable, script, folder, tmp_path / "out"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert run.stdout.readline() == "made\n"

    def alive():
        group = Path("/proc").glob("[0-9]*/stat")
        rows = []
        for file in group:
            try:
                rows.append(file.read_text().rpartition(")")[2].split())
            except OSError:
                continue
        # its session, without zombies
        return sum(row[3] == str(run.pid) and row[0] != "Z" for row in rows)

    assert alive() >= 3
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 20
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive() == 0


def test_small_row_groups_and_several_shards_of_little_data(folder, tmp_path):
    root = tmp_path / "more"
    root.mkdir()
    image = load_rendered()[0]["image"]
    for n in range(120):
        image.save(root / f"{n}.png")
    (root / "l.csv").write_text("file_name,AU12\n" + "".join(f"{n}.png,1\n" for n in range(120)))
    prepare_faces(load_folder(root), tmp_path / "out", CROPS)
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [50, 50, 20]
    prepare_faces(load_folder(root), tmp_path / "one", CROPS, rows_per_shard=120)
    assert pq.read_metadata(tmp_path / "one" / "faces-00000.parquet").num_row_groups == 3
    assert json.loads((tmp_path / "out" / "prepare.json").read_text())["rows"] == 120
    assert len(load_prepared(tmp_path / "one")) == 120


def test_a_raw_folder_in_place_of_prepared_faces_names_the_cure(hiva, folder, place):
    fails_with(hiva("train", "-o", "model", "--data", folder), "hiva data prepare", str(folder))
