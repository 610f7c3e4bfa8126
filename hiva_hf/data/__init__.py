"""Datasets, subject-exclusive splits, and what turns their rows into model inputs."""

from .augmentation import FaceAugmentation
from .rendered import load_rendered
from .splits import subject_split
from .transforms import FaceTransform

__all__ = ["FaceAugmentation", "FaceTransform", "load_rendered", "subject_split"]
