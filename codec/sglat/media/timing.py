"""Time stamps reduced to the smallest exact form."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import gcd


def constant_step(pts: Sequence[int]) -> int | None:
    """Return the ticks between frames when all gaps are equal, else None.

    One frame has no gap and counts as variable.
    """
    if len(pts) < 2:
        return None
    step = pts[1] - pts[0]
    equal = all(later - earlier == step for earlier, later in pairwise(pts))
    return step if equal else None


def reduce_timing(pts: Sequence[int], time_base: Fraction) -> tuple[Fraction, list[int]]:
    """Return the coarsest time base that still holds every time stamp exactly, and the stamps.

    12800 ticks a second at 512 ticks a frame become 25 ticks a second at 1 tick a frame.
    """
    common = gcd(*pts) if pts else 1
    if common <= 1:
        return time_base, list(pts)
    return time_base * common, [stamp // common for stamp in pts]
