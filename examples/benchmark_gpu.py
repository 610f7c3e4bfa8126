"""Images a second on a GPU: folded HiVA beside its bare tower, eager and compiled, and how near both come to the card.

    python examples/benchmark_gpu.py --out examples/results/gpu.csv

bfloat16, random weights, 12 action units. Variants take turns; medians. The card's own limits are measured in the same
run: a large matrix product, and a copy of memory counted as read and written. Beside the copy stands what all
operators read and write while none is fused: a compiled pass moves less than that, and may exceed the copy.
"""

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from benchmark_tools import variants
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def seconds(call, rounds: int) -> list[float]:
    """Of each of so many calls, the first three left out."""
    found = []
    for _ in range(rounds + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return found[3:]


class Traffic(TorchDispatchMode):
    """Bytes that operators read and write, each from and to memory."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        if not func.is_view:
            held = [value for value in tree_leaves((args, kwargs, results)) if isinstance(value, torch.Tensor)]
            # what is expanded lies in memory once
            self.bytes += sum(min(value.nbytes, value.untyped_storage().nbytes()) for value in held)
        return results


@torch.no_grad()
def traffic_of(model: torch.nn.Module, pixels: torch.Tensor) -> int:
    """Bytes of a pass; not in inference mode, which hides what operators are made of."""
    with Traffic() as moved:
        model(pixels)
    return moved.bytes


def limits() -> tuple[float, float]:
    """TFLOP/s of a bfloat16 matrix product of 8192 x 8192, and TB/s of a copy of 4 GB."""
    one, other = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = np.median(seconds(lambda: one @ other, 10))
    source = torch.empty(2**31, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    copy = np.median(seconds(lambda: target.copy_(source), 5))
    return 2 * 8192**3 / product / 1e12, 2 * source.nbytes / copy / 1e12


def main(
    towers: Annotated[str, typer.Option(help="Which, by commas.")] = "resnet-50,vit-b/16,small preset",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a pass.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Timed passes of each variant.")] = 20,
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("examples/results/gpu.csv"),
):
    if not torch.cuda.is_available():
        raise typer.BadParameter("this measures a GPU, and torch sees none")
    peak, bandwidth = limits()
    print(f"{torch.cuda.get_device_name()}: {peak:.0f} TFLOP/s, {bandwidth:.2f} TB/s", flush=True)
    rows = []
    for name in towers.split(","):
        models, size = variants(name)
        models.pop("HiVA")
        calls, operations, traffic = {}, {}, {}
        pixels = torch.rand(batch_size, 3, size, size, device="cuda", dtype=torch.bfloat16)
        pixels = pixels.to(memory_format=torch.channels_last)
        for key, model in models.items():
            model.to("cuda", torch.bfloat16, memory_format=torch.channels_last)
            traffic[key] = traffic_of(model, pixels)
        with torch.inference_mode():
            for key, model in models.items():
                with FlopCounterMode(display=False) as counter:
                    model(pixels)
                operations[key] = counter.get_total_flops()
                calls[key, "eager"] = partial(model, pixels)
                # CUDA graphs: one launch for the whole pass
                calls[key, "compiled"] = partial(torch.compile(model, mode="reduce-overhead"), pixels)
            found = {key: [] for key in calls}
            for call in calls.values():
                seconds(call, 1)
            for _ in range(rounds):
                for key, call in calls.items():
                    found[key] += seconds(call, 1)
        for (variant, mode), times in found.items():
            middle = float(np.median(times))
            rate, moving = operations[variant] / middle / 1e12, traffic[variant] / middle / 1e12
            rows.append(
                {
                    "tower": name,
                    "variant": variant,
                    "mode": mode,
                    "pixels": size,
                    "images_a_second": batch_size / middle,
                    "over_bare_tower": middle / float(np.median(found["bare tower", mode])),
                    "tflops": rate,
                    "share_of_product": rate / peak,
                    "tb_s": moving,
                    "share_of_copy": moving / bandwidth,
                }
            )
        print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"), flush=True)
    table = pd.DataFrame(rows)
    table["card"], table["card_tflops"], table["card_tb_s"] = torch.cuda.get_device_name(), peak, bandwidth
    table.to_csv(out, index=False, float_format="%.5g")


if __name__ == "__main__":
    typer.run(main)
