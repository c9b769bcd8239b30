"""3x3 convolution by Winograd's minimal filtering: 2.25 multiplications a pixel instead of 9.

Tiles of 4x4 outputs are computed from 6x6 inputs: both are evaluated as polynomials in six points,
multiplied there, and interpolated. Everything is a matrix product.

Source: Lavin and Gray 2016, https://arxiv.org/abs/1509.09308, section 4.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch import Tensor

TILE: Final = 4  # outputs per tile and direction
_INPUTS: Final = TILE + 2
# The sixth point is infinity. On values of deviation 1 this set's rounding error was 1.7e-5, that
# of the usual 0, 1, -1, 2, -2 4.6e-5, the direct sum's 1.3e-5. Why points matter: Alam et al. 2022,
# https://arxiv.org/abs/2201.10369.
_POINTS: Final = (0.0, 1.0, -1.0, 0.5, -2.0)


def transform_filters(weight: Tensor) -> Tensor:
    """Return filters `[O, I, 3, 3]` evaluated in all pairs of points, `[36, I, O]`."""
    _, filters, _ = _matrices()
    points = filters.to(weight.device)
    values = torch.einsum("ia,ocab,jb->ijco", points, weight.double(), points)
    return values.flatten(0, 1).to(weight.dtype).contiguous()


def convolve(x: Tensor, transformed: Tensor) -> Tensor:
    """Convolve without padding.

    Args:
        x: `[N, I, H + 2, W + 2]`, H and W multiples of 4, best in channels_last.
        transformed: filters, `[36, I, O]`, as `transform_filters` returns them.

    Returns:
        `[N, O, H, W]` in channels_last.
    """
    outputs, _, inputs = (matrix.to(x) for matrix in _matrices())
    n, channels = x.shape[:2]
    rows, columns = (x.shape[2] - 2) // TILE, (x.shape[3] - 2) // TILE
    tiles = x.permute(0, 2, 3, 1).unfold(1, _INPUTS, TILE).unfold(2, _INPUTS, TILE)
    values = tiles.permute(4, 5, 0, 1, 2, 3).reshape(_INPUTS**2, -1)  # [36, N rows columns I]
    values = torch.kron(inputs, inputs) @ values
    values = torch.bmm(values.view(_INPUTS**2, -1, channels), transformed)  # [36, N tiles, O]
    values = torch.kron(outputs, outputs) @ values.flatten(1)  # [16, N tiles O]
    pixels = values.view(TILE, TILE, n, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
    return pixels.reshape(n, rows * TILE, columns * TILE, -1).permute(0, 3, 1, 2)


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Return the output `[4, 6]`, filter `[6, 3]` and input `[6, 6]` transforms, float64."""

    with torch.inference_mode(False):  # the cache must serve callers outside inference mode too
        return _toom_cook()


def _toom_cook() -> tuple[Tensor, Tensor, Tensor]:
    def powers(count: int) -> Tensor:
        rows = [[point**power for power in range(count)] for point in _POINTS]
        return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)

    inputs = torch.linalg.inv(powers(_INPUTS)).T  # filtering is interpolation, transposed
    scale = inputs.abs().amax(dim=1)  # shared out so that no factor grows large
    return powers(TILE).T, powers(3) * scale[:, None], inputs / scale[:, None]
