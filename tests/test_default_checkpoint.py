"""The checkpoint that ships inside the package, where it is used, and the script that makes its folder."""

import json
import re
from pathlib import Path

import numpy as np
import pack_default
import pytest
import torch
from command import LABELS, fails_with, strict_json
from conftest import AUS
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoProcessor, pipeline

import hiva_hf
from hiva_hf import ActionUnitDetector, HiVAForImageClassification, HiVAProcessor, hiva_small
from hiva_hf.checkpoint import load_detector
from hiva_hf.data.rendered import SAMPLE_FILE
from hiva_hf.hub.cards import card_problems
from hiva_hf.pipeline_hiva import TASK
from hiva_hf.render import RENDERED_AUS
from hiva_hf.training import save_detector

FOLDER = hiva_hf.default_checkpoint()


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    monkeypatch.delenv("HIVA_CHECKPOINT", raising=False)


@pytest.fixture(scope="module")
def astronaut():
    pytest.importorskip("cv2")
    return Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png"


def test_it_loads_by_the_auto_classes_without_a_flag():
    model = AutoModel.from_pretrained(FOLDER)
    assert type(model) is type(AutoModelForImageClassification.from_pretrained(FOLDER)) is HiVAForImageClassification
    processor = AutoProcessor.from_pretrained(FOLDER)
    assert type(processor) is HiVAProcessor
    assert type(AutoImageProcessor.from_pretrained(FOLDER)) is type(processor.image_processor)
    assert sorted(model.config.au_names) == sorted(processor.labels) == sorted(RENDERED_AUS)
    assert len(RENDERED_AUS) == 22
    assert model.config.intensity_head
    # it needs no text
    assert model.hiva.text_model is None


def test_it_is_stored_in_half_precision_and_computed_in_full():
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        held = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
        halved = [np.prod(value.get_shape()) for value in held.values() if value.get_dtype() == "F16"]
        total = sum(np.prod(value.get_shape()) for value in held.values())
    assert sum(halved) > 0.7 * total
    for model in (AutoModel.from_pretrained(FOLDER), load_detector(FOLDER)[0], pipeline(TASK).model):
        assert {value.dtype for value in model.parameters()} == {torch.float32}
        assert {value.dtype for value in model.buffers() if value.is_floating_point()} == {torch.float32}


def test_it_is_small_and_holds_nothing_that_runs_or_tells_of_a_machine():
    files = list(FOLDER.iterdir())
    assert {path.suffix for path in files} <= {".json", ".md", ".safetensors", ".csv", ".png", ".svg"}
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    for path in files:
        if path.suffix in (".json", ".md"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w:/.])/(home|root|work|var|tmp|mnt|data|Users)/", text)
        if path.name.endswith("config.json"):
            assert not re.search("auto_map|custom_pipelines", text)
        if path.suffix == ".json":
            strict_json(path)


def test_its_card_is_whole():
    results = strict_json(FOLDER / "results.json")
    assert card_problems((FOLDER / "README.md").read_text(encoding="utf-8"), results=results) == []
    assert results["metrics"]["mean_auc"] > 0.8


def test_its_card_leads_to_the_evidence():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert pack_default.EVIDENCE in text
    links = re.findall(r"\]\((\.\./[^)#]+)", text)
    assert len(links) == 7
    assert all((FOLDER / link).is_file() for link in links)


def test_a_smile_is_found_without_a_checkpoint(hiva, place, astronaut):
    result = hiva("predict", astronaut, "--out", "scores.json")
    assert result.code == 0, result.err
    assert "1 faces in 1 files" in result.out
    (row,) = strict_json(Path("scores.json"))
    assert row["active"]["AU12"]
    assert row["scores"]["AU12"] > 0.8
    assert row["intensities"]["AU12"] > 2
    # nobody is afraid, asleep or asking
    for label in ("AU20", "AU27", "AU43", "AU18"):
        assert not row["active"][label]
    hiva("predict", astronaut, "-c", FOLDER, "--out", "named.json")
    assert Path("named.json").read_text() == Path("scores.json").read_text()


