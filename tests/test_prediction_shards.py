"""A corpus that several processes read: the file is that of one process, whoever is shot and whoever ends last."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import fails_with, files, write_video
from PIL import Image

from hiva_hf import hiva_small
from hiva_hf.data import load_rendered
from hiva_hf.detector import ActionUnitDetector
from hiva_hf.faces import WholePicture
from hiva_hf.prediction import join_shares, predict_sources
from hiva_hf.prediction_shards import Share
from hiva_hf.prediction_sources import Sources, find_sources, units
from hiva_hf.results import ResultFile

BATCH = 4


@pytest.fixture(scope="module")
def detector():
    return ActionUnitDetector(*hiva_small(["AU1", "AU12"]), faces=WholePicture(), batch_size=BATCH)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Thirty faces in two folders, two files that are no pictures, and two videos."""
    place = tmp_path_factory.mktemp("corpus")
    (place / "below").mkdir()
    dataset = load_rendered()
    for number in range(30):
        dataset[7 * number]["image"].save(place / ("below" if number > 20 else ".") / f"{number:02d}.png")
    (place / "03b.png").touch()
    (place / "09b.png").write_text("text")
    frames = [dataset[number]["image"].convert("RGB") for number in range(9)]
    write_video(place / "05.mkv", frames)
    write_video(place / "below" / "25.mkv", frames[:6])
    return place


def table(detector, path, settings=None):
    return ResultFile(path, detector.labels, detector.intensity, command=settings)


def read_share(detector, corpus, share, out, **options):
    return predict_sources(detector, Sources([corpus]), table(detector, share.begin(out)), share=share, **options)


def join(detector, share, out):
    return join_shares(share, out, lambda: table(detector, out))


@pytest.fixture(scope="module")
def whole(detector, corpus, tmp_path_factory):
    """What one process writes, by ending, and its report."""
    place = tmp_path_factory.mktemp("whole")
    reports = {}
    for suffix in (".csv", ".parquet", ".jsonl", ".json"):
        reports[suffix] = predict_sources(detector, Sources([corpus]), table(detector, place / f"o{suffix}"))
    return place, reports


def test_sources_are_found_as_they_are_come_to(corpus, monkeypatch):
    entered = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: entered.append(Path(folder).name) or scan(folder))
    sources = Sources([corpus])
    entered.clear()
    walk = iter(sources)
    assert next(walk).name == "00.png"
    assert entered == [corpus.name]
    assert [next(walk).name for _ in range(24)][-1] == "21.png"
    assert entered == [corpus.name, "below"]
    assert list(sources) == find_sources([corpus])
    assert len(sources) == 34


def test_units_hold_what_is_read_together(corpus):
    found = list(units(Sources([corpus]), BATCH))
    names = [[path.name for path in unit.sources] for unit in found]
    assert names[:4] == [
        ["00.png", "01.png", "02.png", "03.png"],
        ["03b.png", "04.png"],
        ["05.mkv"],
        ["05.png", "06.png", "07.png", "08.png"],
    ]
    assert names[-1] == []
    assert [unit.begin for unit in found] == [sum(map(len, names[:place])) for place in range(len(names))]
    assert [path for unit in found for path in unit.sources] == find_sources([corpus])
    assert [unit.before for unit in found[1:]] == [unit.after for unit in found[:-1]]
    other = list(units([*find_sources([corpus])[1:]], BATCH))
    assert found[-1].before != other[-1].before


@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".json"])
def test_shares_make_the_file_of_one_process(detector, corpus, whole, tmp_path, count, suffix):
    out = tmp_path / f"o{suffix}"
    order = [Share(number, count) for number in range(count)][::-1]
    read = [read_share(detector, corpus, share, out) for share in order]
    assert all(report.sources == 34 for report in read)
    for share in order[:-1]:
        # each would put all together now that all are read; the last does
        assert not out.exists(), share
    joined = join(detector, order[-1], out)
    assert joined == whole[1][suffix]
    assert (joined.faces, len(joined.errors), joined.sources) == (45, 2, 34)
    assert out.read_bytes() == (whole[0] / out.name).read_bytes()
    assert os.listdir(tmp_path) == [out.name]
    assert join(detector, order[0], out) is None
    assert os.listdir(tmp_path) == [out.name]


