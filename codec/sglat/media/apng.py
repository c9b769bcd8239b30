"""Animated PNG told from a still, also where a long chunk stands before its animation."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS: Final = 64  # before the first picture


def demuxer_of(path: Path) -> str | None:
    """Return FFmpeg's demuxer for an animated PNG; None for every other file.

    FFmpeg takes one for a still where a C2PA manifest stands before the chunk `acTL`. Source: PNG
    (third edition), section 11.3.6.1.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(8) != PNG_SIGNATURE:
            return None
        for _ in range(MAX_CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                return None
            size, kind = struct.unpack(">I4s", head)
            if kind in (b"acTL", b"IDAT"):
                return "apng" if kind == b"acTL" else None
            file.seek(size + 4, 1)
    return None
