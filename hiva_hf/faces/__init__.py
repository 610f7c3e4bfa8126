"""Faces in pictures: finding them and turning them into upright crops."""

from .alignment import FaceTemplate, box_to_points, five_points, similarity_transform, warp_face

__all__ = ["FaceTemplate", "box_to_points", "five_points", "similarity_transform", "warp_face"]
