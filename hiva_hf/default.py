"""The checkpoint that ships inside the package, and which one is meant where none is named."""

import os
from pathlib import Path

_FOLDER = Path(__file__).parent / "default_model"


def default_checkpoint() -> Path:
    """The folder of the checkpoint that ships with the package; nothing is fetched.

    It was trained on rendered faces alone; its README.md tells how, what it can do, and what it cannot.

    Returns:
        `pathlib.Path`: For `from_pretrained` of any Auto class, and for [`ActionUnitDetector`].

    Raises:
        FileNotFoundError: If the installation lacks it.

    Example:
    ```python
    >>> import hiva_hf
    >>> from transformers import AutoModel

    >>> model = AutoModel.from_pretrained(hiva_hf.default_checkpoint())
    >>> len(model.config.au_names)
    22

    ```
    """
    if not (_FOLDER / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"`checkpoint` must be given where the package was installed without its own; {_FOLDER} holds no "
            "model.safetensors. Name a folder or a Hub id, or install hiva-hf anew."
        )
    return _FOLDER


def chosen_checkpoint() -> str:
    """`str`: What the environment variable `HIVA_CHECKPOINT` names, a folder or Hub id; else the one that ships."""
    return os.environ.get("HIVA_CHECKPOINT") or str(default_checkpoint())


__all__ = ["chosen_checkpoint", "default_checkpoint"]
