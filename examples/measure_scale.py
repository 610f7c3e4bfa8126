"""Cost and memory of `hiva predict` over more and more pictures: the machinery, not the model.

    python examples/measure_scale.py --counts 1000,10000,100000 --out scale.csv

A few hundred small faces are linked again and again, in folders of a thousand files; each count is read in a process of
its own by a tiny model whose answer costs next to nothing. What grows with the number of pictures is seen in the
milliseconds a picture and in the highest memory, which is told at each tenth of the way, too.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from PIL import Image

from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.data import load_rendered
from hiva_hf.detector import ActionUnitDetector
from hiva_hf.faces import WholePicture
from hiva_hf.machine import machine
from hiva_hf.prediction import predict_sources
from hiva_hf.prediction_sources import Sources
from hiva_hf.results import ResultFile

SIDE, FACES, A_FOLDER = 32, 300, 1000
LABELS = ("AU1", "AU4", "AU12")


def tiny_detector():
    """A detector of one small layer, on pictures of 32 pixels."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    vision = {
        "model_type": "swin", "image_size": SIDE, "patch_size": 8, "embed_dim": 8, "depths": [1], "num_heads": [1],
        "window_size": 4,
    }  # fmt: skip
    config = HiVAConfig(
        vision_config=vision, id2label=dict(enumerate(LABELS)), use_descriptions=False, use_ddca=False, use_cdca=False,
        head="linear", hidden_size=8, num_attention_heads=1, intermediate_size=8, graph_top_k=1,
    )  # fmt: skip
    processor = HiVAProcessor(HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE}), labels=list(LABELS))
    return ActionUnitDetector(HiVAForImageClassification(config), processor, faces=WholePicture(), batch_size=64)


def make_corpus(folder, count):
    """Links to a few hundred faces, a thousand in a folder."""
    folder.mkdir(parents=True)
    faces = load_rendered()
    originals = folder.parent / "faces"
    if not originals.exists():
        originals.mkdir()
        for number in range(FACES):
            faces[number]["image"].convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(
                originals / f"{number:03d}.png"
            )
    for number in range(count):
        place = folder / f"{number // A_FOLDER:04d}"
        if number % A_FOLDER == 0:
            place.mkdir()
        os.link(originals / f"{number % FACES:03d}.png", place / f"{number:07d}.png")


def measure(folder, out, count):
    """Read a corpus and tell what it cost, in this process."""
    detector = tiny_detector()
    begun = {"wall": time.perf_counter(), "cpu": time.process_time()}
    curve = []

    def note(pictures, results, done):
        if done * 10 // count > len(curve):
            curve.append(highest_memory())

    report = predict_sources(
        detector, Sources([folder]), ResultFile(out, detector.labels, detector.intensity), on_batch=note
    )
    read = {"wall": time.perf_counter() - begun["wall"], "cpu": time.process_time() - begun["cpu"]}
    lines = sum(1 for _ in out.open(encoding="utf-8")) - 1
    if (report.faces, lines) != (count, count):
        raise ValueError(f"{folder} holds {count} faces; found {report.faces}, and {lines} rows in {out}.")
    return {
        "pictures": count,
        "ms_a_picture": 1000 * read["wall"] / count,
        "cpu_ms_a_picture": 1000 * read["cpu"] / count,
        "peak_MiB": highest_memory(),
        "MiB_by_tenths": " ".join(f"{value:.0f}" for value in curve),
        "out_MB": out.stat().st_size / 1e6,
    }


def highest_memory():
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def list_alone(folder, count):
    """Milliseconds a thousand files of going through a corpus without reading it."""
    begun = time.perf_counter()
    found = sum(1 for _ in Sources([folder]))
    if found != count:
        raise ValueError(f"{folder} holds {count} files; found {found}.")
    return 1e6 * (time.perf_counter() - begun) / count


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1000,10000,30000", help="How many pictures, between commas.")
    parser.add_argument("--out", type=Path, help="Table to write (.csv).")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        folder, out, count = options.one
        print(json.dumps(measure(Path(folder), Path(out), int(count))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in map(int, options.counts.split(",")):
            folder = Path(scratch) / f"{count}"
            make_corpus(folder, count)
            call = [sys.executable, __file__, "--one", str(folder), str(Path(scratch) / f"{count}.csv"), str(count)]
            told = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(told.splitlines()[-1]) | {"list_ms_a_thousand": list_alone(folder, count)})
            print(pd.DataFrame(rows).round(2).to_string(index=False), flush=True)
    print(machine())
    if options.out:
        pd.DataFrame(rows).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
