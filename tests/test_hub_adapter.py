"""An adapter on the Hub: it goes alone, finds its base, and brings the calibration of its figures."""

# fixtures are imported by name
# ruff: noqa: F811
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_fixtures import ALICE, FACES, client, files_of, hub, logits, no_cuts, one_sentence, place  # noqa: F401
from huggingface_hub import ModelCard

from hiva_hf import hiva_small, hiva_small_text
from hiva_hf.checkpoint import load_detector
from hiva_hf.hub import adapter_upload
from hiva_hf.lora import CALIBRATION_FILE, add_text_lora, calibration_record, load_adapter, text_lora_config
from hiva_hf.training import save_detector

CALIBRATED = {"calibration_temperatures": [3.0, 0.5], "calibration_biases": [-1.0, 0.25]}
THRESHOLDS = {"AU1": 0.31, "AU12": 0.72}


def changed(adapted):
    """An adapter that says something."""
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
    return adapted


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A calibrated base, and the folder that a training with LoRA leaves behind: a merged detector with its adapter."""
    folder = tmp_path_factory.mktemp("tuned")
    torch.manual_seed(0)
    model, processor = hiva_small_text(["AU1", "AU12"])
    model.config.calibration_temperatures, model.config.calibration_biases = [0.2, 5.0], [2.0, 2.0]
    processor.thresholds = {"AU1": 0.9, "AU12": 0.1}
    save_detector(model, processor, folder / "base")
    adapted = changed(add_text_lora(model, text_lora_config(4)))
    model.config.update(CALIBRATED)
    processor.thresholds = THRESHOLDS
    adapted.save_pretrained(folder / "adapter")
    results = {"aus": ["AU1", "AU12"], "metrics": {"f1_AU1": 0.5, "f1_AU12": 0.25, "mean_f1": 0.375}}
    save_detector(adapted.merge_and_unload(), processor, folder / "run", {"results.json": results})
    # as `hiva train` leaves them
    (folder / "adapter").replace(folder / "run" / "adapter")
    told = calibration_record(CALIBRATED, THRESHOLDS)
    (folder / "run" / "adapter" / CALIBRATION_FILE).write_text(json.dumps(told))
    return folder


def blocks_of(text):
    """The code of a card."""
    return [part.split("```")[0] for part in text.split("```python\n")[1:]]


def test_an_adapter_alone_on_its_base(client, hub, place, tmp_path):
    torch.manual_seed(0)
    model, processor = hiva_small_text(["AU1", "AU12"])
    save_detector(model, processor, place / "base")
    assert client.hiva("push", place / "base", "org/base", "--license", "mit", token=ALICE).code == 0
    adapted = add_text_lora(model, text_lora_config(4))
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    refused = client.hiva("push", tmp_path / "adapter", "org/lora", "--adapter", "--license", "mit", token=ALICE)
    one_sentence(refused, "must name its base on the Hub", "--base org/name")
    options = ("--adapter", "--base", "org/base", "--license", "mit")
    done = client.hiva("push", tmp_path / "adapter", "org/lora", *options, token=ALICE)
    assert done.code == 0, done.err
    files = files_of(hub, "org/lora")
    assert set(files) == {
        ".gitattributes", "adapter_config.json", "adapter_model.safetensors", "adapter_base.json", "README.md",
    }  # fmt: skip
    assert sum(file["size"] for file in files.values()) < 200_000
    assert (
        json.loads(hub.store.blob_path(files["adapter_config.json"]["sha256"]).read_text())["base_model_name_or_path"]
        == "org/base"
    )
    card = ModelCard(hub.store.blob_path(files["README.md"]["sha256"]).read_text())
    assert card.data.base_model == "org/base"
    torch.save(FACES, tmp_path / "faces.pt")
    # the card's own code, and that of it which is for a process without the package
    here, alone = (part.split("```")[0] for part in card.text.split("```python\n")[1:])
    ask = f"import torch\n{{}}\nprint(model(torch.load('{tmp_path}/faces.pt')).logits.tolist())"
    done = client.python(ask.format(here), token=ALICE)
    assert done.code == 0, done.err
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['hiva_hf'] = None\n" + ask.format(alone)],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    expected = logits(adapted.merge_and_unload())
    for out in (done.out, run.stdout):
        assert torch.allclose(torch.tensor(json.loads(out.splitlines()[-1])), expected, atol=1e-5)


def test_an_adapter_of_another_base_is_one_sentence(client, hub, place, tmp_path):
    torch.manual_seed(0)
    makes = {"first": (hiva_small_text, "AU12"), "other": (hiva_small_text, "AU4"), "folded": (hiva_small, "AU12")}
    for name, (make, second) in makes.items():
        save_detector(*make(["AU1", second]), tmp_path / name)
        assert client.hiva("push", tmp_path / name, f"org/{name}", "--license", "mit", token=ALICE).code == 0
    add_text_lora(load_detector(tmp_path / "first")[0], text_lora_config(2)).save_pretrained(tmp_path / "adapter")
    options = ("--adapter", "--license", "mit")
    for base, said in (
        ("other", "the action units AU1, AU12, and this base has AU1, AU4"),
        ("folded", "no text encoder"),
    ):
        done = client.hiva("push", tmp_path / "adapter", "org/misfit", *options, "--base", f"org/{base}", token=ALICE)
        one_sentence(done, f"`--base` must be the detector that the adapter was trained on, and org/{base} is", said)
    assert not hub.store.exists("models", "org/misfit")
    done = client.hiva("push", tmp_path / "adapter", "org/fit", *options, "--base", "org/first", token=ALICE)
    assert done.code == 0, done.err
    # by id, on the base it has and on another
    load = "from hiva_hf import HiVAForImageClassification as M; from hiva_hf.lora import load_adapter\n"
    assert client.python(load + "load_adapter(M.from_pretrained('org/first'), 'org/fit')").code == 0
    done = client.python(load + "load_adapter(M.from_pretrained('org/other'), 'org/fit')")
    assert "Load the base that it was trained on, org/first" in done.err.splitlines()[-1]


def test_an_adapter_brings_the_calibration_of_its_figures(client, hub, tuned, tmp_path):
    assert client.hiva("push", tuned / "base", "org/calibrated", "--license", "mit", token=ALICE).code == 0
    options = ("--adapter", "--base", "org/calibrated", "--license", "mit")
    done = client.hiva("push", tuned / "run", "org/brings", *options, token=ALICE)
    assert done.code == 0, done.err
    files = files_of(hub, "org/brings")
    stored = json.loads(hub.store.blob_path(files[CALIBRATION_FILE]["sha256"]).read_text())
    assert stored == {**CALIBRATED, "thresholds": THRESHOLDS}
    text = hub.store.blob_path(files["README.md"]["sha256"]).read_text()
    assert "with its own calibration and thresholds" in text
    assert "those of the base" not in text.split("## Training")[0]
    here, alone = blocks_of(text)
    torch.save(FACES, tmp_path / "faces.pt")
    ask = "import torch\n{}\nprint([model(torch.load({!r})).logits.tolist(), {}])"
    done = client.python(ask.format(here, str(tmp_path / "faces.pt"), "detector.limits"))
    assert done.code == 0, done.err
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    code = "import sys; sys.modules['hiva_hf'] = None\n" + ask.format(alone, str(tmp_path / "faces.pt"), "thresholds")
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    merged, processor = load_detector(tuned / "run")
    for out in (done.out, run.stdout):
        found, limits = eval(out.splitlines()[-1])
        assert torch.allclose(torch.tensor(found), logits(merged), atol=1e-5)
        assert limits == processor.limits(["AU1", "AU12"]) == THRESHOLDS
    # the calibration of the base would say something else
    assert (logits(merged) - logits(load_detector(tuned / "base")[0])).abs().max() > 0.5


def test_of_a_detector_beside_it_no_calibration_is_taken(tuned, tmp_path):
    save_detector(*hiva_small(["AU1", "AU12"]), tmp_path / "other")
    shutil.copytree(tuned / "run" / "adapter", tmp_path / "other" / "adapter")
    (tmp_path / "other" / "adapter" / CALIBRATION_FILE).unlink()
    upload = adapter_upload(tmp_path / "other", "org/x", "org/base", "mit")
    upload.close()
    assert CALIBRATION_FILE not in upload.files


def test_what_was_measured_without_a_calibration_is_loaded_without(tuned, tmp_path):
    """Training forgets that of the base, so figures without one are not those of the base's."""
    none = dict.fromkeys((*CALIBRATED, "thresholds"))
    adapter = with_calibration(tuned, tmp_path, none)
    base, processor = load_detector(tuned / "base")
    load_adapter(base, adapter, processor)
    assert base.config.calibration_temperatures is base.config.calibration_biases is processor.thresholds is None


