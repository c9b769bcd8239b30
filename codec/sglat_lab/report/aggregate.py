"""What all clips say together: BD-rates of each, means and intervals over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from sglat.errors import UsageError
from sglat_lab.measure.curves import METHODS, bd_rate_percent, bootstrap, envelope
from sglat_lab.measure.picture_metrics import METRICS

BD_METRICS: Final = ("perceptual_face", "perceptual", "identity_loss", "psnr_face", "ssim_face")


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
