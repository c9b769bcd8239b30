"""Fréchet distance between two sets of features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError, UsageError


def frechet_distance(shown: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Return the squared Fréchet distance of two Gaussians fitted to features; 0 for equal sets.

    Args:
        shown: `[N, D]`, more samples than dimensions.
        wanted: `[M, D]`, the same.

    Raises:
        UsageError: too few samples for a covariance of full rank.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6.
    """
    try:
        from scipy.linalg import eigvalsh
    except ImportError as error:
        raise MissingExtraError("scipy", extra="bench") from error
    a, b = np.asarray(shown, np.float64), np.asarray(wanted, np.float64)
    dimensions = a.shape[1]
    if min(len(a), len(b)) <= dimensions:
        raise UsageError(
            "few-samples", f"expected more than {dimensions} frames, found {min(len(a), len(b))}"
        )
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = _square_root(first)
    # trace of (C1 C2)^1/2 = sum of the roots of the eigenvalues of C1^1/2 C2 C1^1/2
    cross = np.sqrt(np.clip(eigvalsh(root @ second @ root), 0, None)).sum()
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return float(max(0.0, gap + np.trace(first) + np.trace(second) - 2 * cross))


def _square_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
