"""Banks compared, joined, checked, and how diverse they are."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from command import fails_with
from PIL import Image

from hiva_hf.descriptions import DescriptionBank, bank_diversity, bank_problems, diff_banks, load_bank, merge_banks
from hiva_hf.descriptions.embedding import SentenceEncoder, embedding_similarity, similarity_matrix

A = "The mouth corner is pulled up and out along the cheek."
B = "A deep fold of skin stands beside each end of the lips."
C = "The lip line is wider than at rest and curves at its ends."


def bank(texts, name="own", language="en", license="MIT"):
    entries = {
        au: {"name": "x", "descriptions": [{"aspect": "skin", "text": text} for text in group]}
        for au, group in texts.items()
    }
    return DescriptionBank(name, language, license, {"generator": name}, {"skin": name}, entries)


def test_the_shipped_bank_holds_to_the_rules():
    assert bank_problems(load_bank()) == []


def test_what_breaks_the_rules_is_told():
    found = bank_problems(bank({"AU12": [A, "Too short.", A.replace("pulled", "drawn")], "AU4": [A]}))
    assert found == [
        "AU12 2: 2 words, not 8 to 45", "AU12 3: nearly the same as 1", "AU4 1: does not name the region of the brow"
    ]  # fmt: skip
    # rules of English sentences say nothing of others
    assert bank_problems(bank({"AU12": ["Kurz.", "Anders."]}, language="de")) == []


def test_difference():
    difference = diff_banks(bank({"AU12": [A, B], "AU4": [C]}), bank({"AU12": [C, A]}))
    assert difference.removed == {"AU12": [B], "AU4": [C]}
    assert difference.added == {"AU12": [C]}
    assert difference
    assert not diff_banks(bank({"AU12": [A, B]}), bank({"AU12": [B, A]}, name="other"))


def test_merging():
    first, second = bank({"AU12": [A], "AU2": [C]}), bank({"AU12": [A.replace("pulled", "drawn"), B]}, "b", license="Z")
    merged = merge_banks([first, second], "both")
    assert [item["text"] for item in merged.descriptions["AU12"]["descriptions"]] == [A, B]
    assert list(merged.descriptions) == ["AU2", "AU12"]
    assert merged.license == "MIT AND Z"
    assert merged.aspects == {"skin": "own"}
    assert merged.provenance == {
        "merged_from": {first.identifier: {"generator": "own"}, second.identifier: {"generator": "b"}}
    }
    for wrong in ([first], [first, bank({"AU12": [A]}, language="de")]):
        with pytest.raises(ValueError, match="two or more of one language"):
            merge_banks(wrong, "x")


def test_similarity_by_words_in_common():
    matrix = similarity_matrix(["a lip goes up", "A lip goes down!", "brow"])
    assert matrix == pytest.approx(np.array([[1, 3 / 5, 0], [3 / 5, 1, 0], [0, 0, 1]]))


def test_diversity_by_hand():
    found = bank_diversity(bank({"AU12": ["a b", "a c", "a b"], "AU4": ["a b"]}))
    assert found.names == ["AU12", "AU4"]
    # of the first: 1/3, 1, 1/3; across: 1, 1/3, 1
    assert found.matrix[0, 0] == pytest.approx(5 / 9)
    assert found.matrix[0, 1] == pytest.approx(7 / 9) == found.matrix[1, 0]
    assert math.isnan(found.matrix[1, 1])
    assert found.within == pytest.approx(5 / 9)
    assert found.across == pytest.approx(7 / 9)
    assert math.isnan(bank_diversity(bank({"AU12": [A, B]})).across)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny sentence encoder from its configuration."""
    from transformers import BertConfig, BertModel

    from hiva_hf.presets import bank_tokenizer

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = bank_tokenizer(load_bank(), vocab_size=300)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_similarity_by_an_encoder(encoder):
    encode = SentenceEncoder(str(encoder))
    matrix = similarity_matrix([A, B, A], encode)
    assert np.diag(matrix) == pytest.approx(np.ones(3))
    assert matrix[0, 2] == pytest.approx(1)
    assert matrix[0, 1] < 0.999
    similarity = embedding_similarity(encode)
    assert similarity(A, [B]) == pytest.approx(matrix[0, 1], abs=1e-5)
    assert similarity(A, [B, A]) == pytest.approx(1)
    # padding does not count
    assert encode([A])[0].numpy() == pytest.approx(encode([A, A + A + A])[0].numpy(), abs=1e-5)


def test_the_commands(hiva, place, encoder):
    bank({"AU12": [A, B], "AU4": [C]}).save("a.json")
    bank({"AU12": [A, C]}, "b").save("b.json")
    shown = hiva("bank", "show", "a.json")
    assert shown.code == 0
    assert "AU12, x: 2 descriptions" in shown.out
    assert "license MIT" in shown.out
    assert f"skin: {A}" in hiva("bank", "show", "a.json", "--aus", "12").out
    assert "facs-en-v1@" in hiva("bank", "show").out
    compared = hiva("bank", "diff", "a.json", "b.json")
    assert compared.code == 3
    assert compared.out.splitlines() == [f"- AU12: {B}", f"- AU4: {C}", f"+ AU12: {C}"]
    assert hiva("bank", "diff", "a.json", "a.json").code == 0
    assert hiva("bank", "merge", "a.json", "b.json", "--out", "c.json", "--bank-id", "both").code == 0
    assert load_bank("c.json").bank_id == "both"
    fails_with(hiva("bank", "merge", "a.json", "b.json", "--out", "c.json"), "`--out`", "c.json")
    assert hiva("bank", "validate").code == 0
    checked = hiva("bank", "validate", "a.json")
    assert checked.code == 3
    assert "AU4 1: does not name the region of the brow" in checked.out
    told = hiva("bank", "diversity", "a.json", "--encoder", encoder, "--plot", "map.png")
    assert told.code == 0, told.err
    assert "within" in told.out
    with Image.open("map.png") as image:
        assert image.width > 400
    fails_with(hiva("bank", "show", "none.json"), "none.json")
    Path("broken.json").write_text(json.dumps({"bank_id": "x"}))
    fails_with(hiva("bank", "show", "broken.json"), "must have the fields")


def test_the_same_bank_gives_the_same_tokenizer():
    from hiva_hf.presets import bank_tokenizer

    vocabularies = [bank_tokenizer(load_bank()).get_vocab() for _ in range(4)]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2] == vocabularies[3]
    tokenizer = bank_tokenizer(load_bank())
    # every word of the bank is a piece, others are spelled out, and nothing of ASCII is unknown
    words = tokenizer.tokenize("Raises the inner brow?")
    assert words == ["raises", "the", "inner", "brow", "?"]
    assert tokenizer.unk_token not in tokenizer.tokenize("Zyx 90%! (q)")
    assert len(bank_tokenizer(load_bank(), vocab_size=300)) == 300
