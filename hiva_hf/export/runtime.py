"""Exported files, run by onnxruntime."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..faces.pretrained import find_model_file
from ..modeling_hiva_outputs import HiVAForImageClassificationOutput
from ..processing_hiva import HiVAProcessor
from .metadata import OnnxConfig, from_metadata

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def import_onnxruntime() -> Any:
    """onnxruntime, or an error that names the extra."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError("ONNX files need onnxruntime; install it with `pip install 'hiva-hf[export]'`.") from None
    return onnxruntime


def open_session(model: bytes | str | Path, device: str = "cpu") -> Any:
    """An onnxruntime session on as many threads as torch uses.

    Args:
        model (`bytes`, `str` or `Path`): Content of an ONNX file, or its path.
        device (`str`, defaults to `"cpu"`): Or `"cuda"`.

    Raises:
        ImportError: If onnxruntime is not installed.
        RuntimeError: If onnxruntime has no such device here.
        ValueError: If it is no ONNX file.
    """
    runtime = import_onnxruntime()
    provider = _PROVIDERS.get(torch.device(device).type)
    if provider not in runtime.get_available_providers():
        known = [name for name, its in _PROVIDERS.items() if its in runtime.get_available_providers()]
        raise RuntimeError(f"onnxruntime runs on {', '.join(known)} here; its package onnxruntime-gpu adds cuda.")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # threads that wait sleep: between two batches the processor is wanted for decoding and finding faces
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=[provider]
        )
    # onnxruntime's own errors share no other base
    except Exception as error:
        named = "The file" if isinstance(model, bytes) else str(model)
        raise ValueError(f"{named} must be an ONNX file; {' '.join(str(error).split())[:200]}") from None


class OnnxModel:
    """An exported detector in place of a [`HiVAForImageClassification`], for [`ActionUnitDetector`].

    Args:
        path (`Path`): A file that [`export_onnx`] wrote.

    Raises:
        ImportError: If onnxruntime is not installed.
        ValueError: If it is no such file.
    """

    dtype = torch.float32
    # onnxruntime takes and gives arrays in main memory, wherever it computes
    device = torch.device("cpu")

    def __init__(self, path: Path):
        self.path = path
        self._session = open_session(path)
        self.config: OnnxConfig
        self.config, self.processor = from_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        sides = [self.processor.image_processor.size[name] for name in ("height", "width")]
        takes = [(item.name, item.shape[1:]) for item in self._session.get_inputs()]
        gives = [(item.name, item.shape[1:]) for item in self._session.get_outputs()]
        width = [len(self.config.au_names)]
        self._outputs = ["logits", "intensities"][: max(1, len(gives))]
        if takes != [("pixel_values", [3, *sides])] or gives != [(name, width) for name in self._outputs]:
            raise ValueError(
                f"{path} must take the pictures and give the logits that it tells of, {[3, *sides]} and "
                f"{len(self.config.au_names)}; it takes {takes} and gives {gives}."
            )
        self.config = replace(self.config, intensity_head="intensities" in self._outputs)

    @staticmethod
    def best_device() -> str:
        """`str`: `"cuda"` where onnxruntime has it, else `"cpu"`."""
        available = import_onnxruntime().get_available_providers()
        return "cuda" if torch.cuda.is_available() and _PROVIDERS["cuda"] in available else "cpu"

    def eval(self) -> "OnnxModel":
        """As of a torch module; it never trains."""
        return self

    def to(self, device: str | torch.device) -> "OnnxModel":
        """Compute on `"cpu"` or `"cuda"`; a `RuntimeError` where onnxruntime has no such device here."""
        if torch.device(device).type != "cpu":
            self._session = open_session(self.path, str(device))
        return self

    def __call__(self, pixel_values: torch.Tensor) -> HiVAForImageClassificationOutput:
        """Score every action unit of every image.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, height, width)`): Of its processor.

        Returns:
            [`HiVAForImageClassificationOutput`] with `logits` of shape (batch_size, num_labels), calibrated as those of
            the checkpoint, and where it tells them `intensities` of the same shape.
        """
        found = self._session.run(self._outputs, {"pixel_values": pixel_values.numpy()})
        logits, intensities = [*map(torch.from_numpy, found), None][:2]
        return HiVAForImageClassificationOutput(logits=logits, intensities=intensities)

    def logits(self, pixel_values: np.ndarray) -> np.ndarray:
        """The logits alone, of arrays."""
        return self._session.run(["logits"], {"pixel_values": np.asarray(pixel_values, np.float32)})[0]


def load_onnx(path: str | Path) -> tuple[OnnxModel, HiVAProcessor]:
    """An exported detector and its processor.

    Args:
        path (`str` or `Path`): A file that [`export_onnx`] wrote, or one on the Hub as `org/name/model.onnx`.

    Raises:
        FileNotFoundError, ImportError, ValueError: If there is none, onnxruntime is missing, or it is another file.
    """
    model = OnnxModel(find_model_file(path))
    return model, model.processor


__all__ = ["OnnxModel", "import_onnxruntime", "load_onnx", "open_session"]
