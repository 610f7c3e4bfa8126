"""What transformers' own common tests need to know of HiVA; run them with `make conformance`."""

import torch
from transformers.utils import is_torchvision_available

from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAModel, HiVAProcessor
from hiva_hf.descriptions import load_bank
from hiva_hf.image_processing_hiva import HiVAImageProcessor
from hiva_hf.presets import bank_tokenizer

AUS = ("AU1", "AU4", "AU12")
VISION = {
    "model_type": "vit",
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}
TEXT = {
    "model_type": "bert",
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}
FIELDS = {
    "vision_config": VISION,
    "text_config": TEXT,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_descriptions": 2,
    "description_length": 7,
    "graph_top_k": 1,
}

config_class = HiVAConfig
config_kwargs = {"hidden_size": 32, "num_attention_heads": 4}
model_classes = [HiVAModel, HiVAForImageClassification]


def make_config():
    return HiVAConfig(**FIELDS, id2label=dict(enumerate(AUS)))


def make_inputs(config, n):
    generator = torch.Generator().manual_seed(0)
    return {"pixel_values": torch.rand(n, 3, 32, 32, generator=generator)}


def make_labels(config, n):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 2, (n, config.num_labels), generator=generator).float()


image_processor_classes = {"pil": HiVAImageProcessorPil}
if is_torchvision_available():
    image_processor_classes["torchvision"] = HiVAImageProcessor
image_processor_kwargs = {
    "size": {"height": 18, "width": 18},
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
processor_class = HiVAProcessor


def make_tokenizer():
    return bank_tokenizer(load_bank())


def make_image_processor():
    return HiVAImageProcessorPil(size={"height": 32, "width": 32})


processor_kwargs = {"description_bank": load_bank().select(AUS).to_dict(), "thresholds": {"AU12": 0.4}}


def keys_stay_as_they_are(self):
    # weights are saved under the names of the live modules on purpose: see HiVAPreTrainedModel.save_pretrained
    super(type(self), self).test_reverse_loading_mapping(check_keys_were_modified=False)


overrides = {"test_reverse_loading_mapping": keys_stay_as_they_are}
if not is_torchvision_available():
    overrides["test_new_models_require_torchvision_backend"] = "torchvision is not installed"
# resizing is the text tower's own affair, and the mixin asks for `input_ids` in the inputs
attributes = {"test_resize_embeddings": False}
# what the vision tower puts out: 16 patches and a class token
tester_attributes = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "seq_length": 17,
    "key_length": 17,
}
