"""Faces that nobody has, rendered with what they do written on them: needs the face model ICT-FaceKit."""

from .action_units import RENDERED_AUS
from .dataset import Rendering, render_faces, write_faces
from .face_model import FaceModel
from .faces import FaceRenderer, RenderedBatch
from .scene import Scenes, sample_scenes

__all__ = [
    "RENDERED_AUS",
    "FaceModel",
    "FaceRenderer",
    "RenderedBatch",
    "Rendering",
    "Scenes",
    "render_faces",
    "sample_scenes",
    "write_faces",
]
