"""The rules of a HiVA configuration: each says in one sentence what is wrong and what cures it."""

import math


class HiVAConfigRules:
    """What [`HiVAConfig`] checks whenever one is made."""

    def validate_sizes(self):
        """Sizes are positive, heads divide the width, probabilities lie in [0, 1)."""
        for name in (
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "num_descriptions",
            "description_length",
            "graph_top_k",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")
        if self.num_sampled_descriptions is not None and self.num_sampled_descriptions < 1:
            raise ValueError(
                f"`num_sampled_descriptions` must be at least 1, or None for all; got {self.num_sampled_descriptions}."
            )
        if self.text_embed_dim is not None and self.text_embed_dim < 1:
            raise ValueError(f"`text_embed_dim` must be at least 1; got {self.text_embed_dim}.")
        from transformers.activations import ACT2CLS  # brings torch, which a configuration alone does not need

        if self.hidden_act not in ACT2CLS:
            raise ValueError(
                f"`hidden_act` must be an activation of transformers; got {self.hidden_act!r}. "
                f"Known: {', '.join(sorted(ACT2CLS))}."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads`; got {self.hidden_size} and "
                f"{self.num_attention_heads}. Change either."
            )
        for name in ("hidden_dropout_prob", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1); got {getattr(self, name)}.")
        for name in ("layer_norm_eps", "initializer_range"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)}.")
        for name in ("alignment_loss_weight", "intensity_loss_weight", "map_loss_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must not be negative, infinite or NaN; got {getattr(self, name)}.")

    def validate_towers(self):
        """The vision tower takes pictures; the text tower has a position for every token of a description."""
        vision, text = self.vision_config, self.text_config
        pictures = ("num_channels", "in_chans", "image_size", "patch_size")
        if hasattr(vision, "vocab_size") and not any(hasattr(vision, name) for name in pictures):
            raise ValueError(
                f"`vision_config` must be that of a vision model; got {vision.model_type!r}, a text model. "
                "Were `vision_config` and `text_config` exchanged?"
            )
        positions = getattr(text, "max_position_embeddings", None)
        if isinstance(positions, int) and self.description_length > positions:
            raise ValueError(
                f"`description_length` must be at most `text_config.max_position_embeddings`, {positions}; got "
                f"{self.description_length}."
            )

    def validate_labels(self):
        """`id2label` numbers distinct action units from 0; `label_weights` fit them."""
        if self.id2label is None:
            return
        if not self.id2label or sorted(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(
                f"`id2label` must number the action units 0, 1, 2, ...; got keys {sorted(self.id2label)}. "
                "Build it with dict(enumerate(names))."
            )
        names = list(self.id2label.values())
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"`id2label` must name each action unit once; got {', '.join(repeated)} more than once.")
        if self.label_weights is not None:
            if len(self.label_weights) != len(names):
                raise ValueError(
                    f"`label_weights` must have {len(names)} entries to match `id2label`; "
                    f"got {len(self.label_weights)}."
                )
            wrong = [weight for weight in self.label_weights if not 0 <= weight < math.inf]
            if wrong:
                raise ValueError(f"`label_weights` must be finite and not negative; got {wrong[0]}.")
        if self.problem_type not in ("multi_label_classification", "regression"):
            raise ValueError(
                "`problem_type` must be 'multi_label_classification' (occurrence) or 'regression' (intensity); "
                f"got {self.problem_type!r}. Action units are not exclusive classes."
            )

    def validate_calibration(self):
        """A positive temperature and a bias for each action unit of an occurrence model."""
        for name in ("calibration_temperatures", "calibration_biases"):
            values = getattr(self, name)
            if values is None:
                continue
            if self.problem_type == "regression":
                raise ValueError(f"`{name}` must be None where `problem_type='regression'`; got {values}.")
            if self.id2label is not None and len(values) != len(self.id2label):
                raise ValueError(
                    f"`{name}` must have {len(self.id2label)} entries to match `id2label`; got {len(values)}."
                )
            lowest = 0 if name == "calibration_temperatures" else -math.inf
            wrong = [value for value in values if not lowest < value < math.inf]
            if wrong:
                raise ValueError(f"`{name}` must be finite{' and positive' if lowest == 0 else ''}; got {wrong[0]}.")

    def validate_elements(self):
        """The switches of the five elements fit together."""
        if not self.use_descriptions:
            for name, needed in {
                "use_ddca": False,
                "use_cdca": False,
                "head": "linear",
                "au_projection": "learned",
            }.items():
                if getattr(self, name) != needed:
                    raise ValueError(
                        f"`{name}` must be {needed!r} where `use_descriptions=False`; got {getattr(self, name)!r}. "
                        "Without descriptions there is no text to attend to."
                    )
        for name, absent in {"output_activation_maps": False, "map_loss_weight": 0}.items():
            if getattr(self, name) and not self.use_ddca:
                raise ValueError(
                    f"`{name}` must be {absent} where `use_ddca=False`; got {getattr(self, name)}. "
                    "The maps are the attention of DDCA."
                )
        if self.intensity_head and self.problem_type == "regression":
            raise ValueError(
                "`intensity_head` must be False where `problem_type='regression'`; got True. "
                "Such a model tells intensities already."
            )
        if self.text_folded and self.use_descriptions and self.text_embed_dim is None:
            raise ValueError(
                "`text_embed_dim` must be given where `text_folded=True`; got None. "
                "Use the width of the stored description embeddings."
            )
        text_hidden_size = getattr(self.text_config, "hidden_size", None)
        if text_hidden_size is not None and self.text_embed_dim not in (None, text_hidden_size):
            raise ValueError(
                f"`text_embed_dim` must equal `text_config.hidden_size`; got {self.text_embed_dim} and "
                f"{text_hidden_size}. Leave `text_embed_dim` out."
            )


__all__ = ["HiVAConfigRules"]
