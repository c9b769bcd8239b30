"""The invisible watermark: what it carries, how that is coded, and how it is laid into pictures.

A tile of 8x8 cells repeats over the picture. Of each group of four cells one is marked; it changes
its sign at fixed times. Which cell, with which delay and which sign is one symbol of 32.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

VERSION: Final = 1
ID_BYTES: Final = 3
DEFAULT_KEY: Final = b"sglat watermark 184"
"""Public: anybody can check, and can imitate. The known cells of its layout lie at no edge."""
TILE_CELLS: Final = 8
GROUP_CELLS: Final = 4
GROUPS: Final = TILE_CELLS**2 // GROUP_CELLS
DELAYS: Final = 4  # of the sign's changes, in quarters of HALF_PERIOD_SECONDS
SYMBOLS: Final = 2 * DELAYS * GROUP_CELLS
VERSION_BITS: Final = 2
CHECK_BITS: Final = 13
CHECK_POLYNOMIAL: Final = 0x1CF5  # x^13 + x^12 + x^11 + x^10 + x^7 + x^6 + x^5 + x^4 + x^2 + 1
PAYLOAD_BITS: Final = VERSION_BITS + 8 * ID_BYTES + CHECK_BITS
STEP_BITS: Final = 3  # of the payload, a symbol
MEMORY: Final = 9  # bits of the convolutional coder's memory
POLYNOMIALS: Final = (2148, 3836, 3273, 3443, 3650)
"""One for each bit of a symbol, by random search: distinct paths differ in four symbols or more."""
STEPS: Final = PAYLOAD_BITS // STEP_BITS  # 13 symbols carry the payload, 3 are known
HALF_PERIOD_SECONDS: Final = 0.8
RMS_LEVELS: Final = 1.22  # of small pictures, with rounding 46 dB
RMS_LEVELS_LARGE: Final = 0.75  # from 256 pixels on: 50 dB
SOFTNESS: Final = 13.0  # side of a cell over the sigma of its edges
LEAST_GAIN: Final = 0.8
MOST_GAIN: Final = 1.6
LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def cell_pixels(width: int, height: int) -> int:
    """Return the side of a cell: that of a macroblock in small pictures, then in proportion."""
    side = min(width, height)
    return 16 if side < 256 else 32 if side < 768 else 64


@lru_cache(maxsize=32)
def layout(key: bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the cells of each group, `[16, 4]`, data first, and the symbol that each group's is
    changed by, `[16]`."""
    cells = TILE_CELLS**2
    stream = hashlib.shake_256(b"sglat marks\0" + key).digest(8 * cells + GROUPS)
    order = np.argsort(np.frombuffer(stream[: 8 * cells], "<u8"), kind="stable")
    masks = np.frombuffer(stream[8 * cells :], np.uint8) % SYMBOLS
    return order.reshape(GROUPS, GROUP_CELLS), masks.astype(np.intp)


def checksum(bits: NDArray[np.uint8]) -> int:
    """Return the CRC-13 of bits by `CHECK_POLYNOMIAL`, from all ones."""
    mask = (1 << CHECK_BITS) - 1
    state = mask
    for bit in bits:
        top = (state >> CHECK_BITS - 1) ^ int(bit)
        state = (state << 1) & mask
        if top:
            state ^= CHECK_POLYNOMIAL
    return state


def pack(identifier: bytes, version: int = VERSION) -> NDArray[np.uint8]:
    """Return the payload's bits `[39]`: version, identifier, checksum."""
    head = [version >> 1 & 1, version & 1]
    bits = np.array([*head, *np.unpackbits(np.frombuffer(identifier, np.uint8))], np.uint8)
    check = checksum(bits)
    return np.array([*bits, *(check >> at & 1 for at in reversed(range(CHECK_BITS)))], np.uint8)


def unpack(bits: NDArray[np.uint8]) -> tuple[int, bytes] | None:
    """Return version and identifier of a payload's bits; None if the checksum fails."""
    if checksum(bits[:-CHECK_BITS]) != int("".join(map(str, bits[-CHECK_BITS:])), 2):
        return None
    version = int("".join(map(str, bits[:VERSION_BITS])), 2)
    return version, np.packbits(bits[VERSION_BITS:-CHECK_BITS]).tobytes()


@lru_cache(maxsize=1)
def outputs() -> NDArray[np.intp]:
    """Return the symbol of each state of the register, `[4096]`: older bits are the higher ones."""
    states = np.arange(1 << (MEMORY + STEP_BITS))
    symbols = np.zeros_like(states)
    for at, taps in enumerate(POLYNOMIALS):
        symbols |= (np.bitwise_count(states & taps) & 1).astype(states.dtype) << at
    return symbols.astype(np.intp)


