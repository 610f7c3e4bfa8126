"""The faces of a video from frame to frame: where they went, and who is who."""

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from .detection import Face, FaceDetector, distinct, overlap


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


class FaceFollower:
    """Finds and numbers the faces of a video, frame by frame.

    A search of the whole frame takes twenty times as long as a look at where a face was. So a detector that can follow
    searches now and then, and at once when a face is lost; in between, known faces are followed. Somebody who comes
    to them is seen at the next search.

    Args:
        detector (`FaceDetector`): What searches; without a method `follow(image, faces)` it searches every frame. Given
            no faces, `follow` may look for some at less cost than a search.
        search_interval (`float`, defaults to 0.25): Seconds of the video between two searches; 0 searches every frame.
        tracker (`FaceTracker`, *optional*): What numbers the faces.

    Raises:
        ValueError: If the interval is negative.
    """

    def __init__(self, detector: FaceDetector, search_interval: float = 0.25, tracker: FaceTracker | None = None):
        if not search_interval >= 0:
            raise ValueError(f"`search_interval` must be seconds, 0 or more; got {search_interval}.")
        self.detector, self.search_interval, self.tracker = detector, search_interval, tracker or FaceTracker()
        self._known: list[Face] = []
        self._searched: float | None = None

    def __call__(self, image: Image.Image, timestamp: float, given: list[Face] | None = None) -> list[tuple[int, Face]]:
        """The faces of the next frame.

        Args:
            image (`PIL.Image.Image`): The frame, upright RGB.
            timestamp (`float`): Its seconds from the start.
            given (`list[Face]`, *optional*): Faces that are known beforehand: nothing is looked for.

        Returns:
            `list[tuple[int, Face]]`: Each face with the number of its person, largest face first.
        """
        faces = self._find(image, timestamp) if given is None else given
        self._known = faces
        if faces and all(face.face_id is not None for face in faces):
            return [(int(face.face_id or 0), face) for face in faces]
        return list(zip(self.tracker(faces), faces, strict=True))

    def _find(self, image: Image.Image, timestamp: float) -> list[Face]:
        follow = getattr(self.detector, "follow", None)
        followed: list[Face] = []
        placed = all(face.points is not None for face in self._known)
        if follow is not None and self.search_interval and self._searched is not None and placed:
            followed = follow(image, self._known)
            # the hair's breadth is for times like 0.1 + 0.2
            recent = 0 < timestamp - self._searched < self.search_interval - 1e-6
            if recent and len(followed) >= len(self._known):
                return followed
        self._searched = timestamp
        # a face that turns away is followed for longer than a search would find it
        return distinct([*self.detector(image), *followed])

    def state(self) -> dict:
        """`dict`: What [`FaceFollower.restore`] takes, as JSON can hold it."""
        known = [
            [
                [*map(float, face.box)],
                float(face.score),
                None if face.points is None else np.asarray(face.points).tolist(),
            ]
            for face in self._known
        ]
        return {"tracker": self.tracker.state(), "searched": self._searched, "known": known}

    def restore(self, state: dict) -> None:
        """Go on where [`FaceFollower.state`] was taken."""
        self.tracker.restore(state["tracker"])
        self._searched = state["searched"]
        self._known = [
            Face(tuple(box), score, None if points is None else np.array(points))
            for box, score, points in state["known"]
        ]


__all__ = ["FaceFollower", "FaceTracker"]
