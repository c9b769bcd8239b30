"""The range coder and its stream layout, one lane at a time (SPEC.md section 5.3)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from sglat.bitstream.constants import LEAST_STATE, REACH, TOTAL, TOTAL_BITS
from sglat.bitstream.tables import HIGH_ESCAPE, LOW_ESCAPE, boundary_rows
from sglat.errors import FormatError

STATE_BYTES: Final = 5
MAX_STATE: Final = 1 << 40
REFILL_SHIFT: Final = 40 - TOTAL_BITS  # a state of at least frequency << 25 would outgrow 40 bits
MAX_ESCAPE_BYTES: Final = 4


def stream_error(found: str) -> FormatError:
    """Return the error of a stream that does not end as it must."""
    return FormatError("bad-stream", f"expected a complete entropy-coded stream, found {found}")


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
        value = 0
        for at in range(MAX_ESCAPE_BYTES):
            if self._back <= self._front:
                raise stream_error("no more escape bytes")
            self._back -= 1
            byte = self._data[self._back]
            value |= (byte & 127) << (7 * at)
            if byte < 128:
                if byte == 0 and at:
                    raise stream_error("an escape that is not in its shortest form")
                return value
        raise stream_error("an escape longer than four bytes")

    def finish(self) -> None:
        """Check that states, words and escapes end where the writer began."""
        if any(state != LEAST_STATE for state in self.states):
            raise stream_error("a wrong final state")
        if self._front != self._back:
            raise stream_error(f"{self._back - self._front} bytes left over")


def pack_escapes(escapes: Sequence[int]) -> bytes:
    """Return the escape bytes as they stand in the file, last byte first.

    Raises:
        FormatError: `bad-value`.
    """
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
