"""One form for the rows of every dataset, and the account of what was left out."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image, List, Value

from ..facs import au_label
from ..loss_hiva import MISSING_LABEL
from .streaming import StreamedFaces

logger = logging.getLogger(__name__)

# in the metadata of parquet files: how their faces were cut out
ALIGNMENT_KEY = b"hiva_alignment"
# what stands beside them: how they are made, and at the end what was left out
SETTINGS_FILE, DROPPED_FILE = "prepare.json", "dropped.csv"
_NAMES = "Action units of the labels: "
_ALIGNMENT = "Faces were cut out by: "
# how many of what was left out a report names
_EXAMPLES = 5


@dataclass
class LoadReport:
    """What a loader found, and what it left out.

    Args:
        dataset (`str`): Its name.
        frames (`int`): Rows.
        unlabelled (`list[str]`): Images without a label, as `F001/T1 frame 17`.
        imageless (`list[str]`): Labels without an image.
        notes (`list[str]`): Sentences on what else there is to know.
    """

    dataset: str
    frames: int = 0
    unlabelled: list[str] = field(default_factory=list)
    imageless: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """`bool`: Whether nothing was left out; a note on who people are is no loss."""
        losses = [note for note in self.notes if not note.startswith("people are ")]
        return not (self.unlabelled or self.imageless or losses)

    def __str__(self) -> str:
        parts = [f"{self.dataset}: {self.frames} labelled image{'' if self.frames == 1 else 's'}"]
        for places, one, several in (
            (self.unlabelled, "image without a label", "images without labels"),
            (self.imageless, "label without an image", "labels without images"),
        ):
            if places:
                what = one if len(places) == 1 else several
                parts.append(f"{len(places)} {what}, left out ({_some(places)})")
        return "; ".join([*parts, *self.notes]) + "."


OnReport = Callable[[LoadReport], object]


def warn_of(report: LoadReport) -> None:
    """Log a report as a warning where something was left out; what loaders do by default."""
    logger.log(logging.INFO if report.complete else logging.WARNING, "%s", report)


def au_dataset(
    name: str | Sequence[str],
    aus: Sequence[str],
    labels: np.ndarray,
    *,
    images: Sequence[str] | pa.Array,
    subjects: Sequence[str],
    sequences: Sequence[str],
    frames: Sequence[int],
    intensities: np.ndarray | None = None,
    image_feature: Image | None = None,
) -> Dataset:
    """A dataset of the common form, built from columns; no image is read.

    Args:
        name (`str` or `Sequence[str]`): Of the dataset, in the column `dataset`; one for all rows or one a row.
        aus (`Sequence[str]`): Action units, in the order of the labels; `dataset.info.description` keeps them.
        labels (`np.ndarray` of shape `(num_frames, num_labels)`): 1 active, 0 inactive, -100 not coded.
        images (`Sequence[str]` or `pyarrow.Array`): Files; or the column of another dataset.
        subjects (`Sequence[str]`): Who is seen.
        sequences (`Sequence[str]`): In which recording.
        frames (`Sequence[int]`): Number in the recording, as the dataset counts.
        intensities (`np.ndarray` of shape `(num_frames, num_labels)`, *optional*): 0-5, -100 not coded.
        image_feature (`datasets.Image`, *optional*): What decodes the images.

    Returns:
        `datasets.Dataset` with the columns `image`, `labels`, `intensities` where given, `subject_id`, `sequence_id`,
        `frame` and `dataset`.
    """
    names = [au_label(au) for au in aus]
    if not isinstance(images, pa.Array):
        paths = pa.array(images, pa.string())
        images = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), paths], names=["bytes", "path"])
    columns: dict = {"image": images}
    features: dict = {"image": image_feature or Image()}
    for column, values in (("labels", labels), ("intensities", intensities)):
        if values is not None:
            flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
            columns[column] = pa.FixedSizeListArray.from_arrays(flat, len(aus))
            features[column] = List(Value("float32"), length=len(aus))
    columns |= {
        "subject_id": pa.array(subjects, pa.string()),
        "sequence_id": pa.array(sequences, pa.string()),
        "frame": pa.array(frames, pa.int32()),
        "dataset": pa.array([name] * len(images) if isinstance(name, str) else name, pa.string()),
    }
    features |= {key: Value(kind) for key, kind in (
        ("subject_id", "string"), ("sequence_id", "string"), ("frame", "int32"), ("dataset", "string")
    )}  # fmt: skip
    schema = Features(features)
    table = pa.table(columns, schema=schema.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=schema, description=describe(names)))


def au_names(dataset: Dataset | StreamedFaces) -> list[str]:
    """The action units of a dataset of the common form, in the order of its labels.

    Raises:
        ValueError: If it does not tell.
    """
    for line in dataset.info.description.splitlines():
        if line.startswith(_NAMES):
            return line.removeprefix(_NAMES).split()
    raise ValueError(
        "`dataset` must tell the action units of its labels, as those of `hiva_hf.data` do; it does not. Load it with "
        f"one of its loaders, or write them into `dataset.info.description`, as {_NAMES}AU1 AU12."
    )


def alignment_of(dataset: Dataset | StreamedFaces) -> dict | None:
    """How the faces of prepared data were cut out, see [`Preparation`]; `None` where it is not told."""
    for line in dataset.info.description.splitlines():
        if line.startswith(_ALIGNMENT):
            return json.loads(line.removeprefix(_ALIGNMENT))
    return None


def describe(aus: Sequence[str], alignment: dict | None = None) -> str:
    """`info.description` of a dataset, which [`au_names`] and [`alignment_of`] read."""
    lines = [_NAMES + " ".join(aus)]
    return "\n".join(lines if alignment is None else [*lines, _ALIGNMENT + json.dumps(alignment)])


def occurrence(codes: np.ndarray) -> np.ndarray:
    """1 and 0 as they are; every other code of a dataset is -100, not coded."""
    codes = np.asarray(codes, dtype=np.float32)
    return np.where((codes == 0) | (codes == 1), codes, np.float32(MISSING_LABEL))


def intensity(codes: np.ndarray) -> np.ndarray:
    """0 to 5 as they are; every other code of a dataset, such as 9, is -100, not coded."""
    codes = np.asarray(codes, dtype=np.float32)
    return np.where((codes >= 0) & (codes <= 5), codes, np.float32(MISSING_LABEL))


def occurrence_from(intensities: np.ndarray, at_least: float) -> np.ndarray:
    """The named rule that makes occurrence of intensity: active from `at_least` on; -100 stays.

    Args:
        intensities (`np.ndarray`): 0-5, -100 not coded.
        at_least (`float`): 2 is the field's rule for DISFA; 1 counts every trace.
    """
    coded = intensities != MISSING_LABEL
    return np.where(coded, (intensities >= at_least).astype(np.float32), np.float32(MISSING_LABEL))


def _some(places: Sequence[str]) -> str:
    rest = len(places) - _EXAMPLES
    return ", ".join(places[:_EXAMPLES]) + (f", and {rest} more" if rest > 0 else "")
