"""Latents as integers: row prediction, and the writer's search for a step that fits a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import MAX_VALUE
from sglat.bitstream.records import Float32, QuantizedTensor
from sglat.errors import FormatError

Ints = NDArray[np.int64]

FULL_WEIGHT: Final = 16
_SEARCH_STEPS: Final = 24  # halvings of the step's logarithm: 1e-6 relative


def predict_rows(residuals: Ints | NDArray[np.int32], weights: Sequence[int]) -> Ints:
    """Return rows from residuals, `[L, D]` (SPEC.md section 6.2)."""
    rows = residuals.astype(np.int64)
    for i, weight in enumerate(weights):
        if weight:
            # Bounded residuals keep this far inside 64 bits only row by row, so stop early.
            if np.abs(rows[i - 1]).max(initial=0) > MAX_VALUE:
                raise FormatError(
                    "bad-value", f"expected integers within ±{MAX_VALUE}, found a larger one"
                )
            rows[i] += (weight * rows[i - 1] + 8) >> 4
    return rows


def residual_rows(rows: Ints, weights: Sequence[int]) -> Ints:
    """Return residuals from rows, `[L, D]`; the reverse of `predict_rows`."""
    residuals = rows.astype(np.int64)
    for i, weight in enumerate(weights):
        if weight:
            residuals[i] -= (weight * rows[i - 1] + 8) >> 4
    return residuals


def _cost(residuals: Ints) -> float:
    """Return a stand-in for the bits of residuals."""
    return float(np.log2(1 + 2 * np.abs(residuals)).sum())


def choose_weights(rows: Ints) -> list[int]:
    """Return the row weights that make the residuals of `[L, D]` cheapest."""
    chosen = [0]
    for i in range(1, len(rows)):
        options = range(FULL_WEIGHT + 1)
        costs = [_cost(rows[i] - ((weight * rows[i - 1] + 8) >> 4)) for weight in options]
        chosen.append(int(np.argmin(costs)))
    return chosen


def quantize_tensor(values: Float32, step: float) -> QuantizedTensor:
    """Return the nearest integers; a step is first rounded to f32."""
    exact = float(np.float32(step))
    integers = np.rint(np.asarray(values, dtype=np.float64) / exact)
    if np.abs(integers).max(initial=0) > MAX_VALUE:
        raise FormatError("bad-value", f"expected at most {MAX_VALUE} steps, found more")
    return QuantizedTensor(values=integers.astype(np.int32), step=exact)


def fit_latent(offset: Float32, budget_bytes: int) -> QuantizedTensor:
    """Return a latent offset, `[L, D]`, with the finest step whose layer fits a budget.

    Raises:
        FormatError: `bad-layer` if the budget is smaller than an empty layer.
    """
    from sglat.bitstream.layers import pack_layer_body
    from sglat.bitstream.records import LatentLayer

    peak = max(float(np.abs(offset).max()), 1e-6)
    coarse, fine = np.log2(4 * peak), np.log2(peak) - 18

    def quantized(exponent: float) -> tuple[QuantizedTensor, int]:
        tensor = quantize_tensor(offset, 2.0**exponent)
        return tensor, len(pack_layer_body(LatentLayer(latent=tensor)))

    best, size = quantized(coarse)
    if size > budget_bytes:
        raise FormatError("bad-layer", f"expected a budget of {size} bytes or more")
    for _ in range(_SEARCH_STEPS // 2):
        middle = (coarse + fine) / 2
        tensor, size = quantized(middle)
        if size <= budget_bytes:
            best, coarse = tensor, middle
        else:
            fine = middle
    return best
