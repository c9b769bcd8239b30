"""Following a known person in a camera's frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle
from sglat.encoder.causal import CausalEncoder, Prepared, encoded
from sglat.encoder.known import known_person

T = TypeVar("T")


class KnownFollower:
    """Follows the person of a file; the live twin of encoding with a known person.

    Args:
        path: a file with the identity, with its person's typical motions where it was enrolled.
        bundle: loaded weights, at any of their resolutions.
        frame_rate: of the frames to come.
        skipped: frames between two that are solved; see `encoded`.

    Raises:
        UsageError: the file has no identity, the bundle no motion estimator.
    """

    def __init__(self, path: Path, bundle: Bundle, frame_rate: float, *, skipped: int = 0) -> None:
        self._skipped = skipped
        base = bundle.at(bundle.rungs[0])
        self._encoder = CausalEncoder(known_person(path, base), base, frame_rate=frame_rate)
        assert self._encoder.solver  # its Jacobians take seconds, before the first frame comes

    @property
    def likeness(self) -> float | None:
        """Identity cosine of the first face to the person's."""
        return self._encoder.likeness

    def prepare(self, frame: NDArray[Any], time: float) -> Prepared:
        """Follow, register and cut out the face of a frame, uint8 RGB `[H, W, 3]`."""
        return self._encoder.prepare(frame)

    def solve(
        self, prepared: Iterable[tuple[T, Prepared]]
    ) -> Iterator[tuple[T, NDArray[np.float32] | None]]:
        """Yield the motion of each frame, `[34]`; None where the person's face is not found."""
        for item, found in encoded(self._encoder, prepared, self._skipped):
            yield item, None if found.is_held else found.motion
