"""From picture files to a row of action units each."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .faces.alignment import FaceTemplate, box_to_points, similarity_transform, warp_face
from .image_processing_hiva import open_image
from .modeling_hiva import HiVAForImageClassification
from .processing_hiva import HiVAProcessor


@dataclass
class FacePrediction:
    """The action units of one picture.

    Args:
        path (`str`): The file.
        scores (`dict[str, float]`): By AU: probability, or intensity 0-5 from an intensity model.
        active (`list[str]`): AUs at or above their threshold; empty from an intensity model.
        box (`tuple[float, float, float, float]`, *optional*):
            x0, y0, x1, y1 of the face in pixels; `None` where the picture was taken as a face already cropped.
        image, crop (`PIL.Image.Image`): The picture, and the face as the model saw it.
        activation_maps (`np.ndarray` of shape `(num_labels, rows, columns)`, *optional*): Where each AU was seen.
    """

    path: str
    scores: dict[str, float]
    active: list[str] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None
    image: Image.Image | None = None
    crop: Image.Image | None = None
    activation_maps: np.ndarray | None = None


def find_face(image: Image.Image) -> tuple[float, float, float, float] | None:
    """The most certain frontal face, by the Haar cascade that OpenCV carries (extra `faces`).

    Args:
        image (`PIL.Image.Image`): An upright RGB picture.

    Returns:
        `tuple` x0, y0, x1, y1 in pixels, or `None` where no face is found.

    Raises:
        ImportError: If OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise ImportError(
            "Finding faces needs OpenCV; install it with `pip install 'hiva-hf[faces]'`, or give faces already cropped "
            "with `--cropped`."
        ) from None
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    smallest = max(24, min(image.size) // 12)
    boxes, _, weights = cascade.detectMultiScale3(
        np.asarray(image.convert("L")),
        scaleFactor=1.1,
        minNeighbors=5,
        minSize=(smallest, smallest),
        outputRejectLevels=True,
    )
    if len(boxes) == 0:
        return None
    # the cascade takes plain background for faces at times, larger than the real one but with less certainty
    x, y, width, height = boxes[int(np.argmax(weights))]
    return float(x), float(y), float(x + width), float(y + height)


def crop_to_box(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    """The crop of a face of which only the box is known, in the frame that training used."""
    matrix = similarity_transform(box_to_points(box), FaceTemplate().points * size)
    return warp_face(image, matrix, size)


@torch.inference_mode()
def predict_files(
    model: HiVAForImageClassification,
    processor: HiVAProcessor,
    paths: Sequence[str | Path],
    *,
    cropped: bool = False,
    maps: bool = False,
    thresholds: float | None = None,
    batch_size: int = 32,
    on_error: str = "raise",
    errors: list[str] | None = None,
) -> Iterator[FacePrediction]:
    """Predict picture files in batches, in their order.

    Args:
        model (`HiVAForImageClassification`): In evaluation mode.
        processor (`HiVAProcessor`): Of the same checkpoint.
        paths (`Sequence`): Picture files.
        cropped (`bool`, defaults to `False`): The pictures are face crops; by default the most certain face is found.
        maps (`bool`, defaults to `False`): Return activation maps.
        thresholds (`float`, *optional*): One threshold for all AUs; by default the processor's.
        batch_size (`int`, defaults to 32): Faces a forward pass.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out pictures that cannot be read or show no face.
        errors (`list[str]`, *optional*): Gets one sentence for every picture left out.

    Yields:
        [`FacePrediction`]

    Raises:
        FileNotFoundError, ValueError: For a picture that cannot be read or shows no face, unless `on_error="skip"`.
    """
    size = processor.image_processor.size["height"]
    batch: list[FacePrediction] = []
    for path in paths:
        try:
            batch.append(_read_face(Path(path), size, cropped))
        except (OSError, ValueError) as error:
            if on_error != "skip":
                raise
            if errors is not None:
                errors.append(str(error))
            continue
        if len(batch) == batch_size:
            yield from _predict_batch(model, processor, batch, maps, thresholds)
            batch = []
    if batch:
        yield from _predict_batch(model, processor, batch, maps, thresholds)


def _read_face(path: Path, size: int, cropped: bool) -> FacePrediction:
    image = open_image(path)
    if cropped:
        return FacePrediction(str(path), {}, image=image, crop=image.resize((size, size), Image.Resampling.BICUBIC))
    box = find_face(image)
    if box is None:
        raise ValueError(f"{path} must show a frontal face; none was found. Give a crop of the face with `--cropped`.")
    return FacePrediction(str(path), {}, box=box, image=image, crop=crop_to_box(image, box, size))


def _predict_batch(model, processor, batch, maps, thresholds) -> list[FacePrediction]:
    inputs = processor.image_processor([face.crop for face in batch], do_resize=False, return_tensors="pt")
    outputs = model(inputs["pixel_values"].to(model.device, model.dtype), output_activation_maps=maps)
    labels = model.config.au_names
    if model.config.problem_type == "regression":
        rows = [dict(zip(labels, row, strict=True)) for row in outputs.logits.float().clamp(0, 5).tolist()]
        active: list[list[str]] = [[] for _ in rows]
    else:
        rows = processor.post_process(outputs, labels=labels)
        kept = processor.post_process(outputs, thresholds, active_only=True, labels=labels)
        active = [list(row) for row in kept]
    for index, face in enumerate(batch):
        face.scores, face.active = rows[index], active[index]
        if outputs.activation_maps is not None:
            face.activation_maps = outputs.activation_maps[index].float().cpu().numpy()
    return batch


def write_predictions(predictions: Sequence[FacePrediction], path: str | Path) -> Path:
    """Write predictions to `.json` or `.csv`, whole or not at all.

    Args:
        predictions (`Sequence[FacePrediction]`): The rows.
        path (`str` or `Path`): The ending chooses the format.

    Raises:
        ValueError: If the ending is another one.
    """
    path = Path(path)
    if path.suffix == ".json":
        rows = [{"image": p.path, "box": p.box, "scores": p.scores, "active": p.active} for p in predictions]
        text = json.dumps(rows, indent=2) + "\n"
    elif path.suffix == ".csv":
        labels = list(predictions[0].scores) if predictions else []
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["image", "x0", "y0", "x1", "y1", *labels])
        for p in predictions:
            writer.writerow([p.path, *(p.box or ("",) * 4), *(f"{p.scores[label]:.6f}" for label in labels)])
        text = buffer.getvalue()
    else:
        raise ValueError(f"`path` must end in .json or .csv; got {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


__all__ = ["FacePrediction", "crop_to_box", "find_face", "predict_files", "write_predictions"]
