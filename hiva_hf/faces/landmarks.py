"""Landmarks of a face by a small network of our own, trained on rendered faces (`examples/train_landmarks.py`).

The network looks at a face brought roughly upright and answers with the 68 points of the Multi-PIE scheme and how
likely there is a face at all. It looks twice: from where a detector's box lets the points be expected, then from where
it saw them itself, so that a tilted head or a loose box costs little.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from .alignment import FaceTemplate, five_points, similarity_transform, warp_face

NUM_LANDMARKS = 68
WEIGHTS_FILE = Path(__file__).parent / "assets" / "landmarks.safetensors"
SIDE = 64
_SETTLED = 0.1
# wider than the crop of the model, so that chin and temples are in the picture
VIEW = 0.125 + 0.75 * FaceTemplate().points


class LandmarkNetwork(nn.Module):
    """Convolutions and two linear layers; 0.55 M parameters.

    Args:
        widths (`tuple[int, ...]`, defaults to `(24, 48, 96, 128)`): Channels; each halves the picture.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for index, width in enumerate(widths):
            layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if 0 < index < len(widths) - 1:
                layers += [nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(before * (SIDE >> len(widths)) ** 2, 128), nn.ReLU())
        self.points = nn.Linear(128, 2 * NUM_LANDMARKS)
        self.presence = nn.Linear(128, 1)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See faces.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 1, 64, 64)`): Grey views, see [`face_view`].

        Returns:
            `tuple`: Points of shape `(batch_size, 68, 2)`, x and y as fractions of the view's side, and logits of shape
            `(batch_size,)` that there is a face.
        """
        hidden = self.hidden(self.features(pixel_values))
        points = 0.5 + self.points(hidden).unflatten(-1, (NUM_LANDMARKS, 2))
        return points, self.presence(hidden).squeeze(-1)


def face_view(image: Image.Image, matrix: np.ndarray) -> np.ndarray:
    """What the network is shown.

    Args:
        image (`PIL.Image.Image`): The picture.
        matrix (`np.ndarray` of shape `(2, 3)`): From pixels of the picture to pixels of the view.

    Returns:
        `np.ndarray` of shape (64, 64): Grey, float32, mean 0 and deviation 1.
    """
    view = np.asarray(warp_face(image, matrix, SIDE).convert("L"), dtype=np.float32)
    return (view - view.mean()) / (view.std() + 1.0)


class LandmarkLocator:
    """Finds the landmarks of faces whose five points are roughly known.

    Args:
        network (`LandmarkNetwork`, *optional*): By default the one that is shipped.
        passes (`int`, defaults to 2): How often to look at most; once where the points are as expected, to a tenth of
            the distance between the eyes.
        device (`str` or `torch.device`, defaults to `"cpu"`): Where the network runs.
    """

    def __init__(self, network: LandmarkNetwork | None = None, passes: int = 2, device: str | torch.device = "cpu"):
        if network is None:
            network = LandmarkNetwork()
            network.load_state_dict(load_file(WEIGHTS_FILE))
        self.network = network.to(device).eval()
        self.passes, self.device = passes, device

    @torch.inference_mode()
    def __call__(self, image: Image.Image, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Locate the landmarks of all faces of a picture.

        Args:
            image (`PIL.Image.Image`): The picture.
            expected (`np.ndarray` of shape `(num_faces, 5, 2)`): Where their five points are expected, in pixels; see
                [`box_to_points`].

        Returns:
            `tuple`: Landmarks of shape `(num_faces, 68, 2)` in pixels, and of shape `(num_faces,)` the probability that
            there is a face.
        """
        expected = np.asarray(expected, dtype=np.float64)
        landmarks, presence = np.empty((0, NUM_LANDMARKS, 2)), np.empty(0)
        for _ in range(self.passes if len(expected) else 0):
            matrices = np.stack([similarity_transform(points, VIEW * SIDE) for points in expected])
            views = torch.from_numpy(np.stack([face_view(image, matrix) for matrix in matrices]))[:, None]
            fractions, logits = self.network(views.to(self.device))
            seen = fractions.cpu().double().numpy() * SIDE - matrices[:, None, :, 2]
            landmarks = np.einsum("fij,fpj->fpi", np.linalg.inv(matrices[:, :, :2]), seen)
            presence = logits.sigmoid().cpu().numpy()
            before, expected = expected, np.stack([five_points(points) for points in landmarks])
            eyes = np.linalg.norm(expected[:, 1] - expected[:, 0], axis=-1)
            if (np.linalg.norm(expected - before, axis=-1).max(-1) < _SETTLED * eyes).all():
                break
        return landmarks, presence


__all__ = ["NUM_LANDMARKS", "LandmarkLocator", "LandmarkNetwork", "face_view"]
