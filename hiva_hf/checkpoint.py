"""Loading a detector with its processor, and the plain error when a folder is no checkpoint.

A checkpoint comes from others: nothing in it runs, is unpickled, or says which other files are read. What its JSON
files say is looked at before anything is built from them.
"""

import json
import math
import re
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers.initialization import no_init_weights
from transformers.utils import cached_file, logging
from transformers.utils.hub import extract_commit_hash

from .configuration_hiva import HiVAConfig
from .faces import FaceTemplate
from .image_processing_hiva import HiVAImageProcessor, HiVAImageProcessorPil
from .modeling_hiva import HiVAForImageClassification
from .processing_hiva import HiVAProcessor, bank_identifier

logger = logging.get_logger(__name__)

_TREE = """DIR/
  config.json
  model.safetensors
  processor_config.json"""
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision")
# what building and loading raise for content that fits no rule of ours
_UNFIT = (
    StrictDataclassError,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
# far above any detector, far below what makes a machine run out of memory or time
_DEEPEST, _LONGEST, _LARGEST, _LAYERS = 32, 16_000_000, 10_000_000, 512
_SIZE = re.compile(r"size|dim|length|heads|channels|width|height|num_|embeddings|kernel|window|stride|rank|patch")
_COUNT = re.compile(r"layers|depth|blocks|stages|repeats|num_labels|experts")
_ANEW = "Copy the checkpoint anew, or ask its author."
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def load_detector(name_or_path: str | Path, **kwargs) -> tuple[HiVAForImageClassification, HiVAProcessor]:
    """Load a model in evaluation mode, and its processor.

    Weights are read from safetensors alone and code of the checkpoint is never run, so that a checkpoint of anybody may
    be loaded. Weights stored in half precision are computed in float32, as they were measured, and a CPU is slow in
    anything else. A `text_encoder` that names a folder of the machine it was made on is left out of the configuration.

    Args:
        name_or_path (`str` or `Path`): Folder of a checkpoint, or its Hub id.
        kwargs: Passed to `HiVAForImageClassification.from_pretrained`; `revision`, `token` and `cache_dir` hold for all
            files, and `dtype` chooses another precision.

    Returns:
        `tuple`: [`HiVAForImageClassification`] and [`HiVAProcessor`].

    Raises:
        FileNotFoundError: If the folder does not exist, or a file of a checkpoint is missing in it.
        ValueError: If it is the checkpoint of another kind of model, weights are missing or pickled, its processor has
            other AUs, or a file holds what a checkpoint cannot hold.
    """
    _check_folder(name_or_path)
    hub = {name: kwargs[name] for name in _HUB if name in kwargs}
    # all files of one commit: what is checked is what is loaded, though somebody pushes in between
    first = cached_file(str(name_or_path), "config.json", **hub)
    commit = None if Path(name_or_path).exists() else extract_commit_hash(first, None)
    if commit is not None:
        hub["revision"] = kwargs["revision"] = commit
    content = cast(dict[str, Any], _read(name_or_path, "config.json", hub))
    kind = content.get("model_type")
    if kind != "hiva":
        raise ValueError(
            f"`checkpoint` must be a HiVA model; {name_or_path} holds a model of type {_short(repr(kind))}."
        )
    _check_config(name_or_path, content)
    if cached_file(str(name_or_path), "adapter_config.json", _raise_exceptions_for_missing_entries=False, **hub):
        raise ValueError(
            f"{name_or_path} must hold either a whole detector or an adapter; it holds config.json and "
            "adapter_config.json, by which other weights would be read. Move the adapter into a folder of its own."
        )
    for file in ("processor_config.json", "tokenizer_config.json"):
        _read(name_or_path, file, hub, needed=file == "processor_config.json")
    try:
        config = HiVAConfig.from_pretrained(name_or_path, **hub)
        _check_weights(name_or_path, config, hub)
        loaded = HiVAForImageClassification.from_pretrained(
            name_or_path,
            **{"ignore_mismatched_sizes": True, "dtype": torch.float32, **kwargs},
            output_loading_info=True,
            trust_remote_code=False,
        )
    except SafetensorError as error:
        raise ValueError(f"The weights in {name_or_path} must be a whole safetensors file; {error}. {_ANEW}") from None
    except torch.OutOfMemoryError:
        raise
    except _UNFIT as error:
        raise _unfit(name_or_path, "config.json and weights of a HiVA model", error) from None
    model, info = cast(tuple[HiVAForImageClassification, dict], loaded)
    other = sorted(info["mismatched_keys"])
    if other and not kwargs.get("ignore_mismatched_sizes"):
        name, held, described = other[0]
        raise ValueError(
            f"The weights in {name_or_path} must have the shapes that config.json describes; {len(other)} have others, "
            f"{name} {tuple(held)} in place of {tuple(described)} among them. {_ANEW}"
        )
    absent = sorted(info["missing_keys"])
    if absent:
        raise ValueError(
            f"The weights in {name_or_path} must be those of a whole detector; {len(absent)} are missing, {absent[0]} "
            "among them. Was a base model without its head saved?"
        )
    try:
        processor = HiVAProcessor.from_pretrained(name_or_path, trust_remote_code=False, **hub)
        check_processor(processor)
    except _UNFIT as error:
        raise _unfit(name_or_path, "processor_config.json and tokenizer of a HiVA model", error) from None
    names = model.config.au_names
    if processor.labels and processor.labels != names:
        raise ValueError(
            f"The processor in {name_or_path} must describe the model's action units, {', '.join(names)}; "
            f"it describes {', '.join(processor.labels)}. Save model and processor together."
        )
    bank, held = processor.description_bank, model.config.description_bank
    if bank and held and bank_identifier(bank) != held:
        logger.warning(
            "%s was trained with descriptions of bank %s; the processor beside it holds %s.",
            name_or_path,
            held,
            bank_identifier(bank),
        )
    encoder = model.config.text_encoder
    if encoder is not None and model.hiva.text_model is None and not _HUB_ID.fullmatch(encoder):
        logger.warning(
            "`text_encoder` of %s names a folder, %s, and a checkpoint does not choose what is read here; give it "
            "where it is needed.",
            name_or_path,
            _short(encoder),
        )
        model.config.text_encoder = None
    # weights of convolutions in the order of their input, which is then not brought into theirs at every call
    return model.eval().to(memory_format=torch.channels_last), processor


def load_to_train(name_or_path: str | Path) -> tuple[HiVAForImageClassification, HiVAProcessor]:
    """Load a model that is to be trained further, without what belonged to the data of its training.

    Args:
        name_or_path (`str` or `Path`): Folder of a checkpoint, or its Hub id.

    Returns:
        `tuple`: As of [`load_detector`], without loss weights, calibration and thresholds.
    """
    folder = Path(name_or_path)
    # an adapter keeps where its base lies
    model, processor = load_detector(folder.resolve() if folder.is_dir() else name_or_path)
    model.config.label_weights = None
    model.config.calibration_temperatures = model.config.calibration_biases = None
    processor.thresholds = None
    return model, processor


def _check_folder(name_or_path: str | Path) -> None:
    """A folder with the files of a checkpoint, or the form of a Hub id."""
    folder = Path(name_or_path)
    if not folder.exists():
        if str(name_or_path).count("/") != 1 or str(name_or_path).startswith((".", "/", "~")):
            raise FileNotFoundError(
                f"`checkpoint` must be a folder or a Hub id such as org/name; there is no folder {name_or_path}. "
                f"Expected:\n{_TREE}"
            )
        return
    needed = ("config.json", _WEIGHTS, "processor_config.json")
    missing = [
        name for name in needed if not ((folder / name).is_file() or (name == _WEIGHTS and (folder / _INDEX).is_file()))
    ]
    pickles = sorted(path.name for ending in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*model*.{ending}"))
    if _WEIGHTS in missing and pickles:
        raise ValueError(
            f"The weights in {folder} must be {_WEIGHTS}; it holds {pickles[0]}, a pickle, which can run code when it "
            "is read. Ask its author for safetensors, or convert it where nothing can be lost."
        )
    if missing:
        raise FileNotFoundError(
            f"{folder} must be the folder of a HiVA checkpoint; it lacks {', '.join(missing)}. Expected:\n{_TREE}"
        )


def _read(name_or_path: str | Path, name: str, hub: dict, needed: bool = True) -> dict[str, Any] | None:
    """Content of a JSON file of a checkpoint, checked; None where it is not needed and not there."""
    path = cached_file(str(name_or_path), name, _raise_exceptions_for_missing_entries=needed, **hub)
    if path is None:
        return None
    rule, size = f"{name} in {name_or_path} must be a JSON object", Path(path).stat().st_size
    if size > _LONGEST:
        raise ValueError(f"{rule} of at most {_LONGEST // 1_000_000} MB; it has {size / 1e6:.0f}. {_ANEW}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{rule} of at most {_DEEPEST} levels; it has far more. {_ANEW}") from None
    except ValueError as error:
        raise ValueError(f"{rule}; {_short(error)}. {_ANEW}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{rule}; it holds a {type(content).__name__}. {_ANEW}")
    waiting: list[tuple[str, Any, int]] = [("", content, 1)]
    while waiting:
        key, value, level = waiting.pop()
        if level > _DEEPEST:
            raise ValueError(f"{rule} of at most {_DEEPEST} levels; {_short(key)} has more. {_ANEW}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{rule} of finite numbers; {_short(key)} is {value}. {_ANEW}")
        if isinstance(value, dict):
            waiting.extend((f"{key}.{inner}".lstrip("."), item, level + 1) for inner, item in value.items())
        elif isinstance(value, list):
            waiting.extend((key, item, level + 1) for item in value)
    return content


def _check_config(name_or_path: str | Path, content: dict[str, Any]) -> None:
    """Sizes that can be built, names that can be shown, and nothing that names code or files of others."""
    rule = f"config.json in {name_or_path} must"
    waiting: list[tuple[str, Any]] = list(content.items())
    while waiting:
        key, value = waiting.pop()
        if key.startswith("__") or callable(getattr(HiVAConfig, key, None)):
            raise ValueError(f"{rule} hold fields of a configuration; {_short(key)} is none. {_ANEW}")
        most = _LAYERS if _COUNT.search(key) else _LARGEST if _SIZE.search(key) else 2**63
        numbers = [value] if isinstance(value, int | float) else value if isinstance(value, list) else []
        large = [number for number in numbers if isinstance(number, int | float) and abs(number) > most]
        if large or (most < 2**63 and len(numbers) > _LAYERS):
            raise ValueError(
                f"{rule} describe a model that can be built; {key} is {_short(value)}, at most {most}. {_ANEW}"
            )
        named = value if isinstance(value, str) else ""
        if ("implementation" in key and "/" in named) or (key in ("architecture", "backbone") and ":" in named):
            raise ValueError(f"{rule} name nothing that is loaded from elsewhere; {key} is {_short(value)}. {_ANEW}")
        if isinstance(value, dict):
            # the keys of these are the checkpoint's own
            waiting.extend(() if key in ("id2label", "label2id", "custom_pipelines", "auto_map") else value.items())
        elif isinstance(value, list):
            waiting.extend(pair for item in value if isinstance(item, dict) for pair in item.items())
    names = content.get("id2label")
    if isinstance(names, dict):
        wrong = [name for name in names.values() if not is_name(name)]
        if wrong or len(names) > _LAYERS:
            raise ValueError(
                f"{rule} name at most {_LAYERS} action units, each in at most 64 letters, digits and signs other than "
                f"/ and \\; got {_short(wrong[0] if wrong else len(names))}. {_ANEW}"
            )


def is_name(name: Any) -> bool:
    """Whether it can name an action unit: short, to be shown on a terminal, and in no way a path."""
    return isinstance(name, str) and 0 < len(name.strip()) <= 64 and name.isprintable() and not set(name) & set("/\\")


def _check_weights(name_or_path: str | Path, config: HiVAConfig, hub: dict) -> None:
    """The model that the configuration describes is about as large as the weights, before memory is taken for it."""
    # where both are there transformers reads the whole file
    whole = cached_file(str(name_or_path), _WEIGHTS, _raise_exceptions_for_missing_entries=False, **hub)
    index = _read(name_or_path, _INDEX, hub, needed=False) if whole is None else None
    files = set(index["weight_map"].values()) if index is not None else {_WEIGHTS}
    elsewhere = sorted(str(file) for file in files if Path(str(file)).name != file)
    if elsewhere:
        raise ValueError(f"{_INDEX} must name files beside it; got {_short(elsewhere[0])}.")
    held = 0
    for file in files:
        with safe_open(cached_file(str(name_or_path), file, **hub), framework="pt") as weights:
            held += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    with torch.device("meta"), no_init_weights():
        described = sum(value.numel() for value in HiVAForImageClassification(config).state_dict().values())
    if described > 2 * held + 1_000_000:
        raise ValueError(f"it describes a model of {described:,} numbers, and the weights hold {held:,}")


def check_processor(processor: HiVAProcessor) -> None:
    """What would fail at the first picture only, far from its cause."""
    image_processor = processor.image_processor
    if not isinstance(image_processor, HiVAImageProcessor | HiVAImageProcessorPil):
        raise ValueError(f"`image_processor` must be a HiVAImageProcessor; got {type(image_processor).__name__}")
    sides = [image_processor.size[name] for name in ("height", "width")]
    if not all(isinstance(side, int) and 1 <= side <= 4096 for side in sides):
        raise ValueError(f"`size` must give height and width of 1 to 4096 pixels; got {_short(sides)}")
    for name in ("image_mean", "image_std"):
        values = getattr(image_processor, name)
        if len(values) != 3 or not all(isinstance(value, int | float) and abs(value) < 1e6 for value in values):
            raise ValueError(f"`{name}` must hold three numbers; got {_short(values)}")
    if not all(value > 0 for value in image_processor.image_std):
        raise ValueError(f"`image_std` must be positive; got {_short(image_processor.image_std)}")
    FaceTemplate.of(image_processor)


def _unfit(name_or_path: str | Path, what: str, error: BaseException) -> ValueError:
    if isinstance(error, StrictDataclassError):
        error = error.__cause__ or error
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return ValueError(f"{name_or_path} must hold {what}; {kind}{_short(error, 300).rstrip('.')}. {_ANEW}")


def _short(value: Any, most: int = 100) -> str:
    """As one line that a terminal can show."""
    text = " ".join(str(value).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


__all__ = ["check_processor", "is_name", "load_detector", "load_to_train"]
