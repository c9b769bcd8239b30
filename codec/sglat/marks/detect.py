"""The keyed detector of the watermark, which needs no original.

Marked cells change their sign at fixed times. Steps between neighbouring frames, freed of motion
and weighed by the local noise, are summed over periods and tiles for each scale, place and phase;
the known groups rank these, and a tail-biting Viterbi decoder reads the payload of the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.marks.steps import BINS, fold, motionless_steps
from sglat.marks.watermark import (
    DEFAULT_KEY,
    DELAYS,
    GROUP_CELLS,
    GROUPS,
    LUMA,
    MEMORY,
    PAYLOAD_BITS,
    STEP_BITS,
    STEPS,
    SYMBOLS,
    TILE_CELLS,
    VERSION,
    cell_pixels,
    encode,
    layout,
    outputs,
    unpack,
)

Array = NDArray[np.float32]

LEAST_FRAMES: Final = 16
LEAST_SIDE: Final = 3.6  # of a cell, in samples of the level that it is searched in
POOLS: Final = (1, 2, 4, 8, 16)  # pixels a sample
MAX_SAMPLES: Final = 40_000  # of a level's frame: bounds the memory
MOST_SHRUNK: Final = 2.2  # how far below its written side a cell is searched
GRID: Final = 4  # places a cell, each way
MANY_TILES: Final = 1.4  # a picture of more holds other pictures perhaps
TRIED: Final = 16  # best phases and places of a scale that are decoded
LEAST_KNOWN: Final = 6.2  # of the three known groups: 3.6 standard deviations
LEAST_AT_ORIGIN: Final = 3.5  # the same where few places are tried: two standard deviations
LEAST_SCORE: Final = 8.0
"""Of all 16 groups with the decoded ones, in standard deviations of the noise, times the squared
share of its energy in that of the best symbols: a mark by another key leaves much over."""
LEAD: Final = 8  # steps of the trellis before and after the ones that count
MOST_EVIDENCE: Final = 4.5  # standard deviations that one cell may add


@dataclass(frozen=True)
class Detection:
    """What was found; `confidence` is 0 to 1, `id` and `version` are of the payload."""

    found: bool
    confidence: float
    id: bytes | None
    version: int
    score: float = 0.0
    """Agreement with the best payload, in standard deviations."""


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
        The payload and how sure it is.
    """
    clock = seconds if seconds is not None else (number / frame_rate for number in count())
    return search(Footage(frames, clock), key)


class Footage:
    """The luma of frames at several resolutions, and the steps in it, made when first asked for.

    Args:
        frames: `[H, W, 3]` RGB; those of another size than the first are left out.
        clock: time of each frame in seconds; one that does not rise is left out.
    """

    def __init__(self, frames: Iterable[NDArray[np.uint8]], clock: Iterable[float]) -> None:
        self.size = 0, 0
        self.seconds: list[float] = []
        self._levels: dict[int, list[Array]] = {}
        self._steps: dict[int, tuple[Array, NDArray[np.float64]]] = {}
        for frame, time in zip(frames, clock, strict=False):
            self._add(frame, float(time))

    @property
    def pools(self) -> list[int]:
        """Sides in pixels of the squares that are averaged."""
        return list(self._levels)

    def _add(self, frame: NDArray[np.uint8], time: float) -> None:
        height, width = frame.shape[:2]
        if not self.seconds:
            self.size = height, width
            least = LEAST_SIDE * (TILE_CELLS - 2)
            self._levels = {
                pool: [] for pool in POOLS
                if height * width / pool**2 <= MAX_SAMPLES and min(self.size) / pool >= least
            }  # fmt: skip
        elif (height, width) != self.size or time <= self.seconds[-1]:
            return
        luma = frame @ LUMA
        for pool, stored in self._levels.items():
            rows, columns = height // pool, width // pool
            part = luma[: rows * pool, : columns * pool].reshape(rows, pool, columns, pool)
            stored.append(part.mean(axis=(1, 3), dtype=np.float32))
        self.seconds.append(time)

    def folded(self, pool: int, span: tuple[float, float] | None) -> Array:
        """Return the evidence of a level by phase, of all steps or those inside a span of time."""
        if pool not in self._steps:
            self._steps[pool] = motionless_steps(
                np.stack(self._levels.pop(pool)), np.array(self.seconds)
            )
            self._levels[pool] = []
        steps, times = self._steps[pool]
        if span is not None:
            inside = (times > span[0]) & (times < span[1])
            steps, times = steps[inside], times[inside] - span[0]
        return fold(steps, times)


