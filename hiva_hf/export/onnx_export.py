"""A detector as one ONNX file, by torch's own exporter, checked against torch before it is written."""

import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from scipy.special import expit

from .._version import __version__
from ..files import whole_file
from ..modeling_hiva import HiVAForImageClassification
from ..processing_hiva import HiVAProcessor
from .metadata import to_metadata
from .precision import PRECISIONS, convert
from .runtime import OnnxModel, import_onnxruntime, open_session

if TYPE_CHECKING:
    # it brings datasets along, which a detector that runs a file does without
    from datasets import Dataset

# Gelu is one operator from here on; onnxruntime 1.18 and later run it
_OPSET = 20
# a protocol buffer holds no more
_LARGEST = 2**31 - 2**20
_BATCHES = (1, 3)
# faces that an agreement is judged on, and the fewest that scales are taken from
_JUDGED, _FEWEST = 32, 16
# largest difference of a logit, or mean difference of a score as a part of its range
_LIMITS = {
    "float32": ("largest_logit", 1e-4),
    "float16": ("mean_score", 0.01),
    "int8-dynamic": ("mean_score", 0.05),
    "int8-static": ("mean_score", 0.05),
}


@dataclass(frozen=True)
class OnnxExport:
    """What was written, and how far its answers lie from those of PyTorch.

    Args:
        path (`Path`): The file.
        precision (`str`): One of `PRECISIONS`.
        megabytes (`float`): Its size.
        folded (`bool`): Whether a text tower was folded on the way.
        faces (`int`): On how many faces both were compared, none of which took part in a quantization.
        largest_logit (`float`): Largest difference of a logit or intensity; of float32 on random pictures too.
        mean_score (`float`): Mean difference of a probability, or of an intensity divided by 5; with both the larger.
    """

    path: Path
    precision: str
    megabytes: float
    folded: bool
    faces: int
    largest_logit: float
    mean_score: float


class _Answers(torch.nn.Module):
    """Pictures in, logits and intensities out, and nothing else."""

    def __init__(self, model: HiVAForImageClassification):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.model(pixel_values=pixel_values)
        return tuple(outputs[name] for name in _outputs(self.model))


def _outputs(model: HiVAForImageClassification) -> list[str]:
    return ["logits", "intensities"] if model.config.intensity_head else ["logits"]


def export_onnx(
    model: HiVAForImageClassification,
    processor: HiVAProcessor,
    out: str | Path,
    precision: str = "float32",
    faces: "Dataset | None" = None,
    count: int = 128,
) -> OnnxExport:
    """Write a detector as an ONNX file that needs neither PyTorch nor text.

    Its one input is `pixel_values`, float32 of shape (batch, 3, height, width) with any batch; its one output `logits`,
    float32 of shape (batch, num_labels), calibrated as those of the model, and of a model with both heads a second,
    `intensities`, 0-5, of the same shape. How to prepare a picture and read the
    answer stands in its metadata, see [`OnnxConfig`] and `examples/predict_onnx.py`. The text is the stored one: of a
    model of open vocabulary, add action units with [`add_action_units`] first.

    Before the file takes its place onnxruntime runs it at two batch sizes, on random pictures and on faces. It is
    written only if logits and intensities differ by at most 1e-4 in float32; in float16 and int8, if scores on faces
    differ by at most 0.01 and 0.05 of their range on average.

    Args:
        model (`HiVAForImageClassification`): A detector; it is left as it is.
        processor (`HiVAProcessor`): Its processor.
        out (`str` or `Path`): The file, `.onnx`.
        precision (`str`, defaults to `"float32"`): Or `"float16"`, `"int8-dynamic"`, `"int8-static"`, see [`convert`].
        faces (`Dataset`, *optional*): Of [`load_prepared`], of the kind the file is for and not those it is tested on:
            to compare on, and for `"int8-static"`, which needs them, to take the scales from. By default the rendered
            sample.
        count (`int`, defaults to 128): How many of them the scales are taken from, evenly over the whole.

    Returns:
        [`OnnxExport`]

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ValueError: If an argument is none of these, torch cannot export the model, or the file does not agree with it.
    """
    out = Path(out)
    _check(model, out, precision, faces, count)
    reference = _reference(model)
    judged, calibrating = _faces(processor, faces, count if precision == "int8-static" else 0)
    folded = reference.hiva.text_model is not None
    expected = _Expected(reference, judged)
    reference.fold_text()
    digest = _digest(reference)
    with _quiet(), torch.no_grad():
        proto = convert(_trace(reference, judged.shape[1:]), precision, calibrating)
        content = _finished(proto, to_metadata(reference, processor, precision, digest))
    largest, mean = expected.differences(content, precision)
    try:
        _refuse(largest, mean, precision)
    except ValueError as error:
        other = ", or other faces" if precision == "int8-static" else ""
        raise ValueError(f"{error} Nothing was written; take another precision{other}.") from None
    with whole_file(out) as partial:
        partial.write_bytes(content)
    return OnnxExport(out, precision, len(content) / 1e6, folded, len(judged), largest, mean)


