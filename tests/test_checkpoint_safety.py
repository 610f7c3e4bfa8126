"""A checkpoint by somebody who means harm: nothing of it runs or is unpickled, and each lie gets one sentence."""

import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from conftest import SIDE
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file

import hiva_hf
from hiva_hf import HiVAForImageClassification, HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.checkpoint import load_detector
from hiva_hf.configuration_hiva import _numbers

CONFIG, PROCESSOR, TOKENIZER = "config.json", "processor_config.json", "tokenizer_config.json"
INDEX = "model.safetensors.index.json"
ELSEWHERE = ("../../x", "/etc/passwd")


@pytest.fixture
def folder(make_folded, bank, tmp_path):
    """A sound checkpoint in a folder of its own, inside one that must stay as it is."""
    place = tmp_path / "inner" / "run"
    make_folded().save_pretrained(place)
    image_processor = HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE})
    HiVAProcessor(image_processor, description_bank=bank.to_dict()).save_pretrained(place)
    return place


def edit(folder, name, change):
    path = folder / name
    content = json.loads(path.read_text()) if path.is_file() else {}
    change(content)
    path.write_text(json.dumps(content))


def put(*keys_and_value):
    """An edit that sets what lies at a path of keys."""
    *keys, last, value = keys_and_value

    def change(content):
        for key in keys:
            content = content[key]
        content[last] = value

    return change


def refused(folder):
    """The one sentence with which a checkpoint is refused."""
    with pytest.raises(ValueError, match=folder.name) as caught:
        load_detector(folder)
    told = str(caught.value)
    assert "\n" not in told
    assert len(told) < 800
    assert str(folder) in told
    return told


def test_the_sound_one_is_loaded(folder):
    model, processor = load_detector(folder)
    assert processor.labels == model.config.au_names


