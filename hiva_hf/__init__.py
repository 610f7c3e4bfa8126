"""hiva_hf: facial Action Unit detection with HiVA, as a transformers model.

`import hiva_hf` registers HiVA with the Auto classes of transformers and does nothing else; each name below is imported
when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__
from .auto import register

if TYPE_CHECKING:
    from .configuration_hiva import HiVAConfig as HiVAConfig
    from .default import default_checkpoint as default_checkpoint
    from .detector import ActionUnitDetector as ActionUnitDetector
    from .image_processing_hiva import HiVAImageProcessor as HiVAImageProcessor
    from .image_processing_hiva import HiVAImageProcessorPil as HiVAImageProcessorPil
    from .metrics import au_metrics as au_metrics
    from .modeling_hiva import HiVAForImageClassification as HiVAForImageClassification
    from .modeling_hiva import HiVAModel as HiVAModel
    from .presets import hiva_small as hiva_small
    from .presets import hiva_small_text as hiva_small_text
    from .processing_hiva import HiVAProcessor as HiVAProcessor
    from .training import build_trainer as build_trainer
    from .training import training_arguments as training_arguments

_MODULES = {
    "ActionUnitDetector": ".detector",
    "HiVAConfig": ".configuration_hiva",
    "HiVAForImageClassification": ".modeling_hiva",
    "HiVAImageProcessor": ".image_processing_hiva",
    "HiVAImageProcessorPil": ".image_processing_hiva",
    "HiVAModel": ".modeling_hiva",
    "HiVAProcessor": ".processing_hiva",
    "au_metrics": ".metrics",
    "build_trainer": ".training",
    "default_checkpoint": ".default",
    "hiva_small": ".presets",
    "hiva_small_text": ".presets",
    "training_arguments": ".training",
}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module 'hiva_hf' has no attribute {name!r}. It has {', '.join(_MODULES)}.")
    if name == "HiVAImageProcessor":
        # as in transformers: without torchvision the name means the Pillow backend
        from transformers.utils import is_torchvision_available

        name = name if is_torchvision_available() else "HiVAImageProcessorPil"
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register()
