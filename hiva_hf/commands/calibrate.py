"""`hiva calibrate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .shared import Checkpoint, Data, part_of_data, splits_of, trainer_of, write_text


def calibrate(
    checkpoint: Checkpoint,
    data: Data = None,
    part: Annotated[
        str,
        typer.Option(help="validation as the checkpoint was split, or all of --data: people it was not trained on."),
    ] = "validation",
):
    """Fit probabilities and thresholds of a trained detector to people it was not trained on, and store them in it."""
    from ..calibration import calibrate_detector
    from ..checkpoint import load_detector
    from ..lora import CALIBRATION_FILE, calibration_record
    from ..terminal import print_calibration
    from ..training import without_nan

    folder = Path(checkpoint)
    if part in ("train", "test"):
        raise ValueError(
            f"`--part` must be people that neither trained nor test the model, validation or all; got {part}."
        )
    if part == "all" and data is None:
        raise ValueError("`--part all` needs `--data`, faces of people it was not trained on; got none.")
    model, processor = load_detector(checkpoint)
    if not folder.is_dir():
        raise ValueError(f"`--checkpoint` must be a folder, which is changed; got {checkpoint}. Download it first.")
    if model.config.problem_type == "regression":
        raise ValueError(f"`--checkpoint` must be an occurrence model; {checkpoint} tells intensities.")
    dataset = part_of_data(checkpoint, model.config, data, part)
    known = splits_of(checkpoint)
    strangers = {who for name in ("train", "test") for who in known.get(name, [])} & set(dataset["subject_id"])
    if strangers:
        raise ValueError(
            f"`--data` must hold nobody whom the model was trained or is tested on; got "
            f"{', '.join(sorted(strangers)[:5])}. Take other people, or `--part validation`."
        )
    with trainer_of(model, processor, dataset) as trainer:
        calibration = calibrate_detector(trainer, processor, dataset)
    report = {label: without_nan(row) for label, row in calibration.report.items()}
    stored: dict[str, dict] = {
        "config.json": {
            "calibration_temperatures": calibration.temperatures, "calibration_biases": calibration.biases
        },
        "processor_config.json": {"thresholds": calibration.thresholds},
    }  # fmt: skip
    for name, values in stored.items():
        content = json.loads((folder / name).read_text(encoding="utf-8")) | values
        write_text(folder / name, json.dumps(content, indent=2, sort_keys=True) + "\n", quiet=True)
    if (folder / "adapter" / CALIBRATION_FILE).is_file():
        told = calibration_record(stored["config.json"], calibration.thresholds)
        write_text(folder / "adapter" / CALIBRATION_FILE, json.dumps(told, indent=2) + "\n", quiet=True)
    write_text(folder / "calibration.json", json.dumps(report, indent=2) + "\n", quiet=True)
    print_calibration(calibration, f"{part}: {len(dataset)} faces")
    typer.echo(f"Stored in {folder}")
