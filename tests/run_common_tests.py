#!/usr/bin/env python3
"""Run transformers' own common test mixins against an out-of-tree model.

Nothing of transformers' test code is in here.  The mixins are read from the sdist of the *installed* transformers
version (`pip download --no-binary :all: transformers==X`), which ships tests/test_*.py; what the sdist leaves out
(tests/generation, tests/exporters, tests/utils, utils/) is replaced with empty stand-ins.

    python run_common_tests.py SPEC.py [--suites config,model,image_processor,processor,training] [-k EXPR]
                               [--json OUT] [--sdist DIR] [--tb short] [--timeout 300]

SPEC.py is plain python and defines what it has of:

    config_class, make_config() -> config, config_kwargs (dict: init kwargs for ConfigTester)
    model_classes = [BaseModel, HeadModel, ...]           make_inputs(config, batch_size) -> dict of tensors
    make_labels(config, batch_size) -> tensor             labelled_classes (default: all whose forward has `labels`)
    image_processor_classes = {"pil": Cls, ...}, image_processor_kwargs = {...}
    processor_class, make_tokenizer(), make_image_processor(), processor_kwargs = {...}
    attributes = {"has_attentions": True, ...}            set on the model test class
    tester_attributes = {"num_hidden_layers": 2, ...}     set on the model tester object
    overrides = {"test_x": function(self) | "reason to skip"}
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tarfile
import types
import unittest
from pathlib import Path

HERE = Path(__file__).resolve()


# ----------------------------------------------------------------------------- locating the mixins
def locate_sdist(folder: str | None) -> Path:
    import transformers

    version = transformers.__version__
    cache = Path(folder or os.environ.get("TRANSFORMERS_SDIST", Path.home() / ".cache" / "transformers-sdist"))
    root = cache / f"transformers-{version}"
    if not (root / "tests" / "test_modeling_common.py").exists():
        cache.mkdir(parents=True, exist_ok=True)
        archive = cache / f"transformers-{version}.tar.gz"
        if not archive.exists():
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "-q",
                    "--no-deps",
                    "--no-binary",
                    ":all:",
                    f"transformers=={version}",
                    "-d",
                    str(cache),
                ],
                check=True,
            )
        with tarfile.open(archive) as tar:
            tar.extractall(cache, filter="data")
    (root / "tests" / "__init__.py").touch()  # in the repository, not in the sdist; the mixins read it
    return root


def stand_in(name: str, **content) -> None:
    """Put an empty module in sys.modules for a test helper that the sdist leaves out."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        dotted = ".".join(parts[:i])
        if dotted in sys.modules:
            continue
        try:
            found = importlib.util.find_spec(dotted)
        except (ImportError, ValueError):
            found = None
        if found is not None:
            if i == len(parts):
                return  # the real one is there
            continue
        module = types.ModuleType(dotted)
        module.__path__ = []
        sys.modules[dotted] = module
    for key, value in content.items():
        setattr(sys.modules[name], key, value)


