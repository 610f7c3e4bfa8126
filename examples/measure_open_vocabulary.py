"""Action units that no label named, or few did: AUC by description, beside models that read none, over seeds.

    python examples/measure_open_vocabulary.py --data FACES            # start it twice on two cores
    python examples/measure_open_vocabulary.py --data FACES --summary  # the tables of what is done so far

Trains the small preset without the labels of some action units, or with those of a few people; then asks for them on
people it never saw. Where there was no label at all, the stored embeddings of their descriptions are all there is.
Every design is trained with every seed, for the same number of epochs without choosing one, and reported. What is done
lies in the CSV and is not done again.
"""

from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from runs import RunTable, fixed_arguments
from sklearn.metrics import roc_auc_score
from transformers import set_seed

from hiva_hf import build_trainer, hiva_small
from hiva_hf.data import FaceTransform, au_names, load_prepared, subject_split
from hiva_hf.data.merging import column_values, label_matrix
from hiva_hf.descriptions import load_bank, load_text_embeds
from hiva_hf.facs import au_label
from hiva_hf.files import whole_file
from hiva_hf.loss_hiva import MISSING_LABEL
from hiva_hf.presets import VISUAL_ONLY

RESULTS = Path(__file__).parent / "results" / "language" / "open_vocabulary.csv"
TEXT = {"au_projection": "text"}
LEGEND = (
    "AUC on people whom no training saw, mean and standard deviation over seeds: of action units of which no label, or "
    "few, were shown, then the mean of those, and of the trained ones. Chance is .5; but a score that only tells how "
    "much a face moves ranks some of them above it: the row of random text, which says nothing, is what to beat."
)
NO_CONTEXT = {**TEXT, "use_graph": False, "use_cdca": False}
# without labels: what is read at random, what is pulled together, and who gives context to whom
UNSEEN: dict[str, dict] = {
    "text projection": TEXT,
    "one description a step": {**TEXT, "num_sampled_descriptions": 1},
    "alignment loss": {**TEXT, "alignment_loss_weight": 0.5},
    "no other AU as context": NO_CONTEXT,
    "no other AU, one description a step": {**NO_CONTEXT, "num_sampled_descriptions": 1},
    "random text": {**TEXT, "text_source": "random"},
}
# with labels of a few people
FEW: dict[str, dict] = {
    "visual only": VISUAL_ONLY,
    "full": {},
    "random text": {"text_source": "random"},
    "text projection": TEXT,
    "text projection, one description a step": {**TEXT, "num_sampled_descriptions": 1},
    "text projection, random text": {**TEXT, "text_source": "random"},
}  # fmt: skip


@torch.no_grad()
def asked_for(model, processor, dataset, **text) -> np.ndarray:
    """Logits of shape (num_frames, num_aus)."""
    rows = dataset.with_transform(FaceTransform(processor.image_processor))
    logits = []
    for start in range(0, len(rows), 128):
        pixel_values = torch.stack(list(rows[start : start + 128]["pixel_values"])).to(model.device)
        logits.append(model(pixel_values, **text).logits.float().cpu().numpy())
    return np.concatenate(logits)


def run(dataset, people: int, seed: int, hidden: list[str], epochs: int, size: int, design: str, folder: Path):
    """One training; AUC of each action unit on unseen people; of so many people labels of the hidden ones are known."""
    every = au_names(dataset)
    trained = [au for au in every if people or au not in hidden]
    splits = subject_split(dataset, seed=0)
    truth, labels = label_matrix(splits["test"]), label_matrix(splits["train"]).copy()
    who = column_values(splits["train"], "subject_id")
    shown = np.random.default_rng(seed).permutation(np.unique(who))[:people]
    labels[np.ix_(~np.isin(who, shown), [every.index(au) for au in hidden])] = MISSING_LABEL
    labels = labels[:, [every.index(au) for au in trained]]
    known = splits["train"].remove_columns("labels").add_column("labels", list(labels))
    set_seed(seed)
    model, processor = hiva_small(trained, **(FEW if people else UNSEEN)[design])
    processor.image_processor.size = {"height": size, "width": size}
    arguments = fixed_arguments(folder, epochs, 7e-4, seed)
    build_trainer(model, processor, {"train": known}, arguments).train()
    text = {}
    if not people:
        # all in one call: action units give each other context
        text["text_embeds"] = load_text_embeds(every)[0].to(model.device)
        if model.config.text_source == "random":
            # what is asked for is as new, and says as little, as what was trained
            noise = torch.randn_like(text["text_embeds"]) * model.config.text_embed_dim**-0.5
            noise[[every.index(au) for au in trained]] = model.hiva.text_embeds
            text["text_embeds"] = noise
    logits = asked_for(model.eval(), processor, splits["test"], **text)
    return [
        {
            "group": "hidden" if au in hidden else "trained",
            "au": au,
            "auc": roc_auc_score(truth[:, place], logits[:, place]),
        }
        for place, au in enumerate(every)
    ]


def main(
    data: Annotated[Path | None, typer.Option(help="Folder of rendered faces in parquet.")] = None,
    out: Annotated[Path, typer.Option(help="CSV file.")] = RESULTS,
    hidden: Annotated[str, typer.Option(help="Action units whose labels are not shown, or few.")] = "5,9,20,26",
    people: Annotated[str, typer.Option(help="How many people of the training show labels of those.")] = "0,6",
    seeds: Annotated[str, typer.Option(help="Trainings of each design.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 10,
    size: Annotated[int, typer.Option(min=32, help="Height and width of a face, in pixels.")] = 80,
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 1,
    summary: Annotated[bool, typer.Option("--summary", help="Train nothing; print the table.")] = False,
):
    torch.set_num_threads(threads)
    table = RunTable(out, ["people", "design", "seed"])
    if not summary:
        if data is None:
            raise typer.BadParameter("give --data, or --summary")
        dataset = load_prepared(data)
        described = load_bank().descriptions
        dataset = load_prepared(data, aus=[au for au in au_names(dataset) if au in described])
        names = [au_label(au) for au in hidden.split(",")]
        table = RunTable(out, table.keys, {"hidden": names, "epochs": epochs, "size": size, "faces": len(dataset)})
        for seed, count in product(map(int, seeds.split(",")), map(int, people.split(","))):
            for design in FEW if count else UNSEEN:
                with table.claim((count, design, seed)) as mine:
                    if mine:
                        rows = run(dataset, count, seed, names, epochs, size, design, out.parent / ".trainer")
                        table.add([{"people": count, "design": design, "seed": seed, **row} for row in rows])
    text = tables(table.read())
    print(text)
    with whole_file(out.with_suffix(".md")) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def tables(rows: pd.DataFrame) -> str:
    """The AUC of every hidden action unit, and the mean of both groups; mean and deviation over seeds."""
    found = [LEGEND]
    for people, part in rows.groupby("people"):
        units = part[part["group"] == "hidden"].groupby(["design", "au"])["auc"]
        means = part.groupby(["design", "group", "seed"])["auc"].mean().groupby(["design", "group"])
        columns = [
            (groups.mean().map("{:.3f}".format) + " ± " + groups.std().map("{:.3f}".format)).unstack()
            for groups in (units, means)
        ]
        found.append(f"Labels of the hidden ones: {f'of {people} people' if people else 'none'}.")
        found.append(pd.concat(columns, axis=1).to_markdown())
    return "\n\n".join(found)


if __name__ == "__main__":
    typer.run(main)
