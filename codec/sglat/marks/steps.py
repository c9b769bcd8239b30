"""Steps in time, freed of motion and weighed by noise: what the watermark is read from."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.marks.watermark import HALF_PERIOD_SECONDS

Array = NDArray[np.float32]

BINS: Final = 20  # of the half period: 0.04 s, a frame at 25 fps
MEAN_SECONDS: Final = 0.04  # before and after a step: codecs spread it over some frames
FLATTENING: Final = 20  # samples each way, whose mean is removed: slow changes of light
NOISE_LEVELS: Final = 2.0  # least noise that is assumed
MOST_DEVIATIONS: Final = 3.0
NOISE_SECONDS: Final = 0.32  # each way


def fold(steps: Array, times: NDArray[np.float64]) -> Array:
    """Return the sum of evidence by its phase in the half period, `[BINS, H, W]`.

    Args:
        steps: `[S, H, W]`.
        times: of each step, in seconds.
    """
    half, bins = np.divmod(np.floor(times / HALF_PERIOD_SECONDS * BINS + 1e-4).astype(int), BINS)
    folded = np.zeros((BINS, *steps.shape[1:]), np.float32)
    for step, at, turn in zip(steps, bins, half, strict=True):
        folded[at] += step if turn % 2 == 0 else -step
    before = np.concatenate([-folded[-1:], folded[:-1]])
    after = np.concatenate([folded[1:], -folded[:1]])
    smoothed: Array = folded + 0.25 * (before + after)
    return smoothed


def motionless_steps(
    luma: Array, seconds: NDArray[np.float64]
) -> tuple[Array, NDArray[np.float64]]:
    """Return steps `[S, H, W]`, in units of evidence, and their times."""
    luma = luma - np.stack([_mean(frame, FLATTENING) for frame in luma])
    interval = float(np.median(np.diff(seconds)))
    reach = max(1, round(MEAN_SECONDS / interval))
    sums = np.cumsum(luma, axis=0, dtype=np.float32)
    sums = np.concatenate([np.zeros_like(luma[:1]), sums])
    places = np.arange(1, len(luma))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach, len(luma))
    before = (sums[places] - sums[first]) / (places - first)[:, None, None]
    after = (sums[last] - sums[places]) / (last - places)[:, None, None]
    steps = _without_motion(_narrow(after - before), _narrow((after + before) / 2))
    power = np.square(steps)
    width = max(1, round(NOISE_SECONDS / interval))
    power = _mean_in_time(power, width)
    power = np.stack([_mean(frame, 1) for frame in power])
    noise = np.sqrt(power + np.float32(NOISE_LEVELS**2))
    evidence = np.clip(steps / noise, -MOST_DEVIATIONS, MOST_DEVIATIONS) / noise
    return evidence.astype(np.float32), seconds[places]


def _without_motion(steps: Array, picture: Array) -> Array:
    """Return what a local shift of the picture does not explain (Lucas and Kanade 1981), robustly.

    Two weighted least squares a step: the second one leaves out what the first one left.
    """
    down, right = np.gradient(picture, axis=(1, 2))
    weight = np.ones_like(steps)
    rest: NDArray[np.floating] = steps
    for _ in range(2):
        a = _window(weight * down * down) + 1
        b = _window(weight * down * right)
        c = _window(weight * right * right) + 1
        p, q = _window(weight * down * steps), _window(weight * right * steps)
        area = a * c - b * b
        rest = steps - (c * p - b * q) / area * down - (a * q - b * p) / area * right
        weight = _narrow(1 / (1 + np.square(rest) / 4))
    return _narrow(rest)


def _narrow(values: NDArray[Any]) -> Array:
    narrow: Array = values.astype(np.float32, copy=False)
    return narrow


def _window(values: Array) -> Array:
    """Return values `[S, H, W]` averaged by a window of about nine samples, twice a box of five."""
    for axis in (1, 2):
        for _ in range(2):
            pad = [(0, 0)] * 3
            pad[axis] = (2, 2)
            wide = np.pad(values, pad, mode="edge")
            count = values.shape[axis]
            parts = [wide[:, at : at + count] if axis == 1 else wide[:, :, at : at + count]
                     for at in range(5)]  # fmt: skip
            total = parts[0] + parts[1]
            for part in parts[2:]:
                total += part
            values = _narrow(total / 5)
    return values


def _mean(frame: Array, radius: int) -> Array:
    mean: Array = _box(_box(frame[None], radius, 1), radius, 2)[0]
    return mean


def _mean_in_time(values: Array, radius: int) -> Array:
    return _box(values, radius, 0)


def _box(values: Array, radius: int, axis: int) -> Array:
    """Return the mean over a line around each value, shorter at the borders."""
    count = values.shape[axis]
    sums = np.cumsum(values, axis=axis, dtype=np.float32)
    zero = np.zeros_like(np.take(sums, [0], axis))
    sums = np.concatenate([zero, sums], axis=axis)
    high = np.minimum(np.arange(count) + radius + 1, count)
    low = np.maximum(np.arange(count) - radius, 0)
    shape = [1] * values.ndim
    shape[axis] = count
    total = np.take(sums, high, axis) - np.take(sums, low, axis)
    count_inside = (high - low).reshape(shape)
    mean: Array = _narrow(total / count_inside)
    return mean