HOSTILE = {
    "hidden-size": (CONFIG, put("hidden_size", 10**12), "hidden_size"),
    "hidden-size-below-the-bound": (CONFIG, put("hidden_size", 9_000_000), "the weights hold"),
    "hidden-size-huge-float": (CONFIG, put("hidden_size", 1e300), "hidden_size"),
    "layers": (CONFIG, put("vision_config", "depths", [10**6, 1]), "depths"),
    "many-stages": (CONFIG, put("vision_config", "depths", [1] * 1000), "depths"),
    "labels": (CONFIG, lambda c: (c.pop("id2label"), c.pop("label2id"), c.update(num_labels=10**8)), "num_labels"),
    "nan": (CONFIG, put("layer_norm_eps", float("nan")), "layer_norm_eps is nan"),
    "nan-inside": (CONFIG, put("vision_config", "layer_norm_eps", float("nan")), "finite"),
    "infinity": (CONFIG, put("initializer_range", float("inf")), "initializer_range is inf"),
    "text-for-a-number": (CONFIG, put("hidden_size", "../../x"), "hidden_size"),
    "list-for-a-number": (CONFIG, put("num_attention_heads", [4]), "num_attention_heads"),
    "zero-heads": (CONFIG, put("num_attention_heads", 0), "num_attention_heads"),
    "tower-is-text": (CONFIG, put("vision_config", "../../x"), "vision_config"),
    "tower-of-unknown-type": (CONFIG, put("vision_config", "model_type", "../../x"), "x"),
    "tower-type-is-a-number": (CONFIG, put("vision_config", "model_type", 5), "run must hold config"),
    "tower-sizes-are-text": (CONFIG, put("vision_config", "depths", "many"), "run must hold config"),
    "dtype": (CONFIG, put("dtype", "os.system"), "run must hold config"),
    "a-method": (CONFIG, put("to_dict", 5), "to_dict is none"),
    "a-class": (CONFIG, put("__class__", "x"), "__class__ is none"),
    "kernel": (CONFIG, put("attn_implementation", "somebody/kernel"), "loaded from elsewhere"),
    "kernel-inside": (CONFIG, put("vision_config", "_attn_implementation", "somebody/kernel"), "loaded from elsewhere"),
    "timm-of-a-repository": (CONFIG, put("vision_config", "architecture", "hf-hub:some/body"), "loaded from elsewhere"),
    "au-is-a-path": (CONFIG, put("id2label", "0", "../../x"), r"\.\./\.\./x"),
    "au-is-a-number": (CONFIG, put("id2label", "0", 4), "got 4"),
    "au-is-empty": (CONFIG, put("id2label", "0", " "), "action units"),
    "au-moves-the-cursor": (CONFIG, put("id2label", "0", "AU1\x1b[2J"), r"AU1\?\[2J"),
    "au-is-a-novel": (CONFIG, put("id2label", "0", "A" * 100_000), "64 letters"),
    "labels-are-a-list": (CONFIG, put("id2label", ["AU1"]), "id2label"),
    "hiva-version-is-a-number": (CONFIG, put("hiva_version", 3), "hiva_version"),
    "calibration": (CONFIG, put("calibration_temperatures", ["x"] * 3), "calibration_temperatures"),
    "text-encoder-is-a-list": (CONFIG, put("text_encoder", ["../../x"]), "text_encoder"),
    "thresholds-nan": (PROCESSOR, put("thresholds", {"AU1": float("nan")}), "nan"),
    "thresholds-text": (PROCESSOR, put("thresholds", {"AU1": "../../x"}), "thresholds"),
    "thresholds-list": (PROCESSOR, put("thresholds", [0.5]), "thresholds"),
    "thresholds-of-another": (PROCESSOR, put("thresholds", {"../../x": 0.5}), "thresholds"),
    "bank-is-text": (PROCESSOR, put("description_bank", "../../x"), "description_bank"),
    "bank-of-lists": (PROCESSOR, put("description_bank", "descriptions", ["AU1"]), "description_bank"),
    "bank-without-text": (PROCESSOR, put("description_bank", "descriptions", "AU1", {"descriptions": [1]}), "AU1"),
    "bank-text-is-a-number": (
        PROCESSOR,
        put("description_bank", "descriptions", "AU1", "descriptions", [{"text": 5}]),
        "AU1",
    ),
    "processor-labels": (PROCESSOR, put("labels", "../../x"), "labels"),
    "processor-labels-numbers": (PROCESSOR, put("labels", [1, 2, 3]), "labels"),
    "problem-type": (PROCESSOR, put("problem_type", "../../x"), "problem_type"),
    "another-image-processor": (
        PROCESSOR,
        put("image_processor", "image_processor_type", "os.system"),
        "processor_con",
    ),
    "clip-image-processor": (
        PROCESSOR,
        put("image_processor", "image_processor_type", "CLIPImageProcessor"),
        "HiVAImageProcessor",
    ),
    "image-size": (PROCESSOR, put("image_processor", "size", {"height": 10**9, "width": 10**9}), "4096"),
    "image-size-text": (PROCESSOR, put("image_processor", "size", "../../x"), "processor_config"),
    "image-mean": (PROCESSOR, put("image_processor", "image_mean", [float("nan")] * 3), "finite"),
    "image-mean-text": (PROCESSOR, put("image_processor", "image_mean", "abc"), "image_mean"),
    "image-std": (PROCESSOR, put("image_processor", "image_std", [0, 0, 0]), "positive"),
    "face-template": (PROCESSOR, put("image_processor", "face_template", {"left_eye": "../../x"}), "face_template"),
    "tokenizer-nan": (TOKENIZER, put("model_max_length", float("inf")), "finite"),
    "tokenizer-class": (TOKENIZER, put("tokenizer_class", "../../x"), "tokenizer"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_value_gets_one_sentence(folder, name):
    file, change, told = HOSTILE[name]
    edit(folder, file, change)
    assert re.search(told, refused(folder))


@pytest.mark.parametrize("name", [CONFIG, PROCESSOR, TOKENIZER])
@pytest.mark.parametrize("levels", [40, 100_000])
def test_deep_json_is_refused(folder, name, levels):
    (folder / name).write_text('{"x": ' * levels + "1" + "}" * levels)
    if name == CONFIG:
        (folder / name).write_text('{"model_type": "hiva", "x": ' + "[" * levels + "]" * levels + "}")
    assert f"{name} in {folder} must be a JSON object of at most 32 levels" in refused(folder)


@pytest.mark.parametrize("text", ["", "[]", "5", "null", '{"a": ' + "9" * 5000 + "}", '{"a": "\ud800"}', "\x00"])
@pytest.mark.parametrize("name", [CONFIG, PROCESSOR])
def test_what_is_no_json_object_is_refused(folder, name, text):
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert f"{name} in {folder} must be a JSON object" in refused(folder)


def test_a_file_of_many_megabytes_is_refused(folder):
    (folder / PROCESSOR).write_text(json.dumps({"x": "y" * 17_000_000}))
    assert "at most 16 MB; it has 17" in refused(folder)


class Trap:
    """Pickled, it makes a file when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_a_pickle_is_refused_and_not_read(folder, tmp_path, name):
    mark = tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(mark)))
    assert f"it holds {name}, a pickle" in refused(folder)
    with pytest.raises(OSError, match="safetensors"):
        HiVAForImageClassification.from_pretrained(folder)
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())
    assert mark.exists(), "the trap must work for this test to say anything"


def test_a_pickle_of_tensors_is_read_when_asked_for(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        HiVAForImageClassification.from_pretrained(folder)
    HiVAForImageClassification.from_pretrained(folder, use_safetensors=None)


@pytest.mark.parametrize("place", ELSEWHERE)
def test_shards_lie_in_the_folder(folder, place):
    names = list(load_file(folder / "model.safetensors"))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, place)}))
    shutil.move(folder / "model.safetensors", folder.parent / "x")
    assert f"must name files beside it; got {place}" in refused(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": ["model.safetensors"]}, {"weight_map": {"a": 5}}])
def test_an_index_that_is_none(folder, index):
    shutil.move(folder / "model.safetensors", folder / "part.safetensors")
    (folder / INDEX).write_text(json.dumps(index))
    assert refused(folder)


def test_an_adapter_beside_the_weights_is_refused(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/body"}')
    assert "adapter_config.json" in refused(folder)


def test_weights_of_another_shape_get_one_sentence(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if weights[name].ndim == 2)
    weights[name] = weights[name][:-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert name in refused(folder)


CODE = """
import sys
from pathlib import Path

Path(sys.argv[2]).touch()
"""
LOAD = """
import sys
from hiva_hf.checkpoint import load_detector

try:
    load_detector(sys.argv[1])
    print("loaded")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["model", "tokenizer", "processor", "pipeline", "tower", "tokenizer-alone"])
def test_code_of_a_checkpoint_is_not_run(folder, tmp_path, kind):
    (folder / "evil.py").write_text(CODE)
    maps = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForImageClassification"), "evil.Evil")
    if kind == "model":
        edit(folder, CONFIG, put("auto_map", maps))
    elif kind == "tower":
        edit(folder, CONFIG, put("vision_config", "auto_map", maps))
    elif kind == "pipeline":
        edit(folder, CONFIG, put("custom_pipelines", {"facial-action-units": {"impl": "evil.Evil"}}))
    elif kind == "processor":
        edit(folder, PROCESSOR, put("auto_map", {"AutoProcessor": "evil.Evil"}))
        edit(folder, PROCESSOR, put("image_processor", "auto_map", {"AutoImageProcessor": "evil.Evil"}))
    else:
        edit(folder, TOKENIZER, put("auto_map", {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}))
        if kind == "tokenizer-alone":
            edit(folder, TOKENIZER, put("tokenizer_class", "EvilTokenizer"))
    mark = tmp_path / "ran"
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    # who is asked whether to trust the code says yes
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), str(mark)],
        input="y\n" * 9,
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Do you wish to run" not in run.stdout
    assert not mark.exists()
    assert run.stdout.count("\n") == 1
    if "tokenizer" not in kind:
        assert run.stdout == "loaded\n"


