"""CRC-32C (SPEC.md section 2): a compiled one for long data, and its slow twin."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, reflected

COMPILED_BYTES: Final = 1 << 14  # the compiled package takes longer to load than this to sum


@cache
def _compiled() -> Callable[[bytes, int], int] | None:
    try:
        from crc32c import crc32c as compiled
    except ImportError:  # it has no wheel for some machines
        return None
    return compiled


@cache
def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


def crc32c_scalar(data: bytes, start: int = 0) -> int:
    """Return CRC-32C of data, continuing from the CRC of what came before."""
    table = _table()
    value = start ^ 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF


def crc32c(data: bytes, start: int = 0) -> int:
    """Return CRC-32C of data, continuing from the CRC of what came before."""
    compiled = _compiled() if len(data) >= COMPILED_BYTES else None
    return crc32c_scalar(data, start) if compiled is None else compiled(data, start)