def prepare(sdist: str | None) -> Path:
    root = locate_sdist(sdist)
    sys.path.insert(0, str(root))
    stand_in("tests.exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
    stand_in("tests.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    stand_in("tests.utils.test_configuration_utils", config_common_kwargs={})
    stand_in("fetch_hub_objects_for_ci", url_to_local_path=lambda url: url)
    return root


def load_spec(path: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("common_tests_spec", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["common_tests_spec"] = module
    spec.loader.exec_module(module)
    return module


# ----------------------------------------------------------------------------- the test classes
class Tester:
    """What the mixins call `self.model_tester`."""

    def __init__(self, parent, spec):
        self.parent, self.spec = parent, spec
        self.batch_size, self.is_training = 3, True
        for key, value in getattr(spec, "tester_attributes", {}).items():
            setattr(self, key, value)

    def get_config(self):
        return self.spec.make_config()

    def prepare_config_and_inputs(self):
        config = self.get_config()
        return config, self.spec.make_inputs(config, self.batch_size)

    def prepare_config_and_inputs_for_common(self):
        return self.prepare_config_and_inputs()

    def create_and_check_model(self, config, inputs):
        model = self.spec.model_classes[0](config).eval()
        return model(**inputs)


def with_overrides(cls, spec):
    for name, value in getattr(spec, "overrides", {}).items():
        if not hasattr(cls, name):
            continue
        if isinstance(value, str):
            value = unittest.skip(value)(lambda self, *a, **k: None)
        setattr(cls, name, value)
    return cls


def model_test(spec):
    from tests.test_configuration_common import ConfigTester
    from tests.test_modeling_common import ModelTesterMixin

    labelled = getattr(spec, "labelled_classes", None)
    if labelled is None:
        labelled = [c for c in spec.model_classes if "labels" in inspect.signature(c.forward).parameters]

    class CommonModelTest(ModelTesterMixin, unittest.TestCase):
        all_model_classes = tuple(spec.model_classes)
        _is_composite = bool(getattr(spec.config_class, "sub_configs", None))

        def setUp(self):
            self.model_tester = Tester(self, spec)
            self.config_tester = ConfigTester(
                self, config_class=spec.config_class, has_text_modality=False, **getattr(spec, "config_kwargs", {})
            )

        def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
            inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=False)
            if return_labels and model_class in labelled:
                inputs["labels"] = spec.make_labels(self.model_tester.get_config(), self.model_tester.batch_size)
            return inputs

        def test_forward(self):
            config, inputs = self.model_tester.prepare_config_and_inputs()
            self.model_tester.create_and_check_model(config, inputs)

    # the mixin knows models without a loss by their name in the Auto tables
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    for cls in spec.model_classes:
        if cls not in labelled:
            MODEL_MAPPING_NAMES.setdefault(f"out-of-tree-{cls.__name__}", cls.__name__)
    for key, value in getattr(spec, "attributes", {}).items():
        setattr(CommonModelTest, key, value)
    # methods that `parameterized` generated live on the mixin already; names are kept
    return with_overrides(CommonModelTest, spec)


def config_test(spec):
    from tests.test_configuration_common import ConfigTester

    class CommonConfigTest(unittest.TestCase):
        def setUp(self):
            self.model_tester = Tester(self, spec)
            self.tester = ConfigTester(
                self, config_class=spec.config_class, has_text_modality=False, **getattr(spec, "config_kwargs", {})
            )

    for name in dir(ConfigTester):
        if name.startswith(("create_and_test_", "check_config_")):
            setattr(CommonConfigTest, "test_" + name, lambda self, name=name: getattr(self.tester, name)())
    return with_overrides(CommonConfigTest, spec)


def image_processor_test(spec):
    from tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin

    class SpecImageProcessingTester(ImageProcessingTester):
        def __init__(self, parent, **kwargs):
            for key, value in getattr(spec, "image_processor_kwargs", {}).items():
                kwargs.setdefault(key, value)
            super().__init__(parent, **kwargs)

        def _get_image_processing_classes(self):
            return dict(spec.image_processor_classes)

    class CommonImageProcessorTest(ImageProcessingTestMixin, unittest.TestCase):
        image_processor_tester_class = SpecImageProcessingTester

    return with_overrides(CommonImageProcessorTest, spec)


def processor_test(spec):
    from tests.test_processing_common import ProcessorTesterMixin

    class CommonProcessorTest(ProcessorTesterMixin, unittest.TestCase):
        processor_class = spec.processor_class

        @classmethod
        def _setup_tokenizer(cls):
            return spec.make_tokenizer()

        @classmethod
        def _setup_image_processor(cls):
            return spec.make_image_processor()

        @staticmethod
        def prepare_processor_dict():
            return dict(getattr(spec, "processor_kwargs", {}))

    return with_overrides(CommonProcessorTest, spec)


def training_test(spec):
    from tests.test_training_mixin import TrainingTesterMixin

    class CommonTrainingTest(TrainingTesterMixin, unittest.TestCase):
        all_model_classes = tuple(spec.model_classes)

        def setUp(self):
            self.model_tester = Tester(self, spec)

    return with_overrides(CommonTrainingTest, spec)


SUITES = {
    "config": (config_test, "config_class"),
    "model": (model_test, "model_classes"),
    "image_processor": (image_processor_test, "image_processor_classes"),
    "processor": (processor_test, "processor_class"),
    "training": (training_test, "model_classes"),
}

# pytest imports this file again to collect it: build the classes then.
if os.environ.get("COMMON_TESTS_SPEC") and __name__ != "__main__":
    prepare(os.environ.get("COMMON_TESTS_SDIST") or None)
    _spec = load_spec(os.environ["COMMON_TESTS_SPEC"])
    for _suite in os.environ["COMMON_TESTS_SUITES"].split(","):
        _build, _needs = SUITES[_suite]
        if hasattr(_spec, _needs):
            _cls = _build(_spec)
            _cls.__module__ = __name__
            globals()[_cls.__name__] = _cls
    del _cls


# ----------------------------------------------------------------------------- command line
class Outcome:
    """A pytest plugin that keeps one outcome per test."""

    def __init__(self):
        self.rows = {}

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("::", 1)[1].replace("::", ".")
        if report.when == "call" or report.outcome != "passed":
            text = ""
            if report.outcome == "skipped":
                text = str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
            elif report.outcome == "failed":
                text = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr))
            if self.rows.get(name, {}).get("outcome") != "failed":
                self.rows[name] = {"outcome": report.outcome, "why": text[:1000], "seconds": round(report.duration, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec")
    parser.add_argument("--suites", default="config,model,image_processor,processor")
    parser.add_argument("-k", default="")
    parser.add_argument("--json")
    parser.add_argument("--sdist", help="folder that has, or gets, transformers-<version>/ with tests/")
    parser.add_argument("--tb", default="no")
    parser.add_argument("--timeout", type=int, default=300)
    a = parser.parse_args()
    import pytest

    os.environ.update(
        COMMON_TESTS_SPEC=str(Path(a.spec).resolve()), COMMON_TESTS_SUITES=a.suites, COMMON_TESTS_SDIST=a.sdist or ""
    )
    for key, value in {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}.items():
        os.environ.setdefault(key, value)
    outcome = Outcome()
    options = [
        str(HERE),
        "-c",
        os.devnull,
        "-q",
        f"--tb={a.tb}",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(HERE.parent),
        "-W",
        "ignore",
    ]
    if importlib.util.find_spec("pytest_timeout"):
        options += [f"--timeout={a.timeout}"]
    if a.k:
        options += ["-k", a.k]
    pytest.main(options, plugins=[outcome])
    table = collections.defaultdict(collections.Counter)
    for name, row in outcome.rows.items():
        table[name.split(".")[0]][row["outcome"]] += 1
    print()
    for suite, counts in table.items():
        print(f"{suite:26} " + "  ".join(f"{k} {counts[k]}" for k in ("passed", "skipped", "failed")))
    for name, row in sorted(outcome.rows.items()):
        if row["outcome"] == "failed":
            print(f"FAILED {name}: {row['why'].splitlines()[0][:200] if row['why'] else ''}")
    if a.json:
        Path(a.json).write_text(json.dumps(outcome.rows, indent=1, sort_keys=True))
    if not outcome.rows:
        print("no test was collected")
        return 1
    return int(any(r["outcome"] == "failed" for r in outcome.rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
