"""From renders to a checkpoint, and further from there."""

import json

import pytest
import torch
import train_default
import typer
from measured import parquet  # noqa: F401
from train_default import with_what_came_before

from hiva_hf import hiva_small
from hiva_hf.checkpoint import load_detector
from hiva_hf.training import save_detector

SIZE = 64


def train(model_file, out, **options):
    fields = {
        "steps": 2, "minutes": 60, "batch_size": 4, "views": 1, "size": SIZE, "rate": 1e-3, "map_weight": 0.05,
        "faces": None, "share": 0.25, "start": None, "visual": False, "chunk": 4, "validated": 2, "seed": 0,
    }  # fmt: skip
    train_default.main(model_file, out, **{**fields, **options})
    return json.loads((out / "results.json").read_text())


def test_a_checkpoint_is_made_and_trained_further(model_file, parquet, tmp_path, capsys):  # noqa: F811
    first = train(model_file, tmp_path / "first", seed=1)
    assert "steps of 4 faces" in capsys.readouterr().out
    assert first["command"].endswith("--map-weight 0.05 --validated 2 --seed 1")
    second = train(model_file, tmp_path / "second", faces=parquet, share=0.5, start=tmp_path / "first", rate=1e-4)
    assert second["command"].startswith(first["command"] + "; python examples/train_default.py")
    assert second["command"].endswith("--faces FACES --share 0.5 --start first")
    assert second["faces"] == {"train": 32 + 16, "mixed in": 32, "validation": 8}
    assert second["seconds"] > first["seconds"]
    models = [load_detector(tmp_path / name)[0] for name in ("first", "second")]
    weights = [torch.cat([value.flatten() for value in model.parameters()]) for model in models]
    # a rate a tenth as high moved them a little from where they were
    assert 0 < (weights[0] - weights[1]).abs().max() < 1e-3
    assert models[1].config.map_loss_weight == 0.05


def test_what_cannot_be_trained_further_is_refused(model_file, tmp_path):
    made = train(model_file, tmp_path / "made", steps=1, validated=1)
    assert made["steps"] == 1
    with pytest.raises(typer.BadParameter, match=r"of 96 pixels.*at 64 pixels"):
        train(model_file, tmp_path / "other", start=tmp_path / "made", size=96)
    assert not (tmp_path / "other").exists()


def test_the_visual_model_can_begin_with_the_tower(model_file, tmp_path):
    train(model_file, tmp_path / "whole", steps=1, validated=1)
    begun = {"steps": 1, "validated": 1, "visual": True, "rate": 0.0, "seed": 3}
    record = train(model_file, tmp_path / "visual", start=tmp_path / "whole", **begun)
    assert record["command"].endswith("--start whole --visual")
    whole, visual = (load_detector(tmp_path / name)[0].hiva for name in ("whole", "visual"))
    learned = [
        (whole.vision_model.get_parameter(name), value) for name, value in visual.vision_model.named_parameters()
    ]
    assert all(torch.equal(one, other) for one, other in learned)
    assert not hasattr(visual, "ddca") or visual.ddca is None


def test_the_tower_of_another_model_is_refused(model_file, tmp_path):
    tower = {"model_type": "resnet", "layer_type": "basic", "embedding_size": 16, "hidden_sizes": [16], "depths": [1]}
    model, processor = hiva_small(["AU12"], vision_config=tower, intensity_head=True)
    processor.image_processor.size = {"height": SIZE, "width": SIZE}
    save_detector(model, processor, tmp_path / "small")
    with pytest.raises(typer.BadParameter, match="got one of another tower"):
        train(model_file, tmp_path / "other", start=tmp_path / "small", visual=True)


def test_machines_are_told_in_order(tmp_path):
    record = {"command": "b", "faces": {"train": 1, "validation": 2}, "seconds": 3.0, "machine": "two"}
    assert with_what_came_before(record, None) == record
    (tmp_path / "results.json").write_text(
        json.dumps({"command": "a", "faces": {"train": 10}, "seconds": 4.0, "machine": "one"})
    )
    both = with_what_came_before(record, tmp_path)
    assert (both["command"], both["machine"], both["seconds"]) == ("a; b", "one, then two", 7.0)
    assert both["faces"] == {"train": 11, "validation": 2}
