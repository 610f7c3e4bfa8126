"""Registration with the Auto classes and `pipeline`, at the moment they are first imported.

Registering needs the classes, and they need torch and half of transformers. To import all of that with `import hiva_hf`
would cost several times what `import transformers` costs, so the registration waits until somebody imports the Auto
classes, who then pays for the same modules anyway.
"""

import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def _register_config() -> None:
    from transformers import AutoConfig

    from .configuration_hiva import HiVAConfig

    AutoConfig.register("hiva", HiVAConfig, exist_ok=True)


def _register_models() -> None:
    from transformers import AutoModelForImageClassification
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    from .configuration_hiva import HiVAConfig
    from .modeling_hiva import HiVAForImageClassification, HiVAModel

    # AutoModel picks by the checkpoint's `architectures`, and the detector where they do not say
    MODEL_MAPPING.register(HiVAConfig, (HiVAForImageClassification, HiVAModel), exist_ok=True)
    AutoModelForImageClassification.register(HiVAConfig, HiVAForImageClassification, exist_ok=True)


def _register_image_processors() -> None:
    from transformers import AutoImageProcessor

    from .configuration_hiva import HiVAConfig
    from .image_processing_hiva import HiVAImageProcessor, HiVAImageProcessorPil

    classes: dict[str, type] = {"pil": HiVAImageProcessorPil, "torchvision": HiVAImageProcessor}
    AutoImageProcessor.register(HiVAConfig, image_processor_classes=classes, exist_ok=True)


def _register_processor() -> None:
    from transformers import AutoProcessor

    from .configuration_hiva import HiVAConfig
    from .processing_hiva import HiVAProcessor

    AutoProcessor.register(HiVAConfig, HiVAProcessor, exist_ok=True)


class _DefaultModel:
    """Stands where transformers looks for name and revision of a task's model; found when it is asked for."""

    def __iter__(self):
        from .default import chosen_checkpoint

        return iter((chosen_checkpoint(), None))


def _register_pipeline() -> None:
    from transformers import AutoModelForImageClassification
    from transformers.pipelines import PIPELINE_REGISTRY

    from .pipeline_hiva import TASK, FacialActionUnitsPipeline

    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            FacialActionUnitsPipeline,
            pt_model=AutoModelForImageClassification,
            default={"model": _DefaultModel()},
            type="image",
        )


# the module of transformers that each registration waits for
_WAITING: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.image_processing_auto": _register_image_processors,
    "transformers.models.auto.processing_auto": _register_processor,
    "transformers.pipelines": _register_pipeline,
}


def _is_initializing(name: str) -> bool:
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)


def _register_what_can_be() -> None:
    """Register where the Auto side is complete, unless a module of ours is half-way through its own import."""
    if any(name.startswith(f"{__package__}.") and _is_initializing(name) for name in list(sys.modules)):
        return
    for module, register_ours in list(_WAITING.items()):
        if module in sys.modules and not _is_initializing(module) and _WAITING.pop(module, False):
            register_ours()


class _RegisterAfter(Loader):
    """Runs a module with its own loader, then registers what has become possible."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def __getattr__(self, name: str):
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.__spec__._initializing = False  # type: ignore[union-attr]
        _register_what_can_be()


class _AutoFinder(MetaPathFinder):
    """Finds modules as ever; the Auto modules and ours get a loader that registers afterwards."""

    def __init__(self):
        self._busy: set[str] = set()

    def find_spec(self, fullname, path=None, target=None):
        watched = fullname in _WAITING or (_WAITING and fullname.startswith(f"{__package__}."))
        if not watched or fullname in self._busy:
            return None
        self._busy.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisterAfter(spec.loader)
        return spec


def register() -> None:
    """Register HiVA with the Auto classes, and its pipeline.

    With AutoConfig, AutoModel, AutoModelForImageClassification, AutoImageProcessor and AutoProcessor, and
    `facial-action-units` with `pipeline`.

    `import hiva_hf` calls it. What transformers has not imported yet is registered when it does.
    """
    if not any(isinstance(finder, _AutoFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AutoFinder())
    _register_what_can_be()


__all__ = ["register"]
