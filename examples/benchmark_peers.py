"""Other programs beside folded HiVA on the same tower; they run where their code lies in a given folder."""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from types import ModuleType

import psutil
import torch
from benchmark_tools import faces, folded, judged, row, turns
from torch import nn


def me_graphau(folder: Path, name: str) -> nn.Module:
    """Stage 2 of ME-GraphAU (Luo et al., IJCAI 2022), from its own code, with random weights.

    Args:
        folder (`Path`): Of github.com/CVI-SZU/ME-GraphAU.
        name (`str`): Of [`TOWERS`]; it has no ViT.

    Raises:
        ImportError: If it, or what it needs, is not there.
    """
    file = folder / "model" / "MEFL.py"
    if not file.is_file():
        raise ImportError(f"--peers must name the folder in which ME-GraphAU lies; there is no {file}.")
    network = ModuleType("model.MEFL")
    network.__package__ = "model"
    # as it stands it runs on a GPU alone: what it moves there is not set elsewhere
    code = file.read_text(encoding="utf-8").replace("x.get_device()", "x.device").replace("if dev >= 0:", "if dev:")
    sys.path.insert(0, str(folder))
    try:
        exec(compile(code, file, "exec"), network.__dict__)
    finally:
        sys.path.remove(str(folder))
    tower = {"resnet-50": "resnet50", "swin-t": "swin_transformer_tiny"}[name]
    # it would look for pretrained weights
    setattr(network, tower, partial(getattr(network, tower), pretrained=False))
    return network.MEFARG(num_classes=12, backbone=tower).eval()


def peer_models(folder: Path, name: str) -> dict[str, Callable[[], nn.Module]]:
    return {"HiVA folded": partial(folded, name), "ME-GraphAU": partial(me_graphau, folder / "ME-GraphAU", name)}


@torch.inference_mode()
def memory(folder: Path, name: str, variant: str, batch_size: int) -> float:
    """Most megabytes that a process holds for weights and forward passes; to be run in a process of its own."""
    process, done, most = psutil.Process(), Event(), [0]

    def watch() -> None:
        # what the system keeps as the highest may be of the process that began this one
        while not done.wait(0.002):
            most[0] = max(most[0], process.memory_info().rss)

    pixels, before = faces(batch_size, 224), process.memory_info().rss
    watcher = Thread(target=watch)
    watcher.start()
    try:
        model = peer_models(folder, name)[variant]()
        for _ in range(2):
            model(pixels)
    finally:
        done.set()
        watcher.join()
    return (most[0] - before) / 1e6


@torch.inference_mode()
def peers(names: list[str], rounds: int, folder: Path) -> list[dict]:
    """Folded HiVA and other programs on the same tower."""
    rows = []
    for name in [name for name in names if name != "vit-b/16"]:
        models = {key: make() for key, make in peer_models(folder, name).items()}
        for batch_size in (8, 1):
            pixels = faces(batch_size, 224)
            times = turns({key: partial(model, pixels) for key, model in models.items()}, max(1, rounds // 2))
            what = {"measure": name, "batch_size": batch_size, "claim": "ratio >= 2.3"}
            rows.append(row(times, "ME-GraphAU", "HiVA folded", "image", batch_size, **what))
        taken = {}
        for key in models:
            # a fork would begin with the memory of this process
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                taken[key] = pool.submit(memory, folder, name, key, 8).result()
        found = {"measure": f"{name}, memory", "batch_size": 8, "variant": "ME-GraphAU", "beside": "HiVA folded"}
        found |= {"megabytes": taken["ME-GraphAU"], "beside_megabytes": taken["HiVA folded"]}
        rows.append(judged({**found, "ratio": taken["ME-GraphAU"] / taken["HiVA folded"]}, "ratio >= 1"))
    return rows
