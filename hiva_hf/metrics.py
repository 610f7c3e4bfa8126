"""Metrics per action unit over the frames where it was coded; by scikit-learn where it has them."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import pearsonr
from sklearn.metrics import (
    average_precision_score,
    mean_absolute_error,
    mean_squared_error,
    roc_auc_score,
)
from transformers.trainer_utils import EvalPrediction

MISSING_LABEL = -100
_OCCURRENCE = (
    "f1", "precision", "recall", "skew_f1", "auc", "ap", "accuracy", "base_rate", "always_positive_f1",
)  # fmt: skip


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
        `dict[str, float]`: For each AU, such as `f1_AU12`, and as `mean_f1` over the AUs where it exists:

            - `f1`, `precision`, `recall`, `accuracy` at the threshold;
            - `skew_f1`, F1 if active and inactive frames were equally many (Jeni, Cohn and De la Torre, ACII 2013):
              unlike F1 it can be compared between AUs and datasets of other base rates;
            - `auc` (ROC) and `ap` (average precision) of the scores;
            - `base_rate`, and `always_positive_f1`, what calling every frame active scores.

        **NaN is undefined**, and in no mean: an AU that was never coded; F1, recall and average precision where it is
        never active; precision where nothing is called active; AUC and `skew_f1` where only one class occurs.

    Raises:
        ValueError: If shapes differ, `names` or `threshold` do not fit them, or a label is none.
    """
    labels, scores, names = _columns(labels, scores, names)
    count = len(names)
    thresholds = np.asarray(threshold, dtype=np.float64)
    if thresholds.shape not in ((), (1,), (count,)):
        raise ValueError(
            f"`threshold` must be one number or {count}, one an action unit; got shape {thresholds.shape}."
        )
    thresholds = np.broadcast_to(thresholds, (count,))

    result: dict[str, float] = {}
    for column, name in enumerate(names):
        coded = is_coded(labels[:, column])
        wrong = labels[coded & ~np.isin(labels[:, column], (0, 1)), column]
        if wrong.size:
            raise ValueError(
                f"`labels` must be 1 or 0, or -100 or NaN where not coded; got {wrong[0]:g} for {name}. Datasets write "
                "9 or -1 for not coded: replace it by -100."
            )
        truth, score = labels[coded, column].astype(int), scores[coded, column]
        row = dict.fromkeys(_OCCURRENCE, float("nan"))
        if coded.any():
            rate = truth.mean()
            predicted = (score >= thresholds[column]).astype(int)
            # once for all of them, where scikit-learn would check and count anew for each
            quiet, false, missed, hit = np.bincount(2 * truth + predicted, minlength=4).tolist()
            row["accuracy"], row["base_rate"] = (hit + quiet) / len(truth), rate
            if hit + false:
                row["precision"] = hit / (hit + false)
            if rate > 0:
                row["f1"], row["recall"] = 2 * hit / (2 * hit + false + missed), hit / (hit + missed)
                row["ap"] = average_precision_score(truth, score)
                row["always_positive_f1"] = 2 * rate / (1 + rate)
            if 0 < rate < 1:
                row["auc"] = roc_auc_score(truth, score)
                row["skew_f1"] = 2 * hit / (2 * hit + missed + false * rate / (1 - rate))
        result.update({f"{key}_{name}": float(value) for key, value in row.items()})
    return result | _means(result, names, [key for key in _OCCURRENCE if key != "base_rate"])


