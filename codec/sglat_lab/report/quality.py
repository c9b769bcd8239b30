"""Rows of the benchmark's tables of quality at a rate: ours against the anchors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean as mean
from typing import Any, Final

from sglat_lab.measure.picture_metrics import METRICS, Metric
from sglat_lab.measure.rates import Curve, bootstrap, envelope, read_curve

Record = dict[str, Any]
Rows = list[list[str]]

VERDICT_METRICS: Final = (
    "perceptual_face", "perceptual", "identity_loss", "psnr_face", "ssim_face", "ms_ssim_face",
    "rho_au_proxy", "jitter_ratio",
)  # fmt: skip
DUEL_METRICS: Final = ("perceptual_face", "identity_loss", "psnr_face")
"""Those that are shown where there is room for few."""


def present_metrics(record: Record) -> list[Metric]:
    """Return the metrics that were measured."""
    return [m for m in METRICS if m.key in record["summary"]["sglat"]["figures"]]


def main_metrics(record: Record) -> list[Metric]:
    """Return the few that count most; PSNR of the crop where no face region is known."""
    present = present_metrics(record)
    keys = {metric.key for metric in present}
    wanted = DUEL_METRICS if "psnr_face" in keys else (*DUEL_METRICS, "perceptual", "psnr")
    return [metric for metric in present if metric.key in wanted]


def interval(figure: Record, digits: int, sign: str = "", unit: str = "") -> str:
    """Return a mean with its interval; of one clip the mean alone."""
    mean, low, high = (f"{figure[key]:{sign}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean}{unit}" + (f" [{low}, {high}]" if figure["clips"] > 1 else "")


def verdict_metrics(record: Record) -> list[Metric]:
    """Return the measured ones of those that decide whether sglat is better."""
    return [m for m in present_metrics(record) if m.key in VERDICT_METRICS]


def won_and_lost(record: Record, keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the anchors whose means ours beats in all of some figures, lower is better, and the
    others."""
    summary = record["summary"]
    ours = summary["sglat"]["figures"]
    sides: tuple[list[str], list[str]] = ([], [])
    for name in list(summary)[1:]:
        theirs = summary[name]["figures"]
        is_won = all(ours[k]["mean"] < theirs[k]["mean"] for k in keys if k in theirs)
        sides[not is_won].append(name)
    return sides


def lowest_rates(record: Record) -> tuple[float, float]:
    """Return the lowest rates over 60 s of our versions and of the anchors, on any clip."""
    rates: tuple[list[float], list[float]] = ([], [])
    for clip in record["clips"]:
        for name, points in clip["curves"].items():
            rates[name != "sglat"].extend(p["kbit_per_second_60s"] for p in points)
    return min(rates[0]), min(rates[1])


def span(values: Iterable[int]) -> str:
    """Return the least and the greatest of counts."""
    counts = list(values)
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def at_our_rate(record: Record) -> Rows:
    """Return ours against each anchor at the rate of our whole file over 60 s."""
    summary = record["summary"]
    names = list(summary)
    rows = [
        [label, *(interval(summary[name][key], 2) for name in names)]
        for label, key in (
            ("kbit/s over 60 s", "kbit_per_second_60s"),
            ("kbit/s, cached identity or intra frame", "kbit_per_second_cached"),
        )
    ]
    lowest = [str(summary[name]["clips_at_lowest_rate"]) for name in names[1:]]
    rows.append(["clips where even the lowest rate is above ours", "", *lowest])
    for metric in present_metrics(record):
        row = [f"{metric.label} {'↑' if metric.is_higher_better else '↓'}"]
        ours = summary["sglat"]["figures"][metric.key]["mean"]
        for name in names:
            figure = summary[name]["figures"].get(metric.key)
            text = "–" if figure is None else interval(figure, metric.digits)
            is_better = figure is not None and _beats(figure["mean"], ours, metric)
            row.append(f"{text} (better)" if is_better else text)
        rows.append(row)
    return rows


