"""The command `hiva`: train, evaluate and predict from end to end, and every mistake as one sentence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import CHECKPOINT, LABELS, SUBJECTS, fails_with, files, strict_json

from hiva_hf import cli


def test_help_needs_no_torch():
    code = """
import sys
from hiva_hf import cli
sys.argv = ["hiva", "--help"]
try:
    cli.main()
finally:
    print([name for name in ("torch", "transformers", "datasets", "numpy", "PIL") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("train", "evaluate", "predict"))
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["train", "evaluate", "predict"])
def test_every_option_is_explained(hiva, name):
    result = hiva(name, "--help")
    assert result.code == 0
    options = [line for line in result.out.splitlines() if line.lstrip().startswith("-")]
    assert len(options) >= 4
    assert all(len(line.split()) > 2 for line in options)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train",),
        ("train", "-o", "new", "--epochs", "0"),
        ("train", "-o", "new", "--preset", "huge"),
        ("predict",),
        ("predict", "face.png", "-c", "run", "--threshold", "2"),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_a_wrong_call_shows_the_usage(hiva, place, arguments):
    result = hiva(*arguments)
    assert result.code == 2
    assert result.err.startswith("Usage: ")
    assert not files(place)


TRAINING_ERRORS = {
    "unknown-unit": (("--aus", "1,99"), ["got '99'", "Known: AU1, AU2"]),
    "unit-not-coded": (("--aus", "1,11"), ["got AU11", "Coded: AU1, AU2"]),
    "unknown-subject": (("--test-subjects", "S001,S999"), ["`test`", "got S999"]),
    "too-few-left": (("--test-subjects", "S000,S001,S002"), ["`test`", "at least 2 subjects"]),
    "no-data": (("--data", "nowhere"), ["nowhere", "Expected:", ".parquet"]),
}


@pytest.mark.parametrize("kind", TRAINING_ERRORS)
def test_a_training_that_cannot_be_leaves_nothing(hiva, place, data, kind):
    options, parts = TRAINING_ERRORS[kind]
    fails_with(hiva("train", "-o", "new", "--data", data, *options), *parts)
    assert not files(place)


@pytest.mark.parametrize("form", ["run", "checkpoints", "file"])
def test_an_earlier_run_is_not_overwritten(hiva, place, data, form):
    if form == "file":
        Path("run").write_text("mine")
    else:
        folder = Path("run" if form == "run" else "run-checkpoints")
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    before = files(place)
    fails_with(hiva("train", "-o", "run", "--data", data), "`--output`", "run")
    assert files(place) == before


@pytest.mark.parametrize("name", ["evaluate", "predict"])
@pytest.mark.parametrize("kind", ["no-folder", "empty-folder", "half-folder", "file"])
def test_what_is_no_checkpoint_shows_the_tree(hiva, place, name, kind):
    if kind.endswith("y-folder") or kind == "half-folder":
        Path("run").mkdir()
    if kind == "half-folder":
        Path("run/config.json").write_text("{}")
    if kind == "file":
        Path("run").write_text("mine")
    Path("face.png").touch()
    before = files(place)
    result = hiva(name, *(["face.png"] if name == "predict" else []), "-c", "./run")
    sentence = fails_with(result, "run", "Expected:", "model.safetensors")
    assert ("lacks model.safetensors, processor_config.json" in sentence) is (kind == "half-folder")
    assert files(place) == before


def test_results_have_a_known_form(hiva, place):
    fails_with(hiva("predict", "face.png", "-c", "run", "--out", "table.xlsx"), "`--out`", ".csv, ", "table.xlsx")
    assert not files(place)


