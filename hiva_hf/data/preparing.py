"""Face crops made once: from a dataset in any layout to sharded parquet that loads, streams and trains."""

import csv
import errno
import io
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from ..faces.alignment import FaceTemplate, similarity_transform, warp_face
from ..faces.detection import Face, FaceDetector
from ..faces.given import GivenFaces
from ..faces.pretrained import load_face_detector
from ..files import alone, whole_file
from .schema import ALIGNMENT_KEY, DROPPED_FILE, SETTINGS_FILE, au_names
from .video_frames import file_and_frame

_FACELESS, UNREADABLE = "no face found", "image cannot be read"
# what damaged files raise, and errors of the machine among them, which say nothing of a file
_UNREADABLE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_OF_THE_MACHINE = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)
_ROWS_PER_GROUP = 50
_KEYS = {"subject_id": "string", "sequence_id": "string", "frame": "int32", "dataset": "string"}


class NoFaceError(ValueError):
    """There is no face with points to cut out."""


class _UnreadableError(ValueError):
    """An image that is none, or is damaged."""


@dataclass(frozen=True)
class Preparation:
    """How crops are made; it is written into the data.

    Args:
        alignment (`str`): `"detect"` looks for the largest face, `"given"` takes it from a table, `"none"` takes
            pictures as crops already.
        detector (`str`, defaults to `"haar"`): Name or file of a face detector, see [`load_face_detector`].
        size (`int`, defaults to 256): Side of a crop in pixels.
        margin (`float`, defaults to 1.25): How much wider than the model's crop, so that augmentation finds pixels.
        quality (`int`, defaults to 95): Of the JPEG files.
    """

    alignment: str = "detect"
    detector: str = "haar"
    size: int = 256
    margin: float = 1.25
    quality: int = 95

    def __post_init__(self) -> None:
        if self.alignment not in ("detect", "given", "none"):
            raise ValueError(f"`alignment` must be detect, given or none; got {self.alignment!r}.")
        if self.size < 32 or not 1 <= self.margin <= 3:
            raise ValueError(f"`size` must be at least 32 and `margin` 1 to 3; got {self.size} and {self.margin}.")

    def crop(self, image: Image.Image, faces: list[Face]) -> tuple[Image.Image, np.ndarray | None]:
        """The crop, and the five points in it.

        Raises:
            NoFaceError: If there is no face with points.
        """
        if self.alignment == "none":
            return image.resize((self.size, self.size), Image.Resampling.BICUBIC), None
        if not faces or faces[0].points is None:
            raise NoFaceError
        points = np.asarray(faces[0].points, dtype=np.float64)
        target = (0.5 + (FaceTemplate().points - 0.5) / self.margin) * self.size
        matrix = similarity_transform(points, target)
        return warp_face(image, matrix, self.size), points @ matrix[:, :2].T + matrix[:, 2]


@dataclass
class PrepareReport:
    """What was made.

    Args:
        faces (`int`): Crops.
        dropped (`dict[str, int]`): By reason how many rows gave none; `dropped.csv` names each.
    """

    faces: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


