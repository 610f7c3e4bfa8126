"""Rendered faces: the embedded sample of 600 pictures, and folders of the same form.

The faces are rendered from ICT-FaceKit (MIT licence, University of Southern California Institute for Creative
Technologies; Li et al., *Learning Formation of Physically-Based Face Attributes*, CVPR 2020). Nobody in them exists.
Labels are what the face was told to do, not what a human coder saw.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, List, Value

from ..facs import BP4D_AUS, au_label

SAMPLE_FILE = Path(__file__).parent / "assets" / "rendered_sample.parquet"
_TREE = "ROOT/\n  faces-00000-of-00008.parquet   columns image, subject_id, frame, AU1, AU1_intensity, ..., landmarks"


def load_rendered(
    root: str | Path | None = None,
    *,
    aus: Sequence[str] = BP4D_AUS,
    intensity: bool = False,
    subjects: Sequence[str] | None = None,
) -> Dataset:
    """Load rendered faces.

    Args:
        root (`str` or `Path`, *optional*):
            A parquet file or a folder of them; by default the embedded sample (24 subjects of 25 frames, 128 pixels).
        aus (`Sequence[str]`, defaults to the 12 AUs of BP4D): Which AUs, in the order of the labels.
        intensity (`bool`, defaults to `False`): Labels are intensities 0-5 in place of occurrence 0/1.
        subjects (`Sequence[str]`, *optional*): Keep these subjects only.

    Returns:
        `datasets.Dataset` with the columns `image`, `labels` (float32, one an AU), `subject_id`, `frame`, and where the
        files have them `landmarks` (68 points, x0 y0 x1 y1 ..., pixels) and `box` (x0 y0 x1 y1, pixels).

    Raises:
        FileNotFoundError: If there is no parquet file.
        ValueError: If an AU is not in the files, or no subject is left.
    """
    root = SAMPLE_FILE if root is None else Path(root)
    files = [root] if root.is_file() else sorted(root.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"`root` must be a parquet file or a folder of them; got {root}. Expected:\n{_TREE}")
    for file in files:
        try:
            pq.read_schema(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{file} must be a parquet file; {error}") from None
    dataset = Dataset.from_parquet([str(file) for file in files])
    known = [name for name in dataset.column_names if re.fullmatch(r"AU\d+", name)]
    labels = [au_label(au) for au in aus]
    missing = [au for au in labels if au not in known]
    if missing:
        raise ValueError(f"`aus` must be coded in {root}; got {', '.join(missing)}. Coded: {', '.join(known)}.")
    if subjects is not None:
        wanted = set(subjects)
        kept = [index for index, subject in enumerate(dataset["subject_id"]) if subject in wanted]
        if not kept:
            raise ValueError(
                f"`subjects` must name subjects of {root}; got {', '.join(sorted(wanted)[:5])}, and none is there."
            )
        dataset = dataset.select(kept)
    suffix = "_intensity" if intensity else ""
    table = np.stack([np.asarray(dataset[au + suffix], dtype=np.float32) for au in labels], axis=1)
    keep = [name for name in ("image", "subject_id", "frame", "landmarks", "box") if name in dataset.column_names]
    return dataset.select_columns(keep).add_column(
        "labels", list(table), feature=List(Value("float32"), length=len(labels))
    )


__all__ = ["SAMPLE_FILE", "load_rendered"]
