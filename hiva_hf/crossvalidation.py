"""A detector trained and tested part by part; what has begun goes on, and only with the same data and settings."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import Dataset
from scipy.special import expit
from transformers import Trainer, set_seed

from .data import FaceAugmentation, Fold, StreamedFaces, au_names, sampling_weights
from .data.merging import column_values, label_matrix
from .data.schema import alignment_of
from .files import whole_file
from .presets import PRESETS
from .protocol_table import Run
from .training import build_trainer, last_checkpoint, predict_logits, training_arguments

Rule = Literal["validation", "last", "best-epoch-on-test-part"]
RULES: tuple[Rule, ...] = ("validation", "last", "best-epoch-on-test-part")
# what is shown changes no result, and who loads rows at most their order: a run may go on without a terminal, or on
# another machine
_DISPLAY = ("disable_tqdm", "log_", "logging_", "project", "report_to", "run_name", "trackio_")
_LOADING = tuple(
    f"dataloader_{name}"
    for name in ("multiprocessing_context", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor")
)
_STATE = "trainer_state.json"


def cross_validate(
    dataset: Dataset | StreamedFaces,
    folds: Sequence[Fold],
    out: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    rule: Rule = "validation",
    preset: str = "small",
    augmentation: FaceAugmentation | None = None,
    balance: float = 0.0,
    on_run: Callable[[Run], object] | None = None,
    on_trainer: Callable[[Trainer], object] | None = None,
    **arguments,
) -> list[Run]:
    """Train and test every fold with every seed.

    What is done lies in `out`, a file a run, and is not done again; an interrupted training goes on, also from another
    place. `settings.json` there holds what must stay the same: data, folds and settings, but not how many processes
    load rows nor what is shown meanwhile.

    Args:
        dataset (`Dataset` or `StreamedFaces`): Of the common form; faces that are cropped, or have `points` or
            `landmarks`.
        folds (`Sequence[Fold]`): See [`protocol_folds`].
        out (`str` or `Path`): Folder.
        seeds (`Sequence[int]`, defaults to `(0,)`): A training each.
        rule (`str`, defaults to `"validation"`): Which epoch is tested: that of the best F1 on validation subjects; the
            `"last"`; or `"best-epoch-on-test-part"`, the published practice, which lets the tested people choose and so
            reports too much.
        preset (`str`, defaults to `"small"`): Which model.
        augmentation (`FaceAugmentation`, *optional*): By default the usual one.
        balance (`float`, defaults to 0): `strength` of [`sampling_weights`], from training subjects alone.
        on_run (`Callable`, *optional*): Told every run.
        on_trainer (`Callable`, *optional*): Given every trainer before it trains, to add callbacks.
        arguments: For [`training_arguments`].

    Returns:
        `list[Run]`

    Raises:
        ValueError: If the rule is none, needs validation subjects that a fold does not have, `out` holds another
            cross-validation or one of other data, or the best epoch of an interrupted training is gone.
    """
    if rule not in RULES:
        raise ValueError(f"`rule` must be one of {', '.join(RULES)}; got {rule!r}.")
    if rule == "validation" and not all(fold.validation for fold in folds):
        raise ValueError("`rule` validation needs folds with validation subjects; got folds without.")
    out, names = Path(out), au_names(dataset)
    recipe = _Recipe(names, rule, preset, augmentation or FaceAugmentation(), balance, arguments)
    settings = {
        "data": _fingerprint(dataset),
        "folds": [asdict(fold) for fold in folds],
        "alignment": alignment_of(dataset),
        **{key: value for key, value in asdict(recipe).items() if key != "arguments"},
        **arguments,
    }
    _same_settings(out / "settings.json", json.loads(json.dumps(settings)))
    runs = []
    for fold in folds:
        for seed in seeds:
            place = out / f"{fold.tested}-seed{seed}"
            stored = place.with_suffix(".npz")
            if not stored.is_file():
                run = _train_and_test(recipe, fold.split(dataset), fold.tested, seed, place, on_trainer)
                with whole_file(stored) as partial:
                    np.savez_compressed(partial, labels=run.labels, scores=run.scores, subjects=run.subjects)
            with np.load(stored) as arrays:
                runs.append(Run(fold.tested, seed, arrays["labels"], arrays["scores"], arrays["subjects"]))
            if on_run is not None:
                on_run(runs[-1])
    return runs


def _fingerprint(dataset: Dataset | StreamedFaces) -> dict:
    """How many rows there are, and a hash of who and which frame each is and of its labels."""
    labels, digest = label_matrix(dataset), hashlib.sha256()
    columns = {name: list(dataset[name]) for name in ("subject_id", "frame") if name in dataset.column_names}
    digest.update(json.dumps(columns).encode())
    digest.update(f"{labels.shape}".encode() + labels.astype("<f4").tobytes())
    return {"rows": len(labels), "sha256": digest.hexdigest()}


def _same_settings(path: Path, settings: dict) -> None:
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        keys = {key for key in before.keys() | settings.keys() if not key.startswith(_DISPLAY + _LOADING)}
        changed = sorted(key for key in keys if before.get(key) != settings.get(key))
        if changed:
            raise ValueError(
                f"`out` must be new, or hold the same cross-validation; {path.parent} was begun with other "
                f"{', '.join(changed)}. Give another folder, or delete that one."
            )
    with whole_file(path) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Recipe:
    """How each part's detector is trained; fields as of [`cross_validate`]."""

    names: list[str]
    rule: str
    preset: str
    augmentation: FaceAugmentation
    balance: float
    arguments: dict

    def trainer(self, splits, seed: int, place: Path) -> Trainer:
        """A trainer of a new detector."""
        set_seed(seed)
        model, processor = PRESETS[self.preset](self.names)
        chosen = {"load_best_model_at_end": False, "eval_strategy": "no"} if self.rule == "last" else {}
        # where the best epoch lies is stored as it is given here
        settings = training_arguments(place.absolute(), seed=seed, **{**self.arguments, **chosen})
        weights = sampling_weights(splits["train"], self.balance) if self.balance else None
        return build_trainer(model, processor, splits, settings, self.augmentation, weights)


def _train_and_test(recipe: _Recipe, splits, part: str, seed: int, place: Path, on_trainer) -> Run:
    tested = splits["test"]
    if recipe.rule == "best-epoch-on-test-part":
        splits["validation"] = tested
    trainer = recipe.trainer(splits, seed, place)
    if on_trainer is not None:
        on_trainer(trainer)
    trainer.train(resume_from_checkpoint=_checkpoint(place.absolute()))
    logits, labels = predict_logits(trainer, tested)
    return Run(part, seed, labels, expit(logits.astype(np.float64)), column_values(tested, "subject_id"))


def _checkpoint(place: Path) -> str | None:
    """The checkpoint to go on from, or `None`; the best epoch, told by its path then, is told by its path now."""
    last = last_checkpoint(place)
    if last is None:
        return None
    state = json.loads(Path(last, _STATE).read_text(encoding="utf-8"))
    if state.get("best_model_checkpoint") is None:
        return last
    best = place / Path(state["best_model_checkpoint"]).name
    if not best.is_dir():
        # Trainer would test the last epoch in its stead
        raise ValueError(
            f"`out` must hold the best epoch of an interrupted training, {best}, and does not. Put it back, or delete "
            f"{place}, to train this part anew."
        )
    if state["best_model_checkpoint"] != str(best):
        with whole_file(Path(last, _STATE)) as partial:
            partial.write_text(json.dumps({**state, "best_model_checkpoint": str(best)}, indent=2) + "\n")
    return last


__all__ = ["RULES", "Rule", "cross_validate"]
