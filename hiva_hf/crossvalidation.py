"""A detector trained and tested part by part, and the table that the field reports."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import Dataset
from scipy.special import expit
from transformers import Trainer, set_seed

from .data import FaceAugmentation, Fold, StreamedFaces, au_names, sampling_weights
from .data.published import PUBLISHED
from .data.schema import alignment_of
from .files import whole_file
from .metrics import au_metrics, is_coded
from .presets import PRESETS
from .training import build_trainer, last_checkpoint, predict_logits, training_arguments

Rule = Literal["validation", "last", "best-epoch-on-test-part"]
RULES: tuple[Rule, ...] = ("validation", "last", "best-epoch-on-test-part")


@dataclass
class Run:
    """One part, tested by a detector that was trained on the others.

    Args:
        part (`str`): What was tested.
        seed (`int`): Of weights and augmentation.
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): 1, 0 or -100.
        scores (`np.ndarray` of shape `(num_frames, num_labels)`): Probabilities.
        subjects (`np.ndarray` of shape `(num_frames,)`): Who is seen.
    """

    part: str
    seed: int
    labels: np.ndarray
    scores: np.ndarray
    subjects: np.ndarray


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

    What is done lies in `out`, a file a run, and is not done again; an interrupted training goes on.

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
        ValueError: If the rule is none, needs validation subjects that a fold does not have, or `out` holds another
            cross-validation.
    """
    if rule not in RULES:
        raise ValueError(f"`rule` must be one of {', '.join(RULES)}; got {rule!r}.")
    if rule == "validation" and not all(fold.validation for fold in folds):
        raise ValueError("`rule` validation needs folds with validation subjects; got folds without.")
    out, names = Path(out), au_names(dataset)
    recipe = _Recipe(names, rule, preset, augmentation or FaceAugmentation(), balance, arguments)
    settings = {
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


def _same_settings(path: Path, settings: dict) -> None:
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
        if changed:
            raise ValueError(
                f"`out` must be new, or hold the same cross-validation; {path.parent} was begun with other "
                f"{', '.join(changed)}."
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
        settings = training_arguments(place, seed=seed, **{**self.arguments, **chosen})
        weights = sampling_weights(splits["train"], self.balance) if self.balance else None
        return build_trainer(model, processor, splits, settings, self.augmentation, weights)


def _train_and_test(recipe: _Recipe, splits, part: str, seed: int, place: Path, on_trainer) -> Run:
    tested = splits["test"]
    if recipe.rule == "best-epoch-on-test-part":
        splits["validation"] = tested
    trainer = recipe.trainer(splits, seed, place)
    if on_trainer is not None:
        on_trainer(trainer)
    trainer.train(resume_from_checkpoint=last_checkpoint(place))
    logits, labels = predict_logits(trainer, tested)
    return Run(part, seed, labels, expit(logits.astype(np.float64)), np.asarray(tested["subject_id"]))


def summarise(runs: Sequence[Run], names: Sequence[str], resamples: int = 1000, seed: int = 0):
    """F1 as the field reports it, one row an action unit and their mean, and how sure it is.

    F1 is pooled over the frames of a part, then averaged over parts, then over action units.

    Args:
        runs (`Sequence[Run]`): Of [`cross_validate`].
        names (`Sequence[str]`): Action units, in the order of the columns.
        resamples (`int`, defaults to 1000): Draws of subjects for the interval.
        seed (`int`, defaults to 0): Which draws.

    Returns:
        `pandas.DataFrame`, in percent, NaN where undefined, with a column a part (mean over seeds); `mean` over parts;
        `sd_parts`; `sd_seeds`, of the mean over parts; `low` and `high`, the 95 % interval of `mean` when the subjects
        of every part are drawn anew (bootstrap by subject); `always_positive`, what calling every frame active scores.
    """
    import pandas as pd

    parts = list(dict.fromkeys(run.part for run in runs))
    seeds = list(dict.fromkeys(run.seed for run in runs))
    rng = np.random.default_rng(seed)
    shape = (len(parts), len(seeds), len(names))
    values, always = np.full(shape, np.nan), np.full(shape, np.nan)
    drawn = np.full((resamples, *shape), np.nan)
    for part in parts:
        draws = None
        for run in (run for run in runs if run.part == part):
            counts, active = _counts(run)
            place = parts.index(part), seeds.index(run.seed)
            if draws is None:
                # the same people for every seed
                draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), resamples)
            values[place] = _f1(counts.sum(0))
            always[place] = 2 * active / (1 + active)
            drawn[:, *place] = _f1(np.einsum("rs,sck->rck", draws, counts))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # means over nothing are NaN, which is what they are to be
        warnings.simplefilter("ignore", RuntimeWarning)
        rows = {
            name: _row(values[..., place], drawn[..., place], always[..., place], parts, seeds)
            for place, name in enumerate(names)
        }
        rows["mean"] = _row(values, drawn, always, parts, seeds)
    return 100 * pd.DataFrame.from_dict(rows, orient="index")


