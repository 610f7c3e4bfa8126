"""What HiVA costs beside its bare backbone, beside the limit of this machine, and beside other programs.

    python examples/benchmark.py                             # all, a few minutes each part on two idle cores
    python examples/benchmark.py --parts towers,training --towers resnet-50
    python examples/benchmark.py --parts peers --peers FOLDER       # FOLDER/ME-GraphAU holds a copy of that program

Random weights, float32, 12 action units of 8 descriptions. What is compared takes turns, pair by pair, so that noise
from the rest of the machine falls on both; `ratio` is the median over the pairs of the ratio of the CPU time that the
process took, in all its threads. What is run anew replaces its rows in the table, the others stay.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from benchmark_peers import peers
from benchmark_tools import TOWERS, bare, childrens_time, faces, folded, judged, row, turns, with_text
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from hiva_hf import HiVAForImageClassification, default_checkpoint
from hiva_hf.checkpoint import load_detector
from hiva_hf.data import load_rendered
from hiva_hf.facs import ACTION_UNITS
from hiva_hf.files import whole_file
from hiva_hf.lora import add_text_lora
from hiva_hf.loss_hiva import OCCURRENCE_LOSSES
from hiva_hf.machine import machine
from hiva_hf.modeling_hiva_towers import extract_visual_tokens
from hiva_hf.presets import hiva_small
from hiva_hf.training import save_detector

# as many as OpenGraphAU has: every one, and some of one side of the face
MANY = [*ACTION_UNITS, *(f"AU{number}{side}" for number in (1, 2, 4, 6, 12) for side in "LR")][:41]
LORA = "LoRA on the text, vision tower frozen"
LORA_AND_ALL = "LoRA on the text, all else trained"
LORA_OF_TWO = f"{LORA_AND_ALL}, 2 of 8 descriptions a step"
BARE_VIT = """
import sys
from PIL import Image
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification
folder, picture = sys.argv[1:]
model = AutoModelForImageClassification.from_pretrained(folder)
processor = AutoImageProcessor.from_pretrained(folder)
with torch.inference_mode():
    logits = model(**processor(Image.open(picture).convert("RGB"), return_tensors="pt")).logits
print(dict(zip(model.config.id2label.values(), logits[0].sigmoid().tolist())))
"""


@torch.inference_mode()
def towers(names: list[str], rounds: int) -> list[dict]:
    """Folded HiVA beside its bare tower, and 41 action units beside 12."""
    rows = []
    for name in names:
        models = {"HiVA folded": folded(name), "41 AUs": folded(name, MANY)}
        models["bare tower"] = bare(models["HiVA folded"])
        for batch_size, limit in ((8, 1.1), (1, 1.2)):
            pixels = faces(batch_size, 224)
            calls = {key: partial(model, pixels) for key, model in models.items()}
            times = turns(calls, rounds if batch_size == 8 else 3 * rounds)
            what = {"per": "image", "count": batch_size, "measure": name, "batch_size": batch_size}
            rows.append(row(times, "HiVA folded", "bare tower", claim=f"ratio <= {limit}", **what))
            claim = "ratio <= 1.15" if batch_size == 8 else ""
            rows.append(row(times, "41 AUs", "HiVA folded", claim=claim, **what))
    return rows


@torch.inference_mode()
def small(names: list[str], rounds: int) -> list[dict]:
    """The small preset, and the checkpoint that ships, which has a deeper tower."""
    rows = []
    shipped = load_detector(default_checkpoint())[0]
    for name, size, model in (("small preset", 112, hiva_small()[0].eval()), ("shipped checkpoint", 128, shipped)):
        models = {"HiVA folded": model, "bare tower": bare(model)}
        for one in models.values():
            # as a checkpoint is loaded
            one.to(memory_format=torch.channels_last)
        # the limit is half of what the fastest other program takes in batches of 8
        for batch_size, claim in ((8, "cpu_ms <= 20"), (1, "")):
            pixels = faces(batch_size, size)
            times = turns({key: partial(one, pixels) for key, one in models.items()}, 8 * rounds, warm=5)
            what = {"measure": f"{name}, {size} pixels", "batch_size": batch_size}
            rows.append(row(times, *models, "image", batch_size, claim, **what))
    return rows


class BareClassifier(nn.Module):
    """A tower, the mean of its tokens and a linear layer, under the same loss."""

    def __init__(self, model: HiVAForImageClassification):
        super().__init__()
        self.tower = bare(model)
        self.head = nn.Linear(model.config.vision_hidden_size, model.config.num_labels)
        self.loss = OCCURRENCE_LOSSES[model.config.occurrence_loss]

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss alone."""
        tokens, _, _ = extract_visual_tokens(self.tower, pixel_values)
        return self.loss(self.head(tokens.mean(dim=1)), labels)


