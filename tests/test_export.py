"""`export_onnx`: one file that onnxruntime runs at any batch, which answers as the detector and tells its use."""

import copy
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from towers import VISION

import hiva_hf
from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.data import FaceTransform, load_rendered
from hiva_hf.export import export_onnx, load_onnx
from hiva_hf.export.precision import convert
from hiva_hf.facs import ACTION_UNITS, BP4D_AUS
from hiva_hf.open_vocabulary import add_action_units

FUSION = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "graph_top_k": 2}
MOBILEVIT = {
    "image_size": 64,
    "hidden_sizes": [12, 16, 20],
    "neck_hidden_sizes": [4, 4, 8, 8, 12, 16, 20],
    "num_attention_heads": 2,
}
TOWERS = VISION | {"mobilevit": MOBILEVIT}
BP4D = list(BP4D_AUS)
SIDES = [f"AU{au}{side}" for side in "LR" for au in (1, 2, 4, 6, 10, 12, 14)]
# every tower with another kind of model
CASES = {
    "resnet": {"calibration_temperatures": [0.5] * 12, "calibration_biases": [0.25 * place for place in range(12)]},
    "swin": {"id2label": dict(enumerate([*ACTION_UNITS, *SIDES][:41]))},
    "vit": {"problem_type": "regression"},
    "convnext": {"au_projection": "text", "description_pooling": "learned"},
    "mobilevit": {"use_descriptions": False, "use_ddca": False, "use_cdca": False, "head": "linear"},
}


def detector(tower="resnet", **fields):
    """A tiny detector whose answers are neither all alike nor at an end of the scale."""
    torch.manual_seed(0)
    text = {"text_folded": True, "text_embed_dim": 6} if fields.get("use_descriptions", True) else {}
    base = {"id2label": dict(enumerate(BP4D)), "num_descriptions": 2, **text, **FUSION}
    vision = {"model_type": tower, **TOWERS[tower]}
    model = HiVAForImageClassification(HiVAConfig(**{"vision_config": vision, **base, **fields})).eval()
    names, side = model.config.au_names, vision.get("image_size", 32)
    if text:
        model.set_text_embeds(torch.randn(len(names), 2, 6))
    if model.config.problem_type == "regression":
        model.classifier.bias.data += torch.linspace(-1, 6, len(names))
    processor = HiVAProcessor(
        HiVAImageProcessorPil(size={"height": side, "width": side}, image_mean=[0.1, 0.2, 0.3]),
        labels=names,
        thresholds={names[1]: 0.25},
        problem_type=model.config.problem_type,
    )
    return model, processor


def said(model, pixel_values):
    with torch.inference_mode():
        return model(pixel_values).logits.numpy()


def session(file):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def answers(file, pixel_values):
    return session(file).run(None, {"pixel_values": pixel_values.numpy()})[0]


