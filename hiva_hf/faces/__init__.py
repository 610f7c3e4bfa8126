"""Faces in pictures and videos: finding them, following them, and turning them into upright crops."""

from .alignment import FaceTemplate, box_to_points, five_points, points_to_box, similarity_transform, warp_face
from .detection import Face, FaceDetector, HaarDetector, WholePicture, crop_face
from .given import GivenFaces
from .landmarks import LandmarkLocator, LandmarkNetwork
from .pretrained import MediaPipeDetector, MTCNNDetector, YuNetDetector, load_face_detector
from .tracking import FaceFollower, FaceTracker
from .video import VideoFrame, read_video
from .webcam import read_webcam

__all__ = [
    "Face",
    "FaceDetector",
    "FaceFollower",
    "FaceTemplate",
    "FaceTracker",
    "GivenFaces",
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
    "points_to_box",
    "read_video",
    "read_webcam",
    "similarity_transform",
    "warp_face",
]
