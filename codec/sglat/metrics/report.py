"""Writes a benchmark's record: one HTML file that needs no other, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sglat.metrics.anchors import AnchorCodec
from sglat.metrics.clip_bench import ClipBench
from sglat.metrics.figures import contact_sheet, curve_plots, loss_plot, side_by_side
from sglat.metrics.measure import METRICS
from sglat.metrics.table import Table, number
from sglat.metrics.tables import tables

Record = dict[str, Any]
NAMES: Final = ("report.html", "results.json", "results.csv", "results.md")
VIDEO_FRAMES: Final = 100

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em;
  color: #222; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
td, th { border: 1px solid #ccc; padding: 3px 8px; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
th { background: #f3f3f3; }
img, video { max-width: 100%; image-rendering: auto; }
svg { max-width: 100%; height: auto; }
.note { color: #555; font-size: 13px; max-width: 60em; }
"""


def write_report(
    record: Record, clips: Sequence[ClipBench], anchors: Sequence[AnchorCodec], out: Path
) -> list[Path]:
    """Write all four forms and return their paths.

    Args:
        record: of `Benchmark.run`.
        clips: for their pictures.
        anchors: for theirs.
        out: folder.
    """
    contents = {
        "report.html": _page(record, clips, anchors),
        "results.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n",
        "results.md": markdown(record),
    }
    for name, text in contents.items():
        _write(out / name, text)
    _write_csv(record, out / "results.csv")
    return [out / name for name in NAMES]


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _write_csv(record: Record, path: Path) -> None:
    """Write one line for each version of each clip."""
    rates = [key for key in record["clips"][0]["ours"] if key.startswith("kbit")]
    keys = [metric.key for metric in METRICS]
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "use", "codec", "setting", "is_lowest", *rates, *keys])
        for clip in record["clips"]:
            lines = [("curve", v) for points in clip["curves"].values() for v in points]
            lines += [("at our rate", v) for v in clip["at_our_rate"].values()]
            for use, v in lines:
                figures = [v["figures"].get(key, "") for key in keys]
                writer.writerow(
                    [clip["clip"], use, v["codec"], v["setting"], v["is_lowest"]]
                    + [v[key] for key in rates]
                    + figures
                )
    part.replace(path)


def markdown(record: Record) -> str:
    """Return all tables as Markdown."""
    lines = ["# Benchmark", "", "Written by `sgl-bench`; do not edit by hand.", ""]
    lines += [f"* {line}" for line in about(record)]
    lines += ["", *(f"* {line}" for line in caveats(record)), ""]
    return "\n".join(lines + [table.markdown() for table in tables(record)]).rstrip() + "\n"


def about(record: Record) -> list[str]:
    """Return what was measured with what, in lines."""
    facts = record["about"]
    packages = ", ".join(f"{name} {v}" for name, v in facts["packages"].items() if v)
    effort = facts["effort"]
    return [
        f"sglat {facts['sglat']}, commit {facts['commit'] or 'unknown'}, "
        f"bundle {facts['bundle']}, decoder {facts['decoder_id'][:16]}",
        f"machine: {facts['machine']}",
        f"command: `{facts['command']}`",
        f"Python {facts['python']}, {packages}",
        f"{len(record['clips'])} clips; picture metrics on {effort['frames']} frames a clip, "
        f"evenly spread; measures over time on the first {effort['window']} frames"
        + (" (quick)" if facts["is_quick"] else ""),
        f".sglat files {facts['files']}",
        *(f"{a['name']}: {_options(a)}" for a in facts["anchors"]),
    ]


def _options(anchor: Record) -> str:
    options = " ".join(f"{key}={value}" for key, value in anchor["options"].items())
    return f"{anchor['encoder']}, {options}, yuv420p, one intra frame, no B frames"


