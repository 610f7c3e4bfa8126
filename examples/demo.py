"""What `make demo` runs: train HiVA on rendered faces, test it on unseen people, reload it, and draw its answer.

    python examples/demo.py --output demo_output --epochs 30

Each step is a command that a user would type; it is printed before it runs.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

RELOAD = """
import sys, torch
import hiva_hf
from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(sys.argv[1])
processor = AutoProcessor.from_pretrained(sys.argv[1])
inputs = processor(images=[Image.open(path) for path in sys.argv[2:]], return_tensors="pt")
with torch.no_grad():
    logits = model(inputs["pixel_values"]).logits
for path, scores in zip(sys.argv[2:], processor.post_process(logits)):
    top = sorted(scores.items(), key=lambda item: -item[1])[:4]
    print(path, " ".join(f"{name} {score:.2f}" for name, score in top))
"""


def run(*command: str) -> None:
    print("\n$", " ".join(part if len(part) < 200 else "..." for part in command), flush=True)
    subprocess.run(command, check=True)


def write_unseen_faces(model: Path, folder: Path, count: int = 4) -> list[Path]:
    """Aligned crops of rendered people that the model was not trained on, and what their faces were told to do."""
    import json

    from hiva_hf.data import load_rendered
    from hiva_hf.faces import FaceTemplate, five_points, similarity_transform, warp_face
    from hiva_hf.facs import BP4D_AUS
    from hiva_hf.presets import IMAGE_SIZE

    subjects = json.loads((model / "splits.json").read_text())["test"]
    dataset = load_rendered(subjects=subjects)
    active = np.asarray(dataset["labels"]).sum(axis=1)
    target = FaceTemplate().points * IMAGE_SIZE
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for subject in subjects[:count]:
        rows = [i for i, name in enumerate(dataset["subject_id"]) if name == subject]
        row = dataset[int(max(rows, key=lambda i: active[i]))]
        matrix = similarity_transform(five_points(row["landmarks"]), target)
        path = folder / f"{subject}-{row['frame']}.png"
        warp_face(row["image"].convert("RGB"), matrix, IMAGE_SIZE).save(path)
        told = [name for name, value in zip(BP4D_AUS, row["labels"], strict=True) if value == 1]
        print(f"{path}: told to show {', '.join(told)}")
        paths.append(path)
    return paths


def main(
    output: Annotated[Path, typer.Option(help="Folder for the model and the pictures; made anew.")] = Path(
        "demo_output"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 30,
):
    from skimage import data

    for leftover in (output, output.with_name(f"{output.name}-checkpoints")):
        shutil.rmtree(leftover, ignore_errors=True)
    output.mkdir(parents=True)
    hiva, model = str(Path(sys.executable).with_name("hiva")), output / "model"

    run(
        hiva,
        "train",
        "--output",
        str(model),
        "--epochs",
        str(epochs),
        "--batch-size",
        "8",
        "--learning-rate",
        "5e-4",
        "--workers",
        "0",
    )
    crops = write_unseen_faces(model, output / "unseen")
    print("\nReloaded in a fresh process through AutoModel:", flush=True)
    run(sys.executable, "-c", RELOAD, str(model), *map(str, crops))
    run(
        hiva,
        "predict",
        *map(str, crops[:1]),
        "--checkpoint",
        str(model),
        "--cropped",
        "--plot",
        str(output / "rendered_face.png"),
    )
    photograph = output / "astronaut.png"
    Image.fromarray(data.astronaut()).save(photograph)
    run(hiva, "predict", str(photograph), "--checkpoint", str(model), "--plot", str(output / "astronaut_overlay.png"))
    print(f"\nLook at {output / 'astronaut_overlay.png'} and {output / 'rendered_face.png'}.")


if __name__ == "__main__":
    typer.run(main)
