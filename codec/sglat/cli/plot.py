"""What `sgl-info --plot` draws: curves by group, identity layers by bytes, rate over time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np

from sglat.bitstream.channels import CHANNEL_NAMES, GROUP_SIZES, SETS
from sglat.bitstream.curves import Curves, RateCurve
from sglat.errors import MissingExtraError, UsageError

SUFFIXES: Final = (".svg", ".png")
INCHES: Final = (12.0, 11.0)
PNG_DPI: Final = 110
MAX_POINTS: Final = 4000  # of a curve: beyond the pixels of any such plot
MAX_KEYS: Final = 6  # curves with a key of their own; others are told by colour alone


def check_suffix(path: Path) -> str:
    """Return svg or png.

    Raises:
        UsageError: `bad-suffix`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError("bad-suffix", f"expected a name ending in .svg or .png, found {path.name}")
    return path.suffix.lower()[1:]


def draw_plot(curves: Curves, title: str, kind: str) -> bytes:
    """Return a plot as SVG or PNG; the same curves give the same bytes.

    Args:
        curves: of the file.
        title: above the plot.
        kind: svg or png.

    Raises:
        MissingExtraError: matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="plot") from error
    with matplotlib.rc_context(
        {"svg.hashsalt": "sglat", "svg.fonttype": "none", "font.size": 9, "text.usetex": False,
         "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
         "grid.alpha": 0.3, "lines.linewidth": 1.0, "text.parse_math": False}
    ):  # fmt: skip
        figure = Figure(figsize=INCHES, layout="constrained")
        figure.suptitle(title)
        axes = figure.subplots(4, 2).ravel()
        for axis, group in zip(axes, ("pose", *GROUP_SIZES), strict=False):
            _curves(axis, curves, group)
        _layers(axes[-2], curves)
        _rates(axes[-1], curves)
        out = io.BytesIO()
        facts = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(out, format=kind, dpi=PNG_DPI, metadata=facts)
    return out.getvalue()


def _curves(axis: Any, curves: Curves, group: str) -> None:
    """Draw the channels of one group."""
    every = -(-len(curves.seconds) // MAX_POINTS)
    channels = SETS[group]
    for at, channel in enumerate(channels):
        name = CHANNEL_NAMES[channel] if len(channels) <= MAX_KEYS else str(at + 1)
        colour = None if len(channels) <= 10 else _colour(at / (len(channels) - 1))
        marker = "o" if len(curves.seconds) == 1 else None
        values = curves.values[::every, channel]
        axis.plot(curves.seconds[::every], values, label=name, color=colour, marker=marker)
    for start, stop in _runs(curves.is_held, curves.seconds):
        axis.axvspan(start, stop, color="0.85", zorder=0)
    held = ", grey: held" if curves.is_held.any() else ""
    axis.set_title(f"{group}{held}", loc="left")
    axis.set_ylabel("degrees" if group == "pose" else "units")
    axis.set_xlabel("s")
    columns = 1 if len(channels) <= MAX_KEYS else 2
    axis.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, ncols=columns, fontsize=7
    )


def _colour(share: float) -> Any:
    from matplotlib import colormaps

    return colormaps["turbo"](0.05 + 0.9 * share)


def _runs(is_held: np.ndarray, seconds: np.ndarray) -> list[tuple[float, float]]:
    """Return begin and end of each run of held frames in seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_held, [False]]).astype(int)))
    last = len(seconds) - 1
    return [
        (float(seconds[a]), float(seconds[min(b, last)]))
        for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]


def _layers(axis: Any, curves: Curves) -> None:
    """Draw the bytes of the identity layers."""
    total = sum(size for _, size in curves.layers)
    axis.set_title(f"identity, {total / 1000:.1f} kB" if total else "identity", loc="left")
    if not curves.layers:
        axis.text(0.5, 0.5, "in another file", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    names, sizes = zip(*curves.layers, strict=True)
    bars = axis.barh(names, np.array(sizes) / 1000, color="tab:blue")
    axis.bar_label(bars, fmt="%.1f", padding=2)
    axis.margins(x=0.12)
    axis.invert_yaxis()
    axis.set_xlabel("kB")
    axis.grid(axis="y", visible=False)


def _rates(axis: Any, curves: Curves) -> None:
    """Draw the rates over time."""
    streams: list[tuple[str, RateCurve]] = [("motion", curves.motion_rate)]
    if curves.sound_rate is not None:
        streams.append(("sound", curves.sound_rate))
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(lambda value, _: "")
    for name, rate in streams:
        spans = np.diff(rate.edges_seconds)
        mean = float((rate.kilobits_per_second * spans).sum() / spans.sum())
        axis.stairs(
            np.maximum(rate.kilobits_per_second, 1e-3), rate.edges_seconds, baseline=None,
            label=f"{name}, mean {mean:.2f}",
        )  # fmt: skip
    if curves.sound_rate is None:
        axis.set_ylim(bottom=0)
    axis.set_title("rate", loc="left")
    axis.set_ylabel("kbit/s")
    axis.set_xlabel("s")
    axis.legend(frameon=False, fontsize=8)
