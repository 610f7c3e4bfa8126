"""The ablation grid: runs that are shared and done once, and differences paired by seed and person."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from language_tables import paired, two_way_interval, write_summary
from runs import RunTable

EXAMPLES = Path(__file__).parents[1] / "examples"


def table_of(effects, people=20, seeds=3, noise=0.02, by_seed=0.0):
    """A table in which each row is so much better than the first, whoever is asked."""
    rng = np.random.default_rng(0)
    person, rows = rng.normal(0.7, 0.1, people), []
    for name, effect in effects.items():
        for seed in range(seeds):
            shift = by_seed * (seed - 1)
            each = person + effect + shift * (effect != 0) + rng.normal(0, noise, people)
            rows += [
                {"fraction": 0.05, "row": name, "seed": seed, "subject": f"S{n}", "auc": auc, "f1": np.nan}
                for n, auc in enumerate(each)
            ]
            rows.append({"fraction": 0.05, "row": name, "seed": seed, "subject": "all", "auc": 9.0, "f1": 0.5})
    return pd.DataFrame(rows)


def test_a_difference_is_paired_by_person_and_seed():
    table = table_of({"visual only": 0.0, "full": 0.03})
    found = paired(table, 0.05, "full", "visual only")
    assert found["difference"] == pytest.approx(0.03, abs=0.005)
    # people differ by far more than that, which an unpaired interval would show
    assert found["low"] > 0.015
    assert found["high"] < 0.045
    assert (found["seeds"], found["people"]) == (3, 20)
    shuffled = table.sample(frac=1, random_state=0)
    assert paired(shuffled, 0.05, "full", "visual only") == pytest.approx(found)
    assert paired(table, 0.25, "full", "visual only") is None
    assert paired(table, 0.05, "full", "random text") is None


def test_an_interval_knows_that_seeds_differ():
    same = paired(table_of({"a": 0.0, "b": 0.03}), 0.05, "b", "a")
    apart = paired(table_of({"a": 0.0, "b": 0.03}, by_seed=0.05), 0.05, "b", "a")
    assert apart["high"] - apart["low"] > 3 * (same["high"] - same["low"])
    assert apart["low"] < 0


@pytest.mark.parametrize("spread", [(1, 0, 0.01), (0.3, 1, 1), (0.05, 0.1, 1), (0, 1, 1)])
def test_an_interval_holds_the_truth_as_often_as_it_says(spread):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        effects = zip(spread, ((3, 1), (1, 32), (3, 32)), strict=True)
        low, high = two_way_interval(5 + sum(rng.normal(0, share**0.5, shape) for share, shape in effects))
        held += low <= 5 <= high
    assert held / 400 > 0.91


def test_a_person_of_whom_nothing_is_ranked_is_left_out():
    table = table_of({"a": 0.0, "b": 0.03})
    table.loc[(table["subject"] == "S3") & (table["seed"] == 1) & (table["row"] == "a"), "auc"] = np.nan
    found = paired(table, 0.05, "b", "a")
    assert found["people"] == 19
    assert found["difference"] == pytest.approx(0.03, abs=0.01)
    assert np.isnan(two_way_interval(np.ones((1, 5)))[0])


def test_the_summary_tells_every_row(tmp_path):
    write_summary(
        table_of({"visual only": 0.0, "full": 0.03, "extra": -0.02}), tmp_path, ["visual only", "full"], ["extra"]
    )
    text = (tmp_path / "tables.md").read_text()
    assert "| visual only |" in text
    assert "| full | visual only | **+0.0" in text
    differences = pd.read_csv(tmp_path / "differences.csv").set_index(["row", "minus"])["difference"]
    assert differences["extra", "visual only"] == pytest.approx(-0.02, abs=0.012)
    assert (tmp_path / "language.png").stat().st_size > 5000


def test_a_run_is_done_once(tmp_path):
    table = RunTable(tmp_path / "runs.csv", ["row", "seed"])
    with table.claim(("full", 0)) as mine:
        assert mine
        with table.claim(("full", 0)) as again, table.claim(("full", 1)) as other:
            assert (again, other) == (False, True)
        table.add([{"row": "full", "seed": 0, "auc": 0.5}, {"row": "full", "seed": 0, "auc": 0.6}])
    # another process, another day
    later = RunTable(tmp_path / "runs.csv", ["row", "seed"])
    with later.claim(("full", 0)) as mine, later.claim(("full", 1)) as other:
        assert (mine, other) == (False, True)
    assert later.read()["auc"].tolist() == [0.5, 0.6]


def test_other_settings_are_no_more_runs_of_the_same_table(tmp_path):
    path = tmp_path / "runs.csv"
    RunTable(path, ["row", "seed"], {"part": "validation", "epochs": 4})
    RunTable(path, ["row", "seed"], {"part": "validation", "epochs": 4})
    with pytest.raises(ValueError, match="was begun with part 'validation'; give the same"):
        RunTable(path, ["row", "seed"], {"part": "test", "epochs": 4})


def test_a_fraction_is_the_same_after_it_was_written(tmp_path):
    table = RunTable(tmp_path / "runs.csv", ["fraction"])
    table.add([{"fraction": 1 / 3}])
    with table.claim((1 / 3,)) as mine, table.claim((0.3333,)) as other:
        assert (mine, other) == (False, True)


def work(path, barrier):
    table = RunTable(path, ["row", "seed"])
    barrier.wait()
    for seed in range(30):
        with table.claim(("full", seed)) as mine:
            if mine:
                table.add([{"row": "full", "seed": seed}] * 2)


def test_two_processes_share_the_runs(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=work, args=(tmp_path / "runs.csv", barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    counts = RunTable(tmp_path / "runs.csv", ["row", "seed"]).read()["seed"].value_counts()
    assert sorted(counts.index) == list(range(30))
    assert set(counts) == {2}


def test_the_grid_from_faces_to_tables(data, tmp_path):
    call = [
        *(sys.executable, EXAMPLES / "measure_language.py", "--data", data, "--out", tmp_path),
        *("--fractions", "0.05", "--seeds", "0,1", "--epochs", 1, "--size", 32, "--tested", 1, "--validated", 1),
        *("--only", "visual only;full;random text;full, new text tower"),
    ]
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "subjects.csv")
    # one tested person, and all of them together
    assert len(rows) == 4 * 2 * 2
    assert set(rows["subject"]) == {"S003", "all"}
    assert rows["auc"].between(0, 1).all()
    before = (tmp_path / "subjects.csv").read_bytes()
    again = subprocess.run([*map(str, call)], capture_output=True, text=True, check=False)
    assert "seed" not in again.stdout
    assert (tmp_path / "subjects.csv").read_bytes() == before
    assert "| full | random text |" in (tmp_path / "tables.md").read_text()


def test_hidden_action_units_without_labels_and_with_few(data, tmp_path):
    out = tmp_path / "open.csv"
    call = [
        *(sys.executable, EXAMPLES / "measure_open_vocabulary.py", "--data", data, "--out", out, "--size", 32),
        *("--seeds", "0", "--epochs", 1, "--people", "0,1", "--hidden", "12,14"),
    ]
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(out)
    assert set(rows["people"]) == {0, 1}
    assert set(rows[rows["group"] == "hidden"]["au"]) == {"AU12", "AU14"}
    assert (rows.groupby(["people", "design"])["au"].nunique() == rows["au"].nunique()).all()
    assert "Labels of the hidden ones: none" in done.stdout


def test_the_tables_say_which_rows_have_one_seed(tmp_path):
    table = table_of({"visual only": 0.0, "full": 0.03, "random text": 0.01})
    write_summary(
        table[(table["row"] != "random text") | (table["seed"] == 1)],
        tmp_path,
        ["visual only", "full", "random text"],
        [],
    )
    text = (tmp_path / "tables.md").read_text()
    assert "on 20 people" in text
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert lines["random text"].count("(one seed)") == 3
    assert "one seed" not in lines["visual only"]
    rows = [line for line in text.splitlines() if line.startswith("| full | random text |")]
    assert len(rows) == 1
    assert rows[0].endswith("(one seed) |")
    assert "nan" not in text
