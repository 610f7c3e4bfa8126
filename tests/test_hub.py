"""To the Hub and back over HTTP: checkpoints, adapters, data, the metric; and what is said when it fails."""

# fixtures are imported by name
# ruff: noqa: F811
import json
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub_fixtures import ALICE, BOB, CARDS, FACES, client, files_of, hub, logits, no_cuts, one_sentence, place  # noqa: F401
from huggingface_hub import DatasetCard, ModelCard

from hiva_hf import HiVAForImageClassification
from hiva_hf.checkpoint import load_detector
from hiva_hf.training import save_detector


def test_a_trained_detector_goes_and_comes_back(client, hub, trained, place):
    done = client.hiva("push", trained.folder, "org/tiny", "--license", "apache-2.0", token=ALICE)
    assert done.code == 0, done.err
    assert f"Sent to {hub.url}/org/tiny/commit/" in done.out
    files = files_of(hub, "org/tiny")
    assert {"config.json", "model.safetensors", "processor_config.json", "README.md", "modeling_hiva.py"} <= set(files)
    for name in files:
        assert name in (".gitattributes", *done.out.split())
    done = client.hiva("pull", "org/tiny", "--out", place / "pulled")
    assert done.code == 0, done.err
    expected = logits(load_detector(trained.folder)[0])
    assert torch.allclose(logits(load_detector(place / "pulled")[0]), expected, atol=1e-6)
    torch.save(FACES, place / "faces.pt")
    done = client.python(
        "import torch; from transformers import AutoModel\n"
        "model = AutoModel.from_pretrained('org/tiny').eval()\n"
        f"print(model(torch.load('{place}/faces.pt')).logits.tolist())"
    )
    assert done.code == 0, done.err
    assert torch.allclose(torch.tensor(json.loads(done.out.splitlines()[-1])), expected, atol=1e-5)


def test_the_records_tell_nothing_of_this_machine(client, hub, trained, place):
    client.hiva("push", trained.folder, "org/records", "--license", "mit", token=ALICE)
    blobs = hub.store
    told = json.loads(blobs.blob_path(files_of(hub, "org/records")["results.json"]["sha256"]).read_text())
    assert told["data"] == "faces.parquet"
    assert json.loads((trained.folder / "results.json").read_text())["data"].startswith("/")
    for name, file in files_of(hub, "org/records").items():
        if not name.endswith(".safetensors"):
            assert str(trained.folder.parent) not in blobs.blob_path(file["sha256"]).read_text(errors="ignore"), name