def encode(bits: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the symbols `[13]` of the tail-biting code, which starts in the state of its end."""
    values = bits.reshape(STEPS, STEP_BITS) @ (1 << np.arange(STEP_BITS)[::-1])
    register, symbols = 0, []
    for value in [*values[-(MEMORY // STEP_BITS) :], *values]:
        register = (register << STEP_BITS | int(value)) & (1 << (MEMORY + STEP_BITS)) - 1
        symbols.append(outputs()[register])
    return np.array(symbols[MEMORY // STEP_BITS :], np.intp)


def tile_of(identifier: bytes, key: bytes) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the sign of each cell (0 without a mark) and its delay, both `[8, 8]`."""
    cells, masks = layout(key)
    symbols = np.zeros(GROUPS, np.intp)
    symbols[:STEPS] = encode(pack(identifier))
    symbols ^= masks
    chosen = cells[np.arange(GROUPS), symbols % GROUP_CELLS]
    signs, delays = np.zeros(TILE_CELLS**2, np.float32), np.zeros(TILE_CELLS**2, np.intp)
    signs[chosen] = 1 - 2 * (symbols >> 4)
    delays[chosen] = symbols // GROUP_CELLS % DELAYS
    shape = TILE_CELLS, TILE_CELLS
    return signs.reshape(shape), delays.reshape(shape)


def phase_at(seconds: float) -> int:
    """Return the number of the delay step at a time, from 0 to 7; the tile repeats after them."""
    return int(np.floor(seconds / HALF_PERIOD_SECONDS * DELAYS + 1e-6)) % (2 * DELAYS)


class Watermark:
    """Marks pictures with a short identifier; a frame depends on its time alone.

    Args:
        payload: identifier; its first three bytes are used, and it is filled with zeros.
        key: of the layout; detectors need the same.
        frame_rate: of `mark`'s indices, in frames per second.
    """

    def __init__(self, payload: bytes, key: bytes = DEFAULT_KEY, *, frame_rate: float = 25) -> None:
        self.identifier = bytes(payload[:ID_BYTES]).ljust(ID_BYTES, b"\0")
        self._signs, self._delays = tile_of(self.identifier, key)
        self._frame_rate = frame_rate
        self._tiles: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._whole: tuple[tuple[int, int, int], NDArray[np.float32]] | None = None
        self._dither: NDArray[np.float32] | None = None

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
        change = self._pattern(phase_at(seconds), height, width) * _gain(frame)
        rms = RMS_LEVELS if min(height, width) < 256 else RMS_LEVELS_LARGE
        change *= rms / (np.sqrt(np.square(change).mean()) + 1e-6)
        if mask is not None:
            change *= mask
        change += _dither(height, width)
        levels = np.add(frame, np.floor(change, out=change).astype(np.int16)[..., None])
        marked: NDArray[np.uint8] = np.clip(levels, 0, 255, out=levels).astype(np.uint8)
        return marked

    def _pattern(self, phase: int, height: int, width: int) -> NDArray[np.float32]:
        """Return the mark of a whole picture, of unit mean square, `[H, W]`."""
        if self._whole is None or self._whole[0] != (phase, height, width):
            tile = self._tile(phase, cell_pixels(width, height))
            times = -(-height // len(tile)), -(-width // len(tile))
            self._whole = (phase, height, width), np.tile(tile, times)[:height, :width]
        return self._whole[1]

    def _tile(self, phase: int, side: int) -> NDArray[np.float32]:
        if (phase, side) not in self._tiles:
            turned = (phase - self._delays) % (2 * DELAYS) < DELAYS
            rise = _profile(side)
            tile = np.kron(np.where(turned, self._signs, -self._signs), np.ones((side, side)))
            for axis in (0, 1):
                spectrum = np.fft.fft(tile, axis=axis)
                spectrum *= rise[:, None] if axis == 0 else rise
                tile = np.fft.ifft(spectrum, axis=axis).real
            self._tiles[phase, side] = (tile / np.sqrt(np.square(tile).mean())).astype(np.float32)
        return self._tiles[phase, side]


def _profile(side: int) -> NDArray[np.float64]:
    """Return the spectrum of a Gaussian, which softens the edges of cells, over a tile."""
    sigma = side / SOFTNESS
    frequencies = np.fft.fftfreq(TILE_CELLS * side)
    return np.asarray(np.exp(-2 * np.square(np.pi * sigma * frequencies)))


@lru_cache(maxsize=4)
def _dither(height: int, width: int) -> NDArray[np.float32]:
    """Return fixed noise from 0 to 1, `[H, W]`, that replaces rounding."""
    noise = np.frombuffer(hashlib.shake_256(b"dither").digest(1 << 16), np.uint8)
    steps = np.resize(noise, (height, width)).astype(np.float32)
    return ((steps + 0.5) / 256).astype(np.float32)


def _gain(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the strength `[H, W]`, more where texture hides it."""
    height, width = frame.shape[:2]
    skip = cell_pixels(width, height) // 16  # of each block 4x4 pixels are looked at
    block = 4
    rows, columns = -(-height // (block * skip)), -(-width // (block * skip))
    luma = frame[::skip, ::skip, 1].astype(np.float32)
    pad = (0, rows * block - len(luma)), (0, columns * block - luma.shape[1])
    if any(low or high for low, high in pad):
        luma = np.pad(luma, pad, mode="edge")
    blocks = luma.reshape(rows, block, columns, block)
    mean = blocks.mean(axis=(1, 3))
    spread = np.sqrt(np.maximum(np.square(blocks).mean(axis=(1, 3)) - np.square(mean), 0))
    gain = np.clip(LEAST_GAIN + spread / 12, LEAST_GAIN, MOST_GAIN)
    return np.repeat(np.repeat(gain.astype(np.float32), block * skip, 0), block * skip, 1)[
        :height, :width
    ]
