"""Detectors as ONNX files: written, made smaller, and run without PyTorch's part of the model (extra `export`)."""

from .metadata import OnnxConfig
from .onnx_export import OnnxExport, export_onnx
from .precision import PRECISIONS
from .runtime import OnnxModel, load_onnx

__all__ = ["PRECISIONS", "OnnxConfig", "OnnxExport", "OnnxModel", "export_onnx", "load_onnx"]
