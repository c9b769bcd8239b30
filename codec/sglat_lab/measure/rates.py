"""What a file costs: bytes by stream, kbit/s at any length, other coders for its integers; curves
of quality against rate: BD-rate with refusals, points at a rate, intervals over clips.

`sei_bits` is the coding of the H.274 generative-face-video SEI message: difference to the frame
before, magnitude as `ue(v)` (0-order Exp-Golomb), a sign bit where the magnitude is not zero.
`gfvc_bits` follows the JVET AhG16 GFVC software (Goluck-Konuko/GFVC,
`source/arithmetic/value_encoder.py`): signed differences interleaved to 0, 1, -1, 2, -2,
Exp-Golomb, the bits through an order-0 adaptive arithmetic coder that starts anew and is flushed to
whole bytes for every frame. Both code the first frame as a difference to zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import CHUNK_FRAME_BYTES
from sglat.bitstream.info import STREAMS, describe, stream_bytes
from sglat.bitstream.reader import open_reader
from sglat.errors import FormatError, MissingExtraError, UsageError
from sglat_lab.measure.picture_metrics import METRICS

MINUTE: Final = 60.0
LENGTHS_SECONDS: Final = (10.0, MINUTE, 10 * MINUTE)
ENCODED, IDENTITY, QUALITY, LAYERS, COARSER = "encoded", "identity", "quality", "layers", "coarser"
"""Kinds of our versions: as encoded, encoded again with another identity size or motion quality,
identity layers cut off, motion rounded to coarser steps."""
Integers = NDArray[np.int32]
"""`[T, C]` quantized values."""
_RUNNING: Final = (*STREAMS["motion"], *STREAMS["placement"], "INDX")  # grow with the clip
_APART: Final = (*STREAMS["audio"], *STREAMS["plate"], "THMB")  # anchors carry none


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes paid once and bytes paid with every second, of any codec."""

    once_bytes: int
    """Identity and header, or the intra frame."""
    running_bytes: int
    """Motion, placement and index, or the predicted frames."""
    seconds: float
    """Length of the clip."""

    def first_view(self, seconds: float | None = None) -> float:
        """Return kbit/s when everything is sent, over a length; None: the clip's own.

        Longer clips are extrapolated: what is paid once stays, the rest grows with the length.
        """
        length = seconds or self.seconds
        running = self.running_bytes * length / self.seconds
        return 8e-3 * (self.once_bytes + running) / length

    @property
    def cached(self) -> float:
        """Kbit/s when the receiver already has what is paid once."""
        return 8e-3 * self.running_bytes / self.seconds


@dataclass(frozen=True, kw_only=True)
class Version:
    """One way to code a clip, its cost and its figures."""

    codec: str
    setting: str
    cost: Cost
    figures: dict[str, float]
    kind: str = ENCODED
    """Of ours: how it came about."""
    is_lowest: bool = False
    """The coarsest setting; as a match: even this one spends more than wanted."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values with the rates worked out."""
        return {
            "codec": self.codec,
            "setting": self.setting,
            "kind": self.kind,
            "kbit_per_second_clip": self.cost.first_view(),
            **{f"kbit_per_second_{s:.0f}s": self.cost.first_view(s) for s in LENGTHS_SECONDS},
            "kbit_per_second_cached": self.cost.cached,
            "is_lowest": self.is_lowest,
            "figures": self.figures,
        }


def file_cost(path: Path) -> Cost:
    """Return the cost of a `.sglat` file; sound and still pictures are left out.

    Raises:
        FormatError: damaged, or without motion.
    """
    record = _described(path)
    chunks: dict[str, dict[str, int]] = record["chunks"]

    def whole(kinds: tuple[str, ...]) -> int:
        found = [chunks[kind] for kind in kinds if kind in chunks]
        return sum(c["bytes"] + CHUNK_FRAME_BYTES * c["count"] for c in found)

    running, apart = whole(_RUNNING), whole(_APART)
    return Cost(
        once_bytes=record["file_bytes"] - running - apart,
        running_bytes=running,
        seconds=record["motion"]["duration_seconds"],
    )


def file_rates(path: Path) -> dict[str, Any]:
    """Return all rate figures of a file, as plain values."""
    record = _described(path)
    frames, cost, sizes = record["motion"]["frames"], file_cost(path), stream_bytes(record)
    with open_reader(path) as reader:
        values = reader.read_motion().values
    try:
        packed: float | str = zstd_bits(values) / frames
    except ModuleNotFoundError:
        packed = f"not measured: {MissingExtraError('zstandard', extra='bench')}"
    return {
        "file_bytes": record["file_bytes"],
        "bytes_by_stream": sizes,
        "frames": frames,
        "seconds": cost.seconds,
        "motion_bits_per_frame": 8 * sizes["motion"] / frames,
        "placement_bits_per_frame": 8 * sizes["placement"] / frames,
        "kbit_per_second": {
            "motion": 8e-3 * sizes["motion"] / cost.seconds,
            "cached_identity": cost.cached,
            "first_view": cost.first_view(),
            **{f"first_view_{length:.0f}s": cost.first_view(length) for length in LENGTHS_SECONDS},
        },
        "other_coders_bits_per_frame": {
            "raw float32": 32.0 * values.shape[1],
            "H.274 style (difference, Exp-Golomb)": float(sei_bits(values).mean()),
            "GFVC software style": float(gfvc_bits(values).mean()),
            "zstd, level 19": packed,
        },
    }


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        record = describe(file)
    if not record["is_complete"] or record["motion"] is None:
        raise FormatError("no-motion", f"expected a complete file with motion, found {path.name}")
    return record


