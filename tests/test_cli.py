"""The command `hiva`: train, evaluate and predict from end to end, and every mistake as one sentence."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import transformers
from PIL import Image

from hiva_hf import cli
from hiva_hf.data import load_rendered
from hiva_hf.data.rendered import SAMPLE_FILE

# in an order that is not that of the numbers
LABELS = ["AU12", "AU4", "AU6"]
SUBJECTS = ["S000", "S001", "S002", "S003"]
CHECKPOINT = ("config.json", "model.safetensors", "processor_config.json", "results.json", "splits.json")


@pytest.fixture(scope="module", autouse=True)
def _verbosity():
    before = transformers.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hiva")


@pytest.fixture(scope="module")
def data(home):
    table = pq.read_table(SAMPLE_FILE)
    few = pc.and_(pc.is_in(table["subject_id"], pa.array(SUBJECTS)), pc.less(table["frame"], 4))
    pq.write_table(table.filter(few), home / "faces.parquet")
    return home / "faces.parquet"


@pytest.fixture(scope="module")
def crops(home):
    paths = [home / "first.png", home / "second.png"]
    for path, row in zip(paths, (0, 300), strict=True):
        load_rendered()[row]["image"].save(path)
    return paths


@pytest.fixture(scope="module")
def trained(home, data):
    """One epoch on twelve faces: the only training of this file."""
    folder = home / "trained"
    folder.mkdir()
    options = ("--epochs", 1, "--batch-size", 8, "--workers", 0, "--aus", "12,4,6", "--test-subjects", "S002")
    call = [sys.executable, "-m", "hiva_hf.cli", "train", "--output", folder / "run", "--data", data, *options]
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder / "run", output=done.stdout)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder that relative paths start from."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hiva(monkeypatch, capsys):
    """Run the command in this interpreter: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hiva", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return SimpleNamespace(code=exit_.value.code or 0, out=captured.out, err=captured.err)

    return run


def strict_json(path):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def fails_with(result, *parts):
    """One sentence on standard error, exit code 2, and no way through the code."""
    assert result.code == 2
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    sentence = result.err.split("error: ")[1]
    for part in parts:
        assert str(part) in sentence
    return sentence


def files(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*")}


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
        ("predict", "face.png"),
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
    before = files(place)
    result = hiva(name, *(["face.png"] if name == "predict" else []), "-c", "./run")
    sentence = fails_with(result, "run", "Expected:", "model.safetensors")
    assert ("lacks model.safetensors, processor_config.json" in sentence) is (kind == "half-folder")
    assert files(place) == before


def test_results_are_json_or_csv(hiva, place):
    fails_with(
        hiva("predict", "face.png", "-c", "run", "--out", "table.xlsx"), "`--out`", ".json or .csv", "table.xlsx"
    )
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
    same = [key for key in stored if key.startswith(("f1", "auc", "accuracy", "base_rate", "always", "mean"))]
    assert len(same) == 5 * len(LABELS) + 4
    assert {key: metrics[key] for key in same} == pytest.approx({key: stored[key] for key in same}, nan_ok=True)
    assert set(files(place)) == {"below", "below/metrics.json"}


def test_evaluation_on_all_faces(hiva, place, trained, data):
    result = hiva("evaluate", "-c", trained.folder, "--data", data, "--part", "all")
    assert result.code == 0
    assert "all: 16 faces" in result.out


def test_metrics_are_json(trained):
    strict_json(trained.folder / "results.json")


def test_evaluation_leaves_the_checkpoint_alone(hiva, place, trained, data):
    shutil.copytree(trained.folder, place / "run", ignore=shutil.ignore_patterns(".evaluation"))
    before = files(place)
    assert hiva("evaluate", "-c", "run", "--data", data).code == 0
    assert files(place) == before


def test_an_unknown_part_lists_the_known_ones(hiva, place, trained, data):
    result = hiva("evaluate", "-c", trained.folder, "--data", data, "--part", "exam", "--out", "metrics.json")
    fails_with(result, "`--part`", "train, validation, test, all", "'exam'")
    assert not files(place)


def test_crops_are_predicted_to_json_and_drawn(hiva, place, trained, crops):
    result = hiva("predict", *crops, "-c", trained.folder, "--cropped", "--out", "new/scores.json", "--plot", "plots")
    assert result.code == 0
    rows = strict_json(Path("new/scores.json"))
    assert [row["image"] for row in rows] == [str(path) for path in crops]
    for row in rows:
        assert row["box"] is None
        assert list(row["scores"]) == LABELS
        assert all(0 < value < 1 for value in row["scores"].values())
        assert row["active"] == [label for label in LABELS if row["scores"][label] >= 0.5]
    assert rows[0]["scores"] != rows[1]["scores"]
    assert sorted(path.name for path in Path("plots").iterdir()) == ["0000-first.png", "0001-second.png"]
    for path in Path("plots").iterdir():
        with Image.open(path) as image:
            # two rows of pictures: the maps are there
            assert image.height > 0.6 * image.width
    assert set(files(place)) == {"new", "new/scores.json", "plots", "plots/0000-first.png", "plots/0001-second.png"}
    assert "lip corner puller" in result.out


def test_crops_are_predicted_to_csv(hiva, place, trained, crops):
    assert hiva("predict", *crops, "-c", trained.folder, "--cropped", "--out", "scores.csv").code == 0
    assert hiva("predict", *crops, "-c", trained.folder, "--cropped", "--out", "scores.json").code == 0
    with open("scores.csv", newline="") as file:
        table = list(csv.DictReader(file))
    rows = json.loads(Path("scores.json").read_text())
    assert list(table[0]) == ["image", "x0", "y0", "x1", "y1", *LABELS]
    for line, row in zip(table, rows, strict=True):
        assert line["image"] == row["image"]
        assert line["x0"] == line["y1"] == ""
        assert [float(line[label]) for label in LABELS] == pytest.approx(list(row["scores"].values()), abs=1e-6)


@pytest.mark.parametrize(("threshold", "active"), [(0, LABELS), (1, [])])
def test_one_threshold_for_all(hiva, place, trained, crops, threshold, active):
    options = ("--cropped", "--threshold", threshold, "--out", "scores.json", "--plot", "face.png")
    assert hiva("predict", crops[0], "-c", trained.folder, *options).code == 0
    assert [row["active"] for row in strict_json(Path("scores.json"))] == [active]
    assert set(files(place)) == {"scores.json", "face.png"}


def test_a_photograph_needs_no_crop(hiva, place, trained):
    pytest.importorskip("cv2")
    astronaut = Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png"
    result = hiva("predict", astronaut, "-c", trained.folder, "--out", "s.json", "--plot", "s.png")
    assert result.code == 0
    (row,) = strict_json(place / "s.json")
    assert list(row["scores"]) == LABELS
    x0, y0, x1, y1 = row["box"]
    assert 0 <= x0 < x1 <= 512
    assert 0 <= y0 < y1 <= 512
    with Image.open(place / "s.png") as image:
        image.load()
    assert set(files(place)) == {"s.json", "s.png"}


def bad_pictures(folder):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "half.jpg")
    (folder / "half.jpg").write_bytes((folder / "half.jpg").read_bytes()[:1500])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no picture")
    Image.new("RGB", (100, 100), (90, 120, 90)).save(folder / "lawn.png")
    return {
        "half.jpg": "truncated",
        "empty.png": "the file is empty",
        "text.png": "cannot identify",
        "missing.png": "there is no file",
    }


