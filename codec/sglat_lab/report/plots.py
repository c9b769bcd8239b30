"""Contact sheets, and plots of a benchmark's record as SVG."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean as mean
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError
from sglat_lab.measure.face_signals import eye_opening, gaze, mouth_opening
from sglat_lab.measure.landmarks import Signals
from sglat_lab.measure.picture_metrics import METRICS, Metric
from sglat_lab.measure.rates import COARSER, ENCODED, IDENTITY, LAYERS, QUALITY
from sglat_lab.report.pages import Record

Pictures = NDArray[np.uint8]
EVEN_FRAMES: Final = 4  # evenly spread ones beside the extremes
HEADER: Final = 16  # pixels above a column, for its name
JPEG_QUALITY: Final = 82


def contact_sheet(rows: Sequence[Sequence[Pictures] | Pictures]) -> Pictures:
    """Return rows of pictures `[H, W, 3]` of one size as one picture."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def write_sheet(
    path: Path, rows: Sequence[Sequence[Pictures] | Pictures], names: Sequence[str] = ()
) -> None:
    """Write rows of pictures as a PNG or JPEG, with a name above each column if there are any."""
    sheet = contact_sheet(rows)
    if names:
        side = sheet.shape[1] // len(names)
        head = np.full((HEADER, sheet.shape[1], 3), 255, np.uint8)
        for column, name in enumerate(names):
            place = (column * side + 2, HEADER - 4)
            cv2.putText(
                head, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA
            )
        sheet = np.concatenate([head, sheet], axis=0)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), sheet[:, :, ::-1], options):
        raise OSError(f"cannot write {path}")


def telling_frames(signals: Signals) -> list[tuple[str, int]]:
    """Return names and numbers of frames at the extremes of the source's motion, and even ones.

    Args:
        signals: of the source.
    """
    found = np.flatnonzero(signals.is_found)
    seen = signals.cut(found)
    tracks: dict[str, NDArray[np.floating]] = {
        "eyes shut": -eye_opening(seen.points),
        "eyes wide": eye_opening(seen.points),
        "mouth open": mouth_opening(seen.points),
        "yaw +": seen.pose[:, 0],
        "yaw -": -seen.pose[:, 0],
        "pitch +": seen.pose[:, 1],
        "gaze +": gaze(seen.points)[:, 0],
        "gaze -": -gaze(seen.points)[:, 0],
    }
    even = np.linspace(0, len(found) - 1, EVEN_FRAMES).astype(int)
    chosen = [(f"frame {found[i]}", int(found[i])) for i in even]
    return chosen + [(name, int(found[np.argmax(values)])) for name, values in tracks.items()]


OURS: Final = "#c0392b"
COLOURS: Final = ("#2471a3", "#239b56", "#7d3c98", "#b9770e", "#566573")
CLIP_COLOURS: Final = ("#c0392b", *COLOURS)
PLOTTED: Final = ("perceptual_face", "identity_loss", "psnr_face", "ms_ssim_face", "perceptual",
                  "psnr", "ms_ssim", "ssim")  # fmt: skip
PLOTS_IN_A_ROW: Final = 4
RATE_TICKS: Final = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
DISTANCE_TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
PASS_TICKS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
FRAME_TICKS: Final = (10, 20, 50, 100, 200, 500, 1000, 2000)
LENGTHS: Final = (2, 3, 5, 10, 20, 30, 60, 120, 300, 600)
STYLES: Final = {
    LAYERS: ("o", "white", ":", "sglat, identity layers cut off"),
    IDENTITY: ("s", OURS, "--", "sglat, --identity-bytes (encoded again)"),
    QUALITY: ("x", OURS, "", "sglat, -q (motion only)"),
    COARSER: ("x", OURS, "", "sglat, coarser motion"),
    ENCODED: ("*", OURS, "", "sglat as encoded"),
}
"""Marker, its face, line and name of our kinds of version."""


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="bench") from error
    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "sglat",  # the same figures give the same bytes
            "font.size": 9, "axes.titlesize": 9.5, "axes.spines.top": False,
            "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
            "legend.frameon": False,
        }
    )  # fmt: skip
    import matplotlib.pyplot

    return matplotlib.pyplot


def _metrics(record: Record) -> list[Metric]:
    known = record["summary"]["sglat"]["figures"]
    found = [m for key in PLOTTED for m in METRICS if m.key == key and key in known]
    return found[:PLOTS_IN_A_ROW]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    lines: Sequence[tuple[Sequence[tuple[float, float]], dict[str, Any]]]
    """Points of each line and its style."""
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    levels: Sequence[tuple[float, dict[str, Any]]] = ()
    """Heights of horizontal lines and their styles."""
    x_ticks: Sequence[float] = ()
    """Labels of a logarithmic axis; none: a linear one."""
    y_ticks: Sequence[float] = ()
    bottom: float | None = None


