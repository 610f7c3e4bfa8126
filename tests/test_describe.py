"""Descriptions by a language model: real servers that fail, a real model that was taught, and runs that are killed."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_server import chat_server, good_reply
from command import fails_with

from hiva_hf.descriptions import EndpointWriter, LocalWriter, Prompts, describe_aus, load_bank, translate_bank
from hiva_hf.descriptions import writers as writers_module
from hiva_hf.descriptions.prompts import parse_answer

pytest.importorskip("tenacity")


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """Other tests run as if there were no network; here there is loopback."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def server():
    with chat_server(good_reply) as running:
        yield running


def writer(server, **options):
    return EndpointWriter("tiny", base_url=server.url, token="secret", **options)


def test_a_bank_with_its_provenance(server, tmp_path):
    told = []
    bank = describe_aus(
        [12, "AU04"], writer(server), tmp_path / "bank.json", num_descriptions=9, license="MIT", seed=5,
        on_description=lambda *at: told.append(at),
    )  # fmt: skip
    assert load_bank(tmp_path / "bank.json") == bank
    assert list(bank.descriptions) == ["AU12", "AU4"]
    aspects = list(Prompts.load().aspects)
    assert [item["aspect"] for item in bank.descriptions["AU12"]["descriptions"]] == [*aspects, aspects[0]]
    assert len({item["text"] for entry in bank.descriptions.values() for item in entry["descriptions"]}) == 18
    assert told[-1] == (18, 18)
    provenance = bank.provenance
    assert (provenance["generator"], provenance["where"], provenance["seed"]) == ("tiny", "127.0.0.1", 5)
    assert provenance["prompt_version"] == "aspects-en-v1"
    assert provenance["parameters"]["temperature"] == 0.8
    assert (bank.license, bank.language, bank.bank_id) == ("MIT", "en", "bank")
    # no token in the bank, but in every request, with its own seed and what is written already
    assert "secret" not in (tmp_path / "bank.json").read_text()
    assert {request["token"] for request in server.requests} == {"Bearer secret"}
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert server.requests[0]["body"]["model"] == "tiny"
    assert len({request["body"]["seed"] for request in server.requests}) == 18
    first = bank.descriptions["AU12"]["descriptions"][0]["text"]
    assert first in server.requests[1]["body"]["messages"][-1]["content"]
    assert first not in server.requests[9]["body"]["messages"][-1]["content"]
    assert [path.name for path in tmp_path.iterdir()] == ["bank.json"]


@pytest.mark.parametrize("failure", [500, 503, 429, "garbage", "truncated", "hangup", "empty", "timeout"])
def test_a_server_that_fails_twice_is_asked_again(server, tmp_path, failure, monkeypatch):
    server.failures = [failure, failure]
    bank = describe_aus([12], writer(server, timeout=0.5), tmp_path / "bank.json", num_descriptions=1)
    assert len(bank.descriptions["AU12"]["descriptions"]) == 1
    assert len(server.requests) == 3
    if failure in (429, 503):
        # after the time that the server named
        times = [request["time"] for request in server.requests]
        assert all(after - before >= 0.95 for before, after in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("failure", "message"), [(401, "Is the token right"), (404, "name right"), (400, "failure 400")]
)
def test_a_refusal_is_told_at_once(server, tmp_path, failure, message):
    server.failures = [failure] * 9
    with pytest.raises(ConnectionError, match=rf"127\.0\.0\.1 must answer; it said {failure} to tiny: .*{message}"):
        describe_aus([12], writer(server), tmp_path / "bank.json")
    assert len(server.requests) == 1
    assert not (tmp_path / "bank.json").exists()


def test_a_server_that_never_answers(server, tmp_path, monkeypatch):
    monkeypatch.setattr(writers_module, "_LONGEST_WAIT", 0.01)
    server.failures = ["hangup"] * 99
    with pytest.raises(ConnectionError, match="6 times it did not"):
        describe_aus([12], writer(server), tmp_path / "bank.json")
    assert len(server.requests) == 6


