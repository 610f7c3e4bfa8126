"""HiVA: assembly of towers, AU feature generator, dynamic graph, DDCA, CDCA and head.

Li et al., *Hierarchical Vision-Language Interaction for Facial Action Unit Detection*, arXiv 2602.14425. The five
elements are the paper's; sizes, wiring inside them and losses are a reconstruction.
"""

import torch
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_hiva import HiVAConfig
from .loss_hiva import OCCURRENCE_LOSSES, alignment_loss, is_coded, map_loss, masked_mean_squared_error
from .modeling_hiva_base import HiVAPreTrainedModel
from .modeling_hiva_layers import (
    HiVACDCA,
    HiVADDCA,
    HiVADescriptionPooling,
    HiVADynamicGraph,
    HiVAFeatureGenerator,
    HiVAHead,
    HiVATextProjection,
    HiVAVisionProjection,
)
from .modeling_hiva_outputs import HiVAForImageClassificationOutput, HiVAModelOutput
from .modeling_hiva_text import HiVATextSide
from .modeling_hiva_towers import build_tower, extract_visual_tokens


class HiVAModel(HiVATextSide, HiVAPreTrainedModel):
    """Images and AU descriptions to AU embeddings; [`HiVAForImageClassification`] adds the logits.

    Args:
        config (`HiVAConfig`): The configuration.
        vision_model, text_model (`PreTrainedModel`, *optional*): Towers to use in place of newly built ones.
    """

    _auto_class = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(
        self,
        config: HiVAConfig,
        vision_model: PreTrainedModel | None = None,
        text_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.vision_model = vision_model if vision_model is not None else build_tower(config.vision_config)
        self.vision_projection = HiVAVisionProjection(config)
        self.text_model = None
        if config.use_descriptions:
            self.text_projection = HiVATextProjection(config)
            self.description_pooling = HiVADescriptionPooling(config)
            shape = (config.num_labels, config.num_descriptions)
            if config.text_folded:
                self.register_buffer("text_embeds", torch.zeros(*shape, config.text_embed_dim))
            else:
                self.text_model = text_model if text_model is not None else build_tower(config.text_config)
                self._register_descriptions(torch.zeros(*shape, config.description_length, dtype=torch.long))
        self.feature_generator = HiVAFeatureGenerator(config)
        self.graph = HiVADynamicGraph(config) if config.use_graph else None
        self.ddca = HiVADDCA(config) if config.use_ddca else None
        self.cdca = HiVACDCA(config) if config.use_cdca else None
        self.post_init()

    def train(self, mode: bool = True):
        """As in torch, but a tower that is frozen stays as it is in evaluation.

        Its running statistics would drift away from what was saved, and dropout in it would only be noise.
        """
        super().train(mode)
        for tower in (self.vision_model, self.text_model):
            if mode and tower is not None and not any(value.requires_grad for value in tower.parameters()):
                tower.eval()
        return self

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        text_embeds: torch.FloatTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_activation_maps: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> HiVAModelOutput:
        r"""Embed every action unit of every image.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Faces.
            input_ids (`torch.LongTensor` of shape `(num_labels, num_descriptions, length)`, *optional*):
                Descriptions for this call in place of the stored ones; needs a text tower.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 1 for tokens, 0 for padding.
            text_embeds (`torch.Tensor` of shape `(num_labels, num_descriptions, text_embed_dim)`, *optional*):
                Description embeddings for this call, before the projection.
            output_attentions (`bool`, *optional*): Return attention and the graph; takes eager attention.
            output_hidden_states (`bool`, *optional*): Return the hidden states of the vision tower.
            output_activation_maps (`bool`, *optional*, defaults to `config.output_activation_maps`):
                Return one map an AU over the image.
            **kwargs: Further keywords of transformers models.

        Returns:
            [`HiVAModelOutput`]
        """
        if pixel_values.ndim != 4:
            raise ValueError(
                "`pixel_values` must have shape (batch_size, num_channels, height, width); "
                f"got {tuple(pixel_values.shape)}. Add the batch dimension with `pixel_values[None]`."
            )
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_activation_maps is None:
            output_activation_maps = self.config.output_activation_maps
        if output_activation_maps and self.ddca is None:
            raise ValueError("`output_activation_maps` needs `config.use_ddca`; got a model without DDCA.")

        # only an eager tower can tell its attention; the blocks above it switch by themselves
        tower_attentions = output_attentions and self.config.vision_config._attn_implementation == "eager"
        tokens, grid, vision_outputs = extract_visual_tokens(
            self.vision_model,
            pixel_values,
            output_attentions=tower_attentions,
            output_hidden_states=output_hidden_states,
        )
        tokens = self.vision_projection(tokens, grid)
        text = self._projected_text(input_ids, attention_mask, text_embeds)
        summary = self.description_pooling(text) if text is not None else None

        token_maps, visual = self.feature_generator(tokens, summary)
        textual = summary.expand_as(visual) if summary is not None else None
        adjacency = to_text = to_image = visual_context = textual_context = alignment = None
        if self.graph is not None:
            visual, adjacency = self.graph(visual)
        if self.ddca is not None:
            want_maps = bool(output_attentions or output_activation_maps)
            visual, textual, to_text, to_image = self.ddca(visual, token_maps, text, want_maps)
        if textual is not None and self.training and self.config.alignment_loss_weight > 0:
            alignment = alignment_loss(visual, textual, reduction="none")
        if self.cdca is not None:
            visual, textual, visual_context, textual_context = self.cdca(visual, textual, bool(output_attentions))

        maps = to_image.mean(dim=2).unflatten(-1, grid) if output_activation_maps else None
        return HiVAModelOutput(
            last_hidden_state=tokens,
            au_embeds=visual,
            au_text_embeds=textual,
            text_embeds=text,
            text_summary=summary,
            alignment_loss=alignment,
            activation_maps=maps,
            graph_adjacency=adjacency if output_attentions else None,
            ddca_attentions=(to_text, to_image) if output_attentions and self.ddca is not None else None,
            cdca_attentions=(visual_context, textual_context) if output_attentions and self.cdca is not None else None,
            attentions=getattr(vision_outputs, "attentions", None) if tower_attentions else None,
            hidden_states=getattr(vision_outputs, "hidden_states", None) if output_hidden_states else None,
        )


class HiVAForImageClassification(HiVAPreTrainedModel):
    """HiVA with its head: a logit for every action unit of every image; with a second head, its intensity too.

    Args:
        config (`HiVAConfig`): The configuration.
        vision_model, text_model (`PreTrainedModel`, *optional*): Towers to use in place of newly built ones.
    """

    _auto_class = "AutoModelForImageClassification"

    def __init__(
        self,
        config: HiVAConfig,
        vision_model: PreTrainedModel | None = None,
        text_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.hiva = HiVAModel(config, vision_model, text_model)
        self.classifier = HiVAHead(config)
        self.intensity_classifier = HiVAHead(config) if config.intensity_head else None
        self.post_init()

    def set_descriptions(self, *args, **kwargs) -> None:
        """See [`HiVAModel.set_descriptions`]."""
        self.hiva.set_descriptions(*args, **kwargs)

    def set_text_embeds(self, *args, **kwargs) -> None:
        """See [`HiVAModel.set_text_embeds`]."""
        self.hiva.set_text_embeds(*args, **kwargs)

    def fold_text(self):
        """See [`HiVAModel.fold_text`]."""
        self.hiva.fold_text()
        return self

    def compute_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The masked loss of `config.problem_type`.

        Args:
            logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the sigmoid, or intensities.
            labels (`torch.Tensor` of shape `(batch_size, num_labels)`): 0/1 or 0-5; `-100` or NaN is not coded.

        Raises:
            ValueError: If the shapes differ.
        """
        if labels.shape != logits.shape:
            raise ValueError(
                f"`labels` must have shape {tuple(logits.shape)} to match `config.num_labels`; got "
                f"{tuple(labels.shape)}. Were the labels made for another set of action units than "
                f"{', '.join(self.config.au_names)}?"
            )
        weights = None
        if self.config.label_weights is not None:
            weights = torch.tensor(self.config.label_weights, dtype=torch.float32, device=logits.device)
        if self.config.problem_type == "regression":
            return masked_mean_squared_error(logits, labels, weights)
        return OCCURRENCE_LOSSES[self.config.occurrence_loss](logits, labels, weights)

    def calibrate(self, logits: torch.Tensor, asked_otherwise: bool = False) -> torch.Tensor:
        """Logits whose sigmoid is a probability, as [`fit_calibration`] found on validation subjects.

        Args:
            logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Of the head. Intensities are cut to 0-5 outside
                of training.
            asked_otherwise (`bool`, defaults to `False`): By descriptions of this call. A model of open vocabulary may
                then have answered for other action units than it was calibrated on, so logits stay as they are.
        """
        if self.config.problem_type == "regression":
            return logits if self.training else logits.clamp(0, 5)
        if asked_otherwise and self.config.open_vocabulary:
            return logits
        if self.config.calibration_temperatures is not None:
            logits = logits / logits.new_tensor(self.config.calibration_temperatures)
        if self.config.calibration_biases is not None:
            logits = logits + logits.new_tensor(self.config.calibration_biases)
        return logits

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.Tensor | None = None,
        intensity_labels: torch.Tensor | None = None,
        mask_labels: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        text_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> HiVAForImageClassificationOutput:
        r"""Score every action unit of every image.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Faces.
            labels (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*):
                Occurrence 0/1 or intensity 0-5; `-100` or NaN is not coded.
            intensity_labels (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*):
                Intensity 0-5 for the second head (`intensity_head`), beside `labels` of occurrence.
            mask_labels (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`, *optional*):
                1 where an AU moved the face, for `map_loss_weight`, beside `labels`.
            input_ids (`torch.LongTensor` of shape `(num_labels, num_descriptions, length)`, *optional*):
                Descriptions for this call in place of the stored ones; needs a text tower.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 1 for tokens, 0 for padding.
            text_embeds (`torch.Tensor` of shape `(num_labels, num_descriptions, text_embed_dim)`, *optional*):
                Description embeddings for this call, before the projection.
            **kwargs: As in [`HiVAModel.forward`]; and `num_items_in_batch`, how many labels are coded in all batches of
                a step, over which the loss is then a mean: that of its batches add up to that of the step.

        Returns:
            [`HiVAForImageClassificationOutput`]

        Raises:
            ValueError: If the shape of `labels` is not that of the logits.
        """
        options: dict = {**kwargs, "return_dict": True}
        if mask_labels is not None and self.config.map_loss_weight > 0:
            options["output_activation_maps"] = True
        outputs = self.hiva(pixel_values, input_ids, attention_mask, text_embeds, **options)
        embeds = (outputs.au_embeds, outputs.au_text_embeds, outputs.text_summary)
        logits = self.classifier(*embeds)
        intensities = self.intensity_classifier(*embeds) if self.intensity_classifier is not None else None
        logits = self.calibrate(logits, asked_otherwise=input_ids is not None or text_embeds is not None)
        loss = None
        if labels is not None:
            loss = self.compute_loss(logits, labels)
            coded = is_coded(labels).sum(dim=-1)  # (B,)
            if outputs.alignment_loss is not None:
                # an image weighs as its labels do in the mean above: one without labels fills up a batch
                alignment = (outputs.alignment_loss * coded).sum() / coded.sum().clamp(min=1)
                loss = loss + self.config.alignment_loss_weight * alignment
            if intensities is not None and intensity_labels is not None:
                strength = masked_mean_squared_error(intensities, intensity_labels)
                loss = loss + self.config.intensity_loss_weight * strength
            if mask_labels is not None and self.config.map_loss_weight > 0:
                loss = loss + self.config.map_loss_weight * map_loss(outputs.activation_maps, mask_labels)
            if kwargs.get("num_items_in_batch") is not None:
                loss = loss * coded.sum() / torch.as_tensor(kwargs["num_items_in_batch"]).clamp(min=1)
        return HiVAForImageClassificationOutput(
            loss=loss,
            logits=logits,
            intensities=intensities if intensities is None or self.training else intensities.clamp(0, 5),
            au_embeds=outputs.au_embeds,
            text_embeds=outputs.text_embeds,
            activation_maps=outputs.activation_maps,
            graph_adjacency=outputs.graph_adjacency,
            ddca_attentions=outputs.ddca_attentions,
            cdca_attentions=outputs.cdca_attentions,
            attentions=outputs.attentions,
            hidden_states=outputs.hidden_states,
        )


__all__ = ["HiVAForImageClassification", "HiVAModel", "HiVAPreTrainedModel"]
