import copy
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from hiva_hf.descriptions import DEFAULT_BANK, DEFAULT_EMBEDS, DescriptionBank, load_bank, load_text_embeds
from hiva_hf.facs import ACTION_UNITS, BP4D_AUS

NUMBERS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28, 43, 45)
REQUIRED = tuple(f"AU{number}" for number in NUMBERS)
BANK = load_bank()


def small_content(**changes):
    content = {
        "bank_id": "small-v1",
        "language": "en",
        "license": "CC0-1.0",
        "provenance": {"generator": "a test"},
        "aspects": {"skin": "Wrinkles.", "shape": "Outlines."},
        "descriptions": {
            "AU1": {
                "name": "inner brow raiser",
                "descriptions": [{"aspect": "skin", "text": "One."}, {"aspect": "shape", "text": "Two."}],
            },
            "AU12": {"name": "lip corner puller", "descriptions": [{"aspect": "skin", "text": "Three."}]},
        },
    }
    return {**content, **changes}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def embeds_file(path, bank=BANK, width=384, aus=("AU1", "AU12")):
    metadata = {"encoder": "some/encoder", "bank_id": bank.bank_id, "content_hash": bank.content_hash}
    save_file({au: torch.ones(8, width, dtype=torch.float16) for au in aus}, path, metadata)
    return path


@pytest.mark.parametrize("au", REQUIRED)
def test_shipped_bank_describes_each_au_in_eight_ways(au):
    entry = BANK.descriptions[au]
    assert entry["name"] == ACTION_UNITS[au].name
    aspects = [item["aspect"] for item in entry["descriptions"]]
    texts = [item["text"] for item in entry["descriptions"]]
    assert len(texts) >= 8
    assert len(set(aspects)) == len(aspects)
    assert set(aspects) <= set(BANK.aspects)
    assert len({text.casefold() for text in texts}) == len(texts)
    for text in texts:
        assert text == text.strip()
        assert text.endswith(".")
        assert 5 <= len(text.split()) <= 60


def test_no_text_of_the_shipped_bank_serves_two_aus():
    texts = [text for group in BANK.texts() for text in group]
    assert len(texts) == len(set(texts))


def test_all_names_of_the_shipped_bank_are_those_of_facs():
    assert set(REQUIRED) <= set(BANK.descriptions) <= set(ACTION_UNITS)
    assert {au: entry["name"] for au, entry in BANK.descriptions.items()} == {
        au: ACTION_UNITS[au].name for au in BANK.descriptions
    }


def test_shipped_bank_tells_where_it_comes_from():
    assert BANK.bank_id == "facs-en-v1"
    assert BANK.language == "en"
    assert BANK.license
    assert all(BANK.aspects.values())
    assert {"generator", "date", "prompt_version", "sources", "review"} <= set(BANK.provenance)
    assert all(isinstance(value, str) and value.strip() for value in BANK.provenance.values())
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", BANK.provenance["date"])


def test_identifier_is_name_and_hash():
    assert re.fullmatch(r"facs-en-v1@[0-9a-f]{16}", BANK.identifier)
    assert BANK.identifier == load_bank(DEFAULT_BANK).identifier


def test_identifier_changes_with_a_text_and_with_nothing_else():
    changed = copy.deepcopy(BANK.to_dict())
    changed["descriptions"]["AU1"]["descriptions"][0]["text"] += " More."
    assert DescriptionBank.from_dict(changed).identifier != BANK.identifier
    other = {**BANK.to_dict(), "provenance": {"generator": "somebody else"}, "license": "CC0-1.0"}
    assert DescriptionBank.from_dict(other).identifier == BANK.identifier
    reordered = {**BANK.to_dict(), "descriptions": dict(reversed(BANK.descriptions.items()))}
    assert DescriptionBank.from_dict(reordered).identifier == BANK.identifier


def test_save_and_load(tmp_path):
    path = write(tmp_path / "bank.json", BANK.to_dict())
    assert load_bank(path) == BANK
    assert load_bank(str(path)).identifier == BANK.identifier


def test_select_takes_any_order_and_spelling():
    bank = BANK.select([12, "AU01", "au_4"])
    assert list(bank.descriptions) == ["AU12", "AU1", "AU4"]
    assert bank.texts() == [BANK.select([au]).texts()[0] for au in ("AU12", "AU1", "AU4")]
    assert bank.bank_id == BANK.bank_id
    assert bank.identifier != BANK.identifier
    assert len(BANK.descriptions) > 3


def test_select_lists_what_it_has():
    bank = DescriptionBank.from_dict(small_content())
    with pytest.raises(ValueError, match=r"'small-v1'.*lacks AU4, AU2\. It has AU1, AU12\."):
        bank.select(["AU1", "AU4", "AU2"])
    with pytest.raises(ValueError, match="AU3"):
        bank.select(["AU3"])


def test_texts_are_as_many_for_each_au():
    bank = DescriptionBank.from_dict(small_content())
    assert bank.texts() == [["One."], ["Three."]]
    assert bank.select(["AU1"]).texts() == [["One.", "Two."]]
    assert bank.select(["AU1"]).texts(1) == [["One."]]
    assert [len(group) for group in BANK.texts(3)] == [3] * len(BANK.descriptions)
    assert BANK.texts(8) == BANK.texts()


@pytest.mark.parametrize("count", [0, -1, 2, 9])
def test_texts_refuse_a_count_they_do_not_have(count):
    bank = DescriptionBank.from_dict(small_content())
    with pytest.raises(ValueError, match=f"`num_descriptions` must lie in 1 to 1 for 'small-v1'; got {count}"):
        bank.texts(count)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.json"):
        load_bank(tmp_path / "nothing.json")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_bank(tmp_path)