def search(
    footage: Footage, key: bytes = DEFAULT_KEY, span: tuple[float, float] | None = None
) -> Detection:
    """Search footage, or the steps inside a span of its time, for the watermark."""
    if len(footage.seconds) < LEAST_FRAMES:
        return NOTHING
    best, is_first = NOTHING, True
    folded: dict[int, Array] = {}
    for side, pool in _sides(footage.size, footage.pools):
        if pool not in folded:
            folded[pool] = footage.folded(pool, span)
        places = side * TILE_CELLS * MANY_TILES < max(footage.size)
        for is_repeated in (True, False) if places else (True,):
            found = _read(
                folded[pool], key, side / pool, is_repeated=is_repeated,
                has_origin=is_first and is_repeated,
            )  # fmt: skip
            if found.found:
                return found
            if found.score > best.score:
                best = found
        is_first = False
    return best


def _sides(size: tuple[int, int], pools: list[int]) -> Iterator[tuple[float, int]]:
    """Yield sides of a cell in pixels and the level of each, the written ones first."""
    written = float(cell_pixels(size[1], size[0]))
    first = [written, *(s for s in (16.0, 32.0, 64.0, 8.0) if s != written)]
    tiles = max(1.0, max(size) / (TILE_CELLS * written))
    ratio = 1 + 0.08 / tiles
    others = (written * ratio ** np.arange(-200, 201)).tolist()
    others = [side for side in others if side / written * MOST_SHRUNK >= 1 and side < 160]
    others.sort(key=lambda side: abs(np.log(side / written)))
    for side in [*first, *others]:
        if side * (TILE_CELLS - 2) > min(size) or side * MOST_SHRUNK < written:
            continue
        fitting = [pool for pool in pools if side / pool >= LEAST_SIDE]
        if fitting:
            yield side, max(fitting)


def _read(
    steps: Array, key: bytes, side: float, *, is_repeated: bool = True, has_origin: bool = False
) -> Detection:
    """Return the payload of cells with a side in samples, or the best score.

    Args:
        steps: of `fold`, `[BINS, H, W]`.
        key: of the layout.
        side: of a cell, in samples.
        is_repeated: sum all tiles; else each place is searched for one, pasted into other pictures.
        has_origin: try the picture's corner at all phases, whatever the known groups are.
    """
    rows, columns = (_places(n, side, is_repeated=is_repeated) for n in steps.shape[1:])
    cells = np.matmul(np.matmul(rows, steps), columns.T)  # [BINS, places, places]
    power = np.square(cells).mean(axis=0, keepdims=True)
    level = np.sqrt(0.5 * power + 0.5 * power.mean())
    cells = np.clip(cells / (level + 1e-9), -MOST_EVIDENCE, MOST_EVIDENCE)
    cells = np.concatenate([cells, -cells])  # all phases of a period
    known = _known(cells, key)
    places = _peaks(known)
    if has_origin:
        phases = np.flatnonzero(known[:, 0, 0] >= LEAST_AT_ORIGIN)
        places = np.concatenate([places, np.stack([phases, 0 * phases, 0 * phases])], axis=1)
    if not places.size:
        return NOTHING
    return _decode(_groups(cells, key, *places))


@lru_cache(maxsize=256)
def _places(samples: int, side: float, *, is_repeated: bool) -> Array:
    """Return weights `[places, samples]` that average a cell around each place.

    Place 0 is a cell at the picture's edge; its middle counts more. Repeated, the places are those
    of one tile, and the cells of all tiles are averaged.
    """
    position = (np.arange(samples) + 0.5) / side  # in cells
    cells = TILE_CELLS if is_repeated else max(TILE_CELLS, int(np.ceil(samples / side)))
    away = np.abs(position - np.arange(cells * GRID)[:, None] / GRID - 0.5)
    if is_repeated:
        away = np.abs((away + TILE_CELLS / 2) % TILE_CELLS - TILE_CELLS / 2)
    weights: Array = np.clip(1.2 * (0.58 - away) * side, 0, 1).astype(np.float32)
    return weights


def _peaks(known: Array) -> NDArray[np.intp]:
    """Return phase, row and column `[3, K]` of the places where the known groups agree best."""
    best = known.max(axis=0)
    is_peak = best >= LEAST_KNOWN
    for axis in (0, 1):
        for shift in (-1, 1):
            is_peak &= best >= np.roll(best, shift, axis)
    rows, columns = np.nonzero(is_peak)
    order = np.argsort(-best[rows, columns], kind="stable")[:TRIED]
    rows, columns = rows[order], columns[order]
    return np.stack([known[:, rows, columns].argmax(axis=0), rows, columns])


