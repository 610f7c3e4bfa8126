"""The description bank: what a language model wrote about each action unit, with its provenance."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..facs import au_label, au_meaning, two_sided
from ..files import whole_file
from ..processing_hiva import bank_identifier

FOLDER = Path(__file__).parent
DEFAULT_BANK = FOLDER / "facs_en_v1.json"
DEFAULT_EMBEDS = FOLDER / "facs_en_v1.all-MiniLM-L6-v2.safetensors"
NAME_EMBEDS = FOLDER / "facs_en_v1_names.all-MiniLM-L6-v2.safetensors"
_FIELDS = ("bank_id", "language", "license", "provenance", "aspects", "descriptions")


@dataclass(frozen=True)
class DescriptionBank:
    """Descriptions of action units.

    Args:
        bank_id (`str`): Name and version, such as `"facs-en-v1"`.
        language (`str`): BCP 47 code.
        license (`str`): SPDX identifier.
        provenance (`dict`): Who or what wrote it, when, from which prompts and sources, and who reviewed it.
        aspects (`dict[str, str]`): What each kind of description looks at.
        descriptions (`dict`): `{"AU1": {"name": ..., "descriptions": [{"aspect": ..., "text": ...}, ...]}, ...}`.
    """

    bank_id: str
    language: str
    license: str
    provenance: dict
    aspects: dict
    descriptions: dict

    @classmethod
    def from_dict(cls, content: dict, source: str = "description bank") -> "DescriptionBank":
        """Check and adopt the content of a bank file.

        Raises:
            ValueError: If a field is missing, or an AU has no text.
        """
        missing = [field for field in _FIELDS if field not in content] if isinstance(content, dict) else list(_FIELDS)
        if missing:
            raise ValueError(f"{source} must have the fields {', '.join(_FIELDS)}; it lacks {', '.join(missing)}.")
        if not isinstance(content["descriptions"], dict) or not content["descriptions"]:
            raise ValueError(f"{source} must map action units to their descriptions; got {content['descriptions']!r}.")
        for au, entry in content["descriptions"].items():
            au_label(au)
            try:
                texts = [item.get("text", "") for item in entry.get("descriptions", [])]
            except (TypeError, AttributeError):
                raise ValueError(
                    f'{source} must describe {au} as {{"descriptions": [{{"text": ...}}, ...]}}; got {entry!r}.'
                ) from None
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise ValueError(f"{source} must give {au} at least one description and no empty one; got {texts!r}.")
        fields = {field: content[field] for field in _FIELDS}
        fields["descriptions"] = {au_label(au): entry for au, entry in content["descriptions"].items()}
        return cls(**fields)

    def save(self, path: str | Path) -> None:
        """Write the bank as JSON, whole or not at all."""
        with whole_file(path) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def to_dict(self) -> dict:
        """`dict`: The content of a bank file."""
        return asdict(self)

    @property
    def content_hash(self) -> str:
        """`str`: 16 hexadecimal digits of the SHA-256 of the descriptions."""
        return self.identifier.rsplit("@", 1)[1]

    @property
    def identifier(self) -> str:
        """`str`: `bank_id` and content hash, as a model's configuration keeps it."""
        return bank_identifier(self.to_dict())

    def select(self, aus: Sequence[str | int]) -> "DescriptionBank":
        """The bank with these action units only, in this order.

        An action unit of one side, `AU12L`, is described as that of both where the bank does not have it.

        Raises:
            ValueError: If the bank lacks one.
        """
        labels = [au_label(au) for au in aus]
        entries = {label: self.descriptions.get(label, self.descriptions.get(two_sided(label))) for label in labels}
        missing = [label for label, entry in entries.items() if entry is None]
        if missing:
            raise ValueError(
                f"Description bank {self.bank_id!r} must describe every action unit of the model; it lacks "
                f"{', '.join(missing)}. It has {', '.join(self.descriptions)}."
            )
        content = {**self.to_dict(), "descriptions": entries}
        return DescriptionBank(**content)

    def names_only(self) -> "DescriptionBank":
        """A bank that says of each AU no more than its name: what descriptions are worth is measured beside it."""
        descriptions = {
            au: {**entry, "descriptions": [{"aspect": "name", "text": entry.get("name") or au_meaning(au)}]}
            for au, entry in self.descriptions.items()
        }
        changes = {"bank_id": f"{self.bank_id}-names", "aspects": {"name": "The name in FACS."}}
        return DescriptionBank(**{**self.to_dict(), **changes, "descriptions": descriptions})

    def texts(self, num_descriptions: int | None = None) -> list[list[str]]:
        """The texts, one list an action unit, all of the same length.

        Args:
            num_descriptions (`int`, *optional*): How many an AU; by default as many as the AU with the fewest has.

        Raises:
            ValueError: If an AU has fewer.
        """
        texts = [[item["text"] for item in entry["descriptions"]] for entry in self.descriptions.values()]
        fewest = min(len(group) for group in texts)
        count = fewest if num_descriptions is None else num_descriptions
        if not 1 <= count <= fewest:
            raise ValueError(f"`num_descriptions` must lie in 1 to {fewest} for {self.bank_id!r}; got {count}.")
        return [group[:count] for group in texts]


def load_bank(path: str | Path | None = None) -> DescriptionBank:
    """Read a description bank.

    Args:
        path (`str` or `Path`, *optional*): A JSON file; by default the bank that is shipped.

    Returns:
        [`DescriptionBank`]

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a bank.
    """
    path = DEFAULT_BANK if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a description bank in JSON; there is no file {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a description bank in JSON; it cannot be read: {error}.") from None
    return DescriptionBank.from_dict(content, str(path))


def load_text_embeds(
    aus: Sequence[str | int], path: str | Path | None = None, bank: DescriptionBank | None = None
) -> tuple[torch.Tensor, str]:
    """Stored embeddings of a bank's descriptions, for a model that is folded from the start.

    Args:
        aus (`Sequence`): Action units, in the order of the model's labels.
        path (`str` or `Path`, *optional*):
            A safetensors file that `examples/embed_descriptions.py` wrote; by default the shipped bank under
            all-MiniLM-L6-v2.
        bank (`DescriptionBank`, *optional*): The bank they must belong to; by default the shipped one.

    Returns:
        `tuple`: Embeddings of shape `(len(aus), num_descriptions, text_embed_dim)`, and the encoder's name.

    Raises:
        ValueError: If the file belongs to other descriptions, lacks an AU or is no safetensors file.
    """
    path = DEFAULT_EMBEDS if path is None else Path(path)
    bank = load_bank() if bank is None else bank
    labels = [au_label(au) for au in aus]
    try:
        with safe_open(path, framework="pt") as file:
            metadata, keys = file.metadata() or {}, set(file.keys())
            stored = [label if label in keys else two_sided(label) for label in labels]
            missing = [label for label in stored if label not in keys]
            if missing:
                raise ValueError(f"{path} must hold every action unit asked for; it lacks {', '.join(missing)}.")
            embeds = torch.stack([file.get_tensor(label) for label in stored])
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file of description embeddings; {error}.") from None
    if metadata.get("content_hash") != bank.content_hash:
        raise ValueError(
            f"{path} must hold embeddings of bank {bank.identifier}; it was made from "
            f"{metadata.get('bank_id')}@{metadata.get('content_hash')}. "
            "Make it anew with examples/embed_descriptions.py."
        )
    return embeds.float(), metadata["encoder"]


__all__ = ["DEFAULT_BANK", "DEFAULT_EMBEDS", "NAME_EMBEDS", "DescriptionBank", "load_bank", "load_text_embeds"]
