"""The import law: who may import what, read from the source and not from what happens to be installed."""

import ast
import re
import sys
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

import hiva_hf

ROOT = Path(hiva_hf.__file__).parent
PACKAGE = "hiva_hf"
TRAVELLING = (
    "_version",
    "configuration_hiva",
    "configuration_hiva_rules",
    "image_processing_hiva",
    "loss_hiva",
    "modeling_hiva",
    "modeling_hiva_attention",
    "modeling_hiva_base",
    "modeling_hiva_layers",
    "modeling_hiva_outputs",
    "modeling_hiva_text",
    "modeling_hiva_towers",
    "pipeline_hiva",
    "processing_hiva",
)
# what travels may ask for the package where it is installed, inside a function that goes on without it
ASKS = ("pipeline_hiva",)
LIBRARIES = {"torch", "numpy", "PIL", "transformers", "huggingface_hub"}
LATE = {"matplotlib", "cv2", "peft", "av", "mediapipe", "facenet_pytorch", "onnx", "onnxruntime", "onnxscript"}
WITHOUT_MODELING = ("facs", "metrics", "data", "descriptions", "faces")
LONGEST = 400
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def resolve(node, path):
    """Absolute names of what an import statement imports, the sub-modules behind `from package import module` too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = path.relative_to(ROOT.parent).parts[:-1]
        base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
    inner = [f"{base}.{alias.name}" for alias in node.names]
    return [base, *(name for name in inner if name in MODULES)]


def for_type_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def asks_for_the_package(node):
    """Whether a `try` imports the package, and does without where that fails."""
    caught = isinstance(node, ast.Try) and [handler.type and ast.unparse(handler.type) for handler in node.handlers]
    inside = node.body if caught == ["ImportError"] else []
    return bool(inside) and all(isinstance(line, ast.ImportFrom) and line.module == PACKAGE for line in inside)


def imports(path, module_level_only=False):
    """Absolute names of all imports of a file.

    Left out are those under `if TYPE_CHECKING`, which are never run, and those of the package by what travels, which
    has to work without.
    """
    found, waiting = [], list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if for_type_checkers(node):
            waiting.extend(node.orelse)
        elif path.stem in ASKS and asks_for_the_package(node):
            continue
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(resolve(node, path))
        elif not (module_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))
    return found


def top(name):
    return name.partition(".")[0]


def is_modeling(name):
    return name.startswith(f"{PACKAGE}.modeling")


def reached(start):
    """Every module of the package that importing one imports in turn, inside functions too."""
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in seen and name in MODULES:
            seen.add(name)
            waiting.extend(imports(MODULES[name]))
    return seen


def family(name):
    return [module for module in MODULES if module == f"{PACKAGE}.{name}" or module.startswith(f"{PACKAGE}.{name}.")]


def test_the_reader_sees_imports():
    # the law below is only as good as this reader
    assert {"torch", "transformers"} <= {top(name) for name in imports(MODULES["hiva_hf.modeling_hiva"])}
    assert "hiva_hf.configuration_hiva" in imports(MODULES["hiva_hf.modeling_hiva"])
    assert "hiva_hf.facs" in imports(MODULES["hiva_hf.data.rendered"])
    assert "hiva_hf.modeling_hiva" in reached("hiva_hf.training") | reached("hiva_hf.cli")
    assert "matplotlib.figure" in imports(MODULES["hiva_hf.plotting"])
    assert "matplotlib.figure" not in imports(MODULES["hiva_hf.plotting"], module_level_only=True)


@pytest.mark.parametrize("name", TRAVELLING)
def test_what_travels_imports_five_libraries_and_each_other(name):
    allowed = LIBRARIES | set(sys.stdlib_module_names)
    for imported in imports(ROOT / f"{name}.py"):
        if top(imported) == PACKAGE:
            assert imported.removeprefix(f"{PACKAGE}.") in TRAVELLING, f"{name} imports {imported}"
        else:
            assert top(imported) in allowed, f"{name} imports {imported}"


@pytest.mark.parametrize("name", TRAVELLING)
def test_siblings_are_imported_in_the_one_form_that_the_copier_reads(name):
    path = ROOT / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    siblings = set()
    asked = [line for node in ast.walk(tree) if asks_for_the_package(node) for line in node.body]
    assert bool(asked) == (name in ASKS)
    assert not [line for line in asked if line.col_offset < 8], "only inside a function"
    for node in ast.walk(tree):
        if node in asked:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, f"{name}: {ast.unparse(node)}"
            assert re.fullmatch(r"\w+", node.module or ""), f"{name}: {ast.unparse(node)}"
            assert all(alias.name != "*" for alias in node.names), f"{name}: {ast.unparse(node)}"
            siblings.add(node.module)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        absolute = isinstance(node, ast.ImportFrom) and not node.level and top(node.module or "") == PACKAGE
        assert not absolute, f"{name}: {ast.unparse(node)}"
        assert PACKAGE not in map(top, names), f"{name}: {ast.unparse(node)}"
    # its expression also reads docstrings and comments: it must find these siblings and nothing else
    assert set(get_relative_imports(path)) == siblings


@pytest.mark.parametrize(
    "name", ["configuration_hiva", "modeling_hiva", "image_processing_hiva", "processing_hiva", "pipeline_hiva"]
)
def test_the_copier_stays_among_what_travels(name):
    carried = {Path(file).stem for file in get_relative_import_files(str(ROOT / f"{name}.py"))}
    assert carried <= set(TRAVELLING)
    whole = {module.removeprefix(f"{PACKAGE}.") for module in reached(f"{PACKAGE}.{name}")}
    assert carried | {name} == whole


def test_every_modeling_file_travels():
    stems = {path.stem for path in ROOT.glob("*_hiva*.py")}
    assert stems | {"_version"} == set(TRAVELLING)


def test_facs_imports_the_standard_library_alone():
    assert {top(name) for name in imports(ROOT / "facs.py")} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", WITHOUT_MODELING)
def test_modeling_is_out_of_reach(name):
    for module in family(name):
        assert not [other for other in reached(module) if is_modeling(other)], module


def test_modeling_never_imports_adapters_data_or_the_command():
    for module in filter(is_modeling, MODULES):
        used = {top(name) for other in reached(module) for name in imports(MODULES[other])}
        assert not used & {"peft", "datasets", "openai", "anthropic", "sklearn"}, module
        assert not [other for other in reached(module) if other in family("data") + family("training")]


def test_nothing_imports_the_command():
    for module, path in MODULES.items():
        assert f"{PACKAGE}.cli" not in imports(path), module


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_extras_are_imported_where_they_are_used(path):
    assert not {top(name) for name in imports(path, module_level_only=True)} & LATE


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_package_itself_imports_nothing_but_registration():
    own = imports(ROOT / "__init__.py", module_level_only=True)
    assert {name for name in own if top(name) not in sys.stdlib_module_names} == {"hiva_hf._version", "hiva_hf.auto"}
    assert {top(name) for name in imports(ROOT / "auto.py", module_level_only=True)} <= set(sys.stdlib_module_names)
