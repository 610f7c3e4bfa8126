"""Action units that no label named, asked for by their descriptions: AUC against chance, over seeds and designs.

    python examples/measure_open_vocabulary.py --data FACES            # start it twice on two cores
    python examples/measure_open_vocabulary.py --data FACES --summary  # the table of what is done so far

Trains the small preset without the labels of some action units, on some people; then asks for the left-out ones on
people it never saw, by the stored embeddings of their descriptions alone. Every design of `DESIGNS` is trained with
every seed, for the same number of epochs without choosing one, and reported. What is done lies in the CSV and is not
done again.
"""

from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from runs import RunTable
from sklearn.metrics import roc_auc_score
from transformers import set_seed

from hiva_hf import build_trainer, hiva_small, training_arguments
from hiva_hf.data import FaceTransform, au_names, load_prepared, subject_split
from hiva_hf.data.merging import label_matrix
from hiva_hf.descriptions import load_bank, load_text_embeds
from hiva_hf.facs import au_label

RESULTS = Path(__file__).parent / "results" / "language" / "open_vocabulary.csv"
# what is read at random, what is pulled together, and who gives context to whom
DESIGNS: dict[str, dict] = {
    "text projection": {},
    "one description a step": {"num_sampled_descriptions": 1},
    "alignment loss": {"alignment_loss_weight": 0.5},
    "no other AU as context": {"use_graph": False, "use_cdca": False},
    "no other AU, one description a step": {"use_graph": False, "use_cdca": False, "num_sampled_descriptions": 1},
    "random text": {"text_source": "random"},
}


@torch.no_grad()
def asked_for(model, processor, dataset, text_embeds: torch.Tensor) -> np.ndarray:
    """Logits of action units by their stored embeddings, of shape (num_frames, num_aus)."""
    rows = dataset.with_transform(FaceTransform(processor.image_processor))
    logits = []
    for start in range(0, len(rows), 128):
        pixel_values = torch.stack(list(rows[start : start + 128]["pixel_values"])).to(model.device)
        logits.append(model(pixel_values, text_embeds=text_embeds.to(model.device)).logits.float().cpu().numpy())
    return np.concatenate(logits)


def run(dataset, seed: int, left_out: list[str], epochs: int, size: int, design: str, folder: Path) -> list[dict]:
    """One training; AUC of each action unit on unseen people, asked for by descriptions."""
    every = au_names(dataset)
    trained = [au for au in every if au not in left_out]
    kept = [every.index(au) for au in trained]
    splits = subject_split(dataset, seed=0)
    truth = label_matrix(splits["test"])
    known = splits["train"].remove_columns("labels")
    known = known.add_column("labels", list(label_matrix(splits["train"])[:, kept]))
    set_seed(seed)
    model, processor = hiva_small(trained, au_projection="text", **DESIGNS[design])
    processor.image_processor.size = {"height": size, "width": size}
    arguments = training_arguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        learning_rate=7e-4,
        seed=seed,
        bf16=True,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        disable_tqdm=True,
    )
    build_trainer(model, processor, {"train": known}, arguments).train()
    text_embeds = load_text_embeds(every)[0]
    if model.config.text_source == "random":
        # what is asked for is as new, and says as little, as what was trained
        text_embeds = torch.randn(text_embeds.shape) * text_embeds.shape[-1] ** -0.5
        text_embeds[kept] = model.hiva.text_embeds
    # all in one call: action units give each other context
    logits = asked_for(model.eval(), processor, splits["test"], text_embeds)
    return [
        {
            "group": "left out" if au in left_out else "trained",
            "au": au,
            "auc": roc_auc_score(truth[:, place], logits[:, place]),
        }
        for place, au in enumerate(every)
    ]


def main(
    data: Annotated[Path | None, typer.Option(help="Folder of rendered faces in parquet.")] = None,
    out: Annotated[Path, typer.Option(help="CSV file.")] = RESULTS,
    left_out: Annotated[str, typer.Option(help="Action units whose labels are not shown.")] = "5,9,20,26",
    seeds: Annotated[str, typer.Option(help="Trainings of each design.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 12,
    size: Annotated[int, typer.Option(min=32, help="Height and width of a face, in pixels.")] = 80,
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 1,
    summary: Annotated[bool, typer.Option("--summary", help="Train nothing; print the table.")] = False,
):
    torch.set_num_threads(threads)
    table = RunTable(out, ["design", "seed"])
    if not summary:
        if data is None:
            raise typer.BadParameter("give --data, or --summary")
        dataset = load_prepared(data)
        described = load_bank().descriptions
        dataset = load_prepared(data, aus=[au for au in au_names(dataset) if au in described])
        hidden = [au_label(au) for au in left_out.split(",")]
        for seed, design in product(map(int, seeds.split(",")), DESIGNS):
            with table.claim((design, seed)) as mine:
                if mine:
                    rows = run(dataset, seed, hidden, epochs, size, design, out.parent / ".trainer")
                    table.add([{"design": design, "seed": seed, **row} for row in rows])
    show(table.read())


def show(rows: pd.DataFrame) -> None:
    """Print the AUC of every left-out action unit, and the mean of both groups; mean and deviation over seeds."""
    units = rows[rows["group"] == "left out"].groupby(["design", "au"])["auc"]
    means = rows.groupby(["design", "group", "seed"])["auc"].mean().groupby(["design", "group"])
    cells = {
        name: (groups.mean().map("{:.3f}".format) + " ± " + groups.std().map("{:.3f}".format)).unstack()
        for name, groups in (("units", units), ("means", means))
    }
    print(pd.concat(cells.values(), axis=1).to_markdown())


if __name__ == "__main__":
    typer.run(main)
