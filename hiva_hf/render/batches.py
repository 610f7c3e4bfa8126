"""Faces that are rendered while a model trains on them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from transformers.image_processing_utils import BaseImageProcessor

from .action_units import RENDERED_AUS
from .faces import FaceRenderer
from .views import new_views

# masks are kept at this share of the resolution; a model's maps are coarser still
_MASK_STRIDE = 8
_BLOCK = 1024


class RenderedBatches(Dataset):
    """Batches for [`HiVAForImageClassification`], of faces that are rendered when they are first needed.

    Each face is of another person. It stays for `views` rounds, mixed with those that came before and after it, and is
    then dropped: on a GPU a step of training is several times as fast as its faces are rendered. Every time it is seen
    anew, see [`new_views`]. An item is a whole batch: give a loader `batch_size=1` and [`first_of`] as its
    `collate_fn`, and ask in order. Batch `n` is the same whenever it is asked for, so a training that was interrupted
    goes on with what it would have seen.

    Args:
        renderer ([`FaceRenderer`]): Draws the faces; batches are on its device.
        image_processor (`BaseImageProcessor`): Of the model; its `size` is the side of the crops.
        names (`Sequence[str]`): Action units, in the order of the labels.
        num_batches (`int`): How many there are.
        batch_size (`int`, defaults to 256): Faces a batch.
        views (`int`, defaults to 1): How often each face is seen.
        block_size (`int`, *optional*):
            Faces that are rendered together; by default those of 8 batches, or of as many as hold 1,024.
        seed (`int`, defaults to 0): Of everything that is drawn.
        first_subject (`int`, defaults to 0): Number of the first person; a part with other numbers shows others.
        masks (`bool`, defaults to `False`): Whether batches hold masks of what each action unit moved.
        augmented (`bool`, defaults to `True`): Whether each view differs; others are seen as they are.
        jitter (`float`, defaults to 1.0): See [`FaceRenderer.aligned`].
        others (`Mapping[str, torch.Tensor]`, *optional*):
            Faces that were made before and are mixed in, drawn with replacement: `pixel_values` (uint8, aligned, the
            crop in the middle of what is given), `labels` and `intensity_labels` in the order of `names`. Of them no
            masks are known.
        share (`float`, defaults to 0.25): How much of each batch they are, from 0 to less than 1.

    Raises:
        ValueError: If an action unit is none that is rendered, `share` is none, or `block_size` is no multiple of the
            faces that are rendered a batch.
    """

    def __init__(
        self,
        renderer: FaceRenderer,
        image_processor: BaseImageProcessor,
        names: Sequence[str],
        num_batches: int,
        batch_size: int = 256,
        views: int = 1,
        block_size: int | None = None,
        seed: int = 0,
        first_subject: int = 0,
        masks: bool = False,
        augmented: bool = True,
        jitter: float = 1.0,
        others: Mapping[str, Tensor] | None = None,
        share: float = 0.25,
    ):
        unknown = [name for name in names if name not in RENDERED_AUS]
        if unknown:
            raise ValueError(
                f"`names` must be action units that are rendered, {', '.join(RENDERED_AUS)}; got {', '.join(unknown)}."
            )
        if not 0 <= share < 1:
            raise ValueError(f"`share` must be at least 0 and less than 1; got {share}.")
        num_others = round(share * batch_size) if others is not None else 0
        num_rendered = batch_size - num_others
        if block_size is None:
            # as many as are drawn well together; with many views, whole rounds of large ones delay the first batch
            block_size = min(8, -(-_BLOCK // max(1, num_rendered))) * num_rendered
        if num_rendered < 1 or block_size % num_rendered or views < 1:
            raise ValueError(
                "`block_size` must be a multiple of the faces that are rendered a batch, of which there must be one, "
                f"and `views` at least 1; got {block_size}, {num_rendered} and {views}."
            )
        self.renderer, self.num_batches, self.batch_size, self.views = renderer, num_batches, batch_size, views
        self.block_size, self.seed, self.first_subject = block_size, seed, first_subject
        self.masks, self.augmented, self.jitter = masks, augmented, jitter
        self.others, self.num_others, self.num_rendered = others, num_others, num_rendered
        self.size = image_processor.size["height"]
        self.columns = torch.tensor([RENDERED_AUS.index(name) for name in names], device=renderer.device)
        statistics = torch.tensor([image_processor.image_mean, image_processor.image_std], device=renderer.device)
        self.mean, self.std = statistics[:, :, None, None]
        self._blocks: dict[int, dict[str, Tensor]] = {}
        self._shown: tuple[int, dict[str, Tensor]] = (-1, {})

    def __len__(self) -> int:
        return self.num_batches

    @property
    def num_rendered_faces(self) -> int:
        """`int`: How many faces are rendered for all batches, each of another person."""
        a_round = self.views * self.block_size // self.num_rendered
        return (-(-self.num_batches // a_round) + self.views - 1) * self.block_size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Batch `index`: `pixel_values`, `labels`, `intensity_labels` and, where asked for, `mask_labels`."""
        if not 0 <= index < self.num_batches:
            raise IndexError(f"`index` must be 0 to {self.num_batches - 1}; got {index}.")
        a_round, place = divmod(index, self.views * self.block_size // self.num_rendered)
        order = torch.randperm(self.views * self.block_size, generator=self._generator(0, a_round))
        chosen = order[place * self.num_rendered : (place + 1) * self.num_rendered].to(self.renderer.device)
        # each has been moved already, as by a landmark detector
        batch = self._views({name: values[chosen] for name, values in self._faces(a_round).items()}, index, 1, 0.5)
        if self.others is not None and self.num_others:
            batch = self._with_others(self.others, batch, index)
        batch["pixel_values"] = (batch["pixel_values"] - self.mean) / self.std
        return batch

    def _with_others(self, others: Mapping[str, Tensor], batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        many = len(others["labels"])
        chosen = torch.randint(many, (self.num_others,), generator=self._generator(3, index))
        faces = {name: values[chosen.to(values.device)].to(self.renderer.device) for name, values in others.items()}
        faces = self._views(faces, index, 2, 1.0)
        if "mask_labels" in batch:
            faces["mask_labels"] = batch["mask_labels"].new_zeros(self.num_others, *batch["mask_labels"].shape[1:])
        return {name: torch.cat([values, faces[name]]) for name, values in batch.items()}

    def _faces(self, a_round: int) -> dict[str, Tensor]:
        """All that the batches of a round show: of its blocks the first is shown for the last time."""
        if self._shown[0] != a_round:
            blocks = range(a_round, a_round + self.views)
            self._blocks = {number: self._blocks.get(number) or self._render(number) for number in blocks}
            names = self._blocks[a_round]
            self._shown = (
                a_round,
                {name: torch.cat([block[name] for block in self._blocks.values()]) for name in names},
            )
        return self._shown[1]

    def _generator(self, purpose: int, number: int, device: torch.device | str = "cpu") -> torch.Generator:
        generator = torch.Generator(device)
        return generator.manual_seed(hash((self.seed, self.first_subject, purpose, number)) % 2**63)

    def _render(self, number: int) -> dict[str, Tensor]:
        people = torch.arange(self.block_size) + self.first_subject + number * self.block_size
        scenes = self.renderer.sample(people, torch.zeros_like(people), seed=self.seed)
        faces = self.renderer.aligned(scenes, size=self.size, jitter=self.jitter, masks=self.masks)
        # what was made in inference mode takes no part in a backward pass
        block = {
            "pixel_values": faces.images.clone(),
            "labels": faces.occurrence[:, self.columns].clone(),
            "intensity_labels": faces.intensity[:, self.columns].clone(),
        }
        if faces.masks is not None:
            shares = functional.avg_pool2d(faces.masks[:, self.columns].float(), _MASK_STRIDE)
            block["mask_labels"] = (255 * shares).round().to(torch.uint8)
        return block

    def _views(self, faces: dict[str, Tensor], index: int, purpose: int, strength: float) -> dict[str, Tensor]:
        """The pictures, 0-1, and the masks of what is seen of faces in this batch."""
        seen = faces | {name: faces[name].float() / 255 for name in {"pixel_values", "mask_labels"} & set(faces)}
        pictures, masks = seen["pixel_values"], seen.get("mask_labels")
        if self.augmented:
            generator = self._generator(purpose, index, self.renderer.device)
            pictures, masks = new_views(pictures, self.size, generator, strength, masks)
        elif (rest := pictures.shape[-1] - self.size) > 0:
            pictures = pictures[..., rest // 2 : rest // 2 + self.size, rest // 2 : rest // 2 + self.size]
        return seen | {"pixel_values": pictures} | ({} if masks is None else {"mask_labels": masks})


def first_of(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The batch of an item of [`RenderedBatches`]."""
    return batches[0]


__all__ = ["RenderedBatches", "first_of"]
