"""Which frames a person is tuned on: few, and between them like all others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sglat.networks.face_regions import feature_weights

MOST_COMPARED: Final = 1500  # frames of a long clip that are compared with each other
LOOK_SIDE: Final = 32  # pixels of the pictures that are compared
FEATURE_WEIGHT: Final = 2.0  # extra, of eyes and mouth in them
SWEEPS: Final = 3  # after the first choice; a fourth changes next to nothing


def spread_frames(signature: Tensor, count: int, first: int, usable: Tensor) -> list[int]:
    """Choose frames farthest from each other in motion.

    Args:
        signature: motion of every frame in comparable units, `[T, D]`.
        count: how many.
        first: the ID frame; always chosen.
        usable: `[T]` bool.
    """
    chosen = [first]
    distance = torch.cdist(signature, signature[first][None])[:, 0]
    while len(chosen) < min(count, int(usable.sum())):
        distance = torch.where(usable, distance, torch.full_like(distance, -1.0))
        best = int(distance.argmax())
        if distance[best] <= 0:
            break
        chosen.append(best)
        distance = torch.minimum(distance, torch.cdist(signature, signature[best][None])[:, 0])
    return chosen


def compared_frames(usable: Tensor, first: int) -> list[int]:
    """Return the frames among which tuning frames are sought: the ID frame first, then usable ones
    (`[T]` bool) in order, evenly spread where there are many."""
    rows = usable.nonzero()[:, 0]
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), MOST_COMPARED)).long()]
    return [first, *(int(row) for row in rows if row != first)]


def look_and_motion(pictures: Iterable[Tensor], points: Tensor, motion: Tensor) -> Tensor:
    """Return what makes frames alike, `[M, D]`: their small pictures and their motion, by halves.

    Motion alone does not see light, hair and background, pictures alone hardly see lids.

    Args:
        pictures: parts of the crops `[n, 3, H, W]`, M in all.
        points: landmarks in crop units, `[M, 478, 2]`.
        motion: in comparable units, `[M, 34]`.
    """
    weights = feature_weights(points[:: max(1, len(points) // 64)], LOOK_SIDE, FEATURE_WEIGHT)
    scale = weights.mean(0, keepdim=True).sqrt()
    small = [F.interpolate(part, size=LOOK_SIDE, mode="area") * scale for part in pictures]
    halves = (torch.cat(small).flatten(1), motion)
    return torch.cat([_of_unit_spread(half) for half in halves], 1)


def _of_unit_spread(values: Tensor) -> Tensor:
    spread = (values - values.mean(0)).square().sum(1).mean().sqrt()
    return values / spread.clamp_min(1e-6)


def typical_frames(signature: Tensor, count: int) -> list[int]:
    """Choose rows so that every row has a chosen one near it.

    Least sum of fourth powers of the distance to the nearest chosen row (k-medoids by greedy
    choice, then exchanges, Kaufman and Rousseeuw 1990,
    https://doi.org/10.1002/9780470316801.ch2). Frames farthest apart are rarities of a clip, and a
    person who is tuned on rarities alone is worse on all others; with squares a clip's one shut
    pair of eyes is like no tuned frame. Fourth powers leave the mean squared distance as it is,
    within some percent, and bring rare frames nearer. The result is ordered farthest first.

    Args:
        signature: `[M, D]`; the first row is always chosen.
        count: how many; fewer are returned where rows are equal.
    """
    compared = signature.double()
    cost = torch.cdist(compared, compared).pow(4)  # of one frame standing for another
    chosen = [0]
    while len(chosen) < min(count, len(cost)):
        chosen.append(_best_addition(cost, chosen))
    for _ in range(SWEEPS):
        before = list(chosen)
        for place in range(1, len(chosen)):
            rest = chosen[:place] + chosen[place + 1 :]
            chosen[place] = _best_addition(cost, rest)
        if chosen == before:
            break
    distinct = torch.ones(len(chosen), dtype=torch.bool)
    order = spread_frames(compared[chosen], len(chosen), 0, distinct)
    return [chosen[at] for at in order]


def _best_addition(cost: Tensor, chosen: list[int]) -> int:
    """Return the row whose choice leaves the least cost beside those already chosen."""
    left = torch.minimum(cost[:, chosen].amin(1)[:, None], cost).sum(0)
    left[chosen] = torch.inf
    return int(left.argmin())
