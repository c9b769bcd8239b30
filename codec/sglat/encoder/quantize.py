"""Quantizer steps from the generator's Jacobian, and rate-distortion optimised integers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.motion_coder import default_model, fit_model, model_bytes, pack_frames
from sglat.bitstream.records import LatentLayer, QuantizedTensor
from sglat.bitstream.writer import GROUP_FRAMES
from sglat.encoder.stages import Stage, Task

REFERENCE_QUALITY: Final = 50  # at which one step changes the picture by the effect below
DEFAULT_QUALITY: Final = 62  # where none is given, lowered if the bit budget is exceeded
DEFAULT_MOST_BITS: Final = 47.0  # a frame; 1.2 kbit/s at 25 frames/s
# Root mean square picture change of one step at the reference quality, pictures in [-1, 1].
_EFFECT_AT_REFERENCE: Final = 0.0092
_QUALITY_PER_OCTAVE: Final = 12.0  # quality points that halve the step
_FARTHEST: Final = 8.0  # steps by which a channel may compensate others; 4.2 was the most found
_BASE_STEP: Final = (
    1 / 3
)  # of the latent's standard deviation: 3.6 bits a value, 1.4 kB for 12 rows
_FINE_STEP: Final = 1 / 24  # the same after layer 1; no visible error is left


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig(Stage["QuantizedMotion"]):
    """How motion is quantized."""

    name = "quantize"
    version = 2
    phase = "pack"

    quality: int = REFERENCE_QUALITY
    """0 to 100; 12 points halve the steps."""
    most_bits: float = math.inf
    """Most bits a frame; the quality is lowered until they suffice."""
    calm: float = 0.3
    """Weight of the estimated bits against the squared error in steps; 0 rounds to nearest."""
    steady: float = 1.0
    """Weight of the change of the error from frame to frame, which shows as flicker."""
    rounds: int = 3
    """Passes over all channels, each rounding a channel again given the errors of the others. On
    three real clips, at the same bits, the squared error was 0.28 to 0.36 times that of rounding
    each channel by itself, and its change between frames 0.24 to 0.31 times."""

    def run(self, task: Task, solved: SolvedMotion) -> QuantizedMotion:
        """See `quantize_within`; held frames repeat the integers of the frame they show."""
        rows, places = np.unique(solved.shown, return_inverse=True)
        metric = replace(solved.metric, nearest=solved.metric.nearest[rows])
        packed = quantize_within(solved.motion[rows], solved.picture_effect, metric, self)
        return replace(packed, values=packed.values[places])

    @classmethod
    def of(cls, quality: int | None, most_bits: float | None) -> QuantizeConfig:
        """Return a user's choice; without any, the default quality within the default bits."""
        if most_bits is None:
            most_bits = DEFAULT_MOST_BITS if quality is None else math.inf
        return cls(quality=DEFAULT_QUALITY if quality is None else quality, most_bits=most_bits)


@dataclass(frozen=True, kw_only=True)
class PictureMetric:
    """Squared picture change by errors e of all 34 values: `eᵀ N e` near each frame."""

    normals: NDArray[np.float64]
    """`JᵀJ` of the picture at a few motions, `[A, 34, 34]`."""
    nearest: NDArray[np.int64]
    """Which of them holds for each frame, `[T]`."""


@dataclass(frozen=True, kw_only=True)
class SolvedMotion:
    """Motion before quantization, and how visible its errors are."""

    motion: NDArray[np.float32]
    """`[T, 34]`."""
    picture_effect: NDArray[np.float32]
    """Root mean square picture change per unit of motion, `[34]`."""
    metric: PictureMetric
    shown: NDArray[np.int64]
    """Which frame each frame repeats, `[T]`."""


@dataclass(frozen=True, kw_only=True)
class QuantizedMotion:
    """Motion as it goes into the file."""

    values: NDArray[np.int32]
    """`[T, 34]`."""
    steps: NDArray[np.float32]
    """`[34]`."""
    quality: int
    """The one asked for, or lower where the bits were exceeded."""


