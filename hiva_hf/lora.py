"""LoRA on the text encoder: adapt a trained detector's language, and nothing else (Hu et al., ICLR 2022)."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

# projections of self-attention as transformers' text encoders call them
_PROJECTIONS = (
    "query", "key", "value", "attention.output.dense",  # BERT, RoBERTa, XLM-R, ELECTRA
    "q_proj", "k_proj", "v_proj", "out_proj", "o_proj",  # CLIP, SigLIP, Llama-like encoders
    "q_lin", "k_lin", "v_lin", "out_lin",  # DistilBERT
    "query_proj", "key_proj", "value_proj",  # DeBERTa
    "attn.q", "attn.k", "attn.v", "attn.o", "SelfAttention.q", "SelfAttention.k", "SelfAttention.v",
    "SelfAttention.o",  # MPNet, T5
    "Wqkv", "attn.Wo",  # ModernBERT
)  # fmt: skip
# anchored at the tower: HiVA's own attention and many vision towers call their layers q_proj, too
TEXT_TARGETS = r"(hiva\.)?text_model\.(.*\.)?(" + "|".join(name.replace(".", r"\.") for name in _PROJECTIONS) + ")"


def text_lora_config(
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    *,
    dora: bool = False,
    rslora: bool = False,
    **changes: Any,
):
    """Configuration of LoRA on the attention of the text tower, whatever encoder it is.

    Args:
        rank (`int`, defaults to 8): Rank of the update.
        alpha (`float`, *optional*): Its scale times the rank; by default twice the rank.
        dropout (`float`, defaults to 0): On the input of the update.
        dora (`bool`, defaults to `False`): Learn a magnitude apart from the direction (Liu et al., ICML 2024).
        rslora (`bool`, defaults to `False`): Scale by the root of the rank (Kalajdzievski, 2023).
        changes: Further fields of `peft.LoraConfig`.

    Returns:
        `peft.LoraConfig`

    Raises:
        ValueError: If the rank is less than 1.
    """
    from peft import LoraConfig

    if rank < 1:
        raise ValueError(f"`rank` must be at least 1; got {rank}.")
    fields: dict[str, Any] = {
        "r": rank,
        "lora_alpha": 2 * rank if alpha is None else alpha,
        "lora_dropout": dropout,
        "use_dora": dora,
        "use_rslora": rslora,
        "target_modules": TEXT_TARGETS,
    }
    return LoraConfig(**{**fields, **changes})


def add_text_lora(model: PreTrainedModel, config=None):
    """A detector whose text tower is adapted by LoRA, and whose other weights are frozen.

    It trains with [`build_trainer`] and the stock Trainer; `save_pretrained` writes the adapter alone, and
    `merge_and_unload()` gives an ordinary detector, which can be folded.

    Args:
        model (`HiVAForImageClassification`): A trained detector with a text tower; changed in place.
        config (`peft.LoraConfig`, *optional*): By default [`text_lora_config`].

    Returns:
        `peft.PeftModel`

    Raises:
        ValueError: If the model has no text tower, or nothing in it is adapted.
    """
    from peft import get_peft_model

    if model.base_model.text_model is None:
        raise ValueError(
            "LoRA adapts the text tower; this model has none, it is folded or visual only. Use the unfolded checkpoint."
        )
    try:
        return get_peft_model(model, config or text_lora_config())
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        kind = type(model.base_model.text_model).__name__
        raise ValueError(
            f"LoRA must find attention projections in the text tower; {kind} calls them otherwise. Give "
            "`text_lora_config(target_modules=...)` with a pattern that begins with text_model."
        ) from None


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter in place of a whole detector."""
    return (Path(folder) / "adapter_config.json").is_file()


__all__ = ["TEXT_TARGETS", "add_text_lora", "is_adapter", "text_lora_config"]
