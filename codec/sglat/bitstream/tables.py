"""Frequencies of the entropy coder, made from integers alone (SPEC.md sections 5.2, 5.4, A)."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import REACH, SCALES, TOTAL

THETA: Final = (
    *(181476666, 250725673, 313605438, 369532315, 441428461, 518858980, 580285511, 629906582),
    *(688462200, 746405110, 789352154, 822409291, 859785240, 895235379, 920630448, 939710196),
    *(960826400, 980434429, 994243138, 1004492976, 1015716246, 1026027998, 1033228165),
    *(1038540380, 1044326105, 1049613821, 1053290223, 1055994433, 1058931828, 1061609278),
    *(1063466861, 1064831155, 1066311114, 1067658317, 1068591993, 1069277207, 1070020019),
    *(1070695750, 1071163814, 1071507190),
)

SPAN: Final = 16 * (REACH + 1)  # N: reach of the tables in sixteenths of a step
SYMBOLS: Final = 2 * REACH + 3
LOW_ESCAPE: Final = 0
HIGH_ESCAPE: Final = SYMBOLS - 1
ZERO_SYMBOL: Final = REACH + 1
MIN_MAGNITUDE: Final = 128
MAX_MAGNITUDE: Final = 65535


def scale_middle(index: int) -> int:
    """Return MID(index): the middle of a scale in steps · 4096."""
    return (9 + 2 * (index % 4)) << (4 + index // 4)


@cache
def cumulative() -> NDArray[np.int64]:
    """Return F, `[SCALES, 2 · SPAN + 1]`; column `SPAN + x` holds F at x sixteenths of a step."""
    theta = np.array(THETA, dtype=np.int64)
    power = np.empty((len(THETA), SPAN + 1), dtype=np.int64)
    power[:, 0] = 1 << 30
    for n in range(SPAN):
        power[:, n + 1] = (power[:, n] * theta) >> 30
    mix = (7 * power[:SCALES] + power[4:]) >> 3
    # A floor of one per sixteen sixteenths keeps every symbol's frequency above zero.
    floor = ((SPAN - np.arange(SPAN + 1)) >> 4) + 1
    tail = ((mix * (TOTAL // 2 - REACH - 2)) >> 30) + floor
    return np.concatenate([tail[:, ::-1], TOTAL - tail[:, 1:]], axis=1)


@cache
def boundaries() -> NDArray[np.int64]:
    """Return B, `[SCALES · 16, SYMBOLS + 1]`, in rows of 16 · scale + phase + 8."""
    table = np.zeros((SCALES, 16, SYMBOLS + 1), dtype=np.int64)
    steps = 16 * (np.arange(1, SYMBOLS) - 1 - REACH)
    for phase in range(-8, 8):
        table[:, phase + 8, 1:SYMBOLS] = cumulative()[:, SPAN + steps - 8 - phase]
    table[:, :, SYMBOLS] = TOTAL
    return table.reshape(SCALES * 16, SYMBOLS + 1)


@cache
def boundary_rows() -> list[list[int]]:
    """Return `boundaries` as lists, for the scalar coder."""
    rows: list[list[int]] = boundaries().tolist()
    return rows


@cache
def scale_rows() -> NDArray[np.int64]:
    """Return 16 · scale + 8 for every magnitude 0 … MAX_MAGNITUDE (SPEC.md section 5.4)."""
    magnitude = np.maximum(np.arange(MAX_MAGNITUDE + 1), MIN_MAGNITUDE)
    exponent = np.floor(np.log2(magnitude + 0.5)).astype(np.int64) - 2
    return 16 * (4 * (exponent - 5) + (magnitude >> exponent) - 4) + 8


@cache
def scale_row_list() -> list[int]:
    """Return `scale_rows` as a list, for the scalar coder."""
    rows: list[int] = scale_rows().tolist()
    return rows
