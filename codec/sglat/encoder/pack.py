"""Stage 8: quantizer steps from the generator's Jacobian, and integers that cost few bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import LatentLayer, QuantizedTensor

DEFAULT_QUALITY: Final = 50
# Root mean square picture change of one step at the default quality, pictures in [-1, 1]. With calm
# rounding the error is 0.36 steps: 34 numbers add 34 · (0.36 · 0.013)² = 0.0007 to a squared error
# of 0.006 to 0.009 (28 to 26 dB).
_EFFECT_AT_DEFAULT: Final = 0.013
_QUALITY_PER_OCTAVE: Final = 12.0  # quality points that halve the step
_BASE_STEP: Final = (
    1 / 3
)  # of the latent's standard deviation: 3.6 bits a value, 1.4 kB for 12 rows
_FINE_STEP: Final = 1 / 24  # the same after layer 1, below what the picture shows


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How numbers become integers."""

    quality: int = DEFAULT_QUALITY
    """0 to 100; 12 points halve the steps."""
    calm: float = 0.2
    """Weight of the estimated bits against the squared error in steps; 0 rounds to nearest. On
    three real clips 0.2 saved 27 to 43 % of the bits for an error of 0.30 to 0.36 steps instead of
    0.29."""


def motion_steps(picture_effect: NDArray[np.float32], config: PackConfig) -> NDArray[np.float32]:
    """Return the step of each of the 34 numbers.

    Args:
        picture_effect: root mean square picture change per unit of each number, `[34]`.
        config: quality.
    """
    octaves = (config.quality - DEFAULT_QUALITY) / _QUALITY_PER_OCTAVE
    wanted = _EFFECT_AT_DEFAULT * 2.0**-octaves
    floor = float(np.median(picture_effect)) / 30  # a number without effect needs no fine step
    steps: NDArray[np.float32] = (wanted / np.maximum(picture_effect, floor)).astype(np.float32)
    return steps


def quantize_motion(
    motion: NDArray[np.float32], steps: NDArray[np.float32], config: PackConfig
) -> NDArray[np.int32]:
    """Round motion `[T, 34]` to integers along the cheapest path near it.

    For each number the sequence that minimises squared error plus `calm` times an estimate of the
    bits of its differences is found by dynamic programming over the three nearest integers a frame.
    """
    scaled = motion.astype(np.float64) / steps
    nearest = np.rint(scaled).astype(np.int64)
    if config.calm == 0 or len(motion) < 2:
        return nearest.astype(np.int32)
    candidates = nearest[..., None] + np.array([-1, 0, 1])  # [T, 34, 3]
    error = np.square(candidates - scaled[..., None])
    cost = error[0]
    back = np.zeros(candidates.shape, np.int8)
    for t in range(1, len(motion)):
        change = np.abs(candidates[t][:, None, :] - candidates[t - 1][:, :, None])  # [34, from, to]
        total = cost[:, :, None] + config.calm * _bits(change)
        back[t] = total.argmin(1)
        cost = total.min(1) + error[t]
    path = np.empty(scaled.shape, np.int64)
    chosen = cost.argmin(1)
    channels = np.arange(scaled.shape[1])
    for t in range(len(motion) - 1, -1, -1):
        path[t] = candidates[t][channels, chosen]
        chosen = back[t][channels, chosen]
    return path.astype(np.int32)


def latent_layers(
    offset: NDArray[np.float32],
) -> tuple[tuple[LatentLayer, LatentLayer], NDArray[np.float32]]:
    """Return a latent as base layer and refinement, and the latent they add up to.

    Args:
        offset: latent minus the generator's mean latent, `[L, D]`.
    """
    deviation = max(float(offset.std()), 1e-6)
    base = _rounded(offset, deviation * _BASE_STEP)
    fine = _rounded(offset - base.dequantize(), deviation * _FINE_STEP)
    layers = (LatentLayer(latent=base), LatentLayer(latent=fine))
    return layers, base.dequantize() + fine.dequantize()


def _rounded(values: NDArray[np.float32], step: float) -> QuantizedTensor:
    integers = np.rint(values / np.float32(step)).astype(np.int32)
    return QuantizedTensor(values=integers, step=float(np.float32(step)))


def _bits(change: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return about what an adaptive coder pays for a difference in bits."""
    result: NDArray[np.float64] = np.where(change == 0, 0.4, 2.0 + 2.0 * np.log2(1 + change))
    return result
