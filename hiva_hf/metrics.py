"""Metrics per action unit over the frames where it was coded; each from scikit-learn."""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from transformers.trainer_utils import EvalPrediction

MISSING_LABEL = -100


def au_metrics(
    labels: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str] | None = None,
    threshold: float | Sequence[float] = 0.5,
) -> dict[str, float]:
    """Occurrence metrics of each action unit and their means.

    Args:
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): 1 active, 0 inactive, `-100` or NaN not coded.
        scores (`np.ndarray` of shape `(num_frames, num_labels)`): Probabilities.
        names (`Sequence[str]`, *optional*): AU names; by default the column numbers.
        threshold (`float` or `Sequence[float]`, defaults to 0.5): Active at or above; one for all or one an AU.

    Returns:
        `dict[str, float]`: `f1_AU12`, `auc_AU12`, `accuracy_AU12`, `base_rate_AU12` and `always_positive_f1_AU12` for
        each AU, and `mean_f1`, `mean_auc`, `mean_accuracy`, `mean_always_positive_f1` over the AUs where they exist.
        NaN where an AU was never coded, and for the AUC also where only one class occurs. F1 of an AU that is never
        active and never predicted is 0, as the field counts it.

    Raises:
        ValueError: If shapes differ, or `names` or `threshold` do not fit them.
    """
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 2 or labels.shape != scores.shape:
        raise ValueError(
            "`labels` and `scores` must both have shape (num_frames, num_labels); "
            f"got {labels.shape} and {scores.shape}."
        )
    count = labels.shape[1]
    names = [str(index) for index in range(count)] if names is None else list(names)
    if len(names) != count:
        raise ValueError(f"`names` must have {count} entries to match `labels`; got {len(names)}.")
    thresholds = np.asarray(threshold, dtype=np.float64)
    if thresholds.shape not in ((), (1,), (count,)):
        raise ValueError(
            f"`threshold` must be one number or {count}, one an action unit; got shape {thresholds.shape}."
        )
    thresholds = np.broadcast_to(thresholds, (count,))

    result: dict[str, float] = {}
    for column, name in enumerate(names):
        coded = (labels[:, column] != MISSING_LABEL) & ~np.isnan(labels[:, column])
        truth, score = labels[coded, column].astype(int), scores[coded, column]
        row = dict.fromkeys(("f1", "auc", "accuracy", "base_rate", "always_positive_f1"), float("nan"))
        if coded.any():
            predicted = (score >= thresholds[column]).astype(int)
            row["f1"] = f1_score(truth, predicted, zero_division=0)
            row["accuracy"] = accuracy_score(truth, predicted)
            row["base_rate"] = truth.mean()
            row["always_positive_f1"] = f1_score(truth, np.ones_like(truth), zero_division=0)
            if 0 < truth.mean() < 1:
                row["auc"] = roc_auc_score(truth, score)
        result.update({f"{key}_{name}": float(value) for key, value in row.items()})
    for key in ("f1", "auc", "accuracy", "always_positive_f1"):
        values = np.array([result[f"{key}_{name}"] for name in names])
        result[f"mean_{key}"] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return result


def make_compute_metrics(names: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """`compute_metrics` for Trainer: [`au_metrics`] on the sigmoid of the logits.

    Args:
        names (`Sequence[str]`): AU names in the order of the logits.
    """

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        scores = 1 / (1 + np.exp(-np.clip(np.asarray(logits, dtype=np.float64), -60, 60)))
        return au_metrics(np.asarray(prediction.label_ids), scores, names)

    return compute_metrics


__all__ = ["au_metrics", "make_compute_metrics"]
