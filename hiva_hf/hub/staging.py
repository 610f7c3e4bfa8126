"""Copies of what is sent: the files that belong to it, without what tells of this machine."""

import csv
import fnmatch
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import RepoCard
from transformers.dynamic_module_utils import get_relative_import_files

from ..data.schema import DROPPED_FILE
from ..files import link_or_copy
from .measured import A_FOLDER, record
from .parquet import copy_parquet

_RECORDS = ("results.json", "prepare.json", "adapter_config.json")
# their strings are tokens, of which some look like paths
_TOKENS = ("tokenizer.json", "vocab.json")
# what names a model: a Hub id, or nothing
_NAMES = ("text_encoder", "_name_or_path", "name_or_path", "base_model_name_or_path")
_FIELDS = ("data", "checkpoint", "bank", "boxes", "root")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_PATH = re.compile(r"^(?:file:|[/\\~]|\.{1,2}[/\\]|[A-Za-z]:[\\/])")
_PATH_WITHIN = re.compile(r"(?<![\w/:.~])(?:file://|~|\.\.?)?(?:/[\w.+@-]+){2,}/?")
_PICTURES = (".png", ".jpg", ".jpeg")


@dataclass
class Upload:
    """A folder that is ready to be sent, and what stands against it.

    Args:
        folder (`Path`): Copies of the files, which go away with `close`.
        kind (`str`): `"model"`, `"adapter"`, `"dataset"` or `"space"`.
        source (`Path`): The folder they were copied from.
        base (`str`, *optional*): Of an adapter, the Hub id of its detector.
        files (`dict[str, int]`): Bytes by name.
        left_out (`list[str]`): Files that are not sent.
        problems (`list[str]`): One sentence each; with any of them nothing is sent.
    """

    folder: Path
    kind: str
    source: Path
    base: str | None = None
    files: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def repo_type(self) -> str:
        """`str`: As the Hub calls it."""
        return self.kind if self.kind in ("dataset", "space") else "model"

    @property
    def size(self) -> int:
        """`int`: Bytes of all files."""
        return sum(self.files.values())

    @property
    def license(self) -> str | None:
        """`str`: As the card states it; `None` where it states none or there is no card that can be read."""
        try:
            stated = RepoCard.load(self.folder / "README.md", ignore_metadata_errors=True).data.to_dict().get("license")
        except (OSError, ValueError, yaml.YAMLError):
            return None
        return stated if isinstance(stated, str) else None

    def close(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def staged(folder: Path, kind: str, wanted: tuple[str, ...]) -> Iterator[Upload]:
    """Copies of the wanted files, without paths of this machine; they go away where the block fails."""
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be a folder; there is none at {folder}.")
    for name in _RECORDS:
        record(folder, name)
    upload = Upload(Path(tempfile.mkdtemp(prefix="hiva-upload-")), kind, folder)
    try:
        belongs = _belongs(folder, kind, wanted)
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_dir() or name.startswith("."):
                continue
            if "/" in name or not belongs(name):
                upload.left_out.append(name)
            elif path.is_symlink() and not _of_the_cache(path):
                upload.left_out.append(f"{name} (a link)")
            else:
                _copy(path, upload.folder / name)
        yield upload
        # the copies are of no use to who reads this
        upload.problems = [text.replace(str(upload.folder), str(folder)) for text in upload.problems]
    except BaseException:
        upload.close()
        raise


def _of_the_cache(link: Path) -> bool:
    """Whether a link is one of those of which the Hub's cache makes its snapshots."""
    folder = link.parent.resolve()
    return folder.parent.name == "snapshots" and link.resolve().parent == folder.parent.parent / "blobs"


def _belongs(folder: Path, kind: str, wanted: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a file is sent: of a model its own code alone, and pictures that the card shows."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    code = _own_code(folder) if kind == "model" else None

    def belongs(name: str) -> bool:
        if name.endswith(".py") and code is not None:
            return name in code
        if name.lower().endswith(_PICTURES) and kind == "model":
            return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) is not None
        return any(fnmatch.fnmatch(name, pattern) for pattern in wanted)

    return belongs


def _own_code(folder: Path) -> set[str]:
    """Files of code that a checkpoint names, and those that they import."""
    modules: set[str] = set()
    for file in ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        content = _json(folder / file)
        for part in (content, content.get("image_processor")) if isinstance(content, dict) else ():
            if isinstance(part, dict):
                modules |= _modules(part.get("auto_map")) | _modules(part.get("custom_pipelines"))
    files = {folder / f"{name}.py" for name in modules}
    files |= {Path(near) for file in files if file.is_file() for near in get_relative_import_files(file)}
    return {file.name for file in files}


def _modules(named: Any) -> set[str]:
    """`modeling_hiva` of every `modeling_hiva.HiVAModel`, however deep it stands."""
    if isinstance(named, dict):
        named = list(named.values())
    if isinstance(named, list):
        return set().union(*map(_modules, named))
    return {named.split(".")[0]} if isinstance(named, str) and re.fullmatch(r"\w+\.\w+", named) else set()


def _json(file: Path) -> Any:
    """Content of a JSON file; nothing where there is none, which others complain of."""
    with suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None


def _copy(path: Path, to: Path) -> None:
    if path.suffix == ".parquet":
        copy_parquet(path.resolve(), to)
    elif path.suffix == ".safetensors":
        link_or_copy(path.resolve(), to)
    elif path.name == DROPPED_FILE:
        _copy_dropped(path, to)
    else:
        shutil.copyfile(path, to)
        if path.suffix == ".json" and path.name not in _TOKENS:
            without_paths(to)


def _copy_dropped(path: Path, to: Path) -> None:
    """Whose faces were dropped and why; where their pictures lie is nobody's business."""
    with path.open(encoding="utf-8", newline="") as file, to.open("w", encoding="utf-8", newline="") as copy:
        rows = csv.DictReader(file)
        writer = csv.DictWriter(copy, rows.fieldnames or [], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "source": "", "error": ""} for row in rows)


def without_paths(file: Path) -> None:
    """A record names data by the last part of its path: where it lies here is nobody's business."""
    content = _json(file)
    cleaned = _cleaned(content)
    if cleaned != content:
        file.write_text(json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _cleaned(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        # the server that wrote a description is its owner's
        hidden = {"where"} if key in ("provenance", "original") else set()
        return {name: _cleaned(item, name) for name, item in value.items() if name not in hidden}
    if isinstance(value, list):
        return [_cleaned(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key in _NAMES:
        # the last part of a path would look like a stranger's Hub id
        return value if _HUB_ID.fullmatch(value) and not Path(value).exists() else None
    if _PATH.match(value) or (key in _FIELDS and (value.count("/") > 1 or Path(value).exists())):
        last = PureWindowsPath(value).name or "a folder"
        return f"{A_FOLDER}{last}" if key == "checkpoint" else last
    return _PATH_WITHIN.sub(lambda match: PureWindowsPath(match[0]).name, value)


__all__ = ["Upload", "staged", "without_paths"]
