"""Metrics per action unit: by hand, against scikit-learn, and over frames that were not coded."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from transformers import EvalPrediction

from hiva_hf.metrics import au_metrics, intensity_metrics, intraclass_correlation, make_compute_metrics

NAMES = ["AU1", "AU2", "AU4"]
MEANS = ("f1", "auc", "accuracy", "always_positive_f1")


def column(*values):
    return np.array(values, dtype=float)[:, None]


def random_data(frames=200, missing=0.3, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((frames, len(NAMES))) < [0.5, 0.2, 0.7]).astype(float)
    scores = np.clip(labels * 0.2 + rng.random(labels.shape) * 0.8, 0, 1)
    coded = rng.random(labels.shape) >= missing
    return labels, scores, coded


def test_values_worked_out_by_hand():
    labels = column(1, 1, 1, 0, 0, 0, 0, 0)
    scores = column(0.9, 0.6, 0.2, 0.8, 0.4, 0.3, 0.1, 0.1)
    result = au_metrics(labels, scores, ["AU12"])
    # at 0.5: two hits, one false alarm, one miss; of 15 pairs 0.9 wins 5, 0.6 wins 4, 0.2 wins 2
    expected = {
        "f1_AU12": 2 / 3,
        "precision_AU12": 2 / 3,
        "recall_AU12": 2 / 3,
        # as if 3 of 6 were active: a false alarm counts 3 / 5
        "skew_f1_AU12": 4 / (4 + 1 + 3 / 5),
        "auc_AU12": 11 / 15,
        # the three hits come first, third and sixth
        "ap_AU12": (1 / 1 + 2 / 3 + 3 / 6) / 3,
        "accuracy_AU12": 6 / 8,
        "base_rate_AU12": 3 / 8,
        "always_positive_f1_AU12": 6 / 11,
        "mean_f1": 2 / 3,
        "mean_precision": 2 / 3,
        "mean_recall": 2 / 3,
        "mean_skew_f1": 4 / (4 + 1 + 3 / 5),
        "mean_ap": (1 / 1 + 2 / 3 + 3 / 6) / 3,
        "mean_auc": 11 / 15,
        "mean_accuracy": 6 / 8,
        "mean_always_positive_f1": 6 / 11,
    }
    assert result == pytest.approx(expected)
    assert all(type(value) is float for value in result.values())


def test_equal_scores_count_half_in_the_auc():
    assert au_metrics(column(1, 0), column(0.5, 0.5))["auc_0"] == 0.5


def test_random_data_agrees_with_scikit_learn():
    labels, scores, _ = random_data()
    result = au_metrics(labels, scores, NAMES)
    for index, name in enumerate(NAMES):
        truth, score = labels[:, index], scores[:, index]
        assert result[f"f1_{name}"] == pytest.approx(f1_score(truth, score >= 0.5))
        assert result[f"auc_{name}"] == pytest.approx(roc_auc_score(truth, score))
        assert result[f"accuracy_{name}"] == pytest.approx(accuracy_score(truth, score >= 0.5))
        assert result[f"base_rate_{name}"] == pytest.approx(truth.mean())
    for key in MEANS:
        assert result[f"mean_{key}"] == pytest.approx(np.mean([result[f"{key}_{name}"] for name in NAMES]))
    assert result["mean_f1"] == pytest.approx(f1_score(labels, scores >= 0.5, average="macro"))


@pytest.mark.parametrize("mark", [-100.0, np.nan])
def test_frames_that_were_not_coded_are_left_out_of_their_own_unit_alone(mark):
    labels, scores, coded = random_data()
    result = au_metrics(np.where(coded, labels, mark), scores, NAMES)
    for index, name in enumerate(NAMES):
        keep = coded[:, index]
        alone = au_metrics(labels[keep, index : index + 1], scores[keep, index : index + 1], [name])
        for key in ("f1", "auc", "accuracy", "base_rate", "always_positive_f1"):
            assert result[f"{key}_{name}"] == pytest.approx(alone[f"{key}_{name}"])


def test_scores_of_frames_that_were_not_coded_do_not_matter():
    labels, scores, coded = random_data()
    labels[~coded] = -100
    elsewhere = np.where(coded, scores, 1 - scores)
    assert au_metrics(labels, scores) == au_metrics(labels, elsewhere)


@pytest.mark.parametrize("mark", [-100.0, np.nan])
def test_a_unit_that_was_never_coded_is_nan_and_in_no_mean(mark):
    labels, scores, _ = random_data()
    labels[:, 1] = mark
    result = au_metrics(labels, scores, NAMES)
    for key in ("f1", "auc", "accuracy", "base_rate", "always_positive_f1"):
        assert math.isnan(result[f"{key}_AU2"])
    others = au_metrics(labels[:, [0, 2]], scores[:, [0, 2]], ["AU1", "AU4"])
    for key in MEANS:
        assert result[f"mean_{key}"] == pytest.approx(others[f"mean_{key}"])


def test_nothing_coded_at_all_gives_nan_means():
    result = au_metrics(np.full((4, 2), -100), np.zeros((4, 2)))
    assert all(math.isnan(value) for value in result.values())
    assert all(math.isnan(value) for value in au_metrics(np.zeros((0, 2)), np.zeros((0, 2))).values())


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_has_no_auc(value):
    labels = np.column_stack([np.full(4, value), [0, 1, 0, 1]])
    result = au_metrics(labels, np.array([[0.9, 0.2], [0.1, 0.8], [0.3, 0.3], [0.7, 0.9]]), ["AU1", "AU2"])
    assert math.isnan(result["auc_AU1"])
    assert result["auc_AU2"] == result["mean_auc"] == 1.0
    assert result["base_rate_AU1"] == value


def test_what_is_undefined_is_neither_0_nor_1():
    never = au_metrics(column(0, 0), column(0.1, 0.2))
    undefined = {key.removesuffix("_0") for key, value in never.items() if math.isnan(value) and key.endswith("_0")}
    assert undefined == {"f1", "precision", "recall", "skew_f1", "auc", "ap", "always_positive_f1"}
    assert never["accuracy_0"] == 1.0
    false_alarm = au_metrics(column(0, 0), column(0.9, 0.2))
    assert (false_alarm["precision_0"], false_alarm["accuracy_0"]) == (0.0, 0.5)
    assert math.isnan(false_alarm["f1_0"])
    missed = au_metrics(column(1, 0), column(0.1, 0.2))
    assert (missed["f1_0"], missed["recall_0"], missed["skew_f1_0"]) == (0.0, 0.0, 0.0)
    assert math.isnan(missed["precision_0"])
    both = au_metrics(np.hstack([column(0, 0), column(1, 0)]), np.hstack([column(0.1, 0.2), column(0.9, 0.2)]))
    assert both["mean_f1"] == both["f1_1"] == 1.0


def test_skew_normalised_f1_does_not_depend_on_the_base_rate():
    # the same rates of hits and false alarms among 10 active and 10, 100 or 1000 inactive frames
    values = []
    for inactive in (10, 100, 1000):
        labels = column(*[1] * 10, *[0] * inactive)
        scores = column(*[0.9] * 7, *[0.1] * 3, *[0.9] * (inactive // 5), *[0.1] * (inactive - inactive // 5))
        values.append(au_metrics(labels, scores)["skew_f1_0"])
    # 7 hits, 3 missed, 2 of 10 false
    assert values == pytest.approx([14 / (14 + 3 + 2)] * 3)


@pytest.mark.parametrize("active", [1, 3, 7, 10])
def test_always_positive_f1_follows_from_the_base_rate(active):
    labels = column(*[1] * active, *[0] * (10 - active))
    rate = active / 10
    result = au_metrics(labels, np.zeros_like(labels), ["AU6"])
    assert result["always_positive_f1_AU6"] == pytest.approx(2 * rate / (1 + rate))
    assert au_metrics(labels, np.ones_like(labels), ["AU6"])["f1_AU6"] == pytest.approx(2 * rate / (1 + rate))


def test_a_score_at_the_threshold_is_active():
    assert au_metrics(column(1, 0), column(0.5, 0.49))["f1_0"] == 1.0
    assert au_metrics(column(1, 0), column(0.7, 0.69), threshold=0.7)["f1_0"] == 1.0


def test_each_unit_can_have_its_own_threshold():
    labels, scores, _ = random_data()
    limits = [0.3, 0.5, 0.7]
    result = au_metrics(labels, scores, NAMES, threshold=limits)
    for index, name in enumerate(NAMES):
        assert result[f"f1_{name}"] == pytest.approx(f1_score(labels[:, index], scores[:, index] >= limits[index]))
    plain = au_metrics(labels, scores, NAMES)
    assert [result[f"auc_{name}"] for name in NAMES] == [plain[f"auc_{name}"] for name in NAMES]


def test_integers_and_lists_do():
    lists = au_metrics([[1, -100], [0, 1]], [[0.9, 0.1], [0.2, 0.8]])
    arrays = au_metrics(np.array([[1, np.nan], [0, 1]], dtype=np.float32), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert lists == pytest.approx(arrays, nan_ok=True)


@pytest.mark.parametrize(
    ("labels", "scores", "options", "message"),
    [
        (np.zeros((4, 2)), np.zeros((4, 3)), {}, r"\(4, 2\) and \(4, 3\)"),
        (np.zeros(4), np.zeros(4), {}, r"\(num_frames, num_labels\)"),
        (np.zeros((4, 2)), np.zeros((4, 2)), {"names": ["AU1"]}, "`names` must have 2 entries.*got 1"),
    ],
)
def test_what_does_not_fit_is_refused(labels, scores, options, message):
    with pytest.raises(ValueError, match=message):
        au_metrics(labels, scores, **options)


def test_a_misfit_of_thresholds_is_explained():
    with pytest.raises(ValueError, match="`threshold`"):
        au_metrics(np.zeros((4, 2)), np.zeros((4, 2)), threshold=[0.1, 0.2, 0.3])


@pytest.mark.parametrize("wrap", [lambda logits: logits, lambda logits: (logits, np.zeros(3))], ids=["array", "tuple"])
def test_compute_metrics_takes_the_sigmoid_of_the_logits(wrap):
    labels, scores, coded = random_data()
    labels[~coded] = -100
    scores = np.clip(scores, 0.01, 0.99)
    logits = np.log(scores / (1 - scores)).astype(np.float32)
    result = make_compute_metrics(NAMES)(EvalPrediction(predictions=wrap(logits), label_ids=labels))
    assert result == pytest.approx(au_metrics(labels, scores, NAMES), nan_ok=True)


def test_compute_metrics_bears_huge_logits():
    prediction = EvalPrediction(predictions=np.array([[1e4], [-1e4]], dtype=np.float32), label_ids=column(1, 0))
    with np.errstate(all="raise"):
        result = make_compute_metrics(["AU1"])(prediction)
    assert result["f1_AU1"] == result["auc_AU1"] == 1.0


def test_intraclass_correlation_of_the_example_of_shrout_and_fleiss():
    # Shrout and Fleiss (1979), table 2, judges 1 and 2; mean squares by hand: 18.75 between, .95 residual
    first, second = np.array([9, 6, 8, 7, 10, 6.0]), np.array([2, 1, 4, 1, 5, 2.0])
    between = (
        2
        * ((first + second) / 2 - np.concatenate([first, second]).mean())
        @ ((first + second) / 2 - np.concatenate([first, second]).mean())
    )
    between, residual = between / 5, ((first - second) - (first - second).mean()) @ (first - second) / 2 / 5
    assert intraclass_correlation(first, second) == pytest.approx((between - residual) / (between + residual))


def test_intraclass_correlation_ignores_a_constant_and_punishes_another_scale():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 5, 50)
    assert intraclass_correlation(values, values + 1) == pytest.approx(1)
    assert intraclass_correlation(values, values * 3) < 0.7


def test_intensity_over_coded_frames_alone():
    labels = np.array([[0, 2], [1, 2], [4, 2], [-100, np.nan]], dtype=float)
    values = np.array([[0.5, 1], [1, 3], [3, 2], [99, 99]])
    result = intensity_metrics(labels, values, ["AU6", "AU12"])
    assert result["mae_AU6"] == pytest.approx(0.5)
    assert result["mse_AU6"] == pytest.approx(1.25 / 3)
    assert result["pcc_AU6"] == pytest.approx(np.corrcoef([0, 1, 4], [0.5, 1, 3])[0, 1])
    # what was always told to be 2 has no correlation
    assert math.isnan(result["icc_AU12"])
    assert result["mean_icc"] == result["icc_AU6"]
    assert result["mean_mae"] == pytest.approx((0.5 + 2 / 3) / 2)


def test_compute_metrics_of_intensities_stay_on_the_scale():
    prediction = EvalPrediction(
        predictions=np.array([[7.0], [-2.0]], dtype=np.float32), label_ids=np.array([[5.0], [0.0]])
    )
    assert make_compute_metrics(["AU12"], intensity=True)(prediction)["mae_AU12"] == 0


def test_compute_metrics_with_a_threshold_an_action_unit():
    prediction = EvalPrediction(predictions=np.array([[1.0, 1.0], [-9.0, -9.0]]), label_ids=np.array([[1, 1], [0, 0]]))
    result = make_compute_metrics(["AU1", "AU2"], threshold=[0.5, 0.9])(prediction)
    assert (result["f1_AU1"], result["f1_AU2"]) == (1.0, 0.0)