def _check(model: HiVAForImageClassification, out: Path, precision: str, faces: "Dataset | None", count: int) -> None:
    if out.suffix != ".onnx":
        raise ValueError(f"`out` must end in .onnx; got {out}.")
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
    if precision == "int8-static" and faces is None:
        raise ValueError("`faces` must be given for int8-static, which takes its scales from them; got none.")
    if count < _FEWEST:
        raise ValueError(f"`count` must be at least {_FEWEST} faces; got {count}.")
    if faces is not None and len(faces) < 2 * _FEWEST:
        raise ValueError(f"`faces` must hold at least {2 * _FEWEST} faces; got {len(faces)}.")
    size = sum(value.numel() * 4 for value in model.parameters() if value is not None)
    text = model.hiva.text_model
    size -= sum(value.numel() * 4 for value in text.parameters()) if text is not None else 0
    if size > _LARGEST:
        raise ValueError(f"`model` must fit one ONNX file, 2 GB in float32; got {size / 1e9:.1f} GB.")
    import_onnxruntime()
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Writing ONNX needs {error.name}; install it with `pip install 'hiva-hf[export]'`."
        ) from None


def _faces(processor: HiVAProcessor, faces: "Dataset | None", count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """`pixel_values` to judge on, and others to take scales from: evenly over the whole, every n-th to judge."""
    from ..data import FaceTransform, load_rendered

    faces = load_rendered() if faces is None else faces
    rows = np.unique(np.linspace(0, len(faces) - 1, count + _JUDGED).round().astype(int))
    judging = np.unique(np.linspace(0, len(rows) - 1, min(_JUDGED, len(rows) // 2 if count else len(rows))).astype(int))
    transform = FaceTransform(processor.image_processor)
    columns = [name for name in ("image", "points", "landmarks") if name in faces.column_names]
    prepared = transform(faces.select_columns(columns).select(rows)[:])["pixel_values"]
    pixels = np.stack([np.asarray(face) for face in prepared]).astype(np.float32)
    rest = np.delete(pixels, judging, axis=0)
    return pixels[judging], rest if count else None


def check_export(model: HiVAForImageClassification, processor: HiVAProcessor, path: str | Path) -> None:
    """Whether a file answers on rendered faces as a detector does, calibration and thresholds included.

    Args:
        model (`HiVAForImageClassification`): A detector; it is left as it is.
        processor (`HiVAProcessor`): Its processor.
        path (`str` or `Path`): A file of [`export_onnx`].

    Raises:
        ImportError: If onnxruntime is not installed.
        ValueError: If it is no such file, or the limits that it was written under do not hold.
    """
    exported, names = OnnxModel(Path(path)), model.config.au_names
    if exported.config.au_names != names:
        raise ValueError(f"its action units are {', '.join(exported.config.au_names)}.")
    if exported.processor.limits(names) != processor.limits(names):
        raise ValueError("its thresholds are others.")
    judged, _ = _faces(processor, None, 0)
    expected = _Expected(_reference(model), judged)
    _refuse(*expected.differences(Path(path).read_bytes(), exported.config.precision), exported.config.precision)


def _refuse(largest: float, mean: float, precision: str) -> None:
    measure, limit = _LIMITS[precision]
    found = largest if measure == "largest_logit" else mean
    # a NaN is no agreement
    if not found <= limit:
        raise ValueError(
            f"The {precision} file must agree with the model: {measure.replace('_', ' ')} difference at most "
            f"{limit:g}; got {found:.3g}."
        )


def _reference(model: HiVAForImageClassification) -> HiVAForImageClassification:
    return copy.deepcopy(model).cpu().float().eval()


def _digest(model: HiVAForImageClassification) -> str:
    """Of the weights as `save_pretrained` writes them, so that a checkpoint's file can be told from another's."""
    weights = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    return hashlib.sha256(save(weights, {"format": "pt"})).hexdigest()


def _trace(model: HiVAForImageClassification, shape: tuple[int, ...]) -> Any:
    """The graph of a folded model as an `onnx.ModelProto`."""
    # two pictures: torch takes a dimension of 1 for one that never changes
    example = torch.zeros(2, *shape)
    try:
        program = torch.onnx.export(
            _Answers(model).eval(),
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["pixel_values"],
            output_names=_outputs(model),
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    # the exporter passes on whatever went wrong inside
    except Exception as error:
        kind = getattr(model.config.vision_config, "model_type", "vision")
        raise ValueError(
            f"`model` must be one that torch can export; its {kind} tower cannot be: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    if program is None:
        raise ValueError("`model` must be one that torch can export; its exporter gave nothing.")
    return program.model_proto


def _finished(proto: Any, metadata: dict[str, str]) -> bytes:
    """The file: what the exporter noted on the way, paths of this machine among it, goes; what users need comes."""
    import onnx

    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.helper.set_model_props(proto, metadata)
    proto.producer_name, proto.producer_version = "hiva_hf", __version__
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


class _Expected:
    """What torch answers, to be compared with."""

    def __init__(self, model: HiVAForImageClassification, faces: np.ndarray):
        self.faces, self.intensity = faces, model.config.problem_type == "regression"
        chance = np.random.default_rng(0).standard_normal((max(_BATCHES), *faces.shape[1:]), np.float32)
        self.batches = [chance[:size] for size in _BATCHES] + [faces[:1], faces[1:]]
        self.names = _outputs(model)
        with torch.inference_mode():
            told = [model(torch.from_numpy(batch)) for batch in self.batches]
        self.told = {name: [outputs[name].numpy() for outputs in told] for name in self.names}

    def differences(self, content: bytes, precision: str) -> tuple[float, float]:
        """Largest difference of a logit or intensity, and mean difference of a score on faces."""
        session = open_session(content)
        given = [session.run(self.names, {"pixel_values": batch}) for batch in self.batches]
        columns = zip(self.names, zip(*given, strict=True), strict=True)
        found = np.array([self._of_output(name, column, precision) for name, column in columns])
        largest, mean = found.max(axis=0).tolist()
        return largest, mean

    def _of_output(self, name: str, given: Sequence[np.ndarray], precision: str) -> tuple[float, float]:
        # random pictures are none that scales were made for
        first = 0 if precision == "float32" else len(_BATCHES)
        pairs = list(zip(given, self.told[name], strict=True))
        largest = max(float(np.abs(found - right).max()) for found, right in pairs[first:])
        scores = [[self._score(name, value) for value in pair] for pair in pairs[len(_BATCHES) :]]
        return largest, float(np.concatenate([np.abs(found - right) for found, right in scores]).mean())

    def _score(self, name: str, values: np.ndarray) -> np.ndarray:
        return values.clip(0, 5) / 5 if self.intensity or name == "intensities" else expit(values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters and quantizers tell about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


__all__ = ["OnnxExport", "check_export", "export_onnx"]
