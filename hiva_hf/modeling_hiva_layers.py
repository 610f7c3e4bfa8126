"""The boxes of HiVA: AU feature generator, dynamic graph, DDCA, CDCA and head, one class each.

Symbols: B images, N visual tokens, K action units, M descriptions an AU, D `hidden_size`. K is a batch dimension
everywhere: no layer loops over action units. The division into these boxes is the paper's (arXiv 2602.14425); what
happens inside each of them is a reconstruction.
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_hiva import HiVAConfig
from .modeling_hiva_attention import HiVACrossAttention, HiVAFeedForward, HiVAFixedQueryAttention


class HiVATextProjection(nn.Module):
    """From the width of the description embeddings to `hidden_size`, then layer norm; (..., E) to (..., D)."""

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.proj = nn.Linear(config.text_embed_dim, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, text_embeds: torch.Tensor) -> torch.Tensor:
        """Project description embeddings."""
        return self.norm(self.proj(text_embeds))


class HiVADescriptionPooling(nn.Module):
    """M descriptions of an AU to one embedding; (..., M, D) to (..., D).

    `description_pooling="mean"`, or `"learned"`: weights are a softmax of one score a description, its
    product with a vector that is the same for every AU and begins at zero, the mean. Reconstruction.
    """

    def __init__(self, config: HiVAConfig):
        super().__init__()
        learned = config.description_pooling == "learned"
        self.score = nn.Parameter(torch.empty(config.hidden_size)) if learned else None

    def forward(self, text_embeds: torch.Tensor) -> torch.Tensor:
        """Pool over the descriptions."""
        if self.score is None:
            return text_embeds.mean(dim=-2)
        scores = torch.matmul(text_embeds, self.score.to(text_embeds.dtype))
        weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(text_embeds.dtype)
        return (weights[..., None] * text_embeds).sum(dim=-2)


class HiVAVisionProjection(nn.Module):
    """From the width of the vision tower to `hidden_size`, normalised over the image, with positions.

    One mean and deviation an image, not one a token: a token in which nothing happens stays small, and does not drown
    the few that show a brow move once tokens are averaged. In an aligned face the place says much, and convolutional
    towers hardly tell it: sines and cosines of row and column are added (`use_position_embeddings`). Reconstruction.
    """

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.use_positions = config.use_position_embeddings
        self.proj = nn.Linear(config.vision_hidden_size, config.hidden_size)
        self.norm = nn.GroupNorm(1, config.hidden_size, eps=config.layer_norm_eps)

    @staticmethod
    def positions(rows: int, columns: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """Position embeddings of shape (rows * columns, width); rows and columns count from 0 to 1."""
        count = -(-width // 4)
        frequencies = torch.pi * 2.0 ** torch.linspace(-1, 4, count, dtype=torch.float32, device=like.device)
        axes = []
        for size in (rows, columns):
            places = (torch.arange(size, dtype=torch.float32, device=like.device) + 0.5) / size
            angles = places[:, None] * frequencies
            axes.append(torch.cat((angles.sin(), angles.cos()), dim=-1))
        grid = torch.cat((axes[0][:, None].expand(-1, columns, -1), axes[1][None].expand(rows, -1, -1)), dim=-1)
        return grid.flatten(0, 1)[:, :width].to(like.dtype)

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Project visual tokens.

        Args:
            tokens (`torch.Tensor` of shape `(batch_size, rows * columns, channels)`): Of the vision tower.
            grid (`tuple[int, int]`): Rows and columns.

        Returns:
            `torch.Tensor` of shape `(batch_size, rows * columns, hidden_size)`.
        """
        # an image whose channels come last: group norm then neither reads nor leaves a transposed copy
        image = self.norm(self.proj(tokens).transpose(1, 2).unflatten(-1, grid))
        tokens = image.flatten(2).transpose(1, 2)
        if not self.use_positions:
            return tokens
        return tokens + self.positions(*grid, tokens.shape[-1], tokens)


