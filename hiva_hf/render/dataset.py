"""Rendered faces as data: a dataset in memory, or parquet that loads, streams and trains as prepared data does."""

import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from hashlib import sha256
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from ..data.schema import DROPPED_FILE, SETTINGS_FILE
from ..files import alone, read_record, whole_file
from .action_units import RENDERED_AUS
from .face_model import NEUTRAL_FILE, FaceModel
from .faces import FaceRenderer, RenderedBatch

# counts up when the same settings give other pictures
VERSION = 1
_ROWS_PER_SHARD, _ROWS_PER_GROUP, _ROWS_AT_ONCE = 200, 50, 64


@dataclass(frozen=True)
class Rendering:
    """What is rendered; the same settings give the same pictures on the same kind of machine.

    Args:
        frames (`int`, defaults to 50): Pictures a person.
        seed (`int`, defaults to 0): Another one gives other people.
        size (`int`, defaults to 160): Side in pixels.
        masks (`bool`, defaults to `False`): A mask an action unit, of the pixels that it moved.
        quality (`int`, defaults to 92): Of the JPEG files.
    """

    frames: int = 50
    seed: int = 0
    size: int = 160
    masks: bool = False
    quality: int = 92

    def __post_init__(self) -> None:
        if self.frames < 1 or not 1 <= self.quality <= 100 or not 32 <= self.size <= 512:
            raise ValueError(
                "`frames` must be at least 1, `size` 32 to 512 and `quality` 1 to 100; got "
                f"{self.frames}, {self.size} and {self.quality}."
            )


def subject_name(number: int) -> str:
    """What a person is called in the data, such as `S007`."""
    return f"S{number:03d}"


def features_of(rendering: Rendering) -> Features:
    """The columns: those of rendered faces everywhere in this package, and `AU12_mask` and so on with masks."""
    columns: dict = {"image": ImageFeature(), "subject_id": Value("string"), "frame": Value("int32")}
    columns |= {au: Value("int8") for au in RENDERED_AUS}
    columns |= {f"{au}_intensity": Value("int8") for au in RENDERED_AUS}
    columns |= {name: Value("float32") for name in ("yaw", "pitch", "roll")}
    columns |= {"occluded": Value("bool"), "glasses": Value("bool"), "skin_tone": Value("float32")}
    columns |= {"box": List(Value("float32"), length=4), "landmarks": List(Value("float32"), length=136)}
    if rendering.masks:
        columns |= {f"{au}_mask": ImageFeature() for au in RENDERED_AUS}
    return Features(columns)


def render_faces(
    model: FaceModel | str | Path,
    subjects: int | Sequence[int],
    rendering: Rendering | None = None,
    *,
    device: str = "cpu",
    on_faces: Callable[[int], object] | None = None,
) -> Dataset:
    """Render faces into memory.

    Args:
        model ([`FaceModel`], `str` or `Path`): The face model, or where it lies, see [`FaceModel.load`].
        subjects (`int` or `Sequence[int]`): How many people, from 0 on; or their numbers.
        rendering ([`Rendering`], *optional*): What is rendered.
        device (`str`, defaults to `"cpu"`): Where.
        on_faces (`Callable`, *optional*): Told after every batch how many faces it had.

    Returns:
        `datasets.Dataset` with `image`, `subject_id`, `frame`, for each of 22 action units `AU12` (1 from level A on)
        and `AU12_intensity` (0-5), `yaw`, `pitch`, `roll` (degrees), `occluded`, `glasses`, `skin_tone` (0 light to 1
        dark), `box` (x0, y0, x1, y1, pixels), `landmarks` (68 points, x0 y0 x1 y1 ..., pixels), and with masks
        `AU12_mask`: a picture of one bit a pixel, or `None` where the action unit is absent.

    Raises:
        ValueError: If there are no subjects, or a number is out of range.
    """
    rendering = rendering or Rendering()
    numbers = _numbers(subjects)
    renderer = _renderer(model, rendering, device)
    rows = [row for batch in _batches(renderer, rendering, numbers, on_faces) for row in batch]
    features = features_of(rendering)
    return Dataset(pa.Table.from_pylist(rows, features.arrow_schema))


