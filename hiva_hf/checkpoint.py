"""Loading a detector with its processor, and the plain error when a folder is no checkpoint."""

from pathlib import Path
from typing import cast

from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import logging

from .modeling_hiva import HiVAForImageClassification
from .processing_hiva import HiVAProcessor, bank_identifier

logger = logging.get_logger(__name__)

_TREE = """DIR/
  config.json
  model.safetensors
  processor_config.json"""


def load_detector(name_or_path: str | Path, **kwargs) -> tuple[HiVAForImageClassification, HiVAProcessor]:
    """Load a model in evaluation mode, and its processor.

    Args:
        name_or_path (`str` or `Path`): Folder of a checkpoint, or its Hub id.
        kwargs: Passed to `HiVAForImageClassification.from_pretrained`.

    Returns:
        `tuple`: [`HiVAForImageClassification`] and [`HiVAProcessor`].

    Raises:
        FileNotFoundError: If the folder does not exist, or a file of a checkpoint is missing in it.
        ValueError: If it is the checkpoint of another kind of model, weights are missing, or its processor has other
            AUs.
    """
    folder = Path(name_or_path)
    if folder.exists():
        missing = [
            name for name in ("config.json", "model.safetensors", "processor_config.json") if not _has(folder, name)
        ]
        if missing:
            raise FileNotFoundError(
                f"{folder} must be the folder of a HiVA checkpoint; it lacks {', '.join(missing)}. Expected:\n{_TREE}"
            )
    elif str(name_or_path).count("/") != 1 or str(name_or_path).startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"`checkpoint` must be a folder or a Hub id such as org/name; there is no folder {name_or_path}. "
            f"Expected:\n{_TREE}"
        )
    model_type = AutoConfig.from_pretrained(name_or_path).model_type
    if model_type != "hiva":
        raise ValueError(f"`checkpoint` must be a HiVA model; {name_or_path} holds a model of type {model_type!r}.")
    try:
        loaded = HiVAForImageClassification.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
    except SafetensorError as error:
        raise ValueError(
            f"The weights in {name_or_path} must be a whole safetensors file; {error}. Copy the checkpoint anew."
        ) from None
    model, info = cast(tuple[HiVAForImageClassification, dict], loaded)
    absent = sorted(info["missing_keys"])
    if absent:
        raise ValueError(
            f"The weights in {name_or_path} must be those of a whole detector; {len(absent)} are missing, {absent[0]} "
            "among them. Was a base model without its head saved?"
        )
    processor = HiVAProcessor.from_pretrained(name_or_path)
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
    return model.eval(), processor


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (name == "model.safetensors" and (folder / f"{name}.index.json").is_file())


__all__ = ["load_detector"]
