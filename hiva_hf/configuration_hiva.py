"""HiVA configuration: the two towers, the action units, and a switch for each element of the paper."""

import re
from collections.abc import Mapping
from typing import Literal

import transformers

from ._version import __version__
from .configuration_hiva_rules import HiVAConfigRules


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d{1,9}", version)[:3]))


# pip sees to the requirements of the package; code that came with a checkpoint asks, before it imports what others lack
_REMOTE = __name__.startswith("transformers_modules.")
_INSTALLED = _numbers(transformers.__version__)
_CURE = (
    f"The code of this HiVA checkpoint was written for transformers>=5.20,<6; installed is {transformers.__version__}. "
    "Run pip install 'transformers>=5.20,<6'."
)
if _REMOTE and _INSTALLED < (5, 20):
    raise ImportError(_CURE)

from huggingface_hub.dataclasses import strict  # noqa: E402
from transformers import AutoConfig  # noqa: E402
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec  # noqa: E402
from transformers.utils import logging  # noqa: E402

logger = logging.get_logger(__name__)
if _REMOTE and _INSTALLED >= (6,):
    logger.warning(_CURE)

_BP4D = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24")
# text encoders that are trained to summarise a sentence at its last token
_LAST_TOKEN_ENCODERS = ("clip_text_model",)
# what `description_bank` says of embeddings that belong to no bank
RANDOM_TEXT = "random"