def write_faces(
    model: str | Path,
    out: str | Path,
    subjects: int | Sequence[int],
    rendering: Rendering | None = None,
    *,
    workers: int = 1,
    device: str = "cpu",
    on_faces: Callable[[int, int], object] | None = None,
) -> int:
    """Render faces into parquet files, which `load_rendered` reads.

    A file appears whole or not at all, and one that is there is not made again: a run that was shot goes on there.

    Args:
        model (`str` or `Path`): Where the face model lies, see [`FaceModel.load`].
        out (`str` or `Path`): Folder for `faces-00000.parquet`, ..., `prepare.json` and, at the end, `dropped.csv`.
        subjects (`int` or `Sequence[int]`): As for [`render_faces`].
        rendering ([`Rendering`], *optional*): What is rendered.
        workers (`int`, defaults to 1): Processes, one core each.
        device (`str`, defaults to `"cpu"`): Where; one process where it is not the CPU.
        on_faces (`Callable`, *optional*): Told how many faces are done, and how many there are.

    Returns:
        `int`: Faces in the folder.

    Raises:
        FileNotFoundError: If there is no face model.
        ValueError: If the folder holds other data, or a number is out of range.
    """
    rendering, out, numbers = rendering or Rendering(), Path(out), _numbers(subjects)
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1; got {workers}.")
    people = max(1, -(-_ROWS_PER_SHARD // rendering.frames))
    shards = [numbers[k : k + people] for k in range(0, len(numbers), people)]
    whole_folder = any((Path(model) / part / NEUTRAL_FILE).is_file() for part in ("", "FaceXModel"))
    if not whole_folder:
        # a mistake is told before anything is written; a folder takes half a minute to read, so it is read once
        FaceModel.load(model)
    out.mkdir(parents=True, exist_ok=True)
    count = len(numbers) * rendering.frames
    with alone(out / ".prepare.lock", out):
        _begin(out, rendering, numbers, Path(model))
        tasks = [(chosen, out / f"faces-{k:05d}.parquet") for k, chosen in enumerate(shards)]
        waiting = [task for task in tasks if not task[1].is_file()]
        done = count - sum(len(chosen) for chosen, _ in waiting) * rendering.frames
        for made in _shards(model, rendering, device, waiting, workers if device == "cpu" else 1):
            done += made
            if on_faces is not None:
                on_faces(done, count)
        with whole_file(out / DROPPED_FILE) as partial:
            partial.write_text("source,subject_id,sequence_id,frame,reason,error\n", encoding="utf-8")
    return count


def _numbers(subjects: int | Sequence[int]) -> list[int]:
    numbers = list(range(subjects)) if isinstance(subjects, int) else [int(number) for number in subjects]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError(f"`subjects` must be at least 1, or different numbers from 0 on; got {subjects}.")
    return numbers


def _renderer(model: FaceModel | str | Path, rendering: Rendering, device: str) -> FaceRenderer:
    loaded = model if isinstance(model, FaceModel) else FaceModel.load(model)
    return FaceRenderer(loaded, rendering.size, device)


def _begin(out: Path, rendering: Rendering, numbers: list[int], model: Path) -> None:
    """Write what is made into the folder, or see that it is the same."""
    if model.is_dir():
        # whether the folder itself or one below it was given, it is the same model
        origin = "FaceXModel"
    else:
        origin = sha256(model.read_bytes()).hexdigest()[:16]
    people = sha256(",".join(map(str, numbers)).encode()).hexdigest()[:16]
    settings = {"rendered": VERSION, **asdict(rendering), "subjects": len(numbers), "people": people, "model": origin}
    stored = out / SETTINGS_FILE
    if stored.is_file():
        before = read_record(stored)
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise ValueError(
                f"`out` must be new or hold the same faces; {out} was made with other {', '.join(changed)}. Give "
                "another folder."
            )
        return
    if any(out.glob("*.parquet")):
        raise ValueError(f"`out` must be a new folder; {out} holds parquet files of something else.")
    with whole_file(stored) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _batches(renderer: FaceRenderer, rendering: Rendering, numbers: list[int], on_faces) -> Iterator[list[dict]]:
    who = [number for number in numbers for _ in range(rendering.frames)]
    when = list(range(rendering.frames)) * len(numbers)
    for start in range(0, len(who), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        scenes = renderer.sample(who[part], when[part], rendering.seed)
        yield rows_of(renderer.render(scenes, masks=rendering.masks), rendering)
        if on_faces is not None:
            on_faces(len(scenes))


def rows_of(batch: RenderedBatch, rendering: Rendering) -> list[dict]:
    """A row a face, with the columns of [`features_of`]."""
    held = {name: value.cpu() for name, value in vars(batch).items() if value is not None}
    images = held["images"].permute(0, 2, 3, 1).numpy()
    rows = []
    for k in range(len(batch)):
        occurrence, intensity = held["occurrence"][k].int().tolist(), held["intensity"][k].int().tolist()
        row: dict = {
            "image": _encoded(Image.fromarray(images[k]), "JPEG", quality=rendering.quality),
            "subject_id": subject_name(int(held["subjects"][k])),
            "frame": int(held["frames"][k]),
            **dict(zip(RENDERED_AUS, occurrence, strict=True)),
            **{f"{au}_intensity": level for au, level in zip(RENDERED_AUS, intensity, strict=True)},
            **dict(zip(("yaw", "pitch", "roll"), held["pose"][k].tolist(), strict=True)),
            "occluded": bool(held["occluded"][k]),
            "glasses": bool(held["glasses"][k]),
            "skin_tone": float(held["skin_tone"][k]),
            "box": held["boxes"][k].tolist(),
            "landmarks": held["landmarks"][k].flatten().tolist(),
        }
        if rendering.masks:
            for unit, au in enumerate(RENDERED_AUS):
                mask = held["masks"][k, unit].numpy() if occurrence[unit] else None
                row[f"{au}_mask"] = None if mask is None else _encoded(Image.fromarray(mask), "PNG")
        rows.append(row)
    return rows


def _encoded(image: Image.Image, kind: str, **options) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


_STATE: dict[str, FaceRenderer] = {}


def _write(numbers: list[int], path: Path, rendering: Rendering) -> int:
    rows = [row for batch in _batches(_STATE["renderer"], rendering, numbers, None) for row in batch]
    table = pa.Table.from_pylist(rows, features_of(rendering).arrow_schema)
    with whole_file(path) as partial:
        pq.write_table(table, partial, row_group_size=_ROWS_PER_GROUP)
    return len(rows)


def _shards(model, rendering: Rendering, device: str, tasks: list, workers: int) -> Iterator[int]:
    """Make files, and tell the faces of each."""
    if not tasks:
        return
    if workers == 1:
        _STATE["renderer"] = _renderer(model, rendering, device)
        try:
            for numbers, path in tasks:
                yield _write(numbers, path, rendering)
        finally:
            _STATE.clear()
        return
    pool = ProcessPoolExecutor(min(workers, len(tasks)), get_context("spawn"), _start, (model, rendering))
    try:
        for future in as_completed([pool.submit(_write, numbers, path, rendering) for numbers, path in tasks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start(model, rendering: Rendering) -> None:
    # a process a core: more threads would only wait for each other
    torch.set_num_threads(1)
    _STATE["renderer"] = _renderer(model, rendering, "cpu")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was shot would write on, beside a run that was started again."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


__all__ = ["Rendering", "features_of", "render_faces", "rows_of", "subject_name", "write_faces"]
