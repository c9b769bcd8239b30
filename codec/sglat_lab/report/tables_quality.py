"""Tables of quality at a rate: ours against the anchors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sglat_lab.measure.curves import Curve, Interval, bootstrap, envelope, read_curve
from sglat_lab.measure.picture_metrics import METRICS, Metric
from sglat_lab.report.document import Table, number

Record = dict[str, Any]

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


def interval(figure: Interval, digits: int) -> str:
    """Return a mean with its interval; of one clip the mean alone."""
    text = f"{figure.mean:.{digits}f}"
    if figure.clips == 1:
        return text
    return f"{text} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def _interval(figure: Record, digits: int) -> str:
    return interval(Interval(**figure), digits)


def at_our_rate(record: Record) -> Table:
    """Return ours against each anchor at the rate of our whole file over 60 s."""
    summary = record["summary"]
    names = list(summary)
    rows = [
        ["kbit/s over 60 s", *(_interval(summary[n]["kbit_per_second_60s"], 2) for n in names)],
        [
            "kbit/s, cached identity or intra frame",
            *(_interval(summary[n]["kbit_per_second_cached"], 2) for n in names),
        ],
        [
            "clips where even the lowest rate is above ours",
            "",
            *(str(summary[n]["clips_at_lowest_rate"]) for n in names[1:]),
        ],
    ]
    for metric in present_metrics(record):
        row = [f"{metric.label} {'↑' if metric.is_higher_better else '↓'}"]
        for name in names:
            figure = summary[name]["figures"].get(metric.key)
            text = "–" if figure is None else _interval(figure, metric.digits)
            is_better = (
                name != "sglat"
                and figure is not None
                and _beats(figure["mean"], summary["sglat"]["figures"][metric.key]["mean"], metric)
            )
            row.append(f"{text} (better)" if is_better else text)
        rows.append(row)
    clips = summary["sglat"]["kbit_per_second_60s"]["clips"]
    notes = [
        f"Means over {clips} clips"
        + (", 95 % bootstrap intervals over clips." if clips > 1 else ": no interval.")
        + " *better*: the anchor's mean is better than ours.",
        "Each anchor stands at the coarsest setting that still spends at least our rate, clip by "
        "clip. Where even its coarsest setting spends more, that one is shown, and the rate is the "
        "lowest rate it reaches.",
        "60 s: what is sent once (identity and header, or intra frame) counts once, the rest at "
        "the clip's own bits a frame. Ours includes placement and container, not sound.",
    ]
    return Table(title="At the rate of our whole file", head=["", *names], rows=rows, notes=notes)


def verdict(record: Record) -> Table:
    """Return in words where each anchor is better at our rate: what the project aims at."""
    summary = record["summary"]
    metrics = [m for m in present_metrics(record) if m.key in VERDICT_METRICS]
    rows = []
    for name in list(summary)[1:]:
        cells = []
        for metric in metrics:
            ours, theirs = (summary[n]["figures"].get(metric.key) for n in ("sglat", name))
            if theirs is None:
                cells.append("–")
                continue
            pairs = [
                (clip["ours"]["figures"].get(metric.key), version["figures"].get(metric.key))
                for clip in record["clips"]
                if (version := clip["at_our_rate"][name]) is not None
            ]
            won = sum(_beats(a, b, metric) for a, b in pairs if a is not None and b is not None)
            word = "yes" if _beats(ours["mean"], theirs["mean"], metric) else "NO"
            cells.append(f"{word} ({won} of {len(pairs)} clips)")
        rows.append([name, *cells])
    return Table(
        title="Is sglat better at its whole rate over 60 s?",
        head=["than", *(metric.label for metric in metrics)],
        rows=rows,
        notes=[
            "By the means over clips, with the clips where it holds in brackets; figures and "
            "intervals below. The aim is a yes in the perceptual distance and L_ID everywhere."
        ],
    )


def _beats(one: float, other: float, metric: Metric) -> bool:
    return one > other if metric.is_higher_better else one < other


def _curve(points: Iterable[Record], metric: Metric) -> Curve:
    sign = 1.0 if metric.is_higher_better else -1.0
    return envelope([(p["kbit_per_second_60s"], sign * p["figures"][metric.key]) for p in points])


def duels(record: Record) -> Table:
    """Return each of our settings against what the anchors' curves give at the same rate."""
    metrics = main_metrics(record)
    clips = record["clips"]
    anchors = [name for name in clips[0]["curves"] if name != "sglat"]
    points_of: dict[str, list[tuple[Record, Record]]] = {}
    for clip in clips:
        for point in clip["curves"]["sglat"]:
            points_of.setdefault(point["setting"], []).append((clip, point))
    rows = []
    for setting, pairs in sorted(points_of.items(), key=lambda item: _mean_rate(item[1])):
        shared, points = [clip for clip, _ in pairs], [point for _, point in pairs]
        rate = _mean_rate(pairs)
        if len(pairs) < len(clips):
            setting += f" ({len(pairs)} clips)"
        for metric in metrics:
            row = [setting, f"{rate:.2f}", metric.label]
            ours = mean([p["figures"][metric.key] for p in points])
            row.append(f"{ours:.{metric.digits}f}")
            for name in anchors:
                row.append(_duel(shared, points, name, metric, ours))
            rows.append(row)
    return Table(
        title="Each of our rates against the anchors' curves",
        head=["our setting", "kbit/s over 60 s", "metric", "ours", *anchors],
        rows=rows,
        notes=[
            "Means over clips. An anchor's figure is read from its own curve at our rate "
            "(linear in the logarithm of the rate, no extrapolation). *lowest X, n/m*: on n of "
            "m clips our rate lies below the anchor's curve; its lowest rate counts, X kbit/s on "
            "average over those clips. *better*: than ours. -q: motion of another quality, "
            "rounded anew from the solved numbers. --identity-bytes: tuned, solved and written "
            "anew. Identity layers: the file as encoded, cut off after so many layers.",
        ],
    )


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


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


