"""The assembled model: outputs, labels, folding, saving, compiling, exporting."""

import json

import pytest
import torch
from conftest import AUS, SIDE

from hiva_hf import HiVAForImageClassification, HiVAModel

B, K, M, D, N = 2, len(AUS), 2, 32, 64
SWITCHES = [
    {},
    {"use_graph": False},
    {"use_ddca": False},
    {"use_cdca": False},
    {"head": "linear"},
    {"au_projection": "text"},
    {
        "use_descriptions": False,
        "use_graph": False,
        "use_ddca": False,
        "use_cdca": False,
        "head": "linear",
    },
]


def close(a, b, tolerance=1e-5):
    return torch.allclose(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: ",".join(s) or "full")
def test_every_switch_gives_logits_and_trains_every_weight(make_model, pixel_values, switches):
    model = make_model(alignment_loss_weight=0.1 if switches.get("use_descriptions", True) else 0.0, **switches).train()
    outputs = model(pixel_values, labels=torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    assert outputs.logits.shape == (B, K)
    outputs.loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    # the last layer norm of a tower's pooled branch is all that may stand aside
    assert without == [], without


def test_outputs_have_the_documented_shapes(make_model, pixel_values):
    model = make_model()
    outputs = model(pixel_values, output_attentions=True, output_hidden_states=True, output_activation_maps=True)
    assert outputs.au_embeds.shape == (B, K, D)
    assert outputs.text_embeds.shape == (K, M, D)
    assert outputs.graph_adjacency.shape == (B, K, K)
    to_text, to_image = outputs.ddca_attentions
    assert to_text.shape == (B, K, M)
    assert to_image.shape == (B, K, M, N)
    assert [a.shape for a in outputs.cdca_attentions] == [(B, K, K)] * 2
    assert outputs.activation_maps.shape == (B, K, 8, 8)
    assert close(outputs.activation_maps.sum((-1, -2)), torch.ones(B, K))
    assert close(outputs.activation_maps.flatten(2), to_image.mean(2))
    for attention in (to_text, to_image, *outputs.cdca_attentions):
        assert close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    assert len(outputs.hidden_states) > 1
    assert outputs.attentions is None
    model.set_attn_implementation("eager")
    assert len(model(pixel_values, output_attentions=True).attentions) == 2
    plain = model(pixel_values)
    assert close(plain.logits, outputs.logits)
    for name in ("graph_adjacency", "ddca_attentions", "cdca_attentions", "activation_maps", "attentions"):
        assert getattr(plain, name) is None


def test_activation_maps_by_configuration(make_model, pixel_values):
    assert make_model(output_activation_maps=True)(pixel_values).activation_maps.shape == (B, K, 8, 8)
    with pytest.raises(ValueError, match="use_ddca"):
        make_model(use_ddca=False)(pixel_values, output_activation_maps=True)


def test_missing_labels_change_nothing(make_model, pixel_values):
    model = make_model()
    labels = torch.tensor([[1.0, -100.0, 0.0], [-100.0, 1.0, 0.0]])
    loss = model(pixel_values, labels=labels).loss
    worse = pixel_values.clone()
    logits = model(worse).logits.detach().requires_grad_()
    model.compute_loss(logits, labels).backward()
    assert (logits.grad[labels == -100] == 0).all()
    assert (logits.grad[labels != -100] != 0).all()
    assert torch.isfinite(loss)
    model.train()
    none = model(pixel_values, labels=torch.full((B, K), -100.0)).loss
    none.backward()
    assert none == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


def test_problem_type_chooses_the_loss(make_model, pixel_values):
    labels = torch.tensor([[5.0, 0.0, -100.0], [3.0, 1.0, 2.0]])
    model = make_model(problem_type="regression")
    outputs = model(pixel_values, labels=labels)
    coded = labels != -100
    assert close(outputs.loss, (outputs.logits - labels)[coded].square().mean())


def test_label_weights_are_used(make_model, pixel_values):
    labels = torch.ones(B, K)
    plain, heavy = make_model(), make_model(label_weights=[3.0, 0.0, 0.0])
    logits = plain(pixel_values).logits
    first = plain.compute_loss(logits[:, :1], labels[:, :1])
    assert close(heavy.compute_loss(logits, labels), first)


def test_wrong_labels_name_both_shapes(make_model, pixel_values):
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 5\).*AU1, AU4, AU12"):
        make_model()(pixel_values, labels=torch.zeros(2, 5))


