"""What is sent: files that are named, checked, and free of what others must not get."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from ..data.schema import DROPPED_FILE, SETTINGS_FILE
from ..lora import BASE_FILE, CALIBRATION_FILE
from .cards import adapter_card, card_problems, dataset_card, is_blank_form, model_card
from .measured import record
from .parquet import ParquetFolder
from .sources import joined_names, licensed_in, unknown_names
from .staging import Upload, staged, without_paths

# pickles, states of the optimizer and whatever else lies there are never sent
_MODEL_FILES = (
    "config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json", "processor_config.json",
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "README.md", "results.json",
    "splits.json", "calibration.json", "*.onnx",
)  # fmt: skip
_ADAPTER_FILES = (
    "adapter_config.json", "adapter_model.safetensors", BASE_FILE, CALIBRATION_FILE, "README.md", "results.json",
)  # fmt: skip
_SPACE_FILES = ("*.py", "*.md", "*.css", "requirements.txt", "packages.txt", "*.png", "*.jpg")
_DATASET_FILES = ("*.parquet", SETTINGS_FILE, DROPPED_FILE, "README.md")
_TOLERANCE = 1e-5


def _with_card(upload: Upload, make) -> Upload:
    """The card of the folder, or one made of what was measured; then the account of all files."""
    place = upload.folder / "README.md"
    if upload.kind == "adapter" and place.is_file() and is_blank_form(place.read_text(encoding="utf-8")):
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
    with staged(Path(folder), "model", _MODEL_FILES) as upload:
        from ..checkpoint import load_detector

        loaded = None
        try:
            loaded = load_detector(upload.folder)
            upload.problems += _answer_problems(*loaded) + _exported_problems(upload.folder, *loaded)
        except (ValueError, OSError) as error:
            upload.problems.append(f"The checkpoint must load; {error}")
        return _with_card(upload, lambda: model_card(upload.folder, repo_id, license, datasets, loaded))


def _answer_problems(model, processor) -> list[str]:
    """Whether it answers with numbers, and with the same after a round trip through files."""
    from ..checkpoint import load_detector

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


def _exported_problems(folder: Path, model, processor) -> list[str]:
    """Whether ONNX files beside the weights answer as the checkpoint does."""
    from ..export.onnx_export import check_export

    problems = []
    for file in sorted(folder.glob("*.onnx")):
        try:
            check_export(model, processor, file)
        except (ImportError, ValueError) as error:
            problems.append(f"{file.name} must be an export of this checkpoint; {error} Run `hiva export onnx` anew.")
    return problems


def adapter_upload(
    folder: str | Path,
    repo_id: str,
    base_model: str | None = None,
    license: str | None = None,
    datasets: list[str] | None = None,
) -> Upload:
    """An adapter alone, which names its base as others find it, with the calibration that it was measured with.

    Args:
        folder (`str` or `Path`): With `adapter_config.json`, or the folder of a training with `adapter` in it.
        repo_id (`str`): Where it will lie.
        base_model (`str`, *optional*): Hub id of the detector it belongs to; by default what the adapter says.
        license (`str`, *optional*): For the card that is made.
        datasets (`list[str]`, *optional*): For the card that is made.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    folder = above = Path(folder)
    if not (folder / "adapter_config.json").is_file() and (folder / "adapter").is_dir():
        folder = folder / "adapter"
    results = (above if above != folder else folder.parent) / "results.json"
    record(results.parent, results.name)
    with staged(folder, "adapter", _ADAPTER_FILES) as upload:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if not (upload.folder / name).is_file():
                upload.problems.append(f"{folder} must hold an adapter; it lacks {name}.")
                return _with_card(upload, str)
        upload.problems += _adapter_problems(upload.folder / "adapter_model.safetensors")
        if results.is_file() and not (upload.folder / "results.json").is_file():
            shutil.copyfile(results, upload.folder / "results.json")
            without_paths(upload.folder / "results.json")
        config = record(upload.folder, "adapter_config.json")
        base = base_model or record(folder, "adapter_config.json").get("base_model_name_or_path") or ""
        if not _is_hub_id(base):
            upload.problems.append(
                f"An adapter must name its base on the Hub; it names {base or 'none'}. Push the base first, and give "
                "--base org/name."
            )
        config["base_model_name_or_path"] = upload.base = base
        (upload.folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return _with_card(upload, lambda: adapter_card(upload.folder, repo_id, base, license, datasets))


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not Path(name).exists()


def _adapter_problems(file: Path) -> list[str]:
    """Weights that can be read, are numbers, and adapt a model in place of being one."""
    rule = "adapter_model.safetensors must hold the finite weights of a LoRA"
    try:
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
            strange = [name for name in names if "lora_" not in name]
            broken = [name for name in names if not torch.isfinite(weights.get_tensor(name)).all()]
    except SafetensorError as error:
        return [f"{rule}; it is no whole safetensors file, {error}. Save the adapter anew."]
    if not names or strange:
        return [
            f"{rule}; it holds {strange[0] if strange else 'nothing'}. Save the adapter by save_pretrained of peft."
        ]
    return [f"{rule}; {broken[0]} holds NaN or infinite numbers. Train it anew."] if broken else []


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
        ValueError: If they hold images or labels of a dataset whose licence forbids it, or whose licence nobody tells.
    """
    faces = ParquetFolder.read(folder)
    names = joined_names(faces.datasets, datasets)
    settings = record(Path(folder), SETTINGS_FILE)
    if faces.pictures or faces.coded:
        what = " and ".join(word for word, there in (("images", faces.pictures), ("labels", faces.coded)) if there)
        told = [*names, *_texts(settings)]
        closed = list(dict.fromkeys(name for text in told for name in licensed_in(text)))
        if closed:
            raise ValueError(
                f"Images and labels of {', '.join(closed)} must not be passed on, by its licence; {folder} holds "
                f"{what}. Share how to make them, `hiva data prepare`, or columns of your own without them."
            )
        unknown = unknown_names(names)
        if not names or (unknown and not datasets):
            raise ValueError(
                f"Whose {what} are in {folder} must be told before they are passed on; it names "
                f"{', '.join(unknown) or 'nobody'}. Say what they are by --trained-on, if its licence allows this."
            )
    with staged(Path(folder), "dataset", _DATASET_FILES) as upload:
        if faces.paths:
            upload.problems.append(
                f"Columns must hold no paths of this machine; {faces.paths[0]} does. Write the file without them."
            )
        if settings and DROPPED_FILE not in {path.name for path in upload.folder.iterdir()}:
            upload.problems.append(f"{folder} must be prepared to its end; run `hiva data prepare` again.")
        return _with_card(upload, lambda: dataset_card(upload.folder, repo_id, license, names))


def _texts(value) -> list[str]:
    """All texts in a record."""
    if isinstance(value, dict | list):
        return [text for item in (value.values() if isinstance(value, dict) else value) for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def space_upload(folder: str | Path) -> Upload:
    """A Space: the demo, or a metric of evaluate, which is one too. Its `README.md` says what runs it.

    Args:
        folder (`str` or `Path`): With `README.md`.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    with staged(Path(folder), "space", _SPACE_FILES) as upload:
        return _with_card(upload, str)


def shown_size(size: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


__all__ = ["adapter_upload", "dataset_upload", "model_upload", "shown_size", "space_upload"]
