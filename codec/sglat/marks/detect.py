"""The keyed detector of the watermark, which needs no original.

Frames are summed with the phase of the mark's alternation, which cancels what does not move; the
known cells find scale and place by correlation, and a Viterbi decoder reads the payload.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.marks.watermark import (
    DATA_CELLS,
    DEFAULT_KEY,
    HALF_PERIOD_SECONDS,
    LUMA,
    MEMORY,
    PAYLOAD_BITS,
    POLYNOMIALS,
    TILE_CELLS,
    encode,
    layout,
    unpack,
)

LEAST_FRAMES: Final = 16
WINDOW: Final = 256  # pixels of a side searched for the scale
SCALES: Final = (*[4.0, 8.0, 2.0, 16.0], *np.geomspace(1.9, 16.5, 150).tolist())
"""Sides of a cell in pixels that are tried: the written ones first."""
LEAST_PEAK: Final = 4.0  # of the known cells, in standard deviations
TRIED: Final = 4  # best places that are decoded
LEAST_AGREEMENT: Final = 6.0  # of all cells with the decoded tile, in standard deviations
HIGHPASS: Final = 4  # pixels: content coarser than about twice this is removed


@dataclass(frozen=True)
class Detection:
    """What was found; `confidence` is 0 to 1, `id` and `version` are of the payload."""

    found: bool
    confidence: float
    id: bytes | None
    version: int


NOTHING: Final = Detection(found=False, confidence=0.0, id=None, version=0)


def detect(
    frames: Iterable[NDArray[np.uint8]],
    key: bytes = DEFAULT_KEY,
    *,
    frame_rate: float = 25,
    seconds: Iterable[float] | None = None,
) -> Detection:
    """Search frames for the watermark.

    Args:
        frames: `[H, W, 3]` RGB, all of the first one's size; others are left out.
        key: that of the mark.
        frame_rate: frames per second, if `seconds` is None.
        seconds: time of each frame.

    Returns:
        The payload and how sure it is: one minus the bound of a chance hit.
    """
    amplitude = accumulate(frames, frame_rate=frame_rate, seconds=seconds)
    return NOTHING if amplitude is None else read(amplitude, key)


def accumulate(
    frames: Iterable[NDArray[np.uint8]],
    *,
    frame_rate: float = 25,
    seconds: Iterable[float] | None = None,
) -> NDArray[np.complex64] | None:
    """Return what alternates with the mark's period, `[H, W]`; None of too few frames."""
    clock = seconds if seconds is not None else (number / frame_rate for number in count())
    total: Any = None
    mean: Any = None
    turn, frame_count = 0j, 0
    for frame, time in zip(frames, clock, strict=False):
        luma = frame.astype(np.float32) @ LUMA
        luma -= _blur(luma, HIGHPASS)
        np.clip(luma, -12, 12, out=luma)
        phase = np.exp(-1j * np.pi * time / HALF_PERIOD_SECONDS)
        if total is None:
            total, mean = np.zeros(luma.shape, np.complex64), np.zeros_like(luma)
        if luma.shape != mean.shape:
            continue
        total += luma * np.complex64(phase)
        mean += luma
        turn += phase
        frame_count += 1
    if frame_count < LEAST_FRAMES:
        return None
    total = (total - mean * np.complex64(turn / frame_count)) / frame_count
    level = np.sqrt(_blur(np.square(np.abs(total)), HIGHPASS))
    scaled: NDArray[np.complex64] = (total / (level + 0.4)).astype(np.complex64)
    return scaled


def read(amplitude: NDArray[np.complex64], key: bytes = DEFAULT_KEY) -> Detection:
    """Return what a sum of `accumulate` carries under a key."""
    top, left = _window(amplitude)
    part = amplitude[top : top + WINDOW, left : left + WINDOW]
    size = 1 << int(np.ceil(np.log2(max(part.shape))))
    spectrum = np.fft.fft2(part, (size, size)).astype(np.complex64)
    found: list[tuple[float, float, int, int]] = []
    for side in SCALES:
        if TILE_CELLS * side > 1.3 * max(part.shape):
            continue
        found.append(_best(spectrum, key, side, size))
    for peak, side, row, column in sorted(found, reverse=True)[:TRIED]:
        if peak < LEAST_PEAK:
            break
        result = _decode(amplitude, key, side, (row + top, column + left))
        if result is not None:
            return result
    return NOTHING


