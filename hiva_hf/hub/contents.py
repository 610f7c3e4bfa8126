"""What is sent: files that are named, checked, and free of what others must not get."""

import fnmatch
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .cards import adapter_card, card_problems, dataset_card, model_card
from .measured import is_licensed, record
from .parquet import ParquetFolder

# pickles, states of the optimizer and whatever else lies there are never sent
_MODEL_FILES = (
    "config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json", "processor_config.json",
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "*.py", "README.md", "results.json",
    "splits.json", "calibration.json", "*.png", "*.jpg",
)  # fmt: skip
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md", "results.json")
_SPACE_FILES = ("*.py", "*.md", "*.css", "requirements.txt", "packages.txt", "*.png", "*.jpg")
_DATASET_FILES = ("*.parquet", "prepare.json", "dropped.csv", "README.md")
# fields of records in which a path of this machine may stand
_PATHS = ("data", "checkpoint", "bank", "text_encoder", "boxes", "root")
_TOLERANCE = 1e-5
_BLANK = "[More Information Needed]"


@dataclass
class Upload:
    """A folder that is ready to be sent, and what stands against it.

    Args:
        folder (`Path`): Copies of the files, which go away with `close`.
        kind (`str`): `"model"`, `"adapter"`, `"dataset"` or `"space"`.
        files (`dict[str, int]`): Bytes by name.
        left_out (`list[str]`): Files that are not sent.
        problems (`list[str]`): One sentence each; with any of them nothing is sent.
    """

    folder: Path
    kind: str
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

    def close(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _staged(folder: Path, kind: str, wanted: tuple[str, ...]) -> Upload:
    """Copies of the wanted files, without paths of this machine in their records."""
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be a folder; there is none at {folder}.")
    upload = Upload(Path(tempfile.mkdtemp(prefix="hiva-upload-")), kind)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.startswith("."):
            continue
        if "/" in name or path.is_symlink() or not any(fnmatch.fnmatch(name, pattern) for pattern in wanted):
            upload.left_out.append(name)
            continue
        shutil.copyfile(path, upload.folder / name)
    for name in ("results.json", "prepare.json", "config.json", "adapter_config.json"):
        _without_paths(upload.folder / name)
    return upload


def _without_paths(file: Path) -> None:
    """A record names data by the last part of its path: where it lies here is nobody's business."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    told = [key for key in _PATHS if isinstance(content.get(key), str) and os.path.isabs(content[key])]
    if told:
        content.update({key: Path(content[key]).name for key in told})
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _with_card(upload: Upload, make) -> Upload:
    """The card of the folder, or one made of what was measured; then the account of all files."""
    place = upload.folder / "README.md"
    # peft leaves a form beside an adapter; as long as nobody has filled it in it is no card
    if place.is_file() and _BLANK in place.read_text(encoding="utf-8"):
        place.unlink()
    if not place.is_file() and not upload.problems:
        place.write_text(str(make()), encoding="utf-8")
    if place.is_file():
        text = place.read_text(encoding="utf-8")
        upload.problems += card_problems(text, upload.kind, record(upload.folder, "results.json"))
    upload.files = {path.name: path.stat().st_size for path in sorted(upload.folder.iterdir())}
    return upload


def model_upload(
    folder: str | Path, repo_id: str, license: str | None = None, datasets: list[str] | None = None
) -> Upload:
    """A detector, checked: it loads, answers with finite numbers, and with the same ones after a round trip.

    Args:
        folder (`str` or `Path`): Of the checkpoint. Its `README.md` is taken as it is; without one a card is made.
        repo_id (`str`): Where it will lie, `org/name`.
        license (`str`, *optional*): For the card that is made, see [`model_card`].
        datasets (`list[str]`, *optional*): For the card that is made.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    upload = _staged(Path(folder), "model", _MODEL_FILES)
    upload.problems += _loading_problems(upload.folder)
    return _with_card(upload, lambda: model_card(upload.folder, repo_id, license, datasets))


def _loading_problems(folder: Path) -> list[str]:
    from ..checkpoint import load_detector

    try:
        model, processor = load_detector(folder)
    except (ValueError, OSError) as error:
        return [f"The checkpoint must load; {error}"]
    size = processor.image_processor.size
    generator = torch.Generator().manual_seed(0)
    faces = torch.rand(2, 3, size["height"], size["width"], generator=generator).to(model.dtype)
    with torch.inference_mode():
        logits = model(faces).logits.float()
        if not torch.isfinite(logits).all():
            return ["The model must answer with numbers; its logits are NaN or infinite. Are its weights?"]
        with tempfile.TemporaryDirectory() as place:
            model.save_pretrained(place)
            processor.save_pretrained(place)
            again = load_detector(place)[0](faces).logits.float()
    difference = (again - logits).abs().max().item()
    if difference > _TOLERANCE:
        return [f"Logits must be the same after saving and loading; they differ by {difference:.2g}."]
    return []


def adapter_upload(
    folder: str | Path,
    repo_id: str,
    base_model: str | None = None,
    license: str | None = None,
    datasets: list[str] | None = None,
) -> Upload:
    """An adapter alone, which names its base as others find it.

    Args:
        folder (`str` or `Path`): With `adapter_config.json`, or the folder of a training with `adapter` in it.
        repo_id (`str`): Where it will lie.
        base_model (`str`, *optional*): Hub id of the detector it belongs to; by default what the adapter says.
        license (`str`, *optional*): For the card that is made.
        datasets (`list[str]`, *optional*): For the card that is made.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    folder = Path(folder)
    above = folder
    if not (folder / "adapter_config.json").is_file() and (folder / "adapter").is_dir():
        folder = folder / "adapter"
    upload = _staged(folder, "adapter", _ADAPTER_FILES)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (upload.folder / name).is_file():
            upload.problems.append(f"{folder} must hold an adapter; it lacks {name}.")
            return _with_card(upload, str)
    results = (above if above != folder else folder.parent) / "results.json"
    if results.is_file() and not (upload.folder / "results.json").is_file():
        shutil.copyfile(results, upload.folder / "results.json")
        _without_paths(upload.folder / "results.json")
    config = record(upload.folder, "adapter_config.json")
    base = base_model or config.get("base_model_name_or_path") or ""
    if base.count("/") != 1 or Path(base).exists():
        upload.problems.append(
            f"An adapter must name its base on the Hub; it names {base or 'none'}. Push the base first, and give "
            "--base org/name."
        )
    config["base_model_name_or_path"] = base
    (upload.folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return _with_card(upload, lambda: adapter_card(upload.folder, repo_id, base, license, datasets))


def dataset_upload(
    folder: str | Path, repo_id: str, license: str | None = None, datasets: list[str] | None = None
) -> Upload:
    """Prepared faces, unless their licence forbids to pass them on.

    Args:
        folder (`str` or `Path`): Parquet files.
        repo_id (`str`): Where they will lie.
        license (`str`, *optional*): Of the data, for the card that is made.
        datasets (`list[str]`, *optional*): What they were made of, where they do not say.

    Raises:
        FileNotFoundError: If there is no such folder, or no parquet file in it.
        ValueError: If they hold images or labels of a dataset whose licence forbids it.
    """
    faces = ParquetFolder.read(folder)
    names = faces.datasets or datasets or []
    closed = [name for name in names if is_licensed(name)]
    if closed and (faces.pictures or faces.coded):
        what = " and ".join(word for word, there in (("images", faces.pictures), ("labels", faces.coded)) if there)
        raise ValueError(
            f"Images and labels of {', '.join(closed)} must not be passed on, by its licence; {folder} holds {what}. "
            "Share how to make them, `hiva data prepare`, or columns of your own without them."
        )
    upload = _staged(Path(folder), "dataset", _DATASET_FILES)
    return _with_card(upload, lambda: dataset_card(upload.folder, repo_id, license, names))


def space_upload(folder: str | Path) -> Upload:
    """A Space: the demo, or a metric of evaluate, which is one too. Its `README.md` says what runs it.

    Args:
        folder (`str` or `Path`): With `README.md`.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    return _with_card(_staged(Path(folder), "space", _SPACE_FILES), str)


def shown_size(size: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


__all__ = ["Upload", "adapter_upload", "dataset_upload", "model_upload", "shown_size", "space_upload"]