GOOD = "The mouth corner moves up and out along the cheek as the muscle contracts."
BAD = {
    "no JSON object with a text": "The mouth corner moves up and out along the cheek.",
    "5 words, not 8 to 45": '{"text": "The lip corner goes up."}',
    "not of the language en": '{"text": "Der Mundwinkel wird mouth nach oben und aussen gezogen bei Anspannung."}',
    "does not name the region of the mouth": '{"text": "The brow is pulled down and to the middle of the forehead."}',
    "says 'AU12'": json.dumps({"text": GOOD.replace("muscle", "AU12 muscle")}),
    "says 'happy'": json.dumps({"text": GOOD.replace("as the", "in a happy face as the")}),
    "nearly what is there already": json.dumps({"text": GOOD.replace("moves", "goes")}),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_answers_are_refused_and_counted(tmp_path, problem):
    answers = [json.dumps({"text": GOOD}), BAD[problem], BAD[problem]]
    answers.append(
        'Sure! ```json\n{"text": "Skin beside the lips folds\\n in short curved lines that were not there."}\n```'
    )
    with chat_server(lambda body: answers.pop(0)) as server:
        bank = describe_aus([12], writer(server), tmp_path / "bank.json", num_descriptions=2)
    assert bank.provenance["rejected_answers"] == {problem: 2}
    assert bank.texts()[0][1] == "Skin beside the lips folds in short curved lines that were not there."


def test_what_another_action_unit_has_is_refused(tmp_path):
    text = "The lips, the jaw and the chin move together along one slanted line."
    other = "The jaw hangs down by its own weight, so that the teeth come apart."
    answers = [json.dumps({"text": line}) for line in (text, text, other)]
    with chat_server(lambda body: answers.pop(0)) as server:
        bank = describe_aus([12, 26], writer(server), tmp_path / "bank.json", num_descriptions=1)
    assert bank.texts() == [[text], [other]]
    assert bank.provenance["rejected_answers"] == {"nearly what another action unit has": 1}


def test_what_means_the_same_is_refused_by_an_encoder(tmp_path):
    answers = [
        json.dumps({"text": GOOD}),
        json.dumps({"text": "Lips are drawn to the side and a fold appears in the skin."}),
    ]
    answers.append(json.dumps({"text": "The mouth is wider than at rest, and its line is curved at both ends."}))
    calls = []

    def similarity(text, others):
        calls.append((text, list(others)))
        return 0.99 if "drawn to the side" in text else 0.1

    with chat_server(lambda body: answers.pop(0)) as server:
        bank = describe_aus([12], writer(server), tmp_path / "b.json", num_descriptions=2, similarity=similarity)
    assert bank.provenance["rejected_answers"] == {"means what is there already": 1}
    assert calls[0][1] == [GOOD]


def test_a_model_without_a_good_answer_ends_the_run_and_loses_nothing(tmp_path):
    answers = [json.dumps({"text": GOOD})]
    with chat_server(lambda body: answers.pop(0) if answers else "no") as server:
        with pytest.raises(
            ValueError, match=r"must describe AU12 \(lip corner puller\), skin; none of 5 answers was good"
        ):
            describe_aus([12], writer(server), tmp_path / "bank.json", num_descriptions=2)
        assert not (tmp_path / "bank.json").exists()
        answers += [json.dumps({"text": "Beside the lips a curved fold of skin appears and stays for as long."})]
        bank = describe_aus([12], writer(server), tmp_path / "bank.json", num_descriptions=2)
    assert bank.texts()[0][0] == GOOD
    assert bank.provenance["rejected_answers"] == {"no JSON object with a text": 5}


def test_other_settings_and_other_files_are_refused(server, tmp_path):
    out = tmp_path / "bank.json"
    server.failures = [200, 400]
    with pytest.raises(ConnectionError):
        describe_aus([12], writer(server), out)
    with pytest.raises(ValueError, match="begun with other seed"):
        describe_aus([12], writer(server), out, seed=1)
    describe_aus([12], writer(server), out)
    with pytest.raises(ValueError, match=r"`out` must be new; .*bank\.json is there"):
        describe_aus([12], writer(server), out)
    with pytest.raises(ValueError, match=r"must end in \.json"):
        describe_aus([12], writer(server), tmp_path / "bank.txt")
    with pytest.raises(ValueError, match="must ask for something"):
        describe_aus([], writer(server), tmp_path / "b.json")
    with pytest.raises(ValueError, match="must name an action unit"):
        describe_aus([99], writer(server), tmp_path / "b.json")


def test_a_killed_run_goes_on(server, tmp_path):
    out = tmp_path / "bank.json"
    server.reply = lambda body: (time.sleep(0.2), good_reply(body))[1]
    command = [sys.executable, "-m", "hiva_hf.cli", "describe", "--aus", "12,4", "--model", "tiny", "--out", str(out)]
    environment = {**os.environ, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "secret", "HF_HUB_OFFLINE": "0"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(server.requests) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    state = tmp_path / ".bank.json.progress"
    rows = [json.loads(line) for line in state.read_text().splitlines()]
    assert len(rows) >= 3
    # a line that a kill cut off
    with state.open("a") as file:
        file.write('{"au": "AU12", "aspe')
    asked = len(server.requests)
    assert subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode == 0
    bank = load_bank(out)
    assert [item["text"] for item in bank.descriptions["AU12"]["descriptions"]][: len(rows) - 1] == [
        row["text"] for row in rows[1:]
    ]
    assert len(server.requests) - asked == 16 - (len(rows) - 1)
    assert [path.name for path in tmp_path.iterdir()] == ["bank.json"]


def test_translation(server, tmp_path):
    bank = describe_aus([12], writer(server), tmp_path / "bank.json", num_descriptions=2, license="MIT")
    answers = [json.dumps({"text": bank.texts()[0][0]}), *[json.dumps({"text": f"Der Mundwinkel {n}."}) for n in "ab"]]
    server.reply = lambda body: answers.pop(0)
    german = translate_bank(bank, writer(server), tmp_path / "german.json", "de", bank_id="facs-de")
    assert german.texts() == [["Der Mundwinkel a.", "Der Mundwinkel b."]]
    assert (german.language, german.bank_id, german.license) == ("de", "facs-de", "MIT")
    assert german.provenance["translated_from"] == bank.identifier
    assert german.provenance["rejected_answers"] == {"not translated": 1}
    assert "into de" in server.requests[-1]["body"]["messages"][-1]["content"]
    assert load_bank(tmp_path / "german.json") == german


@pytest.mark.parametrize(
    "answer", ["", "{}", '{"text": ""}', '{"text": 3}', '{"text": "cut of', "[1]", '{"other": "x"}', "{{{"]
)
def test_what_is_no_answer(answer):
    with pytest.raises(ValueError, match="no JSON object with a text"):
        parse_answer(answer)


def test_answers_with_words_around_them():
    assert parse_answer('{x} Here: {"text": "A {b}\\n c."} Good luck!') == "A {b} c."


# ---- a model on this machine


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A tiny chat model that was taught two answers, by the aspect it is asked for."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    sentences = {
        "muscle": "The zygomaticus pulls the mouth corner up and out to the cheek.",
        "skin": "Beside the lips a curved fold of skin appears and gets deep.",
    }
    answers = {aspect: json.dumps({"text": text}) for aspect, text in sentences.items()}
    prompts = Prompts.load()
    written = []
    conversations = []
    for aspect, answer in answers.items():
        conversations.append((prompts.ask("AU12", aspect, written), answer))
        written.append(sentences[aspect])
    pieces = sorted({piece for messages, answer in conversations for text in (*[m["content"] for m in messages], answer)
                     for piece in text.replace("\n", " \n ").split(" ")})  # fmt: skip
    vocabulary = {piece: n for n, piece in enumerate(["<unk>", "<end>", "<system>", "<user>", "<assistant>", *pieces])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}> {{ m.content.replace('\n', ' \n ') }} {% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=512, eos_token_id=1, bos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    rows = []
    for messages, answer in conversations:
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
        target = tokenizer(answer)["input_ids"] + [1]
        rows.append((torch.tensor([prompt["input_ids"] + target]), len(prompt["input_ids"])))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = torch.tensor(1.0)
    while loss > 0.01:
        loss = torch.tensor(0.0)
        for ids, start in rows:
            labels = ids.clone()
            labels[:, :start] = -100
            loss = loss + model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("chat")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, list(sentences.values())


def test_a_model_on_this_machine(taught, tmp_path):
    folder, sentences = taught
    bank = describe_aus([12], LocalWriter(str(folder), temperature=0), tmp_path / "bank.json", num_descriptions=2)
    assert bank.texts() == [sentences]
    assert bank.provenance["where"] == "local"
    assert bank.provenance["generator"] == str(folder)


def test_the_command_with_a_model_on_this_machine(hiva, place, taught):
    folder, sentences = taught
    options = ("--model", folder, "--out", "bank.json", "--num-descriptions", 2, "--temperature", 0)
    result = hiva("describe", "--aus", 12, *options)
    assert result.code == 0, result.err
    assert load_bank("bank.json").texts() == [sentences]
    assert "0 answers were refused" in result.out
    # it was taught about one action unit only
    fails_with(hiva("describe", "--aus", 1, 2, *options[:2], "--out", "other.json"), "must describe AU1")
    assert not Path("other.json").exists()
