"""How far one network's feature maps are from another's: in themselves and in how they change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EVEN_SHARE = 0.3  # of the weight that all channels share alike; later layers need them all
CHANGE_FLOOR = 2e-3  # of the weighted change of a pair, below which it counts as small, not as off


def channel_weights(heads: Sequence[Tensor]) -> list[Tensor]:
    """Return weights `[1, C, 1, 1]` that sum to 1, most of it as the distance weighs channels."""
    return [
        (1 - EVEN_SHARE) * head / head.sum() + EVEN_SHARE / head.numel()
        for head in (h.clamp(min=0) for h in heads)
    ]


def unexplained(
    found: Sequence[Tensor], wanted: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """Return the share of the variance of `wanted` that `found` misses, mean over the levels.

    Args:
        found: `[N, C, h, w]`, one a level.
        wanted: of the same shapes.
        weights: of the channels, `[1, C, 1, 1]`.
    """
    shares = []
    for one, other, weight in zip(found, wanted, weights, strict=True):
        spread = (other - other.mean((0, 2, 3), keepdim=True)).square() * weight
        shares.append(((one - other).square() * weight).sum() / spread.sum())
    return torch.stack(shares).mean()


def unexplained_change(
    found: tuple[Sequence[Tensor], Sequence[Tensor]],
    wanted: tuple[Sequence[Tensor], Sequence[Tensor]],
    weights: Sequence[Tensor],
) -> Tensor:
    """Return the share of each pair's change of features that is missed, mean over all.

    Args:
        found: features of the first and of the second pictures, `[N, C, h, w]` a level.
        wanted: those that are to be found.
        weights: of the channels, `[1, C, 1, 1]`.
    """
    shares = []
    for level, weight in enumerate(weights):
        change = wanted[1][level] - wanted[0][level]
        off = found[1][level] - found[0][level] - change
        missed = (off.square() * weight).sum(1).mean((1, 2))
        size = (change.square() * weight).sum(1).mean((1, 2))
        shares.append((missed / (size + CHANGE_FLOOR * weight.max())).mean())
    return torch.stack(shares).mean()
