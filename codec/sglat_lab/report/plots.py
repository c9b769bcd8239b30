"""Plots of a benchmark's record as SVG; contact sheets; pictures and videos as data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError, MissingExtraError
from sglat.media.pictures import encode_png
from sglat_lab.measure.face_signals import eye_opening, gaze, mouth_opening
from sglat_lab.measure.landmarks import Signals
from sglat_lab.measure.picture_metrics import METRICS, Metric
from sglat_lab.measure.rates import COARSER, ENCODED, IDENTITY, LAYERS, QUALITY
from sglat_lab.report.tables_quality import mean

Pictures = NDArray[np.uint8]
SHEET_COLUMNS: Final = 8
EVEN_FRAMES: Final = 4  # evenly spread ones beside the extremes
HEADER: Final = 16  # pixels above a column, for its name
GAP: Final = 2  # pixels between videos side by side
SCALE: Final = 2  # of videos
JPEG_QUALITY: Final = 82
VIDEO_OPTIONS: Final = {
    "deadline": "realtime", "cpu-used": "6", "crf": "16", "row-mt": "0", "lag-in-frames": "0",
}  # fmt: skip


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
    if path.suffix == ".jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        if not cv2.imwrite(str(path), sheet[:, :, ::-1], options):
            raise OSError(f"cannot write {path}")
    else:
        path.write_bytes(encode_png(np.ascontiguousarray(sheet)))


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


def strip(pictures: Pictures) -> str:
    """Return a PNG data address: eight pictures at most of `[N, R, R, 3]`, side by side."""
    count = len(pictures)
    chosen = np.unique(np.linspace(0, count - 1, min(count, SHEET_COLUMNS)).round().astype(int))
    return _address("image/png", encode_png(contact_sheet([pictures[chosen]])))


def side_by_side(rows: Sequence[Pictures], rate: Fraction) -> str:
    """Return a WebM (VP9) data address: versions `[T, R, R, 3]` next to each other, enlarged.

    VP9 because every browser plays it, those without patented codecs too.

    Raises:
        MediaError: this build of PyAV cannot write VP9.
    """
    gap = np.full((*rows[0].shape[:2], GAP, 3), 255, np.uint8)
    parts: list[Pictures] = []
    for row in rows:
        parts += [np.asarray(row), gap]
    wide = np.concatenate(parts[:-1], axis=2).repeat(SCALE, 1).repeat(SCALE, 2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.webm"
        _write_webm(path, wide, rate)
        return _address("video/webm", path.read_bytes())


def _write_webm(path: Path, pictures: Pictures, rate: Fraction) -> None:
    import av

    try:
        with av.open(str(path), "w", format="webm") as container:
            stream: Any = container.add_stream("libvpx-vp9", rate=rate)
            stream.width, stream.height = pictures.shape[2], pictures.shape[1]
            stream.pix_fmt = "yuv420p"
            stream.bit_rate = 0  # constant quality
            stream.options = dict(VIDEO_OPTIONS)
            for picture in pictures:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError("no-webm", f"cannot write a video for the report: {error}") from error


def _address(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


Record = dict[str, Any]
OURS: Final = "#c0392b"
COLOURS: Final = ("#2471a3", "#239b56", "#7d3c98", "#b9770e", "#566573")
CLIP_COLOURS: Final = ("#c0392b", *COLOURS)
PLOTTED: Final = ("perceptual_face", "identity_loss", "psnr_face", "ms_ssim_face", "perceptual",
                  "psnr", "ms_ssim", "ssim")  # fmt: skip
PLOTS_IN_A_ROW: Final = 4
RATE_TICKS: Final = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
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


def mean_curves(record: Record) -> str:
    """Return rate-distortion curves, means over clips: a row for 60 s and one for 10 s."""
    plt = _pyplot()
    metrics = _metrics(record)
    averaged = _averaged(record["clips"])
    lengths = (("kbit_per_second_60s", "60 s"), ("kbit_per_second_10s", "10 s"))
    figure, axes = plt.subplots(2, len(metrics), figsize=(3.2 * len(metrics), 5.6), squeeze=False)
    for row, (rate, length) in zip(axes, lengths, strict=True):
        for axis, metric in zip(row, metrics, strict=True):
            _draw_all(axis, averaged, metric, rate)
            axis.set_title(_title(metric))
            axis.set_xlabel(f"kbit/s over {length}")
    _legend(figure, axes[0, 0])
    return _svg(plt, figure)


def clip_curves(record: Record, clip: Record) -> str:
    """Return one clip's curves over 60 s as SVG, a column a metric."""
    plt = _pyplot()
    metrics = _metrics(record)
    size = (3.2 * len(metrics), 2.9)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        _draw_all(axis, clip["curves"], metric, "kbit_per_second_60s")
        axis.set_title(_title(metric))
        axis.set_xlabel("kbit/s over 60 s")
    _legend(figure, axes[0, 0])
    return _svg(plt, figure)


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


def _draw_all(axis: Any, curves: dict[str, list[Record]], metric: Metric, rate: str) -> None:
    anchors = [name for name in curves if name != "sglat"]
    for name, colour in zip(anchors, COLOURS, strict=False):
        line = _line(curves[name], metric, rate)
        axis.plot(*zip(*line, strict=True), "o-", label=name, color=colour, lw=1.1, ms=2.5)
    ours = curves["sglat"]
    whole = [p for p in ours if p["kind"] == ENCODED]
    for kind, (marker, face, dash, name) in STYLES.items():
        points = [p for p in ours if p["kind"] == kind]
        if not points:
            continue
        if dash:  # the whole file is the last point of its line
            points += whole
        line = _line(points, metric, rate)
        axis.plot(
            *zip(*line, strict=True), marker=marker, markerfacecolor=face, linestyle=dash or "none",
            label=name, color=OURS, lw=1.6, ms=11 if kind == ENCODED else 5,
        )  # fmt: skip
    if metric.key.startswith(("perceptual", "lpips")):
        axis.set_yscale("log")
        _plain_numbers(axis.yaxis, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1))
    _log_axis(axis, RATE_TICKS)