def test_pickles_and_optimizers_stay_here(client, hub, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    for name in ("optimizer.pt", "pytorch_model.bin", "training_args.bin", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "scheduler.pt").write_bytes(b"x")
    done = client.hiva("push", folder, "org/clean", "--license", "mit", "--dry-run", token=ALICE)
    assert done.code == 0, done.err
    assert "Nothing was sent" in done.out
    assert not hub.store.exists("models", "org/clean")
    left = next(line for line in done.out.splitlines() if line.startswith("Left out:"))
    for name in ("optimizer.pt", "pytorch_model.bin", "training_args.bin", "notes.txt", "checkpoint-5/scheduler.pt"):
        assert name in left
    client.hiva("push", folder, "org/clean", "--license", "mit", token=ALICE)
    assert not {name for name in files_of(hub, "org/clean") if name.endswith((".pt", ".bin", ".txt"))}


@pytest.mark.parametrize("damage", ["cut", "nan", "other"])
def test_a_checkpoint_that_does_not_work_is_not_sent(client, hub, trained, tmp_path, damage):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
        said = "must load"
    elif damage == "nan":
        model, processor = load_detector(folder)
        with torch.no_grad():
            model.hiva.vision_projection.proj.weight.fill_(float("nan"))
        save_detector(model, processor, folder)
        said = "logits are NaN"
    else:
        (folder / "config.json").write_text('{"model_type": "vit"}')
        said = "must be a HiVA model"
    one_sentence(client.hiva("push", folder, "org/broken", "--license", "mit", token=ALICE), said)
    assert not hub.store.exists("models", "org/broken")


def test_a_process_without_the_package_needs_the_flag_alone(hub, trained, client, crops, tmp_path):
    client.hiva("push", trained.folder, "org/remote", "--license", "mit", token=ALICE)
    torch.save(FACES, tmp_path / "faces.pt")
    script = (
        "import sys; sys.modules['hiva_hf'] = None\nimport torch\nfrom transformers import AutoModel, AutoProcessor\n"
        "model = AutoModel.from_pretrained('org/remote', trust_remote_code=True).eval()\n"
        "processor = AutoProcessor.from_pretrained('org/remote', trust_remote_code=True)\n"
        "from transformers import pipeline\n"
        "read = pipeline('facial-action-units', model='org/remote', trust_remote_code=True)\n"
        f"(face,) = read({str(crops[0])!r}, cropped=True)\n"
        f"print([model(torch.load('{tmp_path}/faces.pt')).logits.tolist(), processor.labels, face])"
    )
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    scores, labels, face = eval(run.stdout.splitlines()[-1])
    assert torch.allclose(torch.tensor(scores), logits(load_detector(trained.folder)[0]), atol=1e-5)
    assert labels == [au["label"] for au in face["aus"]] == ["AU12", "AU4", "AU6"]
    assert set(face["box"]) == {"xmin", "ymin", "xmax", "ymax"}


def test_a_private_one_is_seen_by_those_who_may(client, hub, trained, place):
    done = client.hiva("push", trained.folder, "org/secret", "--license", "mit", "--private", token=ALICE)
    assert done.code == 0, done.err
    assert client.hiva("pull", "org/secret", "--out", place / "mine", token=ALICE).code == 0
    for token in (None, BOB):
        done = client.hiva("pull", "org/secret", "--out", place / "theirs", token=token)
        one_sentence(done, "org/secret must be a repository that you may see", "hf auth login")
    assert not (place / "theirs" / "config.json").exists()
    one_sentence(client.hiva("pull", "org/secret", "--out", place / "x", token="hf_wrong"), "HF_TOKEN")
    load = "from hiva_hf.checkpoint import load_detector; print(load_detector('org/secret')[0].config.au_names)"
    for token in (None, BOB):
        assert client.python(load, token).code == 1
    assert client.python(load, ALICE).out.strip() == "['AU12', 'AU4', 'AU6']"


def test_a_branch_and_a_tag(client, hub, trained, place, tmp_path):
    model, processor = load_detector(trained.folder)
    first = logits(model)
    with torch.no_grad():
        model.hiva.vision_projection.proj.weight.normal_()
    save_detector(model, processor, tmp_path / "next")
    client.hiva("push", trained.folder, "org/named", "--license", "mit", token=ALICE)
    options = ("--license", "cc0-1.0", "--revision", "next")
    done = client.hiva("push", tmp_path / "next", "org/named", *options, token=ALICE)
    assert done.code == 0, done.err
    client.python(
        "from huggingface_hub import HfApi; HfApi().create_tag('org/named', tag='v1', revision='next')", ALICE
    )
    torch.save(FACES, tmp_path / "faces.pt")
    for revision, licence in (("main", "mit"), ("next", "cc0-1.0"), ("v1", "cc0-1.0")):
        done = client.hiva("pull", "org/named", "--out", place / revision, "--revision", revision)
        assert done.code == 0, done.err
        assert ModelCard.load(place / revision / "README.md").data.license == licence
        expected = first if revision == "main" else logits(model)
        done = client.python(
            "import torch; from transformers import AutoModel; from hiva_hf.checkpoint import load_detector\n"
            f"faces, where = torch.load('{tmp_path}/faces.pt'), {{'revision': {revision!r}}}\n"
            "for model in (AutoModel.from_pretrained('org/named', **where), load_detector('org/named', **where)[0]):\n"
            "    print(model.eval()(faces).logits.tolist())"
        )
        assert done.code == 0, done.err
        for line in done.out.splitlines():
            assert torch.allclose(torch.tensor(json.loads(line)), expected, atol=1e-5), revision
    assert (first - logits(model)).abs().max() > 0.001
    done = client.hiva("pull", "org/named", "--out", place / "none", "--revision", "v9")
    one_sentence(done, "org/named must have the revision", "--revision")
    assert done.seconds < 1


def test_who_may_not_write_proposes(client, hub, trained):
    client.hiva("push", trained.folder, "org/shared", "--license", "mit", token=ALICE)
    before = files_of(hub, "org/shared")
    done = client.hiva("push", trained.folder, "org/shared", "--license", "cc0-1.0", token=BOB)
    one_sentence(done, "must not write to org/shared", "--pr")
    done = client.hiva("push", trained.folder, "org/shared", "--license", "cc0-1.0", "--pr", token=BOB)
    assert done.code == 0, done.err
    assert f"{hub.url}/org/shared/discussions/1" in done.out
    assert files_of(hub, "org/shared") == before
    assert files_of(hub, "org/shared", "refs/pr/1")["README.md"] != before["README.md"]
    one_sentence(client.hiva("push", trained.folder, "org/shared", "--license", "mit"), "HF_TOKEN")


def test_rendered_faces_are_shared_and_licensed_ones_are_not(client, hub, data, tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    table = pq.read_table(data)
    pq.write_table(table, folder / "faces-00000.parquet")
    options = ("--dataset", "--license", "mit", "--trained-on", "rendered faces")
    done = client.hiva("push", folder, "org/faces", *options, token=ALICE)
    assert done.code == 0, done.err
    files = files_of(hub, "org/faces", kind="datasets")
    card = DatasetCard(hub.store.blob_path(files["README.md"]["sha256"]).read_text())
    assert f"{len(table)} rows of 4 rendered people" in card.text
    assert "nobody in them exists" in card.text
    blocks = [part.split("```")[0] for part in card.text.split("```python\n")[1:]]
    assert len(blocks) == 2
    for code in blocks:
        done = client.python(f"{code}\nprint(len(faces))")
        assert done.code == 0, done.err
        assert done.out.splitlines()[-1] == str(len(table))

    licensed = table.append_column("dataset", pa.array(["BP4D"] * len(table)))
    pq.write_table(licensed, folder / "faces-00000.parquet")
    done = client.hiva("push", folder, "org/leak", *options, token=ALICE)
    one_sentence(done, "BP4D must not be passed on", "images and labels")
    pq.write_table(licensed.drop_columns(["image"]), folder / "faces-00000.parquet")
    one_sentence(client.hiva("push", folder, "org/leak", *options, token=ALICE), "holds labels")
    derived = licensed.select(["subject_id", "frame", "dataset", "box", "landmarks"])
    pq.write_table(derived, folder / "faces-00000.parquet")
    done = client.hiva("push", folder, "org/derived", "--dataset", "--license", "mit", token=ALICE)
    assert done.code == 0, done.err
    assert not hub.store.exists("datasets", "org/leak")


def test_prepared_faces_are_read_by_datasets_alone(client, hub, data, tmp_path):
    rows = pq.read_table(data).slice(0, 4).to_pylist()
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.png").write_bytes(row["image"]["bytes"])
    lines = [f"{number}.png,{row['subject_id']},{row['AU1']},1" for number, row in enumerate(rows)]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,subject,AU1,AU12", *lines]))
    done = client.hiva("data", "prepare", "folder", tmp_path, "--out", tmp_path / "cut", "--alignment", "none")
    assert done.code == 0, done.err
    # a table and a record lie beside the faces
    assert {"dropped.csv", "prepare.json"} <= {path.name for path in (tmp_path / "cut").iterdir()}
    options = ("--dataset", "--license", "mit", "--trained-on", "rendered faces")
    assert client.hiva("push", tmp_path / "cut", "org/cut", *options, token=ALICE).code == 0
    card = DatasetCard(
        hub.store.blob_path(files_of(hub, "org/cut", kind="datasets")["README.md"]["sha256"]).read_text()
    )
    code = next(part for part in card.text.split("```python\n")[1:] if "load_dataset" in part).split("```")[0]
    done = client.python(f"{code}\nprint(len(faces), faces.column_names)")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("4 ['image', 'subject_id'")
    assert f"| AU1 | inner brow raiser | 4 | {sum(row['AU1'] for row in rows)} |" in card.text
    assert "| AU12 | lip corner puller | 4 | 4 | 1.000 |" in card.text
    assert "Pictures were taken as crops" in card.text
    assert "Of 4 rows these were left out: none." in card.text


def test_the_metric_is_a_space_that_evaluate_loads(client, hub, tmp_path):
    done = client.hiva("push", CARDS / "au_f1", "org/au_f1", "--space", token=ALICE)
    assert done.code == 0, done.err
    assert {"README.md", "au_f1.py"} <= set(files_of(hub, "org/au_f1", kind="spaces"))
    done = client.python(
        "import evaluate\nmetric, names = evaluate.load('org/au_f1'), ['AU1', 'AU4']\n"
        "print(metric.compute(predictions=[[0.9, 0.2], [0.1, 0.3]], references=[[1, -100], [0, 1]], names=names))"
    )
    assert done.code == 0, done.err
    assert "'f1_AU1': 1.0" in done.out
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Nothing runs it\n")
    one_sentence(client.hiva("push", tmp_path, "org/nothing", "--space", token=ALICE), "must name the `sdk`")


def test_the_demo_goes_without_what_lies_beside_it(client, hub, tmp_path):
    shutil.copytree(CARDS / "space", tmp_path / "space")
    (tmp_path / "space" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "space" / "__pycache__" / "app.pyc").write_bytes(b"x")
    (tmp_path / "space" / "secret.env").write_text("TOKEN=1")
    done = client.hiva("push", tmp_path / "space", "org/demo", "--space", token=ALICE)
    assert done.code == 0, done.err
    files = set(files_of(hub, "org/demo", kind="spaces"))
    # all that it reads
    assert {path.name for path in (CARDS / "space").iterdir() if path.is_file()} <= files
    assert not files & {"secret.env", "__pycache__/app.pyc"}


def test_the_trainer_and_the_classes_push_too(client, hub, place, data):
    script = f"""
from hiva_hf import build_trainer, hiva_small, training_arguments
from hiva_hf.data import load_rendered
faces = load_rendered({str(data)!r}, aus=["AU1", "AU12"])
model, processor = hiva_small(["AU1", "AU12"])
processor.push_to_hub("org/pieces")
model.push_to_hub("org/pieces")
arguments = training_arguments(
    {str(place / "run")!r}, max_steps=1, per_device_train_batch_size=2, hub_model_id="org/trained", eval_strategy="no",
    save_strategy="no", load_best_model_at_end=False, disable_tqdm=True,
)
trainer = build_trainer(model, processor, {{"train": faces}}, arguments)
trainer.train()
trainer.push_to_hub()
"""
    done = client.python(script, token=ALICE)
    assert done.code == 0, done.err
    whole = {"config.json", "model.safetensors", "processor_config.json", "modeling_hiva.py"}
    assert whole <= set(files_of(hub, "org/pieces"))
    assert whole | {"README.md"} <= set(files_of(hub, "org/trained"))
    assert not [name for name in files_of(hub, "org/trained") if name.startswith(("optimizer", "checkpoint"))]
    # what came there is the detector that was trained, and not the one it began as
    torch.save(FACES, place / "faces.pt")
    ask = (
        "import torch; from hiva_hf.checkpoint import load_detector\n"
        "model, processor = load_detector({!r})\nassert processor.labels == ['AU1', 'AU12']\n"
        f"print(model(torch.load('{place}/faces.pt')).logits.tolist())"
    )
    answers = {}
    for repo in ("org/trained", "org/pieces"):
        done = client.python(ask.format(repo))
        assert done.code == 0, done.err
        answers[repo] = torch.tensor(json.loads(done.out.splitlines()[-1]))
    assert torch.allclose(
        answers["org/trained"], logits(HiVAForImageClassification.from_pretrained(place / "run")), atol=1e-5
    )
    assert not torch.allclose(answers["org/pieces"], answers["org/trained"], atol=1e-4)


def test_without_the_package_and_without_the_flag_is_one_error_at_once(client, hub, trained, tmp_path):
    client.hiva("push", trained.folder, "org/flag", "--license", "mit", token=ALICE)
    script = (
        "import sys, time; sys.modules['hiva_hf'] = None\nfrom transformers import AutoModel\nfor _ in range(2):\n"
        "    start = time.perf_counter()\n    try:\n        AutoModel.from_pretrained('org/flag')\n"
        "    except ValueError as error:\n        said = str(error)\n    seconds = time.perf_counter() - start\n"
        "print()\nprint([said, seconds])"
    )
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    said, seconds = eval(run.stdout.splitlines()[-1])
    assert "trust_remote_code=True" in said
    assert seconds < 1
