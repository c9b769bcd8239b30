"""The motion coder, its model and quantization (SPEC.md sections 4, 7.2 and 7.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import DEFAULT_SPREAD, MAX_VALUE, REACH, SCALES, TOTAL
from sglat.bitstream.rans import (
    HIGH_ESCAPE,
    LOW_ESCAPE,
    MAX_MAGNITUDE,
    StreamReader,
    boundaries,
    pack_escapes,
    pack_symbols,
    scale_middle,
    scale_row_list,
    scale_rows,
)
from sglat.bitstream.values import Cursor, pack_svarint
from sglat.errors import FormatError

Ints = NDArray[np.int64]

NO_REF: Final = 255
MAX_WEIGHT: Final = 64

FIRST_MAGNITUDE: Final = 24576  # six steps
BASE: Final = 122880
FAST_WEIGHT: Final = 14
SLOW_WEIGHT: Final = 6
FAST_ACTIVITY_WEIGHT: Final = 59
SLOW_ACTIVITY_WEIGHT: Final = 101
NEAR_WEIGHT: Final = 18  # the channel before, in this frame
FAR_WEIGHT: Final = 6  # the one before that
PRIOR: Final = 8192  # weight of the frame before in the activity ratio: two steps
MAX_RATIO: Final = 4095
MAX_AMPLITUDE: Final = 4095
FAST_RATE: Final = 2
RATE_STEPS: Final = ((4, 2), (12, 3), (28, 4))
LAST_RATE: Final = 5
STILL_START: Final = (1024, 24576)  # after a moving frame, after a still one
STILL_RATE: Final = 4
STILL_MARGIN: Final = 32

# What a writer may choose freely (`fit_model`)
LEAST_GAIN_BITS: Final = 24.0  # what a reference and its weight cost, with a margin
SAMPLE_FRAMES: Final = 256  # a group of the writer
SAMPLES: Final = 4  # groups coded with and without the model


@dataclass(frozen=True, kw_only=True)
class MotionModel:
    """What all groups of a file start from; one entry per channel."""

    start: tuple[int, ...]
    """Expected value of the first frame of a group."""
    spread: tuple[int, ...]
    """Scale index that the averages start with."""
    ref: tuple[int, ...]
    """An earlier channel whose difference predicts this one's, or `NO_REF`."""
    weight: tuple[int, ...]
    """Sixteenths of that difference."""

    @property
    def channels(self) -> int:
        return len(self.start)


def default_model(channels: int) -> MotionModel:
    """Return the model of a file that stores none."""
    return MotionModel(
        start=(0,) * channels,
        spread=(DEFAULT_SPREAD,) * channels,
        ref=(NO_REF,) * channels,
        weight=(0,) * channels,
    )


def pack_model(model: MotionModel) -> bytes:
    """Return the `model` field of HEAD."""
    columns = zip(model.start, model.spread, model.ref, model.weight, strict=True)
    return b"".join(
        pack_svarint(start) + bytes((spread, ref, weight & 255))
        for start, spread, ref, weight in columns
    )


def unpack_model(data: bytes, channels: int) -> MotionModel:
    """Read the `model` field of HEAD."""
    cursor = Cursor(data, code="bad-model")
    rows: list[tuple[int, int, int, int]] = []
    for channel in range(channels):
        start, spread, ref = cursor.svarint(), cursor.u8(), cursor.u8()
        weight = (cursor.u8() ^ 128) - 128
        is_ref_legal = ref < channel or (ref == NO_REF and weight == 0)
        if not (
            abs(start) <= MAX_VALUE
            and spread < SCALES
            and is_ref_legal
            and abs(weight) <= MAX_WEIGHT
        ):
            found = (start, spread, ref, weight)
            raise FormatError("bad-model", f"expected a legal channel {channel}, found {found}")
        rows.append((start, spread, ref, weight))
    cursor.finish("the motion model")
    start_, spread_, ref_, weight_ = zip(*rows, strict=True)
    return MotionModel(start=start_, spread=spread_, ref=ref_, weight=weight_)


def slow_rate(moving_frames: int) -> int:
    """Return the shift of the slow average after some moving frames."""
    return next((rate for bound, rate in RATE_STEPS if moving_frames < bound), LAST_RATE)


def _still_frequency(state: int) -> int:
    return min(max(state, STILL_MARGIN), TOTAL - STILL_MARGIN)


def _adapt_still(state: int, *, is_still: bool) -> int:
    return state + ((TOTAL - state) >> STILL_RATE) if is_still else state - (state >> STILL_RATE)


def _value_error() -> FormatError:
    return FormatError("bad-value", f"expected integers within ±{MAX_VALUE}, found a larger one")


