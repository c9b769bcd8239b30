"""Following a known person in a camera's frames, one Gauss-Newton step a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle
from sglat.encoder.causal import CausalEncoder, Prepared
from sglat.encoder.known import known_person


class KnownFollower:
    """Follows the person of a file; the live twin of encoding with a known person.

    Args:
        path: a file with the identity, with its person's typical motions where it was enrolled.
        bundle: loaded weights, at any of their resolutions.
        frame_rate: of the frames to come.

    Raises:
        UsageError: the file has no identity, the bundle no motion estimator.
    """

    def __init__(self, path: Path, bundle: Bundle, frame_rate: float) -> None:
        base = bundle.at(bundle.rungs[0])
        self._encoder = CausalEncoder(known_person(path, base), base, frame_rate=frame_rate)

    @property
    def likeness(self) -> float | None:
        """Identity cosine of the first face to the person's."""
        return self._encoder.likeness

    def prepare(self, frame: NDArray[Any], time: float) -> Prepared:
        """Follow, register and cut out the face of a frame, uint8 RGB `[H, W, 3]`."""
        return self._encoder.prepare(frame)

    def solve(self, prepared: Prepared) -> NDArray[np.float32] | None:
        """Return the motion in a frame, `[34]`; None where the person's face is not found."""
        found = self._encoder.solve(prepared)
        return None if found.is_held else found.motion
