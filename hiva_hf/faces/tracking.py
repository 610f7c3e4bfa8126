"""Who is who from frame to frame: boxes matched by overlap."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from .detection import Face, overlap


class FaceTracker:
    """Gives the same person the same number while the boxes of neighbouring frames overlap.

    All boxes of a frame are matched with the last known ones at once, for the largest total overlap. A person who
    was not seen for `patience` frames gets a new number. Identity is place, not looks: two people who change places
    behind an occluder change numbers.

    Args:
        least_overlap (`float`, defaults to 0.2): Intersection over union from which two boxes may be one person.
        patience (`int`, defaults to 15): Frames for which somebody who is not seen is remembered.
    """

    def __init__(self, least_overlap: float = 0.2, patience: int = 15):
        self.least_overlap, self.patience = least_overlap, patience
        self._next = 0
        # number of the person: last box, frames since
        self._known: dict[int, tuple[tuple[float, ...], int]] = {}

    def __call__(self, faces: list[Face]) -> list[int]:
        """Number the faces of the next frame.

        Args:
            faces (`list[Face]`): All faces of the frame.

        Returns:
            `list[int]`: One number a face, from 0 in the order of first appearance.
        """
        known = list(self._known)
        numbers = [-1] * len(faces)
        if known and faces:
            table = np.array([[overlap(self._known[number][0], face.box) for face in faces] for number in known])
            for row, column in zip(*linear_sum_assignment(-table), strict=True):
                if table[row, column] >= self.least_overlap:
                    numbers[column] = known[row]
        for place, number in enumerate(numbers):
            if number < 0:
                numbers[place], self._next = self._next, self._next + 1
        seen = {number: (tuple(face.box), 0) for number, face in zip(numbers, faces, strict=True)}
        unseen = {
            number: (box, age + 1)
            for number, (box, age) in self._known.items()
            if number not in seen and age < self.patience
        }
        self._known = seen | unseen
        return numbers

    def state(self) -> dict:
        """`dict`: What [`FaceTracker.restore`] takes, as JSON can hold it."""
        return {"next": self._next, "known": [[number, list(box), age] for number, (box, age) in self._known.items()]}

    def restore(self, state: dict) -> None:
        """Go on where [`FaceTracker.state`] was taken."""
        self._next = state["next"]
        self._known = {number: (tuple(box), age) for number, box, age in state["known"]}


__all__ = ["FaceTracker"]