def drawing(
    rows: Sequence[Sequence[Panel]], width: float, height: float, *, legend_above: bool = False
) -> str:
    """Return panels as one SVG.

    Args:
        rows: of panels, all of one length.
        width: of a panel in inches.
        height: of the whole drawing in inches.
        legend_above: one legend above all panels; else in the first panel.
    """
    plt = _pyplot()
    size = (width * len(rows[0]), height)
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=size, squeeze=False)
    for row, panels in zip(axes, rows, strict=True):
        for axis, panel in zip(row, panels, strict=True):
            for value, style in panel.levels:
                axis.axhline(value, **style)
            for points, style in panel.lines:
                axis.plot(*zip(*points, strict=True), **style)
            axis.set_title(panel.title)
            axis.set_xlabel(panel.x_label)
            axis.set_ylabel(panel.y_label)
            for side, ticks, set_scale in (
                (axis.xaxis, panel.x_ticks, axis.set_xscale),
                (axis.yaxis, panel.y_ticks, axis.set_yscale),
            ):
                if ticks:
                    set_scale("log")
                    low, high = side.get_view_interval()
                    shown = [tick for tick in ticks if low <= tick <= high]
                    side.set_ticks(shown, [f"{tick:g}" for tick in shown])
                    side.set_ticks([], minor=True)
            if panel.bottom is not None:
                axis.set_ylim(bottom=panel.bottom)
    first = axes[0, 0]
    if legend_above:
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 / height))
        figure.legend(*first.get_legend_handles_labels(), loc="upper center", ncol=4)
    else:
        first.legend(fontsize=8)
        figure.tight_layout()
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def mean_curves(record: Record) -> str:
    """Return rate-distortion curves, means over clips: a row for 60 s and one for 10 s."""
    return _curves(record, _averaged(record["clips"]), (60, 10), 5.6)


def clip_curves(record: Record, clip: Record) -> str:
    """Return one clip's curves over 60 s as SVG, a column a metric."""
    return _curves(record, clip["curves"], (60,), 2.9)


def _curves(
    record: Record, curves: dict[str, list[Record]], lengths: Sequence[int], height: float
) -> str:
    rows = [[_panel(curves, metric, length) for metric in _metrics(record)] for length in lengths]
    return drawing(rows, 3.2, height, legend_above=True)


def _title(metric: Metric) -> str:
    return f"{metric.label} ({'higher' if metric.is_higher_better else 'lower'} is better)"


def _averaged(clips: Sequence[Record]) -> dict[str, list[Record]]:
    """Return curves of means over clips, of the settings that all clips have."""
    curves: dict[str, list[Record]] = {}
    for name, points in clips[0]["curves"].items():
        curves[name] = []
        for point in points:
            same = [p for c in clips for p in c["curves"][name] if p["setting"] == point["setting"]]
            if len(same) < len(clips):
                continue
            keys = [k for k in point["figures"] if all(k in p["figures"] for p in same)]
            rates = [k for k in point if k.startswith("kbit")]
            curves[name].append(
                {
                    "setting": point["setting"],
                    "kind": point["kind"],
                    "figures": {k: mean([p["figures"][k] for p in same]) for k in keys},
                    **{k: mean([p[k] for p in same]) for k in rates},
                }
            )
    return curves


def _panel(curves: dict[str, list[Record]], metric: Metric, length: int) -> Panel:
    """Return the curves of one metric against the rate over a length in seconds."""
    rate = f"kbit_per_second_{length}s"
    anchors = [name for name in curves if name != "sglat"]
    lines = [
        (_line(curves[name], metric, rate), _dotted(colour, name, ms=2.5, lw=1.1))
        for name, colour in zip(anchors, COLOURS, strict=False)
    ]
    ours = curves["sglat"]
    whole = [p for p in ours if p["kind"] == ENCODED]
    for kind, (marker, face, dash, name) in STYLES.items():
        points = [p for p in ours if p["kind"] == kind]
        if points:
            style = {
                "marker": marker, "markerfacecolor": face, "linestyle": dash or "none",
                "label": name, "color": OURS, "lw": 1.6, "ms": 11 if kind == ENCODED else 5,
            }  # fmt: skip
            # the whole file is the last point of a line
            lines.append((_line(points + whole if dash else points, metric, rate), style))
    is_log = metric.key.startswith(("perceptual", "lpips"))
    return Panel(
        lines=lines, title=_title(metric), x_label=f"kbit/s over {length} s", x_ticks=RATE_TICKS,
        y_ticks=DISTANCE_TICKS if is_log else (),
    )  # fmt: skip


