"""A range coder for payloads of a few bytes (LIVE.md section 5).

Frequencies are those of the file format's tables; its rANS coder would add the five bytes of its
state to every packet.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from sglat.bitstream.constants import REACH, TOTAL, TOTAL_BITS
from sglat.bitstream.rans import HIGH_ESCAPE, LOW_ESCAPE, boundary_rows
from sglat.errors import FormatError

RANGE_BITS: Final = 32
LEAST_RANGE: Final = 1 << 24
MAX_ESCAPE_BITS: Final = 20  # an escape above 2^20 would leave the legal values


class RangeEncoder:
    """Codes symbols into the shortest string of bytes that stands for them."""

    def __init__(self) -> None:
        self._low = 0
        self._range = (1 << RANGE_BITS) - 1
        self._shifts = 0

    def put(self, start: int, frequency: int) -> None:
        """Code a symbol given by its place among `TOTAL` slots."""
        unit = self._range >> TOTAL_BITS
        self._low += start * unit
        self._range = frequency * unit
        while self._range < LEAST_RANGE:
            self._low <<= 8
            self._range <<= 8
            self._shifts += 1

    def bits(self, value: int, count: int) -> None:
        """Code an integer of `count` equally likely bits, at most 15."""
        if not 0 <= value < 1 << count:
            raise FormatError("bad-field", f"expected {count} bits, found {value}")
        size = TOTAL >> count
        self.put(value * size, size)

    def flag(self, value: bool, frequency: int) -> None:
        """Code a truth value; False has `frequency` of the `TOTAL` slots."""
        if value:
            self.put(frequency, TOTAL - frequency)
        else:
            self.put(0, frequency)

    def residual(self, scale: int, value: int) -> None:
        """Code a residual with the frequencies of a scale (SPEC.md section 5.4) at phase 0."""
        bounds = boundary_rows()[16 * scale + 8]
        symbol = min(max(value + REACH + 1, LOW_ESCAPE), HIGH_ESCAPE)
        self.put(bounds[symbol], bounds[symbol + 1] - bounds[symbol])
        if abs(value) > REACH:
            self._escape(abs(value) - REACH)

    def _escape(self, value: int) -> None:
        """Elias gamma code of a positive integer."""
        length = value.bit_length()
        if length > MAX_ESCAPE_BITS:
            raise FormatError("bad-value", f"expected an escape of 20 bits, found {length}")
        for _ in range(length - 1):
            self.bits(1, 1)
        self.bits(0, 1)
        for at in reversed(range(length - 1)):
            self.bits(value >> at & 1, 1)

    def finish(self) -> bytes:
        """Return the bytes; zeros at their end are left out."""
        size = 4 + self._shifts
        for dropped in range(size, -1, -1):
            step = 1 << 8 * dropped
            value = -(-self._low // step) * step
            if value < self._low + self._range:
                return (value >> 8 * dropped).to_bytes(size - dropped, "big")
        raise AssertionError("a step of one byte always fits")


class RangeDecoder:
    """Reads what `RangeEncoder` wrote; zeros follow the last byte."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 4
        self._code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")
        self._range = (1 << RANGE_BITS) - 1

    def _slot(self) -> tuple[int, int]:
        unit = self._range >> TOTAL_BITS
        slot = self._code // unit
        if slot >= TOTAL:
            raise FormatError("bad-stream", "expected a slot of the table, found one beyond it")
        return slot, unit

    def _take(self, start: int, frequency: int, unit: int) -> None:
        self._code -= start * unit
        self._range = frequency * unit
        while self._range < LEAST_RANGE:
            byte = self._data[self._at] if self._at < len(self._data) else 0
            self._at += 1
            self._code = self._code << 8 | byte
            self._range <<= 8

    def bits(self, count: int) -> int:
        """Read an integer of `count` bits."""
        slot, unit = self._slot()
        size = TOTAL >> count
        self._take(slot // size * size, size, unit)
        return slot // size

    def flag(self, frequency: int) -> bool:
        """Read a truth value."""
        slot, unit = self._slot()
        if slot < frequency:
            self._take(0, frequency, unit)
            return False
        self._take(frequency, TOTAL - frequency, unit)
        return True

    def residual(self, scale: int) -> int:
        """Read a residual."""
        bounds = boundary_rows()[16 * scale + 8]
        slot, unit = self._slot()
        symbol = bisect_right(bounds, slot) - 1
        self._take(bounds[symbol], bounds[symbol + 1] - bounds[symbol], unit)
        if symbol == LOW_ESCAPE:
            return -REACH - self._escape()
        if symbol == HIGH_ESCAPE:
            return REACH + self._escape()
        return symbol - 1 - REACH

    def _escape(self) -> int:
        length = 1
        while self.bits(1):
            length += 1
            if length > MAX_ESCAPE_BITS:
                raise FormatError("bad-stream", "expected an escape of at most 20 bits")
        value = 1
        for _ in range(length - 1):
            value = value << 1 | self.bits(1)
        return value

    def finish(self) -> None:
        """Check that the writer's bytes were all read and none was left over."""
        if len(self._data) > max(self._at, 0) or (self._data and self._data[-1] == 0):
            raise FormatError("bad-stream", "expected the end of the payload, found more bytes")
