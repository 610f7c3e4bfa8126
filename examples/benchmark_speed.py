"""Milliseconds an image: a bare vision tower, HiVA with its text tower, and HiVA folded, side by side in one run.

    python examples/benchmark_speed.py --out examples/results/speed.csv

Random weights, float32, 12 action units, 8 descriptions each. The variants take turns, so that noise from the rest of
the machine falls on all of them; medians, and the process's CPU time beside the wall time.
"""

import csv
import platform
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoModel

from hiva_hf import HiVAConfig, HiVAForImageClassification
from hiva_hf.presets import hiva_small, hiva_small_text

TOWERS = {
    "resnet-50": {"model_type": "resnet"},
    "swin-t": {"model_type": "swin"},
    "vit-b/16": {"model_type": "vit"},
}
TEXT = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}


def variants(name: str) -> tuple[dict[str, torch.nn.Module], int]:
    """The bare tower, HiVA and HiVA folded, and the side of the image in pixels."""
    if name == "small preset":
        folded, with_text = hiva_small()[0], hiva_small_text()[0]
        size = 112
    else:
        with_text = HiVAForImageClassification(HiVAConfig(vision_config=TOWERS[name], text_config=TEXT))
        shape = (with_text.config.num_labels, 8, 40)
        with_text.set_descriptions(torch.randint(1000, 20000, shape))
        folded = HiVAForImageClassification(HiVAConfig(vision_config=TOWERS[name], text_config=TEXT))
        folded.set_descriptions(torch.randint(1000, 20000, shape))
        folded.fold_text()
        size = 224
    tower = AutoModel.from_config(folded.config.vision_config)
    return {"bare tower": tower.eval(), "HiVA": with_text.eval(), "HiVA folded": folded.eval()}, size


def parameters(model: torch.nn.Module) -> dict[str, float]:
    """Millions of parameters of each part."""
    parts = dict(model.hiva.named_children()) | {"classifier": model.classifier}
    return {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}


@torch.inference_mode()
def main(
    batch_size: Annotated[int, typer.Option(help="Images a forward pass.")] = 8,
    rounds: Annotated[int, typer.Option(help="Timed passes of each variant.")] = 15,
    towers: Annotated[str, typer.Option(help="Which, by commas.")] = ",".join([*TOWERS, "small preset"]),
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("examples/results/speed.csv"),
):
    rows = []
    console = Console(width=120)
    for name in towers.split(","):
        models, size = variants(name)
        pixels = torch.rand(batch_size, 3, size, size)
        wall, cpu = {key: [] for key in models}, {key: [] for key in models}
        for round_number in range(rounds + 2):
            for key, model in models.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                model(pixels)
                if round_number >= 2:
                    wall[key].append(time.perf_counter() - start)
                    cpu[key].append(time.process_time() - start_cpu)
        middle = {key: sorted(values)[rounds // 2] for key, values in wall.items()}
        for key in models:
            rows.append(
                {
                    "tower": name,
                    "variant": key,
                    "pixels": size,
                    "wall_ms_an_image": round(1000 * middle[key] / batch_size, 2),
                    "cpu_ms_an_image": round(1000 * sorted(cpu[key])[rounds // 2] / batch_size, 2),
                    "over_bare_tower": round(middle[key] / middle["bare tower"], 3),
                }
            )
        if name == "small preset":
            for key in ("HiVA", "HiVA folded"):
                parts = ", ".join(f"{part} {millions:.2f}" for part, millions in parameters(models[key]).items())
                console.print(f"{name}, {key}, millions of parameters: {parts}")
    machine = platform.processor() or platform.machine()
    table = Table(title=f"batch {batch_size}, float32, {torch.get_num_threads()} threads, {machine}")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="left" if column in ("tower", "variant") else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    typer.run(main)