@pytest.mark.parametrize("content", ["", "{not json", "AU1: raises the brow"])
def test_not_json(content, tmp_path):
    with pytest.raises(ValueError, match=r"bank\.json must be a description bank in JSON"):
        load_bank(write(tmp_path / "bank.json", content))


def test_not_text(tmp_path):
    path = tmp_path / "bank.json"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match=r"bank\.json must be a description bank in JSON"):
        load_bank(path)


@pytest.mark.parametrize("field", ["bank_id", "language", "license", "provenance", "aspects", "descriptions"])
def test_missing_fields_are_named(field, tmp_path):
    content = small_content()
    del content[field]
    with pytest.raises(ValueError, match=rf"bank\.json must have the fields .*; it lacks {field}\."):
        load_bank(write(tmp_path / "bank.json", content))


@pytest.mark.parametrize("content", ["[]", '"AU1"', "3"])
def test_json_that_is_no_object(content, tmp_path):
    with pytest.raises(ValueError, match="it lacks bank_id, language"):
        load_bank(write(tmp_path / "bank.json", content))


@pytest.mark.parametrize(
    "texts",
    [[], [{"aspect": "skin", "text": ""}], [{"text": "Fine."}, {"text": "  "}], [{"aspect": "skin"}], [{"text": 3}]],
)
def test_empty_texts_are_refused(texts, tmp_path):
    content = small_content()
    content["descriptions"]["AU12"]["descriptions"] = texts
    with pytest.raises(ValueError, match=r"bank\.json must give AU12 at least one description"):
        load_bank(write(tmp_path / "bank.json", content))


@pytest.mark.parametrize("entry", [["One."], {"descriptions": ["One."]}, {"descriptions": 5}, 3])
def test_entries_of_another_form_are_refused(entry, tmp_path):
    content = small_content()
    content["descriptions"]["AU12"] = entry
    with pytest.raises(ValueError, match=r'bank\.json must describe AU12 as {"descriptions": \[{"text": ...}'):
        load_bank(write(tmp_path / "bank.json", content))


@pytest.mark.parametrize("descriptions", [{}, ["AU1"], None])
def test_a_bank_describes_something(descriptions, tmp_path):
    content = {**small_content(), "descriptions": descriptions}
    with pytest.raises(ValueError, match="must map action units to their descriptions"):
        load_bank(write(tmp_path / "bank.json", content))


def test_unknown_aus_are_refused(tmp_path):
    content = small_content()
    content["descriptions"]["AU3"] = content["descriptions"].pop("AU12")
    with pytest.raises(ValueError, match="'AU3'"):
        load_bank(write(tmp_path / "bank.json", content))


@pytest.mark.parametrize("aus", [BP4D_AUS, REQUIRED, ("AU12", 1)], ids=["BP4D", "all", "two"])
def test_stored_embeddings_are_unit_vectors_in_the_order_asked_for(aus):
    embeds, encoder = load_text_embeds(aus)
    assert embeds.shape == (len(aus), 8, 384)
    assert embeds.dtype == torch.float32
    assert encoder == "sentence-transformers/all-MiniLM-L6-v2"
    assert torch.allclose(embeds.norm(dim=-1), torch.ones(len(aus), 8), atol=1e-3)
    stored = load_file(DEFAULT_EMBEDS)
    labels = ["AU12", "AU1"] if 1 in aus else aus
    assert torch.equal(embeds, torch.stack([stored[label] for label in labels]).float())


def test_stored_embeddings_tell_texts_apart():
    embeds = load_text_embeds(REQUIRED)[0].flatten(0, 1)
    cosine = embeds @ embeds.T - 2 * torch.eye(len(embeds))
    assert cosine.max() < 0.999


def test_embeddings_of_ones_own_bank(tmp_path):
    bank = DescriptionBank.from_dict(small_content())
    path = embeds_file(tmp_path / "own.safetensors", bank, width=5)
    embeds, encoder = load_text_embeds(["AU12", "AU1"], path, bank)
    assert embeds.shape == (2, 8, 5)
    assert embeds.dtype == torch.float32
    assert encoder == "some/encoder"


def test_embeddings_of_another_bank_are_refused(tmp_path):
    bank = DescriptionBank.from_dict(small_content())
    with pytest.raises(ValueError, match=f"must hold embeddings of bank {bank.identifier}; .* {BANK.identifier}"):
        load_text_embeds(["AU1"], bank=bank)
    path = embeds_file(tmp_path / "own.safetensors", bank)
    with pytest.raises(ValueError, match=r"own\.safetensors must hold embeddings of bank facs-en-v1@"):
        load_text_embeds(["AU1"], path)


def test_embeddings_without_an_au_are_refused(tmp_path):
    path = embeds_file(tmp_path / "few.safetensors")
    with pytest.raises(ValueError, match=r"few\.safetensors must hold every action unit.*lacks AU2, AU4\."):
        load_text_embeds(["AU1", "AU2", "AU4"], path)


def test_embeddings_must_be_safetensors(tmp_path):
    path = write(tmp_path / "text.safetensors", "these are no tensors")
    with pytest.raises(ValueError, match=r"text\.safetensors must be a safetensors file"):
        load_text_embeds(["AU1"], path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        load_text_embeds(["AU1"], tmp_path / "nothing.safetensors")


def test_a_bank_may_spell_its_aus_as_it_likes():
    content = small_content()
    content["descriptions"]["AU01"] = content["descriptions"].pop("AU1")
    assert DescriptionBank.from_dict(content).select(["AU1"]).texts() == [["One.", "Two."]]