class HiVAFeatureGenerator(nn.Module):
    """AU feature generator: each AU sees the image through a projection of its own.

    `au_projection="learned"` stores one D x D weight an AU (the AU relationship models of the field do so, among them
    ME-GraphAU, IJCAI 2022). `"text"` shares one weight and scales its hidden channels by a gate read from the AU's
    descriptions, so that nothing depends on an AU's position in `id2label`. Reconstruction.
    """

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.learned = config.au_projection == "learned"
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if self.learned:
            self.weight = nn.Parameter(torch.empty(config.num_labels, config.hidden_size, config.hidden_size))
            self.bias = nn.Parameter(torch.empty(config.num_labels, config.hidden_size))
        else:
            self.down_proj = nn.Linear(config.hidden_size, config.hidden_size)
            self.gate_proj = nn.Linear(config.hidden_size, config.hidden_size)
            self.up_proj = nn.Linear(config.hidden_size, config.hidden_size)
            self.bias_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, visual_tokens: torch.Tensor, text_summary: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Project the tokens once an AU.

        Args:
            visual_tokens (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): Projected visual tokens.
            text_summary (`torch.Tensor` of shape `(num_labels, hidden_size)`):
                Pooled descriptions; read only by `au_projection="text"`.

        Returns:
            `tuple`: AU token maps F of shape `(batch_size, num_labels, num_tokens, hidden_size)`, and AU nodes U, layer
            norm of their mean over the tokens, of shape `(batch_size, num_labels, hidden_size)`.
        """
        # in memory the AU comes first, so that DDCA, too, works AU by AU on all images at once and copies nothing
        if self.learned:
            tokens = visual_tokens.flatten(0, 1).expand(self.weight.shape[0], -1, -1)  # (K, B * N, D)
            maps = torch.baddbmm(self.bias[:, None], tokens, self.weight).unflatten(1, visual_tokens.shape[:2])
        else:
            gate = 1 + self.gate_proj(text_summary)
            hidden = self.down_proj(visual_tokens) * gate[:, None, None]  # (K, B, N, D)
            maps = self.up_proj(hidden) + self.bias_proj(text_summary)[:, None, None]
        maps = self.activation(maps)
        return maps.transpose(0, 1), self.norm(maps.mean(dim=2).transpose(0, 1))


class HiVADynamicGraph(nn.Module):
    """AU-aware dynamic graph: who influences whom is read from the nodes of the image at hand.

    Cosine similarity of the nodes, the strongest `graph_top_k` positive neighbours kept, made symmetric, self-loops
    of weight 1, normalised by degree on both sides, one residual graph convolution. Reconstruction.
    """

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.top_k = config.graph_top_k
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.similarity_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.neighbour_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.self_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def adjacency(self, nodes: torch.Tensor) -> torch.Tensor:
        """Normalised adjacency of shape (B, K, K), symmetric and non-negative, from nodes of shape (B, K, D)."""
        num_nodes = nodes.shape[1]
        loops = torch.eye(num_nodes, dtype=nodes.dtype, device=nodes.device)
        directions = nn.functional.normalize(self.similarity_proj(nodes), dim=-1)
        similarity = torch.matmul(directions, directions.transpose(-1, -2)).clamp(min=0) * (1 - loops)
        neighbours = min(self.top_k, num_nodes - 1)
        if neighbours < num_nodes - 1:
            # at most top_k an AU by construction, and without a data-dependent shape
            strongest = similarity.topk(neighbours, dim=-1)
            similarity = torch.zeros_like(similarity).scatter(-1, strongest.indices, strongest.values)
        weights = torch.maximum(similarity, similarity.transpose(-1, -2)) + loops
        scale = weights.sum(dim=-1).rsqrt()
        return weights * scale[:, :, None] * scale[:, None, :]

    def forward(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Let neighbours exchange what they know.

        Args:
            nodes (`torch.Tensor` of shape `(batch_size, num_labels, hidden_size)`): AU nodes U.

        Returns:
            `tuple`: Graph nodes V of shape `(batch_size, num_labels, hidden_size)` and the normalised adjacency of
            shape `(batch_size, num_labels, num_labels)`.
        """
        normed = self.norm(nodes)
        adjacency = self.adjacency(normed)
        update = torch.matmul(adjacency, self.neighbour_proj(normed)) + self.self_proj(normed)
        return nodes + self.dropout(self.activation(update)), adjacency


