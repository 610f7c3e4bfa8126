"""What data of a benchmark's size cost: an index of BP4D, metrics over all its frames, and cutting its faces out.

    python examples/measure_data.py
    python examples/measure_data.py --detector haar --detector mtcnn   # another face detector beside ours

The trees are generated: BP4D's 328 sequences with 146,847 empty image files and labels by chance, and for the faces
some pictures of BP4D's size with a rendered face in each. Prints three tables; peak memory is that of a fresh process,
read as Linux tells it.
"""

import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

FRAMES, AUS = 146_847, (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 23, 24)
SIZE = (1040, 1392)


def write_bp4d(root: Path) -> None:
    """BP4D's tree at its true size, images empty."""
    from hiva_hf.data.protocols import BP4D_PARTS

    rng = np.random.default_rng(0)
    people = sorted(name for part in BP4D_PARTS.values() for name in part)
    sequences = [(subject, f"T{task}") for subject in people for task in range(1, 9)]
    (root / "AUCoding" / "AU_OCC").mkdir(parents=True)
    for count, (subject, task) in zip(_shares(FRAMES, len(sequences)), sequences, strict=True):
        folder = root / "2D" / subject / task
        folder.mkdir(parents=True)
        lines = [",".join(map(str, (0, *AUS)))]
        for frame, codes in enumerate(rng.integers(0, 2, (count, len(AUS))), start=1):
            lines.append(",".join(map(str, (frame, *codes))))
            (folder / f"{frame:04}.jpg").touch()
        (root / "AUCoding" / "AU_OCC" / f"{subject}_{task}.csv").write_text("\n".join(lines) + "\n")


def write_pictures(root: Path, count: int) -> None:
    """Pictures as large as BP4D's, a rendered face in each, and a table of labels."""
    from hiva_hf.data import load_rendered

    root.mkdir()
    faces, lines = load_rendered(aus=["AU12"]), ["file_name,subject,AU12"]
    for number in range(count):
        row = faces[number * 7 % len(faces)]
        picture = Image.new("RGB", SIZE, (90, 100, 110))
        picture.paste(row["image"].convert("RGB").resize((700, 700), Image.Resampling.BICUBIC), (170, 300))
        picture.save(root / f"{number}.jpg", quality=92)
        lines.append(f"{number}.jpg,{row['subject_id']},{row['labels'][0]:.0f}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def nothing(root: Path) -> int:
    """What the imports alone cost."""
    import hiva_hf.data  # noqa: F401

    return 0


def index_of_bp4d(root: Path) -> int:
    """Ours: labels and images joined."""
    from hiva_hf.data import load_bp4d

    return len(load_bp4d(root))


def index_of_images(root: Path) -> int:
    """The peer: `imagefolder` of datasets, which finds the images and knows no label."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    folder = root / "cache"
    return len(load_dataset("imagefolder", data_dir=str(root / "2D"), split="train", cache_dir=str(folder)))


def prepare(root: Path, detector: str, alignment: str, workers: int) -> tuple[int, float]:
    """Cut faces out of pictures; the faces, and pictures a second after the first file was written."""
    from hiva_hf.data import Preparation, load_folder, prepare_faces

    faces = load_folder(root)
    how = Preparation(alignment=alignment, detector=detector)
    out = root.with_name(f"{detector}-{alignment}-{workers}")
    ticks: list[tuple[float, int]] = []
    made = prepare_faces(
        faces, out, how, rows_per_shard=25, workers=workers,
        on_shard=lambda done, total: ticks.append((time.perf_counter(), done)),
    )  # fmt: skip
    (begin, first), (end, last) = ticks[0], ticks[-1]
    return made.faces, (last - first) / (end - begin)


def _shares(total: int, parts: int) -> list[int]:
    return np.diff(np.linspace(0, total, parts + 1).astype(int)).tolist()


def _child(pipe, work: Callable, arguments: tuple) -> None:
    begin = time.perf_counter()
    result = work(*arguments)
    pipe.send((result, time.perf_counter() - begin, _peak()))


def _peak() -> float:
    """Peak memory in MiB; `getrusage` would count that of the process which started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_fresh_process(work: Callable, *arguments) -> tuple:
    """What a function gives, its seconds, and the peak memory of its process in MiB."""
    context = get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, work, arguments))
    process.start()
    # a child that died must not be waited for
    theirs.close()
    result = mine.recv()
    process.join()
    return result


def index_table(root: Path) -> Table:
    """Time and memory of an index."""
    write_bp4d(root)
    table = Table("what", "rows", "seconds", "peak MiB", title="Index of BP4D's tree, 146,847 empty images")
    for name, work in (
        ("imports alone", nothing),
        ("load_bp4d: images and labels", index_of_bp4d),
        ("datasets imagefolder: images only", index_of_images),
    ):
        rows, seconds, memory = in_fresh_process(work, root)
        table.add_row(name, f"{rows:,}", f"{seconds:.1f}", f"{memory:.0f}")
    return table


def metrics_table() -> Table:
    """Seconds of metrics over all frames."""
    from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

    from hiva_hf.metrics import au_metrics

    rng = np.random.default_rng(0)
    labels, scores = (rng.random((FRAMES, 12)) < 0.3).astype(np.float32), rng.random((FRAMES, 12))
    active = scores >= 0.5

    def one_by_one(functions, values) -> None:
        for function in functions:
            for column in range(12):
                function(labels[:, column], values[:, column])

    works = {
        "au_metrics: 9 metrics, missing labels left out": lambda: au_metrics(labels, scores),
        "scikit-learn, F1 alone": lambda: one_by_one([f1_score], active),
        "scikit-learn, F1, precision, recall, AUC, AP": lambda: (
            one_by_one([f1_score, precision_score, recall_score], active),
            one_by_one([roc_auc_score, average_precision_score], scores),
        ),
    }
    table = Table("what", "seconds", title="Metrics of 146,847 x 12 labels; median of 5")
    for name, work in works.items():
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        table.add_row(name, f"{np.median(times):.2f}")
    return table


def prepare_table(root: Path, count: int, detectors: list[str]) -> Table:
    """Pictures a second that are cut out and written."""
    write_pictures(root, count)
    table = Table("faces found by", "processes", "faces", "pictures a second")
    table.title = f"hiva data prepare, {count} pictures of {SIZE[0]}x{SIZE[1]}; start of processes not counted"
    for detector, alignment in [*((name, "detect") for name in detectors), ("haar", "none")]:
        for workers in (1, 2):
            (faces, rate), *_ = in_fresh_process(prepare, root, detector, alignment, workers)
            name = detector if alignment == "detect" else "none: pictures are crops"
            table.add_row(name, str(workers), str(faces), f"{rate:.1f}")
    return table


def main(
    pictures: Annotated[int, typer.Option(min=100, help="How many pictures to cut faces out of.")] = 400,
    detector: Annotated[
        list[str] | None, typer.Option(help="What finds faces, as of `hiva data prepare`; may be given several times.")
    ] = None,
):
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as scratch:
        console.print(metrics_table())
        console.print(prepare_table(Path(scratch) / "pictures", pictures, detector or ["haar"]))
        console.print(index_table(Path(scratch) / "BP4D"))


if __name__ == "__main__":
    typer.run(main)