def verdict(record: Record) -> Rows:
    """Return in words where each anchor is better at our rate."""
    summary = record["summary"]
    rows = []
    for name in list(summary)[1:]:
        row = [name]
        for metric in verdict_metrics(record):
            ours, theirs = (summary[n]["figures"].get(metric.key) for n in ("sglat", name))
            if theirs is None:
                row.append("–")
                continue
            pairs = [
                (clip["ours"]["figures"].get(metric.key), version["figures"].get(metric.key))
                for clip in record["clips"]
                if (version := clip["at_our_rate"][name]) is not None
            ]
            won = sum(_beats(a, b, metric) for a, b in pairs if a is not None and b is not None)
            word = "yes" if _beats(ours["mean"], theirs["mean"], metric) else "NO"
            row.append(f"{word} ({won} of {len(pairs)} clips)")
        rows.append(row)
    return rows


def _beats(one: float, other: float, metric: Metric) -> bool:
    return one > other if metric.is_higher_better else one < other


def _curve(points: Iterable[Record], metric: Metric) -> Curve:
    sign = 1.0 if metric.is_higher_better else -1.0
    return envelope([(p["kbit_per_second_60s"], sign * p["figures"][metric.key]) for p in points])


def duels(record: Record) -> Rows:
    """Return each of our settings against what the anchors' curves give at the same rate."""
    clips = record["clips"]
    anchors = [name for name in clips[0]["curves"] if name != "sglat"]
    points_of: dict[str, list[tuple[Record, Record]]] = {}
    for clip in clips:
        for point in clip["curves"]["sglat"]:
            points_of.setdefault(point["setting"], []).append((clip, point))
    rows = []
    for setting, pairs in sorted(points_of.items(), key=lambda item: _mean_rate(item[1])):
        shared, points = [clip for clip, _ in pairs], [point for _, point in pairs]
        if len(pairs) < len(clips):
            setting += f" ({len(pairs)} clips)"
        for metric in main_metrics(record):
            ours = mean([p["figures"][metric.key] for p in points])
            row = [setting, f"{_mean_rate(pairs):.2f}", metric.label, f"{ours:.{metric.digits}f}"]
            rows.append(row + [_duel(shared, points, name, metric, ours) for name in anchors])
    return rows


def _mean_rate(pairs: Sequence[tuple[Record, Record]]) -> float:
    return mean([point["kbit_per_second_60s"] for _, point in pairs])


def _duel(
    clips: Sequence[Record], points: Sequence[Record], name: str, metric: Metric, ours: float
) -> str:
    sign = 1.0 if metric.is_higher_better else -1.0
    readings = [
        read_curve(_curve(clip["curves"][name], metric), point["kbit_per_second_60s"])
        for clip, point in zip(clips, points, strict=True)
    ]
    found = mean([sign * r.quality for r in readings])
    text = f"{found:.{metric.digits}f}"
    if _beats(found, ours, metric):
        text += " (better)"
    lowest = [r.rate for r in readings if r.is_lowest]
    if lowest:
        text += f" (lowest {mean(lowest):.1f}, {len(lowest)}/{len(readings)})"
    return text


def cached(record: Record) -> Rows:
    """Return ours with a known identity against the least each anchor spends without its intra."""
    metrics = main_metrics(record)
    clips = record["clips"]
    rows = []
    for name in clips[0]["curves"]:
        if name == "sglat":
            what, versions = "as encoded", [clip["ours"] for clip in clips]
        else:
            what = "lowest rate reached"
            versions = [next(v for v in clip["curves"][name] if v["is_lowest"]) for clip in clips]
        rate = bootstrap([v["kbit_per_second_cached"] for v in versions])
        figures = [bootstrap([v["figures"][m.key] for v in versions]) for m in metrics]
        found = [interval(f, m.digits) for f, m in zip(figures, metrics, strict=True)]
        rows.append([name, what, interval(rate, 2), *found])
    return rows


def bd_rates(record: Record) -> Rows:
    """Return BD-rates: mean over the clips that allow one, and how many refuse."""
    labels = {m.key: m.label for m in METRICS}
    rows = []
    for name, keys in record["clips"][0]["bd_rate"].items():
        for key in keys:
            row = [name, labels[key]]
            for method in ("akima", "pchip"):
                all_ = [clip["bd_rate"][name].get(key, {}).get(method) for clip in record["clips"]]
                figures = [value for value in all_ if isinstance(value, float)]
                refused = sum(isinstance(value, str) for value in all_)
                text = interval(bootstrap(figures), 0, "+", " %") if figures else "–"
                row.append(f"{text} ({len(figures)} clips, {refused} refused)")
            rows.append(row)
    return rows
