"""Pictures and videos in, the action units of every face out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .checkpoint import load_detector
from .faces import FaceDetector, FaceTemplate, FaceTracker, HaarDetector, crop_face, read_video
from .image_processing_hiva import open_image, upright_rgb
from .modeling_hiva import HiVAForImageClassification
from .processing_hiva import HiVAProcessor
from .results import FaceResult, table_rows


@dataclass
class Picture:
    """A picture to look at, and where it comes from.

    Args:
        image (`PIL.Image.Image`): Upright RGB.
        source (`str`): Its file.
        frame (`int`): Its number in a video, from 0.
        timestamp (`float`): Seconds from the start of the video.
    """

    image: Image.Image
    source: str = ""
    frame: int = 0
    timestamp: float = 0.0


class ActionUnitDetector:
    """Finds faces, aligns them as in training, and reads their action units.

    Args:
        model (`HiVAForImageClassification`, `str` or `Path`): A model, or a folder or Hub id of a checkpoint.
        processor (`HiVAProcessor`, *optional*): Of the same checkpoint; needed with a model, loaded with a checkpoint.
        faces (`FaceDetector`, *optional*): By default [`HaarDetector`].
        device (`str` or `torch.device`, defaults to `"auto"`): `"auto"` takes a GPU where there is one.
        batch_size (`int`, defaults to 32): Pictures or frames a step.
        largest_only (`bool`, defaults to `False`): Read the largest face of each picture only.
        thresholds (`float`, *optional*): One threshold for all AUs; by default the processor's.
        activation_maps (`bool`, defaults to `False`): Return where each AU was seen, and the crop.

    Raises:
        FileNotFoundError, ValueError: If the checkpoint is none, or a model comes without its processor.

    Example:
    ```python
    detector = ActionUnitDetector("org/hiva-bp4d")
    for face in detector.image("group.jpg"):
        print(face.face_id, face.scores["AU12"])
    table = detector.to_dataframe(detector.video("interview.mp4", every=5))
    ```
    """

    def __init__(
        self,
        model: HiVAForImageClassification | str | Path,
        processor: HiVAProcessor | None = None,
        *,
        faces: FaceDetector | None = None,
        device: str | torch.device = "auto",
        batch_size: int = 32,
        largest_only: bool = False,
        thresholds: float | None = None,
        activation_maps: bool = False,
    ):
        if isinstance(model, str | Path):
            model, processor = load_detector(model)
        if processor is None:
            raise ValueError("`processor` must be given with a model; got None. Load it from the same checkpoint.")
        if (model.config.problem_type == "regression") != (processor.problem_type == "regression"):
            raise ValueError(
                f"`processor` must have the model's problem_type, {model.config.problem_type!r}; got "
                f"{processor.problem_type!r}. Load both from the same checkpoint."
            )
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1; got {batch_size}.")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.model = model.eval().to(device)
        except RuntimeError as error:
            raise ValueError(f"`device` must be one that torch has here; got {device!r}. {error}") from None
        self.processor = processor
        self.template = FaceTemplate.of(processor.image_processor)
        self.faces: FaceDetector = faces or HaarDetector()
        self.batch_size, self.largest_only = batch_size, largest_only
        self.thresholds = thresholds
        self.activation_maps = activation_maps and model.config.use_ddca

    @property
    def labels(self) -> list[str]:
        """`list[str]`: Action units, in the order of the columns."""
        return self.model.config.au_names

    @property
    def intensity(self) -> bool:
        """`bool`: Whether scores are intensities 0-5 and not probabilities."""
        return self.model.config.problem_type == "regression"

    @property
    def limits(self) -> dict[str, float]:
        """`dict[str, float]`: By AU the score from which it counts as active."""
        return self.processor.limits(self.labels, self.thresholds)

    def image(self, image: Image.Image | str | Path) -> list[FaceResult]:
        """All faces of one picture, largest first.

        Args:
            image (`PIL.Image.Image`, `str` or `Path`): A picture or its file.

        Returns:
            `list[FaceResult]`: One a face; one with `success=False` where there is none.

        Raises:
            FileNotFoundError, ValueError: If the file cannot be read as a picture.
        """
        return self.step([as_picture(image)])

    def images(self, images: Iterable[Image.Image | str | Path]) -> Iterator[FaceResult]:
        """All faces of many pictures, in batches; arguments and errors as [`ActionUnitDetector.image`]."""
        for batch in batches(map(as_picture, images), self.batch_size):
            yield from self.step(batch)

    def video(self, path: str | Path, **options) -> Iterator[FaceResult]:
        """All faces of a video, frame by frame, the same `face_id` for the same person.

        Args:
            path (`str` or `Path`): A video file.
            options: `every`, `start` and `end` of [`read_video`].

        Yields:
            [`FaceResult`]; one with `success=False` for a frame without a face.
        """
        tracker = FaceTracker()
        for batch in batches(video_pictures(path, **options), self.batch_size):
            yield from self.step(batch, tracker)

    def step(self, pictures: Sequence[Picture], tracker: FaceTracker | None = None) -> list[FaceResult]:
        """Read a batch of pictures.

        Args:
            pictures (`Sequence[Picture]`): Of any sizes.
            tracker (`FaceTracker`, *optional*): Numbers the faces of consecutive frames; without it the largest face
                of each picture is number 0.

        Returns:
            `list[FaceResult]`: In the order of the pictures, at least one a picture.
        """
        results: list[FaceResult] = []
        crops: list[Image.Image] = []
        size = self.processor.image_processor.size["height"]
        for picture in pictures:
            faces = self.faces(picture.image)
            if self.largest_only:
                faces = faces[:1]
            numbers = range(len(faces)) if tracker is None else tracker(faces)
            place = (picture.source, picture.frame, picture.timestamp)
            if not faces:
                results.append(FaceResult(*place, face_id=-1, success=False, confidence=0.0))
            for number, face in sorted(zip(numbers, faces, strict=True), key=lambda pair: pair[0]):
                points = [] if face.points is None else np.asarray(face.points).ravel().tolist()
                results.append(FaceResult(*place, number, True, face.score, list(face.box), points))
                crops.append(crop_face(picture.image, face, size, self.template))
        found = [result for result in results if result.success]
        for start in range(0, len(found), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            self._read(found[chunk], crops[chunk])
        return results

    @torch.inference_mode()
    def _read(self, results: Sequence[FaceResult], crops: Sequence[Image.Image]) -> None:
        inputs = self.processor.image_processor(list(crops), do_resize=False, return_tensors="pt")
        pixel_values = inputs["pixel_values"].to(self.model.device, self.model.dtype)
        outputs = self.model(pixel_values)
        maps = None
        if self.activation_maps:
            # a pass of its own: the attention that can be shown rounds otherwise, and a score must not depend on that
            maps = self.model(pixel_values, output_activation_maps=True).activation_maps.float().cpu().numpy()
        rows = self.processor.post_process(outputs, labels=self.labels)
        if self.intensity:
            active: list[dict[str, bool]] = [{} for _ in rows]
        else:
            kept = self.processor.post_process(outputs, self.thresholds, active_only=True, labels=self.labels)
            active = [{label: label in above for label in self.labels} for above in kept]
        for index, result in enumerate(results):
            result.scores, result.active = rows[index], active[index]
            if maps is not None:
                result.crop, result.activation_maps = crops[index], maps[index]

    def to_dataframe(self, results: Iterable[FaceResult], tidy: bool = False):
        """A pandas table, one row a face or, `tidy`, one row a face and action unit.

        Args:
            results (`Iterable[FaceResult]`): Of [`ActionUnitDetector.image`] or [`ActionUnitDetector.video`].
            tidy (`bool`, defaults to `False`): The long form.

        Returns:
            `pandas.DataFrame` with the columns of the result files.
        """
        import pandas as pd

        return pd.DataFrame(list(table_rows(results, self.labels, self.intensity, tidy)))


def as_picture(image: Image.Image | str | Path) -> Picture:
    """A picture that is given, or read from its file."""
    if isinstance(image, Image.Image):
        return Picture(upright_rgb(image))
    return Picture(open_image(image), source_name(image))


def source_name(path: str | Path) -> str:
    """A path as results tell it: bytes of its name that are no UTF-8 are escaped, for a table could not hold them."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def video_pictures(path: str | Path, **options) -> Iterator[Picture]:
    """The frames of a video; options as those of [`read_video`]."""
    for frame in read_video(path, **options):
        yield Picture(frame.image, source_name(path), frame.index, frame.timestamp)


def batches(items: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """Lists of at most `size` pictures, in their order."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


__all__ = ["ActionUnitDetector", "Picture", "as_picture", "batches", "video_pictures"]
