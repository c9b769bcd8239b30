"""Multi-scale structural similarity (MS-SSIM) of small crops, whole or inside a mask.

The original has five scales and a window of 11 pixels, which needs more than 160 pixels. Crops of
128 pixels have room for four; the weights of the first four are brought to a sum of 1. The number
of scales is part of the result's name in reports.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError, UsageError

Pictures = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Float64 = NDArray[np.float64]

# Exponents of scales 1 to 5; Wang, Simoncelli, Bovik 2003, section 3.2
WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIGMA: Final = 1.5
RADIUS: Final = 5  # window of 11 pixels
C1: Final = (0.01 * 255) ** 2
C2: Final = (0.03 * 255) ** 2


def scales_within(side: int) -> int:
    """Return how many scales have room for a whole window in pictures of a side in pixels.

    Raises:
        UsageError: not even one.
    """
    count: int = sum(side // 2**scale >= 2 * RADIUS + 1 for scale in range(len(WEIGHTS)))
    if not count:
        raise UsageError("picture-small", f"expected {2 * RADIUS + 1} pixels or more, found {side}")
    return count


def ms_ssim(shown: Pictures, wanted: Pictures, mask: Mask | None = None) -> float:
    """Return the multi-scale structural similarity, 1 for equal pictures.

    Contrast and structure at every scale, luminance at the coarsest, each averaged over channels
    and the pixels that have a whole window; with a mask, over the mask brought down to the scale.

    Args:
        shown: `[H, W, 3]`.
        wanted: `[H, W, 3]`.
        mask: `[H, W]`, pixels that count; None: all.

    Raises:
        UsageError: other shapes, too small, or an empty mask.

    Source: Wang, Simoncelli, Bovik 2003, Multi-scale structural similarity.
    """
    if shown.shape != wanted.shape:
        raise UsageError("picture-shape", f"expected {wanted.shape}, found {shown.shape}")
    a, b = shown.astype(np.float64), wanted.astype(np.float64)
    share = np.ones(shown.shape[:2]) if mask is None else mask.astype(np.float64)
    if not share.any():
        raise UsageError("empty-mask", "expected a mask with at least one pixel, found none")
    count = scales_within(min(shown.shape[:2]))
    exponents = np.asarray(WEIGHTS[:count]) / sum(WEIGHTS[:count])
    result = 1.0
    for scale, exponent in enumerate(exponents):
        luminance, contrast = _maps(a, b)
        found = luminance * contrast if scale == count - 1 else contrast
        result *= max(0.0, _mean(found, share)) ** exponent
        a, b, share = (_halved(plane) for plane in (a, b, share))
    return float(result)


def _mean(plane: Float64, share: Float64) -> float:
    """Return the weighted mean over channels and pixels whose window lies inside."""
    inside = (slice(RADIUS, -RADIUS),) * 2
    weight = share[inside]
    if not weight.any():  # a mask at the rim only
        inside, weight = (slice(None), slice(None)), share
    return float((plane[inside] * weight[..., None]).sum() / weight.sum() / plane.shape[2])


def _maps(a: Float64, b: Float64) -> tuple[Float64, Float64]:
    """Return luminance, and contrast times structure, `[H, W, 3]` each."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance, (2 * covariance + C2) / (var_a + var_b + C2)


@lru_cache
def _window() -> Float64:
    taps = np.exp(-np.square(np.arange(-RADIUS, RADIUS + 1)) / (2 * SIGMA**2))
    return np.asarray(taps / taps.sum())


def _blurred(plane: Float64) -> Float64:
    try:
        from scipy.ndimage import correlate1d
    except ImportError as error:
        raise MissingExtraError("scipy", extra="bench") from error
    taps = _window()
    return np.asarray(correlate1d(correlate1d(plane, taps, axis=0), taps, axis=1))


def _halved(plane: Float64) -> Float64:
    """Return means over 2 x 2 pixels; an odd rim falls away."""
    height, width = (size // 2 * 2 for size in plane.shape[:2])
    cut = plane[:height, :width]
    return np.asarray((cut[::2, ::2] + cut[1::2, ::2] + cut[::2, 1::2] + cut[1::2, 1::2]) / 4)
