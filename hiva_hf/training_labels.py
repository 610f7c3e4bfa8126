"""What the labels of a training part ask of a training: weights, and what cannot be trained."""

import numpy as np
from transformers import TrainerCallback
from transformers.utils import logging

from .metrics import is_coded

logger = logging.get_logger(__name__)


def label_weights(labels: np.ndarray, sample_weights: np.ndarray | None = None) -> list[float]:
    """One loss weight an AU: the inverse of its base rate, normalised to sum to the number of AUs (ME-GraphAU).

    Args:
        labels (`np.ndarray` of shape `(num_frames, num_labels)`):
            Occurrence in the *training* part; `-100` or NaN is not coded.
        sample_weights (`np.ndarray` of shape `(num_frames,)`, *optional*):
            How often each frame is drawn, in proportion: base rates are those of what is seen, so that a rare AU which
            is drawn more often is not weighed up twice.

    Returns:
        `list[float]`: Mean 1. An AU that is never active weighs as one active once.

    Raises:
        ValueError: If an AU was never coded.
    """
    labels = np.asarray(labels, dtype=np.float64)
    coded = is_coded(labels)
    drawn = np.ones(len(labels)) if sample_weights is None else np.asarray(sample_weights, dtype=np.float64)
    counts = (coded * drawn[:, None]).sum(axis=0)
    if (counts == 0).any():
        columns = ", ".join(str(column) for column in np.flatnonzero(counts == 0))
        raise ValueError(f"`labels` must code every action unit at least once; columns {columns} are never coded.")
    rates = np.maximum((np.where(coded, labels, 0) * drawn[:, None]).sum(axis=0), 1) / counts
    weights = 1 / rates
    return (weights * len(weights) / weights.sum()).tolist()


def weights_where_coded(labels: np.ndarray, sample_weights: np.ndarray | None = None) -> list[float]:
    """[`label_weights`] of the AUs that are coded; one that is not gets 1, which nothing is multiplied with.

    Args:
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): As there.
        sample_weights (`np.ndarray` of shape `(num_frames,)`, *optional*): As there.

    Raises:
        ValueError: If no AU is coded.
    """
    coded = is_coded(labels).any(axis=0)
    if not coded.any():
        raise ValueError("`labels` must code at least one action unit; all are missing.")
    weights = np.ones(labels.shape[1])
    weights[coded] = label_weights(labels[:, coded], sample_weights)
    return weights.tolist()


def check_labels(labels: np.ndarray, names: list[str], highest: int) -> None:
    """An error for the first label that is none.

    Args:
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): Occurrence or intensity; `-100` or NaN is not coded.
        names (`list[str]`): AUs, in the order of the columns.
        highest (`int`): 1 for occurrence, 5 for intensity.

    Raises:
        ValueError: It names label, AU and row.
    """
    wrong = is_coded(labels) & ((labels < 0) | (labels > highest))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"`labels` must lie in 0 to {highest}, or be -100 or NaN where an action unit was not coded; got "
            f"{labels[row, column]:g} for {names[column]} in row {row} and {wrong.sum() - 1} more such. Datasets write "
            "9 or -1 for not coded: replace it by -100."
        )


class WhatIsNotTrained(TrainerCallback):
    """Says when a training begins what its labels leave as it was.

    Args:
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): Of the training part.
        names (`list[str]`): AUs, in the order of the columns.
        intensities (`bool`): The model has a head for intensities, of which the data tells none.
    """

    def __init__(self, labels: np.ndarray, names: list[str], intensities: bool):
        self.names = [name for name, column in zip(names, labels.T, strict=True) if not is_coded(column).any()]
        self.intensities = intensities

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Say it, in the first process alone."""
        if not state.is_world_process_zero:
            return
        if self.names:
            logger.warning("Not coded in the training part, and so not trained: %s.", ", ".join(self.names))
        if self.intensities:
            logger.warning(
                "The training part tells no intensities. Their head is not trained; what it says will no longer fit."
            )


__all__ = ["WhatIsNotTrained", "check_labels", "label_weights", "weights_where_coded"]
