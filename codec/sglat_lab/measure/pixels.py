"""Pixel metrics of the paper (supplement F.2): L1, PSNR, SSIM, on uint8 pictures, in a mask."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError, UsageError

Pictures = NDArray[np.uint8]
Mask = NDArray[np.bool_]

PEAK: Final = 255.0


def l1(shown: Pictures, wanted: Pictures, mask: Mask | None = None) -> float:
    """Return the mean absolute difference over pixels and channels, 0 to 255.

    Args:
        shown: `[H, W, 3]`.
        wanted: `[H, W, 3]`.
        mask: `[H, W]`, pixels that count; None: all.
    """
    difference = np.abs(_difference(shown, wanted))
    return float(_selected(difference, mask).mean())


def psnr_db(shown: Pictures, wanted: Pictures, mask: Mask | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite for equal pictures.

    Args: as `l1`.
    """
    error = float(np.square(_selected(_difference(shown, wanted), mask)).mean())
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(shown: Pictures, wanted: Pictures, mask: Mask | None = None) -> float:
    """Return the structural similarity, 1 for equal pictures.

    Gaussian window of sigma 1.5, mean over channels; with a mask, the mean of the map inside.

    Source: Wang et al. 2004, through scikit-image.

    Args: as `l1`.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingExtraError("scikit-image", extra="bench") from error
    _difference(shown, wanted)
    _, plane = structural_similarity(
        wanted, shown, data_range=PEAK, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    return float(_selected(plane, mask).mean())


def _difference(shown: Pictures, wanted: Pictures) -> NDArray[np.float64]:
    if shown.shape != wanted.shape or shown.dtype != np.uint8 or wanted.dtype != np.uint8:
        raise UsageError(
            "picture-shape",
            f"expected two uint8 pictures of one shape, found {shown.dtype} {shown.shape} and "
            f"{wanted.dtype} {wanted.shape}",
        )
    return shown.astype(np.float64) - wanted


def _selected(values: NDArray[np.float64], mask: Mask | None) -> NDArray[np.float64]:
    if mask is None:
        return values
    if not mask.any():
        raise UsageError("empty-mask", "expected a mask with at least one pixel, found none")
    return values[mask]
