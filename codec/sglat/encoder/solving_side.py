"""At which size motion is solved, and how much of it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sglat.encoder.jacobians import Render
from sglat.encoder.person import TunedPerson

MOST_SIDE: Final = 256
"""Pixels of the pictures that are compared; larger ones are averaged down to it, since residuals
and Jacobians grow with the picture and motion shows in coarse detail."""
WIDE_WINDOW: Final = 128
"""Resolution up to which windows are as long as configured; above, a quarter of it."""


def solving_side(resolution: int) -> int:
    """Return the side of the pictures that are compared."""
    return min(resolution, MOST_SIDE)


def solving_render(person: TunedPerson) -> Render:
    """Return the renderer of the pictures that are compared."""
    factor = person.synthesizer.generator.config.resolution // MOST_SIDE
    if factor <= 1:
        return person.render_fast
    return lambda motion: F.avg_pool2d(person.render_fast(motion), factor)


def shrunk(pictures: Callable[..., Any], resolution: int) -> Callable[..., Any]:
    """Return pictures or masks by frame numbers at the side at which they are compared."""
    factor = resolution // MOST_SIDE
    if factor <= 1:
        return pictures

    def found(rows: NDArray[np.int64]) -> Tensor | None:
        parts = [pictures(rows[at : at + 8]) for at in range(0, len(rows), 8)]
        small = [F.avg_pool2d(part, factor) for part in parts if part is not None]
        return torch.cat(small) if small else None

    return found


def tangents_at_once(resolution: int) -> int | None:
    """Return how many columns of a Jacobian are taken at once, None for all: 3.5 GB of them by
    StyleGAN2 config-f, at any resolution. No choice by free memory: results depend on it."""
    return None if resolution <= WIDE_WINDOW else max(1, 4096 // resolution)


def frames_at_once(resolution: int, most: int) -> int:
    """Return how many frames are rendered at once without gradients, at most `most`."""
    return most if resolution <= MOST_SIDE else max(1, min(most, 2048 // resolution))
