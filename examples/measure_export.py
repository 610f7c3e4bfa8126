"""What the ways of running a detector cost and keep: time, size, difference from PyTorch, F1 and AUC on faces.

    python examples/measure_export.py model --faces faces/test --calibrate faces/train

Files are exported anew into a folder that goes away. Variants take turns, one batch each a round, so that noise from
the rest of the machine falls on all of them: medians of the process's CPU time, and of its ratio to eager PyTorch in
the same round. OpenVINO takes part where it is installed, torch.compile where there is a C++ compiler.
"""

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from scipy.special import expit

from hiva_hf.checkpoint import load_detector
from hiva_hf.data import FaceTransform, load_prepared
from hiva_hf.export import PRECISIONS, export_onnx
from hiva_hf.export.runtime import open_session
from hiva_hf.files import whole_file
from hiva_hf.machine import machine
from hiva_hf.metrics import au_metrics, intensity_metrics

BATCHES = (1, 8)
WARM = 3
EAGER = "PyTorch, eager"
Run = Callable[[np.ndarray], np.ndarray]


def by_torch(model: torch.nn.Module) -> Run:
    @torch.inference_mode()
    def run(pixel_values: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(pixel_values).to(model.dtype)).logits.float().numpy()

    return run


def by_onnxruntime(file: Path) -> Run:
    session = open_session(file)
    return lambda pixel_values: session.run(["logits"], {"pixel_values": pixel_values})[0]


def by_openvino(file: Path, precision: str) -> Run:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(file), "CPU", settings)
    return lambda pixel_values: compiled([pixel_values])[0]


def variants(
    model, processor, calibrate, folder: Path, compiled: bool, console: Console
) -> dict[str, tuple[Run, float]]:
    """What runs the detector, and megabytes of its file."""
    model.save_pretrained(folder / "checkpoint")
    weights = (folder / "checkpoint" / "model.safetensors").stat().st_size / 1e6
    found = {EAGER: (by_torch(model), weights)}
    half = deepcopy(model).to(torch.bfloat16)
    ways: list[tuple[str, Callable[[], Run], float]] = [("PyTorch, bfloat16", lambda: by_torch(half), weights / 2)]
    if compiled:
        ways.append(("torch.compile", lambda: by_torch(torch.compile(model, dynamic=True)), weights))
    for precision in PRECISIONS:
        done = export_onnx(model, processor, folder / f"{precision}.onnx", precision, calibrate)
        ways.append((f"onnxruntime, {precision}", lambda file=done.path: by_onnxruntime(file), done.megabytes))
        if precision in ("float32", "int8-static"):
            ways.append((f"OpenVINO, {precision}", lambda file=done.path: by_openvino(file, "f32"), done.megabytes))
        if precision == "float32":
            ways.append(("OpenVINO, bfloat16", lambda file=done.path: by_openvino(file, "bf16"), done.megabytes))
    blank = np.zeros((max(BATCHES), 3, *(processor.image_processor.size[side] for side in ("height", "width"))), "f4")
    for name, open_it, megabytes in ways:
        try:
            run = open_it()
            for size in BATCHES:
                run(blank[:size])
        # whatever a runtime that is not there or cannot do it raises
        except Exception as error:
            console.print(f"{name} is left out: {' '.join(str(error).split())[-160:]}", markup=False)
            continue
        found[name] = (run, megabytes)
    return found


def timed(runs: dict[str, Run], pixels: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """CPU milliseconds an image at each batch size, and the ratio to eager PyTorch."""
    result: dict[str, dict[str, float]] = {name: {} for name in runs}
    for size in BATCHES:
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds + WARM):
            start = turn * size % (len(pixels) - size + 1)
            for name, run in runs.items():
                before = time.process_time()
                run(pixels[start : start + size])
                spent[name].append(1000 * (time.process_time() - before) / size)
        for name, values in spent.items():
            ratios = [mine / eager for mine, eager in zip(values[WARM:], spent[EAGER][WARM:], strict=True)]
            result[name][f"cpu_ms_batch_{size}"] = round(statistics.median(values[WARM:]), 2)
            result[name][f"over_eager_batch_{size}"] = round(statistics.median(ratios), 3)
    return result


def kept(logits: np.ndarray, labels: np.ndarray, model, processor) -> dict[str, float]:
    """How good the answers are."""
    names = model.config.au_names
    if model.config.problem_type == "regression":
        metrics = intensity_metrics(labels, logits.clip(0, 5), names)
        return {name: round(metrics[name], 4) for name in ("mean_icc", "mean_mae")}
    limits = list(processor.limits(names).values())
    # what is no number is no detection
    metrics = au_metrics(labels, expit(np.nan_to_num(logits, nan=-100.0)), names, limits)
    return {name: round(metrics[name], 4) for name in ("mean_f1", "mean_auc")}


def main(
    checkpoint: Annotated[str, typer.Argument(help="Folder of a checkpoint, or its Hub id.")],
    faces: Annotated[str, typer.Option(help="Prepared faces with labels to measure on.")],
    calibrate: Annotated[str, typer.Option(help="Prepared faces of other people, for int8-static.")],
    rounds: Annotated[int, typer.Option(min=3, help="Timed batches of each variant and size.")] = 41,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every runtime.")] = 1,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Measure torch.compile.")] = True,
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("examples/results/export.csv"),
):
    torch.set_num_threads(threads)
    console = Console(width=160)
    model, processor = load_detector(checkpoint)
    model.fold_text()
    intensity = model.config.problem_type == "regression"
    dataset = load_prepared(faces, aus=model.config.au_names, intensity=intensity)
    prepared = FaceTransform(processor.image_processor)(dataset[:])
    pixels, labels = (np.stack([np.asarray(row) for row in prepared[name]]) for name in ("pixel_values", "labels"))
    with tempfile.TemporaryDirectory() as folder:
        known = load_prepared(calibrate)
        shared = set(known["subject_id"]) & set(dataset["subject_id"])
        if shared:
            raise ValueError(f"`calibrate` must hold other people than `faces`; got {', '.join(sorted(shared)[:3])}.")
        ways = variants(model, processor, known, Path(folder), compiled, console)
        times = timed({name: run for name, (run, _) in ways.items()}, pixels, rounds)
        rows, step = [], max(BATCHES)
        for name, (run, megabytes) in ways.items():
            logits = np.concatenate([run(pixels[start : start + step]) for start in range(0, len(pixels), step)])
            if name == EAGER:
                right = logits
            rows.append(
                {
                    "runtime": name,
                    "megabytes": round(megabytes, 1),
                    **times[name],
                    "largest_logit_difference": f"{np.abs(logits - right).max():.2g}",
                    **kept(logits, labels, model, processor),
                    "faces": len(labels),
                    "threads": threads,
                    "machine": machine(),
                }
            )
    shown = [name for name in rows[0] if name not in ("faces", "threads", "machine")]
    table = Table(title=f"{len(labels)} faces, {threads} threads, {machine()}", title_justify="left")
    for column in shown:
        table.add_column(column.replace("_", " "), justify="left" if column == "runtime" else "right")
    for row in rows:
        table.add_row(*(str(row[column]) for column in shown))
    console.print(table)
    with whole_file(out) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    typer.run(main)
