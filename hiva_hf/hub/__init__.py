"""To the Hub and from it: what is sent, the card beside it, and what is said when it fails."""

from .cards import adapter_card, card_problems, dataset_card, model_card
from .contents import adapter_upload, dataset_upload, model_upload, space_upload
from .staging import Upload
from .transfer import hub_sentence, pull, push

__all__ = [
    "Upload",
    "adapter_card",
    "adapter_upload",
    "card_problems",
    "dataset_card",
    "dataset_upload",
    "hub_sentence",
    "model_card",
    "model_upload",
    "pull",
    "push",
    "space_upload",
]
