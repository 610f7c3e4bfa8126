"""What the measurements of the default checkpoint share: faces of which all is known, and a checkpoint's answers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from PIL import Image

from hiva_hf.checkpoint import load_detector
from hiva_hf.faces import FaceTemplate, five_points, similarity_transform, warp_face
from hiva_hf.image_processing_hiva import upright_rgb
from hiva_hf.render import RENDERED_AUS, FaceModel, FaceRenderer, RenderedBatch, Scenes

RESULTS = Path(__file__).parent / "results" / "default"
# people that no training draws, nor the validation of one
UNSEEN = 2**41
TRAITS = ("subject", "yaw", "pitch", "skin_tone", "occluded", "glasses")


@dataclass
class KnownFaces:
    """Aligned faces and what is known of them.

    Args:
        images (`np.ndarray` of shape `(num_faces, side, side, 3)`): uint8, RGB.
        intensity (`np.ndarray` of shape `(num_faces, num_labels)`): 0-5; NaN where it is not known.
        traits (`pd.DataFrame`): A row a face with the columns `TRAITS`.
        masks (`np.ndarray` of shape `(num_faces, num_labels, side, side)`, *optional*): bool, what each AU moved.
    """

    images: np.ndarray
    intensity: np.ndarray
    traits: pd.DataFrame
    masks: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """`np.ndarray`: 1 from level A on, 0, or NaN."""
        return np.where(np.isnan(self.intensity), np.nan, (self.intensity > 0).astype(float))

    @property
    def moved(self) -> np.ndarray:
        """`np.ndarray`: The masks, of faces that were drawn with them."""
        if self.masks is None:
            raise ValueError("`faces` must be drawn with masks; these were not. Give `masks=True`.")
        return self.masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray | slice) -> "KnownFaces":
        masks = None if self.masks is None else self.masks[rows]
        return KnownFaces(self.images[rows], self.intensity[rows], self.traits.iloc[rows], masks)

    def showing(self, images: np.ndarray) -> "KnownFaces":
        """The same faces in other pictures."""
        return replace(self, images=images)


def read_faces(folder: Path, names: Sequence[str], side: int, template: FaceTemplate, count: int = 0) -> KnownFaces:
    """Rendered faces in parquet, aligned by their true landmarks.

    Args:
        folder (`Path`): Holds the parquet files.
        names (`Sequence[str]`): Action units, in the order of the columns; one that is not labelled is NaN.
        side (`int`): Of the crops, in pixels.
        template ([`FaceTemplate`]): Where the points of a face go.
        count (`int`, defaults to 0): Take so many faces, spread evenly; by default all.

    Raises:
        FileNotFoundError: If there are no faces.
        ValueError: If they tell no intensity of these action units.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"`faces` must be a folder of rendered faces in parquet; {folder} holds none.")
    table = pd.concat([pq.read_table(file).to_pandas() for file in files], ignore_index=True)
    if count and count < len(table):
        table = table.iloc[np.linspace(0, len(table) - 1, count).round().astype(int)].reset_index(drop=True)
    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(lambda row: _aligned(row, side, template), table.itertuples())))
    intensity = np.full((len(table), len(names)), np.nan)
    for column, name in enumerate(names):
        if f"{name}_intensity" in table:
            intensity[:, column] = table[f"{name}_intensity"]
    if np.isnan(intensity).all():
        raise ValueError(
            f"`faces` must tell intensities, such as AU12_intensity; {folder} tells none of {', '.join(names)}."
        )
    # what is not told of these faces is missing
    traits = table.rename(columns={"subject_id": "subject"}).reindex(columns=list(TRAITS))
    return KnownFaces(images, intensity, traits)


def _aligned(row, side: int, template: FaceTemplate) -> np.ndarray:
    image = upright_rgb(Image.open(BytesIO(row.image["bytes"])))
    matrix = similarity_transform(five_points(row.landmarks), template.points * side)
    return np.asarray(warp_face(image, matrix, side))