@strict
class HiVAConfig(HiVAConfigRules, PreTrainedConfig):
    r"""Configuration of [`HiVAModel`] and [`HiVAForImageClassification`].

    HiVA: Li et al., *Hierarchical Vision-Language Interaction for Facial Action Unit Detection* (arXiv 2602.14425).
    The five elements are the paper's; every size and default below is a reconstruction.

    Args:
        vision_config (`PreTrainedConfig` or `dict`, *optional*, defaults to Swin):
            Any transformers vision model.
        text_config (`PreTrainedConfig` or `dict`, *optional*, defaults to BERT):
            Any transformers text encoder; `None` in a folded model.
        id2label (`dict[int, str]`, *optional*, defaults to the 12 AUs of BP4D):
            The action units, one a column of `logits`.
        hidden_size (`int`, defaults to 256): D, width of everything between the towers and the head.
        num_attention_heads (`int`, defaults to 8): Heads of DDCA and CDCA.
        intermediate_size (`int`, defaults to 512): Width inside the feed-forward layers of CDCA.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the AU feature generator, graph and feed-forward layers.
        hidden_dropout_prob (`float`, defaults to 0.1): Dropout on what each fusion layer adds.
        attention_dropout (`float`, defaults to 0.0): Dropout on attention weights.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of the layer norms.
        initializer_range (`float`, defaults to 0.02): Deviation of new linear weights.
        num_descriptions (`int`, defaults to 8): M, descriptions an AU.
        text_source (`str`, defaults to `"descriptions"`):
            What stands for an AU on the text side: its `"descriptions"`; its name in FACS alone, `"names"`, one an AU;
            or, as a control, `"random"` embeddings that are drawn once, kept, and say nothing.
        description_pooling (`str`, defaults to `"mean"`):
            How the M descriptions of an AU become one embedding: `"mean"`, or by `"learned"` weights.
        num_sampled_descriptions (`int`, *optional*):
            How many of the M descriptions each training step sees, drawn anew for every AU; by default all. In
            evaluation all are read.
        description_length (`int`, *optional*):
            L, tokens a description is padded or cut to; by default 64, or all that the text encoder has places for.
        use_position_embeddings (`bool`, defaults to `True`): Tell each visual token its row and column.
        use_descriptions (`bool`, defaults to `True`):
            Element 1, AU descriptions. `False` is a visual model: it needs `use_ddca=False`, `use_cdca=False`,
            `head="linear"` and `au_projection="learned"`.
        use_graph (`bool`, defaults to `True`): Element 2, the AU-aware dynamic graph.
        use_ddca (`bool`, defaults to `True`): Element 3, Disentangled Dual Cross-Attention.
        use_cdca (`bool`, defaults to `True`): Element 4, Contextual Dual Cross-Attention.
        output_activation_maps (`bool`, defaults to `False`):
            Element 5, activation patterns: return one map an AU over the image with every forward pass.
        graph_top_k (`int`, defaults to 4): Neighbours a node keeps; at most the other AUs there are.
        au_projection (`str`, defaults to `"learned"`):
            Weights of the AU feature generator: `"learned"` and stored by AU, or generated from the AU's `"text"`,
            which ties no weight to a position and so opens the vocabulary.
        head (`str`, defaults to `"similarity"`):
            `"similarity"` of the visual and textual embedding of an AU, or one `"linear"` classifier an AU.
        text_pooling (`str`, *optional*):
            How token states become one description embedding: `"mean"`, `"first"` or `"last"` token. By default
            `"last"` for CLIP text encoders, else `"mean"`.
        text_folded (`bool`, defaults to `False`): The text tower is replaced by stored `text_embeds`.
        text_embed_dim (`int`, *optional*):
            Width of a description embedding before projection; read from `text_config` where there is one.
        text_encoder (`str`, *optional*): Name of the encoder that made stored `text_embeds`.
        description_bank (`str`, *optional*): Identifier of the bank whose descriptions the model holds.
        problem_type (`str`, defaults to `"multi_label_classification"`):
            Occurrence (`"multi_label_classification"`, labels 0/1) or intensity (`"regression"`, labels 0-5).
        occurrence_loss (`str`, defaults to `"weighted_asymmetric"`):
            Loss for occurrence: `"weighted_asymmetric"` or `"binary_cross_entropy"`.
        label_weights (`list[float]`, *optional*): One loss weight an AU, from the training part.
        alignment_loss_weight (`float`, defaults to 0.0):
            Weight of the term that pulls the visual and textual embedding of an AU together.
        intensity_head (`bool`, defaults to `False`):
            A second head beside that of occurrence, which tells how strong each AU is, 0-5.
        intensity_loss_weight (`float`, defaults to 0.1): Weight of its squared error.
        map_loss_weight (`float`, defaults to 0.0):
            Weight of the term that draws the activation map of an AU to where that AU moves the face, for data with
            masks of it; needs `use_ddca`.
        calibration_temperatures (`list[float]`, *optional*):
            What the logit of each AU is divided by, so that its sigmoid is a probability; see [`fit_calibration`].
        calibration_biases (`list[float]`, *optional*): What is added to each of them then.
        hiva_version (`str`, *optional*): Version of hiva_hf that wrote the file; of a new configuration none.

    Raises:
        StrictDataclassError: If a field breaks its rule; the message names field, rule, value and cure.
        ValueError: If `id2label` is no mapping, or a tower's model type is unknown to transformers.

    Example:
    ```python
    >>> from hiva_hf import HiVAConfig, HiVAForImageClassification

    >>> config = HiVAConfig(
    ...     vision_config={"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 16},
    ...     text_config={"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1},
    ...     id2label={0: "AU6", 1: "AU12"},
    ... )
    >>> model = HiVAForImageClassification(config)
    >>> model.config.num_labels
    2

    ```
    """

    model_type = "hiva"
    _auto_class = "AutoConfig"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="swin"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert", optional=True),
    }
    keys_to_ignore_at_inference = [
        "last_hidden_state",
        "au_embeds",
        "intensities",
        "text_embeds",
        "text_summary",
        "graph_adjacency",
        "ddca_attentions",
        "cdca_attentions",
        "activation_maps",
        "hidden_states",
        "attentions",
    ]

    vision_config: PreTrainedConfig | dict | None = None
    text_config: PreTrainedConfig | dict | None = None
    hidden_size: int = 256
    num_attention_heads: int = 8
    intermediate_size: int = 512
    hidden_act: str = "gelu"
    hidden_dropout_prob: int | float = 0.1
    attention_dropout: int | float = 0.0
    layer_norm_eps: int | float = 1e-6
    initializer_range: int | float = 0.02
    num_descriptions: int = 8
    text_source: Literal["descriptions", "names", "random"] = "descriptions"
    description_pooling: Literal["mean", "learned"] = "mean"
    num_sampled_descriptions: int | None = None
    description_length: int | None = None
    use_position_embeddings: bool = True
    use_descriptions: bool = True
    use_graph: bool = True
    use_ddca: bool = True
    use_cdca: bool = True
    output_activation_maps: bool = False
    graph_top_k: int = 4
    au_projection: Literal["learned", "text"] = "learned"
    head: Literal["similarity", "linear"] = "similarity"
    text_pooling: Literal["mean", "first", "last"] | None = None
    text_folded: bool = False
    text_embed_dim: int | None = None
    text_encoder: str | None = None
    description_bank: str | None = None
    problem_type: str | None = "multi_label_classification"
    occurrence_loss: Literal["weighted_asymmetric", "binary_cross_entropy"] = "weighted_asymmetric"
    label_weights: list[int | float] | None = None
    alignment_loss_weight: int | float = 0.0
    intensity_head: bool = False
    intensity_loss_weight: int | float = 0.1
    map_loss_weight: int | float = 0.0
    calibration_temperatures: list[int | float] | None = None
    calibration_biases: list[int | float] | None = None
    hiva_version: str | None = None

    def __post_init__(self, **kwargs):
        if self.id2label is None and kwargs.get("num_labels") is None:
            self.id2label = dict(enumerate(_BP4D))
        if self.id2label is not None:
            if not isinstance(self.id2label, Mapping):
                raise ValueError(
                    f"`id2label` must map 0, 1, 2, ... to names of action units; got {self.id2label!r}. "
                    "Build it with dict(enumerate(names))."
                )
            try:
                self.id2label = dict(sorted((int(index), name) for index, name in self.id2label.items()))
            except (TypeError, ValueError):
                raise ValueError(
                    f"`id2label` must have the keys 0, 1, 2, ...; got {list(self.id2label)}. "
                    "Build it with dict(enumerate(names))."
                ) from None
            self.label2id = {name: index for index, name in self.id2label.items()}
        if self.text_source == "random" and self.use_descriptions:
            self.text_folded = True
            self.text_embed_dim = self.text_embed_dim or self.hidden_size
            self.description_bank = RANDOM_TEXT
        if self.text_source == "names":
            self.num_descriptions = 1
        if self.text_config is None and self.use_descriptions and not self.text_folded:
            self.text_config = {}
        if self.text_folded or not self.use_descriptions:
            self.text_config = None
        # AutoModel chooses among our classes by this field, and stumbles over a missing one
        self.architectures = self.architectures or ["HiVAForImageClassification"]
        super().__post_init__(**kwargs)
        if self.description_length is None:
            self.description_length = min(64, getattr(self.text_config, "max_position_embeddings", None) or 64)
        if self.text_config is not None:
            if self.text_embed_dim is None:
                self.text_embed_dim = self.text_config.hidden_size
            if self.text_pooling is None:
                last = self.text_config.model_type in _LAST_TOKEN_ENCODERS
                self.text_pooling = "last" if last else "mean"

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As in transformers; says so where a newer hiva_hf wrote the file."""
        wrote = config_dict.get("hiva_version")
        if isinstance(wrote, str) and _numbers(wrote) > _numbers(__version__):
            logger.warning_once(
                f"A newer hiva_hf, {wrote[:20]}, wrote this checkpoint; here is {__version__}: pip install -U hiva-hf."
            )
        if not _REMOTE:
            # transformers would insist on running a checkpoint's own pipeline where the package has registered the same
            config_dict = {name: value for name, value in config_dict.items() if name != "custom_pipelines"}
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self):
        """`dict`: As in transformers, with the version of hiva_hf that writes it."""
        return {**super().to_dict(), "hiva_version": __version__}

    @property
    def vision_hidden_size(self) -> int:
        """`int`: Channels of the last hidden state of the vision tower."""
        sizes = getattr(self.vision_config, "hidden_sizes", None)
        size = sizes[-1] if sizes else getattr(self.vision_config, "hidden_size", None)
        if size is None:
            raise ValueError(
                "`vision_config` must state its `hidden_size` or `hidden_sizes`; "
                f"got {type(self.vision_config).__name__} without either. Use a transformers vision model."
            )
        return size

    @property
    def au_names(self) -> list[str]:
        """`list[str]`: Names of the action units, in the order of the logits."""
        return [str(name) for name in (self.id2label or {}).values()]

    @property
    def open_vocabulary(self) -> bool:
        """`bool`: Whether no weight is tied to a position in `id2label`, so that unseen AUs can be described."""
        return self.au_projection == "text" and self.head == "similarity"


__all__ = ["HiVAConfig"]
