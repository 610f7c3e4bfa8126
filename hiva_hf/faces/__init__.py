"""Faces in pictures and videos: finding them, following them, and turning them into upright crops."""

from .alignment import FaceTemplate, box_to_points, five_points, similarity_transform, warp_face
from .detection import Face, FaceDetector, HaarDetector, WholePicture, crop_face
from .landmarks import LandmarkLocator, LandmarkNetwork
from .pretrained import MediaPipeDetector, MTCNNDetector, YuNetDetector, load_face_detector
from .tracking import FaceTracker
from .video import VideoFrame, read_video

__all__ = [
    "Face",
    "FaceDetector",
    "FaceTemplate",
    "FaceTracker",
    "HaarDetector",
    "LandmarkLocator",
    "LandmarkNetwork",
    "MTCNNDetector",
    "MediaPipeDetector",
    "VideoFrame",
    "WholePicture",
    "YuNetDetector",
    "box_to_points",
    "crop_face",
    "five_points",
    "load_face_detector",
    "read_video",
    "similarity_transform",
    "warp_face",
]
