import math

import pytest
import torch

from hiva_hf.loss_hiva import (
    MISSING_LABEL,
    OCCURRENCE_LOSSES,
    alignment_loss,
    masked_binary_cross_entropy,
    masked_mean_squared_error,
    weighted_asymmetric_loss,
)

LOSSES = [weighted_asymmetric_loss, masked_binary_cross_entropy, masked_mean_squared_error]
NAN = float("nan")
WEIGHT = [0.5, 2.0, 1.25, 0.25]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def is_missing(label):
    return math.isnan(label) or label == -100


def naive_entry(loss, logit, label):
    """Loss and derivative of one coded entry."""
    p = 1 / (1 + math.exp(-logit))
    if loss is masked_mean_squared_error:
        return (logit - label) ** 2, 2 * (logit - label)
    if loss is masked_binary_cross_entropy:
        return -(label * math.log(p) + (1 - label) * math.log(1 - p)), p - label
    # the factor p of an inactive AU is a constant to the gradient
    return -(label * math.log(p) + (1 - label) * p * math.log(1 - p)), (1 - label) * p * p - label * (1 - p)


def naive(loss, logits, labels, weight=None):
    """Loss and gradient, one entry at a time in double precision."""
    total, count, gradient = 0.0, 0, [[0.0] * len(row) for row in labels]
    for b, row in enumerate(labels):
        for k, label in enumerate(row):
            if is_missing(label):
                continue
            value, derivative = naive_entry(loss, logits[b][k], label)
            factor = 1.0 if weight is None else weight[k]
            total += factor * value
            gradient[b][k] = factor * derivative
            count += 1
    count = max(count, 1)
    return total / count, [[value / count for value in row] for row in gradient]


def random_logits(rows=5, seed=0):
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)) * 3


def labels_for(loss, missing):
    generator = torch.Generator().manual_seed(1)
    if loss is masked_mean_squared_error:
        labels = torch.randint(0, 6, (5, 4), generator=generator).float()
    else:
        labels = torch.randint(0, 2, (5, 4), generator=generator).float()
    for b, k in ((0, 0), (2, 3), (4, 1)) if missing is not None else ():
        labels[b, k] = missing
    return labels


def value_and_gradient(loss, logits, labels, weight=None):
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels, weight)
    value.backward()
    return value, logits.grad


@each_loss
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("missing", [None, -100.0, NAN], ids=["all coded", "-100", "nan"])
def test_loss_is_the_naive_loop(loss, missing, weight):
    logits, labels = random_logits(), labels_for(loss, missing)
    value, gradient = value_and_gradient(loss, logits, labels, None if weight is None else torch.tensor(weight))
    expected, expected_gradient = naive(loss, logits.double().tolist(), labels.tolist(), weight)
    assert value.ndim == 0
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(gradient.double(), torch.tensor(expected_gradient).double(), rtol=1e-5, atol=1e-7)


@each_loss
@pytest.mark.parametrize("missing", [MISSING_LABEL, NAN])
def test_missing_entries_add_nothing(loss, missing):
    logits, labels = random_logits(rows=6), torch.ones(6, 4)
    labels[1, 2] = labels[3] = missing
    value, gradient = value_and_gradient(loss, logits, labels)
    missing_here = torch.zeros(6, 4, dtype=torch.bool)
    missing_here[1, 2] = missing_here[3] = True
    assert (gradient[missing_here] == 0).all()
    assert (gradient[~missing_here] != 0).all()
    # whatever the model says there
    elsewhere = value_and_gradient(loss, logits.masked_fill(missing_here, 80.0), labels)
    assert torch.equal(value, elsewhere[0])
    assert torch.equal(gradient, elsewhere[1])
    # nor do they count: a row without labels leaves the mean as it is
    without_row = loss(logits[[0, 1, 2, 4, 5]], labels[[0, 1, 2, 4, 5]])
    assert value.item() == pytest.approx(without_row.item(), rel=1e-6)


@each_loss
@pytest.mark.parametrize("missing", [MISSING_LABEL, NAN])
def test_nothing_coded_is_zero_with_a_gradient_of_zero(loss, missing):
    value, gradient = value_and_gradient(loss, random_logits(), torch.full((5, 4), missing), torch.tensor(WEIGHT))
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros(5, 4))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(loss, dtype):
    logits = torch.tensor([[50.0, -50.0, 50.0, -50.0, 0.5]], dtype=dtype)
    labels = torch.tensor([[1.0, 0.0, 0.0, 1.0, -100.0]])
    value, gradient = value_and_gradient(loss, logits, labels, torch.ones(5, dtype=dtype))
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert value.isfinite()
    assert gradient.isfinite().all()
    # the two wrong entries cost about 50 each, or their square; the right ones nothing
    wrong = {masked_mean_squared_error: (49**2 + 50**2 + 50**2 + 51**2) / 4}.get(loss, 25.0)
    assert value.item() == pytest.approx(wrong, rel=1e-3)
    assert gradient[0, 4] == 0


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    logits, labels = random_logits().to(dtype), labels_for(loss, -100.0)
    for form in (labels, labels.to(dtype)):
        assert torch.equal(loss(logits, form), loss(logits.float(), labels))