def unpack_frames(data: bytes, frame_count: int, model: MotionModel) -> NDArray[np.int32]:
    """Decode one group, `[T, C]`, one integer after the other."""
    reader = StreamReader(data)
    rows = scale_row_list()
    channels = range(model.channels)
    first_row = rows[FIRST_MAGNITUDE]
    fast = [scale_middle(index) for index in model.spread]
    slow = list(fast)
    x = [start + reader.residual(first_row) for start in model.start]
    out = [list(x)]
    still = list(STILL_START)
    was_still = ratio = moving = 0
    ratio = 256
    d = [0] * model.channels
    amplitudes = [0] * model.channels
    for _ in range(frame_count - 1):
        is_still = reader.binary(_still_frequency(still[was_still]))
        still[was_still] = _adapt_still(still[was_still], is_still=is_still)
        was_still = int(is_still)
        if is_still:
            out.append(out[-1])
            continue
        activity, expected, near, far = 0, PRIOR, 0, 0
        carried = PRIOR * ratio
        for c in channels:
            f, s = fast[c], slow[c]
            r = min(((activity << 16) + carried) // expected, MAX_RATIO)
            magnitude = (
                BASE
                + FAST_WEIGHT * f
                + SLOW_WEIGHT * s
                + (((FAST_ACTIVITY_WEIGHT * f + SLOW_ACTIVITY_WEIGHT * s) * r) >> 8)
                + ((NEAR_WEIGHT * near + FAR_WEIGHT * far) << 8)
            ) >> 8
            mean = centre = 0
            if model.weight[c]:
                mean = min(max(model.weight[c] * d[model.ref[c]], -32768), 32767)
                centre = (mean + 8) >> 4
            row = rows[magnitude if magnitude < MAX_MAGNITUDE else MAX_MAGNITUDE]
            d[c] = value = centre + reader.residual(row + mean - 16 * centre)
            amplitude = min(abs(16 * value - mean), MAX_AMPLITUDE)
            activity += amplitude
            expected += s
            far, near = near, amplitude
            amplitudes[c] = amplitude
            x[c] += value
        ratio = (256 + min(((activity << 16) + carried) // expected, MAX_RATIO)) >> 1
        rate = slow_rate(moving)
        for c in channels:
            target = amplitudes[c] << 8
            fast[c] += (target - fast[c]) >> FAST_RATE
            slow[c] += (target - slow[c]) >> rate
        moving += 1
        out.append(list(x))
    reader.finish()
    values = np.array(out, dtype=np.int64)
    if np.abs(values).max() > MAX_VALUE:
        raise _value_error()
    return values.astype(np.int32)


class _Contexts:
    """The adaptive state of some groups side by side, `[G, C]`, with all differences known."""

    def __init__(self, model: MotionModel) -> None:
        spread = np.array([scale_middle(index) for index in model.spread], dtype=np.int64)
        self.fast, self.slow = spread, spread.copy()
        self.ratio = 256
        self.moving = 0
        self._ref = np.array([0 if ref == NO_REF else ref for ref in model.ref])
        self._weight = np.array(model.weight, dtype=np.int64)
        self._rows = scale_rows()

    def encode(self, d: Ints) -> tuple[Ints, Ints]:
        """Return table row and residual to the centre for one moving frame; adapt."""
        mean = np.clip(self._weight * d[self._ref], -32768, 32767)
        centre = (mean + 8) >> 4
        amplitude = np.minimum(np.abs(16 * d - mean), MAX_AMPLITUDE)
        activity = np.concatenate([[0], np.cumsum(amplitude)])
        expected = PRIOR + np.concatenate([[0], np.cumsum(self.slow)])
        ratio = np.minimum(((activity << 16) + PRIOR * self.ratio) // expected, MAX_RATIO)
        padded = np.concatenate([[0, 0], amplitude])
        magnitude = (
            BASE
            + FAST_WEIGHT * self.fast
            + SLOW_WEIGHT * self.slow
            + (
                ((FAST_ACTIVITY_WEIGHT * self.fast + SLOW_ACTIVITY_WEIGHT * self.slow) * ratio[:-1])
                >> 8
            )
            + ((NEAR_WEIGHT * padded[1:-1] + FAR_WEIGHT * padded[:-2]) << 8)
        ) >> 8
        rows = self._rows[np.minimum(magnitude, MAX_MAGNITUDE)] + mean - 16 * centre
        self.ratio = (256 + int(ratio[-1])) >> 1
        self.fast += ((amplitude << 8) - self.fast) >> FAST_RATE
        self.slow += ((amplitude << 8) - self.slow) >> slow_rate(self.moving)
        self.moving += 1
        return rows, d - centre


def pack_frames(values: NDArray[np.int32], model: MotionModel) -> bytes:
    """Encode one group, `[T, C]`; the reverse of `unpack_frames`."""
    starts, frequencies, escapes = frame_symbols(values, model)
    return pack_symbols(starts, frequencies) + pack_escapes(escapes)


def frame_symbols(
    values: NDArray[np.int32], model: MotionModel
) -> tuple[list[int], list[int], list[int]]:
    """Return start and frequency of each symbol of a group, `[T, C]`, and the escapes."""
    x = values.astype(np.int64)
    if np.abs(x).max() > MAX_VALUE:
        raise _value_error()
    d = np.diff(x, axis=0, prepend=np.array(model.start, dtype=np.int64)[None])
    contexts = _Contexts(model)
    table = boundaries()
    starts: list[int] = []
    frequencies: list[int] = []
    escapes: list[int] = []

    def put(rows: Ints, residual: Ints) -> None:
        symbol = np.clip(residual + REACH + 1, LOW_ESCAPE, HIGH_ESCAPE)
        start = table[rows, symbol]
        starts.extend(start.tolist())
        frequencies.extend((table[rows, symbol + 1] - start).tolist())
        escapes.extend((np.abs(residual[np.abs(residual) > REACH]) - REACH - 1).tolist())

    first_row = scale_rows()[FIRST_MAGNITUDE]
    put(np.full(model.channels, first_row), d[0])
    still = list(STILL_START)
    was_still = 0
    moves: list[bool] = np.any(d[1:], axis=1).tolist()
    for t, is_moving in enumerate(moves, start=1):
        frequency = _still_frequency(still[was_still])
        starts.append(frequency if is_moving else 0)
        frequencies.append(TOTAL - frequency if is_moving else frequency)
        still[was_still] = _adapt_still(still[was_still], is_still=not is_moving)
        was_still = int(not is_moving)
        if is_moving:
            put(*contexts.encode(d[t]))
    return starts, frequencies, escapes


def quantize(values: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the nearest integers, `[T, C]`; `values ≈ integers · steps`.

    Raises:
        FormatError: `bad-value` if a value needs more than 2^20 - 1 steps or is not finite.
    """
    scaled = np.asarray(values, dtype=np.float64) / np.asarray(steps, dtype=np.float64)
    if not (np.abs(scaled) <= MAX_VALUE).all():  # False for NaN too
        raise FormatError("bad-value", f"expected at most {MAX_VALUE} steps, found more")
    return np.rint(scaled).astype(np.int32)


def fit_model(values: NDArray[np.int32]) -> MotionModel | None:
    """Return a motion model fitted to `[T, C]`; None where it saves less than its own size."""
    if len(values) < 2:
        return None
    model = _fitted(values)
    plain = default_model(values.shape[1])
    starts = range(0, len(values), SAMPLE_FRAMES)
    chosen = starts[:: max(1, len(starts) // SAMPLES)]
    saved = sum(
        len(pack_frames(group, plain)) - len(pack_frames(group, model))
        for group in (values[at : at + SAMPLE_FRAMES] for at in chosen)
    )
    return model if saved * len(starts) / len(chosen) > len(pack_model(model)) else None


def _fitted(values: NDArray[np.int32]) -> MotionModel:
    x = values.astype(np.int64)
    d = np.diff(x, axis=0)
    pairs = [_best_ref(d, channel) for channel in range(d.shape[1])]
    mean = 4096 * np.abs(d).mean(axis=0)
    middles = np.array([scale_middle(index) for index in range(SCALES)])
    distance = np.abs(np.log(np.maximum(mean, 64))[:, None] - np.log(middles)[None])
    return MotionModel(
        start=tuple(np.median(x, axis=0).astype(np.int64).tolist()),
        spread=tuple(distance.argmin(axis=1).tolist()),
        ref=tuple(ref for ref, _ in pairs),
        weight=tuple(weight for _, weight in pairs),
    )


def _cost(d: NDArray[np.float64]) -> float:
    return float(np.log2(1 + 2 * np.abs(d)).sum())


def _best_ref(d: NDArray[np.int64], channel: int) -> tuple[int, int]:
    """Return the earlier channel whose differences predict this one best, and its weight."""
    own = d[:, channel].astype(np.float64)
    best, plain = (NO_REF, 0), _cost(own)
    least = plain - LEAST_GAIN_BITS
    for ref in range(channel):
        other = d[:, ref].astype(np.float64)
        energy = float(other @ other)
        weight = round(16 * float(own @ other) / energy) if energy else 0
        weight = max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))
        cost = _cost(own - weight / 16 * other) if weight else plain
        if cost < least:
            best, least = (ref, weight), cost
    return best


def model_bytes(model: MotionModel | None) -> int:
    """Return what a model adds to HEAD."""
    return 0 if model is None else len(pack_model(model))
