"""From renders to the checkpoint that ships: trains on faces that are rendered while it does, nobody's twice.

    python examples/train_default.py --model FaceXModel --out default --minutes 400    # on a GPU, or for long on a CPU

`--model` is ICT-FaceKit's folder FaceXModel or its compact form. Nothing but renders is trained on; `--faces` mixes in
those that another renderer made before. The number of steps is what fits into the time: the learning rate falls to zero
within it. Started again after an interruption, it goes on. `--start` trains a checkpoint further. `--visual` trains the
same model without text and graph; with `--start` too, from the vision tower of that checkpoint.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from default_faces import read_faces
from transformers import Trainer, TrainingArguments, set_seed

from hiva_hf import hiva_small, training_arguments
from hiva_hf.checkpoint import load_to_train
from hiva_hf.faces import FaceTemplate
from hiva_hf.files import read_record
from hiva_hf.hub.measured import RENDERED
from hiva_hf.machine import machine
from hiva_hf.metrics import au_metrics, intensity_metrics
from hiva_hf.presets import VISUAL_ONLY
from hiva_hf.render import RENDERED_AUS, FaceModel, FaceRenderer
from hiva_hf.render.batches import RenderedBatches, first_of
from hiva_hf.training import last_checkpoint, save_detector, without_nan

# people of the validation part; no training comes this far
VALIDATION = 2**40
# pixels around a stored face from which it can be shifted, as a share of its side
MARGIN = 1 / 16


def stored_faces(folder: Path, names: list[str], size: int, template: FaceTemplate, device) -> dict[str, torch.Tensor]:
    """Faces in parquet for [`RenderedBatches`], with a margin."""
    margin = round(MARGIN * size)
    side = size + 2 * margin
    wider = FaceTemplate(*map(tuple, (template.points * size + margin) / side))
    faces = read_faces(folder, names, side, wider)
    # an action unit that these faces were not told to show is not coded
    return {
        "pixel_values": torch.from_numpy(faces.images).permute(0, 3, 1, 2).contiguous().to(device),
        "labels": torch.from_numpy(faces.labels).float().to(device),
        "intensity_labels": torch.from_numpy(faces.intensity).float().to(device),
    }


def new_detector(size: int, map_loss_weight: float, visual: bool = False):
    """The small preset, a little deeper, with both heads."""
    tower = {
        "model_type": "resnet", "layer_type": "basic", "embedding_size": 64, "hidden_sizes": [64, 128, 256],
        "depths": [2, 3, 4],
    }  # fmt: skip
    kind = VISUAL_ONLY if visual else {"map_loss_weight": map_loss_weight}
    model, processor = hiva_small(
        RENDERED_AUS,
        vision_config=tower,
        intensity_head=True,
        intensity_loss_weight=0.1,
        # of so many faces none is seen twice, and rates are those of the data: nothing is to be weighed up
        occurrence_loss="binary_cross_entropy",
        **kind,
    )
    processor.image_processor.size = {"height": size, "width": size}
    return model, processor


def earlier_detector(folder: Path, size: int, map_loss_weight: float):
    """One that such a training made."""
    model, processor = load_to_train(folder)
    side = processor.image_processor.size["height"]
    if not set(model.config.au_names) <= set(RENDERED_AUS) or not model.config.intensity_head or side != size:
        raise typer.BadParameter(
            f"must be a checkpoint of this script, with an intensity head and rendered action units, of {size} pixels "
            f"(--size); got {', '.join(model.config.au_names)} at {side} pixels"
            f"{'' if model.config.intensity_head else ' without the head'}.",
            param_hint="'--start'",
        )
    model.config.map_loss_weight = map_loss_weight
    return model, processor


def steps_in(minutes: float, model, batches: RenderedBatches, arguments: TrainingArguments) -> int:
    """How many steps fit into the time, by what the last two thirds of these batches take."""
    model = model.to(arguments.device).train()
    synchronize = torch.cuda.synchronize if arguments.device.type == "cuda" else lambda: None
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model = torch.compile(model) if arguments.torch_compile else model
    a_round = len(batches) // 3
    for index in range(len(batches)):
        if index == a_round:
            synchronize()
            start = time.perf_counter()
        batch = batches[index]
        with torch.autocast(arguments.device.type, torch.bfloat16, enabled=arguments.bf16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    synchronize()
    # Trainer has more to do between the steps
    seconds = 1.1 * (time.perf_counter() - start) / (2 * a_round)
    return max(1, int(60 * minutes / seconds))


@torch.no_grad()
def scores(model, batches) -> tuple[np.ndarray, ...]:
    """Probabilities, intensities and the labels of both."""
    model.eval()
    found = []
    for index in range(len(batches)):
        batch = batches[index]
        outputs = model(batch["pixel_values"])
        found.append((outputs.logits.sigmoid(), outputs.intensities, batch["labels"], batch["intensity_labels"]))
    return tuple(torch.cat(column).float().cpu().numpy() for column in zip(*found, strict=True))


def with_what_came_before(record: dict, start: Path | None) -> dict:
    """The record of a training that went on from a checkpoint: its commands, faces, seconds and machines together."""
    before = read_record(start / "results.json") if start else {}
    if not before:
        return record
    machines = dict.fromkeys([before["machine"], record["machine"]])
    return record | {
        "command": f"{before['command']}; {record['command']}",
        "faces": record["faces"] | {"train": before["faces"]["train"] + record["faces"]["train"]},
        "seconds": before["seconds"] + record["seconds"],
        "machine": ", then ".join(machines),
    }


def main(
    model_path: Annotated[Path, typer.Option("--model", help="ICT-FaceKit: FaceXModel, or its compact form.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    steps: Annotated[int, typer.Option(help="Of the training; by default what fits into --minutes.")] = 0,
    minutes: Annotated[float, typer.Option(min=0.1, help="Time for the training, where --steps is not given.")] = 60,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces a step.")] = 256,
    views: Annotated[int, typer.Option(min=1, help="How often a face is seen; on a GPU, rendering takes longest.")] = 1,
    size: Annotated[int, typer.Option(min=64, help="Side of a face in pixels.")] = 128,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1.5e-3,
    map_weight: Annotated[float, typer.Option(help="Weight of the activation maps' loss.")] = 0.05,
    faces: Annotated[Path | None, typer.Option(help="Folder of rendered faces in parquet to mix in.")] = None,
    share: Annotated[float, typer.Option(min=0, max=0.99, help="Of each step that they are.")] = 0.25,
    start: Annotated[Path | None, typer.Option(help="Checkpoint to go on from.")] = None,
    visual: Annotated[bool, typer.Option("--visual", help="Without text and graph, to compare.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Pays on a GPU, from some thousand steps on.")] = False,
    chunk: Annotated[int, typer.Option(help="Faces that are drawn at once; by default what suits the device.")] = 0,
    validated: Annotated[int, typer.Option(min=1, help="Batches of the validation.")] = 16,
    seed: Annotated[int, typer.Option(help="Of weights, faces and order.")] = 0,
):
    set_seed(seed)
    arguments = training_arguments(
        out.with_name(f"{out.name}-checkpoints"),
        per_device_train_batch_size=1,
        learning_rate=rate,
        warmup_steps=0.03,
        seed=seed,
        bf16=True,
        torch_compile=compiled,
        eval_strategy="no",
        save_strategy="steps",
        load_best_model_at_end=False,
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
        logging_steps=50,
    )
    renderer = FaceRenderer(FaceModel.load(model_path), size=size, device=arguments.device, chunk=chunk or None)
    map_weight = 0.0 if visual else map_weight

    def detector():
        if not start:
            return new_detector(size, map_weight, visual)
        earlier = earlier_detector(start, size, map_weight)
        if not visual:
            return earlier
        model, processor = new_detector(size, map_weight, visual)
        try:
            model.hiva.vision_model.load_state_dict(earlier[0].hiva.vision_model.state_dict())
        except RuntimeError:
            raise typer.BadParameter(
                "must be a checkpoint of this script, for its vision tower (--visual); got one of another tower.",
                param_hint="'--start'",
            ) from None
        return model, processor

    model, processor = detector()

    def batches(count: int, first: int, **how) -> RenderedBatches:
        return RenderedBatches(
            renderer, processor.image_processor, model.config.au_names, count, batch_size, seed=seed,
            first_subject=first, **how,
        )  # fmt: skip

    how = {"views": views, "masks": map_weight > 0}
    if faces is not None:
        template = FaceTemplate.of(processor.image_processor)
        how["others"] = stored_faces(faces, model.config.au_names, size, template, arguments.device)
        how["share"] = share
    if not steps:
        steps = steps_in(minutes, model, batches(3 * 8 * views, VALIDATION // 2, **how), arguments)
        set_seed(seed)
        model, processor = detector()
    arguments.max_steps, arguments.save_steps = steps, max(1, steps // 20)
    print(f"{steps} steps of {batch_size} faces, each seen {views} times", flush=True)
    trainer = Trainer(model=model, args=arguments, train_dataset=batches(steps, 0, **how), data_collator=first_of)
    trained = trainer.train(resume_from_checkpoint=last_checkpoint(arguments.output_dir))
    unseen = batches(validated, VALIDATION, augmented=False)
    probabilities, intensities, labels, strengths = scores(model, unseen)
    metrics = au_metrics(labels, probabilities, model.config.au_names)
    strength = intensity_metrics(strengths, intensities, model.config.au_names)
    metrics |= {f"intensity_{key}": value for key, value in strength.items()}
    print(json.dumps({key: metrics[key] for key in ("mean_auc", "mean_f1", "intensity_mean_icc")}), flush=True)
    rendered, given = trainer.train_dataset.num_rendered_faces, how.get("others", {}).get("labels", ())
    options = {"steps": steps, "batch-size": batch_size, "views": views, "size": size, "rate": rate}
    options |= {"map-weight": map_weight, "validated": validated, "seed": seed}
    options |= {"faces": "FACES", "share": share} if faces else {}
    options |= {"start": start.name} if start else {}
    flags = ["--visual"] * visual + ["--compile"] * compiled
    record = {
        "command": " ".join([f"python examples/train_default.py --model FaceXModel --out {out.name}"]
                            + [f"--{name} {value}" for name, value in options.items()] + flags),
        "preset": "small, a deeper tower" + ", visual only" * visual,
        "datasets": [RENDERED], "data": None, "part": "validation",
        "seed": seed, "steps": steps, "batch_size": batch_size, "learning_rate": rate,
        "faces": {"train": rendered, "mixed in": len(given), "validation": len(labels)},
        "metrics": without_nan(metrics),
        # of a resumed run, since it was resumed
        "seconds": round(trained.metrics["train_runtime"], 1), "machine": machine(arguments.device),
    }  # fmt: skip
    save_detector(model.cpu(), processor, out, {"results.json": with_what_came_before(record, start)})


if __name__ == "__main__":
    typer.run(main)
