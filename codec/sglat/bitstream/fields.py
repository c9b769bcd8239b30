"""Typed access to the maps of HEAD, AHDR, PROV and META, with one error for each broken rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglat.errors import FormatError


class Fields:
    """A decoded map whose values are checked when they are taken.

    Args:
        values: the map.
        chunk: its chunk type, for messages.
        code: error code of a missing, mistyped or out-of-range value.
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

    def _take(self, key: str, *, is_required: bool) -> Any:
        self._taken.add(key)
        if is_required and key not in self._values:
            raise self._error(key, "a value", "none")
        return self._values.get(key)

    def text(
        self, key: str, max_bytes: int, *, min_bytes: int = 0, is_required: bool = True
    ) -> str:
        value = self._take(key, is_required=is_required)
        if value is None and not is_required and key not in self._values:
            return ""
        if not isinstance(value, str) or not min_bytes <= len(value.encode()) <= max_bytes:
            raise self._error(key, f"text of {min_bytes} to {max_bytes} bytes", value)
        return value

    def data(self, key: str, size_bytes: int | None, *, is_required: bool = True) -> bytes:
        """Take bytes; of one size, or at most 2^16 where the size is None."""
        value = self._take(key, is_required=is_required)
        if value is None and not is_required and key not in self._values:
            return b""
        size = "up to 65536" if size_bytes is None else str(size_bytes)
        if not isinstance(value, bytes):
            raise self._error(key, f"{size} bytes", value)
        if len(value) > 65536 if size_bytes is None else len(value) != size_bytes:
            raise self._error(key, f"{size} bytes", value)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._take(key, is_required=True)
        if type(value) is not int or not low <= value <= high:
            raise self._error(key, f"an integer {low} to {high}", value)
        return value

    def optional_integer(self, key: str, low: int, high: int) -> int | None:
        return self.integer(key, low, high) if key in self._values else None

    def integers(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[int]:
        value = self._take(key, is_required=True)
        is_legal = isinstance(value, list) and len(value) == len(ranges)
        if is_legal:
            pairs = zip(value, ranges, strict=True)
            is_legal = all(type(v) is int and low <= v <= high for v, (low, high) in pairs)
        if not is_legal:
            raise self._error(key, f"{len(ranges)} integers within {list(ranges)}", value)
        return list(value)

    def optional_integers(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[int] | None:
        return self.integers(key, ranges) if key in self._values else None

    def texts(self, key: str, max_keys: int, max_bytes: int) -> dict[str, str]:
        """Take a map of text to text; absent is empty."""
        value = self._take(key, is_required=False)
        if key not in self._values:
            return {}
        if not isinstance(value, dict) or len(value) > max_keys:
            raise self._error(key, f"a map of at most {max_keys} texts", value)
        for item in (*value.keys(), *value.values()):
            if not isinstance(item, str) or len(item.encode()) > max_bytes:
                raise self._error(key, f"texts of at most {max_bytes} bytes", item)
        return dict(value)

    def rest(self) -> dict[str, Any]:
        """Return the fields that nobody took; later versions may have put them there."""
        return {key: value for key, value in self._values.items() if key not in self._taken}
