"""What a writer may choose freely: the motion model and the steps (SPEC.md sections 4 and 7.2)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import MAX_VALUE, SCALES
from sglat.bitstream.motion_coder import (
    MAX_WEIGHT,
    NO_REF,
    MotionModel,
    default_model,
    pack_frames,
    pack_model,
)
from sglat.bitstream.records import Float32, Int32
from sglat.bitstream.tables import scale_middle
from sglat.errors import FormatError

DEFAULT_QUALITY: Final = 50.0
QUALITY_PER_OCTAVE: Final = 12.5  # -q 62.5 halves every step
LEAST_GAIN_BITS: Final = 24.0  # what a reference and its weight cost, with a margin
SAMPLE_FRAMES: Final = 256  # a group of the writer
SAMPLES: Final = 4  # groups coded both ways to see whether the model pays


def scale_steps(steps: Float32, quality: float) -> Float32:
    """Return steps for a quality number; `DEFAULT_QUALITY` leaves them as they are."""
    factor = 2.0 ** ((DEFAULT_QUALITY - quality) / QUALITY_PER_OCTAVE)
    scaled: Float32 = (np.asarray(steps, dtype=np.float64) * factor).astype(np.float32)
    return scaled


def quantize(values: Float32, steps: Float32) -> Int32:
    """Return the nearest integers, `[T, C]`; `values ≈ integers · steps`.

    Raises:
        FormatError: `bad-value` if a value needs more than 2^20 - 1 steps or is not finite.
    """
    scaled = np.asarray(values, dtype=np.float64) / np.asarray(steps, dtype=np.float64)
    if not (np.abs(scaled) <= MAX_VALUE).all():  # False for NaN too
        raise FormatError("bad-value", f"expected at most {MAX_VALUE} steps, found more")
    return np.rint(scaled).astype(np.int32)


def fit_model(values: Int32) -> MotionModel | None:
    """Return the motion model that suits a track, `[T, C]`; None where it costs what it saves."""
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


def _fitted(values: Int32) -> MotionModel:
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
