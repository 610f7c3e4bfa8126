"""The pipeline `facial-action-units`: pictures in, every face with its action units out.

With hiva_hf installed, faces are found and aligned as [`ActionUnitDetector`] does it, and the numbers are the same.
Beside a checkpoint on the Hub this file works without hiva_hf too; faces must be given then.
"""

from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import HTTPError
from PIL import Image
from torch.utils.data import DataLoader
from transformers.image_utils import load_image
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils import logging

from .image_processing_hiva import open_image, upright_rgb

logger = logging.get_logger(__name__)

TASK = "facial-action-units"
# what a checkpoint's configuration says of this file
CUSTOM_PIPELINES = {
    TASK: {
        "impl": "pipeline_hiva.FacialActionUnitsPipeline",
        "pt": ["AutoModelForImageClassification"],
        "type": "image",
    }
}
Box = tuple[float, float, float, float]
# nobody is recognised in fewer
_LEAST = 4
_SIDES = ("xmin", "ymin", "xmax", "ymax")

# as hiva_hf.faces.alignment has them: places of eyes, nose and mouth corners in a detector's box, and in a crop
_IN_BOX = np.array([[0.31, 0.42], [0.69, 0.42], [0.50, 0.61], [0.335, 0.80], [0.665, 0.80]])
_IN_CROP = {
    "left_eye": (0.31, 0.30),
    "right_eye": (0.69, 0.30),
    "nose": (0.50, 0.52),
    "left_mouth": (0.35, 0.69),
    "right_mouth": (0.65, 0.69),
}


def _package():
    """The part of hiva_hf that finds and aligns faces; None where it is not installed."""
    try:
        from hiva_hf import faces
    except ImportError:
        return None
    return faces