@pytest.mark.parametrize("name", [*ELSEWHERE, "~/x", "a/b/c", "..", r"C:\x"])
def test_a_text_encoder_that_is_a_folder_is_left_out(folder, name, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    edit(folder, CONFIG, put("text_encoder", name))
    before = sorted(tmp.name for tmp in folder.parent.iterdir())
    model, _ = load_detector(folder)
    assert model.config.text_encoder is None
    assert any("`text_encoder`" in record.getMessage() and name in record.getMessage() for record in caplog.records)
    assert sorted(tmp.name for tmp in folder.parent.iterdir()) == before


def test_a_text_encoder_on_the_hub_stays(folder):
    edit(folder, CONFIG, put("text_encoder", "sentence-transformers/all-MiniLM-L6-v2"))
    assert load_detector(folder)[0].config.text_encoder == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_checkpoint_tells_what_wrote_it(folder):
    stored = json.loads((folder / CONFIG).read_text())
    assert stored["hiva_version"] == hiva_hf.__version__
    assert stored["transformers_version"] == transformers.__version__
    model, _ = load_detector(folder)
    assert model.config.hiva_version == hiva_hf.__version__
    edit(folder, CONFIG, put("hiva_version", "0.0.1"))
    older = HiVAForImageClassification.from_pretrained(folder)
    assert older.config.hiva_version == "0.0.1"
    older.save_pretrained(folder)
    assert json.loads((folder / CONFIG).read_text())["hiva_version"] == hiva_hf.__version__


@pytest.mark.parametrize("version", ["99.0.0", "99", "0.1.99rc1", "9" * 9000])
def test_a_newer_writer_is_told_in_one_sentence(folder, tmp_path, version):
    edit(folder, CONFIG, put("hiva_version", version))
    told = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout == "loaded\n"
    assert told.stderr.count("A newer hiva_hf") == 1
    assert "pip install -U hiva-hf" in told.stderr


@pytest.mark.parametrize("version", [hiva_hf.__version__, "0.0.1", "", "unknown", None])
def test_no_newer_writer_is_told_of_where_there_is_none(folder, tmp_path, version):
    edit(folder, CONFIG, put("hiva_version", version))
    told = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout == "loaded\n"
    assert "A newer hiva_hf" not in told.stderr


REMOTE = """
import sys
sys.modules["hiva_hf"] = None
import transformers
transformers.__version__ = sys.argv[2]

try:
    getattr(transformers, sys.argv[3]).from_pretrained(sys.argv[1], trust_remote_code=True)
    print("loaded")
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("version", "loads", "auto"),
    [("4.57.1", False, "AutoModel"), ("5.19.3", False, "AutoConfig"), ("6.0.0.dev0", True, "AutoModel")],
)
def test_remote_code_names_the_transformers_it_was_written_for(folder, tmp_path, version, loads, auto):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", REMOTE, str(folder), version, auto]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    told = run.stderr if loads else run.stdout
    assert told.count(f"transformers>=5.20,<6; installed is {version}. Run pip install 'transformers>=5.20,<6'") == 1
    assert ("loaded" in run.stdout) == loads


def test_remote_code_is_silent_about_the_transformers_it_knows(folder, tmp_path):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", REMOTE, str(folder), transformers.__version__, "AutoModel"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.stdout == "loaded\n", run.stderr[-2000:]
    assert "was written for" not in run.stderr


def test_the_versions_are_those_of_the_package():
    told = (Path(hiva_hf.__file__).parent / "configuration_hiva.py").read_text(encoding="utf-8")
    project = Path(hiva_hf.__file__).parents[1] / "pyproject.toml"
    assert '"transformers>=5.20,<6"' in project.read_text(encoding="utf-8")
    assert "transformers>=5.20,<6" in told
    assert "_INSTALLED < (5, 20)" in told
    assert "_INSTALLED >= (6,)" in told


@pytest.mark.parametrize("name", ["layer_norm_eps", "initializer_range"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0])
def test_a_configuration_refuses_what_is_not_finite(name, value):
    with pytest.raises(StrictDataclassError, match=f"`{name}` must be positive; got {value}"):
        hiva_hf.HiVAConfig(**{name: value})


def test_versions_are_compared_as_numbers():
    assert _numbers("0.10.0") > _numbers("0.9.12") > _numbers("0.9")