def _known(cells: Array, key: bytes) -> Array:
    """Return the agreement of the known groups for all phases and places."""
    groups, masks = layout(key)
    total = np.zeros_like(cells)
    for group in range(STEPS, GROUPS):
        symbol = int(masks[group])
        sign, delay, cell = (
            1 - 2 * (symbol >> 4),
            symbol // GROUP_CELLS % DELAYS,
            symbol % GROUP_CELLS,
        )
        row, column = divmod(int(groups[group, cell]), TILE_CELLS)
        shift = (-delay * BINS // DELAYS, -row * GRID, -column * GRID)
        total += sign * np.roll(cells, shift, (0, 1, 2))
    return total


def _groups(
    cells: Array, key: bytes, phase: NDArray[np.intp], row: NDArray[np.intp],
    column: NDArray[np.intp],
) -> Array:  # fmt: skip
    """Return the evidence for each symbol of each group at K phases and places, `[K, 16, 32]`."""
    groups, masks = layout(key)
    rows = (row[:, None, None, None] + GRID * (groups // TILE_CELLS)[:, None]) % cells.shape[1]
    columns = column[:, None, None, None] + GRID * (groups % TILE_CELLS)[:, None]
    columns %= cells.shape[2]
    delays = (phase[:, None] + np.arange(DELAYS) * BINS // DELAYS) % len(cells)
    some = cells[delays[:, None, :, None], rows, columns]  # [K, 16, 4, 4]
    every = np.concatenate([some, -some], axis=2).reshape(-1, GROUPS, SYMBOLS)
    return every[:, np.arange(GROUPS)[:, None], np.arange(SYMBOLS) ^ masks[:, None]]


def _decode(evidence: Array) -> Detection:
    """Return the most probable payload of K tries, `[K, 16, 32]`, and its score."""
    bits, chosen = viterbi(evidence[:, :STEPS])
    chosen = np.concatenate([chosen, evidence[:, STEPS:, 0]], axis=1)
    share = (chosen * np.abs(chosen)).sum(axis=1) / np.square(evidence.max(axis=2)).sum(axis=1)
    scores = chosen.sum(axis=1) / np.sqrt(GROUPS) * np.square(np.maximum(share, 0))
    best = NOTHING
    for at in np.argsort(scores)[::-1]:
        score = float(scores[at])
        payload = unpack(bits[at])
        if payload is not None and payload[0] == VERSION:
            return Detection(
                found=score >= LEAST_SCORE, confidence=confidence(score),
                id=payload[1], version=payload[0], score=score,
            )  # fmt: skip
    return best


def confidence(score: float) -> float:
    """Return one minus the estimated rate of stretches without this key's mark that reach a score.

    Measured on stretches marked by another key, the worse case: with a checksum of seven bits the
    rate was 1 % at 9.07 and 0.1 % at 11.54. Fifteen bits, with the version's, divide it by 256.
    """
    if score < LEAST_SCORE:
        return 0.0
    slope = float(np.log(10)) / (11.54 - 9.07)
    return 1 - float(np.exp(-slope * (score - 9.07))) * 0.01 / 256


def viterbi(evidence: NDArray[np.floating]) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """Return the most probable payload bits `[K, 39]` and the evidence `[K, 13]` for them.

    Args:
        evidence: for each symbol, `[K, 13, 32]`.

    The trellis is run from some steps before to some behind the thirteen, which makes nearly the
    best of the closed paths.
    """
    tries, states, choices = len(evidence), 1 << MEMORY, 1 << STEP_BITS
    # A register of 12 bits holds nine old and three new ones; the next state is its lower nine.
    symbols = outputs()
    score = np.zeros((tries, states), np.float32)
    traces = []
    for step in [*range(STEPS - LEAD, STEPS), *range(STEPS), *range(LEAD)]:
        gain = evidence[:, step][:, symbols]
        total = (np.repeat(score, choices, axis=1) + gain).reshape(tries, choices, states)
        traces.append(total.argmax(axis=1))
        score = total.max(axis=1)
    state = score.argmax(axis=1)
    each = np.arange(tries)
    values = []
    for best in reversed(traces[LEAD:]):
        values.append(state & choices - 1)
        state = (best[each, state] << MEMORY | state) >> STEP_BITS
    numbers = np.stack(values[::-1], axis=1)[:, :STEPS]
    shifts = np.arange(STEP_BITS)[::-1]
    bits = (numbers[:, :, None] >> shifts & 1).reshape(tries, PAYLOAD_BITS).astype(np.uint8)
    codes = np.stack([encode(one) for one in bits])
    return bits, np.take_along_axis(evidence, codes[:, :, None], axis=2)[:, :, 0]