def test_detector_and_pipeline_take_it_too(astronaut):
    (face,) = ActionUnitDetector().image(astronaut)
    (read,) = pipeline(TASK)(str(astronaut))
    assert {row["label"]: row["score"] for row in read["aus"]} == face.scores
    assert {row["label"]: row["intensity"] for row in read["aus"]} == face.intensities
    assert face.active["AU12"]
    with pytest.raises(ValueError, match="`model` must be given with `processor`"):
        ActionUnitDetector(processor=AutoProcessor.from_pretrained(FOLDER))


def test_evaluation_takes_it_too(hiva, place, data):
    result = hiva("evaluate", "--data", data, "--out", "metrics.json")
    assert result.code == 0, result.err
    assert "16 faces" in result.out
    metrics = strict_json(Path("metrics.json"))
    assert metrics["mean_auc"] > 0.7
    assert metrics["intensity_mean_icc"] > 0.3


def test_the_environment_names_another(hiva, place, trained, crops, monkeypatch):
    monkeypatch.setenv("HIVA_CHECKPOINT", str(trained.folder))
    assert ActionUnitDetector().labels == LABELS
    assert pipeline(TASK).model.config.au_names == LABELS
    assert hiva("predict", crops[0], "--cropped", "--out", "scores.json").code == 0
    assert list(strict_json(Path("scores.json"))[0]["scores"]) == LABELS
    assert hiva("predict", crops[0], "--cropped", "-c", FOLDER, "--out", "named.json").code == 0
    assert len(strict_json(Path("named.json"))[0]["scores"]) == 22
    # a cross-validation needs none
    fails_with(hiva("evaluate", "--protocol", "bp4d"), "`--protocol` needs `--root`")


def test_an_installation_without_it_says_so(hiva, place, crops, monkeypatch, tmp_path):
    monkeypatch.setattr("hiva_hf.default._FOLDER", tmp_path / "none")
    fails_with(hiva("predict", crops[0]), "`checkpoint` must be given", tmp_path / "none", "Name a folder or a Hub id")
    with pytest.raises(FileNotFoundError, match="`checkpoint` must be given"):
        hiva_hf.default_checkpoint()


def test_half_precision_of_anybody_is_computed_in_float32(tmp_path):
    model, processor = hiva_small(AUS)
    folder = save_detector(model.half(), processor, tmp_path / "run")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert load_detector(folder)[0].dtype == torch.float32
    assert load_detector(folder, dtype="auto")[0].dtype == torch.float16


@pytest.fixture
def detector():
    torch.manual_seed(0)
    model, processor = hiva_small(AUS, intensity_head=True)
    for name, value in model.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 90.0)
    return model, processor


def pack(source, out, **options):
    options = {"faces": SAMPLE_FILE, "count": 8, "repo": "org/some", "license": "apache-2.0", **options}
    pack_default.main(source, out, **options)
    return out


def test_a_packed_folder_is_half_as_large_and_answers_the_same(detector, tmp_path, monkeypatch):
    told = {"datasets": ["rendered faces"], "data": None, "metrics": {"mean_auc": 0.75, "auc_AU12": 0.8}}
    records = {"results.json": told, "calibration.json": {"AU1": {"frames": 3}}}
    source = save_detector(*detector, tmp_path / "run", records)
    for kept in ((0,), (2_000,)):
        monkeypatch.setattr(pack_default, "KEPT", kept)
        out = pack(source, tmp_path / "packed")
        with safe_open(out / "model.safetensors", "pt") as weights:
            kinds = {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
        of_statistics = {kind for name, kind in kinds.items() if name.endswith("running_var")}
        assert of_statistics == {"F16" if kept == (0,) else "F32"}
        assert {kind for name, kind in kinds.items() if "num_batches" in name} == {"I64"}
    size = [path.stat().st_size for path in (source / "model.safetensors", out / "model.safetensors")]
    assert size[1] < 0.53 * size[0]
    (before, processor), (after, again) = load_detector(source), load_detector(out)
    pixels = pack_default.pixels(processor, SAMPLE_FILE, 4)
    right, found = (pack_default.answers(model, pixels) for model in (before, after))
    for name in ("probability", "intensity"):
        assert 0 < (right[name] - found[name]).abs().max() < 2e-3
    assert again.description_bank == processor.description_bank
    assert AutoModel.from_pretrained(out).dtype == torch.float32
    results = strict_json(out / "results.json")
    assert results == told
    assert strict_json(out / "calibration.json") == records["calibration.json"]
    assert "auto_map" not in (out / "config.json").read_text() + (out / "processor_config.json").read_text()
    assert card_problems((out / "README.md").read_text(), results=results) == []
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "calibration.json", "config.json", "model.safetensors", "processor_config.json", "results.json",
    ]  # fmt: skip


