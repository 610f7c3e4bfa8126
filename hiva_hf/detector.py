"""Pictures and videos in, the action units of every face out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from PIL import Image

from .checkpoint import load_detector
from .default import chosen_checkpoint
from .export.runtime import OnnxModel, load_onnx
from .faces import Face, FaceDetector, FaceFollower, FaceTemplate, HaarDetector, crop_face, read_video, read_webcam
from .faces.webcam import is_webcam
from .image_processing_hiva import open_image, upright_rgb
from .modeling_hiva import HiVAForImageClassification
from .neutral import above_neutral, neutral_scores, parse_neutral
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
        faces (`list[Face]`, *optional*): Its faces, where they are known beforehand; none is looked for then.
    """

    image: Image.Image
    source: str = ""
    frame: int = 0
    timestamp: float = 0.0
    faces: list[Face] | None = None


class ActionUnitDetector:
    """Finds faces, aligns them as in training, and reads their action units.

    Args:
        model (`HiVAForImageClassification`, `OnnxModel`, `str` or `Path`, *optional*): A model, or a folder or Hub id
            of a checkpoint, or a file that `hiva export onnx` wrote; by default what the environment variable
            `HIVA_CHECKPOINT` names, else [`default_checkpoint`].
        processor (`HiVAProcessor`, *optional*): Of the same checkpoint; needed with a model, loaded with a checkpoint.
        faces (`FaceDetector`, *optional*): By default [`HaarDetector`].
        device (`str` or `torch.device`, defaults to `"auto"`): `"auto"` takes a GPU where there is one.
        dtype (`str` or `torch.dtype`, *optional*): Precision the model is turned to, such as `"bfloat16"`: faster where
            the device has it, slower where not, and less exact. By default as loaded; an ONNX file has its own.
        batch_size (`int` or `"auto"`, defaults to `"auto"`):
            Pictures or frames a step: 32, on a GPU 128. Halved for the model where the memory does not hold it.
        search_interval (`float`, defaults to 0.25):
            Seconds of a video between two searches for faces, which are followed in between; 0 searches every frame.
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
        model: HiVAForImageClassification | OnnxModel | str | Path | None = None,
        processor: HiVAProcessor | None = None,
        *,
        faces: FaceDetector | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        batch_size: int | str = "auto",
        search_interval: float = 0.25,
        largest_only: bool = False,
        thresholds: float | None = None,
        activation_maps: bool = False,
    ):
        if model is None:
            if processor is not None:
                raise ValueError("`model` must be given with `processor`; got a processor alone.")
            model = chosen_checkpoint()
        if isinstance(model, str | Path):
            model, processor = load_any(model)
        if processor is None:
            raise ValueError("`processor` must be given with a model; got None. Load it from the same checkpoint.")
        if (model.config.problem_type == "regression") != (processor.problem_type == "regression"):
            raise ValueError(
                f"`processor` must have the model's problem_type, {model.config.problem_type!r}; got "
                f"{processor.problem_type!r}. Load both from the same checkpoint."
            )
        if device == "auto" and isinstance(model, OnnxModel):
            device = model.best_device()
        elif device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.model: Any = model.eval().to(device)
        except RuntimeError as error:
            raise ValueError(f"`device` must be one that torch has here; got {device!r}. {error}") from None
        if dtype is not None:
            self.model = _turned(self.model, dtype)
        if batch_size == "auto":
            batch_size = 32 if self.model.device.type == "cpu" else 128
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be auto or a whole number of at least 1; got {batch_size}.")
        self.processor = processor
        self.template = FaceTemplate.of(processor.image_processor)
        self.faces: FaceDetector = faces or HaarDetector()
        self.batch_size, self.largest_only = batch_size, largest_only
        self._model_batch_size = batch_size
        self.search_interval = search_interval
        self.follower()  # an interval that is none is told now
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
    def intensities(self) -> bool:
        """`bool`: Whether each face has intensities 0-5 beside its probabilities."""
        return self.model.config.intensity_head

    @property
    def limits(self) -> dict[str, float]:
        """`dict[str, float]`: By AU the score from which it counts as active."""
        return self.processor.limits(self.labels, self.thresholds)

    def follower(self) -> FaceFollower:
        """[`FaceFollower`]: A new one, for the frames of one video."""
        return FaceFollower(self.faces, self.search_interval)

    def image(self, image: Image.Image | str | Path, faces: list[Face] | None = None) -> list[FaceResult]:
        """All faces of one picture, largest first.

        Args:
            image (`PIL.Image.Image`, `str` or `Path`): A picture or its file.
            faces (`list[Face]`, *optional*): Boxes or points that are known; no face is looked for then. Without
                points, they are expected where an upright face has them in its box.

        Returns:
            `list[FaceResult]`: One a face; one with `success=False` where there is none.

        Raises:
            FileNotFoundError, ValueError: If the file cannot be read as a picture.
        """
        picture = as_picture(image)
        picture.faces = faces
        return self.step([picture])

    def images(self, images: Iterable[Image.Image | str | Path]) -> Iterator[FaceResult]:
        """All faces of many pictures, in batches; arguments and errors as [`ActionUnitDetector.image`]."""
        for batch in batches(map(as_picture, images), self.batch_size):
            yield from self.step(batch)

    def video(self, path: str | Path, **options) -> Iterator[FaceResult]:
        """All faces of a video, frame by frame, the same `face_id` for the same person.

        Args:
            path (`str` or `Path`): A video file, or `webcam`.
            options: `every`, `start` and `end` of [`read_video`]; of a camera also `stop` of [`read_webcam`].

        Yields:
            [`FaceResult`]; one with `success=False` for a frame without a face.
        """
        follower = self.follower()
        for batch in batches(video_pictures(path, **options), 1 if is_webcam(path) else self.batch_size):
            yield from self.step(batch, follower)

    def step(self, pictures: Sequence[Picture], follower: FaceFollower | None = None) -> list[FaceResult]:
        """Read a batch of pictures.

        Args:
            pictures (`Sequence[Picture]`): Of any sizes.
            follower (`FaceFollower`, *optional*): Finds and numbers the faces of consecutive frames; without it the
                largest face of each picture is number 0.

        Returns:
            `list[FaceResult]`: In the order of the pictures, at least one a picture.
        """
        results: list[FaceResult] = []
        crops: list[Image.Image] = []
        size = self.processor.image_processor.size["height"]
        for picture in pictures:
            if follower is not None:
                faces = follower(picture.image, picture.timestamp, picture.faces)
            else:
                known = self.faces(picture.image) if picture.faces is None else picture.faces
                faces = [(n if face.face_id is None else face.face_id, face) for n, face in enumerate(known)]
            if self.largest_only:
                faces = faces[:1]
            place = (picture.source, picture.frame, picture.timestamp)
            if not faces:
                results.append(FaceResult(*place, face_id=-1, success=False, confidence=0.0))
            for number, face in sorted(faces, key=lambda pair: pair[0]):
                points = [] if face.points is None else np.asarray(face.points).ravel().tolist()
                results.append(FaceResult(*place, number, True, float(face.score), [*map(float, face.box)], points))
                crops.append(crop_face(picture.image, face, size, self.template))
        found, done = [result for result in results if result.success], 0
        while done < len(found):
            chunk = slice(done, done + self._model_batch_size)
            try:
                self._read(found[chunk], crops[chunk])
            except RuntimeError as error:
                if self._model_batch_size == 1 or not should_reduce_batch_size(error):
                    raise
                self._model_batch_size //= 2
                continue
            done = chunk.stop
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
        levels = [] if outputs.intensities is None else outputs.intensities.float().cpu().tolist()
        for index, result in enumerate(results):
            result.scores, result.active = rows[index], active[index]
            if levels:
                result.intensities = dict(zip(self.labels, levels[index], strict=True))
            if maps is not None:
                result.crop, result.activation_maps = crops[index], maps[index]

    def plot(self, image: Image.Image | str | Path, face_id: int = 0):
        """One face of a picture with its box, a bar an action unit, and where the strongest were seen (extra `plot`).

        Args:
            image (`PIL.Image.Image`, `str` or `Path`): A picture or its file.
            face_id (`int`, defaults to 0): Which face, the largest first.

        Returns:
            `matplotlib.figure.Figure`, which a notebook shows.

        Raises:
            ValueError: If the picture has no such face.
        """
        from .plotting import plot_prediction

        picture = as_picture(image)
        chosen, self.activation_maps = self.activation_maps, self.model.config.use_ddca
        try:
            found = [result for result in self.step([picture]) if result.success]
        finally:
            self.activation_maps = chosen
        if not 0 <= face_id < len(found):
            there = f"it has {len(found)}" if found else "no face was found in it"
            raise ValueError(f"`face_id` must be a face of the picture; {there}; got {face_id}.")
        face = found[face_id]
        return plot_prediction(
            picture.image, face.scores, face.crop, face.activation_maps, face.box, self.limits, intensity=self.intensity
        )

    def to_dataframe(self, results: Iterable[FaceResult], tidy: bool = False, neutral: str | None = None):
        """A pandas table, one row a face or, `tidy`, one row a face and action unit.

        Args:
            results (`Iterable[FaceResult]`): Of [`ActionUnitDetector.image`] or [`ActionUnitDetector.video`].
            tidy (`bool`, defaults to `False`): The long form.
            neutral (`str`, *optional*): Add what each score is above the person's neutral face: `"median"` over all
                frames, or over frames at rest, counted from 1, such as `"1-50"`.

        Returns:
            `pandas.DataFrame` with the columns of the result files.
        """
        import pandas as pd

        if neutral is not None:
            results = list(results)
            if not any(result.frame for result in results):
                raise ValueError(
                    "`neutral` needs the frames of a video: pictures do not tell who is who. "
                    "`hiva_hf.neutral.above_neutral` takes a function that does."
                )
            results = above_neutral(results, neutral_scores(results, self.labels, parse_neutral(neutral)))
        form = (self.labels, self.intensity, tidy, neutral is not None, self.intensities)
        return pd.DataFrame(list(table_rows(results, *form)))


def _turned(model: Any, dtype: str | torch.dtype) -> Any:
    """The model in another precision."""
    if isinstance(model, OnnxModel):
        raise ValueError(
            f"`dtype` must be left out for an ONNX file, which has its precision; got {dtype}. Export it with another."
        )
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"`dtype` must be float32, bfloat16 or float16; got {dtype}.")
    return model.to(chosen)


def load_any(name_or_path: str | Path) -> tuple[HiVAForImageClassification | OnnxModel, HiVAProcessor]:
    """What [`ActionUnitDetector`] takes: a checkpoint, or by its ending a file that `hiva export onnx` wrote."""
    return load_onnx(name_or_path) if Path(name_or_path).suffix == ".onnx" else load_detector(name_or_path)


def as_picture(image: Image.Image | str | Path) -> Picture:
    """A picture that is given, or read from its file."""
    if isinstance(image, Image.Image):
        return Picture(upright_rgb(image))
    return Picture(open_image(image), source_name(image))


def source_name(path: str | Path) -> str:
    """A path as results tell it: bytes of its name that are no UTF-8 are escaped, for a table could not hold them."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def video_pictures(path: str | Path, **options) -> Iterator[Picture]:
    """The frames of a video or a camera; options as those of [`read_video`] or [`read_webcam`]."""
    for frame in read_webcam(path, **options) if is_webcam(path) else read_video(path, **options):
        yield Picture(frame.image, source_name(path), frame.index, frame.timestamp)


def batches(items: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """Lists of at most `size` pictures, in their order."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


__all__ = ["ActionUnitDetector", "Picture", "as_picture", "batches", "load_any", "source_name", "video_pictures"]
