"""Plots and pictures of the report as strings that HTML can hold: SVG, PNG and MP4 in base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError
from sglat.media.pictures import encode_png
from sglat.media.writer import VideoWriter
from sglat.metrics.clip_bench import COARSER
from sglat.metrics.measure import METRICS

Pictures = NDArray[np.uint8]
COLOURS: Final = ("#c0392b", "#2471a3", "#239b56", "#7d3c98", "#b9770e", "#566573")
PLOTTED: Final = ("perceptual_face", "identity_loss", "psnr_face", "perceptual", "psnr", "ssim")
PLOTS_IN_A_ROW: Final = 4
SHEET_COLUMNS: Final = 8
RATE_TICKS: Final = (0.5, 1, 2, 5, 10, 20, 50, 100, 200)
GAP: Final = 2  # pixels between videos side by side
SCALE: Final = 2  # of videos


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="bench") from error
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sglat"  # the same figures give the same bytes
    matplotlib.rcParams["font.size"] = 8
    import matplotlib.pyplot

    return matplotlib.pyplot


def curve_plots(clips: Sequence[dict[str, Any]]) -> str:
    """Return rate-distortion curves over 60 s as SVG: a row for each clip, a column a metric."""
    plt = _pyplot()
    known = clips[0]["ours"]["figures"]
    found = [m for key in PLOTTED for m in METRICS if m.key == key and key in known]
    metrics = found[:PLOTS_IN_A_ROW]
    size = (3.0 * len(metrics), 2.4 * len(clips))
    figure, axes = plt.subplots(len(clips), len(metrics), figsize=size, squeeze=False)
    for row, clip in zip(axes, clips, strict=True):
        for axis, metric in zip(row, metrics, strict=True):
            for colour, (name, points) in zip(COLOURS, clip["curves"].items(), strict=False):
                _draw(axis, name, points, metric.key, colour)
            _log_rates(axis)
            better = "higher" if metric.is_higher_better else "lower"
            axis.set_title(f"{clip['clip']}: {metric.label} ({better} is better)")
            axis.set_xlabel("kbit/s over 60 s")
    axes[0, 0].legend()
    return _svg(plt, figure)


def _draw(axis: Any, name: str, points: Sequence[dict[str, Any]], key: str, colour: str) -> None:
    """Draw one codec; our files with coarser motion stand beside the line of the layers."""
    apart = [p for p in points if p["setting"].startswith(COARSER)]
    line = sorted((p["kbit_per_second_60s"], p["figures"][key]) for p in points if p not in apart)
    width = 2.0 if name == "sglat" else 1.0
    axis.plot(*zip(*line, strict=True), "o-", label=name, color=colour, lw=width, ms=3)
    for point in apart:
        axis.plot(point["kbit_per_second_60s"], point["figures"][key], "x", color=colour, ms=5)


def _log_rates(axis: Any) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(RATE_TICKS))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)


def loss_plot(clips: Sequence[dict[str, Any]]) -> str:
    """Return the perceptual distance against frames lost as SVG; empty where it is not measured."""
    metric = next((m for m in METRICS if m.key == "perceptual"), None)
    if metric is None or "perceptual" not in clips[0]["ours"]["figures"]:
        return ""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(5, 3))
    for index, clip in enumerate(clips):
        known = sorted((100 * f["share_lost"], f["perceptual"]) for f in clip["loss"])
        colour = COLOURS[index % len(COLOURS)]
        axis.plot(*zip(*known, strict=True), "o-", label=clip["clip"], color=colour, ms=3)
    axis.set_xlabel("frames lost (%)")
    axis.set_title(f"{metric.label}, lost groups interpolated")
    axis.grid(alpha=0.3)
    axis.legend()
    return _svg(plt, figure)


def _svg(plt: Any, figure: Any) -> str:
    figure.tight_layout()
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def contact_sheet(rows: Sequence[Pictures]) -> str:
    """Return a PNG data address: one line of pictures for each version.

    Args:
        rows: versions `[N, R, R, 3]` of the same frames; eight of them are shown.
    """
    count = len(rows[0])
    chosen = np.unique(np.linspace(0, count - 1, min(count, SHEET_COLUMNS)).round().astype(int))
    sheet = np.concatenate([np.concatenate(list(row[chosen]), axis=1) for row in rows], axis=0)
    return _address("image/png", encode_png(sheet))


def side_by_side(rows: Sequence[Pictures], rate: Fraction) -> str:
    """Return an MP4 data address: versions `[T, R, R, 3]` next to each other, enlarged."""
    gap = np.full((*rows[0].shape[:2], GAP, 3), 255, np.uint8)
    parts: list[Pictures] = []
    for row in rows:
        parts += [np.asarray(row), gap]
    wide = np.concatenate(parts[:-1], axis=2).repeat(SCALE, 1).repeat(SCALE, 2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        size = (wide.shape[2], wide.shape[1])
        with VideoWriter(
            path, size=size, time_base=1 / rate, encoder="libx264", threads=1
        ) as writer:
            for index, picture in enumerate(wide):
                writer.write(picture, index, duration=1)
        return _address("video/mp4", path.read_bytes())


def _address(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