def with_calibration(tuned, tmp_path, content):
    folder = Path(shutil.copytree(tuned / "run" / "adapter", tmp_path / "adapter"))
    (folder / CALIBRATION_FILE).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"calibration_temperatures": [1.0]}, "must have 2 entries"),
        ({"calibration_temperatures": [1.0, -1.0]}, "must be finite and positive; got -1"),
        ({"calibration_biases": ["1", 2.0]}, "calibration_biases"),
        ({"calibration_biases": "none"}, "calibration_biases"),
        ({"thresholds": {"AU9": 0.5}}, "AU9 with 0.5 is none"),
        ({"thresholds": {"AU1": "high"}}, "AU1 with 'high' is none"),
        ({"thresholds": {"AU1": True}}, "AU1 with True is none"),
        ({"thresholds": {"AU1": 10**400}}, "is none"),
        ({"thresholds": {"AU1": float("nan")}}, "AU1 with nan is none"),
        ({"thresholds": [0.5, 0.5]}, "no attribute 'items'"),
        ([], "holds a list"),
        (None, "it lacks calibration_biases, calibration_temperatures, thresholds"),
    ],
)
def test_a_calibration_that_is_none_is_one_sentence_and_changes_nothing(tuned, tmp_path, content, said):
    if isinstance(content, dict):
        content = {**CALIBRATED, "thresholds": None, **content}
    adapter = with_calibration(tuned, tmp_path, {} if content is None else content)
    base, processor = load_detector(tuned / "base")
    before = logits(base)
    with pytest.raises(ValueError, match=CALIBRATION_FILE) as error:
        load_adapter(base, adapter, processor)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert torch.equal(logits(base), before)
    assert processor.thresholds == {"AU1": 0.9, "AU12": 0.1}
