"""The rANS coder: frequencies from integers alone, stream layout, readers (SPEC.md 5 and A)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import LEAST_STATE, REACH, SCALES, TOTAL, TOTAL_BITS
from sglat.errors import FormatError

STATE_BYTES: Final = 5
REFILL_SHIFT: Final = 40 - TOTAL_BITS  # a state of at least frequency << 25 would outgrow 40 bits
MAX_ESCAPE_BYTES: Final = 4

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
MIN_MAGNITUDE: Final = 128
MAX_MAGNITUDE: Final = 65535

Ints = NDArray[np.int64]


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


def stream_error(found: str) -> FormatError:
    """Return the error of a stream that does not end as it must."""
    return FormatError("bad-stream", f"expected a complete entropy-coded stream, found {found}")


def read_escape(data: bytes, front: int, back: int) -> tuple[int, int]:
    """Return the escape that ends before `back`, not reaching before `front`, and its start."""
    value = 0
    for at in range(MAX_ESCAPE_BYTES):
        if back <= front:
            raise stream_error("no more escape bytes")
        back -= 1
        byte = data[back]
        value |= (byte & 127) << (7 * at)
        if byte < 128:
            if byte == 0 and at:
                raise stream_error("an escape that is not in its shortest form")
            return value, back
    raise stream_error("an escape longer than four bytes")


class StreamReader:
    """Words from the front and escapes from the back of one stream of `lanes` lanes."""

    def __init__(self, data: bytes, lanes: int = 1) -> None:
        self._data = data
        self._front = STATE_BYTES * lanes
        self._back = len(data)
        if self._back < self._front:
            raise stream_error(f"{len(data)} bytes for {lanes} coder states")
        starts = range(0, self._front, STATE_BYTES)
        self.states = [int.from_bytes(data[at : at + STATE_BYTES], "little") for at in starts]
        if min(self.states) < LEAST_STATE:
            raise stream_error("a start state below its least value")
        self._rows = boundary_rows()

    def _advance(self, lane: int, state: int) -> None:
        if state < LEAST_STATE:
            front = self._front
            if front + 2 > self._back:
                raise stream_error("no more words")
            state = state << 16 | self._data[front] | self._data[front + 1] << 8
            self._front = front + 2
        self.states[lane] = state

    def binary(self, first: int, lane: int = 0) -> bool:
        """Read a two-way symbol; True for the first, which has frequency `first`."""
        state = self.states[lane]
        slot = state & (TOTAL - 1)
        if slot < first:
            self._advance(lane, first * (state >> TOTAL_BITS) + slot)
            return True
        self._advance(lane, (TOTAL - first) * (state >> TOTAL_BITS) + slot - first)
        return False

    def residual(self, row: int, lane: int = 0) -> int:
        """Read a residual to the centre with the frequencies of one row of `boundaries`."""
        state = self.states[lane]
        slot = state & (TOTAL - 1)
        bounds = self._rows[row]
        symbol = bisect_right(bounds, slot) - 1
        start = bounds[symbol]
        self._advance(lane, (bounds[symbol + 1] - start) * (state >> TOTAL_BITS) + slot - start)
        if symbol == LOW_ESCAPE:
            return -REACH - 1 - self._escape()
        if symbol == HIGH_ESCAPE:
            return REACH + 1 + self._escape()
        return symbol - 1 - REACH

    def _escape(self) -> int:
        value, self._back = read_escape(self._data, self._front, self._back)
        return value

    def finish(self) -> None:
        """Check that states, words and escapes end where the writer began."""
        if any(state != LEAST_STATE for state in self.states):
            raise stream_error("a wrong final state")
        if self._front != self._back:
            raise stream_error(f"{self._back - self._front} bytes left over")


class LaneReader:
    """Reads one symbol in each of many lanes at a time; the fast twin of `StreamReader`.

    What a lane reads words and escapes from is a subclass's matter; it gives the first coder
    states.
    """

    def __init__(self, data: bytes, states: Sequence[int]) -> None:
        self._data = data
        self._states = np.array(states, dtype=np.int64)
        self._table = boundaries()

    def _refill(self, lanes: Ints, state: Ints) -> None:
        """Read a word into each state that is too small, in place."""
        raise NotImplementedError

    def _escape(self, lane: int) -> int:
        """Read an escape of one lane."""
        raise NotImplementedError

    def _advance(self, lanes: Ints, state: Ints) -> None:
        self._refill(lanes, state)
        self._states[lanes] = state

    def binary(self, lanes: Ints, first: Ints) -> NDArray[np.bool_]:
        """Read a two-way symbol in each lane; True for the first."""
        state = self._states[lanes]
        slot = state & (TOTAL - 1)
        is_first = slot < first
        frequency = np.where(is_first, first, TOTAL - first)
        start = np.where(is_first, 0, first)
        self._advance(lanes, frequency * (state >> TOTAL_BITS) + slot - start)
        return is_first

    def residual(self, lanes: Ints, rows: Ints) -> Ints:
        """Read a residual in each lane with the frequencies of a row of `boundaries`."""
        bounds = self._table[rows]
        state = self._states[lanes]
        slot = state & (TOTAL - 1)
        symbol = (bounds <= slot[:, None]).sum(axis=1) - 1
        at = np.arange(len(lanes))
        start = bounds[at, symbol]
        frequency = bounds[at, symbol + 1] - start
        self._advance(lanes, frequency * (state >> TOTAL_BITS) + slot - start)
        value: Ints = symbol - 1 - REACH
        for escaped in np.flatnonzero((symbol == LOW_ESCAPE) | (symbol == HIGH_ESCAPE)).tolist():
            extra = self._escape(int(lanes[escaped]))
            value[escaped] += extra if symbol[escaped] == HIGH_ESCAPE else -extra
        return value


class SharedLanes(LaneReader):
    """Lanes of one stream: words follow each other in the order of lanes."""

    def __init__(self, data: bytes, lanes: int) -> None:
        super().__init__(data, StreamReader(data, lanes).states)
        self._source = np.frombuffer(data, dtype=np.uint8)
        self._front, self._back = STATE_BYTES * lanes, len(data)

    def _refill(self, lanes: Ints, state: Ints) -> None:
        short = state < LEAST_STATE
        end = self._front + 2 * int(np.count_nonzero(short))
        if end > self._back:
            raise stream_error("no more words")
        state[short] = state[short] << 16 | self._source[self._front : end].view("<u2")
        self._front = end

    def _escape(self, lane: int) -> int:
        value, self._back = read_escape(self._data, self._front, self._back)
        return value

    def finish(self) -> None:
        """Check that states, words and escapes end where the writer began."""
        if self._front != self._back:
            raise stream_error(f"{self._back - self._front} bytes left over")
        if (self._states != LEAST_STATE).any():
            raise stream_error("a wrong final state")


class SeparateLanes(LaneReader):
    """Lanes of one stream each, whose damage is found late: `is_overrun`, `is_finished`.

    At most `most_symbols` are read between two calls of `is_overrun`.
    """

    def __init__(self, streams: Sequence[bytes], most_symbols: int) -> None:
        super().__init__(b"".join(streams), [StreamReader(part).states[0] for part in streams])
        ends = np.cumsum([len(part) for part in streams]).astype(np.int64)
        # A symbol reads at most one word, so the padding keeps indices legal until the check.
        padded = self._data + bytes(2 * most_symbols + 4)
        self._source = np.frombuffer(padded, dtype=np.uint8).astype(np.int64)
        self._back = ends
        self._front = np.concatenate([[0], ends[:-1]]) + STATE_BYTES

    def _refill(self, lanes: Ints, state: Ints) -> None:
        short = np.flatnonzero(state < LEAST_STATE)
        if len(short):
            which = lanes[short]
            at = self._front[which]
            state[short] = state[short] << 16 | self._source[at] | self._source[at + 1] << 8
            self._front[which] = at + 2

    def _escape(self, lane: int) -> int:
        front, back = int(self._front[lane]), int(self._back[lane])
        value, self._back[lane] = read_escape(self._data, front, back)
        return value

    def is_overrun(self) -> bool:
        """Return whether a lane has read words past its end."""
        return bool((self._front > self._back).any())

    def is_finished(self) -> bool:
        """Return whether all lanes end where the writer began."""
        return bool((self._front == self._back).all() and (self._states == LEAST_STATE).all())


def pack_escapes(escapes: Sequence[int]) -> bytes:
    """Return the escape bytes as they stand in the file, last byte first."""
    out = bytearray()
    if max(escapes, default=0) >= 1 << (7 * MAX_ESCAPE_BYTES):
        raise FormatError("bad-value", "expected integers that fit an escape, found a larger one")
    for value in escapes:
        left = value
        while left > 127:
            out.append(left & 127 | 128)
            left >>= 7
        out.append(left)
    return bytes(reversed(out))


def pack_symbols(starts: Sequence[int], frequencies: Sequence[int]) -> bytes:
    """Return state and words of one lane for symbols given by start and frequency."""
    state = LEAST_STATE
    words: list[int] = []
    for start, frequency in zip(reversed(starts), reversed(frequencies), strict=True):
        if state >= frequency << REFILL_SHIFT:
            words.append(state & 0xFFFF)
            state >>= 16
        quotient, rest = divmod(state, frequency)
        state = (quotient << TOTAL_BITS) + rest + start
    front = state.to_bytes(STATE_BYTES, "little")
    return front + b"".join(word.to_bytes(2, "little") for word in reversed(words))