def _dotted(colour: str, label: str, *, ms: float = 4, **style: Any) -> dict[str, Any]:
    return {"marker": "o", "color": colour, "label": label, "ms": ms, **style}


def _line(points: Sequence[Record], metric: Metric, rate: str) -> list[tuple[float, float]]:
    return sorted((p[rate], p["figures"][metric.key]) for p in points if metric.key in p["figures"])


def length_plot(record: Record) -> str:
    """Return kbit/s against the length of the clip: ours, ours cached, anchors at their lowest."""
    clips = record["clips"]

    def rates(versions: Sequence[Record]) -> list[tuple[float, float]]:
        return [(at, mean([_rate_at(v, at) for v in versions])) for at in LENGTHS]

    whole = {"color": OURS, "lw": 2.2, "label": "sglat, whole file"}
    lines = [(rates([c["ours"] for c in clips]), whole)]
    anchors = [name for name in clips[0]["curves"] if name != "sglat"]
    for name, colour in zip(anchors, COLOURS, strict=False):
        lowest = [next(v for v in c["curves"][name] if v["is_lowest"]) for c in clips]
        style = {"color": colour, "lw": 1.1, "label": f"{name}, lowest rate reached"}
        lines.append((rates(lowest), style))
    cached = mean([c["ours"]["kbit_per_second_cached"] for c in clips])
    dashed = {"color": OURS, "ls": "--", "lw": 1.4, "label": "sglat, identity already there"}
    panel = Panel(
        lines=lines, levels=[(cached, dashed)], x_ticks=LENGTHS, y_ticks=RATE_TICKS,
        x_label="length of the clip (s)", y_label="kbit/s, first view",
    )  # fmt: skip
    return drawing([[panel]], 6.4, 3.8)


def _rate_at(version: Record, length: float) -> float:
    """Return kbit/s over a length: once-bytes and running bytes follow from two known rates."""
    cached = float(version["kbit_per_second_cached"])
    once = (float(version["kbit_per_second_60s"]) - cached) * 60
    return cached + once / length


def loss_plot(record: Record) -> str:
    """Return quality against the share of frames lost; empty where it is not measured."""
    panels = []
    for metric in _metrics(record):
        lines = []
        for clip, colour in zip(record["clips"], itertools.cycle(CLIP_COLOURS), strict=False):
            found = [f for f in clip["loss"] if metric.key in f]
            points = sorted((100 * f["share_lost"], f[metric.key]) for f in found)
            lines.append((points, _dotted(colour, clip["clip"], ms=3)))
        if all(points for points, _ in lines):
            x_label = "frames lost and interpolated (%)"
            panels.append(Panel(lines=lines, title=_title(metric), x_label=x_label))
    return drawing([panels[:2]], 4.6, 3.2) if panels else ""


def solver_plot(record: Record) -> str:
    """Return both solvers' losses against generator passes; empty where they are not measured."""
    found = record["solvers"]
    if isinstance(found, str):
        return ""
    titles = {
        "psnr": "PSNR, crop (dB; higher is better)",
        "perceptual": "perceptual, crop (lower is better)",
    }
    start = {"color": "#999", "lw": 1, "ls": ":", "label": "start of both"}
    panels = [
        Panel(
            lines=[
                ([(p["passes"], p[key]) for p in found[name]], _dotted(colour, name))
                for name, colour in (("fast", OURS), ("paper", COLOURS[0]))
            ],
            levels=[(found["start"][key], start)], title=title,
            x_label="generator passes a frame", x_ticks=PASS_TICKS,
        )
        for key, title in titles.items()
        if key in found["start"]
    ]  # fmt: skip
    return drawing([panels], 4.6, 3.2)


def memory_plot(record: Record) -> str:
    """Return peak memory against frames; empty where it is not measured."""
    lines = []
    for name, colour in (("encode", OURS), ("decode", COLOURS[0])):
        found = record["speed"].get(f"{name}_memory", [])
        points = sorted((p["frames"], p["peak_memory_megabytes"]) for p in found)
        if points:
            lines.append((points, _dotted(colour, name)))
    panel = Panel(
        lines=lines, x_ticks=FRAME_TICKS, bottom=0, x_label="frames", y_label="peak memory (MB)"
    )
    return drawing([[panel]], 5.2, 3.2) if lines else ""
