"""From a trained detector to the folder that ships with the package: half the bytes, the same answers.

    python examples/pack_default.py --checkpoint default --out hiva_hf/default_model --tested UNSEEN

Weights are stored in float16 and computed in float32. Where a probability would move by more than two thousandths, the
smallest stay in float32: biases, scales and the statistics of normalizations first. The largest difference is that of a
face on which an action unit takes another neighbour in the graph, nearly as similar; most move a hundred times less.
What only a training or the Hub needs is left out. With `--tested` the card tells how it does on these faces, of people
who took no part in its making. The folder appears whole or not at all, and only if it answers as the
detector did.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file

from hiva_hf.checkpoint import load_detector
from hiva_hf.commands.shared import trainer_of
from hiva_hf.data import FaceTransform, load_rendered
from hiva_hf.data.merging import label_matrix
from hiva_hf.files import read_record
from hiva_hf.hub.cards import model_card
from hiva_hf.hub.measured import RENDERED
from hiva_hf.hub.staging import without_paths
from hiva_hf.training import evaluate_detector, evaluate_with_groups, without_nan

# largest difference of a probability on any face, and most bytes of the folder
LARGEST_DIFFERENCE, MOST_BYTES = 2e-3, 16_000_000
# weights of so many numbers stay in float32, tried in this order
KEPT = (0, 2_000, 10_000, 40_000)
# they name code beside the weights, and here is none
OF_THE_HUB = ("auto_map", "custom_pipelines")
RECORDS = ("splits.json", "calibration.json")
# seen from the folder of the package that ships it
EVIDENCE = """## Evidence

