"""`hiva evaluate --protocol`: what it writes and prints, and what it refuses."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import fails_with
from datasets import Dataset
from rich.console import Console

from hiva_hf import terminal
from hiva_hf.commands.protocol import _title
from hiva_hf.data import protocol_folds
from hiva_hf.data.published import PUBLISHED


def test_the_command_writes_what_a_paper_reports(hiva, place, data):
    command = ("evaluate", "--protocol", 2, "--root", data, "--out", "cv", "--epochs", 1, "--workers", 0)
    result = hiva(*command, "--batch-size", 8, "--validation", 0.4, "--seeds", "0")
    assert result.code == 0, result.err
    assert {"f1.csv", "f1.md", "f1.tex", "f1.png", "runs"} <= {path.name for path in Path("cv").iterdir()}
    table = pd.read_csv("cv/f1.csv")
    assert table["au"].iloc[-1] == "mean"
    markdown, latex = Path("cv/f1.md").read_text(), Path("cv/f1.tex").read_text()
    title = "F1 in percent, 2 parts by subject: 16 faces of 4 people, seed 0, epoch by validation"
    assert markdown.splitlines()[0] == title
    assert latex.splitlines()[0] == f"% {title}"
    assert markdown.count("|") > 100
    assert latex.count("\\\\") >= len(table)
    assert "toprule" in latex
    # what one seed cannot tell is empty for programs and a line for people
    assert table["sd_seeds"].isna().all()
    for text in (markdown, latex):
        assert "nan" not in text.lower()
        assert "always positive" in text
    assert " - |" in markdown
    assert " - &" in latex
    assert "{lrrrrrrrr}" in latex
    lines = latex.splitlines()
    assert [place for place, line in enumerate(lines) if line == r"\midrule"] == [4, 5 + len(table) - 1]
    assert lines[5 + len(table)].startswith(" mean ")
    assert all(f" {word} " in result.out for word in ("SD", "seeds", "95 %", "from", "to", "always", "positive"))
    assert "nan" not in result.out.lower()
    # the trainings in a line an epoch, the parts with their size
    assert sum(line.startswith("epoch 1 of 1: loss") for line in result.err.splitlines()) == 2
    assert "P1: " in result.out
    metrics = pd.read_csv("cv/metrics.csv")
    assert set(metrics["part"]) == {"P1", "P2"}
    assert len(metrics) == 2 * (len(table) - 1)


def test_the_command_says_how_complete_the_parts_are(hiva, place, data):
    # the sample's people under names of BP4D, one of each part and two who train beside them
    table = pq.read_table(data)
    names = {"S000": "F001", "S001": "M011", "S002": "F007", "S003": "F018"}
    people = [names.get(name, "F003") for name in table["subject_id"].to_pylist()]
    place_of = table.schema.get_field_index("subject_id")
    table = table.set_column(place_of, "subject_id", pa.array(people))
    Path("faces").mkdir()
    pq.write_table(table, "faces/faces.parquet")
    options = ("--epochs", 1, "--workers", 0, "--batch-size", 8, "--rule", "last", "--streaming")
    result = hiva("evaluate", "--protocol", "bp4d", "--root", "faces", "--out", "cv", *options)
    assert result.code == 0, result.err
    assert "; published: 14 people, 50,631 frames" in result.out
    assert "JAA-Net (ECCV 2018), CNN" in result.out
    lines = Path("cv/f1.tex").read_text().splitlines()
    rules = [place for place, line in enumerate(lines) if line == r"\midrule"]
    assert [lines[place + 1].split("&")[0].strip() for place in rules[1:]] == ["mean", PUBLISHED[0].name]
    assert "3 parts of BP4D: " in lines[0]
    for name in ("f1.md", "f1.tex", "f1.csv"):
        assert "JAA-Net (ECCV 2018), CNN" in Path("cv", name).read_text()
    assert "most chose the epoch on the tested people" in Path("cv/f1.md").read_text()


def test_what_the_command_refuses(hiva, place, data, trained):
    fails_with(hiva("evaluate", "-c", trained.folder, "--protocol", "bp4d"), "not both")
    fails_with(hiva("evaluate", "--protocol", "bp4d", "--root", data), "`--out`")
    fails_with(hiva("evaluate", "--protocol", "bp4d", "--root", data, "--out", "cv"), "bp4d", "S000")
    fails_with(hiva("evaluate", "--protocol", 2, "--root", data, "--out", "cv", "--seeds", "a"), "`--seeds`")


def test_the_title_says_what_was_done():
    assert _title(3, 3, 3360, 42, [0], "last") == (
        "F1 in percent, 3 parts by subject: 3,360 faces of 42 people, seed 0, epoch by last"
    )
    assert "3 parts of DISFA: " in _title("disfa", 3, 3360, 42, [0], "last")
    assert ", seeds 0, 1, epoch" in _title(3, 3, 3360, 42, [0, 1], "last")


@pytest.mark.parametrize("width", [None, 60])
def test_no_heading_and_no_number_is_cut(monkeypatch, capsys, width):
    if width is not None:
        monkeypatch.setattr(terminal, "_console", lambda: Console(width=width, force_terminal=True, no_color=True))
    headings = [*(f"P{n}" for n in range(1, 11)), "mean", "SD parts", "95 % from", "to", "always positive"]
    names = ["AU1", "mean", *(paper.name for paper in PUBLISHED)]
    terminal.print_protocol(pd.DataFrame(12.3, index=names, columns=headings), "title")
    said = capsys.readouterr().out
    assert "…" not in said
    assert said.count("12.3") == len(names) * len(headings)
    assert all(word in said for heading in headings for word in heading.split())
    # in a file a method stands in one line
    assert all((name in said) == (width is None) for name in names[2:])


def test_options_of_the_other_way_are_refused(hiva, place, data, trained):
    of_protocol = {
        "--root": data, "--seeds": "0", "--rule": "last", "--epochs": 20, "--batch-size": 8, "--learning-rate": 0.1,
        "--validation": 0.2, "--workers": 2, "--preset": "small", "--balance": 0.5,
    }  # fmt: skip
    calls = [[name, value] for name, value in of_protocol.items()]
    calls += [["--bf16"], ["--strong-augmentation"], ["--streaming"]]
    for given in calls:
        sentence = fails_with(hiva("evaluate", "-c", trained.folder, "--data", data, *given), "`--checkpoint`")
        assert f"without `{given[0]}`, which only `--protocol` heeds" in sentence
    for given in (["--data", data], ["--part", "test"], ["--reliability", "said.png"]):
        result = hiva("evaluate", "--protocol", 2, "--root", data, "--out", "cv", *given)
        fails_with(result, f"`--protocol` must come without `{given[0]}`, which only `--checkpoint` heeds")
    fails_with(hiva("evaluate", "-c", trained.folder, "--bf16", "--rule", "last"), "`--rule`, `--bf16`")
    assert not Path("cv").exists()


def test_how_many_strangers_there_are():
    strangers = Dataset.from_dict({"subject_id": [f"S{n:03}" for n in range(12)]})
    with pytest.raises(ValueError, match=r"not S000, S001, S002, S003, S004, 12 in all.*ask for a number of parts"):
        protocol_folds(strangers, "bp4d")