def told(file):
    found = session(file).get_modelmeta().custom_metadata_map
    return {name: json.loads(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    model, processor = detector("resnet", **CASES["resnet"])
    file = tmp_path_factory.mktemp("export") / "model.onnx"
    return model, processor, file, export_onnx(model, processor, file)


@pytest.mark.parametrize("tower", CASES)
def test_a_file_answers_as_the_detector_at_any_batch(tmp_path, tower):
    model, processor = detector(tower, **CASES[tower])
    file = tmp_path / "model.onnx"
    done = export_onnx(model, processor, file)
    side = processor.image_processor.size["height"]
    spread = []
    for size in (1, 2, 7):
        pixel_values = torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(size))
        right = said(model, pixel_values)
        np.testing.assert_allclose(answers(file, pixel_values), right, rtol=0, atol=1e-4)
        spread.append(right.std())
    assert min(spread) > 0.01
    assert done.largest_logit < 1e-4
    assert not done.folded
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    values = told(file)
    assert values["action_units"] == model.config.au_names
    assert len(values["action_units"]) == (41 if tower == "swin" else 12)
    assert values["problem_type"] == model.config.problem_type
    assert values["calibrated"] == (tower == "resnet")


def test_the_file_tells_all_that_its_use_needs(resnet):
    _, processor, file, done = resnet
    values = told(file)
    assert values["thresholds"] == {**dict.fromkeys(BP4D, 0.5), "AU2": 0.25}
    assert values["image_size"] == [32, 32]
    assert values["image_mean"] == [0.1, 0.2, 0.3]
    assert values["image_std"] == list(processor.image_processor.image_std)
    assert values["rescale_factor"] == pytest.approx(1 / 255)
    assert values["resample"] == 3
    assert (values["precision"], values["hiva_version"]) == ("float32", hiva_hf.__version__)
    proto = onnx.load(file)
    assert proto.producer_name == "hiva_hf"
    assert [item.type.tensor_type.shape.dim[0].dim_param for item in proto.graph.input] == ["batch"]
    # one head, one output
    assert [item.name for item in proto.graph.output] == ["logits"]
    assert not load_onnx(file)[0].config.intensity_head
    assert done.megabytes == file.stat().st_size / 1e6


def test_the_calibration_is_in_the_graph(resnet):
    model, _, file, _ = resnet
    plain = copy.deepcopy(model)
    plain.config.calibration_temperatures = plain.config.calibration_biases = None
    pixel_values = torch.randn(2, 3, 32, 32)
    expected = said(plain, pixel_values) / 0.5 + 0.25 * np.arange(12)
    np.testing.assert_allclose(answers(file, pixel_values), expected, rtol=0, atol=1e-4)


def test_weights_are_told_from_others_by_their_file(resnet, tmp_path):
    model, _, file, _ = resnet
    model.save_pretrained(tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert told(file)["weights_sha256"] == digest


def test_nothing_of_this_machine_is_in_the_file(resnet):
    content = resnet[2].read_bytes()
    for place in (Path(hiva_hf.__file__).parents[1], Path(torch.__file__).parents[1], Path.cwd()):
        assert str(place).encode() not in content
    assert b"stack_trace" not in content


def test_a_text_tower_is_folded_and_the_model_left_as_it_is(make_model, processor, tmp_path):
    model = make_model(vision_config={"model_type": "resnet", **VISION["resnet"]}).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done = export_onnx(model, processor, tmp_path / "model.onnx")
    assert done.folded
    assert model.training
    assert model.hiva.text_model is not None
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    pixel_values = torch.randn(3, 3, 32, 32)
    np.testing.assert_allclose(
        answers(tmp_path / "model.onnx", pixel_values), said(model.eval(), pixel_values), rtol=0, atol=1e-4
    )
    # of a tower of text nothing is left
    names = {item.name for item in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert names
    assert not any("text_model" in name for name in names)


def test_an_action_unit_that_was_described_is_exported_too(make_model, processor, tmp_path):
    fields = {"vision_config": {"model_type": "resnet", **VISION["resnet"]}, "au_projection": "text"}
    model, processor = add_action_units(make_model(**fields), processor, {"AU27": "The mouth is stretched wide open."})
    export_onnx(model, processor, tmp_path / "model.onnx")
    pixel_values = torch.randn(2, 3, 32, 32)
    found = answers(tmp_path / "model.onnx", pixel_values)
    assert found.shape == (2, 4)
    np.testing.assert_allclose(found, said(model, pixel_values), rtol=0, atol=1e-4)
    assert told(tmp_path / "model.onnx")["action_units"][-1] == "AU27"


@pytest.mark.parametrize("precision", ["float16", "int8-dynamic", "int8-static"])
def test_weights_of_smaller_numbers_agree_on_faces(resnet, tmp_path, precision):
    model, processor, file, _ = resnet
    known = load_rendered()
    done = export_onnx(model, processor, tmp_path / "small.onnx", precision, known, 16)
    assert 1e-5 < done.largest_logit < 1
    assert 0 < done.mean_score < 0.05
    assert told(tmp_path / "small.onnx") == told(file) | {"precision": precision}
    graph = onnx.load(tmp_path / "small.onnx").graph
    expected = {"float16": "Cast", "int8-dynamic": "MatMulInteger", "int8-static": "QuantizeLinear"}
    assert expected[precision] in {node.op_type for node in graph.node}
    kind = onnx.TensorProto.FLOAT16 if precision == "float16" else onnx.TensorProto.INT8
    held = {
        large: sum(math.prod(item.dims) for item in graph.initializer if (item.data_type == kind) == large)
        for large in (True, False)
    }
    assert held[True] > held[False]
    for size in (1, 5):
        assert answers(tmp_path / "small.onnx", torch.randn(size, 3, 32, 32)).shape == (size, 12)


def test_scales_are_taken_from_the_faces_that_are_given(resnet):
    _, processor, file, _ = resnet
    faces = FaceTransform(processor.image_processor)(load_rendered().select(range(16))[:])["pixel_values"].numpy()
    found = []
    for batch in (faces, 4 * faces):
        proto = convert(onnx.load(file), "int8-static", batch)
        found.append(onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"pixel_values": faces})[0])
    right = answers(file, torch.from_numpy(faces))
    # scales of far larger values keep less of these faces
    near, far = (np.abs(value - right).mean() for value in found)
    assert 1e-5 < near < 0.7 * far


def test_what_does_not_agree_is_not_written(tmp_path):
    model, processor = detector()
    # far above what half a float holds
    model.hiva.vision_projection.proj.weight.data *= 1e30
    (tmp_path / "model.onnx").write_bytes(b"earlier")
    with pytest.raises(ValueError, match=r"float16 file must agree.*Nothing was written; take another precision"):
        export_onnx(model, processor, tmp_path / "model.onnx", "float16")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"earlier"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "model.pt"}, "`out` must end in .onnx; got"),
        ({"precision": "int4"}, "`precision` must be one of float32, float16, int8-dynamic, int8-static; got 'int4'"),
        ({"precision": "int8-static"}, "`faces` must be given for int8-static"),
        ({"count": 3}, "`count` must be at least 16 faces; got 3"),
        ({"faces": range(5)}, "`faces` must hold at least 32 faces; got 5"),
    ],
)
def test_an_argument_that_is_none_is_told_at_once(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    model, processor = detector()
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        export_onnx(model, processor, **{"out": "model.onnx", **options})
    assert not list(tmp_path.iterdir())