def caveats(record: Record) -> list[str]:
    """Return what a reader must know to weigh the figures."""
    facts = record["about"]
    lines = [
        "All codecs get the same aligned crops at the bundle's resolution; the background outside "
        "the crop is not coded by any of them. Anchors are counted without a container.",
        "Face region: inside MediaPipe's face oval on the source frame, as the paper masks the "
        "reference face. Perceptual distances average feature differences over that region.",
    ]
    if facts["perceptual"]:
        lines.append(
            f"Perceptual distance: {facts['perceptual']}; not LPIPS, which was "
            + ("measured too." if record["not_measured"].get("LPIPS") is None else "not measured.")
        )
    if facts["identity"]:
        lines.append(f"L_ID: {facts['identity']}, not ArcFace.")
    if facts["bundle"] == "mini" and (facts["perceptual"] or facts["identity"]):
        lines.append(
            "The embedded bundle's own perceptual and identity networks, which the encoder "
            "minimises, were taught by these same public networks, and its generator was trained "
            "with them as losses. That favours sglat in "
            "LPIPS-like and L_ID; PSNR and SSIM are free of it, and favour the anchors."
        )
    if facts["signals"]:
        lines.append(
            f"ρ_AU, ρ_GZ and ρ_pose are proxies: {facts['signals']} (blendshapes, iris between the "
            "eye corners, head matrix), not OpenFace 2.0. Jitter: second differences of rigid "
            "landmarks."
        )
    return lines


def _page(record: Record, clips: Sequence[ClipBench], anchors: Sequence[AnchorCodec]) -> str:
    """Return the HTML page."""
    parts = ["<h1>sglat benchmark</h1>", _list(about(record)), "<h2>How to read this</h2>"]
    parts.append(_list(caveats(record)))
    all_tables = tables(record)
    parts += [_table(table) for table in all_tables[:3]]
    parts += ["<h2>Rate and quality</h2>", curve_plots(record["clips"])]
    parts.append("<h2>Pictures and videos at our rate</h2>")
    for clip, found in zip(clips, record["clips"], strict=True):
        parts.append(_pictures(clip, found, anchors))
    parts += [_table(table) for table in all_tables[3:]]
    plot = loss_plot(record["clips"])
    if plot:
        parts += ["<h2>Loss</h2>", plot]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>sglat benchmark</title><style>{STYLE}</style></head><body>\n{body}\n"
        "</body></html>\n"
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _text(line: str) -> str:
    return html.escape(line).replace("`", "").replace("*", "")


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in table.notes)
    return f"<h2>{_text(table.title)}</h2><table><tr>{head}</tr>{rows}</table>{notes}"


def _pictures(clip: ClipBench, found: Record, anchors: Sequence[AnchorCodec]) -> str:
    """Return a clip's contact sheet and video: source, ours, each anchor at our rate."""
    count = min(clip.window, VIDEO_FRAMES)
    captions = ["source", f"sglat {number(found['ours']['kbit_per_second_60s'])} kbit/s"]
    sheets = [clip.reference.pictures, clip.shown(clip.encoded, "ours")]
    videos = [clip.source[:count], clip.shown_window(clip.encoded, "ours")[:count]]
    for codec in anchors:
        version = found["at_our_rate"][codec.name]
        shown, window = clip.matched_pictures(codec, version["level"])
        sheets.append(shown)
        videos.append(window[:count])
        rate = f"{codec.name} {number(version['kbit_per_second_60s'])} kbit/s"
        captions.append(rate + (" (lowest rate reached)" if version["is_lowest"] else ""))
    line = html.escape("; ".join(captions))
    sheet = contact_sheet(sheets)
    video = side_by_side(videos, clip.parsed.rate)
    return (
        f"<h3>{html.escape(clip.name)}</h3><p>Rows of the sheet and columns of the video, in "
        f'order: {line} (over 60 s).</p><img src="{sheet}" alt="contact sheet of '
        f'{html.escape(clip.name)}"><br><video src="{video}" controls loop muted playsinline '
        'preload="auto"></video>'
    )
