"""What breaks on the way to the Hub and from it, and the one sentence that is said of it."""

# fixtures are imported by name
# ruff: noqa: F811

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from command import fails_with
from hub_client import HubClient
from hub_fixtures import ALICE, BOB, CARDS, client, files_of, hub, logits, no_cuts, one_sentence, place, sent  # noqa: F401

from hiva_hf import hiva_small
from hiva_hf.checkpoint import load_detector
from hiva_hf.training import save_detector


def test_an_upload_that_broke_off_goes_on(client, hub, place):
    torch.manual_seed(0)
    folder = place / "large"
    model, processor = hiva_small(["AU1", "AU12"])
    model.save_pretrained(folder, max_shard_size="6MB")
    processor.save_pretrained(folder)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert max(shard.stat().st_size for shard in shards) > 2 * hub.part_size
    puts = []

    def after_a_while(method, path):
        if method == "PUT":
            puts.append(path)
        return len(puts) > 12

    hub.cuts = after_a_while
    done = client.hiva("push", folder, "org/large", "--license", "mit", token=ALICE)
    one_sentence(done, "broke off", again=True)
    hub.cuts = lambda method, path: False
    there = {blob.name for blob in hub.store.blobs.iterdir()}
    since = len(hub.requests)
    done = client.hiva("push", folder, "org/large", "--license", "mit", token=ALICE)
    assert done.code == 0, done.err
    again = {path.split("/")[3] for path in sent(hub, since)}
    assert again
    assert not again & there
    files = files_of(hub, "org/large")
    assert all(files[shard.name]["lfs"] for shard in shards)
    assert client.hiva("pull", "org/large", "--out", place / "back").code == 0
    assert torch.allclose(logits(load_detector(place / "back")[0]), logits(model), atol=1e-6)


def test_a_fetch_that_broke_off_goes_on(client, hub, place):
    asked = []

    def from_the_second_on(method, path):
        large = method == "GET" and path.startswith("/_cdn")
        asked.extend([path] * large)
        return large and len(asked) > 1

    client.hiva("push", place / "large", "org/fetched", "--license", "mit", token=ALICE)
    hub.cuts = from_the_second_on
    one_sentence(client.hiva("pull", "org/fetched", "--out", place / "fetched"), "broke off", "it goes on", again=True)
    hub.cuts = lambda method, path: False
    whole = {path.name for path in (place / "fetched").iterdir() if path.is_file()}
    assert whole
    assert whole < files_of(hub, "org/fetched").keys()
    since = len(hub.requests)
    assert client.hiva("pull", "org/fetched", "--out", place / "fetched").code == 0
    again = [path for method, path, _ in hub.requests[since:] if method == "GET"]
    blobs = {file["sha256"]: name for name, file in files_of(hub, "org/fetched").items()}
    fetched = {blobs[path.split("?")[0].removeprefix("/_cdn/")] for path in again if path.startswith("/_cdn")}
    assert fetched
    assert not fetched & whole
    load_detector(place / "fetched")


def test_offline_with_and_without_a_cache(client, hub, trained, place):
    client.hiva("push", trained.folder, "org/cached", "--license", "mit", token=ALICE)
    ask = "from hiva_hf.checkpoint import load_detector; print(load_detector('org/cached')[0].config.au_names)"
    assert client.python(ask).code == 0
    offline = HubClient(place / "client", hub.url, HF_HUB_OFFLINE="1")
    (place / "cold").mkdir()
    cold = HubClient(place / "cold", hub.url, HF_HUB_OFFLINE="1")
    (place / "gone").mkdir()
    gone = HubClient(place / "gone", "http://127.0.0.1:9")
    try:
        since = len(hub.requests)
        done = offline.python(ask)
        assert done.code == 0, done.err
        assert "AU12" in done.out
        assert len(hub.requests) == since
        for far, said in ((cold, "HF_HUB_OFFLINE"), (gone, "127.0.0.1:9")):
            for command in (("pull", "org/cached", "--out", place / "x"), ("predict", place, "-c", "org/cached")):
                (place / "p.png").touch()
                done = far.hiva(*command)
                one_sentence(done, said)
        done = gone.hiva("push", trained.folder, "org/far", "--license", "mit", token=ALICE)
        one_sentence(done, "The Hub cannot be reached at http://127.0.0.1:9")
        # what is imported is paid once
        far = [gone.hiva("pull", "org/cached", "--out", place / "x"), cold.hiva("predict", place, "-c", "org/cached")]
        assert max(done.seconds for done in far) < 1
    finally:
        for far in (offline, cold, gone):
            far.close()


