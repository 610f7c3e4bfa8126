import typing

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from hiva_hf import HiVAConfig
from hiva_hf.facs import ACTION_UNITS, BP4D_AUS
from hiva_hf.loss_hiva import OCCURRENCE_LOSSES

VISION = {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8}
TEXT = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 40}
AUS = {0: "AU1", 1: "AU4", 2: "AU12"}
WITHOUT_TEXT = {"use_descriptions": False, "use_ddca": False, "use_cdca": False, "head": "linear"}
FOLDED = {"text_folded": True, "text_embed_dim": 384}


def make_config(**fields):
    return HiVAConfig(**{"vision_config": VISION, "text_config": TEXT, "id2label": AUS, **fields})


SIZES = ("hidden_size", "num_attention_heads", "intermediate_size", "num_descriptions", "description_length")
REFUSED = [
    *[({name: value}, (f"`{name}`", "at least 1", f"got {value}")) for name in SIZES for value in (0, -2)],
    ({"graph_top_k": 0}, ("`graph_top_k`", "at least 1", "got 0")),
    (
        {"hidden_size": 30, "num_attention_heads": 4},
        ("`hidden_size`", "multiple of `num_attention_heads`", "30", "4"),
    ),
    ({"hidden_dropout_prob": 1.0}, ("`hidden_dropout_prob`", "[0, 1)", "1.0")),
    ({"hidden_dropout_prob": -0.1}, ("`hidden_dropout_prob`", "[0, 1)", "-0.1")),
    ({"attention_dropout": 1.5}, ("`attention_dropout`", "[0, 1)", "1.5")),
    ({"attention_dropout": -1}, ("`attention_dropout`", "[0, 1)", "-1")),
    ({"layer_norm_eps": 0.0}, ("`layer_norm_eps`", "positive", "0.0")),
    ({"initializer_range": -0.5}, ("`initializer_range`", "positive", "-0.5")),
    ({"alignment_loss_weight": -0.25}, ("`alignment_loss_weight`", "not be negative", "-0.25")),
    ({"id2label": {}}, ("`id2label`", "0, 1, 2", "[]")),
    ({"id2label": {1: "AU1", 2: "AU2"}}, ("`id2label`", "0, 1, 2", "[1, 2]")),
    ({"id2label": {0: "AU1", 2: "AU2"}}, ("`id2label`", "dict(enumerate(names))", "[0, 2]")),
    ({"id2label": {0: "AU1", 1: "AU4", 2: "AU1"}}, ("`id2label`", "once", "AU1")),
    ({"label_weights": [1.0, 1.0]}, ("`label_weights`", "3 entries", "got 2")),
    ({"label_weights": [1.0, -0.5, 2.5]}, ("`label_weights`", "negative", "-0.5")),
    ({"label_weights": [1.0, float("nan"), 1.0]}, ("`label_weights`", "finite", "nan")),
    ({"alignment_loss_weight": float("inf")}, ("`alignment_loss_weight`", "finite", "inf")),
    ({"text_folded": True, "text_embed_dim": -5}, ("`text_embed_dim`", "at least 1", "-5")),
    ({"hidden_act": "wobble"}, ("`hidden_act`", "'wobble'", "gelu")),
    (
        {"problem_type": "single_label_classification"},
        ("`problem_type`", "regression", "'single_label_classification'"),
    ),
    ({"problem_type": None}, ("`problem_type`", "multi_label_classification", "None")),
    ({**WITHOUT_TEXT, "use_ddca": True}, ("`use_ddca`", "`use_descriptions=False`", "got True")),
    ({**WITHOUT_TEXT, "use_cdca": True}, ("`use_cdca`", "`use_descriptions=False`", "got True")),
    ({**WITHOUT_TEXT, "head": "similarity"}, ("`head`", "'linear'", "got 'similarity'")),
    ({**WITHOUT_TEXT, "au_projection": "text"}, ("`au_projection`", "'learned'", "got 'text'")),
    ({"output_activation_maps": True, "use_ddca": False}, ("`output_activation_maps`", "`use_ddca=False`")),
    ({"text_folded": True}, ("`text_embed_dim`", "`text_folded=True`", "None")),
    ({"vision_config": {"model_type": "bert"}}, ("`vision_config`", "'bert'", "exchanged")),
    ({"description_length": 9999}, ("`description_length`", "max_position_embeddings", "9999")),
    ({"text_embed_dim": 7}, ("`text_embed_dim`", "`text_config.hidden_size`", "7", "32")),
]


