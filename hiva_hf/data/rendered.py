"""Rendered faces: the embedded sample of 600 pictures, and folders of the same form.

The faces are rendered from ICT-FaceKit (MIT licence, University of Southern California Institute for Creative
Technologies; Li et al., *Learning Formation of Physically-Based Face Attributes*, CVPR 2020). Nobody in them exists.
Labels are what the face was told to do, not what a human coder saw.
"""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from ..facs import BP4D_AUS
from .prepared import load_prepared

SAMPLE_FILE = Path(__file__).parent / "assets" / "rendered_sample.parquet"


def load_rendered(
    root: str | Path | None = None,
    *,
    aus: Sequence[str] = BP4D_AUS,
    intensity: bool = False,
    subjects: Sequence[str] | None = None,
    allow_uncoded: bool = False,
) -> Dataset:
    """Load rendered faces.

    Args:
        root (`str` or `Path`, *optional*):
            A parquet file or a folder of them; by default the embedded sample (24 subjects of 25 frames, 128 pixels).
        aus (`Sequence[str]`, defaults to the 12 AUs of BP4D): Which AUs, in the order of the labels.
        intensity (`bool`, defaults to `False`): Labels are intensities 0-5 in place of occurrence 0/1.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.
        allow_uncoded (`bool`, defaults to `False`): As of [`load_prepared`].

    Returns:
        `datasets.Dataset`, see [`load_prepared`].

    Raises:
        FileNotFoundError: If there is no parquet file.
        ValueError: If an AU is not in the files, or no subject is left.
    """
    root = SAMPLE_FILE if root is None else root
    return load_prepared(root, aus=aus, intensity=intensity, subjects=subjects, allow_uncoded=allow_uncoded)


__all__ = ["SAMPLE_FILE", "load_rendered"]
