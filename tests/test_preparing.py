"""Face crops made once: whole shards, resumed after kill -9, and what was dropped is told."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import fails_with, write_video
from datasets import load_dataset
from PIL import Image
from transformers import AutoImageProcessor

from hiva_hf import build_trainer, hiva_small, training_arguments
from hiva_hf.data import (
    FaceTransform,
    Preparation,
    au_dataset,
    au_names,
    load_folder,
    load_prepared,
    load_rendered,
    merge_datasets,
    prepare_faces,
    sampling_weights,
)
from hiva_hf.data.schema import alignment_of
from hiva_hf.data.video_frames import FrameImage, frame_path
from hiva_hf.faces import Face, FaceTemplate, GivenFaces, five_points
from hiva_hf.image_processing_hiva import HiVAImageProcessorPil
from hiva_hf.training_labels import label_weights

pytest.importorskip("cv2")
NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Pictures of twelve people, a lawn, and a file that is no picture."""
    root = tmp_path_factory.mktemp("own")
    dataset, lines = load_rendered(aus=["AU12", "AU1"]), ["file_name,subject,AU12,AU1"]
    for n in range(12):
        row = dataset[50 * n]
        Image.fromarray(np.asarray(row["image"].convert("RGB").resize((256, 256)))).save(root / f"{n}.png")
        lines.append(f"{n}.png,{row['subject_id']},{row['labels'][0]:.0f},{row['labels'][1]:.0f}")
    Image.new("RGB", (200, 200), (60, 120, 60)).save(root / "20.png")
    (root / "21.png").write_text("no picture")
    lines += ["20.png,Lawn,0,0", "21.png,Text,0,0"]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def dropped(folder):
    with open(folder / "dropped.csv", newline="") as file:
        return [(Path(row["source"]).name, row["subject_id"], row["reason"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("workers", [1, 2])
def test_crops_with_their_labels_and_points(own, tmp_path, workers):
    report = prepare_faces(load_folder(own), tmp_path / "out", Preparation(size=128), rows_per_shard=5, workers=workers)
    faces = load_prepared(tmp_path / "out", aus=["AU12", "AU1"])
    assert report.faces == len(faces) >= 10
    assert sum(report.dropped.values()) == 14 - len(faces)
    lost = dropped(tmp_path / "out")
    assert {("20.png", "Lawn", "no face found"), ("21.png", "Text", "image cannot be read")} <= set(lost)
    labels = {row["subject_id"]: row["labels"] for row in load_rendered(aus=["AU12", "AU1"]).select(range(0, 600, 50))}
    target = 128 * (0.5 + (FaceTemplate().points - 0.5) / 1.25)
    for row in faces:
        assert row["labels"] == labels[row["subject_id"]]
        assert row["image"].size == (128, 128)
        assert np.linalg.norm(np.reshape(row["points"], (5, 2)) - target, axis=1).mean() < 8
    assert alignment_of(faces) == vars(Preparation(size=128))
    assert au_names(faces) == ["AU12", "AU1"]


def test_the_data_load_and_stream_by_themselves(own, tmp_path):
    prepare_faces(load_folder(own), tmp_path, Preparation(size=64), rows_per_shard=5)
    files = sorted(map(str, tmp_path.glob("*.parquet")))
    assert [Path(file).name for file in files] == [f"faces-{n:05}.parquet" for n in range(3)]
    whole = load_dataset("parquet", data_files=files, split="train")
    assert whole[0]["image"].size == (64, 64)
    stream = load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert [row["subject_id"] for row in stream] == whole["subject_id"][:]
    assert json.loads(pq.read_schema(files[0]).metadata[b"hiva_alignment"])["detector"] == "haar"


def test_training_sees_the_same_crop_as_from_the_picture(own, tmp_path):
    prepare_faces(load_folder(own), tmp_path, Preparation(size=256))
    row = load_prepared(tmp_path)[0]
    transform = FaceTransform(HiVAImageProcessorPil(size={"height": 112, "width": 112}))
    crop = transform.crop(row["image"], np.reshape(row["points"], (5, 2)), None)[0]
    sample = load_rendered()[0]
    direct = transform.crop(sample["image"], five_points(sample["landmarks"]), None)[0]
    difference = np.asarray(crop, dtype=float) - np.asarray(direct, dtype=float)
    assert np.abs(difference).mean() < 14


def test_faces_of_a_table(own, tmp_path):
    folder = load_folder(own)
    lines = ["source,x0,y0,x1,y1", "0.png,60,60,200,200", "2.png,0,0,0,0"]
    (tmp_path / "known.csv").write_text("\n".join(lines) + "\n")
    given = GivenFaces.load(tmp_path / "known.csv")
    how = Preparation(alignment="given", size=64)
    report = prepare_faces(folder, tmp_path / "out", how, given=given, workers=2)
    assert report.faces == 1
    assert report.dropped["no face found"] == 12
    assert alignment_of(load_prepared(tmp_path / "out"))["alignment"] == "given"
    with pytest.raises(ValueError, match="Alignment given needs a table of the faces"):
        prepare_faces(folder, tmp_path / "b", how)
    with pytest.raises(ValueError, match="read with alignment given only"):
        prepare_faces(folder, tmp_path / "b", given=given)


def test_faces_of_a_table_for_the_frames_of_a_video(tmp_path):
    rows = load_rendered()
    pictures = [rows[n]["image"].convert("RGB").resize((256, 256)) for n in range(4)]
    video = write_video(tmp_path / "LeftVideoSN001_comp.avi", pictures)
    dataset = au_dataset(
        "DISFA", ["AU12"], np.ones((4, 1)), images=[frame_path(str(video), n) for n in range(4)],
        subjects=["SN001"] * 4, sequences=["SN001"] * 4, frames=[1, 2, 3, 4], image_feature=FrameImage(),
    )  # fmt: skip
    header = ["source", "frame", *(f"{name}_{axis}" for name in NAMES for axis in "xy")]
    places = {frame: five_points(rows[frame - 1]["landmarks"]) * 2 for frame in (1, 2, 4)}
    lines = [[video.name, frame, *points.ravel()] for frame, points in places.items()]
    table = "\n".join(",".join(map(str, line)) for line in [header, *lines])
    (tmp_path / "known.csv").write_text(table + "\n")
    given, how = GivenFaces.load(tmp_path / "known.csv"), Preparation(alignment="given", size=64)
    report = prepare_faces(dataset, tmp_path / "out", how, given=given)
    assert (report.faces, report.dropped) == (3, {"no face found": 1})
    made = load_prepared(tmp_path / "out")
    assert made["frame"][:] == [1, 2, 4]
    for row in made:
        picture = dataset[row["frame"] - 1]["image"].convert("RGB")
        crop, points = how.crop(picture, [Face((0, 0, 256, 256), points=places[row["frame"]])])
        assert np.abs(np.reshape(row["points"], (5, 2)) - points).max() < 0.01
        assert np.abs(np.asarray(row["image"], float) - np.asarray(crop, float)).mean() < 3
    assert dropped(tmp_path / "out") == [("LeftVideoSN001_comp.avi#frame=2", "SN001", "no face found")]


def test_several_datasets_prepared_as_one_and_trained_on(own, tmp_path):
    first = load_folder(own, aus=["AU12"])
    second = au_dataset(
        "other", ["AU1", "AU4"], np.tile([[1, 0], [0, 1]], (3, 1)), images=[str(own / f"{n}.png") for n in range(6)],
        subjects=["a"] * 6, sequences=["a"] * 6, frames=range(6),
    )  # fmt: skip
    merged = merge_datasets([first, second])
    prepare_faces(merged, tmp_path / "out", Preparation(alignment="none", size=64))
    made = load_prepared(tmp_path / "out")
    assert au_names(made) == ["AU1", "AU4", "AU12"]
    missing = np.array(made["labels"][:]) == -100
    assert missing[:13].tolist() == [[True, True, False]] * 13
    assert missing[13:].tolist() == [[False, False, True]] * 6
    weights = sampling_weights(made, shares={"folder": 1, "other": 1})
    assert weights[:13].sum() == pytest.approx(weights[13:].sum())
    model, processor = hiva_small(au_names(made))
    settings = training_arguments(
        tmp_path / "run", max_steps=3, per_device_train_batch_size=8, eval_strategy="no", save_strategy="no",
        load_best_model_at_end=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = build_trainer(model, processor, {"train": made}, settings, sample_weights=weights)
    assert np.isfinite(trainer.train().training_loss)
    assert model.config.label_weights == pytest.approx(label_weights(np.array(made["labels"][:]), weights))


def test_a_model_tells_how_its_faces_were_cut_out(hiva, own, place):
    prepare_faces(load_folder(own), place / "faces", Preparation(size=64))
    options = ("--epochs", 1, "--batch-size", 4, "--workers", 0, "--aus", "12,1")
    result = hiva("train", "--data", "faces", "--output", "model", *options)
    assert result.code == 0, result.err
    assert json.loads(Path("model/results.json").read_text())["alignment"] == vars(Preparation(size=64))


def test_the_model_itself_tells_it_too(own, tmp_path):
    prepare_faces(load_folder(own), tmp_path / "faces", Preparation(size=64))
    made = load_prepared(tmp_path / "faces")
    model, processor = hiva_small(au_names(made))
    alone = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    build_trainer(model, processor, {"train": made}, training_arguments(tmp_path / "run", **alone))
    processor.save_pretrained(tmp_path / "model")
    again = AutoImageProcessor.from_pretrained(tmp_path / "model")
    assert again.face_alignment == vars(Preparation(size=64))


def test_the_user_chooses_whether_a_bad_image_stops_the_run(hiva, own, place):
    command = ("data", "prepare", "folder", own, "--out", "faces", "--size", 64, "--alignment", "none")
    fails_with(hiva(*command, "--workers", 2, "--strict"), "21.png must be an image that can be read")
    result = hiva(*command, "--workers", 1)
    assert result.code == 3
    assert "1 dropped: image cannot be read" in result.out
    assert dropped(Path("faces")) == [("21.png", "Text", "image cannot be read")]


def test_options_of_loaders_on_the_command_line(hiva, own, place):
    command = ("data", "prepare", "folder", own, "--size", 64, "--alignment", "none", "--workers", 1)
    fails_with(hiva(*command, "--out", "faces", "--camera", "left"), "`--camera` is not for folder")
    fails_with(hiva(*command, "--out", "faces", "--csv", "no.csv"), "no.csv")
    people = load_folder(own)["subject_id"][:2]
    assert hiva(*command, "--out", "faces", "--subjects", ",".join(people)).code == 0
    assert set(load_prepared("faces")["subject_id"]) == set(people)
    Path("other.csv").write_text("file_name,AU1\n0.png,3\n1.png,1\n")
    options = ("--csv", "other.csv", "--intensities", "--occurrence-at", 2)
    assert hiva(*command, "--out", "levels", *options).code == 0
    assert load_prepared("levels")["labels"][:] == [[1], [0]]
    assert load_prepared("levels", intensity=True)["labels"][:] == [[3], [1]]


def test_pictures_that_are_crops_already(own, tmp_path):
    report = prepare_faces(load_folder(own), tmp_path, Preparation(alignment="none", size=64))
    assert report.faces == 13
    assert "points" not in load_prepared(tmp_path).column_names


def test_a_finished_shard_is_not_made_again(own, tmp_path):
    prepare_faces(load_folder(own), tmp_path, Preparation(size=64), rows_per_shard=5)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    (tmp_path / "faces-00001.parquet").unlink()
    done = []
    prepare_faces(
        load_folder(own), tmp_path, Preparation(size=64), rows_per_shard=5, on_shard=lambda *at: done.append(at)
    )
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert {name for name in after if after[name] != before[name]} == {"faces-00001.parquet"}
    assert done == [(9, 14), (14, 14)]


def test_two_preparations_do_not_mix(own, tmp_path):
    prepare_faces(load_folder(own), tmp_path / "a", Preparation(size=64))
    with pytest.raises(ValueError, match="was made with other size"):
        prepare_faces(load_folder(own), tmp_path / "a", Preparation(size=96))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.parquet").touch()
    with pytest.raises(ValueError, match="holds parquet files of something else"):
        prepare_faces(load_folder(own), tmp_path / "b")


@pytest.mark.parametrize("options", [{"alignment": "guess"}, {"size": 8}, {"margin": 0.5}])
def test_what_is_no_preparation(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        Preparation(**options)


def test_the_command_and_what_it_says(hiva, own, place):
    result = hiva("data", "prepare", "folder", own, "--out", "faces", "--size", 64, "--workers", 1)
    # done, but a file could not be read
    assert result.code == 3, result.err
    assert "14 labelled images" in result.out
    assert "1 dropped: image cannot be read; see faces/dropped.csv" in result.out
    result = hiva("data", "prepare", "bp4d", own, "--out", "faces")
    fails_with(result, "AU_OCC", "Expected:")
    fails_with(hiva("data", "prepare", "folder", own, "--out", "faces", "--size", 80), "other size")


def test_a_run_that_was_shot_goes_on(own, place):
    """One process a shard of 1000: many rows, so that a kill hits it between two."""
    lines = (own / "labels.csv").read_text().splitlines()
    big = place / "big"
    big.mkdir()
    rows = [lines[0]]
    for copy in range(200):
        for n, line in enumerate(lines[1:13]):
            name = f"{copy}_{n}.png"
            os.link(own / f"{n}.png", big / name)
            rows.append(line.replace(f"{n}.png", name, 1))
    (big / "labels.csv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, "-m", "hiva_hf.cli", "data", "prepare", "folder", "big", "--out", "faces"]
    command += ["--alignment", "none", "--size", "64", "--workers", "2"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while not list(Path("faces").glob("faces-*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, 9)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in Path("faces").glob("faces-*.parquet")}
    assert 1 <= len(kept) < 16
    assert not Path("faces/dropped.csv").exists()
    with pytest.raises(ValueError, match="must be prepared to its end"):
        load_prepared("faces")
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert len(load_prepared("faces")) == 2400
    assert {name: Path("faces", name).stat().st_mtime_ns for name in kept} == kept
