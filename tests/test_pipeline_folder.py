"""The pipeline `facial-action-units` of a saved folder: registered, kept whole, and run by the folder's own code."""

# fixtures are imported by name
# ruff: noqa: F811
import json
import os
import subprocess
import sys

import pytest
from pipeline_fixtures import folder, pictures, read  # noqa: F401
from transformers import AutoModel, AutoModelForImageClassification, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from hiva_hf import default_checkpoint
from hiva_hf.pipeline_hiva import CUSTOM_PIPELINES, TASK, FacialActionUnitsPipeline


def test_the_registry_knows_it(read):
    entry = PIPELINE_REGISTRY.supported_tasks[TASK]
    known = {name: value for name, value in entry.items() if name != "default"}
    assert known == {"impl": FacialActionUnitsPipeline, "pt": (AutoModelForImageClassification,), "type": "image"}
    assert type(read) is FacialActionUnitsPipeline


def test_without_a_model_it_is_the_one_that_ships(monkeypatch):
    monkeypatch.delenv("HIVA_CHECKPOINT", raising=False)
    read = pipeline(TASK)
    assert type(read) is FacialActionUnitsPipeline
    assert read.model.name_or_path == str(default_checkpoint())


IMPORTS = {
    "package-first": "import hiva_hf\nfrom transformers import pipeline",
    "pipeline-first": "from transformers import pipeline\nimport hiva_hf",
    "inner-module": "import hiva_hf.modeling_hiva\nfrom transformers import pipeline",
    "pipeline-module": "import hiva_hf.pipeline_hiva\nfrom transformers import pipeline",
    "base": "import hiva_hf\nimport transformers.pipelines.base",
}


@pytest.mark.parametrize("first", IMPORTS)
def test_it_is_registered_whatever_is_imported_first(first):
    asked = f"from transformers.pipelines import PIPELINE_REGISTRY as known\nprint({TASK!r} in known.supported_tasks)"
    code = f"{IMPORTS[first]}\n{asked}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr


def test_a_saved_pipeline_is_a_checkpoint(read, pictures, tmp_path):
    read.save_pretrained(tmp_path / "again")
    assert pipeline(TASK, model=str(tmp_path / "again"))(pictures[1]) == read(pictures[1])
    stored = json.loads((tmp_path / "again" / "config.json").read_text())
    assert stored["custom_pipelines"] == CUSTOM_PIPELINES
    assert (tmp_path / "again" / "pipeline_hiva.py").is_file()
    assert not hasattr(read.model.config, "custom_pipelines")


def test_a_base_model_carries_the_code_too(make_folded, tmp_path):
    make_folded().hiva.save_pretrained(tmp_path)
    assert (tmp_path / "pipeline_hiva.py").is_file()
    AutoModel.from_pretrained(tmp_path)


REMOTE = """
import json, sys
if sys.argv[2] == "without":
    sys.modules["hiva_hf"] = None
from transformers import pipeline

read = pipeline("facial-action-units", model=sys.argv[1], trust_remote_code=True)
picture, boxes = sys.argv[3], json.loads(sys.argv[4])
answers = {
    "module": type(read).__module__,
    "config": type(read.model.config).__module__,
    "found": [read(picture), read([picture, picture], batch_size=2)],
    "boxes": read(picture, boxes=boxes),
    "cropped": read(picture, cropped=True),
}
read.save_pretrained(sys.argv[5])
print(json.dumps(answers))
"""


def remotely(folder, picture, boxes, tmp_path, package):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    arguments = [str(folder), package, str(picture), json.dumps(boxes), str(tmp_path / package)]
    command = [sys.executable, "-c", REMOTE, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1]), run.stderr


def test_the_folder_alone_reads_given_faces_and_says_what_it_cannot_do(folder, read, pictures, tmp_path):
    pictures[1].save(tmp_path / "a.png")
    box = [176.0, 65.0, 273.0, 162.0]
    answers, told = remotely(folder, tmp_path / "a.png", [box], tmp_path, "without")
    assert answers["module"].startswith("transformers_modules.")
    assert answers["boxes"] == read(pictures[1], boxes=[box])
    whole = read(pictures[1], cropped=True)
    assert answers["cropped"] == whole
    assert answers["found"][0] == whole
    assert [face["box"] for (face,) in answers["found"][1]] == [whole[0]["box"]] * 2
    assert told.count("pip install 'hiva-hf[faces]'") == 1
    # what code from a checkpoint saves is a checkpoint again
    assert (tmp_path / "without" / "pipeline_hiva.py").read_bytes() == (folder / "pipeline_hiva.py").read_bytes()
    assert pipeline(TASK, model=str(tmp_path / "without"))(pictures[1]) == read(pictures[1])


def test_code_of_the_folder_finds_faces_where_the_package_is_installed(folder, read, pictures, tmp_path):
    pictures[1].save(tmp_path / "a.png")
    answers, told = remotely(folder, tmp_path / "a.png", [[0, 0, 50, 50]], tmp_path, "with")
    assert answers["module"].startswith("transformers_modules.")
    assert answers["found"][0] == read(pictures[1])
    assert "hiva-hf[faces]" not in told


def test_code_of_the_folder_needs_trust(folder, tmp_path):
    code = REMOTE.replace("trust_remote_code=True", "trust_remote_code=False")
    command = [sys.executable, "-c", code, str(folder), "without", "x", "[]", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1
    assert "trust_remote_code=True" in run.stderr