class HiVADDCA(GradientCheckpointingLayer):
    """Disentangled Dual Cross-Attention: an AU's visual and textual side meet, and no other AU takes part.

    V_k queries the M descriptions of AU k; the descriptions of AU k query its token map F_k. Reconstruction.
    """

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.visual_to_text = HiVACrossAttention(config)
        self.text_to_visual = HiVAFixedQueryAttention(config)
        self.description_pooling = HiVADescriptionPooling(config)

    def forward(
        self,
        nodes: torch.Tensor,
        token_maps: torch.Tensor,
        text_embeds: torch.Tensor,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Attend both ways within each AU.

        Args:
            nodes (`torch.Tensor` of shape `(batch_size, num_labels, hidden_size)`): Graph nodes V.
            token_maps (`torch.Tensor` of shape `(batch_size, num_labels, num_tokens, hidden_size)`): AU token maps F.
            text_embeds (`torch.Tensor` of shape `(num_labels, num_descriptions, hidden_size)`): Projected descriptions.
            output_attentions (`bool`, defaults to `False`): Whether to return attention.

        Returns:
            `tuple`: V' and T', both of shape `(batch_size, num_labels, hidden_size)`; attention of V to the
            descriptions, of shape `(batch_size, num_labels, num_descriptions)`; attention of the descriptions to the
            image, of shape `(batch_size, num_labels, num_descriptions, num_tokens)`.
        """
        # the AU is the batch here: (K, B, D) queries, (K, M, D) context
        update, to_text = self.visual_to_text(nodes.transpose(0, 1), text_embeds, output_attentions)
        visual = nodes + update.transpose(0, 1)
        update, to_visual = self.text_to_visual(text_embeds, token_maps, output_attentions)
        textual = self.description_pooling(text_embeds + update)
        return visual, textual, to_text.transpose(0, 1) if output_attentions else None, to_visual


class HiVACDCA(GradientCheckpointingLayer):
    """Contextual Dual Cross-Attention: every AU meets every AU, visual to textual and textual to visual.

    Both directions read the same inputs; a feed-forward layer follows on each side. Reconstruction.
    """

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.visual_to_text = HiVACrossAttention(config)
        self.text_to_visual = HiVACrossAttention(config)
        self.visual_feed_forward = HiVAFeedForward(config)
        self.textual_feed_forward = HiVAFeedForward(config)

    def forward(
        self, visual: torch.Tensor, textual: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Attend both ways across AUs.

        Args:
            visual (`torch.Tensor` of shape `(batch_size, num_labels, hidden_size)`): V'.
            textual (`torch.Tensor` of shape `(batch_size, num_labels, hidden_size)`): T'.
            output_attentions (`bool`, defaults to `False`): Whether to return attention.

        Returns:
            `tuple`: V'' and T'', both of shape `(batch_size, num_labels, hidden_size)`; attention of V' to T' and of T'
            to V', both of shape `(batch_size, num_labels, num_labels)`.
        """
        visual_update, to_text = self.visual_to_text(visual, textual, output_attentions)
        textual_update, to_visual = self.text_to_visual(textual, visual, output_attentions)
        visual = self.visual_feed_forward(visual + visual_update)
        textual = self.textual_feed_forward(textual + textual_update)
        return visual, textual, to_text, to_visual


class HiVAHead(nn.Module):
    """One logit an AU: the similarity of its visual and textual embedding, or a linear classifier of its own.

    Similarity is the scaled dot product of the normalised embeddings plus a bias; under `au_projection="text"` the bias
    is read from the descriptions, so that the head serves AUs that were never trained. Reconstruction.
    """

    def __init__(self, config: HiVAConfig):
        super().__init__()
        self.linear = config.head == "linear"
        self.bias_from_text = not self.linear and config.au_projection == "text"
        self.visual_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if config.use_descriptions:
            self.textual_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if self.linear:
            width = config.hidden_size * (2 if config.use_descriptions else 1)
            self.weight = nn.Parameter(torch.empty(config.num_labels, width))
        if self.bias_from_text:
            self.bias_proj = nn.Linear(config.hidden_size, 1)
        else:
            self.bias = nn.Parameter(torch.empty(config.num_labels))

    def forward(
        self, visual: torch.Tensor, textual: torch.Tensor | None, text_summary: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits of shape (B, K) from V'' and T'' of shape (B, K, D) and pooled descriptions of shape (K, D)."""
        visual = self.visual_norm(visual)
        textual = self.textual_norm(textual) if textual is not None else None
        if self.linear:
            embeds = visual if textual is None else torch.cat((visual, textual), dim=-1)
            return (embeds * self.weight).sum(dim=-1) + self.bias
        bias = self.bias_proj(text_summary).squeeze(-1) if self.bias_from_text else self.bias
        return (visual * textual).sum(dim=-1) * visual.shape[-1] ** -0.5 + bias


def init_hiva_weights(module: nn.Module, initializer_range: float) -> None:
    """Initialise the parameters that no stock torch layer owns.

    Args:
        module (`nn.Module`): Any module of this file.
        initializer_range (`float`): Deviation of the linear head's weights.
    """
    if isinstance(module, HiVAFeatureGenerator) and module.learned:
        init.normal_(module.weight, std=module.weight.shape[-1] ** -0.5)
        init.zeros_(module.bias)
    elif isinstance(module, HiVADescriptionPooling) and module.score is not None:
        init.zeros_(module.score)
    elif isinstance(module, HiVAHead):
        if module.linear:
            init.normal_(module.weight, std=initializer_range)
        if not module.bias_from_text:
            init.zeros_(module.bias)


__all__ = [
    "HiVACDCA",
    "HiVADDCA",
    "HiVADescriptionPooling",
    "HiVADynamicGraph",
    "HiVAFeatureGenerator",
    "HiVAHead",
    "HiVATextProjection",
    "HiVAVisionProjection",
    "init_hiva_weights",
]
