"""Choices of the text side: some descriptions a step, and a word where a bank is another than that of the training."""

import json
import logging

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging as transformers_logging

from hiva_hf import HiVAConfig, hiva_small
from hiva_hf.checkpoint import load_detector
from hiva_hf.descriptions import load_bank
from hiva_hf.training import save_detector


@pytest.fixture
def told(monkeypatch):
    """Warnings of the package's loggers."""
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    handler = Keep(level=logging.WARNING)
    names = ("hiva_hf.checkpoint", "hiva_hf.modeling_hiva_text")
    before = transformers_logging.get_verbosity()
    for name in names:
        logging.getLogger(name).addHandler(handler)
        monkeypatch.setattr(logging.getLogger(name), "level", logging.WARNING)
    yield records
    for name in names:
        logging.getLogger(name).removeHandler(handler)
    transformers_logging.set_verbosity(before)


@pytest.mark.parametrize("kind", ["folded", "frozen", "trained"])
def test_each_step_sees_some_descriptions_and_evaluation_all(make_model, make_folded, processor, kind):
    if kind == "folded":
        model = make_folded(num_sampled_descriptions=3)
    else:
        model = make_model(num_sampled_descriptions=3)
        model.set_descriptions(**processor.tokenize_descriptions(num_descriptions=8))
        model.hiva.text_model.requires_grad_(kind == "trained")
    read = []
    with torch.no_grad():
        everything = model.eval().hiva._projected_text(None, None, None)
        model.train()
        if kind != "folded":
            # what is compared must not differ by chance
            model.hiva.text_model.eval()
            model.hiva.text_model.register_forward_pre_hook(
                lambda _, args, given: read.append(len(given["input_ids"])), with_kwargs=True
            )
        steps = [model.hiva._projected_text(None, None, None) for _ in range(30)]
    # a tower that is trained reads what is shown, one that is frozen reads all, once
    assert read == {"folded": [], "frozen": [3 * 8], "trained": [3 * 3] * 30}[kind]
    assert everything.shape[1] == 8
    seen = set()
    for step in steps:
        assert step.shape[1] == 3
        for au in range(3):
            # each is one of its own, and none twice
            places = torch.cdist(step[au], everything[au]).argmin(dim=1).tolist()
            assert torch.cdist(step[au], everything[au]).min(dim=1).values.max() < 1e-4
            assert len(set(places)) == 3
            seen |= {(au, place) for place in places}
    assert len(seen) == 3 * 8
    assert not torch.equal(steps[0], steps[1])
    # in one step, not the same places for every AU
    assert any(
        torch.cdist(step[0], everything[0]).argmin(1).tolist() != torch.cdist(step[1], everything[1]).argmin(1).tolist()
        for step in steps
    )


def test_it_trains_and_its_logits_in_evaluation_do_not_change(make_folded, pixel_values):
    model = make_folded(num_sampled_descriptions=2)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert torch.isfinite(model.train()(pixel_values, labels=labels).loss)
    with torch.no_grad():
        assert torch.equal(model.eval()(pixel_values).logits, model(pixel_values).logits)
    with pytest.raises(StrictDataclassError, match="`num_sampled_descriptions` must be at least 1"):
        HiVAConfig(num_sampled_descriptions=0)


def test_another_bank_is_told_by_name(make_model, processor, told):
    model = make_model()
    before = model.config.description_bank
    model.set_descriptions(**processor.tokenize_descriptions())
    assert told == []
    model.set_descriptions(**processor.tokenize_descriptions({au: ["x y", "z"] for au in ("AU1", "AU4", "AU12")}))
    (line,) = told
    assert f"holds descriptions of bank {before}" in line
    assert "reads those of custom" in line
    folded = hiva_small(["AU1"])[0]
    folded.set_text_embeds(folded.hiva.text_embeds, bank="mine@1")
    assert "facs-en-v1@" in told[-1]
    assert "reads those of mine@1" in told[-1]


def test_a_checkpoint_beside_another_bank_is_told(tmp_path, told):
    model, processor = hiva_small(["AU1", "AU4"])
    save_detector(model, processor, tmp_path / "run")
    load_detector(tmp_path / "run")
    assert told == []
    file = tmp_path / "run" / "processor_config.json"
    content = json.loads(file.read_text())
    content["description_bank"]["descriptions"]["AU4"]["descriptions"][0]["text"] = "Something else."
    file.write_text(json.dumps(content))
    load_detector(tmp_path / "run")
    (line,) = told
    assert f"was trained with descriptions of bank {load_bank().select(['AU1', 'AU4']).identifier}" in line
