"""What DDCA and CDCA are made of: cross-attention that broadcasts, and a feed-forward layer.

A reconstruction; the paper (arXiv 2602.14425) names the modules, not what is inside them.
"""

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_hiva import HiVAConfig


def precise_softmax(scores: torch.Tensor, dim: int) -> torch.Tensor:
    """Softmax in float32 at least, returned in the type of `scores`."""
    return nn.functional.softmax(scores, dim=dim, dtype=torch.promote_types(scores.dtype, torch.float32)).to(
        scores.dtype
    )


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Plain attention that also returns its weights; query (batch, heads, Q, d), key and value (batch, heads, C, d)."""
    weights = torch.matmul(query, key.transpose(-1, -2)) * scaling
    weights = precise_softmax(weights, dim=-1)
    dropped = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(dropped, value).transpose(1, 2).contiguous(), weights


class HiVACrossAttention(nn.Module):
    """Multi-head cross-attention over the last two dimensions; the dimensions before them broadcast.

    Projections run before the broadcast, so what does not depend on the image is projected once for all images.
    """

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = False
        self.query_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.context_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def _split_heads(self, states: torch.Tensor, leading: torch.Size) -> torch.Tensor:
        states = states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(-2, -3)
        return states.expand(*leading, -1, -1, -1).reshape(-1, *states.shape[-3:])

    def forward(
        self, hidden_states: torch.Tensor, context: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from `hidden_states` to `context`.

        Args:
            hidden_states (`torch.Tensor` of shape `(..., Q, hidden_size)`): Queries.
            context (`torch.Tensor` of shape `(..., C, hidden_size)`): Keys and values.
            output_attentions (`bool`, defaults to `False`): Whether to return weights, which takes eager attention.

        Returns:
            `tuple`: The update of shape `(..., Q, hidden_size)`, without the residual, and the weights of shape
            `(..., Q, C)`, mean over heads, or `None`.
        """
        leading = torch.broadcast_shapes(hidden_states.shape[:-2], context.shape[:-2])
        context = self.context_norm(context)
        query = self._split_heads(self.q_proj(self.query_norm(hidden_states)), leading)
        key = self._split_heads(self.k_proj(context), leading)
        value = self._split_heads(self.v_proj(context), leading)

        # of so few tokens, the fused kernel of a CPU is slow backward: it took a third of a training step
        plain = output_attentions or (hidden_states.device.type == "cpu" and torch.is_grad_enabled())
        implementation = "eager" if plain else self.config._attn_implementation
        attention_interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        update, weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask=None,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
        )
        update = update.flatten(-2).unflatten(0, leading)
        update = self.dropout(self.out_proj(update))
        return update, weights.mean(dim=1).unflatten(0, leading) if output_attentions else None


class HiVAFixedQueryAttention(HiVACrossAttention):
    """Cross-attention of queries that are the same for every image, without building the keys and values of its tokens.

    A score is `<W_k c, q> = <c, W_k^T q>` up to what softmax cancels, and a mean of values is `W_v` of the mean of `c`:
    the projections move from every token of the image to the few queries, with the same result and the same weights.
    """

    def forward(
        self, hidden_states: torch.Tensor, context: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from `hidden_states` to `context`.

        Args:
            hidden_states (`torch.Tensor` of shape `(K, Q, hidden_size)`): Queries, the same for the whole batch.
            context (`torch.Tensor` of shape `(batch_size, K, C, hidden_size)`): Keys and values.
            output_attentions (`bool`, defaults to `False`): Whether to return weights.

        Returns:
            `tuple`: As in [`HiVACrossAttention`], of shapes `(batch_size, K, Q, hidden_size)` and
            `(batch_size, K, Q, C)`.
        """
        if type(self.k_proj) is not nn.Linear or type(self.v_proj) is not nn.Linear:
            # an adapter or a quantised layer is more than its weight
            return super().forward(hidden_states[None], context, output_attentions)
        heads = (self.num_heads, self.head_dim)
        query = self.q_proj(self.query_norm(hidden_states)).unflatten(-1, heads) * self.scaling  # (K, Q, heads, d)
        # softmax cancels what the bias adds, but a bias without a gradient is taken for a mistake where processes meet
        shift = torch.einsum("kqhd,hd->khq", query, self.k_proj.bias.unflatten(0, heads).to(query.dtype))
        query = torch.einsum("kqhd,hde->khqe", query, self.k_proj.weight.unflatten(0, heads).to(query.dtype))
        context = self.context_norm(context.transpose(0, 1)).to(query.dtype)  # (K, B, C, hidden_size)
        scores = torch.baddbmm(
            shift.flatten(1)[:, None], context.flatten(1, 2), query.flatten(1, 2).transpose(-1, -2)
        ).unflatten(1, context.shape[1:3])  # (K, B, C, heads * Q)
        weights = precise_softmax(scores, dim=-2).transpose(-1, -2)
        dropped = nn.functional.dropout(weights, p=self.attention_dropout, training=self.training)
        pooled = torch.matmul(dropped, context).unflatten(-2, (self.num_heads, -1))  # (K, B, heads, Q, hidden_size)
        update = torch.einsum("kbhqe,hde->bkqhd", pooled, self.v_proj.weight.unflatten(0, heads).to(pooled.dtype))
        update = self.dropout(self.out_proj(update.flatten(-2) + self.v_proj.bias))
        if not output_attentions:
            return update, None
        return update, weights.unflatten(-2, (self.num_heads, -1)).mean(dim=2).transpose(0, 1)


class HiVAFeedForward(nn.Module):
    """Pre-norm feed-forward layer with its residual; (..., D) to (..., D)."""

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Add the layer's update to `hidden_states`."""
        return hidden_states + self.dropout(self.fc2(self.activation(self.fc1(self.norm(hidden_states)))))


__all__ = ["HiVACrossAttention", "HiVAFeedForward", "HiVAFixedQueryAttention"]
