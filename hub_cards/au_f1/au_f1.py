"""F1 and its companions per action unit, over the frames where each was coded, as a module of `evaluate`."""

import datasets
import evaluate
import numpy as np

from hiva_hf.metrics import au_metrics, intensity_metrics

_DESCRIPTION = """
Metrics of facial action unit detection, each action unit over the frames in which it was coded: F1, precision,
recall, skew-normalised F1 (Jeni, Cohn and De la Torre, ACII 2013), ROC-AUC, average precision and accuracy, their
means, and what calling every frame active would score. What is undefined is NaN, and in no mean. The configuration
"intensity" computes ICC(3,1), PCC, MAE and MSE of intensities in their place.
"""
_INPUTS = """
Args:
    predictions (list of lists of float): Probabilities, one an action unit; of "intensity" intensities 0-5.
    references (list of lists of float): 1 active, 0 inactive, -100 or NaN not coded; of "intensity" 0-5.
    names (list of str, optional): Names of the action units, in the order of the columns.
    threshold (float or list of float, defaults to 0.5): Active at or above; of occurrence only.

Returns:
    dict: `f1_AU12`, `mean_f1` and so on.

Examples:
    >>> metric = evaluate.load("org/au_f1")
    >>> metric.compute(predictions=[[0.9, 0.2]], references=[[1, -100]], names=["AU12", "AU4"])["f1_AU12"]
    1.0
"""


class AuF1(evaluate.Metric):
    """Per action unit, with missing labels left out."""

    def _info(self):
        if self.config_name not in ("default", "occurrence", "intensity"):
            raise ValueError(f"`config_name` must be occurrence or intensity; got {self.config_name!r}.")
        rows = datasets.List(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": rows, "references": rows}),
        )

    def _compute(self, predictions, references, names=None, threshold=0.5):
        if self.config_name == "intensity":
            return intensity_metrics(np.asarray(references), np.asarray(predictions), names)
        return au_metrics(np.asarray(references), np.asarray(predictions), names, threshold)