def beside_published(table, protocol: str):
    """The table of [`summarise`] with a row a published method below it, of which only `mean` is known.

    Args:
        table (`pandas.DataFrame`): Of [`summarise`].
        protocol (`str`): `"bp4d"` and `"disfa"` have published means; of another the table stays as it is.
    """
    import pandas as pd

    rows = {paper.name: {"mean": mean} for paper in PUBLISHED if (mean := getattr(paper, protocol, None)) is not None}
    return pd.concat([table, pd.DataFrame.from_dict(rows, orient="index", columns=["mean"])]) if rows else table


def all_metrics(runs: Sequence[Run], names: Sequence[str]):
    """Every metric of every run, one row a part, seed and action unit.

    Args:
        runs (`Sequence[Run]`): Of [`cross_validate`].
        names (`Sequence[str]`): Action units, in the order of the columns.

    Returns:
        `pandas.DataFrame` with the columns `part`, `seed`, `au`, and the metrics of [`au_metrics`]; shares, not
        percent; NaN where undefined.
    """
    import pandas as pd

    rows = []
    for run in runs:
        metrics = au_metrics(run.labels, run.scores, names)
        for name in names:
            of_unit = {
                key.removesuffix(f"_{name}"): value for key, value in metrics.items() if key.endswith(f"_{name}")
            }
            rows.append({"part": run.part, "seed": run.seed, "au": name, **of_unit})
    return pd.DataFrame(rows)


def _counts(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Hits, false alarms and misses by subject, of shape (num_subjects, 3, num_labels); and the base rates."""
    coded, active, called = is_coded(run.labels), run.labels == 1, run.scores >= 0.5
    each = np.stack([active & called, coded & ~active & called, active & ~called], axis=1).astype(np.int64)
    people = np.unique(run.subjects)
    counts = np.stack([each[run.subjects == who].sum(0) for who in people])
    return counts, np.where(coded.any(0), active.sum(0) / np.maximum(coded.sum(0), 1), np.nan)


def _f1(counts: np.ndarray) -> np.ndarray:
    """F1 of counts of shape (..., 3, num_labels); NaN where an action unit is never active."""
    hits, false, missed = np.moveaxis(counts, -2, 0).astype(np.float64)
    return np.where(hits + missed > 0, 2 * hits / np.maximum(2 * hits + false + missed, 1), np.nan)


def _row(values, drawn, always, parts, seeds) -> dict[str, float]:
    if values.ndim == 3:
        values, drawn, always = (np.nanmean(array, axis=-1) for array in (values, drawn, always))
    by_part, by_seed = np.nanmean(values, axis=1), np.nanmean(values, axis=0)
    again = np.nanmean(drawn, axis=(1, 2))
    low, high = np.nanpercentile(again, [2.5, 97.5])
    return {
        **dict(zip(parts, by_part.tolist(), strict=True)),
        "mean": np.nanmean(by_part),
        "sd_parts": np.nanstd(by_part, ddof=1) if len(parts) > 1 else np.nan,
        "sd_seeds": np.nanstd(by_seed, ddof=1) if len(seeds) > 1 else np.nan,
        "low": low,
        "high": high,
        "always_positive": np.nanmean(always),
    }


__all__ = ["RULES", "Rule", "Run", "all_metrics", "beside_published", "cross_validate", "summarise"]