def cached(record: Record) -> Table:
    """Return ours with a known identity against the least each anchor spends without its intra."""
    metrics = main_metrics(record)
    clips = record["clips"]
    names = list(clips[0]["curves"])
    rows = []
    for name in names:
        if name == "sglat":
            versions = [clip["ours"] for clip in clips]
        else:
            versions = [next(v for v in clip["curves"][name] if v["is_lowest"]) for clip in clips]
        rate = bootstrap([v["kbit_per_second_cached"] for v in versions])
        figures = [bootstrap([v["figures"][m.key] for v in versions]) for m in metrics]
        what = "as encoded" if name == "sglat" else "lowest rate reached"
        cells = [interval(f, m.digits) for f, m in zip(figures, metrics, strict=True)]
        rows.append([name, what, interval(rate, 2), *cells])
    return Table(
        title="When the identity is already there",
        head=["codec", "setting", "kbit/s", *(m.label for m in metrics)],
        rows=rows,
        notes=[
            "Ours: motion, placement and index only. Anchors: predicted frames only, as if their "
            "intra frame were known, at their coarsest setting; none was brought lower.",
        ],
    )


def bd_rates(record: Record) -> Table:
    """Return BD-rates: mean over the clips that allow one, and how many refuse."""
    labels = {m.key: m.label for m in METRICS}
    rows = []
    first = record["clips"][0]["bd_rate"]
    for name in first:
        for key in first[name]:
            row = [name, labels[key]]
            for method in ("akima", "pchip"):
                all_ = [clip["bd_rate"][name].get(key, {}).get(method) for clip in record["clips"]]
                figures = [value for value in all_ if isinstance(value, float)]
                refused = sum(isinstance(value, str) for value in all_)
                text = "–"
                if figures:
                    saved = bootstrap(figures)
                    text = f"{saved.mean:+.0f} %"
                    if saved.clips > 1:
                        text += f" [{saved.low:+.0f}, {saved.high:+.0f}]"
                row.append(f"{text} ({len(figures)} clips, {refused} refused)")
            rows.append(row)
    return Table(
        title="BD-rate of sglat against the anchors",
        head=["anchor", "quality", "Akima", "PCHIP"],
        rows=rows,
        notes=[
            "Mean difference in rate over 60 s at equal quality; negative: we need less. Clips "
            "whose curves share less than a quarter of their joint range of quality are refused, "
            "so a mean over few clips says little. Our curve: the best of all our settings at "
            "each rate, that is of what the table of our rates lists.",
        ],
    )


def per_clip(record: Record) -> Table:
    """Return our figures and the anchors' at our rate, clip by clip."""
    metrics = present_metrics(record)
    rows = []
    for clip in record["clips"]:
        for name, version in (("sglat", clip["ours"]), *clip["at_our_rate"].items()):
            rate = number(version["kbit_per_second_60s"], 2)
            if version["is_lowest"]:
                rate += " (lowest rate reached)"
            figures = [number(version["figures"].get(m.key), m.digits) for m in metrics]
            rows.append([clip["clip"], name, version["setting"], rate, *figures])
    head = ["clip", "codec", "setting", "kbit/s over 60 s", *(m.label for m in metrics)]
    return Table(title="Clip by clip at our rate", head=head, rows=rows)


def frechet(record: Record) -> Table:
    """Return Fréchet distances by network."""
    names = list(record["summary"])
    rows = [
        [network, *(number(found.get(name), 3) for name in names)]
        for network, found in record["frechet"].items()
    ]
    return Table(
        title="Fréchet distance to the source's frames",
        head=["features", *names],
        rows=rows,
        notes=["Not FID: other networks, few frames. Comparable only within this table."],
    )