def test_pixels_without_a_batch_are_refused(make_model):
    with pytest.raises(ValueError, match=r"pixel_values.*\(3, 32, 32\)"):
        make_model()(torch.rand(3, SIDE, SIDE))


def test_a_tuple_on_request(make_model, pixel_values):
    model = make_model()
    as_tuple = model(pixel_values, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert close(as_tuple[0], model(pixel_values).logits)


def test_descriptions_matter(make_model, processor, pixel_values):
    model = make_model()
    before = model(pixel_values).logits
    other = processor.tokenize_descriptions({au: [f"{au} moves the ear", "nothing"] for au in AUS})
    overridden = model(pixel_values, **other).logits
    assert not close(before, overridden, 1e-4)
    model.set_descriptions(**other)
    assert close(model(pixel_values).logits, overridden)
    assert model.config.description_length == other["input_ids"].shape[-1]


@pytest.mark.parametrize("switches", SWITCHES[:-1], ids=lambda s: ",".join(s) or "full")
def test_folding_keeps_the_logits_and_drops_the_tower(make_model, pixel_values, tmp_path, switches):
    model = make_model(**switches)
    before = model(pixel_values).logits
    assert model.fold_text() is model
    assert close(model(pixel_values).logits, before)
    model.save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "hiva.text_embeds" in names
    assert not [name for name in names if "text_model" in name or "description_" in name]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["text_folded"] is True
    assert config["text_config"] is None
    reloaded = HiVAForImageClassification.from_pretrained(tmp_path).eval()
    assert close(reloaded(pixel_values).logits, before)
    assert reloaded.fold_text() is reloaded


def test_training_a_folded_model_trains_the_rest(make_model, pixel_values):
    model = make_model().fold_text().train()
    stored = model.hiva.text_embeds.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model(pixel_values, labels=torch.ones(B, K)).loss.backward()
    optimizer.step()
    assert torch.equal(model.hiva.text_embeds, stored)
    changed = {name.split(".")[1] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed >= {"vision_model", "vision_projection", "text_projection", "feature_generator", "ddca", "cdca"}


def test_a_folded_model_refuses_new_texts_but_takes_embeddings(make_model, processor, pixel_values):
    model = make_model()
    embeds = model.hiva.encode_descriptions()
    expected = model(pixel_values).logits
    tokens = processor.tokenize_descriptions(num_descriptions=2)
    model.fold_text()
    with pytest.raises(ValueError, match="folded"):
        model.set_descriptions(**tokens)
    with pytest.raises(ValueError, match="folded"):
        model(pixel_values, input_ids=tokens["input_ids"])
    assert close(model(pixel_values, text_embeds=embeds).logits, expected)
    with pytest.raises(ValueError, match=r"text_embeds.*\(3, num_descriptions, 32\).*\(3, 2, 7\)"):
        model.set_text_embeds(torch.zeros(3, 2, 7))
    with pytest.raises(ValueError, match=r"text_embeds.*\(3, num_descriptions, 32\).*\(32,\)"):
        model.set_text_embeds(torch.zeros(32))


def test_folding_without_descriptions_is_refused(make_model):
    model = make_model()
    fresh = HiVAForImageClassification(model.config.__class__(**{**model.config.to_dict(), "description_bank": None}))
    with pytest.raises(ValueError, match="set_descriptions"):
        fresh.fold_text()
    with pytest.raises(ValueError, match="folded model"):
        fresh.set_text_embeds(torch.zeros(3, 2, 32))


@pytest.mark.parametrize("shape", [(4, 2, 9), (3, 9)])
def test_descriptions_for_other_aus_are_refused(make_model, shape):
    with pytest.raises(ValueError, match=r"input_ids.*\(3, num_descriptions, length\)"):
        make_model().set_descriptions(torch.zeros(shape, dtype=torch.long))


def test_open_vocabulary_takes_any_number_of_aus(make_model, processor, pixel_values):
    asked = processor.tokenize_descriptions({"AU27": ["The mouth is stretched wide open."]})
    logits = make_model(au_projection="text")(pixel_values, **asked).logits
    assert logits.shape == (B, 1)
    with pytest.raises(ValueError, match='au_projection="text"'):
        make_model()(pixel_values, **asked)


def test_save_and_load_give_equal_logits(make_model, pixel_values, tmp_path):
    model = make_model()
    expected = model(pixel_values).logits
    model.save_pretrained(tmp_path)
    reloaded = HiVAForImageClassification.from_pretrained(tmp_path)
    assert not reloaded.training
    assert close(reloaded(pixel_values).logits, expected, 1e-6)
    base = HiVAModel.from_pretrained(tmp_path)
    assert close(base(pixel_values).au_embeds, model(pixel_values).au_embeds, 1e-6)


def test_original_key_layout_can_be_read_too(make_model, pixel_values, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path, save_original_format=True)
    reloaded = HiVAForImageClassification.from_pretrained(tmp_path)
    assert close(reloaded(pixel_values).logits, model(pixel_values).logits, 1e-6)


def test_base_model_from_a_detector_warns_of_nothing(make_model, tmp_path, capfd):
    make_model().save_pretrained(tmp_path)
    capfd.readouterr()
    _, report = HiVAModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "mismatched_keys"))
    assert "UNEXPECTED" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(make_folded, pixel_values, tmp_path, dtype):
    model = make_folded()
    expected = model(pixel_values).logits
    model.save_pretrained(tmp_path)
    half = HiVAForImageClassification.from_pretrained(tmp_path, dtype=dtype)
    assert half.dtype == dtype
    outputs = half(pixel_values.to(dtype), labels=torch.ones(B, K))
    assert outputs.logits.dtype == dtype
    assert outputs.loss.dtype == torch.float32
    assert close(outputs.logits.float(), expected, 0.1)