In the repository of the package, each with its script, its table and its pictures:
[unseen people](../../examples/results/default/unseen-reference.md),
[unseen people of harder renders](../../examples/results/default/unseen-renders.md),
[faces of another face model](../../examples/results/default/unseen-makehuman.md),
[real photographs](../../examples/results/default/photographs.md),
[activation maps](../../examples/results/default/maps.md),
[damaged, small, turned and covered faces](../../examples/results/default/robustness.md). What it cannot do stands in
[the README](../../README.md#what-the-shipped-checkpoint-cannot-do) in plain words.
"""


def pixels(processor, faces: Path | None, count: int) -> torch.Tensor:
    """What a detector sees of so many rendered faces, evenly over all."""
    known = load_rendered(faces)
    rows = np.unique(np.linspace(0, len(known) - 1, count).round().astype(int))
    columns = [name for name in ("image", "points", "landmarks") if name in known.column_names]
    return FaceTransform(processor.image_processor)(known.select_columns(columns).select(rows)[:])["pixel_values"]


@torch.inference_mode()
def answers(model, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Probabilities, and intensities where there is a head for them."""
    outputs = [model(part) for part in pixel_values.split(32)]
    found = {"probability": torch.cat([output.logits for output in outputs]).double().sigmoid()}
    if outputs[0].intensities is not None:
        found["intensity"] = torch.cat([output.intensities for output in outputs]).double()
    return found


def halved(weights: dict[str, torch.Tensor], kept: int) -> dict[str, torch.Tensor]:
    """Weights in float16, but those of at most so many numbers as they are; counts stay counts."""
    return {
        name: value.half() if value.is_floating_point() and value.numel() > kept else value
        for name, value in weights.items()
    }


def smallest(model, weights: dict[str, torch.Tensor], pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """The smallest weights with which the model answers as it does.

    Raises:
        ValueError: If there are none that fit.
    """
    right, tried = answers(model, pixel_values), []
    for kept in KEPT:
        stored = halved(weights, kept)
        size = sum(value.nbytes for value in stored.values())
        model.load_state_dict({name: value.to(weights[name].dtype) for name, value in stored.items()})
        found = answers(model, pixel_values)["probability"]
        tried.append(f"{(found - right['probability']).abs().max().item():.1e} at {size / 1e6:.1f} MB")
        print(f"float16 above {kept} numbers: largest difference of a probability {tried[-1]}", flush=True)
        # a NaN is no agreement
        if size <= MOST_BYTES and torch.allclose(found, right["probability"], rtol=0, atol=LARGEST_DIFFERENCE):
            return stored
    raise ValueError(
        f"`checkpoint` must answer in half precision as in full, probabilities within {LARGEST_DIFFERENCE:g} at "
        f"{MOST_BYTES / 1e6:g} MB; got {', '.join(tried)}. Take a smaller model, or train it longer."
    )


def without_code(value: Any) -> Any:
    """JSON without what names code of the Hub."""
    if isinstance(value, dict):
        return {name: without_code(item) for name, item in value.items() if name not in OF_THE_HUB}
    return value


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    without_paths(path)


def results_of(source: Path, tested: Path | None) -> dict:
    """What the training told of itself, with the metrics of the tested faces in place of its own."""
    results = read_record(source / "results.json")
    if tested is None:
        return results
    model, processor = load_detector(source)
    names = model.config.au_names
    dataset = load_rendered(tested, aus=names)
    with trainer_of(model, processor, dataset) as trainer:
        metrics, groups = evaluate_with_groups(trainer, dataset)
        if model.config.intensity_head:
            metrics |= evaluate_detector(trainer, dataset, label_matrix(dataset, "intensities"))
    people = len(set(dataset["subject_id"]))
    return results | {
        "part": "test",
        "datasets": results.get("datasets", [RENDERED]),
        "data": results.get("data"),
        "people": results.get("people", {}) | {"test": people},
        "faces": results.get("faces", {}) | {"test": len(dataset)},
        "metrics": without_nan(metrics),
        "groups": {column: {group: without_nan(row) for group, row in rows.items()} for column, rows in groups.items()},
    }


def pack(
    source: Path,
    folder: Path,
    weights: dict[str, torch.Tensor],
    results: dict,
    card: Path | None,
    how: tuple[str, str],
) -> None:
    """All files of the shipped folder; without a card of its own one is made, `how` it is named and licensed."""
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    # written for its owner alone, where all other files follow the umask
    (folder / "model.safetensors").chmod(0o644)
    config = without_code(read_record(source / "config.json"))
    # what it is computed in, whatever it is stored in
    write_json(folder / "config.json", config | {"dtype": "float32"})
    write_json(folder / "processor_config.json", without_code(read_record(source / "processor_config.json")))
    for name in RECORDS:
        if content := read_record(source / name):
            write_json(folder / name, content)
    if results:
        write_json(folder / "results.json", results)
    if card is not None:
        shutil.copyfile(card, folder / "README.md")
    else:
        text = str(model_card(folder, *how, [RENDERED]))
        told = f"## Use\n\n`hiva_hf.default_checkpoint()` is this folder; put it, or its Hub id, for `{how[0]}`.\n"
        text = text.replace("## Use\n", told, 1).replace("## Intended use\n", f"{EVIDENCE}\n## Intended use\n", 1)
        (folder / "README.md").write_text(text, encoding="utf-8")


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a folded detector in float32.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier one is replaced.")],
    faces: Annotated[Path | None, typer.Option(help="Rendered faces, parquet; by default the sample.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many of them to compare on.")] = 256,
    tested: Annotated[
        Path | None, typer.Option(help="Rendered faces, parquet, to measure the figures of the card on.")
    ] = None,
    repo: Annotated[str, typer.Option(help="Name in the card, where the checkpoint has none.")] = "org/hiva-small",
    license: Annotated[str, typer.Option(help="In that card, of the weights.")] = "apache-2.0",
):
    model, processor = load_detector(checkpoint)
    if model.hiva.text_model is not None:
        raise ValueError(f"`checkpoint` must be folded; {checkpoint} has a text tower. Call `model.fold_text()` first.")
    pixel_values = pixels(processor, faces, count)
    right = answers(model, pixel_values)
    weights = smallest(model, load_file(checkpoint / "model.safetensors"), pixel_values)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        # one that tells other figures is made anew
        card = checkpoint / "README.md" if tested is None and (checkpoint / "README.md").is_file() else None
        pack(checkpoint, partial, weights, results_of(checkpoint, tested), card, (repo, license))
        # what is read back, not what was meant
        found = answers(load_detector(partial)[0], pixel_values)
        moved = {name: (found[name] - values).abs().max().item() for name, values in right.items()}
        size = sum(path.stat().st_size for path in partial.iterdir())
        if not moved["probability"] <= LARGEST_DIFFERENCE or size > MOST_BYTES:
            raise ValueError(
                f"`checkpoint` must fit {MOST_BYTES / 1e6:g} MB and answer within {LARGEST_DIFFERENCE:g} when it is "
                f"read back; got {size / 1e6:.1f} MB and {moved['probability']:.1e}. "
                "Take a smaller model, or train it longer."
            )
        shutil.rmtree(out, ignore_errors=True)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    told = ", ".join(f"{name} {value:.1e}" for name, value in moved.items())
    print(f"Wrote {out}: {size / 1e6:.1f} MB; largest difference on {len(pixel_values)} faces: {told}")


if __name__ == "__main__":
    typer.run(main)