def training_step(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """Forward, backward and AdamW over all that is trained."""
    model.train()
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-5)

    def step() -> None:
        answer = model(pixel_values=pixels, labels=labels)
        (answer if torch.is_tensor(answer) else answer.loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def training(names: list[str], rounds: int) -> list[dict]:
    """A step with frozen text, one of LoRA on the text, with and without all else, beside that of the bare tower."""
    rows = []
    for name in names:
        pixels, labels = faces(16, 224), torch.randint(0, 2, (16, 12)).float()
        frozen = with_text(name)
        frozen.hiva.text_model.requires_grad_(False)
        adapted = {key: add_text_lora(with_text(name)) for key in (LORA, LORA_AND_ALL, LORA_OF_TWO)}
        adapted[LORA_OF_TWO].base_model.model.config.num_sampled_descriptions = 2
        for both in (adapted[LORA_AND_ALL], adapted[LORA_OF_TWO]):
            for key, value in both.named_parameters():
                value.requires_grad_(".text_model." not in key or value.requires_grad)
        models = {"frozen text": frozen, **adapted, "bare tower": BareClassifier(frozen)}
        calls = {key: training_step(model, pixels, labels) for key, model in models.items()}
        times = turns(calls, max(1, rounds // 2))
        for key, limit in (("frozen text", 1.15), *((key, 1.4) for key in adapted)):
            what = {"claim": f"ratio <= {limit}", "measure": name, "batch_size": 16}
            rows.append(row(times, key, "bare tower", "step", **what))
    return rows


def start(names: list[str], rounds: int) -> list[dict]:
    """Fresh processes: what an import costs, and `hiva predict` on one picture beside a script of transformers."""
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model, processor = hiva_small(vision_config=TOWERS["vit-b/16"])
        processor.image_processor.size = {"height": 224, "width": 224}
        save_detector(model, processor, place / "hiva")
        _save_bare_vit(model, place / "vit")
        load_rendered()[0]["image"].save(place / "face.png")
        predict = ["-m", "hiva_hf.cli", "predict", place / "face.png", "-c", place / "hiva", "-o", place / "out.json"]
        commands = {
            "import transformers": ["-c", "import transformers"],
            "import transformers, then hiva_hf": ["-c", "import transformers, hiva_hf"],
            "a script of transformers, ViT-B/16": ["-c", BARE_VIT, place / "vit", place / "face.png"],
            "hiva predict --cropped, ViT-B/16": [*predict, "--cropped"],
            "hiva predict, ViT-B/16": predict,
        }

        def run(arguments: list) -> None:
            # what is there already would not be predicted again
            for old in place.glob("out.json*"):
                old.unlink()
            subprocess.run([sys.executable, *map(str, arguments)], **quiet)

        calls = {name: partial(run, arguments) for name, arguments in commands.items()}
        times = turns(calls, rounds, childrens_time)
    names = list(commands)
    what = {"measure": "process start to result", "batch_size": 1, "per": "process"}
    return [
        row(times, names[1], names[0], claim="ratio <= 1.1", **what),
        row(times, names[3], names[2], claim="ratio <= 1.3", **what),
        # with a search for faces, which the script does not have
        row(times, names[4], names[2], **what),
    ]


def _save_bare_vit(model: HiVAForImageClassification, folder: Path) -> None:
    from transformers import ViTForImageClassification, ViTImageProcessorPil

    config = model.config.vision_config.__class__(num_labels=model.config.num_labels)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)


@torch.inference_mode()
def peak(names: list[str], rounds: int) -> list[dict]:
    """Operations a CPU second beside those of a large matrix product; and which part of the time is not the tower's."""
    rows, side = [], 2048
    one, two = torch.rand(side, side), torch.rand(side, side)
    for name in names:
        model, pixels = folded(name), faces(32, 224)
        models = {"HiVA folded": model, "bare tower": bare(model)}
        counts = {}
        for key, network in models.items():
            with FlopCounterMode(display=False) as counter:
                network(pixels)
            counts[key] = counter.get_total_flops()
        calls = {"product": partial(torch.mm, one, two)} | {key: partial(m, pixels) for key, m in models.items()}
        times = turns(calls, max(1, rounds // 2))
        rate = {key: [counts.get(key, 2 * side**3) / cpu for cpu, _ in spent] for key, spent in times.items()}
        for key in models:
            found = row(times, key, "product", "image", 32, measure=name, batch_size=32)
            found["beside_cpu_ms"] *= 32
            found["beside_wall_ms"] *= 32
            found["gflops"] = statistics.median(rate[key]) / 1e9
            found["peak_gflops"] = statistics.median(rate["product"]) / 1e9
            found["ratio"] = statistics.median(a / b for a, b in zip(rate[key], rate["product"], strict=True))
            rows.append(found)
        rows += profiled(model, pixels, name)
    return rows


def profiled(model: HiVAForImageClassification, pixels: torch.Tensor, name: str) -> list[dict]:
    """Share of each box of HiVA in the time of a forward pass, by torch's profiler."""
    boxes = {key: box for key, box in model.hiva.named_children() if isinstance(box, nn.Module)}
    boxes["classifier"] = model.classifier
    ranges, hooks = {}, []
    for key, box in boxes.items():

        def enter(module, arguments, key=key) -> None:
            ranges[key] = record_function(f"hiva.{key}")
            ranges[key].__enter__()

        def leave(module, arguments, answer, key=key) -> None:
            ranges[key].__exit__(None, None, None)

        hooks += [box.register_forward_pre_hook(enter), box.register_forward_hook(leave)]
    try:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(2):
                with record_function("hiva"):
                    model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    spent = {event.key: event.cpu_time_total for event in profiler.key_averages() if event.key.startswith("hiva")}
    shares = {key: spent.get(f"hiva.{key}", 0) / spent["hiva"] for key in boxes}
    shares["all that is ours"] = 1 - shares.pop("vision_model")
    what = {"measure": name, "batch_size": 32, "beside": "the whole pass, by torch's profiler"}
    return [
        judged({**what, "variant": key, "ratio": share}, "" if key.startswith("all") else "ratio <= 0.05")
        for key, share in shares.items()
    ]


PARTS = {"towers": towers, "small": small, "training": training, "start": start, "peak": peak}


def saved(rows: list[dict], out: Path) -> None:
    """Write rows in place of those of the same parts and towers."""
    table = pd.DataFrame(rows)
    if out.is_file():
        before = pd.read_csv(out)
        keys = ["part", "measure"]
        anew = before[keys].apply(tuple, axis=1).isin(table[keys].apply(tuple, axis=1))
        table = pd.concat([before[~anew], table]).sort_values("part", kind="stable")
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial_file:
        table.to_csv(partial_file, index=False, float_format="%.4g", lineterminator="\n")


def shown(rows: list[dict], title: str) -> Table:
    columns = ["measure", "batch_size", "variant", "cpu_ms", "wall_ms", "beside", "ratio", "claim", "holds"]
    table = Table(title=title)
    for column in columns:
        table.add_column(column.replace("_", " "))
    for found in rows:
        values = [found.get(column, "") for column in columns]
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values))
    return table


def main(
    parts: Annotated[str, typer.Option(help="Which, by commas; peers is one where --peers is given.")] = "",
    names: Annotated[str, typer.Option("--towers", help="Which, by commas.")] = ",".join(TOWERS),
    rounds: Annotated[int, typer.Option(min=1, help="Turns; short ones take more, long ones fewer.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Of torch, by default its own choice.")] = torch.get_num_threads(),
    peers_folder: Annotated[Path | None, typer.Option("--peers", help="Folder that holds other programs.")] = None,
    out: Annotated[Path, typer.Option(help="Table to write.")] = Path("examples/results/benchmark.csv"),
):
    known = dict(PARTS)
    if peers_folder is not None:
        known["peers"] = partial(peers, folder=peers_folder.resolve())
    chosen, towers_chosen = parts.split(",") if parts else list(known), names.split(",")
    for given, allowed, option in ((chosen, known, "--parts"), (towers_chosen, TOWERS, "--towers")):
        if unknown := [name for name in given if name not in allowed]:
            raise typer.BadParameter(f"{option} knows {', '.join(allowed)}; got {', '.join(unknown)}.")
    torch.set_num_threads(threads)
    console = Console(width=160)
    for part in chosen:
        torch.manual_seed(0)
        begun = time.perf_counter()
        try:
            rows = known[part](towers_chosen, rounds)
        except ImportError as error:
            console.print(f"{part} is left out: {error}", markup=False)
            continue
        for found in rows:
            found |= {"machine": machine(), "threads": threads}
        rows = [{"part": part, **found} for found in rows]
        saved(rows, out)
        console.print(shown(rows, f"{part}, {threads} threads, {machine()}, {time.perf_counter() - begun:.0f} s"))


if __name__ == "__main__":
    typer.run(main)
