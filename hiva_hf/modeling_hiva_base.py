"""What both HiVA models share: initialisation, loading, saving, and building on pretrained towers."""

import torch
from transformers.modeling_utils import PreTrainedModel

from .configuration_hiva import HiVAConfig
from .modeling_hiva_layers import init_hiva_weights
from .modeling_hiva_text import HiVATextSide
from .modeling_hiva_towers import load_tower


class HiVAPreTrainedModel(PreTrainedModel):
    """Initialisation, saving and the text side that both HiVA models share."""

    config: HiVAConfig
    base_model_prefix = "hiva"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    # Trainer tells how many labels are coded in all batches of a step: a mean of the batches' means would be another
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["HiVAFeatureGenerator", "HiVADynamicGraph", "HiVADDCA", "HiVACDCA", "HiVAHead"]

    def post_init(self):
        """As in transformers, but no block that is kept whole lies around the embeddings of a tower.

        Where a model is sharded (FSDP) the embeddings are a part of their own, and a part may not lie in another.
        """
        super().post_init()
        embeddings = self.get_input_embeddings()
        around = {type(module).__name__ for module in self.modules() if embeddings in [*module.modules()][1:]}
        self._no_split_modules = [name for name in self._no_split_modules if name not in around]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        init_hiva_weights(module, self.config.initializer_range)
        if isinstance(module, HiVATextSide):
            module._init_descriptions()

    def save_pretrained(self, save_directory, save_original_format: bool = False, **kwargs):
        """As in transformers, but weights keep the names of the live modules unless asked otherwise.

        Trainer restores a checkpoint by those names; under the towers' older names it would skip a whole Swin backbone
        with no more than a warning. `from_pretrained` reads both. The code travels along, and the configuration names
        every class in it: a saved detector loads as `AutoModel` too where hiva_hf is not installed.
        """
        from .pipeline_hiva import CUSTOM_PIPELINES  # by this import the copier finds the file

        self.config.auto_map = {
            "AutoConfig": "configuration_hiva.HiVAConfig",
            "AutoModel": f"modeling_hiva.{type(self).__name__}",
            "AutoModelForImageClassification": "modeling_hiva.HiVAForImageClassification",
        }
        # in the file alone: of a loaded one that names it transformers asks for trust_remote_code
        self.config.custom_pipelines = CUSTOM_PIPELINES
        try:
            super().save_pretrained(save_directory, save_original_format=save_original_format, **kwargs)
        finally:
            del self.config.custom_pipelines

    @classmethod
    def from_pretrained(cls, *args, use_safetensors: bool = True, **kwargs):
        """As in transformers, but weights are read from safetensors alone: no pickle unless asked for."""
        return super().from_pretrained(*args, use_safetensors=use_safetensors, **kwargs)

    def enable_input_require_grads(self):
        """As in transformers, also for towers whose embeddings return a tuple (Swin)."""

        def require_grads(module, inputs, output):
            (output[0] if isinstance(output, tuple) else output).requires_grad_(True)

        self._require_grads_hooks = []
        for tower in (self.base_model.vision_model, self.base_model.text_model):
            try:
                embeddings = tower.get_input_embeddings() if tower is not None else None
            except NotImplementedError:
                embeddings = None
            if embeddings is not None:
                self._require_grads_hooks.append(embeddings.register_forward_hook(require_grads))
        self._require_grads_hook = self._require_grads_hooks[0] if self._require_grads_hooks else None

    def get_input_embeddings(self):
        """`nn.Module`: Token embeddings of the text tower; patch embeddings of the vision tower where there is none.

        `None` if that tower has none either (ResNet): where a model is sharded, that is asked of every model.
        """
        try:
            return (self.base_model.text_model or self.base_model.vision_model).get_input_embeddings()
        except NotImplementedError:
            return None

    def set_input_embeddings(self, value):
        """Replace what [`get_input_embeddings`] returns."""
        (self.base_model.text_model or self.base_model.vision_model).set_input_embeddings(value)

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str,
        text_model_name_or_path: str | None = None,
        vision_kwargs: dict | None = None,
        text_kwargs: dict | None = None,
        **kwargs,
    ):
        """A model on pretrained towers; everything between them is new and wants training.

        Args:
            vision_model_name_or_path (`str`): Hub id or folder of a vision model (or of CLIP or SigLIP).
            text_model_name_or_path (`str`, *optional*):
                Hub id or folder of a text encoder. Leave it out for a model on stored description embeddings
                (`text_folded=True, text_embed_dim=...`) or without descriptions.
            vision_kwargs (`dict`, *optional*):
                Passed to `from_pretrained` of the vision tower. Its `dtype`, by default float32 whatever the weights
                were stored in, becomes that of the whole model.
            text_kwargs (`dict`, *optional*): The same for the text tower.
            **kwargs: Fields of [`HiVAConfig`], `id2label` among them.

        Returns:
            The class it is called on.
        """
        # towers are often stored in half precision, in which new layers do not train
        vision_kwargs = {"dtype": torch.float32, **(vision_kwargs or {})}
        text_kwargs = {"dtype": torch.float32, **(text_kwargs or {})}
        towers = {"vision_model": load_tower(vision_model_name_or_path, "vision_config", **vision_kwargs)}
        kwargs["vision_config"] = towers["vision_model"].config
        if text_model_name_or_path is not None:
            towers["text_model"] = load_tower(text_model_name_or_path, "text_config", **text_kwargs)
            kwargs["text_config"] = towers["text_model"].config
            kwargs.setdefault("text_encoder", str(text_model_name_or_path))
        # a new composite forgets what its towers attend with
        attention = {
            f"{name.removesuffix('_model')}_config": t.config._attn_implementation for name, t in towers.items()
        }
        model = cls(HiVAConfig(**kwargs), **towers)
        model.set_attn_implementation(attention)
        return model.to(towers["vision_model"].dtype)


__all__ = ["HiVAPreTrainedModel"]