@pytest.mark.parametrize(("fields", "told"), REFUSED, ids=[" ".join(map(str, told[:1])) for _, told in REFUSED])
def test_what_breaks_a_rule_is_refused_by_name(fields, told):
    with pytest.raises(StrictDataclassError) as error:
        make_config(**fields)
    for part in told:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("au_projection", ("learned", "text")),
        ("head", ("similarity", "linear")),
        ("text_pooling", ("mean", "first", "last")),
        ("occurrence_loss", ("weighted_asymmetric", "binary_cross_entropy")),
    ],
)
def test_unknown_choices_are_refused(field, known):
    for value in known:
        assert getattr(make_config(**{field: value}), field) == value
    with pytest.raises(StrictDataclassError) as error:
        make_config(**{field: "something_else"})
    for part in (field, "something_else", *known):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_size", "64"), ("hidden_size", 64.0), ("use_graph", 1), ("text_encoder", 3), ("label_weights", "abc")],
)
def test_wrong_types_are_refused_by_name(field, value):
    with pytest.raises(StrictDataclassError, match=field):
        make_config(**{field: value})


def test_whole_numbers_stand_for_real_ones():
    config = make_config(label_weights=[1, 2, 3])
    assert config.label_weights == [1, 2, 3]
    with pytest.raises(StrictDataclassError, match="`layer_norm_eps` must be positive; got 0"):
        make_config(layer_norm_eps=0)


@pytest.mark.parametrize("id2label", [["AU1", "AU2"], "AU1"])
def test_labels_that_are_no_mapping_are_refused(id2label):
    with pytest.raises(ValueError, match=r"`id2label` must map .* got .*AU1.*enumerate"):
        HiVAConfig(id2label=id2label)


def test_labels_that_are_not_numbered_are_refused():
    with pytest.raises(ValueError, match=r"`id2label` must have the keys 0, 1, 2.*\['x'\].*enumerate"):
        HiVAConfig(id2label={"x": "AU1"})


def test_unknown_towers_are_refused():
    with pytest.raises(ValueError, match="no_such_model"):
        make_config(vision_config={"model_type": "no_such_model"})


def test_occurrence_losses_are_those_of_the_config():
    allowed = typing.get_args(HiVAConfig.__dataclass_fields__["occurrence_loss"].type)
    assert set(allowed) == set(OCCURRENCE_LOSSES)


def test_defaults():
    config = HiVAConfig()
    assert config.model_type == "hiva"
    assert config.num_labels == 12
    assert config.id2label == dict(enumerate(BP4D_AUS))
    assert config.label2id == {name: index for index, name in enumerate(BP4D_AUS)}
    assert config.au_names == list(BP4D_AUS)
    assert set(config.au_names) <= set(ACTION_UNITS)
    assert config.vision_config.model_type == "swin"
    assert config.text_config.model_type == "bert"
    assert config.text_embed_dim == config.text_config.hidden_size
    assert config.problem_type == "multi_label_classification"
    assert config.occurrence_loss == "weighted_asymmetric"
    assert all(
        (config.use_position_embeddings, config.use_descriptions, config.use_graph, config.use_ddca, config.use_cdca)
    )
    assert not config.output_activation_maps
    assert not config.text_folded
    assert not config.open_vocabulary


def test_action_units_that_are_not_named():
    config = make_config(id2label=None, num_labels=3)
    assert config.num_labels == 3
    assert sorted(config.id2label) == [0, 1, 2]


def test_labels_are_numbered_by_integers():
    config = make_config(id2label={"0": "AU6", "1": "AU12"})
    assert config.id2label == {0: "AU6", 1: "AU12"}
    assert config.label2id == {"AU6": 0, "AU12": 1}
    assert config.num_labels == 2
    assert config.au_names == ["AU6", "AU12"]


@pytest.mark.parametrize("keys", [(1, 0), ("1", "0")], ids=["int", "str"])
def test_names_come_in_the_order_of_the_logits(keys):
    config = make_config(id2label=dict(zip(keys, ("AU12", "AU6"), strict=True)))
    assert config.au_names == ["AU6", "AU12"]


def test_towers_may_be_dicts_or_configs():
    for vision, text in ((VISION, TEXT), (AutoConfig.for_model(**VISION), AutoConfig.for_model(**TEXT))):
        config = make_config(vision_config=vision, text_config=text)
        assert isinstance(config.vision_config, PreTrainedConfig)
        assert isinstance(config.text_config, PreTrainedConfig)
        assert config.vision_config.hidden_sizes == [8, 16]
        assert config.vision_hidden_size == 16
        assert config.text_embed_dim == 32


