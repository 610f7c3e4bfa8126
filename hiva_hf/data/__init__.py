"""Datasets in one form, protocols that keep people apart, and what turns rows into model inputs."""

from .aff_wild2 import load_aff_wild2
from .augmentation import FaceAugmentation
from .bp4d import load_bp4d, load_bp4d_plus
from .ck_plus import load_ck_plus
from .disfa import load_disfa
from .epochs import EpochDataset
from .folder import load_folder
from .gft import load_gft
from .merging import merge_datasets, sampling_weights
from .prepared import load_prepared, stream_prepared
from .preparing import Preparation, PrepareReport, prepare_faces
from .protocols import Fold, protocol_folds
from .rendered import load_rendered
from .schema import LoadReport, au_dataset, au_names
from .splits import subject_split
from .streaming import StreamedFaces
from .transforms import FaceCollator, FaceTransform

__all__ = [
    "EpochDataset",
    "FaceAugmentation",
    "FaceCollator",
    "FaceTransform",
    "Fold",
    "LoadReport",
    "Preparation",
    "PrepareReport",
    "StreamedFaces",
    "au_dataset",
    "au_names",
    "load_aff_wild2",
    "load_bp4d",
    "load_bp4d_plus",
    "load_ck_plus",
    "load_disfa",
    "load_folder",
    "load_gft",
    "load_prepared",
    "load_rendered",
    "merge_datasets",
    "prepare_faces",
    "protocol_folds",
    "sampling_weights",
    "stream_prepared",
    "subject_split",
]
