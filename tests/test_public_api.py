"""The public names, what `import hiva_hf` costs, and registration whatever is imported first."""

import json
import subprocess
import sys

import pytest

import hiva_hf
from hiva_hf.auto import register

NAMES = [
    "ActionUnitDetector",
    "HiVAConfig",
    "HiVAForImageClassification",
    "HiVAImageProcessor",
    "HiVAImageProcessorPil",
    "HiVAModel",
    "HiVAProcessor",
    "au_metrics",
    "build_trainer",
    "default_checkpoint",
    "hiva_small",
    "hiva_small_text",
    "training_arguments",
    "__version__",
]

AUTO = (
    "from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoProcessor"
)
FIRST = {
    "auto": f"{AUTO}\nimport hiva_hf",
    "package": f"import hiva_hf\n{AUTO}",
    "inner-module": f"import hiva_hf.modeling_hiva_towers\n{AUTO}",
    "model": f"from hiva_hf import HiVAModel\n{AUTO}",
}
REGISTERED = """
import json
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

config = AutoConfig.for_model("hiva")
print(json.dumps({
    "config": type(config).__name__,
    "models": [model.__name__ for model in MODEL_MAPPING[type(config)]],
    "detector": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)].__name__,
    "image_processors": {name: kind.__name__ for name, kind in IMAGE_PROCESSOR_MAPPING[type(config)].items()},
    "processor": PROCESSOR_MAPPING[type(config)].__name__,
}))
"""
HEAVY = ("torch", "datasets", "peft", "matplotlib", "sklearn", "cv2", "pandas", "accelerate")


def run(code):
    """What a fresh interpreter prints as its last line, read as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_public_names():
    assert hiva_hf.__all__ == NAMES
    assert dir(hiva_hf) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_resolves(name):
    value = getattr(hiva_hf, name)
    if name == "__version__":
        assert all(part.isdigit() for part in value.split(".")[:2])
    else:
        assert callable(value)
        assert value.__module__.startswith("hiva_hf.")
        assert value.__doc__


def test_an_unknown_name_lists_the_known_ones():
    names = "ActionUnitDetector, HiVAConfig, .*hiva_small"
    with pytest.raises(AttributeError, match=rf"'hiva_hf' has no attribute 'HiVA'\. It has {names}"):
        _ = hiva_hf.HiVA
    assert not hasattr(hiva_hf, "HiVA")


def test_the_names_can_be_imported_by_star():
    names: dict = {}
    exec("from hiva_hf import *", names)
    assert set(NAMES) <= set(names)


def test_importing_the_package_imports_nothing_heavy():
    code = f"""
import json, sys
import transformers
before = set(sys.modules)
import hiva_hf
after = set(sys.modules)
print(json.dumps([sorted(after - before), [name for name in {HEAVY!r} if name in after]]))
"""
    added, heavy = run(code)
    assert set(added) == {"hiva_hf", "hiva_hf._version", "hiva_hf.auto"}
    assert heavy == []


@pytest.mark.parametrize("first", FIRST)
def test_registration_works_in_every_order(first):
    found = run(FIRST[first] + REGISTERED)
    assert found == {
        "config": "HiVAConfig",
        "models": ["HiVAForImageClassification", "HiVAModel"],
        "detector": "HiVAForImageClassification",
        "image_processors": {"pil": "HiVAImageProcessorPil", "torchvision": "HiVAImageProcessor"},
        "processor": "HiVAProcessor",
    }


def tiny_config():
    return hiva_hf.HiVAConfig(
        vision_config={"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8},
        id2label={0: "AU1", 1: "AU4"},
        hidden_size=8,
        num_attention_heads=2,
        text_folded=True,
        text_embed_dim=8,
    )


def test_auto_class_builds_a_detector():
    from transformers import AutoModelForImageClassification

    assert type(AutoModelForImageClassification.from_config(tiny_config())) is hiva_hf.HiVAForImageClassification


def test_auto_model_builds_from_a_new_config():
    from transformers import AutoModel

    assert isinstance(AutoModel.from_config(tiny_config()), hiva_hf.HiVAForImageClassification | hiva_hf.HiVAModel)


@pytest.mark.parametrize("name", ["HiVAModel", "HiVAForImageClassification"])
def test_auto_model_follows_the_architecture(name):
    from transformers import AutoModel

    config = tiny_config()
    config.architectures = [name]
    assert type(AutoModel.from_config(config)) is getattr(hiva_hf, name)


def test_registering_again_changes_nothing():
    from transformers import AutoConfig

    finders = list(sys.meta_path)
    register()
    assert sys.meta_path == finders
    assert type(AutoConfig.for_model("hiva")) is hiva_hf.HiVAConfig