def test_what_the_command_does_not_take(client, trained):
    one_sentence(client.hiva("push", trained.folder, "noslash"), "`repo` must be org/name; got noslash")
    one_sentence(client.hiva("push", trained.folder, "org/bad name"), "org/bad name")
    one_sentence(client.hiva("push", trained.folder, "org/x", "--adapter", "--dataset"), "give one of them")
    one_sentence(client.hiva("push", trained.folder, "org/x", "--base", "org/y"), "`--base` belongs to `--adapter`")
    one_sentence(client.hiva("push", trained.folder / "none", "org/x"), "there is none at")
    one_sentence(client.hiva("push", trained.folder, "org/x", "--adapter"), "must hold an adapter")


def test_a_kind_is_one(client, place):
    one_sentence(client.hiva("pull", "org/x", "--out", place / "x", "--dataset", "--space"), "give one of them")


def test_only_what_was_fetched_is_counted(client, hub, trained, place):
    client.hiva("push", trained.folder, "org/counted", "--license", "mit", token=ALICE)
    out = place / "counted"
    out.mkdir()
    (out / "mine.txt").write_text("x" * 1000)
    done = client.hiva("pull", "org/counted", "--out", out)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{len(files_of(hub, 'org/counted'))} files, ")


def test_neither_pickles_nor_files_beside_the_folder_are_fetched(client, hub, trained, tmp_path):
    client.hiva("push", trained.folder, "org/mixed", "--license", "mit", token=ALICE)
    hub.store.commit("models", "org/mixed", "main", "alice", "x", "", [("file", {"pytorch_model.bin": b"x"})])
    done = client.hiva("pull", "org/mixed", "--out", tmp_path / "in" / "here")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "in" / "here").iterdir()} & {"config.json", "pytorch_model.bin"} == {
        "config.json"
    }
    hub.store.commit("models", "org/mixed", "main", "alice", "x", "", [("file", {"../evil.txt": b"x"})])
    done = client.hiva("pull", "org/mixed", "--out", tmp_path / "in" / "there")
    assert not list(tmp_path.rglob("evil.txt"))
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.mark.parametrize("step", ["repos/create", "/commit/"])
def test_a_push_whose_connection_is_cut_is_one_sentence(client, hub, trained, step):
    hub.cuts = lambda method, path: step in path
    done = client.hiva("push", trained.folder, "org/cut", "--license", "mit", token=ALICE)
    one_sentence(done, f"The connection to the Hub at {hub.url} broke off", "started again, it goes on")


def test_what_the_client_tries_again_is_said_within_a_second(hub, trained, tmp_path):
    failed = []

    def cut(method, path):
        if "preupload" in path:
            failed.append(time.monotonic())
        return "preupload" in path

    hub.cuts = cut
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": ALICE, "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "hiva_hf.cli", "push", str(trained.folder), "org/waits", "--license", "mit"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as run:
        said = run.stderr.readline()
        assert time.monotonic() - failed[0] < 1
        assert said.startswith(f"The Hub at {hub.url} does not answer; it is asked again for a while.")
        left = run.stderr.read().splitlines()
    assert run.returncode == 2
    assert len(left) == 1
    assert left[0].startswith(f"error: The connection to the Hub at {hub.url} broke off")
    assert len(failed) > 1


@pytest.mark.parametrize("step", ["/api/models", "/resolve/"])
def test_a_pull_whose_connection_is_cut_is_one_sentence(client, hub, trained, place, step):
    client.hiva("push", trained.folder, "org/halved", "--license", "mit", token=ALICE)
    hub.cuts = lambda method, path: step in path
    one_sentence(client.hiva("pull", "org/halved", "--out", place / "halved"), hub.url)


def test_offline_nothing_is_sent_and_that_is_said(hiva, trained):
    # the tests themselves run offline
    done = hiva("push", trained.folder, "org/far", "--license", "mit")
    fails_with(done, "Pushing needs the Hub, and HF_HUB_OFFLINE keeps it away")


def test_who_may_not_make_a_repository_is_told_so(client, hub, trained):
    done = client.hiva("push", trained.folder, "org/new", "--license", "mit", token=BOB)
    one_sentence(done, "HF_TOKEN must not make org/new, which is not there", "a name of your own")
    assert "--pr" not in done.err
    done = client.hiva("push", trained.folder, "org/new", "--license", "mit")
    one_sentence(done, "nobody is logged in", "hf auth login")
    done = client.hiva("push", trained.folder, "org/new", "--license", "mit", token="hf_wrong")
    one_sentence(done, "The Hub does not know HF_TOKEN")