def smoothed(
    motion: NDArray[np.float32], strength: float, cuts: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Take the jitter out of motion `[T, 34]` that was solved frame by frame.

    Whittaker's graduation (Whittaker 1923, https://doi.org/10.1017/S0013091500077853): squared
    error plus `strength` times the squared second differences. At 0.2 a movement of ten frames a
    period keeps 97 % of its height, one of two frames 24 %. Nothing is smoothed across frames that
    begin a new scene, `cuts` `[T]`.
    """
    reach = 16  # frames after which a response of any sensible strength has died away
    if strength == 0:
        return motion
    size = 2 * reach + 1
    second = np.diff(np.eye(size), n=2, axis=0)
    kernel = np.linalg.inv(np.eye(size) + strength * second.T @ second)[reach]
    kernel /= kernel.sum()
    result = motion.copy()
    starts = [0, *(np.flatnonzero(cuts[1:]) + 1).tolist(), len(motion)]
    for first, last in itertools.pairwise(starts):
        piece = motion[first:last].astype(np.float64)
        around = np.pad(piece, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
        windows = np.lib.stride_tricks.sliding_window_view(around, size, axis=0)
        result[first:last] = windows @ kernel
    return result


def quantize_within(
    motion: NDArray[np.float32],
    picture_effect: NDArray[np.float32],
    metric: PictureMetric,
    config: QuantizeConfig,
) -> QuantizedMotion:
    """Quantize motion `[T, 34]` at a quality, lowered until the bits a frame suffice;
    `picture_effect` `[34]` is the root mean square picture change per unit of motion."""
    while True:
        steps = motion_steps(picture_effect, config)
        values = quantize_motion(motion, steps, config, metric)
        excess = bits_a_frame(values) / config.most_bits
        if excess <= 1 or config.quality == 0:
            return QuantizedMotion(values=values, steps=steps, quality=config.quality)
        lower = config.quality - max(1, round(_QUALITY_PER_OCTAVE * float(np.log2(excess))))
        config = replace(config, quality=max(0, lower))


def bits_a_frame(values: NDArray[np.int32]) -> float:
    """Return the coded size of motion `[T, 34]`, in bits a frame."""
    model = fit_model(values)
    groups = [values[at : at + GROUP_FRAMES] for at in range(0, len(values), GROUP_FRAMES)]
    used = model or default_model(values.shape[1])
    size = model_bytes(model) + sum(len(pack_frames(group, used)) for group in groups)
    return 8 * size / len(values)


def motion_steps(
    picture_effect: NDArray[np.float32], config: QuantizeConfig
) -> NDArray[np.float32]:
    """Return the quantizer step of each of the 34 values, by the root mean square picture change
    per unit of motion, `[34]`."""
    octaves = (config.quality - REFERENCE_QUALITY) / _QUALITY_PER_OCTAVE
    wanted = _EFFECT_AT_REFERENCE * 2.0**-octaves
    floor = float(np.median(picture_effect)) / 30  # a value without effect needs no fine step
    steps: NDArray[np.float32] = (wanted / np.maximum(picture_effect, floor)).astype(np.float32)
    return steps


def quantize_motion(
    motion: NDArray[np.float32],
    steps: NDArray[np.float32],
    config: QuantizeConfig,
    metric: PictureMetric | None = None,
) -> NDArray[np.int32]:
    """Round motion `[T, 34]` to integers along the cheapest path near it.

    For each channel, dynamic programming over the three nearest integers a frame finds the sequence
    that minimises the squared error, `calm` times an estimate of the bits of its differences, and
    `steady` times the squared change of the error. Many channels move the same pixels: with a
    metric, errors are those of the picture, and each channel in turn compensates the others.

    Args:
        motion: solved values, `[T, 34]`.
        steps: of each channel, `[34]`.
        config: weights.
        metric: None counts each channel by itself, equally visible at its step.
    """
    scaled = motion.astype(np.float64) / steps
    nearest = np.rint(scaled)
    if config.calm == 0 or len(motion) < 2:
        return nearest.astype(np.int32)
    if metric is None:
        metric = PictureMetric(
            normals=np.diag(1.0 / steps.astype(np.float64) ** 2)[None],
            nearest=np.zeros(len(motion), np.int64),
        )
    normals = metric.normals * steps[:, None] * steps
    diagonals = normals.diagonal(axis1=1, axis2=2)
    normals = normals / max(float(diagonals[metric.nearest].mean()), 1e-30)
    values = nearest
    for _ in range(config.rounds):
        for channel in range(scaled.shape[1]):
            rows = normals[metric.nearest, channel]  # [T, 34]
            values[:, channel] = _path(values - scaled, scaled[:, channel], channel, rows, config)
    return values.astype(np.int32)


def _path(
    errors: NDArray[np.float64],
    wanted: NDArray[np.float64],
    channel: int,
    rows: NDArray[np.float64],
    config: QuantizeConfig,
) -> NDArray[np.float64]:
    """Return the best integers `[T]` of one channel given the others: errors of all channels `[T,
    34]` and wanted values `[T]`, both in steps, and the channel's row of the metric at each frame,
    `[T, 34]`."""
    others = errors.copy()
    others[:, channel] = 0
    weight = np.maximum(rows[:, channel], 1e-9)
    pull = np.einsum("tj,tj->t", rows, others)
    lack = np.clip(pull / weight, -_FARTHEST, _FARTHEST)
    best = wanted - lack  # compensates the errors of all others
    candidates = np.rint(best)[:, None] + np.array([-1.0, 0.0, 1.0])  # [T, 3]
    own = weight[:, None] * np.square(candidates - best[:, None])
    drift = np.einsum("tj,tj->t", rows[1:], np.diff(others, axis=0))
    off = candidates - wanted[:, None]
    change = off[1:, None, :] - off[:-1, :, None]  # [T - 1, from, to]
    moves = np.abs(candidates[1:, None, :] - candidates[:-1, :, None])
    flicker = weight[1:, None, None] * np.square(change) + 2 * drift[:, None, None] * change
    between = config.calm * _bits(moves) + config.steady * flicker
    cost = own[0]
    back = np.zeros(candidates.shape, np.int8)
    for t in range(1, len(candidates)):
        total = cost[:, None] + between[t - 1]
        back[t] = total.argmin(0)
        cost = total.min(0) + own[t]
    path = np.empty(len(candidates))
    chosen = int(cost.argmin())
    for t in range(len(candidates) - 1, -1, -1):
        path[t] = candidates[t, chosen]
        chosen = back[t, chosen]
    return path


def latent_layers(
    offset: NDArray[np.float32],
) -> tuple[tuple[LatentLayer, LatentLayer], NDArray[np.float32]]:
    """Return a latent, minus the generator's mean latent `[L, D]`, as base layer and refinement,
    and the latent they add up to."""
    deviation = max(float(offset.std()), 1e-6)
    base = _rounded(offset, deviation * _BASE_STEP)
    fine = _rounded(offset - base.dequantize(), deviation * _FINE_STEP)
    layers = (LatentLayer(latent=base), LatentLayer(latent=fine))
    return layers, base.dequantize() + fine.dequantize()


def _rounded(values: NDArray[np.float32], step: float) -> QuantizedTensor:
    integers = np.rint(values / np.float32(step)).astype(np.int32)
    return QuantizedTensor(values=integers, step=float(np.float32(step)))


def _bits(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an estimate of the bits of a coded difference."""
    result: NDArray[np.float64] = np.where(change == 0, 0.4, 2.0 + 2.0 * np.log2(1 + change))
    return result
