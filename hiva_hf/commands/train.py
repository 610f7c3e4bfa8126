"""`hiva train`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .shared import Data, Preset, is_first, leave_together, names, quiet, write_text


def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the trained model.")],
    data: Data = None,
    preset: Annotated[
        Preset | None, typer.Option(help="Which new model to begin with; by default small.", show_default=False)
    ] = None,
    begin: Annotated[
        str | None, typer.Option("--checkpoint", "-c", help="Begin with this trained detector, a folder or its Hub id.")
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(min=1, help="With --checkpoint: adapt its text tower by LoRA of this rank, and nothing else."),
    ] = None,
    dora: Annotated[bool, typer.Option("--dora", help="With --lora-rank: weight-decomposed LoRA.")] = False,
    rslora: Annotated[bool, typer.Option("--rslora", help="With --lora-rank: rank-stabilised LoRA.")] = False,
    aus: Annotated[
        str | None, typer.Option(help="Action units, such as '1,2,4'; by default the 12 of BP4D.", show_default=False)
    ] = None,
    intensity: Annotated[bool, typer.Option("--intensity", help="Learn intensity 0-5 in place of occurrence.")] = False,
    bank: Annotated[
        Path | None, typer.Option(help="Description bank of your own, a JSON file; for a preset with a text tower.")
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option("--text-encoder", help="Pretrained text tower, a folder or its Hub id; for the same preset."),
    ] = None,
    open_vocabulary: Annotated[
        bool,
        typer.Option(
            "--open-vocabulary", help="Tie no weight to an action unit: others can be asked for by --describe."
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces a step and process.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Seed of the split, the weights and the augmentation.")] = 0,
    test_subjects: Annotated[
        str, typer.Option(help="Subjects to test on, such as 'S020,S021'; default: a quarter.")
    ] = "",
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the other subjects that choose the best epoch.")
    ] = 0.15,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare pictures.")] = 2,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Mixed precision; faster where the machine has bfloat16.")
    ] = False,
    balance: Annotated[
        float,
        typer.Option(min=0, max=1, help="See faces with rare action units more often: 0 as they are, 1 evened out."),
    ] = 0.0,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read faces from --data while training, without a copy in the cache.")
    ] = False,
    strong_augmentation: Annotated[
        bool, typer.Option("--strong-augmentation", help="Vary faces more; for thousands of faces and long runs.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
):
    """Train a detector on faces, keep its best epoch on validation subjects, and test it on unseen subjects.

    Several processes share the work: torchrun --nproc_per_node 2 -m hiva_hf.cli train ...
    """
    from transformers import set_seed

    from ..calibration import calibrate_detector
    from ..checkpoint import load_to_train
    from ..data import FaceAugmentation, load_rendered, sampling_weights, stream_prepared, subject_split
    from ..data.merging import names_of_datasets
    from ..data.schema import alignment_of
    from ..facs import BP4D_AUS, au_label
    from ..files import read_record
    from ..lora import CALIBRATION_FILE, add_text_lora, calibration_record, text_lora_config
    from ..machine import machine
    from ..processes import launched
    from ..terminal import print_metrics
    from ..training import (
        build_trainer,
        evaluate_with_groups,
        last_checkpoint,
        save_detector,
        share_batch,
        training_arguments,
        whole_weights,
        without_nan,
    )

    if output.exists() and not output.is_dir():
        raise ValueError(f"`--output` must be a folder; {output} is a file.")
    state = output.with_name(f"{output.name}-checkpoints")
    checkpoint = last_checkpoint(state) if resume else None
    held = output.exists() and any(output.iterdir())
    if not resume and (state.exists() or held):
        raise ValueError(
            f"`--output` must be new; {output} holds a run already. Add `--resume`, or choose another folder."
        )
    if resume and checkpoint is None and held:
        raise ValueError(
            f"`--resume` needs a checkpoint in {state}; there is none, and {output} is not empty. "
            "Choose another folder for a new run."
        )

    if begin is None:
        if lora_rank is not None or dora or rslora:
            raise ValueError(
                "`--lora-rank`, `--dora` and `--rslora` need `--checkpoint`: LoRA adapts the text tower of a trained "
                "detector."
            )
        labels = list(BP4D_AUS) if aus is None else [au_label(name) for name in names(aus)]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"`--aus` must name action units, each once; got {aus!r}.")
        make = _new_model(preset or Preset.small, labels, intensity, bank, text_encoder, open_vocabulary)
    else:
        told = {
            "--preset": preset, "--aus": aus, "--intensity": intensity or None, "--bank": bank,
            "--text-encoder": text_encoder, "--open-vocabulary": open_vocabulary or None,
        }  # fmt: skip
        if given := [name for name, value in told.items() if value is not None]:
            raise ValueError(f"`--checkpoint` tells what a new model is asked for; leave out {', '.join(given)}.")
        if lora_rank is None and (dora or rslora):
            raise ValueError("`--dora` and `--rslora` are kinds of LoRA; give `--lora-rank` with them.")
        model, processor = load_to_train(begin)
        labels, intensity = model.config.au_names, model.config.problem_type == "regression"
    if streaming:
        if data is None:
            raise ValueError("`--streaming` needs `--data`; the embedded sample is small.")
        load: Callable = stream_prepared
    else:
        load = load_rendered
    # a trained detector may know more action units than the data codes
    dataset = load(data, aus=labels, intensity=intensity, allow_uncoded=begin is not None)
    if balance and intensity:
        raise ValueError("`--balance` needs labels of occurrence; with `--intensity` there are none.")
    settings: dict = {
        "data": None if data is None else str(data.resolve()),
        "preset": (preset or Preset.small).value,
        "checkpoint": begin,
        "lora_rank": lora_rank,
        "dora": dora,
        "rslora": rslora,
        "aus": list(labels),
        "intensity": intensity,
        "bank": None if bank is None else str(bank),
        "text_encoder": text_encoder,
        "open_vocabulary": open_vocabulary,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "test_subjects": names(test_subjects),
        "validation": validation,
        "bf16": bf16,
        "balance": balance,
        "streaming": streaming,
        "strong_augmentation": strong_augmentation,
    }
    processes = launched().world_size
    begun = {"faces": processes * batch_size, "order": [processes * max(workers, 1), batch_size]}
    settings["steps"] = read_record(state / "run.json").get("steps", begun)
    _refuse_other_settings(state / "run.json", settings)
    splits = subject_split(dataset, validation=validation, test=names(test_subjects) or 0.25, seed=seed)
    parts = {name: sorted(set(part["subject_id"])) for name, part in splits.items()}
    if is_first():
        typer.echo(", ".join(f"{name}: {len(splits[name])} faces of {len(parts[name])} subjects" for name in splits))

    set_seed(seed)
    if begin is None:
        model, processor = make()
    adapted = None if lora_rank is None else add_text_lora(model, text_lora_config(lora_rank, dora=dora, rslora=rslora))
    arguments = training_arguments(
        state,
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        bf16=bf16,
        # workers that outlive an epoch would not start from its seed, and a resumed run would vary faces otherwise
        dataloader_num_workers=workers,
        **quiet(),
    )
    arguments = share_batch(arguments, settings["steps"]["faces"])
    own, several = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    if is_first() and own * several != batch_size:
        at_a_time = f", {own} at a time" if several > 1 else ""
        typer.echo(
            f"Begun with {settings['steps']['faces']} faces a step: as many now, {own * several} a process{at_a_time}."
        )
    augmentation = FaceAugmentation.strong() if strong_augmentation else FaceAugmentation()
    weights = sampling_weights(splits["train"], balance) if balance else None
    order = tuple(settings["steps"]["order"])
    trainer = build_trainer(adapted or model, processor, splits, arguments, augmentation, weights, order=order)
    if is_first():
        write_text(state / "run.json", json.dumps(settings, indent=2) + "\n", quiet=True)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    records: dict[str, dict] = {"splits.json": parts}
    if "validation" in splits and not intensity:
        calibration = calibrate_detector(trainer, processor, splits["validation"])
        records["calibration.json"] = {label: without_nan(row) for label, row in calibration.report.items()}
    metrics, groups = evaluate_with_groups(trainer, splits["test"])
    # how the faces of its training were cut out goes with the model
    settings["alignment"] = alignment_of(dataset)
    records["results.json"] = {
        **settings,
        "datasets": names_of_datasets(dataset),
        "epochs": epochs,
        "part": "test",
        "people": {part: len(members) for part, members in parts.items()},
        "faces": {part: len(rows) for part, rows in splits.items()},
        "metrics": without_nan(metrics),
        "groups": {column: {group: without_nan(row) for group, row in rows.items()} for column, rows in groups.items()},
        # of a resumed run, since it was resumed
        "seconds": round(trained.metrics["train_runtime"], 1),
        "machine": machine(trainer.args.device),
    }
    gathered = whole_weights(trainer)
    if is_first():
        if adapted is not None:
            # alone it is small, and merged the detector is one like any other
            adapted.save_pretrained(state / "adapter")
            model = adapted.merge_and_unload()
        save_detector(model, processor, output, records, gathered)
        if adapted is not None:
            told = calibration_record(model.config.to_dict(), processor.thresholds)
            write_text(state / "adapter" / CALIBRATION_FILE, json.dumps(told, indent=2) + "\n", quiet=True)
            (state / "adapter").replace(output / "adapter")
        print_metrics(metrics, list(labels), f"Unseen subjects: {', '.join(parts['test'])}")
        typer.echo(f"Saved to {output}")
    leave_together()


def _new_model(
    preset: Preset,
    labels: list[str],
    intensity: bool,
    bank: Path | None,
    text_encoder: str | None,
    open_vocabulary: bool,
) -> Callable[[], tuple]:
    """What makes a new detector of a preset with its processor, once the seed is set."""
    from ..descriptions import load_bank
    from ..presets import PRESETS

    options: dict = {"problem_type": "regression" if intensity else "multi_label_classification"}
    if open_vocabulary:
        options["au_projection"] = "text"
    for name, value in {"--bank": bank, "--text-encoder": text_encoder}.items():
        if value is not None and preset != Preset.small_text:
            raise ValueError(
                f"`{name}` needs `--preset small-text`: the small preset holds stored embeddings, no texts."
            )
    if bank is not None:
        options["bank"] = load_bank(bank)
    if text_encoder is not None:
        options["text_encoder"] = text_encoder
    return lambda: PRESETS[preset.value](labels, **options)


def _refuse_other_settings(file: Path, settings: dict) -> None:
    """A run goes on with what it was begun with: other people would be tested on, or other weights trained."""
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    changed = [name for name, value in stored.items() if settings.get(name) != value]
    if changed:
        options = ", ".join(f"--{name.replace('_', '-')} (was {stored[name]!r})" for name in changed)
        raise ValueError(f"`--resume` must repeat the options of the run it continues; changed: {options}.")