def prepare_faces(
    dataset: Dataset,
    out: str | Path,
    preparation: Preparation | None = None,
    *,
    given: GivenFaces | None = None,
    rows_per_shard: int | None = None,
    workers: int = 1,
    strict: bool = False,
    on_shard: Callable[[int, int], object] | None = None,
) -> PrepareReport:
    """Cut the faces of a dataset out and write them as parquet.

    A shard appears whole or not at all, and one that is there is not made again: a run that was shot goes on there. But
    one in which an image could not be read is made again once that file has changed.

    Args:
        dataset (`Dataset`): Of the common form, see [`au_dataset`].
        out (`str` or `Path`): Folder for `faces-00000.parquet`, ..., `prepare.json` and `dropped.csv`.
        preparation (`Preparation`, *optional*): How.
        given (`GivenFaces`, *optional*): Where the faces are, for alignment `"given"`; by the files of the images, and
            the frames of videos. Of a picture with several, the largest is taken.
        rows_per_shard (`int`, *optional*): Rows of the dataset a file; by default a sixteenth, but 50 to 1,000.
        workers (`int`, defaults to 1): Processes.
        strict (`bool`, defaults to `False`): Stop at the first image that cannot be read, in place of reporting it.
        on_shard (`Callable`, *optional*): Told after every shard how many rows are done, and how many there are.

    Returns:
        [`PrepareReport`]

    Raises:
        ValueError: If the folder holds what was prepared otherwise, alignment `"given"` comes without a table, or,
            `strict`, an image cannot be read.
    """
    preparation = preparation or Preparation()
    if preparation.alignment == "given" and given is None:
        raise ValueError("Alignment given needs a table of the faces, `given` (`--boxes`); got none.")
    if preparation.alignment != "given" and given is not None:
        raise ValueError(
            f"A table of faces is read with alignment given only (`--alignment given`); alignment is "
            f"{preparation.alignment}."
        )
    out = Path(out)
    names, count = au_names(dataset), len(dataset)
    rows_per_shard = rows_per_shard or min(max(-(-count // 16), 50), 1000)
    settings = {**vars(preparation), "aus": names, "rows": count, "rows_per_shard": rows_per_shard}
    settings["data"] = _fingerprint(dataset, given)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out / ".prepare.lock", out):
        _begin(out, settings)
        if given is not None:
            given.match(_files(dataset))
        total = -(-count // rows_per_shard)
        waiting = [shard for shard in range(total) if _to_be_made(_shard_file(out, shard))]
        sizes = [min(rows_per_shard, count - shard * rows_per_shard) for shard in range(total)]
        done = sum(sizes) - sum(sizes[shard] for shard in waiting)
        if on_shard is not None and done:
            on_shard(done, count)
        tasks = [
            (range(shard * rows_per_shard, shard * rows_per_shard + sizes[shard]), _shard_file(out, shard))
            for shard in waiting
        ]
        for made in _shards(dataset, _Worker(preparation, names, given, strict), tasks, workers):
            done += made
            if on_shard is not None:
                on_shard(done, count)
        return _account(out, total)


def _shard_file(out: Path, shard: int) -> Path:
    return out / f"faces-{shard:05d}.parquet"


def _fingerprint(dataset: Dataset, given: GivenFaces | None) -> str:
    """Of files, labels and people, and of the table of faces: other data are not mixed into what is there."""
    small = dataset.select_columns([name for name in dataset.column_names if name != "image"]).with_format("arrow")[:]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, small.schema) as writer:
        writer.write_table(small.combine_chunks())
    digest = sha256(sink.getvalue())
    for path in _paths(dataset):
        digest.update(path.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(b"" if given is None else pickle.dumps(given))
    return digest.hexdigest()[:16]


def _paths(dataset: Dataset) -> list[str]:
    """Place of each image; empty where it lies in the data."""
    column = dataset.select_columns("image").with_format("arrow")[:]["image"]
    return [path or "" for chunk in column.chunks for path in chunk.field("path").to_pylist()]


def _files(dataset: Dataset) -> list[str]:
    """Files of the images, each once: a video is one however many frames of it are there."""
    return list(dict.fromkeys(file_and_frame(path)[0] for path in _paths(dataset)))


def _to_be_made(path: Path) -> bool:
    """Whether a shard is not there, or an image that it could not read has changed since."""
    if not path.is_file():
        return True
    made = path.stat().st_mtime
    dropped = json.loads(pq.read_metadata(path).metadata[b"hiva_dropped"])
    files = {file_and_frame(row[0])[0] for row in dropped if row[-2] == UNREADABLE}
    return any(os.path.isfile(file) and os.path.getmtime(file) > made for file in files)


def _account(out: Path, total: int) -> PrepareReport:
    """Write the list of what was dropped, which says that the preparation is complete, and count."""
    report = PrepareReport()
    with whole_file(out / DROPPED_FILE) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("source", "subject_id", "sequence_id", "frame", "reason", "error"))
        for shard in range(total):
            made = pq.read_metadata(_shard_file(out, shard))
            report.faces += made.num_rows
            for row in json.loads(made.metadata[b"hiva_dropped"]):
                writer.writerow(row)
                report.dropped[row[-2]] = report.dropped.get(row[-2], 0) + 1
    return report


def _begin(out: Path, settings: dict) -> None:
    stored = out / SETTINGS_FILE
    if stored.is_file():
        before = json.loads(stored.read_text(encoding="utf-8"))
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise ValueError(
                f"`out` must be new or hold the same preparation; {out} was made with other {', '.join(changed)}."
            )
    elif out.is_dir() and any(out.glob("*.parquet")):
        raise ValueError(f"`out` must be a new folder; {out} holds parquet files of something else.")
    with whole_file(stored) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _shards(dataset, work, tasks, workers) -> Iterator[int]:
    """Make shards, and tell the rows of each; after an error those that have not begun are not made."""
    if workers <= 1:
        for rows, path in tasks:
            yield work(dataset, rows, path)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (work, dataset))
    try:
        for future in as_completed([pool.submit(_run, *task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_STATE: dict[str, Any] = {}


def _start(work: "_Worker", dataset: Dataset) -> None:
    import cv2
    import torch

    # a process a core: more threads would only wait for each other
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _STATE["work"], _STATE["dataset"] = work, dataset
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was shot would write on, beside a run that was started again."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run(rows: range, path: Path) -> int:
    return _STATE["work"](_STATE["dataset"], rows, path)


class _Worker:
    """Makes a shard."""

    def __init__(self, preparation: Preparation, names: list[str], given: GivenFaces | None, strict: bool):
        self.preparation, self.names, self.given, self.strict = preparation, names, given, strict

    @cached_property
    def detector(self) -> FaceDetector:
        """`FaceDetector`: Made where it works; a cascade does not travel between processes."""
        return load_face_detector(self.preparation.detector)

    def _faces(self, image: Image.Image, place: str) -> list[Face]:
        if self.given is not None:
            return self.given(image, *file_and_frame(place))
        if self.preparation.alignment == "none":
            return []
        return getattr(self.detector, "largest", self.detector)(image)

    def __call__(self, dataset: Dataset, rows: range, path: Path) -> int:
        if self.preparation.alignment == "detect":
            # before the first image, so that its own mistakes are not taken for those of images
            _ = self.detector
        made: list[dict] = []
        dropped: list[list] = []
        plain = dataset.cast_column("image", type(dataset.features["image"])(decode=False))
        for index in rows:
            keys = plain[index]
            place = keys["image"]["path"] or ""
            try:
                try:
                    row = dataset[index]
                    image = row["image"].convert("RGB")
                except _UNREADABLE_ERRORS as error:
                    if getattr(error, "errno", None) in _OF_THE_MACHINE:
                        raise
                    raise _UnreadableError(error) from None
                made.append(self._row(row, *self.preparation.crop(image, self._faces(image, place))))
            except (NoFaceError, _UnreadableError) as error:
                reason = _FACELESS if isinstance(error, NoFaceError) else UNREADABLE
                if self.strict and reason == UNREADABLE:
                    raise ValueError(f"{place} must be an image that can be read; {error}.") from None
                who = (keys["subject_id"], keys["sequence_id"], keys["frame"])
                dropped.append([place, *who, reason, str(error)])
        table = pa.Table.from_pylist(made, self._features(dataset).arrow_schema)
        metadata = {
            **(table.schema.metadata or {}),
            ALIGNMENT_KEY: json.dumps(vars(self.preparation)).encode(),
            b"hiva_dropped": json.dumps(dropped).encode(),
        }
        with whole_file(path) as partial:
            # small groups, so that who streams them mixes many places with little in memory
            pq.write_table(table.replace_schema_metadata(metadata), partial, row_group_size=_ROWS_PER_GROUP)
        return len(rows)

    def _row(self, row: dict, crop: Image.Image, points: np.ndarray | None) -> dict:
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=self.preparation.quality)
        made: dict = {"image": {"bytes": buffer.getvalue(), "path": None}}
        made |= {key: row[key] for key in _KEYS}
        made |= dict(zip(self.names, row["labels"], strict=True))
        if "intensities" in row:
            made |= {f"{au}_intensity": level for au, level in zip(self.names, row["intensities"], strict=True)}
        if points is not None:
            made["points"] = points.ravel().tolist()
        return made

    def _features(self, dataset: Dataset) -> Features:
        features: dict = {"image": ImageFeature()}
        features |= {key: Value(kind) for key, kind in _KEYS.items()}
        features |= {au: Value("float32") for au in self.names}
        if "intensities" in dataset.column_names:
            features |= {f"{au}_intensity": Value("float32") for au in self.names}
        if self.preparation.alignment != "none":
            features["points"] = List(Value("float32"), length=10)
        return Features(features)


__all__ = ["Preparation", "PrepareReport", "prepare_faces"]