def test_training_leaves_a_whole_checkpoint(trained, data):
    assert {path.name for path in trained.folder.parent.iterdir()} == {"run", "run-checkpoints"}
    assert {path.name for path in trained.folder.iterdir()} >= set(CHECKPOINT)
    splits = json.loads((trained.folder / "splits.json").read_text())
    assert sorted(subject for part in splits.values() for subject in part) == SUBJECTS
    assert {name: len(part) for name, part in splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert splits["test"] == ["S002"]
    results = json.loads((trained.folder / "results.json").read_text())
    assert {key: results[key] for key in ("preset", "epochs", "seed", "part")} == {
        "preset": "small",
        "epochs": 1,
        "seed": 0,
        "part": "test",
    }
    assert {f"f1_{label}" for label in LABELS} <= set(results["metrics"])
    assert "lip corner puller" in trained.output
    assert "train: 8 faces of 2 subjects" in trained.output


def test_evaluation_repeats_the_numbers_of_training(hiva, place, trained, data):
    result = hiva("evaluate", "-c", trained.folder, "--data", data, "--out", "below/metrics.json")
    assert result.code == 0
    assert "test: 4 faces" in result.out
    metrics = json.loads(Path("below/metrics.json").read_text())
    stored = json.loads((trained.folder / "results.json").read_text())["metrics"]
    kinds = ("f1", "precision", "recall", "skew_f1", "auc", "ap", "accuracy", "base_rate", "always", "mean")
    same = [key for key in stored if key.startswith(kinds)]
    assert len(same) == 9 * len(LABELS) + 8
    assert {key: metrics[key] for key in same} == pytest.approx({key: stored[key] for key in same}, nan_ok=True)
    assert set(files(place)) == {"below", "below/metrics.json"}


def test_evaluation_on_all_faces(hiva, place, trained, data):
    result = hiva("evaluate", "-c", trained.folder, "--data", data, "--part", "all")
    assert result.code == 0
    assert "all: 16 faces" in result.out


def test_metrics_are_json(trained):
    strict_json(trained.folder / "results.json")


def test_streamed_and_balanced_training_tells_an_epoch_in_a_line(hiva, place, data):
    options = ("--batch-size", 8, "--workers", 0, "--aus", "12,4,6", "--test-subjects", "S002", "--epochs", 2)
    result = hiva("train", "-o", "run", "--data", data, *options, "--streaming", "--balance", 0.5)
    assert result.code == 0, result.err
    lines = [line for line in result.err.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("validation loss" in line and "F1" in line for line in lines)
    # no dictionary of every metric of every action unit
    assert "eval_f1_AU12" not in result.out + result.err
    settings = json.loads(Path("run/results.json").read_text())
    assert (settings["streaming"], settings["balance"]) == (True, 0.5)
    fails_with(hiva("train", "-o", "new", "--streaming"), "`--streaming` needs `--data`")
    fails_with(hiva("train", "-o", "new", "--data", data, "--intensity", "--balance", 1), "`--balance`")


def test_evaluation_leaves_the_checkpoint_alone(hiva, place, trained, data):
    shutil.copytree(trained.folder, place / "run", ignore=shutil.ignore_patterns(".evaluation"))
    before = files(place)
    assert hiva("evaluate", "-c", "run", "--data", data).code == 0
    assert files(place) == before


def test_an_unknown_part_lists_the_known_ones(hiva, place, trained, data):
    result = hiva("evaluate", "-c", trained.folder, "--data", data, "--part", "exam", "--out", "metrics.json")
    fails_with(result, "`--part`", "train, validation, test, all", "'exam'")
    assert not files(place)


def test_going_on_with_other_people_is_refused(hiva, place, trained, data):
    shutil.copytree(trained.folder.with_name("run-checkpoints"), place / "run-checkpoints")
    options = ("--batch-size", 8, "--workers", 0, "--aus", "12,4,6", "--test-subjects", "S001", "--resume")
    before = files(place)
    fails_with(hiva("train", "-o", "run", "--data", data, *options), "`--resume`", "--test-subjects", "S002")
    assert files(place) == before


def test_resuming_where_nothing_was_begun_keeps_what_is_there(hiva, place, data):
    Path("run").mkdir()
    Path("run/mine.txt").write_text("mine")
    fails_with(hiva("train", "-o", "run", "--data", data, "--resume"), "`--resume`", "run-checkpoints")
    assert Path("run/mine.txt").read_text() == "mine"


def test_a_bank_that_lacks_an_action_unit(hiva, place, data):
    whole = json.loads((Path(cli.__file__).parent / "descriptions" / "facs_en_v1.json").read_text())
    del whole["descriptions"]["AU6"]
    Path("bank.json").write_text(json.dumps(whole))
    options = ("--aus", "12,4,6", "--bank", "bank.json", "--data", data)
    fails_with(hiva("train", "-o", "run", "--preset", "small-text", *options), "AU6")
    fails_with(hiva("train", "-o", "run", *options), "`--bank`", "small-text")
    assert set(files(place)) == {"bank.json"}


def test_an_interrupted_run_goes_on(hiva, place, trained, data):
    shutil.copytree(trained.folder.with_name("run-checkpoints"), place / "run-checkpoints")
    # a checkpoint that was being written when the run was killed
    (place / "run-checkpoints" / "checkpoint-9").mkdir()
    options = ("--epochs", 2, "--batch-size", 8, "--workers", 0, "--aus", "12,4,6", "--test-subjects", "S002")
    result = hiva("train", "-o", "run", "--data", data, *options, "--resume")
    assert result.code == 0, result.err
    assert json.loads(Path("run/results.json").read_text())["epochs"] == 2
    # the first checkpoint of the new run may have made place for its last
    places = trained.folder.with_name("run-checkpoints") / "checkpoint-1", Path("run-checkpoints/checkpoint-2")
    before, after = (json.loads((folder / "trainer_state.json").read_text()) for folder in places)
    assert (before["global_step"], after["global_step"]) == (1, 2)
    # as text, for NaN is not equal to itself
    count = len(before["log_history"])
    assert count > 0
    assert str(after["log_history"][:count]) == str(before["log_history"])


def test_a_record_that_is_none_is_told(hiva, trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained.folder, folder)
    (folder / "results.json").write_text("[1, 2]")
    fails_with(hiva("evaluate", "-c", folder), "results.json", "must hold a JSON object")
    (folder / "results.json").unlink()
    (folder / "splits.json").write_text("{")
    fails_with(hiva("evaluate", "-c", folder), "splits.json", "must hold a JSON object")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--aus", ""), "`--aus` must name action units, each once; got ''"),
        (("--aus", "1,AU01"), "each once; got '1,AU01'"),
        (("--dora",), "`--dora` and `--rslora` need `--checkpoint`"),
        (("--checkpoint", "TRAINED", "--preset", "small"), "leave out --preset"),
        (("--checkpoint", "TRAINED", "--aus", "1", "--open-vocabulary"), "leave out --aus, --open-vocabulary"),
    ],
)
def test_options_of_training_that_do_not_belong_together(hiva, trained, tmp_path, options, said):
    options = [trained.folder if option == "TRAINED" else option for option in options]
    fails_with(hiva("train", "-o", tmp_path / "run", *options), said)
    assert not (tmp_path / "run").exists()


def test_every_file_of_a_checkpoint_can_be_read_by_the_same_people(trained):
    assert len({path.stat().st_mode for path in trained.folder.iterdir() if path.is_file()}) == 1
