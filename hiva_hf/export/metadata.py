"""What an exported file says of itself, so that onnxruntime and Pillow alone can use it.

ONNX keeps strings by name; each of ours is JSON.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.image_utils import PILImageResampling

from .._version import __version__
from ..checkpoint import check_processor, is_name
from ..image_processing_hiva import HiVAImageProcessorPil
from ..modeling_hiva import HiVAForImageClassification
from ..processing_hiva import HiVAProcessor

_NO_JSON = object()
# every name, and what its value must be
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "action_units": list,
    "problem_type": str,
    "calibrated": bool,
    "thresholds": dict,
    "image_size": list,
    "image_mean": list,
    "image_std": list,
    "rescale_factor": float,
    "resample": int,
    "face_template": (dict, type(None)),
    "face_alignment": (dict, type(None)),
    "precision": str,
    "weights_sha256": str,
    "hiva_version": str,
}
# what an image processor takes as it is
_OF_PICTURES = ("image_mean", "image_std", "rescale_factor", "face_template", "face_alignment")


@dataclass(frozen=True)
class OnnxConfig:
    """What a program reads of a detector's configuration, from an exported file.

    Args:
        au_names (`list[str]`): Action units, in the order of the logits.
        problem_type (`str`): As in [`HiVAConfig`].
        calibrated (`bool`): Whether the graph ends with a calibration, so that a sigmoid gives probabilities.
        precision (`str`): One of `PRECISIONS`.
        weights_sha256 (`str`): Of the `model.safetensors` that the folded model is saved with.
        use_ddca (`bool`, defaults to `False`): No maps: the file does not hold them.
        intensity_head (`bool`, defaults to `False`): Whether intensities stand beside the logits.
    """

    au_names: list[str]
    problem_type: str
    calibrated: bool
    precision: str
    weights_sha256: str
    use_ddca: bool = False
    intensity_head: bool = False


def to_metadata(
    model: HiVAForImageClassification, processor: HiVAProcessor, precision: str, weights_sha256: str
) -> dict[str, str]:
    """Strings by name for an ONNX file.

    Args:
        model (`HiVAForImageClassification`): What was exported.
        processor (`HiVAProcessor`): Its processor.
        precision (`str`): One of `PRECISIONS`.
        weights_sha256 (`str`): See [`OnnxConfig`].
    """
    images, config = processor.image_processor, model.config
    values = {
        "action_units": config.au_names,
        "problem_type": config.problem_type,
        "calibrated": config.calibration_temperatures is not None,
        "thresholds": processor.limits(config.au_names),
        "image_size": [images.size["height"], images.size["width"]],
        # steps that are left out, as steps that change nothing
        "image_mean": list(images.image_mean) if images.do_normalize else [0.0, 0.0, 0.0],
        "image_std": list(images.image_std) if images.do_normalize else [1.0, 1.0, 1.0],
        "rescale_factor": float(images.rescale_factor) if images.do_rescale else 1.0,
        "resample": int(images.resample),
        "face_template": images.face_template,
        "face_alignment": images.face_alignment,
        "precision": precision,
        "weights_sha256": weights_sha256,
        "hiva_version": __version__,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def from_metadata(found: Mapping[str, str], path: Path) -> tuple[OnnxConfig, HiVAProcessor]:
    """Configuration and processor of an exported file.

    Args:
        found (`Mapping[str, str]`): What [`to_metadata`] wrote.
        path (`Path`): The file, for errors.

    Raises:
        ValueError: If something is missing, or is not what it should be.
    """
    missing = [name for name in _FIELDS if name not in found]
    if missing:
        raise ValueError(
            f"{path} must be a file that `hiva export onnx` wrote; it does not tell its {', '.join(missing[:3])}."
        )
    values: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        try:
            values[name] = json.loads(found[name])
        except (ValueError, RecursionError):
            values[name] = _NO_JSON
        if not isinstance(values[name], kind):
            raise ValueError(f"{path} must tell its {name} as `hiva export onnx` does; got {found[name][:60]!r}.")
    height, width = [*values["image_size"], None, None][:2]
    names = values["action_units"]
    wrong = [name for name in names if not is_name(name)] or [name for name in names if names.count(name) > 1]
    if wrong or not names:
        raise ValueError(f"{path} must name action units, each once; got {ascii(wrong[0] if wrong else names)[:60]}.")
    if not 0 < values["rescale_factor"] < math.inf:
        raise ValueError(f"{path} must tell a positive rescale_factor; got {values['rescale_factor']}.")
    try:
        described: dict[str, Any] = {
            "size": {"height": height, "width": width},
            "resample": PILImageResampling(values["resample"]),
            **{name: values[name] for name in _OF_PICTURES},
        }
        processor = HiVAProcessor(
            HiVAImageProcessorPil(**described),
            thresholds=values["thresholds"],
            labels=names,
            problem_type=values["problem_type"],
        )
        check_processor(processor)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must tell how to prepare its pictures and read its answers; {error}") from None
    return (
        OnnxConfig(
            names,
            values["problem_type"],
            values["calibrated"],
            values["precision"],
            values["weights_sha256"],
        ),
        processor,
    )


__all__ = ["OnnxConfig", "from_metadata", "to_metadata"]
