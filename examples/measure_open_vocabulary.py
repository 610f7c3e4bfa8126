"""Action units that no label named, asked for by their descriptions: AUC against chance, over seeds.

    python examples/measure_open_vocabulary.py --data PACKED_FACES --out open.csv

Trains the small preset without the labels of some action units, on some people; validates on others; then asks for the
left-out ones on people it never saw, by the stored embeddings of their descriptions alone. What is done lies in the CSV
and is not done again.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from sklearn.metrics import roc_auc_score
from transformers import set_seed

from hiva_hf import build_trainer, hiva_small, training_arguments
from hiva_hf.data import FaceTransform, au_names, load_prepared, subject_split
from hiva_hf.data.merging import label_matrix
from hiva_hf.descriptions import load_bank, load_text_embeds
from hiva_hf.facs import au_label
from hiva_hf.files import whole_file


@torch.no_grad()
def asked_for(model, processor, dataset, aus: list[str]) -> np.ndarray:
    """Logits of action units by their stored descriptions, of shape (num_frames, num_aus)."""
    transform, embeds = FaceTransform(processor.image_processor), load_text_embeds(aus)[0]
    rows = dataset.with_transform(transform)
    logits = []
    for start in range(0, len(rows), 128):
        pixel_values = torch.stack(list(rows[start : start + 128]["pixel_values"])).to(model.device)
        logits.append(model(pixel_values, text_embeds=embeds.to(model.device)).logits.float().cpu().numpy())
    return np.concatenate(logits)


def run(dataset, seed: int, left_out: list[str], epochs: int, design: dict, folder: Path) -> list[dict]:
    """One training; AUC of each action unit on unseen people, asked for by descriptions."""
    every = au_names(dataset)
    trained = [au for au in every if au not in left_out]
    kept = [every.index(au) for au in trained]
    splits = subject_split(dataset, seed=0)
    truth = label_matrix(splits["test"])
    known = {
        name: part.remove_columns("labels").add_column("labels", list(label_matrix(part)[:, kept]))
        for name, part in splits.items()
    }
    set_seed(seed)
    model, processor = hiva_small(trained, au_projection="text", **design)
    arguments = training_arguments(
        folder / str(seed), num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=7e-4, seed=seed,
        save_strategy="epoch", dataloader_num_workers=2, disable_tqdm=True,
    )  # fmt: skip
    trainer = build_trainer(model, processor, known, arguments)
    trainer.train()
    rows = []
    # all in one call: action units give each other context
    logits = asked_for(model.eval(), processor, splits["test"], every)
    for place, au in enumerate(every):
        auc = roc_auc_score(truth[:, place], logits[:, place])
        rows.append(
            {"seed": seed, "group": "left out" if au in left_out else "trained", "au": au, "auc": auc, **design}
        )
    return rows


def main(
    data: Annotated[Path, typer.Option(help="Folder of rendered faces, as `hiva data prepare` or its like writes.")],
    out: Annotated[Path, typer.Option(help="CSV file.")] = Path("open_vocabulary.csv"),
    left_out: Annotated[str, typer.Option(help="Action units whose labels are not shown.")] = "5,9,20,26",
    seeds: Annotated[str, typer.Option(help="A training each.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 12,
    alignment: Annotated[float, typer.Option(min=0, help="Weight of the alignment loss.")] = 0.0,
):
    dataset = load_prepared(data)
    described = load_bank().descriptions
    dataset = load_prepared(data, aus=[au for au in au_names(dataset) if au in described])
    hidden, design = [au_label(au) for au in left_out.split(",")], {"alignment_loss_weight": alignment}
    rows = pd.read_csv(out).to_dict("records") if out.is_file() else []
    for seed in map(int, seeds.split(",")):
        if any(row["seed"] == seed and row["alignment_loss_weight"] == alignment for row in rows):
            continue
        rows += run(dataset, seed, hidden, epochs, design, out.with_name(f"{out.stem}-runs"))
        with whole_file(out) as partial:
            pd.DataFrame(rows).to_csv(partial, index=False)
    table = pd.DataFrame(rows)
    print(table.pivot_table("auc", ["group", "au"], "alignment_loss_weight", aggfunc=["mean", "std", "count"]).round(3))
    print(table.groupby(["alignment_loss_weight", "group", "seed"])["auc"].mean().round(3))


if __name__ == "__main__":
    typer.run(main)
