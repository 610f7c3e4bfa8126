"""Result files: the forms that other tools read, and nothing lost however a run ends."""

import csv
import json
import math
import os

import pyarrow.parquet as pq
import pytest

from hiva_hf.results import FaceResult, ResultFile, padded

LABELS = ["AU1", "AU12"]


def face(frame, person=0, source="a b/ü.mp4"):
    scores = {"AU1": 0.25 + frame / 1000, "AU12": 0.75}
    return FaceResult(
        source, frame, frame / 25, person, True, 0.9, [1, 2, 31.5, 42], [0.0] * 10, scores, {"AU1": False, "AU12": True}
    )


def nobody(frame):
    return FaceResult("a b/ü.mp4", frame, frame / 25, -1, False, 0.0)


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_of_openface(tmp_path):
    target = ResultFile(tmp_path / "out.csv", LABELS, intensity=False)
    target.write([face(0), face(0, 1), nobody(1)], {"frame": 2})
    assert target.finish() == tmp_path / "out.csv"
    rows = read(tmp_path / "out.csv")
    assert list(rows[0]) == [
        "frame", "face_id", "timestamp", "confidence", "success", "source", "x0", "y0", "x1", "y1",
        "left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y", "nose_x", "nose_y",
        "left_mouth_x", "left_mouth_y", "right_mouth_x", "right_mouth_y",
        "AU01_p", "AU12_p", "AU01_c", "AU12_c",
    ]  # fmt: skip
    assert [row["frame"] for row in rows] == ["1", "1", "2"]
    assert rows[0]["AU01_p"] == "0.25"
    assert (rows[0]["AU01_c"], rows[0]["AU12_c"]) == ("0", "1")
    assert rows[0]["x1"] == "31.5"
    assert rows[0]["source"] == "a b/ü.mp4"
    assert rows[2]["success"] == "0"
    assert {rows[2][name] for name in ("x0", "AU01_p", "AU12_c")} == {"NaN"}
    assert os.listdir(tmp_path) == ["out.csv"]


def test_intensity_is_r_and_has_no_occurrence(tmp_path):
    target = ResultFile(tmp_path / "out.csv", LABELS, intensity=True)
    target.write([FaceResult("a.png", 0, 0.0, 0, True, 0.5, [0, 0, 1, 1], [], {"AU1": 3.5, "AU12": 0.0})], {})
    target.finish()
    row = read(tmp_path / "out.csv")[0]
    assert [name for name in row if name.startswith("AU")] == ["AU01_r", "AU12_r"]
    assert row["AU01_r"] == "3.5"


def test_tidy_form(tmp_path):
    target = ResultFile(tmp_path / "out.csv", LABELS, intensity=False, tidy=True)
    target.write([face(0), nobody(1)], {})
    target.finish()
    rows = read(tmp_path / "out.csv")
    assert [(row["au"], row["probability"], row["active"]) for row in rows] == [
        ("AU1", "0.25", "0"),
        ("AU12", "0.75", "1"),
        ("AU1", "NaN", "NaN"),
        ("AU12", "NaN", "NaN"),
    ]


def test_parquet_and_json_lines_hold_what_the_table_holds(tmp_path):
    for suffix in ("parquet", "jsonl"):
        target = ResultFile(tmp_path / f"out.{suffix}", LABELS, intensity=False)
        target.write([face(3), nobody(4)], {})
        target.finish()
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert list(table[0]) == list(lines[0])
    assert table[0] == lines[0]
    assert math.isnan(table[1]["AU01_p"])
    assert lines[1]["AU01_p"] is None


def test_an_empty_run_has_a_header(tmp_path):
    ResultFile(tmp_path / "out.csv", LABELS, intensity=False).finish()
    assert (tmp_path / "out.csv").read_text().startswith("frame,face_id,timestamp,confidence,success,source")
    ResultFile(tmp_path / "out.parquet", LABELS, intensity=False).finish()
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("torn", [b"", b'{"source": "half a li', b"complete but never confirmed\n"])
def test_a_killed_run_continues_to_the_same_bytes(tmp_path, suffix, torn):
    whole = ResultFile(tmp_path / f"whole.{suffix}", LABELS, intensity=False, command={"every": 1})
    for frame in range(6):
        whole.write([face(frame)], {"frame": frame + 1})
    whole.finish()

    path = tmp_path / f"killed.{suffix}"
    first = ResultFile(path, LABELS, intensity=False, command={"every": 1})
    for frame in range(3):
        first.write([face(frame)], {"frame": frame + 1})
    first.close()
    with first.spool.open("ab") as file:
        file.write(torn)
    assert not path.exists()

    second = ResultFile(path, LABELS, intensity=False, command={"every": 1})
    assert second.state == {"frame": 3}
    for frame in range(second.state["frame"], 6):
        second.write([face(frame)], {"frame": frame + 1})
    second.finish()
    assert path.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


def test_another_command_does_not_continue_the_file(tmp_path):
    first = ResultFile(tmp_path / "out.csv", LABELS, intensity=False, command={"every": 1})
    first.write([face(0)], {"frame": 1})
    first.close()
    with pytest.raises(ValueError, match=r"`out` must not mix two runs.*other every"):
        ResultFile(tmp_path / "out.csv", LABELS, intensity=False, command={"every": 2})


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`out` must end in \.csv, \.parquet, \.jsonl"):
        ResultFile(tmp_path / "out.xlsx", LABELS, intensity=False)


@pytest.mark.parametrize(("label", "expected"), [("AU1", "AU01"), ("AU12", "AU12"), ("smile", "smile")])
def test_padded_names(label, expected):
    assert padded(label) == expected
