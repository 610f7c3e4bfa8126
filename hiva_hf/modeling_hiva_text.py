"""The text side of HiVA: where the descriptions are kept, embedded, replaced and folded."""

import torch
from transformers import initialization as init
from transformers.utils import logging
from transformers.utils.import_utils import is_torchdynamo_compiling

from .modeling_hiva_towers import embed_text

logger = logging.get_logger(__name__)


class HiVATextSide:
    """Mixin of [`HiVAModel`]: `text_model`, `text_projection` and the buffers of the descriptions.

    The text does not depend on the image. A model with a text tower keeps its tokenised descriptions in
    `description_ids` and `description_mask`, of shape (num_labels, num_descriptions, length); a folded model keeps
    `text_embeds`, of shape (num_labels, num_descriptions, text_embed_dim). As buffers they travel with the checkpoint,
    and `model(pixel_values)` needs nothing else.
    """

    text_embeds: torch.Tensor
    _embedded: tuple[tuple, torch.Tensor] | None = None

    def _register_descriptions(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        self.register_buffer("description_ids", input_ids)
        self.register_buffer(
            "description_mask", torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        )

    def _init_descriptions(self) -> None:
        """Of a new model; what is loaded from a checkpoint is left as it is."""
        if self.text_model is not None:
            init.zeros_(self.description_ids)
            init.ones_(self.description_mask)
        elif self.config.use_descriptions and self.config.text_source == "random":
            # about as long as the embeddings of a sentence encoder
            init.normal_(self.text_embeds, std=self.config.text_embed_dim**-0.5)
        elif self.config.use_descriptions:
            init.zeros_(self.text_embeds)

    def set_descriptions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, bank: str | None = None
    ) -> None:
        """Store the tokenised descriptions that every later call reads.

        Args:
            input_ids (`torch.LongTensor` of shape `(num_labels, num_descriptions, length)`):
                `processor.tokenize_descriptions()` makes them.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 1 for tokens, 0 for padding.
            bank (`str`, *optional*): Identifier of the description bank, kept in the configuration.

        Raises:
            ValueError: If the model has no text tower, or a shape does not fit.
        """
        self._require_text_tower("take new descriptions")
        if input_ids.ndim != 3 or input_ids.shape[0] != self.config.num_labels:
            raise ValueError(
                f"`input_ids` must have shape ({self.config.num_labels}, num_descriptions, length), one row an action "
                f"unit of `config.id2label`; got {tuple(input_ids.shape)}."
            )
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` must have the shape of `input_ids`, {tuple(input_ids.shape)}; "
                f"got {tuple(attention_mask.shape)}."
            )
        self._check_count(input_ids.shape[1])
        self._tell_other_bank(bank or "custom")
        device = self.description_ids.device
        mask = None if attention_mask is None else attention_mask.to(device)
        self._register_descriptions(input_ids.to(device, torch.long).clone(), mask)
        _, self.config.num_descriptions, self.config.description_length = input_ids.shape
        self.config.description_bank = bank or "custom"

    def set_text_embeds(self, text_embeds: torch.Tensor, encoder: str | None = None, bank: str | None = None) -> None:
        """Store description embeddings in a folded model.

        Args:
            text_embeds (`torch.Tensor` of shape `(num_labels, num_descriptions, text_embed_dim)`):
                One embedding a description, by the encoder that the model was or will be trained with.
            encoder (`str`, *optional*): Name of that encoder, kept in the configuration.
            bank (`str`, *optional*): Identifier of the description bank, kept in the configuration.

        Raises:
            ValueError: If the model is not folded, or the shape does not fit.
        """
        if not (self.config.text_folded and self.config.use_descriptions):
            raise ValueError(
                "`set_text_embeds` must be called on a folded model; got text_folded=False. Call `fold_text()` first, "
                "or build the model with HiVAConfig(text_folded=True, text_embed_dim=...)."
            )
        if self.config.text_source == "random":
            raise ValueError(
                '`set_text_embeds` must not replace the control text_source="random"; '
                "build the model with another `text_source` to give it embeddings of text."
            )
        num_aus, width = self.config.num_labels, self.config.text_embed_dim
        if text_embeds.ndim != 3 or (text_embeds.shape[0], text_embeds.shape[2]) != (num_aus, width):
            raise ValueError(
                f"`text_embeds` must have shape ({num_aus}, num_descriptions, {width}) to match "
                f"`config.num_labels` and `config.text_embed_dim`; got {tuple(text_embeds.shape)}."
            )
        self._check_count(text_embeds.shape[1])
        self._tell_other_bank(bank or self.config.description_bank or "custom")
        self.text_embeds = text_embeds.detach().to(self.text_embeds)
        self.config.num_descriptions = text_embeds.shape[1]
        self.config.text_encoder = encoder or self.config.text_encoder
        self.config.description_bank = bank or self.config.description_bank or "custom"

    def _check_count(self, count: int) -> None:
        if self.config.text_source == "names" and count != 1:
            raise ValueError(
                f'A model with text_source="names" reads one name an action unit; got {count} descriptions of each. '
                'Build it with text_source="descriptions".'
            )

    def _require_text_tower(self, action: str) -> None:
        if self.text_model is None:
            state = "folded: its text tower was replaced by stored `text_embeds`"
            if not self.config.use_descriptions:
                state = "visual only (`use_descriptions=False`)"
            raise ValueError(
                f"Only a model with a text tower can {action}; this one is {state}. Use the unfolded checkpoint, or "
                "give embeddings of the same encoder through `set_text_embeds` or `text_embeds=`."
            )

    def encode_descriptions(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed descriptions with the text tower.

        Args:
            input_ids (`torch.LongTensor` of shape `(num_labels, num_descriptions, length)`, *optional*):
                Defaults to the stored descriptions.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 1 for tokens, 0 for padding.

        Returns:
            `torch.Tensor` of shape `(num_labels, num_descriptions, text_embed_dim)`: Pooled, before the projection.

        Raises:
            ValueError: If the model has no text tower.
        """
        self._require_text_tower("read descriptions")
        if input_ids is None:
            self._tell_placeholder()
            input_ids, attention_mask = self.description_ids, self.description_mask
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        pooled = embed_text(
            self.text_model, input_ids.flatten(0, 1), attention_mask.flatten(0, 1), self.config.text_pooling
        )
        return pooled.unflatten(0, input_ids.shape[:2])

    @torch.no_grad()
    def fold_text(self):
        """Replace the text tower by the embeddings of the stored descriptions, in place.

        Logits stay the same; the saved checkpoint contains no text tower. Training goes on for everything else. A model
        that is folded already, or has no descriptions, is returned as it is.

        Returns:
            The model itself.

        Raises:
            ValueError: If no descriptions were set.
        """
        if self.text_model is None:
            return self
        if self.config.description_bank is None:
            raise ValueError(
                "`fold_text` needs descriptions to fold; got a model without. Call "
                "model.set_descriptions(**processor.tokenize_descriptions()) first."
            )
        self.text_model.eval()
        text_embeds = self.encode_descriptions()
        self.text_model = None
        del self.description_ids, self.description_mask
        self.register_buffer("text_embeds", text_embeds)
        self.config.text_folded = True
        self.config.text_config = None
        return self

    def _tell_placeholder(self) -> None:
        if self.config.description_bank is None and not is_torchdynamo_compiling():
            logger.warning_once(
                "This HiVA model holds no AU descriptions yet: every action unit reads the same placeholder. "
                "Call model.set_descriptions(**processor.tokenize_descriptions())."
            )

    def _text_of_step(self) -> torch.Tensor:
        """The stored descriptions that a step of training shows."""
        if is_torchdynamo_compiling() or any(value.requires_grad for value in self.text_model.parameters()):
            self._tell_placeholder()
            # what is not shown is not read
            return self.encode_descriptions(*self._sampled(self.description_ids, self.description_mask))
        return self._sampled(self._frozen_text())[0]

    def _frozen_text(self) -> torch.Tensor:
        """The stored descriptions, embedded once as long as neither they nor a frozen text tower change."""
        weights = list(self.text_model.parameters())
        # versions count changes in place, such as loading a checkpoint
        values = (*weights, self.description_ids, self.description_mask)
        state = tuple((id(value), value._version, value.device, value.dtype) for value in values)
        if self._embedded is None or self._embedded[0] != state:
            with torch.no_grad():
                self._embedded = (state, self.encode_descriptions())
        return self._embedded[1]

    def _sampled(self, *texts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Some descriptions of each AU, drawn anew: what a step learns does not hang on one wording."""
        count, (num_aus, held) = self.config.num_sampled_descriptions, texts[0].shape[:2]
        if count is None or count >= held:
            return texts
        chosen = torch.rand(num_aus, held, device=texts[0].device).argsort(dim=1)[:, :count, None]
        return tuple(values.gather(1, chosen.expand(-1, -1, values.shape[-1])) for values in texts)

    def _tell_other_bank(self, bank: str | None) -> None:
        before = self.config.description_bank
        if before is not None and bank != before:
            logger.warning(
                f"This HiVA model holds descriptions of bank {before}; from now on it reads those of {bank}. "
                "What it learned belongs to the former: train it on the latter before you trust it."
            )

    def _projected_text(self, input_ids, attention_mask, text_embeds) -> torch.Tensor | None:
        """Descriptions of this call, or the stored ones, as (K, M, D)."""
        if not self.config.use_descriptions:
            if input_ids is not None or text_embeds is not None:
                self._require_text_tower("read descriptions")
            return None
        if text_embeds is None:
            stored = self.text_model is None and input_ids is None
            if stored and self.config.description_bank is None and not is_torchdynamo_compiling():
                logger.warning_once(
                    "This folded HiVA model holds no description embeddings yet: all of them are zero. "
                    "Call model.set_text_embeds(...)."
                )
            if stored:
                text_embeds = self._sampled(self.text_embeds)[0] if self.training else self.text_embeds
            elif input_ids is None and self.training:
                text_embeds = self._text_of_step()
            else:
                text_embeds = self.encode_descriptions(input_ids, attention_mask)
        num_aus = text_embeds.shape[0]
        if num_aus != self.config.num_labels and not self.config.open_vocabulary:
            raise ValueError(
                f"Descriptions must be given for {self.config.num_labels} action units to match `config.num_labels`; "
                f'got {num_aus}. Only a model with au_projection="text" and head="similarity" takes other action units.'
            )
        return self.text_projection(text_embeds.to(self.text_projection.proj.weight.dtype))


__all__ = ["HiVATextSide"]