def _window(amplitude: NDArray[np.complex64]) -> tuple[int, int]:
    """Return the corner of the part with the most energy."""
    sums = np.cumsum(np.cumsum(np.square(np.abs(amplitude)), 0), 1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    height, width = (min(WINDOW, side) for side in amplitude.shape)
    energy = (
        sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
        + sums[:-height, :-width]
    )  # fmt: skip
    row, column = np.unravel_index(int(np.argmax(energy)), energy.shape)
    return int(row), int(column)


@lru_cache(maxsize=320)
def _template(key: bytes, side: float, size: int) -> NDArray[np.complex64]:
    """Return the conjugate spectrum of the known cells over the whole square."""
    order, signs = layout(key)
    cells = np.zeros(TILE_CELLS**2, np.float32)
    cells[order[DATA_CELLS:]] = signs[order[DATA_CELLS:]]
    at = (np.arange(size) / side).astype(int)
    at_tile = np.where(at < TILE_CELLS, at, -1)
    tile = np.pad(cells.reshape(TILE_CELLS, TILE_CELLS), ((0, 1), (0, 1)))
    picture = tile[at_tile[:, None], at_tile[None, :]]
    return np.conj(np.fft.fft2(picture)).astype(np.complex64)


def _best(
    spectrum: NDArray[np.complex64], key: bytes, side: float, size: int
) -> tuple[float, float, int, int]:
    """Return height, side, row and column of the best place at one scale."""
    surface = np.fft.ifft2(spectrum * _template(key, side, size))
    period = TILE_CELLS * side
    tiles = max(1, int(size / period))
    width = int(period)
    folded = np.zeros((width, width), np.complex64)
    starts = [round(n * period) for n in range(tiles) if round(n * period) + width <= size]
    for row in starts:
        for column in starts:
            folded += surface[row : row + width, column : column + width]
    power = np.square(np.abs(folded))
    at = np.unravel_index(int(np.argmax(power)), power.shape)
    height = float(np.sqrt(2 * power[at] / max(float(power.mean()), 1e-12)))
    return height, side, int(at[0]), int(at[1])


def _decode(
    amplitude: NDArray[np.complex64], key: bytes, side: float, corner: tuple[int, int]
) -> Detection | None:
    order, signs = layout(key)
    known = order[DATA_CELLS:]
    best: tuple[float, NDArray[np.complex64]] | None = None
    step = side * 1.5 / max(amplitude.shape)  # half a cell's drift over a side, each way, in steps
    for scale in side + step * np.linspace(-1, 1, 7):
        for shift in ((0.0, 0.0), (-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)):
            cells = _cells(amplitude, scale, (corner[0] + shift[0], corner[1] + shift[1])) * signs
            height = float(np.abs(cells[known].sum()))
            if best is None or height > best[0]:
                best = height, cells
    assert best is not None
    cells = best[1]
    phase = cells[known].sum()
    soft = np.real(cells * np.conj(phase) / (abs(phase) + 1e-9))
    bits = viterbi(soft[order[:DATA_CELLS]])
    payload = unpack(bits)
    if payload is None:
        return None
    right = float((soft[order[:DATA_CELLS]] * encode(bits)).sum() + soft[known].sum())
    score = right / float(np.sqrt(np.square(soft).sum()))
    if score < LEAST_AGREEMENT:
        return None
    chance = len(SCALES) * 2.0**-16 * float(np.exp(-(max(0.0, score - 6) ** 2) / 2))
    return Detection(found=True, confidence=1 - chance, id=payload[1], version=payload[0])


def _cells(
    amplitude: NDArray[np.complex64], side: float, corner: tuple[float, float]
) -> NDArray[np.complex64]:
    """Return the sums over the cells of all tiles, `[256]`."""
    rows, columns = (
        (np.floor((np.arange(n) + 0.5 - start) / side) % TILE_CELLS).astype(int)
        for n, start in zip(amplitude.shape, corner, strict=True)
    )
    half = np.zeros((TILE_CELLS, amplitude.shape[1]), np.complex64)
    np.add.at(half, rows, amplitude)
    whole = np.zeros((TILE_CELLS, TILE_CELLS), np.complex64)
    np.add.at(whole, columns, half.T)
    return whole.T.ravel()


def viterbi(soft: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return the most probable payload bits `[52]` of soft symbols `[180]`."""
    states = np.arange(1 << MEMORY)
    ahead = states[:, None] << 1 | np.arange(2)  # register after each bit, [256, 2]
    expected = np.stack(
        [1.0 - 2 * (np.bitwise_count(ahead & taps) & 1).astype(float) for taps in POLYNOMIALS], -1
    )
    score = np.where(states == 0, 0.0, -1e9)
    before = (states >> 1)[:, None] | np.array([0, 1 << (MEMORY - 1)])  # states that lead to each
    bit = states & 1
    choices = []
    for step in soft.reshape(-1, len(POLYNOMIALS)):
        gains = score[:, None] + expected @ step
        options = gains[before, bit[:, None]]
        choice = options.argmax(1)
        choices.append(choice)
        score = options[states, choice]
    state = 0
    bits: list[int] = []
    for choice in reversed(choices):
        bits.append(int(state & 1))
        state = int(before[state, choice[state]])
    return np.array(bits[::-1][:PAYLOAD_BITS], np.uint8)


def _blur(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Return the mean over a square around each pixel, borders repeated."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(values, pad, mode="edge"), axis=axis, dtype=np.float64)
        n = values.shape[axis]
        high = np.take(sums, np.arange(2 * radius + 1, 2 * radius + 1 + n), axis)
        low = np.take(sums, np.arange(n), axis)
        values = ((high - low) / (2 * radius + 1)).astype(np.float32)
    return values
