"""Smaller numbers in an ONNX file: half precision, and 8-bit integers by onnxruntime's own tools."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# what is worth 8 bits; sums, norms and softmax stay as they are, where 8 bits cost more than they save
_PRODUCTS = ["MatMul", "Gemm"]
PRECISIONS = ("float32", "float16", "int8-dynamic", "int8-static")
_BATCH = 8


def convert(proto: Any, precision: str, batch: np.ndarray | None = None) -> Any:
    """An ONNX model of another precision; its input and output stay float32.

    `"float16"` halves the file and is for GPUs: on a CPU onnxruntime computes in float32 all the same.
    `"int8-dynamic"` stores the weights of matrix products in 8 bits and scales what they are multiplied with at each
    call; convolutions stay, for onnxruntime's dynamic ones are slower than those of float32. `"int8-static"` takes the
    scales from faces beforehand and includes convolutions. Weights have 7 of the 8 bits, so that sums of products fit
    on processors without VNNI, too.

    Args:
        proto (`onnx.ModelProto`): In float32.
        precision (`str`): One of `PRECISIONS`.
        batch (`np.ndarray` of shape `(num_faces, 3, height, width)`, *optional*): `pixel_values` for `"int8-static"`.

    Returns:
        `onnx.ModelProto`
    """
    if precision == "float32":
        return proto
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        half = OnnxModel(convert_float_to_float16(proto, keep_io_types=True))
        # its casts of the input stand at the end
        half.topological_sort()
        return half.model
    with tempfile.TemporaryDirectory() as folder:
        return _eight_bits(proto, precision, batch, Path(folder))


def _eight_bits(proto: Any, precision: str, batch: np.ndarray | None, folder: Path) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole, prepared, done = folder / "whole.onnx", folder / "prepared.onnx", folder / "done.onnx"
    onnx.save(proto, whole)
    # its symbolic shapes stumble over an Expand to a computed shape; the plain ones suffice
    quant_pre_process(whole, prepared, skip_symbolic_shape=True)
    options: dict[str, Any] = {"weight_type": QuantType.QInt8, "reduce_range": True}
    if precision == "int8-dynamic":
        quantize_dynamic(prepared, done, op_types_to_quantize=_PRODUCTS, **options)
    else:
        if batch is None:
            raise ValueError("`batch` must hold faces for int8-static; got none.")
        quantize_static(
            prepared,
            done,
            _reader([batch[start : start + _BATCH] for start in range(0, len(batch), _BATCH)]),
            op_types_to_quantize=["Conv", *_PRODUCTS],
            activation_type=QuantType.QUInt8,
            per_channel=True,
            **options,
        )
    return onnx.load(done)


def _reader(batches: Sequence[np.ndarray]) -> Any:
    """The faces as onnxruntime asks for them: one batch a call, then `None`."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.waiting = iter(batches)

        def get_next(self):
            batch = next(self.waiting, None)
            return None if batch is None else {"pixel_values": batch}

    return Reader()


__all__ = ["PRECISIONS", "convert"]