def differences(values: Integers) -> Integers:
    """Return what a predictor by the frame before leaves, `[T, C]`; the first frame is whole."""
    return np.diff(values, axis=0, prepend=np.zeros((1, values.shape[1]), values.dtype))


def exp_golomb_length(numbers: NDArray[np.integer]) -> Integers:
    """Return the length in bits of `ue(v)` for non-negative numbers."""
    exponent = np.frexp(numbers.astype(np.float64) + 1)[1] - 1  # floor(log2(n + 1)), exact
    return 2 * exponent.astype(np.int32) + 1


def sei_bits(values: Integers) -> NDArray[np.int64]:
    """Return the bits of each frame, `[T]`, coded as the GFV SEI message does."""
    magnitude = np.abs(differences(values))
    bits = exp_golomb_length(magnitude) + (magnitude > 0)
    return np.asarray(bits.sum(axis=1), np.int64)


def gfvc_bits(values: Integers) -> NDArray[np.int64]:
    """Return the bits of each frame, `[T]`, as the GFVC software's files of whole bytes."""
    left = differences(values).astype(np.int64)
    index = np.where(left <= 0, -2 * left, 2 * left - 1)
    ones_of_binary = np.bitwise_count(index + 1)
    ones = ones_of_binary.sum(axis=1) + 1  # the software puts one marker bit in front
    zeros = (exp_golomb_length(index) - ones_of_binary).sum(axis=1)
    return np.array([_flushed_bits(int(o), int(z)) for o, z in zip(ones, zeros, strict=True)])


def _flushed_bits(ones: int, zeros: int) -> int:
    """Return the size of one flushed order-0 file: counts from nothing, an escape of weight 1.

    The probability of a sequence under adaptive counts does not depend on its order: the product of
    the counts before each symbol over the totals. A first appearance and the end cost an escape and
    a choice among three.
    """
    seen = ones + zeros
    ideal = (
        math.lgamma(seen + 2) - math.lgamma(max(ones, 1)) - math.lgamma(max(zeros, 1))
    ) / math.log(2)
    ideal += ((ones > 0) + (zeros > 0) + 1) * math.log2(3)
    return 8 * math.ceil((ideal + 1) / 8)  # the coder ends with one bit, then fills its byte


def zstd_bits(values: Integers) -> int:
    """Return the size in bits of all differences as int16, channel by channel, through zstd."""
    import zstandard

    left = np.ascontiguousarray(differences(values).astype("<i2").T)
    planes = left.view(np.uint8).reshape(*left.shape, 2)
    packed = zstandard.ZstdCompressor(level=19).compress(planes.transpose(2, 0, 1).tobytes())
    return 8 * len(packed)


