"""What a face says beyond the face it is at rest: scores minus those of the same person's neutral face.

People differ at rest: a low brow is no AU4, an upturned mouth no AU12. The field's remedy is a baseline for each person
(OpenFace takes one of the lowest scores of a video; FACS coders look at a neutral face first): the median over all
frames, right where the face is at rest in most of them, or over frames of which one knows that it is.
"""

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from .results import FaceResult

Person = Callable[[FaceResult], Hashable]


def person_of(result: FaceResult) -> Hashable:
    """Who it is, as far as a result tells: a number in a video."""
    return result.source, result.face_id


def parse_neutral(text: str) -> range | None:
    """`"median"` as `None`, all frames; `"1-50"` as these frames, counted from 1 as in the column `frame`.

    Raises:
        ValueError: If it is neither.
    """
    if text == "median":
        return None
    first, dash, last = text.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last):
        return range(int(first) - 1, int(last))
    raise ValueError(f"`neutral` must be median, or frames at rest counted from 1, such as 1-50; got {text!r}.")


def neutral_scores(
    results: Iterable[FaceResult],
    labels: Sequence[str],
    frames: range | None = None,
    person: Person = person_of,
    fewest: int = 5,
) -> dict[Hashable, dict[str, float]]:
    """The neutral face of each person: the median score of each action unit.

    Args:
        results (`Iterable[FaceResult]`): All rows, read once; 4 bytes an action unit and row are kept.
        labels (`Sequence[str]`): Action units.
        frames (`range`, *optional*): Frames, from 0, in which the faces are at rest; by default all.
        person (`Callable`, *optional*): Tells who a row is; by default file and `face_id`.
        fewest (`int`, defaults to 5): Where all frames count, how many a person must be seen in: of a face that is seen
            for a moment nobody knows how it is at rest.

    Returns:
        `dict`: By person and AU; without those who are in none of the frames, or in too few.

    Raises:
        ValueError: If nobody is in the named frames.
    """
    kept: dict[Hashable, array] = {}
    for result in results:
        if result.success and (frames is None or result.frame in frames):
            kept.setdefault(person(result), array("f")).extend(result.scores[label] for label in labels)
    if frames is not None and not kept:
        raise ValueError(
            f"`neutral` must name frames in which there are faces; in {frames.start + 1}-{frames.stop} there is none."
        )
    least = 1 if frames is not None else fewest
    return {
        who: dict(zip(labels, np.median(np.reshape(values, (-1, len(labels))), axis=0).tolist(), strict=True))
        for who, values in kept.items()
        if len(values) >= least * len(labels)
    }


def above_neutral(
    results: Iterable[FaceResult], neutral: dict[Hashable, dict[str, float]], person: Person = person_of
) -> Iterator[FaceResult]:
    """Rows with what each score is above the person's neutral face, in `above_neutral`.

    Args:
        results (`Iterable[FaceResult]`): Rows; they stay as they are.
        neutral (`dict`): Of [`neutral_scores`].
        person (`Callable`, *optional*): As there.

    Yields:
        [`FaceResult`]; NaN where no neutral face of the person is known.
    """
    nobody: dict[str, float] = {}
    for result in results:
        rest = neutral.get(person(result), nobody)
        scores = {label: score - rest.get(label, float("nan")) for label, score in result.scores.items()}
        yield replace(result, above_neutral=scores)


__all__ = ["above_neutral", "neutral_scores", "parse_neutral", "person_of"]
