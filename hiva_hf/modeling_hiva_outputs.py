"""What the models return: every tensor with its shape."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class HiVAModelOutput(ModelOutput):
    """What [`HiVAModel`] returns; symbols as in the paper's reconstruction: B images, K AUs, M descriptions, N tokens.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): Projected visual tokens.
        au_embeds (`torch.Tensor` of shape `(batch_size, num_labels, hidden_size)`): Visual AU embeddings V''.
        au_text_embeds (`torch.Tensor` of shape `(batch_size, num_labels, hidden_size)`, *optional*):
            Textual AU embeddings T'' of this image; absent without descriptions.
        text_embeds (`torch.Tensor` of shape `(num_labels, num_descriptions, hidden_size)`, *optional*):
            Projected descriptions, the same for all images; absent without descriptions.
        text_summary (`torch.Tensor` of shape `(num_labels, hidden_size)`, *optional*): Those, pooled to one an AU.
        alignment_loss (`torch.Tensor` of shape `(batch_size,)`, *optional*):
            Of each image, while training where its weight is positive.
        activation_maps (`torch.Tensor` of shape `(batch_size, num_labels, rows, columns)`, *optional*):
            Where each AU's descriptions look, mean over descriptions and heads; each map sums to 1. Returned with
            `output_activation_maps=True`.
        graph_adjacency (`torch.Tensor` of shape `(batch_size, num_labels, num_labels)`, *optional*):
            Normalised adjacency of the dynamic graph. Returned with `output_attentions=True`, as are the next three.
        ddca_attentions (`tuple(torch.Tensor)`, *optional*): Of the AU to its descriptions, of shape
            `(batch_size, num_labels, num_descriptions)`, and of the descriptions to the image, of shape
            `(batch_size, num_labels, num_descriptions, num_tokens)`; mean over heads.
        cdca_attentions (`tuple(torch.Tensor)`, *optional*): Of visual to textual AUs and of textual to visual AUs, both
            of shape `(batch_size, num_labels, num_labels)`; mean over heads.
        attentions (`tuple(torch.Tensor)`, *optional*):
            Attention of the vision tower; only from a tower with `attn_implementation="eager"`.
        hidden_states (`tuple(torch.Tensor)`, *optional*):
            Hidden states of the vision tower. Returned with `output_hidden_states=True`.
    """

    last_hidden_state: torch.Tensor | None = None
    au_embeds: torch.Tensor | None = None
    au_text_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    text_summary: torch.Tensor | None = None
    alignment_loss: torch.Tensor | None = None
    activation_maps: torch.Tensor | None = None
    graph_adjacency: torch.Tensor | None = None
    ddca_attentions: tuple[torch.Tensor | None, ...] | None = None
    cdca_attentions: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None


@dataclass
class HiVAForImageClassificationOutput(ModelOutput):
    """What [`HiVAForImageClassification`] returns.

    Args:
        loss (`torch.Tensor`, *optional*): Scalar; returned with `labels`.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`):
            Scores before the sigmoid (occurrence), or intensities on the scale 0-5 (`problem_type="regression"`).
        intensities (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*):
            How strong each AU is on the scale 0-5, by a second head beside that of occurrence (`intensity_head`).
        au_embeds, text_embeds, activation_maps, graph_adjacency, ddca_attentions, cdca_attentions, attentions,
        hidden_states: As in [`HiVAModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    intensities: torch.Tensor | None = None
    au_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    activation_maps: torch.Tensor | None = None
    graph_adjacency: torch.Tensor | None = None
    ddca_attentions: tuple[torch.Tensor | None, ...] | None = None
    cdca_attentions: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None


__all__ = ["HiVAForImageClassificationOutput", "HiVAModelOutput"]
