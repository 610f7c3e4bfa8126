"""What is sent and what stays: licensed data, paths of this machine, code and pictures of others, broken files."""

import csv
import json
import shutil
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import save_file

from hiva_hf.checkpoint import load_detector
from hiva_hf.export import export_onnx
from hiva_hf.hub import adapter_upload, dataset_upload, model_upload

LORA = {"base_model.model.hiva.text_model.query.lora_A.weight": torch.ones(2, 3)}
ROOT = "/srv/secret"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where copies are made, so that those left behind are seen."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def run(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    return folder


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "tuned" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "base_model_name_or_path": "org/base"}))
    save_file(LORA, folder / "adapter_model.safetensors")
    return folder


def faces_of(folder, **columns):
    folder.mkdir(exist_ok=True)
    rows = {"subject_id": ["a", "b"], "frame": [0, 1], **columns}
    pq.write_table(pa.table(rows), folder / "faces-00000.parquet")
    return folder


def change(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def all_bytes(upload):
    return b"\n".join(path.read_bytes() for path in upload.folder.iterdir())


BYTES = [b"x", b"y"]


@pytest.mark.parametrize(
    ("columns", "told", "record"),
    [
        ({"dataset": ["bp4d"] * 2, "image": BYTES}, [], None),
        ({"image": BYTES}, ["bp4d"], None),
        ({"dataset": ["folder"] * 2, "image": BYTES}, ["BP4D"], None),
        ({"image": BYTES}, ["lab"], {"dataset": "BP4D"}),
        ({"image": BYTES}, ["lab"], {"root": "/data/BP4D-crops/x"}),
        ({"dataset": ["BP4D"] * 2, "labels": [[1.0], [0.0]]}, [], None),
        ({"dataset": ["BP4D"] * 2, "intensities": [[1.0], [0.0]]}, [], None),
        ({"dataset": ["BP4D"] * 2, "face": BYTES}, [], None),
        ({"dataset": ["BP4D"] * 2, "face": [{"bytes": b"x", "path": None}] * 2}, ["rendered faces"], None),
        ({"dataset": ["Aff-Wild-2"] * 2, "au1": [1.0, 0.0]}, [], None),
    ],
)  # fmt: skip
def test_licensed_faces_are_refused_by_whatever_tells_them(tmp_path, columns, told, record):
    folder = faces_of(tmp_path / "faces", **columns)
    if record:
        (folder / "prepare.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="must not be passed on, by its licence"):
        dataset_upload(folder, "org/x", "mit", told)


def test_faces_of_which_nobody_says_whose_they_are_wait_for_that(tmp_path):
    for columns in ({}, {"dataset": ["folder"] * 2}, {"dataset": ["lab"] * 2}):
        folder = faces_of(tmp_path / "faces", image=BYTES, **columns)
        with pytest.raises(ValueError, match="--trained-on"):
            dataset_upload(folder, "org/x", "mit")
        upload = dataset_upload(folder, "org/x", "mit", ["faces of our lab"])
        assert upload.problems == []
        assert "faces of our lab: not told" in (upload.folder / "README.md").read_text()
        upload.close()
    # without images and labels nothing stands against it
    dataset_upload(faces_of(tmp_path / "faces", dataset=["BP4D"] * 2, box=[1, 2]), "org/x", "mit").close()


def test_nothing_of_a_detector_tells_where_it_lay(run):
    here = str(run)
    config = json.loads((run / "config.json").read_text())
    inner = {**config["vision_config"], "_name_or_path": here}
    change(run / "config.json", vision_config=inner, text_encoder=f"{here}/my_encoder")
    change(
        run / "results.json", checkpoint="runs/old/model", boxes="~/boxes.csv", bank="../bank.json", note=f"of {here}"
    )
    bank = json.loads((run / "processor_config.json").read_text())["description_bank"]
    bank["provenance"] = {
        "generator": "a model",
        "where": "llm.inside.example",
        "original": {"where": "b.inside.example"},
    }
    change(run / "processor_config.json", description_bank=bank)
    change(run / "calibration.json", made_in=here)
    upload = model_upload(run, "org/x", "mit")
    assert upload.problems == []
    sent = all_bytes(upload)
    for secret in (here, str(run.parent), "runs/old", "~/boxes", "../bank", "inside.example", "my_encoder"):
        assert secret.encode() not in sent, secret
    assert json.loads((upload.folder / "config.json").read_text())["text_encoder"] is None
    assert json.loads((upload.folder / "results.json").read_text())["checkpoint"] == "the folder model"
    upload.close()


def test_a_text_encoder_of_the_hub_is_told(run):
    change(run / "config.json", text_encoder="org/encoder")
    upload = model_upload(run, "org/x", "mit")
    assert json.loads((upload.folder / "config.json").read_text())["text_encoder"] == "org/encoder"
    upload.close()


def test_nothing_of_prepared_faces_tells_where_they_lay(tmp_path):
    folder = faces_of(tmp_path / "faces", dataset=["lab"] * 2, AU1=[1.0, 0.0])
    file, source = folder / "faces-00000.parquet", f"{ROOT}/a.png"
    table = pq.read_table(file)
    kept = {b"hiva_alignment": b"{}"}
    dropped = json.dumps([[source, "a", "", 0, "no face", source]]).encode()
    pq.write_table(table.replace_schema_metadata({**kept, b"hiva_dropped": dropped}), file)
    with (folder / "dropped.csv").open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerows([("source", "subject_id", "reason", "error"), (source, "a", "no face", f"not {source}")])
    (folder / "prepare.json").write_text(json.dumps({"size": 64, "root": ROOT}))
    upload = dataset_upload(folder, "org/x", "mit", ["lab"])
    assert upload.problems == []
    assert ROOT.encode() not in all_bytes(upload)
    assert pq.read_table(upload.folder / file.name).equals(table)
    assert pq.read_schema(upload.folder / file.name).metadata == kept
    assert "no face" in (upload.folder / "dropped.csv").read_text()
    upload.close()
    faces_of(folder, dataset=["lab"] * 2, AU1=[1.0, 0.0], source=[source, source])
    upload = dataset_upload(folder, "org/x", "mit", ["lab"])
    upload.close()
    assert any(f"source ({source})" in problem for problem in upload.problems)


def test_large_files_are_not_copied_where_they_need_not_be(tmp_path, temporary):
    folder = faces_of(tmp_path / "faces", AU1=[1.0, 0.0])
    upload = dataset_upload(folder, "org/x", "mit", ["lab"])
    assert (upload.folder / "faces-00000.parquet").samefile(folder / "faces-00000.parquet")
    upload.close()
    assert (folder / "faces-00000.parquet").is_file()


def test_pictures_and_code_go_where_they_belong_to_it_alone(run):
    for name in ("person.png", "shown.png", "evil.py", "notes.jpg"):
        (run / name).write_bytes(b"x")
    upload = model_upload(run, "org/x", "mit")
    (run / "README.md").write_text((upload.folder / "README.md").read_text() + "\n![](shown.png)\n")
    upload.close()
    upload = model_upload(run, "org/x", "mit")
    upload.close()
    assert {"person.png", "evil.py", "notes.jpg"} <= set(upload.left_out)
    assert "shown.png" in upload.files
    code = {path.name for path in run.glob("*.py")} - {"evil.py"}
    assert code == {name for name in upload.files if name.endswith(".py")}
    assert {"modeling_hiva.py", "_version.py", "pipeline_hiva.py"} <= code


def test_a_snapshot_of_the_cache_is_followed_and_other_links_are_not(trained, tmp_path):
    blobs, snapshot = tmp_path / "models--org--x" / "blobs", tmp_path / "models--org--x" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    linked = tmp_path / "linked"
    linked.mkdir()
    for number, path in enumerate(path for path in trained.folder.iterdir() if path.is_file()):
        shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
        (linked / path.name).symlink_to(path)
    upload = model_upload(snapshot, "org/x", "mit")
    upload.close()
    assert upload.problems == []
    upload = model_upload(linked, "org/x", "mit")
    upload.close()
    assert "config.json (a link)" in upload.left_out
    assert str(linked) in upload.problems[0]
    assert str(upload.folder) not in upload.problems[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "JSON"), ("[]", "holds a list"), ('{"metrics": [1]}', "`metrics`"),
     ('{"metrics": {"f1_AU4": "x"}}', "f1_AU4")],
)  # fmt: skip
def test_a_broken_record_is_one_sentence_and_leaves_nothing_behind(run, temporary, content, said):
    (run / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json in .* must hold") as error:
        model_upload(run, "org/x", "mit")
    assert said in str(error.value)
    assert not list(temporary.iterdir())


def test_a_record_may_say_little_and_what_fails_leaves_nothing_behind(run, temporary, monkeypatch):
    (run / "results.json").write_text('{"metrics": {"mean_f1": 0.5}}')
    model_upload(run, "org/x", "mit").close()
    monkeypatch.setattr("hiva_hf.hub.contents.model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model_upload(run, "org/x", "mit")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("weights", "said"),
    [(None, "no whole safetensors"), ({"a": torch.ones(1)}, "it holds a"), ({}, "holds nothing"), ("nan", "NaN")],
)
def test_weights_that_are_no_adapter_are_not_sent(adapter, weights, said):
    file = adapter / "adapter_model.safetensors"
    if weights is None:
        file.write_bytes(b"garbage")
    else:
        save_file({name: value * torch.nan for name, value in LORA.items()} if weights == "nan" else weights, file)
    upload = adapter_upload(adapter, "org/lora", license="mit")
    upload.close()
    assert any(said in problem for problem in upload.problems), upload.problems


def test_the_base_of_an_adapter_is_the_id_of_a_repository(adapter):
    for base in ("org/na me", "org/-x", "a/b/c", ROOT):
        upload = adapter_upload(adapter, "org/lora", base, "mit")
        upload.close()
        assert "must name its base on the Hub" in upload.problems[0]


def test_figures_of_an_adapter_come_from_its_own_training(adapter, temporary):
    results = {"aus": ["AU4"], "metrics": {"f1_AU4": 0.5, "mean_f1": 0.5}}
    # in the folder of all temporary folders something of others may lie
    (temporary / "results.json").write_text(json.dumps({**results, "seed": 123454321}))
    upload = adapter_upload(adapter, "org/lora", license="mit")
    assert "123454321" not in (upload.folder / "README.md").read_text()
    upload.close()
    (adapter.parent / "results.json").write_text(json.dumps(results))
    upload = adapter_upload(adapter.parent, "org/lora", license="mit")
    text = (upload.folder / "README.md").read_text()
    upload.close()
    assert upload.problems == []
    assert "| AU4 |" in text
    assert "calibrated anew" in text


def test_a_card_of_an_adapter_lies_beside_it_in_place_of_the_blank_form(adapter, hiva, monkeypatch):
    form = ModelCard.from_template(ModelCardData(library_name="peft"))
    form.text += "\n### Framework versions\n\n- PEFT 0.17.0"
    (adapter / "README.md").write_text(str(form))
    done = hiva("card", adapter.parent, "org/lora", "--adapter", "--license", "mit")
    assert done.code == 0, done.err
    assert not (adapter.parent / "README.md").exists()
    written = (adapter / "README.md").read_text()
    assert "## Consent" in written
    done = hiva("card", adapter.parent, "org/lora", "--adapter", "--license", "mit")
    assert done.code == 2
    assert "is there already" in done.err
    # half filled in it is somebody's work
    (adapter / "README.md").write_text(str(form).replace("## Uses", "## Uses\n\nFor everybody.\n"))
    upload = adapter_upload(adapter, "org/lora", license="mit")
    upload.close()
    assert any("still has blanks" in problem for problem in upload.problems)


def test_an_export_of_the_checkpoint_goes_along_and_of_another_does_not(run, tmp_path):
    model, processor = load_detector(run)
    export_onnx(model, processor, run / "model.onnx")
    with closing(model_upload(run, "org/x", "mit")) as upload:
        assert not upload.problems
        assert "model.onnx" in upload.files
    # what is calibrated afterwards answers otherwise
    change(run / "config.json", calibration_temperatures=[2.0] * 3, calibration_biases=[0.5] * 3)
    with closing(model_upload(run, "org/x", "mit")) as upload:
        assert "largest logit difference at most 0.0001" in upload.problems[0]
    change(run / "config.json", calibration_temperatures=None, calibration_biases=None)
    change(run / "processor_config.json", thresholds={model.config.au_names[0]: 0.123})
    with closing(model_upload(run, "org/x", "mit")) as upload:
        assert "its thresholds are others" in upload.problems[0]
    with torch.no_grad():
        model.classifier.bias.add_(1.0)
    export_onnx(model, load_detector(run)[1], run / "model.onnx")
    (run / "broken.onnx").write_bytes(b"no protocol buffer")
    with closing(model_upload(run, "org/x", "mit")) as upload:
        broken, other = upload.problems
        assert "model.onnx must be an export of this checkpoint; The float32 file must agree" in other
        assert "broken.onnx must be an export of this checkpoint" in broken
