"""From `from_pretrained` to the first logits, beside a plain ViT of the same size; and how large checkpoints are.

    python examples/measure_loading.py

Every time is that of a process of its own, in turn, from the call of `from_pretrained` on a folder (which is what a
warm cache is) to the logits of one face; what the imports take is told apart. Weights are new.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from transformers import ViTConfig, ViTForImageClassification

from hiva_hf import hiva_small, hiva_small_text
from hiva_hf.lora import add_text_lora, text_lora_config
from hiva_hf.machine import machine

# the classes are imported before the clock of the second figure starts, so that it holds the loading alone
CLASSES = ("from hiva_hf import HiVAForImageClassification", "from transformers import ViTForImageClassification")
_TIMED = """
import json, sys, time
start = time.perf_counter()
import torch
{imports}
from transformers import AutoModelForImageClassification
imported = time.perf_counter()
model = AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    model(torch.zeros(1, 3, 112, 112)).logits
print(json.dumps([imported - start, time.perf_counter() - imported]))
"""


def megabytes(folder: Path) -> float:
    """Size of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def timed(folder: Path, imports: str) -> list[float]:
    """Seconds of the imports, and from `from_pretrained` to logits, in a new process."""
    script = _TIMED.format(imports=imports)
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(repeats: Annotated[int, typer.Option(min=1, help="Processes of each kind.")] = 9):
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in ("with text tower", "folded", "adapter alone", "ViT")}
        model, processor = hiva_small_text()
        model.save_pretrained(folders["with text tower"])
        processor.save_pretrained(folders["with text tower"])
        add_text_lora(model, text_lora_config(8)).save_pretrained(folders["adapter alone"])
        model, processor = hiva_small()
        model.save_pretrained(folders["folded"])
        processor.save_pretrained(folders["folded"])
        parameters = sum(value.numel() for value in model.parameters())
        # of about as many parameters
        vit = ViTConfig(
            image_size=112, patch_size=16, hidden_size=256, num_hidden_layers=6, num_attention_heads=4,
            intermediate_size=1024, num_labels=12,
        )  # fmt: skip
        plain = ViTForImageClassification(vit)
        plain.save_pretrained(folders["ViT"])
        rows: dict[str, list[list[float]]] = {name: [] for name in ("with text tower", "folded", "ViT")}
        for _ in range(repeats):
            for name, found in rows.items():
                found.append(timed(folders[name], CLASSES[name == "ViT"]))
        base = statistics.median(seconds for _, seconds in rows["ViT"])
        print(f"{machine()}; {parameters / 1e6:.1f} M parameters folded, ViT {plain.num_parameters() / 1e6:.1f} M")
        print("| | MB on disk | imports, s | from_pretrained to logits, s | times the ViT |\n|---|---|---|---|---|")
        for name, folder in folders.items():
            cells = ["", "", ""]
            if name in rows:
                imports, seconds = (statistics.median(column) for column in zip(*rows[name], strict=True))
                cells = [f"{imports:.2f}", f"{seconds:.3f}", f"{seconds / base:.2f}"]
            print(f"| {name} | {megabytes(folder):.2f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
