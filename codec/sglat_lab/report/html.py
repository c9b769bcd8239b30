"""A benchmark's report: one HTML page that needs nothing from elsewhere, JSON, CSV, Markdown."""

from __future__ import annotations

import base64
import csv
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import av
import numpy as np

from sglat.errors import MediaError
from sglat.files import AtomicOutput, write_atomically
from sglat.media.pictures import encode_png
from sglat_lab.measure.picture_metrics import METRICS
from sglat_lab.report import pages, plots
from sglat_lab.report.pages import Record, number
from sglat_lab.report.plots import Pictures, contact_sheet
from sglat_lab.report.quality import main_metrics

SHEET_COLUMNS: Final = 8
GAP: Final = 2  # pixels between videos side by side
SCALE: Final = 2  # of videos
VIDEO_OPTIONS: Final = {
    "deadline": "realtime", "cpu-used": "6", "crf": "16", "row-mt": "0", "lag-in-frames": "0",
}  # fmt: skip
NAMES: Final = ("report.html", "results.json", "results.csv", "results.md")
VIDEO_FRAMES: Final = 100
BETTER: Final = " (better)"
BESIDE: Final = {
    "What our files cost": plots.length_plot,
    "Motion groups lost and interpolated": plots.loss_plot,
    "Peak memory against the length of the clip": plots.memory_plot,
    "The method's solver against the fast one": plots.solver_plot,
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Pictures of one version of a clip."""

    codec: str
    """`source`, `sglat` or an anchor's name."""
    frames: Pictures
    """`[N, R, R, 3]` at the frames of the picture metrics."""
    window: Pictures
    """`[T, R, R, 3]` consecutive frames from the first on."""


@dataclass(frozen=True, kw_only=True)
class ClipPictures:
    """Pictures of all versions of a clip: source, ours, anchors."""

    rate: Fraction
    """Frames per second."""
    window: int
    """Consecutive frames that all versions have."""
    versions: list[Shown]


def page(record: Record, clips: Sequence[ClipPictures]) -> str:
    """Return the page: that of Markdown with plots and pictures.

    Args:
        record: of `Benchmark.run`.
        clips: pictures, in the record's order.
    """
    intro, *rest = pages.page("RESULTS", record).split("\n## ")
    _, lead, caveats = intro.strip().split("\n\n", 2)
    found = dict(one.split("\n", 1) for one in rest)
    settings = found.pop("Settings") + found.pop("Provenance")
    tables = [
        (title, (BESIDE[title](record) if title in BESIDE else "") + _blocks(body))
        for title, body in found.items()
    ]
    curves = plots.mean_curves(record) + _blocks(
        "Means over clips of the settings that every clip has. Top: over 60 s, bottom: over 10 s; "
        "what is sent once counts once."
    )
    for clip in record["clips"]:
        summary = f"<summary>{html.escape(clip['clip'])}: its own curves</summary>"
        curves += f"<details>{summary}{plots.clip_curves(record, clip)}</details>"
    shown = (_pictures(c, f, record) for c, f in zip(clips, record["clips"], strict=True))
    drawn = [("Rate and quality", curves), ("Pictures and videos", "\n".join(shown))]
    sections = [
        *tables[:1], ("How to read this", _blocks(caveats)), *drawn, *tables[1:],
        ("Machine and settings", _blocks(settings)),
    ]  # fmt: skip
    return pages.TEMPLATES.get_template("report.html").render(
        lead=_text(lead), sections=sections,
        menu=[title for title, _ in [*tables[:1], *drawn, *tables[1:]]],
    )  # fmt: skip


def _mark(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _text(line: str) -> str:
    """Return a line for HTML; emphasis between asterisks becomes italics."""
    plain = html.escape(line, quote=False).replace("`", "")
    return re.sub(r"\*([^*]+)\*", r"<i>\1</i>", plain)


pages.TEMPLATES.filters |= {"anchor": _mark, "inline": _text}


def _blocks(markdown: str) -> str:
    """Return tables, lists and paragraphs of Markdown as HTML."""
    found = ""
    for block in markdown.strip().split("\n\n"):
        lines = block.strip().split("\n")
        if lines[0].startswith("|"):
            found += _table([[c.strip() for c in line.split("|")[1:-1]] for line in lines])
        elif lines[0].startswith("* "):
            found += "<ul>" + "".join(f"<li>{_text(line[2:])}</li>" for line in lines) + "</ul>"
        else:
            found += f'<p class="note">{_text(block)}</p>'
    return found


def _table(cells: list[list[str]]) -> str:
    """Return a table of a head, a divider and rows; columns of words stand to the left."""
    head, _, *rows = cells
    words = {
        at
        for at in range(len(head))
        if at == 0 or all(re.match(r"[A-Za-z]|$", row[at]) for row in rows)
    }
    lines = "".join(
        "<tr>" + "".join(_cell(tag, cell, at in words) for at, cell in enumerate(row)) + "</tr>"
        for tag, row in [("th", head), *(("td", row) for row in rows)]
    )
    found = f'<div class="scroll"><table>{lines}</table></div>'
    if any(BETTER in cell for row in rows for cell in row):
        found += '<p class="note"><span class="key"></span> here an anchor is better.</p>'
    return found


def _cell(tag: str, cell: str, is_word: bool) -> str:
    classes = ["word"] if is_word else []
    if tag == "td":
        marks = {"lost": BETTER in cell, "yes": cell.startswith("yes ("), "no": cell[:4] == "NO ("}
        classes += [name for name, is_set in marks.items() if is_set]
        cell = cell.replace(BETTER, "")  # shown by colour
    mark = f' class="{" ".join(classes)}"' if classes else ""
    return f"<{tag}{mark}>{_text(cell)}</{tag}>"


def _pictures(clip: ClipPictures, found: Record, record: Record) -> str:
    """Return a clip's contact sheet and video: source, ours, each anchor at our rate."""
    at_our_rate = {"sglat": found["ours"], **found["at_our_rate"]}
    versions = [
        (
            _label(one.codec, at_our_rate[one.codec], record)
            if one.codec in at_our_rate
            else "<b>source</b>",
            one.codec == "sglat",
            strip(one.frames),
        )
        for one in clip.versions
    ]
    count = min(clip.window, VIDEO_FRAMES)
    video = side_by_side([one.window[:count] for one in clip.versions], clip.rate)
    template = pages.TEMPLATES.get_template("pictures.html")
    return template.render(name=found["clip"], versions=versions, video=video)


def _label(name: str, version: Record, record: Record) -> str:
    lowest = "<br>lowest rate reached" if version["is_lowest"] else ""
    figures = "".join(
        f"<br>{_text(metric.label)} {number(version['figures'].get(metric.key), metric.digits)}"
        for metric in main_metrics(record)
    )
    rate = number(version["kbit_per_second_60s"])
    return f"<b>{html.escape(name)}</b> {rate} kbit/s{lowest}{figures}"


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


def write_report(record: Record, clips: Sequence[ClipPictures], out: Path) -> list[Path]:
    """Write all four forms and return their paths.

    Args:
        record: of `Benchmark.run`.
        clips: pictures, in the record's order.
        out: folder.
    """
    contents = {
        "report.html": page(record, clips),
        "results.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n",
        "results.md": pages.page("RESULTS", record),
    }
    for name, text in contents.items():
        write_atomically(out / name, text)
    _write_csv(record, out / "results.csv")
    return [out / name for name in NAMES]


def _write_csv(record: Record, path: Path) -> None:
    """Write one line for each version of each clip."""
    names = ["codec", "setting", "kind", "is_lowest"]
    names += [key for key in record["clips"][0]["ours"] if key.startswith("kbit")]
    keys = [metric.key for metric in METRICS]
    with (
        AtomicOutput(path, force=True) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["clip", "use", *names, *keys])
        for clip in record["clips"]:
            lines = [("curve", v) for points in clip["curves"].values() for v in points]
            lines += [("at our rate", v) for v in clip["at_our_rate"].values()]
            for use, v in lines:
                figures = [v["figures"].get(key, "") for key in keys]
                writer.writerow([clip["clip"], use, *(v[name] for name in names), *figures])
