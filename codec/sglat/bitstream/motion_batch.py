"""The motion coder for many groups side by side; the fast twin of `unpack_frames`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream import motion_coder as f
from sglat.bitstream.constants import MAX_VALUE, TOTAL
from sglat.bitstream.rans import MAX_MAGNITUDE, SeparateLanes, scale_middle, scale_rows
from sglat.errors import FormatError

Ints = NDArray[np.int64]

LEAST_GROUPS: Final = 8  # below this the scalar coder is faster


class _Adaptive:
    """Averages and still-frame states of all groups, `[G, C]` and `[G]`."""

    def __init__(self, groups: int, model: f.MotionModel) -> None:
        spread = np.array([scale_middle(index) for index in model.spread], dtype=np.int64)
        self.fast = np.tile(spread, (groups, 1))
        self.slow = self.fast.copy()
        self.ratio = np.full(groups, 256, dtype=np.int64)
        self.moving = np.zeros(groups, dtype=np.int64)
        self.still = np.tile(np.array(f.STILL_START, dtype=np.int64), (groups, 1))
        self.was_still = np.zeros(groups, dtype=np.int64)
        bounds = [f.slow_rate(n) for n in range(f.RATE_STEPS[-1][0] + 1)]
        self._rates = np.array(bounds, dtype=np.int64)

    def read_still(self, lanes: Ints, coder: SeparateLanes) -> NDArray[np.bool_]:
        state = self.still[lanes, self.was_still[lanes]]
        first = np.clip(state, f.STILL_MARGIN, TOTAL - f.STILL_MARGIN)
        is_still = coder.binary(lanes, first)
        up = state + ((TOTAL - state) >> f.STILL_RATE)
        down = state - (state >> f.STILL_RATE)
        self.still[lanes, self.was_still[lanes]] = np.where(is_still, up, down)
        self.was_still[lanes] = is_still
        return is_still

    def adapt(self, lanes: Ints, amplitude: Ints, ratio: Ints) -> None:
        self.ratio[lanes] = (256 + ratio) >> 1
        rate = self._rates[np.minimum(self.moving[lanes], len(self._rates) - 1)][:, None]
        target = amplitude << 8
        self.fast[lanes] += (target - self.fast[lanes]) >> f.FAST_RATE
        self.slow[lanes] += (target - self.slow[lanes]) >> rate
        self.moving[lanes] += 1


def _read_moving(
    lanes: Ints, coder: SeparateLanes, adaptive: _Adaptive, model: f.MotionModel, rows: Ints
) -> Ints:
    """Read one moving frame in some lanes; return the differences, `[lanes, C]`."""
    fast, slow = adaptive.fast[lanes], adaptive.slow[lanes]
    steady = f.BASE + f.FAST_WEIGHT * fast + f.SLOW_WEIGHT * slow
    lively = f.FAST_ACTIVITY_WEIGHT * fast + f.SLOW_ACTIVITY_WEIGHT * slow
    expected = np.full((len(lanes), model.channels + 1), f.PRIOR, dtype=np.int64)
    expected[:, 1:] += np.cumsum(slow, axis=1)
    carried = f.PRIOR * adaptive.ratio[lanes]
    d = np.zeros((len(lanes), model.channels), dtype=np.int64)
    amplitudes = np.zeros((len(lanes), model.channels + 2), dtype=np.int64)  # two zeros in front
    activity = np.zeros(len(lanes), dtype=np.int64)
    for c in range(model.channels):
        ratio = np.minimum(((activity << 16) + carried) // expected[:, c], f.MAX_RATIO)
        near = f.NEAR_WEIGHT * amplitudes[:, c + 1] + f.FAR_WEIGHT * amplitudes[:, c]
        magnitude = (steady[:, c] + ((lively[:, c] * ratio) >> 8) + (near << 8)) >> 8
        row = rows[np.minimum(magnitude, MAX_MAGNITUDE)]
        if model.weight[c]:
            mean = np.clip(model.weight[c] * d[:, model.ref[c]], -32768, 32767)
            centre = (mean + 8) >> 4
            value = centre + coder.residual(lanes, row + mean - 16 * centre)
            amplitude = np.minimum(np.abs(16 * value - mean), f.MAX_AMPLITUDE)
        else:
            value = coder.residual(lanes, row)
            amplitude = np.minimum(np.abs(value) << 4, f.MAX_AMPLITUDE)
        d[:, c] = value
        amplitudes[:, c + 2] = amplitude
        activity += amplitude
    ratio = np.minimum(((activity << 16) + carried) // expected[:, -1], f.MAX_RATIO)
    adaptive.adapt(lanes, amplitudes[:, 2:], ratio)
    return d


def unpack_frames_batch(
    payloads: Sequence[bytes], frame_counts: Sequence[int], model: f.MotionModel
) -> list[NDArray[np.int32]] | None:
    """Decode groups side by side; None if one is damaged, for the scalar coder to raise."""
    counts = np.array(frame_counts, dtype=np.int64)
    rows = scale_rows()
    try:
        coder = SeparateLanes(payloads, model.channels + 1)
        adaptive = _Adaptive(len(payloads), model)
        out = np.zeros((len(payloads), int(counts.max()), model.channels), dtype=np.int64)
        everyone = np.arange(len(payloads))
        first = np.full(len(payloads), rows[f.FIRST_MAGNITUDE])
        for c in range(model.channels):
            out[:, 0, c] = model.start[c] + coder.residual(everyone, first)
        for t in range(1, out.shape[1]):
            if coder.is_overrun():
                return None
            lanes = np.flatnonzero(counts > t)
            out[lanes, t] = out[lanes, t - 1]
            moving = lanes[~adaptive.read_still(lanes, coder)]
            if len(moving):
                out[moving, t] += _read_moving(moving, coder, adaptive, model, rows)
    except FormatError:
        return None
    if not coder.is_finished() or np.abs(out).max() > MAX_VALUE:
        return None
    narrow = out.astype(np.int32)
    return [narrow[lane, :count] for lane, count in enumerate(counts.tolist())]
