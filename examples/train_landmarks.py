"""Train the landmark network of `hiva_hf.faces` on rendered faces; prints its error on people it never saw.

    python examples/train_landmarks.py --data PACKED_FACES --output hiva_hf/faces/assets/landmarks.safetensors

Views are cut around the true points with errors larger than a detector's: turned, scaled, shifted, mirrored. A third of
the views show no face, but background, parts of faces, faces on their side or upside down, scrambled faces and texture.
The unseen people choose nothing; the last epoch is kept.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from datasets import load_dataset
from PIL import Image, ImageEnhance, ImageFilter
from safetensors.torch import save_file
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from hiva_hf.faces.alignment import five_points, similarity_transform
from hiva_hf.faces.landmarks import NUM_LANDMARKS, SIDE, VIEW, LandmarkNetwork, face_view
from hiva_hf.files import whole_file

# the number that each of the 68 points has in a mirror
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


def turned(matrix: np.ndarray, degrees: float, zoom: float, shift: np.ndarray) -> np.ndarray:
    """A view turned and scaled about its middle, then shifted by fractions of its side."""
    angle = np.deg2rad(degrees)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, SIDE / 2)
    return np.hstack([turn @ matrix[:, :2], (turn @ (matrix[:, 2] - middle) + middle + shift * SIDE)[:, None]])


def appearance(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Vary light, sharpness and resolution."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(float(rng.uniform(0.5, 1.5)))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 2))))
    return image


def texture(rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with frequency, as that of natural pictures does."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / frequency ** rng.uniform(0.3, 2)
    view = np.fft.ifft2(spectrum).real.astype(np.float32)
    return (view - view.mean()) / view.std()


class Views:
    """Rows of the dataset to views, points and presence."""

    def __init__(self, train: bool):
        self.train = train

    def face(self, image, landmarks, rng):
        """A view of the face, and its points as fractions of the view."""
        matrix = similarity_transform(five_points(landmarks), VIEW * SIDE)
        strength = 1.0 if self.train else 0.5
        shift = np.clip(rng.normal(0, 0.08 * strength, 2), -0.2, 0.2)
        matrix = turned(matrix, rng.normal(0, 15 * strength), np.exp(rng.normal(0, 0.15 * strength)), shift)
        points = (landmarks @ matrix[:, :2].T + matrix[:, 2]) / SIDE
        if self.train and rng.random() < 0.5:
            matrix = np.diag([-1.0, 1.0]) @ matrix + [[0, 0, SIDE], [0, 0, 0]]
            points = (points * [-1, 1] + [1, 0])[MIRROR]
        view = face_view(appearance(image, rng) if self.train else image, matrix)
        if self.train and rng.random() < 0.3:
            height, width = rng.integers(6, SIDE // 2, 2)
            y, x = rng.integers(0, SIDE - height), rng.integers(0, SIDE - width)
            view[y : y + height, x : x + width] = rng.normal()
        return view, points

    def nothing(self, image, landmarks, rng):
        """A view in which there is no upright face."""
        kind = rng.integers(5)
        if kind == 0:
            return texture(rng)
        matrix = similarity_transform(five_points(landmarks), VIEW * SIDE)
        zoom, degrees, shift = 1.0, rng.normal(0, 15), rng.normal(0, 0.05, 2)
        if kind == 1:
            angle = rng.uniform(0, 2 * np.pi)
            shift = rng.uniform(0.6, 1.2) * np.array([np.cos(angle), np.sin(angle)])
        elif kind == 2:
            zoom = rng.uniform(2.2, 4)
            shift = rng.uniform(-0.8, 0.8, 2)
        elif kind == 3:
            degrees = rng.uniform(90, 270)
        view = face_view(appearance(image, rng), turned(matrix, degrees, zoom, shift))
        if kind == 4:
            quarter = SIDE // 4
            tiles = view.reshape(4, quarter, 4, quarter).swapaxes(1, 2).reshape(16, quarter, quarter)
            view = rng.permutation(tiles).reshape(4, 4, quarter, quarter).swapaxes(1, 2).reshape(SIDE, SIDE)
        return view

    def __call__(self, batch):
        """Process a batch of columns."""
        views, points, presence = [], [], []
        for image, landmarks in zip(batch["image"], batch["landmarks"], strict=True):
            rng = np.random.default_rng(int(torch.randint(2**63 - 1, ()).item()))
            image, landmarks = image.convert("RGB"), np.asarray(landmarks, dtype=np.float64).reshape(-1, 2)
            if rng.random() < 0.7:
                # the renders end close to the face; most pictures go on
                margin = image.width // 2
                pixels = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
                image, landmarks = Image.fromarray(pixels), landmarks + margin
            present = rng.random() >= 1 / 3
            if present:
                view, place = self.face(image, landmarks, rng)
            else:
                view, place = self.nothing(image, landmarks, rng), np.zeros((NUM_LANDMARKS, 2))
            views.append(view)
            points.append(place)
            presence.append(float(present))
        return {
            "pixel_values": torch.tensor(np.stack(views), dtype=torch.float32)[:, None],
            "points": torch.tensor(np.stack(points), dtype=torch.float32),
            "presence": torch.tensor(presence),
        }


class LandmarkLoss(nn.Module):
    """The network and what it is trained by."""

    def __init__(self, network: LandmarkNetwork):
        super().__init__()
        self.network = network

    def forward(self, pixel_values, points, presence):
        """Loss, points and logits of presence."""
        found, logits = self.network(pixel_values)
        distance = nn.functional.smooth_l1_loss(found, points, reduction="none", beta=0.02).mean(dim=(1, 2))
        located = (distance * presence).sum() / presence.sum().clamp(min=1)
        existence = nn.functional.binary_cross_entropy_with_logits(logits, presence)
        return {"loss": located + 0.05 * existence, "points": found, "logits": logits}


def score(prediction) -> dict[str, float]:
    """Mean error in percent of the distance between the eyes, and how often presence is told rightly."""
    found, logits = prediction.predictions
    points, presence = prediction.label_ids
    errors = []
    for mine, true in zip(found[presence == 1], points[presence == 1], strict=True):
        five = five_points(true)
        errors.append(np.linalg.norm(mine - true, axis=1).mean() / np.linalg.norm(five[1] - five[0]))
    return {"error_percent": 100 * float(np.mean(errors)), "presence": float(((logits > 0) == (presence == 1)).mean())}


def main(
    data: Annotated[Path, typer.Option(help="Folder of packed rendered faces.")],
    output: Annotated[Path, typer.Option(help="File for the weights.")],
    unseen: Annotated[str, typer.Option(help="First and last subject that training never sees.")] = "S128-S159",
    epochs: Annotated[int, typer.Option(min=1)] = 40,
    seed: int = 0,
):
    set_seed(seed)
    dataset = load_dataset("parquet", data_dir=str(data), split="train").select_columns(
        ["image", "subject_id", "landmarks"]
    )
    first, last = unseen.split("-")
    held_out = np.array([first <= subject <= last for subject in dataset["subject_id"]])
    parts = {"train": dataset.select(np.flatnonzero(~held_out)), "test": dataset.select(np.flatnonzero(held_out))}
    network = LandmarkNetwork()
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters,", *map(len, parts.values()), "faces")
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            per_device_eval_batch_size=128,
            learning_rate=2e-3,
            weight_decay=0.01,
            warmup_steps=0.05,
            lr_scheduler_type="cosine",
            logging_strategy="epoch",
            eval_strategy="epoch",
            save_strategy="no",
            remove_unused_columns=False,
            label_names=["points", "presence"],
            dataloader_num_workers=2,
            dataloader_persistent_workers=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            report_to="none",
            seed=seed,
        )
        trainer = Trainer(
            LandmarkLoss(network),
            arguments,
            train_dataset=parts["train"].with_transform(Views(train=True)),
            eval_dataset=parts["test"].with_transform(Views(train=False)),
            compute_metrics=score,
        )
        trainer.train()
    with whole_file(output) as partial:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, partial)
    print(f"Wrote {output}, {output.stat().st_size / 2**20:.2f} MB")


if __name__ == "__main__":
    typer.run(main)