def test_device_map_and_meta_device(make_model, pixel_values, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    mapped = HiVAForImageClassification.from_pretrained(tmp_path, device_map="cpu")
    assert close(mapped(pixel_values).logits, model(pixel_values).logits, 1e-6)
    with torch.device("meta"):
        skeleton = HiVAForImageClassification(model.config)
    assert all(p.is_meta for p in skeleton.parameters())


@pytest.mark.parametrize("folded", [False, True])
def test_sdpa_equals_eager(make_model, make_folded, pixel_values, folded):
    model = make_folded() if folded else make_model()
    logits = {}
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert model.hiva.ddca.text_to_visual.config._attn_implementation == implementation
        logits[implementation] = model(pixel_values).logits
    assert close(logits["sdpa"], logits["eager"])


def test_gradient_checkpointing_gives_the_same_gradients(make_model, pixel_values):
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    gradients = []
    for checkpointing in (False, True):
        model = make_model(hidden_dropout_prob=0.0).train()
        for module in model.modules():
            if hasattr(module, "drop_path"):
                module.drop_path = torch.nn.Identity()
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.hiva.ddca.gradient_checkpointing
        model(pixel_values, labels=labels).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(close(gradients[0][name], gradients[1][name], 1e-6) for name in gradients[0])


@pytest.mark.parametrize("folded", [False, True])
def test_compiles_without_graph_breaks(make_model, make_folded, pixel_values, folded):
    model = make_folded() if folded else make_model()
    expected = model(pixel_values).logits
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert close(compiled(pixel_values).logits, expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("folded", [False, True])
def test_exports_with_a_dynamic_batch(make_model, make_folded, pixel_values, folded):
    model = make_folded() if folded else make_model()
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(model, (pixel_values,), dynamic_shapes={"pixel_values": {0: batch}}, strict=False)
        more = torch.rand(5, 3, SIDE, SIDE)
        assert close(program.module()(more).logits, model(more).logits)


def test_inputs_can_be_asked_to_require_gradients(make_model, pixel_values):
    model = make_model().train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    logits = model(pixel_values).logits
    assert logits.requires_grad
    model.disable_input_require_grads()
