"""What the tests of the command share: one small training, and what every answer must look like."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import transformers

from hiva_hf import cli
from hiva_hf.data import load_rendered
from hiva_hf.data.rendered import SAMPLE_FILE

# in an order that is not that of the numbers
LABELS = ["AU12", "AU4", "AU6"]
SUBJECTS = ["S000", "S001", "S002", "S003"]
CHECKPOINT = ("config.json", "model.safetensors", "processor_config.json", "results.json", "splits.json")


@pytest.fixture(scope="module", autouse=True)
def verbosity():
    before = transformers.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(before)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hiva")


@pytest.fixture(scope="session")
def data(home):
    table = pq.read_table(SAMPLE_FILE)
    few = pc.and_(pc.is_in(table["subject_id"], pa.array(SUBJECTS)), pc.less(table["frame"], 4))
    pq.write_table(table.filter(few), home / "faces.parquet")
    return home / "faces.parquet"


@pytest.fixture(scope="session")
def crops(home):
    paths = [home / "first.png", home / "second.png"]
    for path, row in zip(paths, (0, 300), strict=True):
        load_rendered()[row]["image"].save(path)
    return paths


@pytest.fixture(scope="session")
def trained(home, data):
    """One epoch on twelve faces, for all tests of the command."""
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


def write_video(path, pictures, rate=25):
    """A video of these pictures, all of one size; skips the test where PyAV is not installed."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *pictures[0].size, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    return path
