"""Models to begin with: one that trains on two cores without a text tower, and one that trains its text side too."""

from collections import Counter
from collections.abc import Sequence
from string import ascii_lowercase, digits, punctuation

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .configuration_hiva import HiVAConfig
from .descriptions import DEFAULT_EMBEDS, NAME_EMBEDS, DescriptionBank, load_bank, load_text_embeds
from .facs import BP4D_AUS, au_label
from .image_processing_hiva import HiVAImageProcessorPil
from .modeling_hiva import HiVAForImageClassification
from .modeling_hiva_towers import load_tower
from .processing_hiva import HiVAProcessor

# stride 16, so that a face of 112 pixels becomes 7 x 7 tokens
_VISION = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 64,
    "hidden_sizes": [64, 128, 256],
    "depths": [2, 2, 2],
}
_FUSION = {"hidden_size": 192, "intermediate_size": 384, "num_attention_heads": 6}
IMAGE_SIZE = 112

# fields of a model without text and graph: tower, a feature for each AU, and a linear head; what HiVA is compared with
VISUAL_ONLY = {"use_descriptions": False, "use_graph": False, "use_ddca": False, "use_cdca": False, "head": "linear"}


def _image_processor() -> HiVAImageProcessorPil:
    return HiVAImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def _by_source(bank: DescriptionBank, text_source: str | None) -> DescriptionBank:
    return bank.names_only() if text_source == "names" else bank


def _without_text(
    model: HiVAForImageClassification, image_processor: HiVAImageProcessorPil
) -> tuple[HiVAForImageClassification, HiVAProcessor]:
    """A model that reads no text, with a processor that holds none."""
    return model, HiVAProcessor(image_processor, labels=model.config.au_names, problem_type=model.config.problem_type)


def _reads_text(config: HiVAConfig) -> bool:
    return config.use_descriptions and config.text_source != "random"


def hiva_small(aus: Sequence[str | int] = BP4D_AUS, **config) -> tuple[HiVAForImageClassification, HiVAProcessor]:
    """The small preset: about 5 M parameters, 112 pixels, folded from the start.

    A residual network for faces of 112 pixels, and the shipped description embeddings by all-MiniLM-L6-v2 in place of a
    text tower. Weights are new.

    Args:
        aus (`Sequence`, defaults to the 12 AUs of BP4D): Action units, in the order of the logits.
        config: Fields of [`HiVAConfig`] to change; `text_source="names"` takes embeddings of their names instead.

    Returns:
        `tuple`: [`HiVAForImageClassification`] and [`HiVAProcessor`].

    Raises:
        ValueError: If an AU is unknown or not in the bank.
    """
    text_source = config.get("text_source")
    whole = _by_source(load_bank(), text_source)
    bank = whole.select([au_label(au) for au in aus])
    file = NAME_EMBEDS if text_source == "names" else DEFAULT_EMBEDS
    text_embeds, encoder = load_text_embeds(list(bank.descriptions), file, whole)
    fields = {
        "vision_config": _VISION,
        **_FUSION,
        "text_folded": True,
        "text_embed_dim": text_embeds.shape[-1],
        "num_descriptions": text_embeds.shape[1],
        "id2label": dict(enumerate(bank.descriptions)),
    }
    model = HiVAForImageClassification(HiVAConfig(**{**fields, **config}))
    if not _reads_text(model.config):
        return _without_text(model, _image_processor())
    model.set_text_embeds(text_embeds, encoder=encoder, bank=bank.identifier)
    return model, HiVAProcessor(
        _image_processor(), description_bank=bank.to_dict(), problem_type=model.config.problem_type
    )


def hiva_small_text(
    aus: Sequence[str | int] = BP4D_AUS,
    bank: DescriptionBank | None = None,
    text_encoder: str | None = None,
    **config,
) -> tuple[HiVAForImageClassification, HiVAProcessor]:
    """The small preset with a text tower: by default a BERT of two layers and a tokenizer learned from the bank.

    For everything that trains the text side. Both of the default are new, and the language they know is the bank's.

    Args:
        aus (`Sequence`, defaults to the 12 AUs of BP4D): Action units, in the order of the logits.
        bank (`DescriptionBank`, *optional*): By default the shipped one.
        text_encoder (`str`, *optional*): Hub id or folder of a pretrained text encoder with its tokenizer to take.
        config: Fields of [`HiVAConfig`] to change.

    Returns:
        `tuple`: [`HiVAForImageClassification`] and [`HiVAProcessor`].

    Raises:
        ValueError: If an AU is unknown or not in the bank.
    """
    whole = load_bank() if bank is None else bank
    bank = _by_source(whole, config.get("text_source")).select([au_label(au) for au in aus])
    tokenizer: PreTrainedTokenizerBase
    if text_encoder is None:
        text_model, tokenizer = None, bank_tokenizer(whole)
    else:
        # new layers do not train in the half precision that towers are often stored in
        text_model = load_tower(text_encoder, "text_config", dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(text_encoder)
    fields = {
        "vision_config": _VISION,
        **_FUSION,
        "text_config": _new_text_tower(tokenizer) if text_model is None else text_model.config,
        "text_encoder": text_encoder,
        "id2label": dict(enumerate(bank.descriptions)),
    }
    model = HiVAForImageClassification(HiVAConfig(**{**fields, **config}), text_model=text_model)
    if not _reads_text(model.config):
        return _without_text(model, _image_processor())
    processor = HiVAProcessor(_image_processor(), tokenizer, bank.to_dict(), problem_type=model.config.problem_type)
    model.set_descriptions(**processor.tokenize_descriptions())
    return model, processor


def _new_text_tower(tokenizer: PreTrainedTokenizerBase) -> dict:
    return {
        "model_type": "bert",
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": tokenizer.model_max_length,
        "pad_token_id": tokenizer.pad_token_id,
    }


def bank_tokenizer(bank: DescriptionBank, vocab_size: int = 2000) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer of the words of a bank; others are spelled out.

    The trainers of `tokenizers` break ties by chance, so that two runs would end with other vocabularies.

    Args:
        bank (`DescriptionBank`): The texts.
        vocab_size (`int`, defaults to 2000): At most so many pieces: characters, then the most frequent words.

    Returns:
        `PreTrainedTokenizerFast` with BERT's special tokens; the same bank gives the same tokenizer.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    texts = [normalizer.normalize_str(text) for group in bank.texts() for text in group]
    words = Counter(word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(text))
    letters = sorted(set("".join(words)) | set(ascii_lowercase + digits + punctuation))
    frequent = sorted(words, key=lambda word: (-words[word], word))
    pieces = list(dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *frequent]))[:vocab_size]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizer, decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


PRESETS = {"small": hiva_small, "small-text": hiva_small_text}

__all__ = ["IMAGE_SIZE", "PRESETS", "VISUAL_ONLY", "bank_tokenizer", "hiva_small", "hiva_small_text"]