@each_loss
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_labels_of_any_number_type(loss, dtype):
    logits, labels = random_logits(), labels_for(loss, -100.0)
    assert torch.equal(loss(logits, labels.to(dtype)), loss(logits, labels))


@each_loss
def test_weight_multiplies_the_column_of_its_au(loss):
    logits, labels = random_logits(), labels_for(loss, None)
    plain = value_and_gradient(loss, logits, labels)[1]
    weighted = value_and_gradient(loss, logits, labels, torch.tensor([0.0, 1.0, 3.0, 1.0]))[1]
    assert torch.allclose(weighted, plain * torch.tensor([0.0, 1.0, 3.0, 1.0]))


@each_loss
@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (4,), (5, 4, 1)])
def test_shapes_that_differ_are_an_error(loss, shape):
    with pytest.raises(ValueError, match=r"`labels` must have the shape of `logits`.*\(5, 4\)") as error:
        loss(random_logits(), torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_asymmetric_loss_spares_confident_inactive_aus():
    logits = torch.tensor([[-3.0, 0.0, 2.0]])
    value, gradient = value_and_gradient(weighted_asymmetric_loss, logits, torch.zeros(1, 3))
    p = logits.sigmoid()
    assert value.item() == pytest.approx((-p * (1 - p).log()).mean().item(), rel=1e-6)
    # with p detached the derivative of -p log(1 - p) is p * p; through p as well it would be more
    assert torch.allclose(gradient, p * p / 3)
    through_p = (p * p - p * (1 - p) * (1 - p).log()) / 3
    assert not torch.allclose(gradient, through_p, rtol=1e-2)
    active = value_and_gradient(weighted_asymmetric_loss, logits, torch.ones(1, 3))[1]
    assert torch.allclose(active, (p - 1) / 3)


def test_occurrence_losses_are_named():
    assert dict(OCCURRENCE_LOSSES) == {
        "weighted_asymmetric": weighted_asymmetric_loss,
        "binary_cross_entropy": masked_binary_cross_entropy,
    }
    assert MISSING_LABEL == -100


def random_pairs(batch=2, aus=5, width=16):
    generator = torch.Generator().manual_seed(3)
    visual = torch.randn(batch, aus, width, generator=generator)
    return visual, visual + 0.3 * torch.randn(batch, aus, width, generator=generator)


def naive_alignment(visual, textual, temperature):
    terms = []
    for seen, told in zip(visual, textual, strict=True):
        cosine = [[(v * t).sum() / (v.norm() * t.norm()).clamp(min=1e-12) / temperature for t in told] for v in seen]
        for k in range(len(seen)):
            row = torch.stack(cosine[k]).exp()
            column = torch.stack([cosine[j][k] for j in range(len(seen))]).exp()
            terms += [-(row[k] / row.sum()).log(), -(column[k] / column.sum()).log()]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_alignment_is_the_naive_loop(temperature):
    visual, textual = (tensor.requires_grad_() for tensor in random_pairs())
    value = alignment_loss(visual, textual, temperature)
    expected = naive_alignment(visual.double(), textual.double(), temperature)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(
        torch.autograd.grad(value, (visual, textual)), torch.autograd.grad(expected, (visual, textual)), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def test_alignment_is_lower_for_aligned_pairs():
    visual, textual = random_pairs()
    aligned = alignment_loss(visual, textual)
    shuffled = alignment_loss(visual, textual[:, [1, 2, 3, 4, 0]])
    assert 0 <= aligned < 0.2 * shuffled
    assert alignment_loss(visual, visual) < aligned


def test_alignment_ignores_length_and_knows_chance():
    visual, textual = random_pairs()
    assert alignment_loss(visual * 7, textual / 3).item() == pytest.approx(
        alignment_loss(visual, textual).item(), rel=1e-5
    )
    same = torch.ones(2, 5, 16)
    assert alignment_loss(same, same).item() == pytest.approx(math.log(5), rel=1e-5)
    assert alignment_loss(visual[:, :1], textual[:, :1]).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_alignment_in_half_precision(dtype):
    visual, textual = random_pairs()
    value = alignment_loss((visual * 50).to(dtype), (textual * 50).to(dtype))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(alignment_loss(visual, textual).item(), rel=0.1)
