"""Losses over the action units that were coded. Pure functions; labels that are missing add nothing."""

import torch
from torch.nn import functional

MISSING_LABEL = -100


def is_coded(labels: torch.Tensor) -> torch.Tensor:
    """Where labels are neither `-100` nor NaN.

    Args:
        labels (`torch.Tensor`): Of any shape.

    Returns:
        `torch.BoolTensor` of the same shape.
    """
    return (labels != MISSING_LABEL) & ~labels.isnan()


def _coded(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Float32 logits, float32 labels with 0 where missing, and the float32 mask of coded entries."""
    if logits.shape != labels.shape:
        raise ValueError(
            f"`labels` must have the shape of `logits`; got {tuple(labels.shape)} and {tuple(logits.shape)}."
        )
    labels = labels.float()
    mask = is_coded(labels)
    return logits.float(), labels.masked_fill(~mask, 0.0), mask.float()


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


def weighted_asymmetric_loss(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Weighted asymmetric loss over the AUs that were coded (ME-GraphAU, IJCAI 2022; masking is ours).

    \\(-w_k [ y \log p + (1 - y) \, \bar{p} \log(1 - p) ]\\) with \\(\bar{p}\\) detached: an inactive AU that the model
    already holds for inactive adds little.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the sigmoid; computed in float32.
        labels (`torch.Tensor` of shape `(batch_size, num_labels)`): `1` active, `0` inactive, `-100` or NaN not coded.
        weight (`torch.Tensor` of shape `(num_labels,)`, *optional*): One weight an AU, mean 1; rare AUs weigh more.

    Returns:
        `torch.Tensor`: Scalar mean over coded entries; 0 with a gradient of 0 if none is coded.

    Raises:
        ValueError: If the shapes differ.
    """
    logits, labels, mask = _coded(logits, labels)
    active = labels * functional.logsigmoid(logits)
    inactive = (1 - labels) * logits.sigmoid().detach() * functional.logsigmoid(-logits)
    losses = -(active + inactive)
    if weight is not None:
        losses = losses * weight.to(losses)
    return _masked_mean(losses, mask)


def masked_binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Binary cross-entropy over the AUs that were coded.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the sigmoid; computed in float32.
        labels (`torch.Tensor` of shape `(batch_size, num_labels)`): `1` active, `0` inactive, `-100` or NaN not coded.
        weight (`torch.Tensor` of shape `(num_labels,)`, *optional*): One weight an AU.

    Returns:
        `torch.Tensor`: Scalar mean over coded entries; 0 with a gradient of 0 if none is coded.

    Raises:
        ValueError: If the shapes differ.
    """
    logits, labels, mask = _coded(logits, labels)
    losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if weight is not None:
        losses = losses * weight.to(losses)
    return _masked_mean(losses, mask)


def masked_mean_squared_error(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of intensity over the AUs that were coded.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Predicted intensity; computed in float32.
        labels (`torch.Tensor` of shape `(batch_size, num_labels)`): Intensity 0-5; `-100` or NaN not coded.
        weight (`torch.Tensor` of shape `(num_labels,)`, *optional*): One weight an AU.

    Returns:
        `torch.Tensor`: Scalar mean over coded entries; 0 with a gradient of 0 if none is coded.

    Raises:
        ValueError: If the shapes differ.
    """
    logits, labels, mask = _coded(logits, labels)
    losses = (logits - labels).square()
    if weight is not None:
        losses = losses * weight.to(losses)
    return _masked_mean(losses, mask)


def alignment_loss(
    au_embeds: torch.Tensor, text_embeds: torch.Tensor, temperature: float = 0.1, reduction: str = "mean"
) -> torch.Tensor:
    """Pull the visual and textual embedding of an AU together and away from the other AUs of the same image.

    Symmetric cross-entropy over cosine similarities (InfoNCE; van den Oord et al., 2018). Reconstruction.

    Args:
        au_embeds (`torch.Tensor` of shape `(batch_size, num_labels, hidden_size)`): V'.
        text_embeds (`torch.Tensor` of shape `(batch_size, num_labels, hidden_size)`): T'.
        temperature (`float`, defaults to 0.1): Divides the similarities.
        reduction (`str`, defaults to `"mean"`): `"none"` leaves a value an image.

    Returns:
        `torch.Tensor`: Scalar mean over images and AUs; of shape `(batch_size,)` with `reduction="none"`.
    """
    visual = functional.normalize(au_embeds.float(), dim=-1)
    textual = functional.normalize(text_embeds.float(), dim=-1)
    similarity = torch.matmul(visual, textual.transpose(-1, -2)) / temperature  # (B, K, K)
    to_text = similarity.log_softmax(dim=-1).diagonal(dim1=-2, dim2=-1)
    to_visual = similarity.log_softmax(dim=-2).diagonal(dim1=-2, dim2=-1)
    losses = -(to_text + to_visual).mean(dim=-1) / 2
    return losses if reduction == "none" else losses.mean()


def map_loss(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Draw the activation map of an AU to the pixels that this AU moved: minus the logarithm of its share on them.

    Needs faces of which that is known, as rendered ones. Not of the paper.

    Args:
        maps (`torch.Tensor` of shape `(batch_size, num_labels, rows, columns)`): Activation maps; each sums to 1.
        masks (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`):
            1 or `True` where the AU moved the face; a mask without any pixel counts for nothing.

    Returns:
        `torch.Tensor`: Scalar mean over masks that have a pixel; 0 with a gradient of 0 if none has.
    """
    rows, columns = maps.shape[-2:]
    covered = functional.adaptive_avg_pool2d(masks.float(), (rows, columns))
    shares = (maps.float() * covered).sum(dim=(-2, -1))
    return _masked_mean(-(shares + 1e-3).log(), (covered.sum(dim=(-2, -1)) > 0).float())


OCCURRENCE_LOSSES = {
    "weighted_asymmetric": weighted_asymmetric_loss,
    "binary_cross_entropy": masked_binary_cross_entropy,
}

__all__ = [
    "MISSING_LABEL",
    "OCCURRENCE_LOSSES",
    "alignment_loss",
    "is_coded",
    "map_loss",
    "masked_binary_cross_entropy",
    "masked_mean_squared_error",
    "weighted_asymmetric_loss",
]
