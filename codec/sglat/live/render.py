"""Motion to pictures at the receiver: one person, one frame at a time."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle, bundle_for
from sglat.decoder.synthesizer import Renderer, Synthesizer, held_rungs
from sglat.live.look import Look
from sglat.networks.devices import choose_device, renders_in_half
from sglat.networks.pixels import resize, to_pixels


class Painter(Protocol):
    """Renders the person of one session."""

    side: int
    """Of the pictures in pixels."""

    def paint(self, motion: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the picture of motion `[34]`, `[side, side, 3]` RGB."""


class PersonPainter:
    """Renders by the synthesizer.

    Args:
        look: the person.
        bundle: loaded weights; None loads what the header names.
        device: `auto`, `cpu`, `cuda` or `mps`.
        side: of the pictures; None: the lowest rung, which is what processors render in time.

    Raises:
        BundleMismatchError: the identity was made for other weights.
    """

    def __init__(
        self,
        look: Look,
        *,
        bundle: Bundle | None = None,
        device: str = "auto",
        side: int | None = None,
    ) -> None:
        weights = (
            bundle.of_file(look.header)
            if bundle
            else bundle_for(look.header, choose_device(device))
        )
        rungs = held_rungs(weights, look.identity)
        self.side = side or rungs[0]
        rung = next((r for r in rungs if r >= self.side), rungs[-1])
        whole = Synthesizer.of(weights).tuned(look.identity.weight_deltas())
        self._renderer = Renderer(
            whole.up_to(rung),
            whole.person(look.identity),
            half=renders_in_half(weights.device),
            workers=1,
        )
        self._last: tuple[bytes, NDArray[np.uint8]] | None = None

    def paint(self, motion: NDArray[np.float32]) -> NDArray[np.uint8]:
        key = motion.tobytes()
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        with torch.inference_mode():
            picture = self._renderer.render(torch.from_numpy(motion[None].copy()))
            shown: NDArray[np.uint8] = to_pixels(resize(picture, self.side))[0]
        self._last = key, shown
        return shown