Method = Literal["akima", "pchip"]
METHODS: Final[tuple[Method, ...]] = ("akima", "pchip")
LEAST_OVERLAP: Final = 0.25  # of the joint range of quality; below, a mean over it means little
LEAST_POINTS: Final = 4
DRAWS: Final = 4000
BD_METRICS: Final = ("perceptual_face", "perceptual", "identity_loss", "psnr_face", "ssim_face")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Rates in kbit/s and a quality that rises with the rate, in order of the rate."""

    rates: tuple[float, ...]
    qualities: tuple[float, ...]


def envelope(points: Sequence[tuple[float, float]]) -> Curve:
    """Return the points that no cheaper point beats: rates and qualities both rise.

    Args:
        points: rate in kbit/s and quality, higher is better.
    """
    rates: list[float] = []
    qualities: list[float] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not qualities or quality > qualities[-1]:
            rates.append(rate)
            qualities.append(quality)
    return Curve(rates=tuple(rates), qualities=tuple(qualities))


def overlap(a: Curve, b: Curve) -> float:
    """Return the common range of quality as a fraction of the joint one, 0 to 1."""
    low, high = max(a.qualities[0], b.qualities[0]), min(a.qualities[-1], b.qualities[-1])
    joint = max(a.qualities[-1], b.qualities[-1]) - min(a.qualities[0], b.qualities[0])
    return max(0.0, high - low) / joint if joint > 0 else 0.0


def bd_rate_percent(anchor: Curve, test: Curve, *, method: Method) -> float:
    """Return the mean difference in rate at equal quality: -50 means half the anchor's rate.

    Raises:
        UsageError: `few-points` or `no-overlap`: the figure would be an extrapolation.

    Source: Bjontegaard, VCEG-M33, with piecewise interpolation, through the bjontegaard package.
    """
    try:
        import bjontegaard
    except ImportError as error:
        raise MissingExtraError("bjontegaard", extra="bench") from error
    fewest = min(len(anchor.rates), len(test.rates))
    if fewest < LEAST_POINTS:
        raise UsageError(
            "few-points", f"expected {LEAST_POINTS} points on each curve, found {fewest}"
        )
    common = overlap(anchor, test)
    if common < LEAST_OVERLAP:
        raise UsageError(
            "no-overlap",
            f"expected curves that share {LEAST_OVERLAP:.0%} of their quality, found {common:.0%}",
        )
    return float(
        bjontegaard.bd_rate(
            list(anchor.rates), list(anchor.qualities), list(test.rates), list(test.qualities),
            method=method, require_matching_points=False, min_overlap=0,
        )
    )  # fmt: skip


def bootstrap(values: Sequence[float]) -> dict[str, Any]:
    """Return `mean`, `low` and `high` of the 95 % percentile interval of resampled clips, and their
    number `clips`.

    One clip has no spread: its interval is the value itself, and `clips` is 1.

    Raises:
        UsageError: no values.
    """
    if not values:
        raise UsageError("no-values", "expected one value or more, found none")
    sample = np.asarray(values, np.float64)
    picks = np.random.default_rng(0).integers(len(sample), size=(DRAWS, len(sample)))
    low, high = np.percentile(sample[picks].mean(axis=1), [2.5, 97.5])
    return {
        "mean": float(sample.mean()), "low": float(low), "high": float(high), "clips": len(sample),
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a curve gives at a rate."""

    quality: float
    rate: float
    """The rate it stands for: the wanted one, or the nearest that the curve reaches."""
    is_lowest: bool
    """The wanted rate lies below the curve: this is its cheapest point."""


def read_curve(curve: Curve, wanted: float) -> Reading:
    """Return the quality of a curve at a rate, linear in the logarithm of the rate.

    Nothing is extrapolated: beyond an end, the end's own quality and rate are returned.
    """
    rate = float(np.clip(wanted, curve.rates[0], curve.rates[-1]))
    quality = float(np.interp(np.log(rate), np.log(curve.rates), curve.qualities))
    return Reading(quality=quality, rate=rate, is_lowest=wanted < curve.rates[0])


def refine(measure: Callable[[int], float], low: int, high: int, wanted: float) -> int:
    """Return the largest whole setting in `low` to `high` whose rate is at least the wanted one.

    The rate must fall as the setting rises; `low` is returned if even it spends less.

    Args:
        measure: rate of a setting.
        low: setting of the highest rate.
        high: setting of the lowest rate.
        wanted: rate.
    """
    if measure(high) >= wanted:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if measure(middle) >= wanted:
            low = middle
        else:
            high = middle
    return low


def bd_table(curves: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return BD-rate of our curve over 60 s against each anchor, or why there is none."""
    higher = {metric.key: metric.is_higher_better for metric in METRICS}

    def points(name: str, key: str) -> list[tuple[float, float]]:
        sign = 1.0 if higher[key] else -1.0
        known = [v for v in curves[name] if key in v["figures"]]
        return [(v["kbit_per_second_60s"], sign * v["figures"][key]) for v in known]

    def figure(anchor: Curve, test: Curve, method: Method) -> float | str:
        try:
            return bd_rate_percent(anchor, test, method=method)
        except UsageError as error:
            return f"refused: {error.message}"

    found: dict[str, Any] = {name: {} for name in curves if name != "sglat"}
    for name, keys in found.items():
        for key in BD_METRICS:
            both = [points(which, key) for which in (name, "sglat")]
            if all(both):
                anchor, test = map(envelope, both)
                keys[key] = {method: figure(anchor, test, method) for method in METHODS}
    return found


def summarize(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over clips with 95 % bootstrap intervals: ours and the anchors at our rate."""
    sets = {"sglat": [record["ours"] for record in records]}
    sets |= {name: [r["at_our_rate"][name] for r in records] for name in records[0]["at_our_rate"]}
    summary: dict[str, Any] = {}
    for name, versions in sets.items():
        of = {m.key: [v["figures"][m.key] for v in versions if m.key in v["figures"]]
              for m in METRICS}  # fmt: skip
        rates = ("kbit_per_second_60s", "kbit_per_second_cached")
        summary[name] = {
            "figures": {key: bootstrap(values) for key, values in of.items() if values},
            **{key: bootstrap([v[key] for v in versions]) for key in rates},
            "clips_at_lowest_rate": sum(v["is_lowest"] for v in versions),
        }
    return summary
