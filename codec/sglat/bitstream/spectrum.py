"""The cosine transform of the filters of spectral weight deltas (SPEC.md section 6.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cosines(size: int) -> NDArray[np.float64]:
    """Return the orthonormal discrete cosine transform (DCT-II), frequencies by places.

    Source: Ahmed, Natarajan and Rao 1974, https://doi.org/10.1109/T-C.1974.223784.
    """
    frequency, place = np.arange(size)[:, None], np.arange(size)[None]
    waves = np.cos(np.pi * frequency * (2 * place + 1) / (2 * size))
    scale = np.where(frequency == 0, 1.0, 2.0) / size
    result: NDArray[np.float64] = waves * np.sqrt(scale)
    return result


def filter_waves(height: int, width: int) -> NDArray[np.float32]:
    """Return the transform of filters, `[height · width, height · width]`: frequencies by places,
    vertical first."""
    return np.kron(cosines(height), cosines(width)).astype(np.float32)