def draw_faces(renderer: FaceRenderer, scenes: Scenes, names: Sequence[str], masks: bool = False) -> KnownFaces:
    """Render crops as a landmark detector that is a little off would cut them out.

    Args:
        renderer ([`FaceRenderer`]): Its `size` is the side of the crops.
        scenes ([`Scenes`]): Of its `sample`.
        names (`Sequence[str]`): Action units, in the order of the columns; one that is not rendered is NaN.
        masks (`bool`, defaults to `False`): Also tell what each action unit moved.
    """
    batch = renderer.aligned(scenes, masks=masks)
    known = [name for name in names if name in RENDERED_AUS]
    places = [list(names).index(name) for name in known]
    columns = [RENDERED_AUS.index(name) for name in known]
    intensity = np.full((len(batch), len(names)), np.nan)
    intensity[:, places] = batch.intensity[:, columns].cpu().numpy()
    moved = None
    if batch.masks is not None:
        moved = np.zeros((len(batch), len(names), *batch.masks.shape[-2:]), dtype=bool)
        moved[:, places] = batch.masks[:, columns].cpu().numpy()
    return KnownFaces(batch.images.permute(0, 2, 3, 1).cpu().numpy(), intensity, _traits(batch), moved)


def _traits(batch: RenderedBatch) -> pd.DataFrame:
    held = {"subject": batch.subjects, "yaw": batch.pose[:, 0], "pitch": batch.pose[:, 1]}
    held |= {"skin_tone": batch.skin_tone, "occluded": batch.occluded, "glasses": batch.glasses}
    return pd.DataFrame({name: values.cpu().numpy() for name, values in held.items()})


def unseen_scenes(renderer: FaceRenderer, count: int, seed: int = 0) -> Scenes:
    """A picture each of so many people whom no training draws."""
    people = torch.arange(count) + UNSEEN
    return renderer.sample(people, torch.zeros_like(people), seed=seed)


class Checkpoint:
    """A checkpoint that answers for aligned faces.

    Args:
        path (`Path`): Its folder.
        device (`str`, defaults to `"cpu"`): Where it computes.
    """

    def __init__(self, path: Path, device: str = "cpu"):
        self.model, self.processor = load_detector(path)
        # weights that are stored in half precision are read in full: a CPU is slow in it
        self.model = self.model.float().to(device)
        self.names: list[str] = self.model.config.au_names
        self.side: int = self.processor.image_processor.size["height"]
        self.template = FaceTemplate.of(self.processor.image_processor)
        self.limits = np.array([self.processor.limits(self.names)[name] for name in self.names])
        weights = path / "model.safetensors"
        digest = sha256(weights.read_bytes()).hexdigest()[:12] if weights.is_file() else "in parts"
        self.described = f"{sum(p.numel() for p in self.model.parameters()) / 1e6:.1f} M parameters, weights {digest}"

    def renderer(self, path: Path, device: str = "cpu") -> FaceRenderer:
        """[`FaceRenderer`]: Of the crops that this model takes."""
        return FaceRenderer(FaceModel.load(path), size=self.side, device=device)

    def pixels(self, images: np.ndarray) -> torch.Tensor:
        """`torch.Tensor` of shape `(num_faces, 3, side, side)`: What the model sees of uint8 crops."""
        inputs = self.processor.image_processor(list(images), do_resize=False, return_tensors="pt")
        return inputs["pixel_values"].to(self.model.device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities of shape (num_faces, num_labels), and intensities where the model tells them."""
        found = [self.model(self.pixels(images[k : k + batch_size])) for k in range(0, len(images), batch_size)]
        probabilities = torch.cat([outputs.logits for outputs in found]).double().sigmoid().cpu().numpy()
        if found[0].intensities is None:
            return probabilities, None
        return probabilities, torch.cat([outputs.intensities for outputs in found]).double().cpu().numpy()


__all__ = ["RESULTS", "UNSEEN", "Checkpoint", "KnownFaces", "draw_faces", "read_faces", "unseen_scenes"]
