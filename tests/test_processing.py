"""The processor: with and without tokenizer, its descriptions, its names and thresholds, saving and loading."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoProcessor

from hiva_hf import HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.descriptions import DescriptionBank, load_bank
from hiva_hf.presets import bank_tokenizer

SIDE = 16
# neither the order of the alphabet nor that of the numbers
LABELS = ["AU12", "AU1", "AU4"]
NUM_DESCRIPTIONS = 8
LOGITS = torch.tensor([[0.0, 2.0, -2.0], [-0.5, 0.1, 5.0]])


@pytest.fixture(scope="module")
def own_bank():
    return load_bank().select(LABELS)


@pytest.fixture(scope="module")
def own_tokenizer():
    return bank_tokenizer(load_bank(), vocab_size=300)


@pytest.fixture
def full(own_bank, own_tokenizer):
    return build(own_bank, own_tokenizer)


@pytest.fixture
def folded(own_bank):
    return build(own_bank)


@pytest.fixture(scope="module")
def face():
    return np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def build(bank, tokenizer=None, thresholds=None):
    image_processor = HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return HiVAProcessor(image_processor, tokenizer, bank.to_dict(), thresholds)


def shapes(features):
    return {name: tuple(value.shape) for name, value in features.items()}


@pytest.mark.parametrize("loader", [HiVAProcessor, AutoProcessor])
@pytest.mark.parametrize("with_tokenizer", [True, False], ids=["full", "folded"])
def test_save_and_load(tmp_path, own_bank, own_tokenizer, loader, with_tokenizer):
    saved = build(own_bank, own_tokenizer if with_tokenizer else None, {"AU12": 0.4})
    saved.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is HiVAProcessor
    assert loaded.to_dict() == saved.to_dict()
    assert loaded.description_bank == own_bank.to_dict()
    assert loaded.thresholds == {"AU12": 0.4}
    assert loaded.image_processor.size == {"height": SIDE, "width": SIDE}
    assert hasattr(loaded, "tokenizer") is with_tokenizer
    if with_tokenizer:
        before, after = saved.tokenize_descriptions({"AU1": ["brow"]}), loaded.tokenize_descriptions({"AU1": ["brow"]})
        assert torch.equal(before["input_ids"], after["input_ids"])


@pytest.mark.parametrize("with_tokenizer", [True, False], ids=["full", "folded"])
def test_action_units_keep_their_order_on_disk(tmp_path, own_bank, own_tokenizer, with_tokenizer):
    saved = build(own_bank, own_tokenizer if with_tokenizer else None)
    saved.save_pretrained(tmp_path)
    loaded = HiVAProcessor.from_pretrained(tmp_path)
    assert loaded.labels == LABELS
    assert list(loaded.post_process(LOGITS)[0].items()) == list(saved.post_process(LOGITS)[0].items())


def test_processor_config_holds_the_descriptions_to_read(tmp_path, full, own_bank):
    full.save_pretrained(tmp_path)
    text = (tmp_path / "processor_config.json").read_text(encoding="utf-8")
    assert own_bank.descriptions["AU12"]["descriptions"][0]["text"] in text
    content = json.loads(text)
    assert content["description_bank"] == own_bank.to_dict()
    assert content["auto_map"] == {"AutoProcessor": "processing_hiva.HiVAProcessor"}
    assert content["processor_class"] == "HiVAProcessor"


def test_image_processor_loads_from_the_same_folder(tmp_path, folded):
    folded.save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path).size == {"height": SIDE, "width": SIDE}


def test_code_travels_with_the_processor(tmp_path, full):
    full.save_pretrained(tmp_path)
    assert {"processing_hiva.py", "image_processing_hiva.py"} <= {path.name for path in tmp_path.iterdir()}


def test_labels_are_those_of_the_bank(full, own_bank):
    assert full.labels == LABELS
    assert full.id2label == {0: "AU12", 1: "AU1", 2: "AU4"}
    assert HiVAProcessor(full.image_processor).labels == []


def test_pictures_alone(full, face):
    features = full(images=[face, face], return_tensors="pt")
    assert shapes(features) == {"pixel_values": (2, 3, SIDE, SIDE)}
    expected = full.image_processor(face, return_tensors="pt")["pixel_values"]
    assert torch.equal(features["pixel_values"][:1], expected)


def test_pictures_without_a_tokenizer(folded, face):
    features = folded(images=face, return_tensors="pt")
    assert shapes(features) == {"pixel_values": (1, 3, SIDE, SIDE)}


def test_text_is_tokenised_as_it_is(full, own_tokenizer):
    features = full(text="the brow lowers")
    assert features["input_ids"] == own_tokenizer("the brow lowers")["input_ids"]


def test_text_without_a_tokenizer_is_an_error_that_says_so(folded):
    with pytest.raises(ValueError, match="tokenizer"):
        folded(text="the brow lowers")


def test_descriptions_of_an_unseen_action_unit(full, face):
    texts = {"AU27": ["the mouth is stretched wide open", "the jaw"]}
    features = full(descriptions=texts)
    length = features["input_ids"].shape[-1]
    assert shapes(features) == {"input_ids": (1, 2, length), "attention_mask": (1, 2, length)}
    both = full(images=face, descriptions=texts, return_tensors="pt")
    assert shapes(both) == {**shapes(features), "pixel_values": (1, 3, SIDE, SIDE)}


def test_calling_with_nothing_is_an_error(full):
    with pytest.raises(ValueError, match="`images`, `text` or `descriptions`"):
        full()


def test_bank_descriptions_are_tokenised_in_order_and_padded(full, own_bank, own_tokenizer):
    tokens = full.tokenize_descriptions()
    length = max(len(own_tokenizer(text)["input_ids"]) for group in own_bank.texts() for text in group)
    assert tokens["input_ids"].shape == tokens["attention_mask"].shape == (len(LABELS), NUM_DESCRIPTIONS, length)
    assert tokens["bank"].startswith("facs-en-v1")
    for row, group in enumerate(own_bank.texts()):
        for column, text in enumerate(group):
            ids = own_tokenizer(text)["input_ids"]
            padding = [own_tokenizer.pad_token_id] * (length - len(ids))
            assert tokens["input_ids"][row, column].tolist() == ids + padding
            assert tokens["attention_mask"][row, column].tolist() == [1] * len(ids) + [0] * len(padding)


def test_bank_descriptions_carry_the_identifier_of_the_bank(full, own_bank):
    assert full.tokenize_descriptions()["bank"] == own_bank.identifier


def test_fewer_and_shorter_descriptions(full):
    tokens = full.tokenize_descriptions(num_descriptions=2, max_length=5)
    assert tokens["input_ids"].shape == (len(LABELS), 2, 5)
    assert torch.equal(tokens["input_ids"][..., :4], full.tokenize_descriptions()["input_ids"][:, :2, :4])


def test_the_action_unit_with_the_fewest_descriptions_sets_the_number(full):
    tokens = full.tokenize_descriptions({"AU1": ["one", "two", "three"], "AU2": ["one", "two"]})
    assert tokens["input_ids"].shape[:2] == (2, 2)
    assert "bank" not in tokens


@pytest.mark.parametrize("count", [0, -1, NUM_DESCRIPTIONS + 1])
def test_number_of_descriptions_has_limits(full, count):
    with pytest.raises(ValueError, match=rf"1 to {NUM_DESCRIPTIONS}.*got {count}"):
        full.tokenize_descriptions(num_descriptions=count)


def test_descriptions_are_lists_and_not_single_sentences(full):
    with pytest.raises((TypeError, ValueError), match="descriptions"):
        full(descriptions={"AU1": "the brow rises"})


def test_no_description_at_all_is_an_error(full, own_tokenizer):
    with pytest.raises(ValueError, match="at least one action unit"):
        full.tokenize_descriptions({})
    with pytest.raises(ValueError, match="no bank"):
        HiVAProcessor(full.image_processor, own_tokenizer).tokenize_descriptions()


@pytest.mark.parametrize("call", [lambda p: p.tokenize_descriptions(), lambda p: p(descriptions={"AU1": ["brow"]})])
def test_descriptions_need_a_tokenizer(folded, call):
    with pytest.raises(ValueError, match=r"needs a tokenizer.*unfolded checkpoint"):
        call(folded)


def test_a_bank_without_texts_for_an_action_unit_is_refused(full, own_bank):
    content = own_bank.to_dict()
    content["descriptions"] = {**content["descriptions"], "AU4": {"name": "brow lowerer", "descriptions": []}}
    with pytest.raises(ValueError, match="AU4"):
        HiVAProcessor(full.image_processor, description_bank=content)
    with pytest.raises(ValueError, match="AU4"):
        DescriptionBank.from_dict(content)


def test_thresholds_outside_the_bank_are_refused(own_bank):
    with pytest.raises(ValueError, match=r"got AU2, AU5\. Known: AU12, AU1, AU4"):
        build(own_bank, thresholds={"AU5": 0.5, "AU2": 0.1, "AU1": 0.2})


@pytest.mark.parametrize("outputs", [LOGITS, SimpleNamespace(logits=LOGITS)], ids=["tensor", "outputs"])
def test_post_process_names_the_sigmoid(folded, outputs):
    rows = folded.post_process(outputs)
    assert [list(row) for row in rows] == [LABELS, LABELS]
    expected = 1 / (1 + np.exp(-LOGITS.double().numpy()))
    np.testing.assert_allclose([list(row.values()) for row in rows], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        (None, None, [["AU12", "AU1"], ["AU1", "AU4"]]),
        (None, 0.9, [[], ["AU4"]]),
        (None, 0.0, [LABELS, LABELS]),
        (None, {"AU1": 0.95}, [["AU12"], ["AU4"]]),
        ({"AU4": 0.1}, None, [LABELS, ["AU1", "AU4"]]),
        ({"AU4": 0.1}, 0.9, [[], ["AU4"]]),
        ({"AU4": 0.1}, {"AU12": 0.6}, [["AU1"], ["AU1", "AU4"]]),
    ],
)
def test_active_action_units_lie_at_or_above_their_threshold(own_bank, stored, given, expected):
    rows = build(own_bank, thresholds=stored).post_process(LOGITS, given, active_only=True)
    assert [list(row) for row in rows] == expected


def test_thresholds_leave_the_values_alone(folded):
    assert folded.post_process(LOGITS, 0.9) == folded.post_process(LOGITS)
    kept = folded.post_process(LOGITS, 0.9, active_only=True)[1]
    assert kept == {"AU4": folded.post_process(LOGITS)[1]["AU4"]}


def test_own_labels_name_the_columns(folded):
    rows = folded.post_process(LOGITS[:, :2], labels=["AU6", "AU9"])
    assert list(rows[0]) == ["AU6", "AU9"]


def test_half_precision_and_gradients_are_no_obstacle(folded):
    rows = folded.post_process(LOGITS.to(torch.bfloat16).requires_grad_())
    assert rows[0]["AU12"] == 0.5


@pytest.mark.parametrize("logits", [LOGITS[:, :2], LOGITS[0], LOGITS[None]], ids=["narrow", "1-d", "3-d"])
def test_logits_of_the_wrong_shape_are_refused(folded, logits):
    with pytest.raises(ValueError, match=r"\(batch_size, 3\)") as caught:
        folded.post_process(logits)
    assert str(tuple(logits.shape)) in str(caught.value)


def test_unknown_action_unit_in_thresholds_is_refused(folded):
    with pytest.raises(ValueError, match=r"got AU5\. Known: AU12, AU1, AU4"):
        folded.post_process(LOGITS, {"AU5": 0.5})