class FacialActionUnitsPipeline(Pipeline):
    """Action units of every face of a picture.

    Args:
        model (`HiVAForImageClassification`): The detector.
        processor (`HiVAProcessor`): Of the same checkpoint.
        batch_size (`int`, defaults to 1):
            Pictures a step, as in [`ActionUnitDetector`]; the model sees at most so many faces at once, and at 1 all of
            a picture, up to 32, on a GPU 128.
        kwargs: What a call takes, as its default, and arguments of every transformers pipeline such as `device`.

    Raises:
        ValueError: If the processor is missing or that of another kind of model.

    Example:
    ```python
    import hiva_hf  # registers the pipeline
    from transformers import pipeline

    read = pipeline("facial-action-units", model="org/hiva-bp4d")
    read("group.jpg", active_only=True)
    # [{"box": {"xmin": 61.5, ...}, "score": 0.99, "aus": [{"label": "AU12", "score": 0.97, "active": True}]}]
    ```
    """

    processor: Any
    _load_processor: Any = True
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def __init__(self, model, processor=None, **kwargs):
        if processor is None:
            raise ValueError(
                f"`processor` must be given to {TASK} with a model; got None. Load it from the same folder."
            )
        if (model.config.problem_type == "regression") != (processor.problem_type == "regression"):
            raise ValueError(
                f"`processor` must have the model's problem_type, {model.config.problem_type!r}; got "
                f"{processor.problem_type!r}. Load both from the same checkpoint."
            )
        self._finder = None
        super().__init__(model=model.eval(), processor=processor, **kwargs)

    def _sanitize_parameters(self, thresholds=None, active_only=None, cropped=None, timeout=None, strict=None):
        if thresholds is not None:
            self.processor.limits(self.model.config.au_names, thresholds)
        preprocess = {"cropped": cropped, "timeout": timeout, "strict": strict}
        postprocess = {"thresholds": thresholds, "active_only": active_only}
        return (
            {name: value for name, value in preprocess.items() if value is not None},
            {},
            {name: value for name, value in postprocess.items() if value is not None},
        )

    def __call__(self, inputs, boxes=None, **kwargs):
        """Read pictures.

        Args:
            inputs (`str`, `Path`, `PIL.Image.Image`, `np.ndarray`, `dict`, or a list, dataset or generator of them):
                A path, URL or picture; an array is (height, width) or (height, width, 3). A dictionary has the keys
                `image` and `boxes`.
            boxes (`list`, *optional*):
                Faces that are known, as (x0, y0, x1, y1) in pixels or as the `box` of an answer; of a list of pictures
                one such list for each. No face is looked for then.
            thresholds (`float` or `dict[str, float]`, *optional*, by keyword as what follows):
                Score from which an AU counts as active; by default the processor's, else 0.5, of an intensity model 2.
            active_only (`bool`, defaults to `False`): Leave out the AUs below their threshold.
            cropped (`bool`, defaults to `False`):
                Each picture, or each of its boxes, is an upright crop of a face already, and is only resized.
            timeout (`float`, *optional*): Seconds to wait for a picture from the web.
            strict (`bool`, defaults to `True`):
                Stop at the first picture that cannot be read; otherwise it is told as a warning, and its answer is
                `None`.
            **kwargs: What else every pipeline takes, `batch_size` and `num_workers` among them.

        Returns:
            `list[dict]`, of several pictures a list of these: `box` with xmin, ymin, xmax, ymax in pixels; `score`,
            certainty of the face, 0-1, or None where it was given; `aus`, a list of `label`, `score` (probability, of
            an intensity model 0-5), `active`, and of a model with both heads `intensity` (0-5). Largest face first;
            faces that are given in their order. Empty where there is no face; `None` of a picture that was skipped.

        Raises:
            FileNotFoundError, ValueError: If a picture cannot be read, a box is none, or a threshold names no AU.
        """
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if boxes is not None:
            if not isinstance(inputs, list):
                inputs = {"image": inputs, "boxes": boxes}
            elif len(boxes) != len(inputs):
                raise ValueError(
                    f"`boxes` must give one list of boxes for each of {len(inputs)} pictures; got {len(boxes)}."
                )
            else:
                inputs = [{"image": image, "boxes": known} for image, known in zip(inputs, boxes, strict=True)]
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def preprocess(self, inputs, cropped=False, timeout=None, strict=True):
        """One picture to the crops of its faces; arguments as of a call."""
        given = inputs if isinstance(inputs, dict) else {"image": inputs}
        try:
            image = _read(given["image"], timeout)
        except (OSError, ValueError) as error:
            # what is no kind of picture at all is a mistake of the call
            if strict or not isinstance(given["image"], str | Path | Image.Image):
                raise
            logger.warning(f"skipped: {error}")
            return {"boxes": None, "scores": None, "pixel_values": None}
        boxes = given.get("boxes")
        if boxes is not None:
            boxes = [_box(box) for box in boxes]
            for box in boxes:
                _inside(box, image)
        boxes, scores, crops = self._faces(image, boxes, cropped)
        pixel_values = None
        if crops:
            pixel_values = self.processor.image_processor(crops, do_resize=False, return_tensors="pt")["pixel_values"]
        return {"boxes": boxes, "scores": scores, "pixel_values": pixel_values}

    def _faces(
        self, image: Image.Image, boxes: list[Box] | None, cropped: bool
    ) -> tuple[list[Box], list[float | None], list[Image.Image]]:
        """Boxes, certainties and crops."""
        package = _package()
        if boxes is None and not cropped and package is None:
            logger.warning_once(
                f"Without hiva_hf, {TASK} finds no faces and takes each picture as a crop of a face. Run pip install "
                "'hiva-hf[faces]', give the faces as `boxes`, or say `cropped=True` where that is so."
            )
            cropped = True
        size = self.processor.image_processor.size["height"]
        if cropped:
            boxes = [(0.0, 0.0, float(image.width), float(image.height))] if boxes is None else boxes
            crops = [image.resize((size, size), Image.Resampling.BICUBIC, box=_inside(box, image)) for box in boxes]
        elif package is None:
            crops = [_cut(image, box, size, self.processor.image_processor.face_template) for box in boxes or ()]
        else:
            template = package.FaceTemplate.of(self.processor.image_processor)
            if boxes is None:
                self._finder = self._finder or package.HaarDetector()
                found = self._finder(image)
            else:
                found = [package.Face(box) for box in boxes]
            crops = [package.crop_face(image, face, size, template) for face in found]
            if boxes is None:
                return [tuple(map(float, face.box)) for face in found], [float(face.score) for face in found], crops
        boxes = boxes or []
        return boxes, [None] * len(boxes), crops

    def _forward(self, pictures, faces_at_once=1):
        """Logits of several pictures, and intensities, whatever number of faces each has."""
        filled = [picture["pixel_values"] for picture in pictures if picture["pixel_values"] is not None]
        found = {"logits": torch.zeros(0, self.model.config.num_labels)}
        if filled:
            steps = torch.cat(filled).to(self.device, self.model.dtype).split(faces_at_once)
            outputs = [self.model(step) for step in steps]
            # the second is there where the model has a head for it
            found = {
                name: torch.cat([output[name] for output in outputs])
                for name in ("logits", "intensities")
                if name in outputs[0]
            }
        sizes = [len(picture["boxes"] or ()) for picture in pictures]
        parts = {name: values.split(sizes) for name, values in found.items()}
        return [
            {
                "boxes": picture["boxes"],
                "scores": picture["scores"],
                **{name: values[index] for name, values in parts.items()},
            }
            for index, picture in enumerate(pictures)
        ]

    def postprocess(self, outputs, thresholds=None, active_only=False):
        """The answer for one picture; arguments as of a call."""
        if outputs["boxes"] is None:
            return None
        labels = self.model.config.au_names
        limits = self.processor.limits(labels, thresholds)
        answer = []
        rows = self.processor.post_process(outputs["logits"], labels=labels)
        levels = outputs["intensities"].float().tolist() if "intensities" in outputs else None
        for face, (box, certainty, row) in enumerate(zip(outputs["boxes"], outputs["scores"], rows, strict=True)):
            aus = [
                {"label": label, "score": score, "active": score >= limits[label]}
                | ({} if levels is None else {"intensity": levels[face][place]})
                for place, (label, score) in enumerate(row.items())
                if not active_only or score >= limits[label]
            ]
            place = dict(zip(_SIDES, box, strict=True))
            answer.append({"box": place, "score": certainty, "aus": aus})
        return answer

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        """As in transformers, for pictures of which each has its own number of faces."""
        if isinstance(inputs, Sized):
            dataset = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            dataset, num_workers = PipelineIterator(inputs, self.preprocess, preprocess_params), min(num_workers, 1)
        most = batch_size
        if batch_size == 1:
            most = 32 if self.device.type == "cpu" else 128
        return self._answers(
            DataLoader(dataset, num_workers=num_workers, batch_size=batch_size, collate_fn=list),
            {"faces_at_once": most, **forward_params},
            postprocess_params,
        )

    def _answers(self, batches, forward_params: dict, postprocess_params: dict) -> Iterator[list[dict] | None]:
        for pictures in batches:
            for outputs in self.forward(pictures, **forward_params):
                yield self.postprocess(outputs, **postprocess_params)

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params):
        """One picture, on the same way as several."""
        return next(self.get_iterator([inputs], 0, 1, preprocess_params, forward_params, postprocess_params))

    def save_pretrained(self, save_directory, **kwargs):
        """Save model and processor, and the code beside them.

        Args:
            save_directory (`str` or `Path`): The folder.
            kwargs: Passed to `save_pretrained` of both.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _read(image, timeout: float | None) -> Image.Image:
    """A picture of any kind as upright RGB."""
    if isinstance(image, str) and image.startswith(("http://", "https://", "data:")):
        try:
            return upright_rgb(load_image(image, timeout=timeout))
        except (HTTPError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            shown = image if len(image) <= 100 else f"{image[:97]}..."
            raise ValueError(f"`inputs` must be pictures that can be fetched; {shown} is none: {error}.") from None
    if isinstance(image, str | Path):
        return open_image(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2:
            raise ValueError(
                "`inputs` must be arrays of uint8 and of shape (height, width) or (height, width, 3); got "
                f"{image.dtype} of shape {image.shape}."
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"`inputs` must be paths, URLs, PIL pictures or arrays; got {type(image).__name__}.")
    return upright_rgb(image)


def _box(box: Sequence[float] | dict[str, float]) -> Box:
    try:
        x0, y0, x1, y1 = map(float, [box[side] for side in _SIDES] if isinstance(box, dict) else box)
    except (KeyError, TypeError, ValueError):
        x0 = y0 = x1 = y1 = 0.0
    if not (np.isfinite([x0, y0, x1, y1]).all() and x0 < x1 and y0 < y1):
        raise ValueError(
            "`boxes` must hold (x0, y0, x1, y1) in pixels, finite, left before right and top before bottom, or the "
            f"same as xmin, ymin, xmax, ymax; got {box!r}."
        )
    return x0, y0, x1, y1


def _inside(box: Box, image: Image.Image) -> Box:
    """What a resize can read of a box."""
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], image.width), min(box[3], image.height)
    if x1 - x0 < _LEAST or y1 - y0 < _LEAST:
        raise ValueError(
            f"`boxes` must show at least {_LEAST} pixels of the picture of {image.width} x {image.height}; got {box}. "
            "Are they (x0, y0, x1, y1), in pixels of this picture?"
        )
    return x0, y0, x1, y1


def _cut(image: Image.Image, box: Box, size: int, template: dict | None) -> Image.Image:
    """`hiva_hf.faces.crop_face` of a box, for want of the package; a test holds the two equal.

    Args:
        image (`PIL.Image.Image`): The picture.
        box (`tuple`): x0, y0, x1, y1 in pixels.
        size (`int`): Side of the square crop in pixels.
        template (`dict`, *optional*): The image processor's `face_template`.
    """
    target = np.array([(template or _IN_CROP)[name] for name in _IN_CROP], dtype=float) * size
    source = np.array(box[:2]) + _IN_BOX * np.array([box[2] - box[0], box[3] - box[1]])
    s, t = source - source.mean(0), target - target.mean(0)
    a, b = (s * t).sum(), (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()
    turn = np.array([[a / (s**2).sum(), -(b / (s**2).sum())], [b / (s**2).sum(), a / (s**2).sum()]])
    shift = target.mean(0) - turn @ source.mean(0)
    scale = float(np.sqrt(abs(np.linalg.det(turn))))
    if scale < 1:
        # what will be seen is shrunk first, so that fine texture does not alias
        corners = (np.array([[0, 0], [size, 0], [0, size], [size, size]]) - shift) @ np.linalg.inv(turn).T
        x0, y0 = np.maximum(np.floor(corners.min(0) - 4 / scale), 0).astype(int).tolist()
        x1, y1 = np.minimum(np.ceil(corners.max(0) + 4 / scale), image.size).astype(int).tolist()
        if x1 <= x0 or y1 <= y0:
            return Image.new(image.mode, (size, size))
        width, height = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
        shift = turn @ [x0, y0] + shift
        stretch = [(x1 - x0) / width, (y1 - y0) / height]
        turn = turn * stretch
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1), reducing_gap=3.0)
    inverse = np.linalg.inv(np.vstack([np.hstack([turn, shift[:, None]]), [0.0, 0.0, 1.0]]))
    return image.transform((size, size), Image.Transform.AFFINE, inverse[:2].ravel().tolist(), Image.Resampling.BICUBIC)


__all__ = ["CUSTOM_PIPELINES", "TASK", "FacialActionUnitsPipeline"]