def test_a_card_and_results_of_its_own_are_kept(detector, tmp_path):
    source = save_detector(*detector, tmp_path / "run", {"results.json": {"metrics": {}, "data": "/home/me/renders"}})
    (source / "README.md").write_text("own")
    out = pack(source, tmp_path / "packed")
    assert (out / "README.md").read_text() == "own"
    assert strict_json(out / "results.json") == {"metrics": {}, "data": "renders"}


def test_a_card_tells_how_a_detector_does_on_the_tested_faces(detector, tmp_path):
    training = {"seed": 3, "steps": 70, "batch_size": 512, "command": "python examples/train_default.py --steps 70"}
    training |= {"datasets": ["rendered faces"], "data": None, "part": "validation", "metrics": {"mean_auc": 0.99}}
    training["preset"], training["faces"] = "small, a deeper tower", {"train": 123_456, "mixed in": 7, "validation": 9}
    source = save_detector(*detector, tmp_path / "run", {"results.json": training})
    (source / "README.md").write_text("of its training")
    out = pack(source, tmp_path / "packed", tested=SAMPLE_FILE)
    results = strict_json(out / "results.json")
    assert results["faces"] == training["faces"] | {"test": 600}
    assert results["people"] == {"test": 24}
    assert results["metrics"]["mean_auc"] != 0.99
    assert results["metrics"]["intensity_mean_mae"] > 0
    assert sum(row["frames"] for row in results["groups"]["skin_tone"].values()) == 600
    card = (out / "README.md").read_text()
    assert pack_default.EVIDENCE in card
    assert "epoch was chosen" not in card
    for told in (
        "On 600 frames of 24 people", "(part `test`)", "123,456 faces", "steps 70, batch size 512, seed 3",
        "`python examples/train_default.py --steps 70`", "skin tone",
        "0 is the lightest", "7 others mixed in", "`hiva_hf.default_checkpoint()` is this folder",
        "import hiva_hf  # registers",
    ):  # fmt: skip
        assert told in card, told
    # no code goes along
    assert "trust_remote_code" not in card
    assert "custom_code" not in card
    assert card_problems(card, results=results) == []


@pytest.mark.parametrize("limit", ["MOST_BYTES", "LARGEST_DIFFERENCE"])
def test_what_is_too_large_or_answers_otherwise_leaves_the_earlier_folder(detector, tmp_path, monkeypatch, limit):
    source = save_detector(*detector, tmp_path / "run")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "earlier").touch()
    monkeypatch.setattr(pack_default, limit, {"MOST_BYTES": 100_000, "LARGEST_DIFFERENCE": 1e-12}[limit])
    with pytest.raises(ValueError, match="`checkpoint` must answer in half precision as in full"):
        pack(source, tmp_path / "packed")
    # the weights fit, and what lies beside them does not
    if limit == "MOST_BYTES":
        weights = load_file(source / "model.safetensors").values()
        monkeypatch.setattr(pack_default, limit, sum(value.nbytes for value in weights))
        monkeypatch.setattr(pack_default, "KEPT", (10**9,))
        with pytest.raises(ValueError, match="`checkpoint` must fit"):
            pack(source, tmp_path / "packed")
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["earlier"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed", "run"]


def test_a_text_tower_is_refused(make_model, processor, tmp_path):
    source = save_detector(make_model(), processor, tmp_path / "run")
    with pytest.raises(ValueError, match="`checkpoint` must be folded"):
        pack(source, tmp_path / "packed")
