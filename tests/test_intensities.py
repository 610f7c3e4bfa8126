"""Intensities beside occurrence, from the second head to every file, table and program that shows a face."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import LABELS, strict_json
from conftest import AUS, SIDE
from PIL import Image
from transformers import pipeline

from hiva_hf import ActionUnitDetector, HiVAImageProcessorPil, HiVAProcessor, hiva_small
from hiva_hf.data import FaceTransform, load_rendered
from hiva_hf.export import export_onnx, load_onnx
from hiva_hf.faces import WholePicture
from hiva_hf.open_vocabulary import add_action_units
from hiva_hf.pipeline_hiva import TASK
from hiva_hf.results import FaceResult, ResultFile
from hiva_hf.terminal import print_faces
from hiva_hf.training import save_detector

ROOT = Path(__file__).parents[1]
RESNET = {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8}


def biased(model):
    """Intensities of all heights, none at an end of the scale."""
    with torch.no_grad():
        model.intensity_classifier.bias.copy_(torch.linspace(1, 4, model.config.num_labels))
    return model


@pytest.fixture
def both(make_folded, bank):
    """A detector with both heads, and its processor."""
    images = HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = HiVAProcessor(images, None, bank.to_dict(), thresholds={"AU4": 0.9})
    return biased(make_folded(intensity_head=True, vision_config=RESNET)), processor


@pytest.fixture(scope="module")
def face():
    return load_rendered()[0]["image"].convert("RGB")


def said(model, processor, image):
    inputs = processor.image_processor([image.resize((SIDE, SIDE))], do_resize=False, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs)


def test_each_face_has_the_intensities_of_the_model(both, face):
    crop = face.resize((SIDE, SIDE))
    (result,) = ActionUnitDetector(*both, faces=WholePicture()).image(crop)
    told = said(*both, crop)
    assert list(result.intensities) == list(AUS)
    np.testing.assert_allclose(list(result.intensities.values()), told.intensities[0], atol=1e-5)
    np.testing.assert_allclose(list(result.scores.values()), told.logits[0].sigmoid(), atol=1e-5)
    assert result.to_dict()["intensities"] == result.intensities


def test_without_the_head_there_are_none(make_folded, both, face):
    detector = ActionUnitDetector(make_folded(), both[1], faces=WholePicture())
    (result,) = detector.image(face)
    assert not detector.intensities
    assert result.intensities == {}
    assert "intensities" not in result.to_dict()


def test_a_table_for_pandas(both, face):
    detector = ActionUnitDetector(*both, faces=WholePicture())
    results = detector.image(face)
    table = detector.to_dataframe(results)
    assert list(table)[-9:] == [f"{au}_{kind}" for kind in "pcr" for au in ("AU01", "AU04", "AU12")]
    assert table["AU12_r"].tolist() == [results[0].intensities["AU12"]]
    tidy = detector.to_dataframe(results, tidy=True)
    assert list(tidy)[-4:] == ["au", "probability", "active", "intensity"]
    assert tidy["intensity"].tolist() == list(results[0].intensities.values())


def someone(frame):
    scores, active = {"AU1": 0.25, "AU12": 0.75}, {"AU1": False, "AU12": True}
    return FaceResult("a.mp4", frame, frame / 25, 0, True, 0.9, [1] * 4, [], scores, active, {"AU1": 0.5, "AU12": 3.25})


def nobody(frame):
    return FaceResult("a.mp4", frame, frame / 25, -1, False, 0.0)


def written(path, results, **options):
    target = ResultFile(path, ["AU1", "AU12"], False, intensities=True, **options)
    target.write(results, {})
    return target.finish()


@pytest.mark.parametrize("first", [nobody, someone])
def test_every_form_tells_them_whatever_its_first_row(tmp_path, first):
    results = [first(0), someone(1), nobody(2)]
    with written(tmp_path / "out.csv", results).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-6:] == ["AU01_p", "AU12_p", "AU01_c", "AU12_c", "AU01_r", "AU12_r"]
    assert (rows[1]["AU01_r"], rows[1]["AU12_r"], rows[2]["AU12_r"]) == ("0.5", "3.25", "NaN")
    stored = pq.read_table(written(tmp_path / "out.parquet", results)).to_pylist()
    lines = [json.loads(line) for line in written(tmp_path / "out.jsonl", results).read_text().splitlines()]
    assert list(stored[0]) == list(lines[0]) == list(rows[0])
    assert stored[1]["AU12_r"] == lines[1]["AU12_r"] == 3.25
    assert math.isnan(stored[2]["AU12_r"])
    assert lines[2]["AU12_r"] is None
    told = strict_json(written(tmp_path / "out.json", results))
    assert told[1]["intensities"] == {"AU1": 0.5, "AU12": 3.25}
    assert told[2]["intensities"] == {}
    with written(tmp_path / "tidy.csv", results, tidy=True).open(encoding="utf-8") as file:
        tidy = list(csv.DictReader(file))
    assert [row["intensity"] for row in tidy[2:]] == ["0.5", "3.25", "NaN", "NaN"]


def test_an_empty_table_has_their_columns(tmp_path):
    assert written(tmp_path / "out.csv", []).read_text().rstrip().endswith("AU01_c,AU12_c,AU01_r,AU12_r")


def test_they_outlive_an_interruption(tmp_path):
    first = ResultFile(tmp_path / "out.csv", ["AU1", "AU12"], False, intensities=True)
    first.write([someone(0)], {"frame": 1})
    first.close()
    again = ResultFile(tmp_path / "out.csv", ["AU1", "AU12"], False, intensities=True)
    assert list(again.rows()) == [someone(0)]
    again.discard()


def test_files_of_occurrence_alone_are_as_ever(tmp_path):
    plain = someone(0)
    plain.intensities = {}
    target = ResultFile(tmp_path / "out.json", ["AU1", "AU12"], False)
    target.write([plain, nobody(1)], {})
    assert target.finish().read_text() == (
        '[\n{"source": "a.mp4", "frame": 1, "timestamp": 0.0, "face_id": 0, "success": true, "confidence": 0.9, "box": '
        '[1, 1, 1, 1], "points": [], "scores": {"AU1": 0.25, "AU12": 0.75}, "active": {"AU1": false, "AU12": true}},\n'
        '{"source": "a.mp4", "frame": 2, "timestamp": 0.04, "face_id": -1, "success": false, "confidence": 0.0, "box": '
        '[], "points": [], "scores": {}, "active": {}}\n]\n'
    )


def test_the_terminal_shows_them(capsys):
    plain = someone(0)
    plain.intensities = {}
    print_faces([plain])
    assert "intensity" not in capsys.readouterr().out
    print_faces([someone(0)])
    shown = capsys.readouterr().out
    assert "intensity" in shown
    assert "3.25" in next(line for line in shown.splitlines() if "AU12" in line)


def test_the_pipeline_tells_them(both, make_folded, face, tmp_path):
    model, processor = both
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    read = pipeline(TASK, model=str(tmp_path))
    # in one call pictures with two faces, none and one
    boxes = [[(0, 0, 100, 100), (20, 20, 128, 128)], [], [(0, 0, 128, 128)]]
    answers = read([face] * 3, boxes=boxes, batch_size=3)
    assert [len(answer) for answer in answers] == [2, 0, 1]
    for answer, known in zip(answers, boxes, strict=True):
        for found, box in zip(answer, known, strict=True):
            ((alone,),) = read([face], boxes=[[box]])
            for row, other in zip(found["aus"], alone["aus"], strict=True):
                assert list(row) == ["label", "score", "active", "intensity"]
                assert row == pytest.approx(other, abs=1e-5)
    crop = face.resize((SIDE, SIDE))
    (whole,) = read(crop, cropped=True)
    assert [row["intensity"] for row in whole["aus"]] == pytest.approx(said(*both, crop).intensities[0].tolist())
    (few,) = read(crop, cropped=True, thresholds={"AU1": 2.0, "AU4": 2.0, "AU12": 0.0}, active_only=True)
    assert few["aus"] == [whole["aus"][2] | {"active": True}]
    plain = pipeline(TASK, model=make_folded(), processor=processor)
    assert list(plain(crop, cropped=True)[0]["aus"][0]) == ["label", "score", "active"]


def test_an_exported_file_tells_them(both, face, tmp_path):
    model, processor = both
    file, crops = tmp_path / "model.onnx", [tmp_path / "0.png", tmp_path / "1.png"]
    done = export_onnx(model, processor, file)
    assert done.largest_logit < 1e-4
    exported, _ = load_onnx(file)
    pixel_values = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        right = model(pixel_values)
    found = exported(pixel_values)
    torch.testing.assert_close(found.logits, right.logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.intensities, right.intensities, rtol=0, atol=1e-4)
    detector = ActionUnitDetector(file, faces=WholePicture())
    (result,) = detector.image(face)
    # what decides on the columns of a file
    assert detector.intensities
    (expected,) = ActionUnitDetector(model, processor, faces=WholePicture()).image(face)
    assert result.intensities == pytest.approx(expected.intensities, abs=1e-4)
    for path, row in zip(crops, (0, 300), strict=True):
        load_rendered()[row]["image"].resize((SIDE, SIDE)).save(path)
    call = [sys.executable, ROOT / "examples" / "predict_onnx.py", file, *crops]
    run = subprocess.run([*map(str, call)], capture_output=True, text=True, check=True)
    for path, line in zip(crops, run.stdout.splitlines(), strict=True):
        with Image.open(path) as image:
            levels = said(model, processor, image.convert("RGB")).intensities[0].tolist()
        assert json.loads(line)["intensities"] == pytest.approx(dict(zip(AUS, levels, strict=True)), abs=1e-3)


def test_intensities_that_do_not_agree_are_not_written(both, tmp_path):
    model, processor = both
    # far above what half a float holds, in the second head alone
    model.intensity_classifier.visual_norm.weight.data *= 1e30
    model.intensity_classifier.textual_norm.weight.data *= 1e-30
    with pytest.raises(ValueError, match="float16 file must agree"):
        export_onnx(model, processor, tmp_path / "model.onnx", "float16")
    assert not list(tmp_path.iterdir())


def test_an_action_unit_that_was_described_has_an_intensity(make_model, processor, pixel_values):
    model = make_model(intensity_head=True, au_projection="text").eval()
    asked, grown = add_action_units(model, processor, {"AU27": "The mouth is stretched wide open."})
    with torch.inference_mode():
        assert asked(pixel_values).intensities.shape == (2, 4)
    detector = ActionUnitDetector(asked, grown, faces=WholePicture())
    (result,) = detector.image(Image.new("RGB", (64, 64), "grey"))
    assert list(result.intensities) == [*AUS, "AU27"]


@pytest.fixture
def checkpoint(tmp_path):
    model, processor = hiva_small(LABELS, intensity_head=True)
    return save_detector(biased(model), processor, tmp_path / "both")


def test_evaluation_measures_both(hiva, place, checkpoint, data):
    result = hiva("evaluate", "-c", checkpoint, "--data", data, "--out", "metrics.json")
    assert result.code == 0, result.err
    assert "ICC(3,1)" in result.out
    assert "always positive F1" in result.out
    metrics = strict_json(Path("metrics.json"))
    assert {f"intensity_{key}_{au}" for key in ("icc", "mae") for au in LABELS} <= set(metrics)
    # by hand, of the first action unit
    detector = ActionUnitDetector(checkpoint, faces=WholePicture())
    known = load_rendered(data, aus=LABELS, intensity=True)
    pixels = FaceTransform(detector.processor.image_processor)(known[:])["pixel_values"]
    with torch.inference_mode():
        levels = detector.model(pixels).intensities.numpy()
    error = np.abs(levels - np.array(known["labels"])).mean(axis=0)
    assert [metrics[f"intensity_mae_{au}"] for au in LABELS] == pytest.approx(error.tolist(), abs=1e-4)
    assert metrics["intensity_mean_mae"] == pytest.approx(error.mean(), abs=1e-4)


def test_data_without_intensities_is_evaluated_for_occurrence(hiva, place, checkpoint, data):
    table = pq.read_table(data)
    pq.write_table(table.drop([name for name in table.column_names if name.endswith("_intensity")]), "plain.parquet")
    result = hiva("evaluate", "-c", checkpoint, "--data", "plain.parquet", "--out", "metrics.json")
    assert result.code == 0, result.err
    metrics = strict_json(Path("metrics.json"))
    assert "f1_AU12" in metrics
    assert not [key for key in metrics if key.startswith("intensity_")]


def test_predict_writes_them(hiva, place, checkpoint, crops):
    result = hiva("predict", *crops, "-c", checkpoint, "--cropped", "--out", "scores.csv")
    assert result.code == 0, result.err
    assert "intensity" in result.out
    with open("scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [name for name in rows[0] if name.endswith("_r")] == ["AU12_r", "AU04_r", "AU06_r"]
    assert all(0 < float(row["AU12_r"]) < 5 for row in rows)
