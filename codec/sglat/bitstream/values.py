"""Integers, floats, texts and maps in a payload, checked as they are read (SPEC.md section 1)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from sglat.errors import FormatError

MAX_VARINT_BYTES: Final = 9
MAX_NESTING: Final = 3
_F32: Final = struct.Struct("<f")


def pack_varint(value: int) -> bytes:
    """Return unsigned LEB128."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"a varint holds 0 … 2^63 - 1, not {value}")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack_svarint(value: int) -> bytes:
    """Return zigzag LEB128."""
    return pack_varint(value << 1 if value >= 0 else (-value << 1) - 1)


def pack_text(text: str) -> bytes:
    """Return length and UTF-8."""
    data = text.encode()
    return pack_varint(len(data)) + data


class Cursor:
    """Reads a payload front to back and names the place of every fault.

    `offset` is the payload's in the file; `code` stands for one that is too short or too long.
    """

    def __init__(self, data: bytes, *, offset: int | None = None, code: str = "bad-field") -> None:
        self.data = data
        self.position = 0
        self._offset = offset
        self._code = code

    def error(self, code: str, message: str) -> FormatError:
        """Return an error that points at the current position."""
        place = None if self._offset is None else self._offset + self.position
        return FormatError(code, message, offset=place)

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int, code: str | None = None) -> bytes:
        """Return the next bytes."""
        if count > self.left:
            raise self.error(code or self._code, f"expected {count} more bytes, found {self.left}")
        self.position += count
        return self.data[self.position - count : self.position]

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self.take(self.left)

    def u8(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for at in range(MAX_VARINT_BYTES):
            byte = self.take(1, "bad-varint")[0]
            value |= (byte & 127) << (7 * at)
            if byte < 128:
                if byte == 0 and at:
                    raise self.error("bad-varint", "expected the shortest form, found a longer one")
                return value
        raise self.error("bad-varint", f"expected at most {MAX_VARINT_BYTES} bytes, found more")

    def svarint(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def step(self) -> float:
        """Read a quantizer step."""
        (value,) = _F32.unpack(self.take(4))
        if not 0 < value < float("inf"):
            raise self.error("bad-step", f"expected a positive finite step, found {value}")
        return float(value)

    def text(self, max_bytes: int, *, min_bytes: int = 0, code: str | None = None) -> str:
        count = self.varint()
        if not min_bytes <= count <= max_bytes:
            expected = f"expected {min_bytes} to {max_bytes} bytes of text"
            raise self.error(code or self._code, f"{expected}, found {count}")
        data = self.take(count)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise self.error("bad-encoding", f"expected UTF-8, found {error.reason}") from error
        if "\0" in text:
            raise self.error("bad-encoding", "expected text, found a zero byte")
        return text

    def finish(self, what: str) -> None:
        """Check that nothing is left."""
        if self.left:
            raise self.error(self._code, f"expected the end of {what}, found {self.left} bytes")


def pack_step(value: float) -> bytes:
    """Return a step as f32; it must stay positive and finite in that precision."""
    try:
        data = _F32.pack(value)
    except (OverflowError, struct.error) as error:
        raise FormatError("bad-step", f"expected a step that fits f32, found {value}") from error
    if not 0 < _F32.unpack(data)[0] < float("inf"):
        raise FormatError("bad-step", f"expected a positive finite step, found {value}")
    return data


def pack_map(values: dict[str, Any]) -> bytes:
    """Return a canonical msgpack map."""
    data: bytes = msgpack.packb(_sorted(values), use_bin_type=True)
    return data


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode())
        return {key: _sorted(value[key]) for key in keys}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return value


def unpack_map(data: bytes, *, offset: int | None = None) -> dict[str, Any]:
    """Read a canonical msgpack map."""

    def bad(found: str) -> FormatError:
        return FormatError("bad-encoding", f"expected canonical msgpack, {found}", offset=offset)

    caps = {f"max_{kind}_len": len(data) for kind in ("str", "bin", "array", "map")}
    try:
        values = msgpack.unpackb(data, raw=False, strict_map_key=True, max_ext_len=0, **caps)
    except Exception as error:  # msgpack raises a dozen kinds, none of them documented as complete
        raise bad(f"found {type(error).__name__}") from error
    if not isinstance(values, dict):
        raise bad(f"found {type(values).__name__} instead of a map")
    if not _is_plain(values, MAX_NESTING):
        raise bad("found a type that it does not use, or deep nesting")
    if pack_map(values) != data:
        raise bad("found another encoding of the same values")
    return values


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, (dict, list)):
        if depth == 0:
            return False
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                return False
            return all(_is_plain(item, depth - 1) for item in value.values())
        return all(_is_plain(item, depth - 1) for item in value)
    return isinstance(value, (str, bytes)) or type(value) is int


class Fields:
    """A decoded map whose values are checked when they are taken.

    A missing, mistyped or out-of-range value of a `chunk` raises FormatError with `code`.
    """

    def __init__(
        self, values: dict[str, Any], chunk: str, *, code: str = "bad-field", offset: int | None
    ) -> None:
        self._values = values
        self._chunk = chunk
        self._code = code
        self._offset = offset
        self._taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def _error(self, key: str, expected: str, found: object) -> FormatError:
        shown = f"{found!r:.60}"
        message = f"{self._chunk} field {key} expected {expected}, found {shown}"
        return FormatError(self._code, message, offset=self._offset)

    def _take(self, key: str) -> Any:
        self._taken.add(key)
        if key not in self._values:
            raise self._error(key, "a value", "none")
        return self._values[key]

    def text(
        self, key: str, max_bytes: int, *, min_bytes: int = 0, is_required: bool = True
    ) -> str:
        if not is_required and key not in self._values:
            return ""
        value = self._take(key)
        if not isinstance(value, str) or not min_bytes <= len(value.encode()) <= max_bytes:
            raise self._error(key, f"text of {min_bytes} to {max_bytes} bytes", value)
        return value

    def data(self, key: str, size_bytes: int | None, *, is_required: bool = True) -> bytes:
        """Take bytes; of one size, or at most 2^16 where the size is None."""
        if not is_required and key not in self._values:
            return b""
        value = self._take(key)
        low, high = (0, 1 << 16) if size_bytes is None else (size_bytes, size_bytes)
        if not isinstance(value, bytes) or not low <= len(value) <= high:
            size = "up to 65536" if size_bytes is None else str(size_bytes)
            raise self._error(key, f"{size} bytes", value)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._take(key)
        if type(value) is not int or not low <= value <= high:
            raise self._error(key, f"an integer {low} to {high}", value)
        return value

    def integers(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[int]:
        value = self._take(key)
        if not (
            isinstance(value, list)
            and len(value) == len(ranges)
            and all(type(v) is int and a <= v <= b for v, (a, b) in zip(value, ranges, strict=True))
        ):
            raise self._error(key, f"{len(ranges)} integers within {list(ranges)}", value)
        return list(value)

    def texts(self, key: str, max_keys: int, max_bytes: int) -> dict[str, str]:
        """Take a map of text to text; absent is empty."""
        if key not in self._values:
            return {}
        value = self._take(key)
        if not isinstance(value, dict) or len(value) > max_keys:
            raise self._error(key, f"a map of at most {max_keys} texts", value)
        for item in (*value.keys(), *value.values()):
            if not isinstance(item, str) or len(item.encode()) > max_bytes:
                raise self._error(key, f"texts of at most {max_bytes} bytes", item)
        return dict(value)

    def rest(self) -> dict[str, Any]:
        """Return the fields not taken, which are of later versions."""
        return {key: value for key, value in self._values.items() if key not in self._taken}
