"""Many trainings and one table: what is in the table is not trained again, and several processes share what is left."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from transformers import TrainingArguments

from hiva_hf import training_arguments
from hiva_hf.files import whole_file


class RunTable:
    """A CSV file of the results of runs, which grows by a run at a time and is never half a run.

    Args:
        path (`Path`): The file; it need not exist.
        keys (`Sequence[str]`): Columns that name a run.
        settings (`dict`, *optional*): What is the same for all runs; stands beside the file as JSON.

    Raises:
        ValueError: If the file was begun with other settings.
    """

    def __init__(self, path: Path, keys: Sequence[str], settings: dict | None = None):
        self.path, self.keys = path, list(keys)
        path.parent.mkdir(parents=True, exist_ok=True)
        if settings is None:
            return
        beside = path.with_suffix(".json")
        with FileLock(self._beside("table")):
            told = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else settings
            if told != settings:
                changed = [f"{name} {told.get(name)!r}" for name in settings if told.get(name) != settings[name]]
                raise ValueError(f"{path} was begun with {', '.join(changed)}; give the same, or another `--out`.")
            with whole_file(beside) as partial:
                partial.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    def read(self) -> pd.DataFrame:
        """All rows there are."""
        return pd.read_csv(self.path) if self.path.is_file() else pd.DataFrame(columns=self.keys)

    def __contains__(self, run: tuple) -> bool:
        done = self.read()[self.keys].itertuples(index=False, name=None)
        return _named(run) in {_named(other) for other in done}

    @contextmanager
    def claim(self, run: tuple) -> Iterator[bool]:
        """Whether this process is to do the run: nobody has done it, and nobody is at it."""
        lock = FileLock(self._beside("-".join(map(str, run)).replace(" ", "_")))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield run not in self
        finally:
            lock.release()

    def add(self, rows: Sequence[dict]) -> None:
        """Add the rows of a run."""
        with FileLock(self._beside("table")), whole_file(self.path) as partial:
            pd.concat([self.read(), pd.DataFrame(rows)]).sort_values(self.keys, kind="stable").to_csv(
                partial, index=False, float_format="%.10g"
            )

    def _beside(self, name: str) -> Path:
        folder = self.path.with_name(f".{self.path.stem}.locks")
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.lock"


def _named(run: tuple) -> tuple[str, ...]:
    """A run as the file writes it."""
    return tuple(f"{value:.10g}" if isinstance(value, float) else str(value) for value in run)


def fixed_arguments(folder: Path, epochs: int, rate: float, seed: int) -> TrainingArguments:
    """A training of so many epochs, of which none is chosen and nothing is kept.

    Args:
        folder (`Path`): For what the trainer insists on writing.
        epochs (`int`): Passes over the faces.
        rate (`float`): Highest learning rate.
        seed (`int`): Of the order and the augmentation.
    """
    return training_arguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        learning_rate=rate,
        seed=seed,
        bf16=True,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        disable_tqdm=True,
    )
