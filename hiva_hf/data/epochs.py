"""What a Trainer sees of a dataset in each epoch."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from datasets import Dataset

from ..loss_hiva import MISSING_LABEL
from .streaming import StreamedFaces


class EpochDataset(torch.utils.data.Dataset):
    """A dataset as a stock `Trainer` takes it for `train_dataset` or `eval_dataset`: rows are transformed by the batch.

    Order, draws by weight and the chance in the transform follow from `seed` and the epoch, which Trainer tells: a run
    that was resumed in the midst of an epoch sees what it would have seen. Rows that are drawn by weights are drawn
    anew in each epoch, as `WeightedRandomSampler` does. With `shuffled`, set `train_sampling_strategy="sequential"`: to
    a dataset under a sampler of chance the epoch is not told.

    Args:
        rows (`Dataset` or `StreamedFaces`): What to see.
        transform (`Callable`): From a dictionary of columns to one of `pixel_values` and `labels`, see
            [`FaceTransform`].
        weights (`np.ndarray` of shape `(num_rows,)`, *optional*): How often each row is drawn, in proportion, see
            [`sampling_weights`]; by default each is seen once.
        seed (`int`, defaults to 0): Of all chance.
        shuffled (`bool`, defaults to `False`): Whether rows come in another order each epoch; that of streamed faces
            goes through their files once.
        batch_size (`int`, defaults to 1): Rows that are asked for at a time.
        processes (`int`, defaults to 1): How many train together. With several the length is rounded up to whole
            batches of all by rows that no action unit is coded of, which add nothing: none is seen twice, and the last
            batches are filled up evenly. A row in one of those counts more than others, as in any last batch.
        workers (`int`, defaults to 1): Loaders a process has; streamed files are each read by one of them.
        order (`tuple[int, int]`, *optional*): How many loaders, and rows at a time, the order of streamed faces is made
            for; by default these. A run that goes on with other processes keeps what it was begun with.

    Raises:
        ValueError: If the weights do not fit the rows.
    """

    def __init__(
        self,
        rows: Dataset | StreamedFaces,
        transform: Callable[[dict], dict],
        *,
        weights: np.ndarray | None = None,
        seed: int = 0,
        shuffled: bool = False,
        batch_size: int = 1,
        processes: int = 1,
        workers: int = 1,
        order: tuple[int, int] | None = None,
    ):
        if weights is not None:
            weights = np.asarray(weights, dtype=np.float64)
            if weights.shape != (len(rows),) or not (weights >= 0).all() or not weights.sum() > 0:
                raise ValueError(
                    f"`weights` must be {len(rows)} numbers of 0 or more, not all 0; got shape {weights.shape}."
                )
            weights = weights / weights.sum()
        self.rows, self.transform, self.weights = rows, transform, weights
        self.seed, self.shuffled = seed, shuffled
        self.batch_size, self.processes = batch_size, processes
        self.order = order or (processes * max(workers, 1), batch_size)
        # shared with loaders that live on from epoch to epoch
        self._told = torch.zeros((), dtype=torch.int64).share_memory_()
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes; Trainer does."""
        self.epoch = epoch
        self._told.fill_(epoch)
        rng = np.random.default_rng((self.seed, epoch))
        places = np.arange(len(self.rows))
        if self.weights is not None:
            places = rng.choice(places, len(places), p=self.weights)
        if self.shuffled:
            if isinstance(self.rows, StreamedFaces):
                places = self.rows.mixed(places, rng, *self.order)
            else:
                places = rng.permutation(places)
        self.places = places if self.processes == 1 else self._filled(places)

    def _filled(self, places: np.ndarray) -> np.ndarray:
        together = self.processes * self.batch_size
        whole = len(places) // together * together
        if whole == len(places):
            return places
        last = np.full((self.batch_size, self.processes), -1)
        last.ravel()[: len(places) - whole] = places[whole:]
        return np.concatenate([places[:whole], last.T.ravel()])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> dict:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[dict]:
        """Several rows at once, as the loader asks for a batch."""
        if self.epoch != int(self._told):
            self.set_epoch(int(self._told))
        places = self.places[np.asarray(positions)]
        real = places[places >= 0]
        # a batch of nothing but filling takes its shapes from the first row
        rows = self.rows[real.tolist() or [0]]
        with torch.random.fork_rng(devices=[]):
            chance = np.random.SeedSequence((self.seed, self.epoch, int(positions[0])))
            torch.default_generator.manual_seed(int(chance.generate_state(1)[0]))
            batch = self.transform(rows)
        made = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        filling = {name: torch.zeros_like(value) for name, value in made[0].items()}
        if "labels" in filling:
            filling["labels"] = torch.full_like(filling["labels"], MISSING_LABEL)
        left = iter(made)
        return [next(left) if place >= 0 else filling for place in places]


__all__ = ["EpochDataset"]