def test_nothing_is_put_together_before_all_is_read(detector, corpus, tmp_path):
    out, first, second = tmp_path / "o.csv", Share(0, 2), Share(1, 2)
    read_share(detector, corpus, first, out)
    assert join(detector, first, out) is None

    class Killed(BaseException):
        pass

    def kill(pictures, results, done):
        if done > 20:
            raise Killed

    with pytest.raises(Killed):
        read_share(detector, corpus, second, out, on_batch=kill)
    assert join(detector, first, out) is None
    assert not out.exists()
    read_share(detector, corpus, second, out)
    # the first share may be asked again as well
    assert join(detector, first, out) is not None
    assert out.exists()


def test_a_file_that_another_puts_together_is_left_to_it(detector, corpus, tmp_path):
    out, share = tmp_path / "o.csv", Share(0, 1)
    read_share(detector, corpus, share, out)
    other = table(detector, out)
    assert join(detector, share, out) is None
    other.discard()
    assert join(detector, share, out) is not None


def test_a_merging_that_was_shot_begins_anew(detector, corpus, whole, tmp_path, monkeypatch):
    out, share = tmp_path / "o.csv", Share(0, 1)
    read_share(detector, corpus, share, out)

    def die(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResultFile, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            join(detector, share, out)
    assert not out.exists()
    read_share(detector, corpus, share, out)
    assert join(detector, share, out) == whole[1][".csv"]
    assert out.read_bytes() == (whole[0] / "o.csv").read_bytes()


def test_shares_of_other_settings_or_files_are_not_mixed(detector, corpus, tmp_path):
    out = tmp_path / "o.csv"
    for number in range(2):
        share = Share(number, 2)
        predict_sources(detector, Sources([corpus]), table(detector, share.begin(out), {"every": number}), share=share)
    with pytest.raises(ValueError, match=r"shares 1/2 and 2/2 of .* were read with other every"):
        join(detector, Share(0, 2), out)
    Share(0, 2).forget(out)
    sources = find_sources([corpus])
    for number in range(2):
        share = Share(number, 2)
        predict_sources(detector, sources[number:], table(detector, share.begin(out)), share=share)
    with pytest.raises(ValueError, match="other files"):
        join(detector, Share(0, 2), out)
    with pytest.raises(ValueError, match=r"as many shares as it was begun with, now 3; .* was begun with 2"):
        Share(0, 3).begin(out)


def test_a_run_goes_on_with_its_own_files_alone(detector, corpus, tmp_path):
    sources = find_sources([corpus])

    class Killed(BaseException):
        pass

    def kill(pictures, results, done):
        if done > 10:
            raise Killed

    def begin():
        with pytest.raises(Killed):
            predict_sources(detector, sources, table(detector, tmp_path / "o.csv"), on_batch=kill)

    begin()
    with pytest.raises(ValueError, match="`paths` must be what the run was begun with"):
        predict_sources(detector, sources[1:], table(detector, tmp_path / "o.csv"))
    with pytest.raises(ValueError, match="`paths` must be what the run was begun with"):
        predict_sources(detector, sources[:2], table(detector, tmp_path / "o.csv"))
    # what came behind is read as well
    more = [*sources, sources[0]]
    assert predict_sources(detector, more, table(detector, tmp_path / "o.csv")).sources == 35


def test_nothing_readable_is_said_once_all_is_read(detector, tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for number in range(2 * BATCH):
        (place / f"{number}.png").touch()
    out = tmp_path / "o.csv"
    for number in range(2):
        assert read_share(detector, place, Share(number, 2), out).faces == 0
    with pytest.raises(ValueError, match=r"(?s)0\.png.*7\.png"):
        join(detector, Share(1, 2), out)
    assert os.listdir(tmp_path) == ["in"]


def test_what_is_kept_of_the_place_reached_does_not_grow(detector, tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    load_rendered()[0]["image"].save(place / "0.png")
    for number in range(1, 80):
        (place / f"{number}.png").touch()
    target, sizes = table(detector, tmp_path / "o.csv"), []

    def note(pictures, results, done):
        if target.progress.exists():
            sizes.append(target.progress.stat().st_size)

    report = predict_sources(detector, Sources([place]), target, on_batch=note)
    assert len(report.errors) == 79
    assert max(sizes) - min(sizes) < 10


def test_what_one_process_began_several_do_not_go_on_with(detector, corpus, whole, tmp_path, monkeypatch):
    out, step, calls = tmp_path / "o.csv", detector.step, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*arguments, **options)

    monkeypatch.setattr(detector, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_sources(detector, Sources([corpus]), table(detector, out))
    with pytest.raises(ValueError, match=r"o\.csv was begun by one process\. Repeat that command"):
        Share(0, 2).begin(out)
    predict_sources(detector, Sources([corpus]), table(detector, out))
    assert out.read_bytes() == (whole[0] / out.name).read_bytes()
    assert Share(0, 2).begin(out).parent != out.parent


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_share_that_is_none(text):
    with pytest.raises(ValueError, match=r"`shard` must be a share of several, such as 3/16"):
        Share.parse(text)


def test_shares_of_shares():
    assert Share.parse("3/16") == Share(2, 16)
    assert str(Share(2, 16)) == "3/16"
    parts = [Share(machine, 3).split(worker, 2) for machine in range(3) for worker in range(2)]
    assert parts == [Share(number, 6) for number in range(6)]


@pytest.fixture
def pictures(place):
    folder = place / "faces"
    folder.mkdir()
    dataset = load_rendered()
    for number in range(64):
        dataset[number]["image"].save(folder / f"{number:03d}.png")
    (folder / "020b.png").touch()
    return folder


def command(*arguments, launch=()):
    call = [sys.executable, *launch, "-m", "hiva_hf.cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def reached(number, count=2):
    path = Path(f".o.csv.shares/.{number:05d}-of-{count:05d}.jsonl.progress")
    return json.loads(path.read_text())["state"]["source"] if path.exists() else 0


def workers_of(process):
    """The workers of a command, not what helps them."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to find the workers")
def test_a_worker_that_is_shot_loses_nothing(hiva, place, trained, pictures):
    options = ["predict", pictures, "-c", trained.folder, "--cropped", "--batch-size", 2]
    assert hiva(*options, "--out", "whole.csv").code == 3
    run = command(*options, "--out", "o.csv", "--workers", 2)
    deadline = time.monotonic() + 120
    while min(reached(1), reached(2)) < 8:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(workers_of(run)[1], signal.SIGKILL)
    out, error = run.communicate(timeout=60)
    assert run.returncode == 2, (out, error)
    assert "error: `workers` must all live to the end; number 2 of 2 was ended by SIGKILL" in error
    assert "Traceback" not in error
    assert not Path("o.csv").exists()
    assert 8 <= min(reached(1), reached(2)) < 65

    again = command(*options, "--out", "o.csv", "--workers", 2)
    out, error = again.communicate(timeout=120)
    assert again.returncode == 3, (out, error)
    assert Path("o.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert out.count("64 faces in 65 files") == 1
    assert error.count("skipped: ") == 1
    assert not [name for name in files(place) if Path(name).name.startswith(".")]


def test_torchrun_shares_the_files(hiva, place, trained, pictures):
    (pictures / "020b.png").unlink()
    options = ["predict", pictures, "-c", trained.folder, "--cropped", "--batch-size", 4]
    assert hiva(*options, "--out", "whole.csv").code == 0
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = command(*options, "--out", "o.csv", launch=launch)
    out, error = run.communicate(timeout=120)
    assert run.returncode == 0, error
    assert out.count("64 faces in 64 files") == 1
    assert Path("o.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_machines_of_a_cluster_one_by_one(hiva, place, trained, pictures):
    options = ["predict", pictures, "-c", trained.folder, "--cropped", "--batch-size", 4]
    drawn = ["--summary", "sum.png"]
    assert hiva(*options, "--out", "whole.csv").code == 3
    for number in (2, 3):
        result = hiva(*options, *drawn, "--out", "o.csv", "--shard", f"{number}/3")
        assert result.code == 0
        assert f"Share {number}/3 is read" in result.out
    fails_with(hiva(*options, "--out", "o.csv"), "as many shares", "o.csv")
    fails_with(hiva(*options, "--out", "o.csv", "--shard", "1/4"), "as many shares", "begun with 3")
    assert not Path("sum.png").exists()
    assert hiva(*options, *drawn, "--out", "o.csv", "--shard", "1/3").code == 3
    assert Path("o.csv").read_bytes() == Path("whole.csv").read_bytes()
    with Image.open("sum.png") as image:
        assert image.width > 900


def test_what_shares_need_is_said(hiva, place, trained, crops, monkeypatch):
    options = ["predict", *crops, "-c", trained.folder, "--cropped"]
    for more in (["--workers", 2], ["--shard", "1/2"]):
        fails_with(hiva(*options, *more), "`--out` must be given")
    fails_with(hiva("predict", "webcam", "-c", trained.folder, "--out", "o.csv", "--workers", 2), "`webcam`")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    fails_with(hiva(*options, "--out", "o.csv", "--workers", 2), "`--workers` must be left out", "2 processes")
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "default")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    fails_with(hiva(*options, "--out", "o.csv"), "`accelerate launch` must start the processes", "torchrun")
    assert not files(place)
