"""The invisible watermark: what it carries, how that is coded, and how it is laid into pictures.

A tile of 16x16 cells repeats over the picture; 76 known cells find it again, 180 carry the payload.
Its sign alternates over time, so that still content cancels in the detector.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

VERSION: Final = 1
ID_BYTES: Final = 4
DEFAULT_KEY: Final = b"sglat watermark 1"  # public: anybody can check, and can imitate
TILE_CELLS: Final = 16
MEMORY: Final = 8  # bits of the convolutional coder's memory
POLYNOMIALS: Final = (0o557, 0o663, 0o711)
"""Rate 1/3, constraint length 9, free distance 18: Proakis, Digital Communications, table 8.2-2."""
VERSION_BITS: Final = 4
CHECK_BITS: Final = 16
PAYLOAD_BITS: Final = VERSION_BITS + 8 * ID_BYTES + CHECK_BITS
DATA_CELLS: Final = len(POLYNOMIALS) * (PAYLOAD_BITS + MEMORY)
HALF_PERIOD_SECONDS: Final = 0.32  # 8 frames at 25 fps: long enough to survive prediction
RMS_LEVELS: Final = 1.12  # with rounding 46.3 dB at most
LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
BLOCK: Final = 4  # pixels, of which the texture is measured together


def cell_pixels(width: int, height: int) -> int:
    """Return the side of a cell: 4 pixels in small pictures, larger ones in proportion."""
    return 4 if min(width, height) < 256 else 8


@lru_cache(maxsize=32)
def layout(key: bytes) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the order of cells of a key, data first, and the sign of each cell, both `[256]`."""
    count = TILE_CELLS**2
    stream = hashlib.shake_256(b"sglat marks\0" + key).digest(8 * count + count // 8)
    order = np.argsort(np.frombuffer(stream[: 8 * count], "<u8"), kind="stable")
    bits = np.unpackbits(np.frombuffer(stream[8 * count :], np.uint8))
    return order, (1 - 2 * bits.astype(np.float32))


def checksum(bits: NDArray[np.uint8]) -> int:
    """Return the CRC-16 of bits, by x^16 + x^12 + x^5 + 1 from all ones (ITU-T V.41)."""
    state = 0xFFFF
    for bit in bits:
        top = (state >> 15) ^ int(bit)
        state = (state << 1) & 0xFFFF
        if top:
            state ^= 0x1021
    return state


def pack(identifier: bytes, version: int = VERSION) -> NDArray[np.uint8]:
    """Return the payload's bits `[52]`: version, identifier, checksum."""
    head = np.unpackbits(np.array([version << 4], np.uint8))[:VERSION_BITS]
    bits = np.concatenate([head, np.unpackbits(np.frombuffer(identifier, np.uint8))])
    check = np.frombuffer(checksum(bits).to_bytes(2, "big"), np.uint8)
    return np.concatenate([bits, np.unpackbits(check)])


def unpack(bits: NDArray[np.uint8]) -> tuple[int, bytes] | None:
    """Return version and identifier of a payload's bits; None if the checksum fails."""
    if checksum(bits[:-CHECK_BITS]) != int("".join(map(str, bits[-CHECK_BITS:])), 2):
        return None
    version = int("".join(map(str, bits[:VERSION_BITS])), 2)
    return version, np.packbits(bits[VERSION_BITS:-CHECK_BITS]).tobytes()


def encode(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the coded symbols, -1 and 1, `[180]`: convolutional, ended by zeros."""
    state, symbols = 0, []
    for bit in [*bits.tolist(), *[0] * MEMORY]:
        state = (state << 1 | bit) & (1 << (MEMORY + 1)) - 1
        symbols += [1.0 - 2 * ((state & taps).bit_count() & 1) for taps in POLYNOMIALS]
    return np.array(symbols, np.float32)


def cells_of(identifier: bytes, key: bytes) -> NDArray[np.float32]:
    """Return the tile of an identifier, `[16, 16]`, of -1 and 1."""
    order, signs = layout(key)
    tile = np.ones(TILE_CELLS**2, np.float32)
    tile[order[:DATA_CELLS]] = encode(pack(identifier))
    return (tile * signs).reshape(TILE_CELLS, TILE_CELLS)


def sign_at(seconds: float) -> int:
    """Return the sign of the tile at a time."""
    return 1 - 2 * (int(np.floor(seconds / HALF_PERIOD_SECONDS + 1e-6)) & 1)


class Watermark:
    """Marks pictures with a short identifier; a frame depends on its time alone.

    Args:
        payload: identifier; its first four bytes are used, and it is filled with zeros.
        key: of the layout; detectors need the same.
        frame_rate: of `mark`'s indices, in frames per second.
    """

    def __init__(self, payload: bytes, key: bytes = DEFAULT_KEY, *, frame_rate: float = 25) -> None:
        self.identifier = bytes(payload[:ID_BYTES]).ljust(ID_BYTES, b"\0")
        self._tile = cells_of(self.identifier, key)
        self._frame_rate = frame_rate
        self._patterns: dict[tuple[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def mark(
        self, frame: NDArray[np.uint8], index: int, *, mask: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """Return frame number `index` with the mark; see `mark_at`."""
        return self.mark_at(frame, index / self._frame_rate, mask=mask)

    def mark_at(
        self, frame: NDArray[np.uint8], seconds: float, *, mask: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """Return a picture with the mark.

        Args:
            frame: `[H, W, 3]` RGB.
            seconds: its time from the start.
            mask: where the picture is generated, `[H, W]` from 0 to 1; None: everywhere.
        """
        height, width = frame.shape[:2]
        pattern, dither = self._pattern(height, width)
        change = pattern * _gain(frame)
        if mask is not None:
            change *= mask
        if sign_at(seconds) < 0:
            np.negative(change, out=change)
        change += dither
        levels = np.floor(change, out=change).astype(np.int16)
        marked: NDArray[np.uint8] = np.clip(frame + levels[..., None], 0, 255).astype(np.uint8)
        return marked

    def _pattern(self, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if (height, width) not in self._patterns:
            side = cell_pixels(width, height)
            tile = np.kron(self._tile, np.ones((side, side), np.float32))
            for axis in (0, 1):  # softer edges: less high frequency, which codecs remove first
                tile = (np.roll(tile, 1, axis) + 2 * tile + np.roll(tile, -1, axis)) / 4
            tile /= np.sqrt(np.square(tile).mean())
            times = -(-height // len(tile)), -(-width // len(tile))
            noise = np.frombuffer(hashlib.shake_256(b"dither").digest(1 << 16), np.uint8)
            dither = ((np.resize(noise, (height, width)) + 0.5) / 256).astype(np.float32)
            whole = np.tile(tile, times)[:height, :width]
            self._patterns[height, width] = whole, dither
        return self._patterns[height, width]


def _gain(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the strength `[H, W]`, more where texture hides it, of fixed mean square."""
    height, width = frame.shape[:2]
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    luma = frame[..., 1].astype(np.float32)
    pad = (0, rows * BLOCK - height), (0, columns * BLOCK - width)
    blocks = np.pad(luma, pad, mode="edge").reshape(rows, BLOCK, columns, BLOCK)
    mean = blocks.mean(axis=(1, 3))
    spread = np.sqrt(np.maximum(np.square(blocks).mean(axis=(1, 3)) - np.square(mean), 0))
    gain = np.clip(0.8 + spread / 12, 0.8, 1.6)
    gain *= RMS_LEVELS / np.sqrt(np.square(gain).mean())
    return np.repeat(np.repeat(gain, BLOCK, 0), BLOCK, 1)[:height, :width]
