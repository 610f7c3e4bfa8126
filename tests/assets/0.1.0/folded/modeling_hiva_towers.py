"""The towers: any transformers vision model and text encoder, brought to one form.

Vision models answer with tokens or feature maps, with or without prefix tokens (class, register, distillation); text
encoders answer with token states. Everything behind this file sees (B, N, C) tokens of a known grid and (S, C)
sentence embeddings.
"""

import inspect

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

# class and distillation tokens, and up to four registers
_LONGEST_PREFIX = 8


def _without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """Keyword that leaves a pooler out where the architecture has one: HiVA never reads it."""
    if type(config) not in MODEL_MAPPING:
        return {}
    model_class = MODEL_MAPPING[type(config)]
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    takes = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


def build_tower(config: PreTrainedConfig) -> nn.Module:
    """A tower with new weights; never downloads.

    Args:
        config (`PreTrainedConfig`): Configuration of a transformers vision model or text encoder.
    """
    return AutoModel.from_config(config, **_without_pooler(config))


def load_tower(name_or_path: str, part: str, **kwargs) -> PreTrainedModel:
    """A tower with pretrained weights.

    Args:
        name_or_path (`str`): Hub id or folder of a tower, or of a dual encoder that holds it: both halves of CLIP,
            and the vision half of SigLIP, whose text half has no `AutoModel`.
        part (`str`): `"vision_config"` or `"text_config"`: which half of a dual encoder.
        kwargs: Passed to `AutoModel.from_pretrained`; `config` replaces the stored configuration.
    """
    config = kwargs.pop("config", None) or AutoConfig.from_pretrained(name_or_path)
    config = getattr(config, part, config)
    return AutoModel.from_pretrained(name_or_path, config=config, **_without_pooler(config), **kwargs)


def _token_grid(config: PreTrainedConfig, height: int, width: int, num_tokens: int) -> tuple[int, int]:
    """Rows and columns of a token sequence; tokens beyond them are a prefix."""
    grids, depths = [], None
    patch = getattr(config, "patch_size", None)
    if patch is not None:
        rows, columns = (patch, patch) if isinstance(patch, int) else tuple(patch)[-2:]
        grids = [(height // rows, width // columns)]
        depths = getattr(config, "depths", None)
        if depths:
            # hierarchical models halve the grid between stages and pad odd sides; they end at the deepest
            padded = [(-(-height // rows), -(-width // columns))]
            for _ in range(len(depths) - 1):
                padded.append((-(-padded[-1][0] // 2), -(-padded[-1][1] // 2)))
            grids += padded
    if patch is None or depths:
        # what states no patch size has a stride that is a power of two
        grids += [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32, 64)]
    fitting = [grid for grid in grids if 0 <= num_tokens - grid[0] * grid[1] <= _LONGEST_PREFIX]
    if fitting:
        return max(fitting, key=lambda grid: grid[0] * grid[1])
    raise ValueError(
        f"`vision_config` must give a grid of tokens; got {num_tokens} tokens for an image of {height} x {width} from "
        f"{type(config).__name__}. Use an image size that its patches divide."
    )


def extract_visual_tokens(
    vision_model: nn.Module, pixel_values: torch.Tensor, **kwargs
) -> tuple[torch.Tensor, tuple[int, int], object]:
    """Run a vision tower and bring its last hidden state to tokens on a grid.

    Args:
        vision_model (`nn.Module`): A transformers vision model.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Images.
        kwargs: `output_attentions` and `output_hidden_states` for the tower.

    Returns:
        `tuple`: Tokens of shape `(batch_size, rows * columns, channels)` without prefix tokens, `(rows, columns)`, and
        the tower's output.
    """
    height, width = pixel_values.shape[-2:]
    config = vision_model.config
    parameters = inspect.signature(type(vision_model).forward).parameters
    if "interpolate_pos_encoding" in parameters:
        trained = getattr(config, "image_size", None)
        trained = (trained, trained) if isinstance(trained, int) else tuple(trained or (height, width))
        kwargs["interpolate_pos_encoding"] = (height, width) != trained
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    kwargs = {key: value for key, value in kwargs.items() if takes_any or key in parameters}
    # convolutions keep the order of their input, and are faster channels-last
    pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
    outputs = vision_model(pixel_values=pixel_values, return_dict=True, **kwargs)
    states = outputs.last_hidden_state
    if states.ndim == 4:
        return states.flatten(2).transpose(1, 2), tuple(states.shape[-2:]), outputs
    rows, columns = _token_grid(config, height, width, states.shape[1])
    return states[:, states.shape[1] - rows * columns :], (rows, columns), outputs


def embed_text(
    text_model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, pooling: str
) -> torch.Tensor:
    """Run a text encoder and pool its token states.

    Args:
        text_model (`nn.Module`): A transformers text encoder.
        input_ids (`torch.LongTensor` of shape `(num_sentences, length)`): Tokens.
        attention_mask (`torch.LongTensor` of shape `(num_sentences, length)`): 1 for tokens, 0 for padding.
        pooling (`str`): `"mean"`, `"first"` or `"last"` token.

    Returns:
        `torch.Tensor` of shape `(num_sentences, text_hidden_size)`.
    """
    states = text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).last_hidden_state
    if pooling in ("first", "last"):
        places = torch.arange(1, attention_mask.shape[1] + 1, device=states.device)
        if pooling == "first":
            places = places.flip(0)
        chosen = (attention_mask * places).argmax(dim=-1)
        return states[torch.arange(len(states), device=states.device), chosen]
    mask = attention_mask[..., None].to(states)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


__all__ = ["build_tower", "embed_text", "extract_visual_tokens", "load_tower"]