@pytest.mark.parametrize(
    ("vision", "width"),
    [
        ({"model_type": "vit", "hidden_size": 24, "num_attention_heads": 2}, 24),
        ({"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 1, 1]}, 32),
        ({"model_type": "convnext", "hidden_sizes": [4, 6, 8, 10]}, 10),
    ],
    ids=["vit", "swin", "convnext"],
)
def test_width_of_the_vision_tower(vision, width):
    assert make_config(vision_config=vision).vision_hidden_size == width


def test_vision_tower_without_a_width_is_refused():
    config = make_config()
    config.vision_config = PreTrainedConfig()
    with pytest.raises(ValueError, match="`vision_config` must state its `hidden_size` or `hidden_sizes`"):
        _ = config.vision_hidden_size


@pytest.mark.parametrize(
    ("model_type", "pooling"),
    [
        ("bert", "mean"),
        ("roberta", "mean"),
        ("distilbert", "mean"),
        ("clip_text_model", "last"),
    ],
)
def test_pooling_follows_the_kind_of_text_encoder(model_type, pooling):
    text = {"model_type": model_type, "vocab_size": 60000}
    assert make_config(text_config=text).text_pooling == pooling
    assert make_config(text_config=text, text_pooling="first").text_pooling == "first"


def test_without_a_text_tower_pooling_stays_open():
    assert make_config(**FOLDED).text_pooling is None
    assert make_config(**WITHOUT_TEXT).text_pooling is None


@pytest.mark.parametrize("fields", [FOLDED, WITHOUT_TEXT], ids=["folded", "visual only"])
def test_no_text_tower_where_none_is_used(fields):
    assert make_config(**fields).text_config is None
    assert HiVAConfig(vision_config=VISION, **fields).text_config is None


def test_visual_only_leaves_the_graph_to_choice():
    for use_graph in (True, False):
        config = make_config(**WITHOUT_TEXT, use_graph=use_graph)
        assert config.use_graph is use_graph
        assert config.text_embed_dim is None


@pytest.mark.parametrize(
    ("au_projection", "head", "open_vocabulary"),
    [
        ("text", "similarity", True),
        ("text", "linear", False),
        ("learned", "similarity", False),
        ("learned", "linear", False),
    ],
)
def test_vocabulary_is_open_where_no_weight_has_a_position(au_projection, head, open_vocabulary):
    assert make_config(au_projection=au_projection, head=head).open_vocabulary is open_vocabulary


ROUND_TRIPS = {
    "plain": {},
    "twelve AUs": {"id2label": dict(enumerate(BP4D_AUS))},
    "folded": {**FOLDED, "text_encoder": "some/encoder", "description_bank": "facs-en-v1@0123", "text_pooling": "mean"},
    "visual only": WITHOUT_TEXT,
    "open": {"au_projection": "text", "text_pooling": "first", "graph_top_k": 1},
    "weighted": {
        "label_weights": [0.5, 1.0, 1.5],
        "alignment_loss_weight": 0.1,
        "occurrence_loss": "binary_cross_entropy",
    },
    "intensity": {"problem_type": "regression", "hidden_dropout_prob": 0, "output_activation_maps": True},
}


@pytest.mark.parametrize("fields", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_save_and_load(fields, tmp_path):
    config = make_config(**fields)
    config.save_pretrained(tmp_path)
    for loaded in (HiVAConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is HiVAConfig
        assert loaded.to_diff_dict() == config.to_diff_dict()
        assert loaded.id2label == config.id2label
        assert loaded.au_names == config.au_names
        assert all(type(index) is int for index in loaded.id2label)
        assert loaded.label2id == config.label2id
        assert type(loaded.vision_config) is type(config.vision_config)
        assert type(loaded.text_config) is type(config.text_config)
        assert loaded.text_pooling == config.text_pooling
        for name, value in fields.items():
            assert getattr(loaded, name) == value
    assert (loaded.text_config is None) == (config.text_folded or not config.use_descriptions)


def test_loading_takes_changes(tmp_path):
    make_config().save_pretrained(tmp_path)
    loaded = HiVAConfig.from_pretrained(tmp_path, id2label={0: "AU9", 1: "AU25"}, hidden_dropout_prob=0.3)
    assert loaded.au_names == ["AU9", "AU25"]
    assert loaded.num_labels == 2
    assert loaded.hidden_dropout_prob == 0.3


def test_a_config_that_was_broken_later_is_not_saved(tmp_path):
    config = make_config()
    config.graph_top_k = 0
    with pytest.raises(StrictDataclassError, match="`graph_top_k`"):
        config.save_pretrained(tmp_path)
