"""What a score is worth: probabilities that hold what they say, and a threshold for each action unit.

A detector's sigmoid is no probability: losses that favour rare classes push it up, long training pushes it to the ends.
On subjects that no weight was learned from, the logit `z` of each AU is replaced by `z / temperature + bias` (Guo et
al., ICML 2017, for the temperature; Platt, 1999, for the bias, which a loss that favours one class makes necessary).
The order of the scores, and so the AUC, stays as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from datasets import Dataset
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, precision_recall_curve
from transformers import PreTrainedModel, Trainer

from .metrics import is_coded, make_compute_metrics
from .processing_hiva import HiVAProcessor
from .training import predict_logits

# fewer frames of either class say nothing
_FEWEST = 5


@dataclass
class Calibration:
    """What was fitted, one entry an action unit.

    Args:
        temperatures (`list[float]`): What logits are divided by.
        biases (`list[float]`): What is added then.
        thresholds (`dict[str, float]`): Calibrated probability from which an AU counts as active: the best F1.
        untouched (`list[str]`): AUs that were left as they are, because there was too little to learn from.
        report (`dict[str, dict[str, float]]`):
            By AU: `frames`, and before and after the Brier score and the expected calibration error.
    """

    temperatures: list[float] = field(default_factory=list)
    biases: list[float] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    untouched: list[str] = field(default_factory=list)
    report: dict[str, dict[str, float]] = field(default_factory=dict)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits of the same shape `(num_frames, num_labels)`."""
        return logits / np.asarray(self.temperatures) + np.asarray(self.biases)


def fit_calibration(labels: np.ndarray, logits: np.ndarray, names: Sequence[str]) -> Calibration:
    """Fit temperature, bias and threshold of each action unit.

    Args:
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): 1 active, 0 inactive, `-100` or NaN not coded, of
            people that no weight was learned from.
        logits (`np.ndarray` of shape `(num_frames, num_labels)`): Of the model without a calibration.
        names (`Sequence[str]`): AUs, in the order of the columns.

    Returns:
        [`Calibration`]. An AU with fewer than 5 frames of either class, or whose logits run against its labels, keeps
        temperature 1, bias 0 and threshold 0.5, and is listed in `untouched`.

    Raises:
        ValueError: If the shapes differ.
    """
    labels, logits = labels_and_logits(labels, logits, names)
    result = Calibration()
    for column, name in enumerate(names):
        rows = is_coded(labels[:, column])
        truth, score = labels[rows, column].astype(int), logits[rows, column]
        temperature, bias, threshold = 1.0, 0.0, 0.5
        if min(truth.sum(), len(truth) - truth.sum()) >= _FEWEST:
            fit = LogisticRegression(C=1e4).fit(score[:, None], truth)
            if fit.coef_[0, 0] > 0:
                temperature, bias = float(1 / fit.coef_[0, 0]), float(fit.intercept_[0])
        if (temperature, bias) == (1.0, 0.0):
            result.untouched.append(name)
        else:
            threshold = best_threshold(truth, expit(score / temperature + bias))
        result.temperatures.append(temperature)
        result.biases.append(bias)
        result.thresholds[name] = threshold
        result.report[name] = {"frames": float(len(truth))}
        for moment, values in (("before", expit(score)), ("after", expit(score / temperature + bias))):
            result.report[name][f"brier_{moment}"] = brier_score_loss(truth, values) if len(truth) else float("nan")
            result.report[name][f"error_{moment}"] = calibration_error(truth, values)
    return result


def labels_and_logits(labels, logits, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 arrays of shape `(num_frames, num_labels)`, or a `ValueError` where they do not fit."""
    labels, logits = np.asarray(labels, dtype=np.float64), np.asarray(logits, dtype=np.float64)
    if labels.shape != logits.shape or labels.ndim != 2 or labels.shape[1] != len(names):
        raise ValueError(
            f"`labels` and `logits` must both have shape (num_frames, {len(names)}); got {labels.shape} and "
            f"{logits.shape}."
        )
    return labels, logits


def best_threshold(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The probability from which calling an AU active gives the best F1.

    Args:
        truth (`np.ndarray` of shape `(num_frames,)`): 0 or 1.
        probabilities (`np.ndarray` of shape `(num_frames,)`): Scores.
    """
    precision, recall, thresholds = precision_recall_curve(truth, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[f1[:-1].argmax()])


def calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error (Guo et al., ICML 2017) over bins of equal width.

    Args:
        truth (`np.ndarray` of shape `(num_frames,)`): 0 or 1.
        probabilities (`np.ndarray` of shape `(num_frames,)`): Scores.
        bins (`int`, defaults to 10): How many.

    Returns:
        `float`: Mean distance between what is said and what is so, weighted by frames; NaN without frames.
    """
    if not len(truth):
        return float("nan")
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(place, probabilities - truth, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def uncalibrated(logits: np.ndarray, config) -> np.ndarray:
    """Logits as they were before the calibration of a configuration.

    Args:
        logits (`np.ndarray` of shape `(num_frames, num_labels)`): As the model gives them.
        config (`HiVAConfig`): Its `calibration_temperatures` and `calibration_biases` are undone.
    """
    biases, temperatures = config.calibration_biases, config.calibration_temperatures
    return (logits - np.asarray(biases or 0.0)) * np.asarray(temperatures or 1.0)


def calibrate_detector(trainer: Trainer, processor: HiVAProcessor, dataset: Dataset) -> Calibration:
    """Calibrate a trainer's model on validation subjects, and store the result in its config and the processor's.

    Args:
        trainer (`Trainer`): From [`build_trainer`]; its metrics use the new thresholds from here on.
        processor (`HiVAProcessor`): Gets the thresholds. An AU of which there is too little keeps what it had.
        dataset (`Dataset`): With `image` and `labels`, of people the model was not trained on.

    Returns:
        [`Calibration`]

    Raises:
        ValueError: If the model tells intensities, which are no probabilities.
    """
    config = cast(PreTrainedModel, trainer.model).config
    if config.problem_type == "regression":
        raise ValueError("`trainer` must hold an occurrence model; intensities are not probabilities.")
    temperatures, biases = config.calibration_temperatures, config.calibration_biases
    config.calibration_temperatures = config.calibration_biases = None
    logits, labels = predict_logits(trainer, dataset)
    calibration = fit_calibration(labels, logits, config.au_names)
    # what these people say nothing about stays as it was
    for name in calibration.untouched:
        place = config.au_names.index(name)
        calibration.temperatures[place] = temperatures[place] if temperatures else 1.0
        calibration.biases[place] = biases[place] if biases else 0.0
        calibration.thresholds[name] = processor.limits(config.au_names)[name]
    config.calibration_temperatures, config.calibration_biases = calibration.temperatures, calibration.biases
    processor.thresholds = calibration.thresholds
    trainer.compute_metrics = make_compute_metrics(config.au_names, threshold=list(calibration.thresholds.values()))
    return calibration


__all__ = [
    "Calibration",
    "best_threshold",
    "calibrate_detector",
    "calibration_error",
    "fit_calibration",
    "labels_and_logits",
    "uncalibrated",
]