def intensity_metrics(labels: np.ndarray, values: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """Intensity metrics of each action unit and their means.

    Args:
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): Intensity 0-5; `-100` or NaN not coded.
        values (`np.ndarray` of shape `(num_frames, num_labels)`): Predicted intensity.
        names (`Sequence[str]`, *optional*): AU names; by default the column numbers.

    Returns:
        `dict[str, float]`: `icc_AU12` (intraclass correlation ICC(3,1); Shrout and Fleiss, 1979), `pcc_AU12` (Pearson),
        `mae_AU12`, `mse_AU12` and `mean_intensity_AU12` for each AU, and the means of the first four over the AUs where
        they exist. NaN where an AU was never coded; ICC and PCC also where either side never varies.

    Raises:
        ValueError: If shapes differ, or `names` do not fit them.
    """
    labels, values, names = _columns(labels, values, names)
    result: dict[str, float] = {}
    for column, name in enumerate(names):
        coded = is_coded(labels[:, column])
        truth, value = labels[coded, column], values[coded, column]
        row = dict.fromkeys(("icc", "pcc", "mae", "mse", "mean_intensity"), float("nan"))
        if coded.any():
            row["mae"], row["mse"] = mean_absolute_error(truth, value), mean_squared_error(truth, value)
            row["mean_intensity"] = truth.mean()
            if np.ptp(truth) > 0 and np.ptp(value) > 0:
                row["pcc"], row["icc"] = pearsonr(truth, value).statistic, intraclass_correlation(truth, value)
        result.update({f"{key}_{name}": float(number) for key, number in row.items()})
    return result | _means(result, names, ("icc", "pcc", "mae", "mse"))


def intraclass_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """ICC(3,1) of two raters: consistency of single ratings (Shrout and Fleiss, 1979).

    Args:
        first (`np.ndarray` of shape `(num_frames,)`): Ratings of one rater.
        second (`np.ndarray` of shape `(num_frames,)`): Ratings of the other.
    """
    ratings = np.stack([first, second], axis=1)
    frames, raters = ratings.shape
    means = ratings.mean(axis=1)
    between = raters * ((means - ratings.mean()) ** 2).sum() / (frames - 1)
    residual = ratings - means[:, None] - ratings.mean(axis=0) + ratings.mean()
    error = (residual**2).sum() / ((frames - 1) * (raters - 1))
    return float((between - error) / (between + (raters - 1) * error))


def _columns(labels, values, names) -> tuple[np.ndarray, np.ndarray, list[str]]:
    labels, values = np.asarray(labels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if labels.ndim != 2 or labels.shape != values.shape:
        raise ValueError(
            "`labels` and predictions must both have shape (num_frames, num_labels); "
            f"got {labels.shape} and {values.shape}."
        )
    names = [str(index) for index in range(labels.shape[1])] if names is None else list(names)
    if len(names) != labels.shape[1]:
        raise ValueError(f"`names` must have {labels.shape[1]} entries to match `labels`; got {len(names)}.")
    return labels, values, names


def is_coded(column: np.ndarray) -> np.ndarray:
    """Which labels of a column are there: neither `-100` nor NaN."""
    return (column != MISSING_LABEL) & ~np.isnan(column)


def _means(result: dict[str, float], names: Sequence[str], keys: Sequence[str]) -> dict[str, float]:
    means = {}
    for key in keys:
        values = np.array([result[f"{key}_{name}"] for name in names])
        means[f"mean_{key}"] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return means


def make_compute_metrics(
    names: Sequence[str], intensity: bool = False, threshold: float | Sequence[float] = 0.5
) -> Callable[[EvalPrediction], dict[str, float]]:
    """`compute_metrics` for Trainer: [`au_metrics`] on the sigmoid of the logits, or [`intensity_metrics`].

    Args:
        names (`Sequence[str]`): AU names in the order of the logits.
        intensity (`bool`, defaults to `False`): The logits are intensities.
        threshold (`float` or `Sequence[float]`, defaults to 0.5): See [`au_metrics`].
    """

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        if intensity:
            return intensity_metrics(np.asarray(prediction.label_ids), np.clip(logits, 0, 5), names)
        scores = 1 / (1 + np.exp(-np.clip(np.asarray(logits, dtype=np.float64), -60, 60)))
        return au_metrics(np.asarray(prediction.label_ids), scores, names, threshold)

    return compute_metrics


__all__ = ["au_metrics", "intensity_metrics", "intraclass_correlation", "make_compute_metrics"]
