"""Where the chosen one of several people is, and whether a face found is theirs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sglat.encoder.people import LONG_GALLERY, Boxes, People, some_of


class Guide:
    """Where the chosen one of several faces is on the sampled frames."""

    def __init__(self, people: People, number: int) -> None:
        face = people.faces[number - 1]
        self._samples = people.samples
        self._jumps = people.jumps
        self._boxes = dict(zip(face.frames.tolist(), face.boxes, strict=True))
        self._vectors = some_of(face.vectors, LONG_GALLERY)
        self._other_vectors = [
            some_of(other.vectors, LONG_GALLERY) for other in people.faces if other is not face
        ]
        self._others = {
            frame for other in people.faces if other is not face for frame in other.frames.tolist()
        }

    def is_sampled(self, index: int) -> bool:
        """Whether a frame is among the samples."""
        return self._at(index) == index

    def near(self, index: int) -> list[Boxes]:
        """Return the boxes of the face at a sampled frame, else at the samples around it."""
        place = int(np.searchsorted(self._samples, index, side="right")) - 1
        # behind a jump the picture is another one
        ends = self.is_sampled(index) or bool(self._jumps[place + 1 : place + 2].any())
        frames = self._samples[place : place + (1 if ends else 2)]
        return [self._boxes[frame] for frame in frames.tolist() if frame in self._boxes]

    def is_other(self, index: int) -> bool:
        """Whether the latest sample shows others alone."""
        at = self._at(index)
        return at in self._others and at not in self._boxes

    def is_crowded(self, index: int) -> bool:
        """Whether others are there at a frame or at the samples around it."""
        place = int(np.searchsorted(self._samples, index, side="right")) - 1
        return any(at in self._others for at in self._samples[place : place + 2].tolist())

    def is_others(self, vector: NDArray[np.float32]) -> bool:
        """Whether an identity vector `[D]` is nearer to another person's than to the chosen
        one's."""
        own, others = (
            max((float((some[:, : len(vector)] @ vector).max()) for some in vectors), default=-1.0)
            for vectors in ([self._vectors], self._other_vectors)
        )
        return others > own

    def is_turn(self, index: int) -> bool:
        """Whether the picture jumps to or from the face here."""
        place = int(np.searchsorted(self._samples, index))
        if not self.is_sampled(index) or place == 0 or not self._jumps[place]:
            return False
        before = int(self._samples[place - 1])
        return (before in self._boxes) != (index in self._boxes)

    def _at(self, index: int) -> int:
        return int(self._samples[np.searchsorted(self._samples, index, side="right") - 1])
