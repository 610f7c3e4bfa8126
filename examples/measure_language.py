"""What each element of HiVA is worth where labels are few: the ablation grid, with paired differences.

    python examples/measure_language.py --data FACES            # a run after the other; start it twice on two cores
    python examples/measure_language.py --data FACES --summary  # tables and picture of what is done so far

Every row is the small preset with some elements switched off, trained on the same faces in the same order for the same
number of epochs without choosing one, and tested on people whom no training sees. A seed chooses the people it trains
on, the weights and the order; the people of 5 % are among those of 25 %. What is done lies in `subjects.csv` and is not
done again. Epochs and learning rate were chosen for the visual row and the full one on the validation people.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from language_tables import write_summary
from runs import RunTable, fixed_arguments
from sklearn.metrics import roc_auc_score
from transformers import set_seed

from hiva_hf import build_trainer, hiva_small, hiva_small_text
from hiva_hf.data import load_prepared
from hiva_hf.data.merging import column_values
from hiva_hf.data.splits import take_subjects
from hiva_hf.facs import BP4D_AUS
from hiva_hf.lora import add_text_lora, text_lora_config
from hiva_hf.metrics import au_metrics
from hiva_hf.presets import VISUAL_ONLY
from hiva_hf.training import predict_logits

RESULTS = Path(__file__).parent / "results" / "language"
NO_ATTENTION = {"use_ddca": False, "use_cdca": False}


@dataclass(frozen=True)
class Row:
    """A row of the grid: fields of the configuration, and whose text encoder is trained, if any."""

    config: dict
    text: str = "stored"


GRID = {
    "visual only": Row(VISUAL_ONLY),
    "+ graph": Row({**VISUAL_ONLY, "use_graph": True}),
    "+ names": Row({**NO_ATTENTION, "text_source": "names"}),
    "+ descriptions": Row(NO_ATTENTION),
    "+ DDCA": Row({"use_cdca": False}),
    "+ CDCA": Row({"use_ddca": False}),
    "full": Row({}),
    "random text": Row({"text_source": "random"}),
}
# what else the text side can be, at the few labels where it should matter most
STUDY = {
    "full, names": Row({"text_source": "names"}),
    "full, alignment loss": Row({"alignment_loss_weight": 0.5}),
    "full, learned pooling": Row({"description_pooling": "learned"}),
    "full, two descriptions a step": Row({"num_sampled_descriptions": 2}),
    "full, generated projection": Row({"au_projection": "text"}),
    "full, linear head": Row({"head": "linear"}),
    "full, new text tower": Row({}, "new"),
    "full, sentence encoder with LoRA": Row({}, "lora"),
}
EPOCHS = {0.05: 80, 0.25: 20, 1.0: 8}


def people(dataset, fraction: float, seed: int, tested: int, validated: int) -> dict[str, list[str]]:
    """Subjects of each part: the last ones are tested, the same for all; a seed draws those of the training."""
    everyone = sorted(set(column_values(dataset, "subject_id")))
    rest = everyone[:-tested]
    validation, others = rest[-validated:], rest[:-validated]
    order = np.random.default_rng(seed).permutation(others)
    return {
        "train": order[: max(1, round(fraction * len(others)))].tolist(),
        "validation": validation,
        "test": everyone[-tested:],
    }


def new_model(row: Row, encoder: str):
    """A new model of a row, what is trained of it, and its processor."""
    if row.text == "stored":
        model, processor = hiva_small(BP4D_AUS, **row.config)
        return model, model, processor
    model, processor = hiva_small_text(BP4D_AUS, text_encoder=encoder if row.text == "lora" else None, **row.config)
    if row.text == "new":
        return model, model, processor
    adapted = add_text_lora(model, text_lora_config(8))
    for name, value in adapted.named_parameters():
        # everything else is new here, and trains as in the other rows
        value.requires_grad_(value.requires_grad or "text_model" not in name)
    return model, adapted, processor


@dataclass(frozen=True)
class Settings:
    """The same for every row."""

    part: str
    tested: int
    validated: int
    size: int
    rate: float
    epochs: int
    encoder: str


def run(dataset, row: Row, fraction: float, seed: int, settings: Settings, folder: Path) -> list[dict]:
    """Train once; rows with the mean AUC of each tested person, and one of all of them together."""
    subjects = people(dataset, fraction, seed, settings.tested, settings.validated)
    tested = subjects[settings.part]
    parts = take_subjects(dataset, {"train": subjects["train"], "tested": tested})
    set_seed(seed)
    model, trained, processor = new_model(row, settings.encoder)
    processor.image_processor.size = {"height": settings.size, "width": settings.size}
    epochs = settings.epochs or EPOCHS[fraction]
    arguments = fixed_arguments(folder, epochs, settings.rate, seed)
    trainer = build_trainer(trained, processor, {"train": parts["train"]}, arguments)
    trainer.train()
    scores, labels = predict_logits(trainer, parts["tested"])
    probabilities = 1 / (1 + np.exp(-np.asarray(scores, dtype=np.float64)))
    metrics = au_metrics(labels, probabilities, model.config.au_names)
    rows = [{"subject": "all", "auc": metrics["mean_auc"], "f1": metrics["mean_f1"]}]
    who = column_values(parts["tested"], "subject_id")
    for subject in tested:
        mine = who == subject
        # of an action unit that a person always or never shows, nothing can be ranked
        ranked = [k for k in range(labels.shape[1]) if 0 < labels[mine, k].mean() < 1]
        auc = np.mean([roc_auc_score(labels[mine, k], scores[mine, k]) for k in ranked])
        rows.append({"subject": subject, "auc": auc})
    return rows


def main(
    data: Annotated[Path | None, typer.Option(help="Faces in parquet: a file or folder.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    fractions: Annotated[str, typer.Option(help="Shares of the training people.")] = "0.05,0.25,1",
    seeds: Annotated[str, typer.Option(help="Trainings of each row.")] = "0,1,2",
    only: Annotated[str, typer.Option(help="Rows, by their names with ; between them; by default all.")] = "",
    part: Annotated[str, typer.Option(help="test, or validation to choose epochs and learning rate.")] = "test",
    tested: Annotated[int, typer.Option(min=1, help="People who are tested: the last ones.")] = 32,
    validated: Annotated[int, typer.Option(min=1, help="People before them, to choose epochs and rate by.")] = 8,
    size: Annotated[int, typer.Option(min=32, help="Height and width of a face, in pixels.")] = 80,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 7e-4,
    epochs: Annotated[int, typer.Option(help="Passes over the faces; by default what was chosen.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 1,
    encoder: Annotated[str, typer.Option(help="Hub id or folder of the pretrained sentence encoder.")] = (
        "sentence-transformers/all-MiniLM-L6-v2"
    ),
    summary: Annotated[bool, typer.Option("--summary", help="Train nothing; write tables and picture.")] = False,
):
    torch.set_num_threads(threads)
    table = RunTable(out / "subjects.csv", ["fraction", "row", "seed"])
    if not summary:
        if data is None:
            raise typer.BadParameter("give --data, or --summary")
        if not epochs and (unknown := set(map(float, fractions.split(","))) - set(EPOCHS)):
            raise typer.BadParameter(f"give --epochs for the fractions {', '.join(map(str, sorted(unknown)))}")
        settings = Settings(part, tested, validated, size, rate, epochs, encoder)
        dataset = load_prepared(data, aus=list(BP4D_AUS))
        # an encoder in a folder is the same as that of the Hub
        told = {name: value for name, value in vars(settings).items() if name != "encoder"} | {"faces": len(dataset)}
        table = RunTable(table.path, table.keys, told)
        chosen = only.split(";") if only else [*GRID, *STUDY]
        for fraction, seed, name in product(map(float, fractions.split(",")), map(int, seeds.split(",")), chosen):
            # the two ends show where more labels lead; the study asks about few
            wanted = {0.05: True, 0.25: name in GRID, 1.0: name in ("visual only", "full")}.get(fraction, False)
            with table.claim((fraction, name, seed)) as mine:
                if not mine or not (wanted or only):
                    continue
                row = GRID.get(name) or STUDY[name]
                rows = run(dataset, row, fraction, seed, settings, out / ".trainer")
                table.add([{"fraction": fraction, "row": name, "seed": seed, **found} for found in rows])
                print(
                    f"{fraction:.0%} {name} seed {seed}: AUC {rows[0]['auc']:.3f}, F1 {rows[0]['f1']:.3f}", flush=True
                )
    if part == "test":
        write_summary(table.read(), out, list(GRID), list(STUDY))


if __name__ == "__main__":
    typer.run(main)