def test_an_adapter_without_a_base_on_the_hub_stays(client, hub, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "adapter_config.json").write_text('{"r": 2}')
    save_file({"text_model.query.lora_A.weight": torch.ones(2, 3)}, tmp_path / "adapter_model.safetensors")
    options = ("--adapter", "--base", "org/does-not-exist", "--license", "mit")
    done = client.hiva("push", tmp_path, "org/orphan", *options, token=ALICE)
    one_sentence(done, "there is no org/does-not-exist that you may see")
    assert not hub.store.exists("models", "org/orphan")


def test_what_is_asked_for_and_what_is_there_must_agree(client, hub, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    assert client.hiva("push", folder, "org/agree", "--license", "mit", token=ALICE).code == 0
    before = hub.store.load("models", "org/agree")
    done = client.hiva("push", folder, "org/agree", "--license", "mit", "--private", token=ALICE)
    one_sentence(done, "`--private` is for a repository that is made; org/agree is there, and public")
    assert client.hiva("card", folder, "org/agree", "--license", "mit").code == 0
    done = client.hiva("push", folder, "org/agree", "--license", "cc0-1.0", token=ALICE)
    one_sentence(done, "`--license` is cc0-1.0, and README.md of", "says mit")
    assert hub.store.load("models", "org/agree") == before


def test_nothing_new_is_nothing_sent(client, trained):
    assert "Sent to" in client.hiva("push", trained.folder, "org/same", "--license", "mit", token=ALICE).out
    for further in ((), ("--pr",)):
        done = client.hiva("push", trained.folder, "org/same", "--license", "mit", *further, token=ALICE)
        assert done.code == 0, done.err
        assert "Nothing to send; everything is there already." in done.out
        assert "Sent to" not in done.out


def test_a_wrong_folder_is_named_as_it_was_given(client, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    done = client.hiva("push", tmp_path, "org/x", "--license", "mit", token=ALICE)
    one_sentence_or_tree(done, f"{tmp_path} must be the folder of a HiVA checkpoint")
    assert done.out == ""
    one_sentence(client.hiva("pull", "hiva", "--out", tmp_path), "`repo` must be org/name; got hiva")


def one_sentence_or_tree(done, said):
    assert done.code == 2
    assert said in done.err
    assert "hiva-upload" not in done.err


def test_a_refusal_comes_within_a_second(client, hub, trained, place):
    client.hiva("push", trained.folder, "org/quick", "--license", "mit", "--private", token=ALICE)
    (place / "p.png").touch()
    asked = (
        ("pull", "org/none", "--out", place / "q"),
        ("pull", "org/quick", "--out", place / "q"),
        ("predict", place, "-c", "org/none"),
        ("predict", place, "-c", "org/quick"),
    )
    for command in asked:
        # the first call imports
        client.hiva(*command)
        done = client.hiva(*command)
        one_sentence(done, "must be a repository that you may see")
        assert done.seconds < 1, command


def test_the_demo_says_in_one_sentence_that_its_checkpoint_is_not_there(client, hub):
    pytest.importorskip("gradio")
    code = f"""import os, runpy, sys
sys.path.insert(0, {str(CARDS / "space")!r})
os.environ["HIVA_CHECKPOINT"] = "org/nope"
runpy.run_path({str(CARDS / "space" / "app.py")!r}, run_name="__main__")"""
    sentence = client.python(code).code
    assert len(sentence.splitlines()) == 1
    assert sentence.startswith("HIVA_CHECKPOINT must name the folder or Hub id of a HiVA checkpoint; got org/nope. ")
    assert "org/nope must be a repository that you may see" in sentence


def test_an_encoder_that_cannot_be_had_names_the_option(client, hub, crops, tmp_path):
    torch.manual_seed(0)
    model, processor = hiva_small(["AU1", "AU12"], au_projection="text")
    save_detector(model, processor, tmp_path / "open")
    asked = ("--describe", "AU27=The mouth is stretched wide open by a lowered jaw.")
    done = client.hiva("predict", crops[0], "-c", tmp_path / "open", "--cropped", *asked)
    one_sentence(done, "`text_encoder` must be the sentence encoder", "sentence-transformers/all-MiniLM-L6-v2")
