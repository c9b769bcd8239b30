"""Plain integer streams: many lanes for speed, one average of magnitudes per lane (SPEC.md 5.5)."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import DEFAULT_SPREAD, LEAST_STATE, REACH, TOTAL_BITS
from sglat.bitstream.rans import (
    HIGH_ESCAPE,
    LOW_ESCAPE,
    MAX_MAGNITUDE,
    REFILL_SHIFT,
    STATE_BYTES,
    SharedLanes,
    StreamReader,
    boundaries,
    pack_escapes,
    pack_symbols,
    scale_middle,
    scale_row_list,
    scale_rows,
)

Ints: TypeAlias = NDArray[np.int64]
Narrow: TypeAlias = NDArray[np.int32]  # decoded: an escape has 28 bits, and memory is bounded by it

BASE: Final = 81920  # a tenth of a step: rare ones among zeros need wider tables than their mean
FAST_WEIGHT: Final = 40
SLOW_WEIGHT: Final = 208
FAST_RATE: Final = 3
RATE_STEPS: Final = ((4, 2), (12, 3), (28, 4), (60, 5))  # below this many integers: this rate
LAST_RATE: Final = 7
MAX_AMPLITUDE: Final = 4095  # 256 steps: keeps one wild value from blinding the averages
SCALAR_SYMBOLS: Final = 1 << 15  # a tenth of a second in the scalar coder
SYMBOLS_PER_LANE: Final = 2048  # a lane costs three bytes
MAX_LANE_BITS: Final = 8
_VECTOR_LANES: Final = 8  # below this the scalar coder is faster


def slow_rate(count: int) -> int:
    """Return the shift of the slow average after `count` integers."""
    return next((rate for bound, rate in RATE_STEPS if count < bound), LAST_RATE)


def choose_lanes(count: int) -> int:
    """Return log2 of the number of lanes that a stream of `count` integers should have."""
    if count < SCALAR_SYMBOLS:
        return 0
    return min(MAX_LANE_BITS, (count // SYMBOLS_PER_LANE).bit_length())


def lane_counts(count: int, lanes: int) -> tuple[int, list[int]]:
    """Return the lane width and how many integers each lane holds."""
    width = -(-count // lanes)
    return width, [max(0, min(count, (lane + 1) * width) - lane * width) for lane in range(lanes)]


def unpack_integers(
    data: bytes, count: int, *, lane_bits: int = 0, spread: int = DEFAULT_SPREAD
) -> Narrow:
    """Decode a plain integer stream, `[count]`."""
    if 1 << lane_bits >= _VECTOR_LANES:
        return _unpack_lanes(data, count, 1 << lane_bits, spread)
    return unpack_integers_scalar(data, count, lane_bits=lane_bits, spread=spread)


def unpack_integers_scalar(
    data: bytes, count: int, *, lane_bits: int = 0, spread: int = DEFAULT_SPREAD
) -> Narrow:
    """Decode like `unpack_integers`, one integer after the other; the slow twin."""
    lanes = 1 << lane_bits
    reader = StreamReader(data, lanes)
    width, counts = lane_counts(count, lanes)
    out = np.zeros((lanes, width), dtype=np.int32)
    rows = scale_row_list()
    fast = [scale_middle(spread)] * lanes
    slow = list(fast)
    for i in range(width):
        rate = slow_rate(i)
        for lane in range(lanes):
            if i >= counts[lane]:
                break
            magnitude = (BASE + FAST_WEIGHT * fast[lane] + SLOW_WEIGHT * slow[lane]) >> 8
            value = reader.residual(rows[min(magnitude, MAX_MAGNITUDE)], lane)
            amplitude = min(16 * abs(value), MAX_AMPLITUDE) << 8
            fast[lane] += (amplitude - fast[lane]) >> FAST_RATE
            slow[lane] += (amplitude - slow[lane]) >> rate
            out[lane, i] = value
    reader.finish()
    return out.reshape(-1)[:count]


class _Averages:
    """Fast and slow averages of all lanes, and the table rows they choose."""

    def __init__(self, lanes: int, spread: int) -> None:
        self.fast = np.full(lanes, scale_middle(spread), dtype=np.int64)
        self.slow = self.fast.copy()
        self._rows = scale_rows()

    def rows(self, active: int) -> Ints:
        magnitude = BASE + FAST_WEIGHT * self.fast[:active] + SLOW_WEIGHT * self.slow[:active]
        rows: Ints = self._rows[np.minimum(magnitude >> 8, MAX_MAGNITUDE)]
        return rows

    def update(self, values: Ints, rate: int) -> None:
        active = len(values)
        amplitude = np.minimum(np.abs(values) << 4, MAX_AMPLITUDE) << 8
        self.fast[:active] += (amplitude - self.fast[:active]) >> FAST_RATE
        self.slow[:active] += (amplitude - self.slow[:active]) >> rate


def _active_lanes(counts: list[int], width: int) -> list[int]:
    """Return for each position how many lanes still hold integers, always the first ones."""
    filled = np.array(counts)
    return [int(np.count_nonzero(filled > i)) for i in range(width)]


def _unpack_lanes(data: bytes, count: int, lanes: int, spread: int) -> Narrow:
    """Decode all lanes together, one position at a time."""
    reader = SharedLanes(data, lanes)
    width, counts = lane_counts(count, lanes)
    out = np.zeros((width, lanes), dtype=np.int32)
    averages = _Averages(lanes, spread)
    everyone = np.arange(lanes)
    for i, active in enumerate(_active_lanes(counts, width)):
        value = reader.residual(everyone[:active], averages.rows(active))
        averages.update(value, slow_rate(i))
        out[i, :active] = value
    reader.finish()
    return np.ascontiguousarray(out.T).reshape(-1)[:count]


def pack_integers(values: Ints, *, lane_bits: int = 0, spread: int = DEFAULT_SPREAD) -> bytes:
    """Encode integers, `[n]`, as a plain integer stream; the reverse of `unpack_integers`."""
    if lane_bits == 0:
        return _pack_one_lane(values, spread)
    lanes = 1 << lane_bits
    count = len(values)
    width, counts = lane_counts(count, lanes)
    grid = np.zeros((lanes, width), dtype=np.int64)
    grid.reshape(-1)[:count] = values
    averages = _Averages(lanes, spread)
    table = boundaries()
    symbols: list[tuple[Ints, Ints]] = []
    escapes: list[int] = []
    for i, active in enumerate(_active_lanes(counts, width)):
        value = grid[:active, i]
        rows = averages.rows(active)
        symbol = np.clip(value + REACH + 1, LOW_ESCAPE, HIGH_ESCAPE)
        escapes += (np.abs(value[np.abs(value) > REACH]) - REACH - 1).tolist()
        start = table[rows, symbol]
        symbols.append((start, table[rows, symbol + 1] - start))
        averages.update(value, slow_rate(i))
    return _pack_lanes(symbols, lanes) + pack_escapes(escapes)


def _pack_one_lane(values: Ints, spread: int) -> bytes:
    """Encode one lane; adaptation runs in plain integers, which is faster than arrays of one."""
    table_rows = scale_row_list()
    fast = slow = scale_middle(spread)
    chosen: list[int] = []
    amplitudes: list[int] = (np.minimum(np.abs(values) << 4, MAX_AMPLITUDE) << 8).tolist()
    for i, amplitude in enumerate(amplitudes):
        magnitude = (BASE + FAST_WEIGHT * fast + SLOW_WEIGHT * slow) >> 8
        chosen.append(table_rows[min(magnitude, MAX_MAGNITUDE)])
        fast += (amplitude - fast) >> FAST_RATE
        slow += (amplitude - slow) >> (LAST_RATE if i >= RATE_STEPS[-1][0] else slow_rate(i))
    rows = np.array(chosen, dtype=np.int64)
    symbol = np.clip(values + REACH + 1, LOW_ESCAPE, HIGH_ESCAPE)
    start = boundaries()[rows, symbol]
    frequency = boundaries()[rows, symbol + 1] - start
    escapes = (np.abs(values[np.abs(values) > REACH]) - REACH - 1).tolist()
    return pack_symbols(start.tolist(), frequency.tolist()) + pack_escapes(escapes)


def _pack_lanes(symbols: list[tuple[Ints, Ints]], lanes: int) -> bytes:
    """Run the coder backwards over all lanes; return states and words."""
    states = np.full(lanes, LEAST_STATE, dtype=np.int64)
    words: list[bytes] = []
    for start, frequency in reversed(symbols):
        state = states[: len(start)]
        spill = state >= frequency << REFILL_SHIFT
        words.append(state[spill].astype("<u2").tobytes())
        state = np.where(spill, state >> 16, state)
        states[: len(start)] = ((state // frequency) << TOTAL_BITS) + state % frequency + start
    front = b"".join(state.to_bytes(STATE_BYTES, "little") for state in states.tolist())
    return front + b"".join(reversed(words))