@pytest.mark.parametrize("name", ["half.jpg", "empty.png", "text.png", "missing.png"])
def test_a_bad_picture_stops_everything(hiva, place, trained, crops, name):
    why = bad_pictures(place)[name]
    before = files(place)
    result = hiva(
        "predict", crops[0], name, "-c", trained.folder, "--cropped", "--out", "scores.json", "--plot", "plots"
    )
    sentence = fails_with(result, name, why)
    assert len(sentence.strip().splitlines()) == 1
    assert files(place) == before


def test_a_picture_without_a_face_says_what_to_do(hiva, place, trained):
    pytest.importorskip("cv2")
    bad_pictures(place)
    before = files(place)
    fails_with(hiva("predict", "lawn.png", "-c", trained.folder, "--out", "scores.json"), "lawn.png", "--cropped")
    assert files(place) == before


def test_bad_pictures_can_be_skipped_and_are_reported(hiva, place, trained, crops):
    bad = bad_pictures(place)
    mixed = [crops[0], *bad, crops[1]]
    options = ("--cropped", "--out", "scores.json", "--on-error", "skip")
    result = hiva("predict", *mixed, "-c", trained.folder, *options)
    assert result.code == 1
    assert [row["image"] for row in strict_json(Path("scores.json"))] == [str(path) for path in crops]
    skipped = [line for line in result.err.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == len(bad)
    assert all(name in line for name, line in zip(bad, skipped, strict=True))


def test_nothing_but_bad_pictures(hiva, place, trained):
    bad_pictures(place)
    options = ("--cropped", "--out", "scores.csv", "--plot", "plots", "--on-error", "skip")
    assert hiva("predict", "empty.png", "-c", trained.folder, *options).code == 1
    assert Path("scores.csv").read_text().splitlines() == ["image,x0,y0,x1,y1"]
    assert not Path("plots").exists()


def test_an_interrupted_run_goes_on(hiva, place, trained, data):
    shutil.copytree(trained.folder.with_name("run-checkpoints"), place / "run-checkpoints")
    # a checkpoint that was being written when the run was killed
    (place / "run-checkpoints" / "checkpoint-9").mkdir()
    options = ("--epochs", 2, "--batch-size", 8, "--workers", 0, "--aus", "12,4,6", "--test-subjects", "S002")
    result = hiva("train", "-o", "run", "--data", data, *options, "--resume")
    assert result.code == 0, result.err
    assert json.loads(Path("run/results.json").read_text())["epochs"] == 2
    before, after = (
        json.loads(Path(f"run-checkpoints/checkpoint-{step}/trainer_state.json").read_text()) for step in (1, 2)
    )
    assert (before["global_step"], after["global_step"]) == (1, 2)
    # as text, for NaN is not equal to itself
    count = len(before["log_history"])
    assert count > 0
    assert str(after["log_history"][:count]) == str(before["log_history"])
