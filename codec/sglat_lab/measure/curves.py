"""Rate-distortion curves: BD-rate with refusals, points at a rate, intervals over clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from sglat.errors import MissingExtraError, UsageError
from sglat_lab.measure.picture_metrics import METRICS

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


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over clips with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    clips: int


def bootstrap(values: Sequence[float], *, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Return the mean and the 95 % percentile interval of resampled clips.

    One clip has no spread: its interval is the value itself, and `clips` is 1.

    Raises:
        UsageError: no values.
    """
    if not values:
        raise UsageError("no-values", "expected one value or more, found none")
    sample = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(len(sample), size=(draws, len(sample)))
    low, high = np.percentile(sample[picks].mean(axis=1), [2.5, 97.5])
    return Interval(mean=float(sample.mean()), low=float(low), high=float(high), clips=len(sample))


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
    found: dict[str, Any] = {}
    for name, points in curves.items():
        if name == "sglat":
            continue
        found[name] = {}
        for key in BD_METRICS:
            sign = 1.0 if higher[key] else -1.0
            both = [
                [
                    (v["kbit_per_second_60s"], sign * v["figures"][key])
                    for v in versions
                    if key in v["figures"]
                ]
                for versions in (points, curves["sglat"])
            ]
            if not all(both):
                continue
            anchor, test = map(envelope, both)
            found[name][key] = {}
            for method in METHODS:
                try:
                    figure: float | str = bd_rate_percent(anchor, test, method=method)
                except UsageError as error:
                    figure = f"refused: {error.message}"
                found[name][key][method] = figure
    return found


def summarize(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over clips with 95 % bootstrap intervals: ours and the anchors at our rate."""
    sets = {"sglat": [record["ours"] for record in records]}
    for name in records[0]["at_our_rate"]:
        sets[name] = [record["at_our_rate"][name] for record in records]
    summary: dict[str, Any] = {}
    for name, versions in sets.items():
        figures = {}
        for metric in METRICS:
            values = [v["figures"][metric.key] for v in versions if metric.key in v["figures"]]
            if values:
                figures[metric.key] = asdict(bootstrap(values))
        rates = [v["kbit_per_second_60s"] for v in versions]
        summary[name] = {
            "figures": figures,
            "kbit_per_second_60s": asdict(bootstrap(rates)),
            "kbit_per_second_cached": asdict(
                bootstrap([v["kbit_per_second_cached"] for v in versions])
            ),
            "clips_at_lowest_rate": sum(v["is_lowest"] for v in versions),
        }
    return summary