def _line(points: Sequence[Record], metric: Metric, rate: str) -> list[tuple[float, float]]:
    return sorted((p[rate], p["figures"][metric.key]) for p in points if metric.key in p["figures"])


def _log_axis(axis: Any, ticks: Sequence[float]) -> None:
    axis.set_xscale("log")
    _plain_numbers(axis.xaxis, ticks)


def _plain_numbers(side: Any, ticks: Sequence[float]) -> None:
    """Label a logarithmic axis at some places, as people write numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    low, high = side.get_view_interval()
    side.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(NullFormatter())


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 / figure.get_figheight()))
    figure.legend(handles, labels, loc="upper center", ncol=4)


def length_plot(record: Record) -> str:
    """Return kbit/s against the length of the clip: ours, ours cached, anchors at their lowest."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    clips = record["clips"]

    def drawn(versions: Sequence[Record], **style: Any) -> None:
        rates = [mean([_rate_at(v, length) for v in versions]) for length in LENGTHS]
        axis.plot(LENGTHS, rates, **style)

    drawn([c["ours"] for c in clips], color=OURS, lw=2.2, label="sglat, whole file")
    cached = mean([c["ours"]["kbit_per_second_cached"] for c in clips])
    axis.axhline(cached, color=OURS, ls="--", lw=1.4, label="sglat, identity already there")
    anchors = [name for name in clips[0]["curves"] if name != "sglat"]
    for name, colour in zip(anchors, COLOURS, strict=False):
        lowest = [next(v for v in c["curves"][name] if v["is_lowest"]) for c in clips]
        drawn(lowest, color=colour, lw=1.1, label=f"{name}, lowest rate reached")
    axis.set_yscale("log")
    _log_axis(axis, LENGTHS)
    axis.set_xlabel("length of the clip (s)")
    axis.set_ylabel("kbit/s, first view")
    _plain_numbers(axis.yaxis, RATE_TICKS)
    axis.legend(fontsize=8)
    return _svg(plt, figure, tight=True)


def _rate_at(version: Record, length: float) -> float:
    """Return kbit/s over a length: once-bytes and running bytes follow from two known rates."""
    cached = float(version["kbit_per_second_cached"])
    once = (float(version["kbit_per_second_60s"]) - cached) * 60
    return cached + once / length


def loss_plot(record: Record) -> str:
    """Return quality against the share of frames lost; empty where it is not measured."""
    metrics = [m for m in _metrics(record) if m.key in record["clips"][0]["loss"][0]][:2]
    if not metrics:
        return ""
    plt = _pyplot()
    size = (4.6 * len(metrics), 3.2)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for index, clip in enumerate(record["clips"]):
            known = sorted((100 * f["share_lost"], f[metric.key]) for f in clip["loss"])
            colour = CLIP_COLOURS[index % len(CLIP_COLOURS)]
            axis.plot(*zip(*known, strict=True), "o-", label=clip["clip"], color=colour, ms=3)
        axis.set_xlabel("frames lost and interpolated (%)")
        axis.set_title(_title(metric))
    axes[0, 0].legend()
    return _svg(plt, figure, tight=True)


def solver_plot(record: Record) -> str:
    """Return both solvers' losses against generator passes; empty where they are not measured."""
    found = record["solvers"]
    if isinstance(found, str):
        return ""
    labels = {
        "psnr": "PSNR, crop (dB; higher is better)",
        "perceptual": "perceptual, crop (lower is better)",
    }
    keys = [(key, label) for key, label in labels.items() if key in found["start"]]
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(keys), figsize=(4.6 * len(keys), 3.2), squeeze=False)
    for axis, (key, label) in zip(axes[0], keys, strict=True):
        axis.axhline(found["start"][key], color="#999", lw=1, ls=":", label="start of both")
        for name, colour, text in (("fast", OURS, "fast"), ("paper", COLOURS[0], "paper")):
            points = [(p["passes"], p[key]) for p in found[name]]
            axis.plot(*zip(*points, strict=True), "o-", color=colour, ms=4, label=text)
        _log_axis(axis, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
        axis.set_xlabel("generator passes a frame")
        axis.set_title(label)
    axes[0, 0].legend()
    return _svg(plt, figure, tight=True)


def memory_plot(record: Record) -> str:
    """Return peak memory against frames; empty where it is not measured."""
    speed = record["speed"]
    if not speed:
        return ""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(5.2, 3.2))
    for key, name, colour in (
        ("encode_memory", "encode", OURS), ("decode_memory", "decode", COLOURS[0]),
    ):  # fmt: skip
        points = sorted((p["frames"], p["peak_memory_megabytes"]) for p in speed.get(key, []))
        if points:
            axis.plot(*zip(*points, strict=True), "o-", label=name, color=colour, ms=4)
    _log_axis(axis, (10, 20, 50, 100, 200, 500, 1000, 2000))
    axis.set_ylim(bottom=0)
    axis.set_xlabel("frames")
    axis.set_ylabel("peak memory (MB)")
    axis.legend()
    return _svg(plt, figure, tight=True)


def _svg(plt: Any, figure: Any, *, tight: bool = False) -> str:
    if tight:
        figure.tight_layout()
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]
