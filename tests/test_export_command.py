"""`hiva export onnx`, and the file in other programs: `hiva predict`, the detector, and without torch at all."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from command import fails_with, strict_json
from PIL import Image

from hiva_hf import ActionUnitDetector, hiva_small
from hiva_hf.data import load_rendered
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.export import load_onnx
from hiva_hf.faces import Face, WholePicture

EXAMPLE = Path(__file__).parents[1] / "examples" / "predict_onnx.py"
ALONE = """
import runpy, sys
script, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(script, run_name="__main__")
print([name for name in ("torch", "transformers", "hiva_hf") if name in sys.modules])
"""


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A calibrated detector of the small preset with new weights, its folder and its exported file."""
    folder = tmp_path_factory.mktemp("small")
    model, processor = hiva_small(["AU12", "AU4", "AU6"])
    model.config.calibration_temperatures, model.config.calibration_biases = [0.2, 0.5, 2.0], [0.5, -0.5, 1.0]
    processor.thresholds = {"AU12": 0.7, "AU4": 0.4}
    model.eval().save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    faces = load_rendered()
    crops = [folder / "first.png", folder / "second.jpg"]
    for row, path in zip((0, 301), crops, strict=True):
        faces[row]["image"].save(path)
    done = subprocess.run(
        [sys.executable, "-m", "hiva_hf.cli", "export", "onnx", folder / "model", "--out", folder / "model.onnx"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(
        checkpoint=folder / "model",
        file=folder / "model.onnx",
        crops=crops,
        model=model,
        processor=processor,
        said=done,
    )


def test_the_command_says_what_it_wrote(small):
    assert f"Wrote {small.file}: float32, " in small.said.stdout
    assert "of their range on average" in small.said.stdout
    # nothing of what the exporter tells about itself
    assert not re.search("onnx|skip|warn|fold", small.said.stderr, re.IGNORECASE), small.said.stderr


def test_predict_takes_the_file_as_a_checkpoint(hiva, place, small):
    found = {}
    for name, checkpoint in (("torch", small.checkpoint), ("onnx", small.file)):
        result = hiva("predict", *small.crops, "-c", checkpoint, "--cropped", "--out", f"{name}.json")
        assert result.code == 0, result.err
        found[name] = strict_json(Path(f"{name}.json"))
    for right, row in zip(found["torch"], found["onnx"], strict=True):
        assert list(row["scores"]) == ["AU12", "AU4", "AU6"]
        assert row["scores"] == pytest.approx(right["scores"], abs=1e-5)
        assert row["active"] == right["active"]
    assert found["onnx"][0]["scores"] != pytest.approx(found["onnx"][1]["scores"], abs=1e-3)
    result = hiva("predict", *small.crops, "-c", small.file, "--cropped", "--plot", "plots")
    assert result.code == 0, result.err
    assert len(list(Path("plots").iterdir())) == 2


def test_the_file_is_used_where_there_is_no_torch(hiva, place, small):
    hiva("predict", *small.crops, "-c", small.checkpoint, "--cropped", "--out", "torch.json")
    call = [sys.executable, "-c", ALONE, EXAMPLE, small.file, *small.crops]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    *lines, imported = done.stdout.splitlines()
    assert imported == "[]"
    for right, line in zip(strict_json(Path("torch.json")), map(json.loads, lines), strict=True):
        assert line["source"] == right["source"]
        assert line["scores"] == pytest.approx(right["scores"], abs=1e-5)
        assert line["active"] == [name for name, above in right["active"].items() if above]


def test_a_detector_of_the_file_is_one_like_any_other(small):
    faces = [Face((20.0, 20.0, 110.0, 110.0), 1.0)]
    picture = load_rendered()[7]["image"]
    right = ActionUnitDetector(small.model, small.processor, faces=WholePicture())
    detector = ActionUnitDetector(small.file, faces=WholePicture())
    assert detector.labels == right.labels
    assert detector.limits == right.limits == {"AU12": 0.7, "AU4": 0.4, "AU6": 0.5}
    assert detector.intensity is False
    assert detector.template == right.template
    for known in (None, faces, faces * 3):
        for row, other in zip(detector.image(picture, known), right.image(picture, known), strict=True):
            assert row.scores == pytest.approx(other.scores, abs=1e-5)
    assert ActionUnitDetector(small.file, faces=WholePicture(), thresholds=0.0).limits["AU6"] == 0.0
    assert ActionUnitDetector(small.file, faces=WholePicture(), activation_maps=True).activation_maps is False


def test_a_device_that_onnxruntime_lacks_is_told(small):
    with pytest.raises(ValueError, match=r"`device` .*got 'cuda'. onnxruntime runs on cpu here"):
        ActionUnitDetector(small.file, device="cuda")


def test_a_file_has_its_precision(hiva, place, small):
    with pytest.raises(ValueError, match="`dtype` must be left out for an ONNX file"):
        ActionUnitDetector(small.file, dtype="bfloat16")
    assert hiva("predict", small.crops[0], "-c", small.file, "--dtype", "float32").code == 0


def test_what_the_file_cannot_do_is_told(hiva, place, small):
    predict = ("predict", small.crops[0], "-c", small.file, "--cropped")
    fails_with(hiva(*predict, "--describe", "AU27=The mouth is open."), "`--describe` needs a checkpoint", small.file)
    fails_with(hiva(*predict, "--maps", "maps.png"), "`--maps`", "An ONNX file has no maps")
    fails_with(hiva("predict", small.crops[0], "-c", "none.onnx"), "there is no file none.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "model.pt"), "`out` must end in .onnx"),
        (("--out", "m.onnx", "--precision", "int8-static"), "needs `--calibrate`"),
        (("--out", "m.onnx", "--precision", "int8-static", "--calibrate", "nowhere"), "nowhere must be a parquet file"),
    ],
)
def test_a_mistake_is_one_sentence(hiva, place, small, options, message):
    fails_with(hiva("export", "onnx", small.checkpoint, *options), message)
    assert not list(place.iterdir())


def test_eight_bits_by_the_command(hiva, place, small):
    options = ("--precision", "int8-static", "--calibrate", SAMPLE_FILE, "--faces", 16, "--out", "new/small.onnx")
    result = hiva("export", "onnx", small.checkpoint, *options)
    assert result.code == 0, result.err
    assert "Wrote new/small.onnx: int8-static" in result.out
    assert "examples/measure_export.py" in result.out
    assert Path("new/small.onnx").stat().st_size < 0.4 * small.file.stat().st_size
    assert hiva("predict", small.crops[0], "-c", "new/small.onnx", "--cropped").code == 0


def changed(small, path, **fields):
    proto = onnx.load(small.file)
    values = {item.key: item.value for item in proto.metadata_props} | fields
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {name: value for name, value in values.items() if value is not None})
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"thresholds": None}, "does not tell its thresholds"),
        ({"thresholds": "{"}, "must tell its thresholds as"),
        ({"thresholds": "[1]"}, r"must tell its thresholds as .*got '\[1\]'"),
        ({"thresholds": '{"AU99": 0.5}'}, "`thresholds` must name action units of the model; got AU99"),
        ({"action_units": '["AU12", "AU4"]', "thresholds": "{}"}, r"and 2; it takes .* \[3\]"),
        ({"action_units": '["AU12", "../x", "AU6"]'}, "must name action units, each once; got '../x'"),
        ({"action_units": '["AU12", "AU12", "AU6"]'}, "must name action units, each once; got 'AU12'"),
        ({"image_size": "[64, 64]"}, r"\[3, 64, 64\] and 3; it takes"),
        ({"image_size": "[]"}, "`size` must give height and width"),
        ({"image_std": "[1, 0, 1]"}, "`image_std` must be positive"),
        ({"rescale_factor": "NaN"}, "positive rescale_factor"),
        ({"resample": "77"}, "77 is not a valid"),
        ({"problem_type": '"multi_class"'}, "`problem_type` must be"),
        ({"face_template": '{"nose": [1, 2]}'}, "`face_template` must give"),
    ],
)
def test_what_a_file_of_others_tells_is_looked_at(small, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        load_onnx(changed(small, tmp_path / "other.onnx", **fields))


def test_what_is_no_such_file_is_told(small, tmp_path):
    assert load_onnx(changed(small, tmp_path / "same.onnx"))[0].config.au_names == ["AU12", "AU4", "AU6"]
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(small.file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut.onnx must be an ONNX file"):
        load_onnx(cut)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_onnx(tmp_path / "none.onnx")


def test_onnxruntime_that_is_not_there_is_named_with_its_extra(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"hiva-hf\[export\]"):
        load_onnx(small.file)


def test_a_picture_of_any_mode_is_prepared_alike(hiva, place, small):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (90, 70), np.uint8)).save("grey.png")
    hiva("predict", "grey.png", "-c", small.checkpoint, "--cropped", "--out", "torch.json")
    done = subprocess.run([sys.executable, EXAMPLE, small.file, "grey.png"], capture_output=True, text=True, check=True)
    (right,) = strict_json(Path("torch.json"))
    assert json.loads(done.stdout)["scores"] == pytest.approx(right["scores"], abs=1e-5)
