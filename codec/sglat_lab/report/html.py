"""A benchmark's report: one HTML page that needs nothing from elsewhere, JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from sglat.files import AtomicOutput, write_atomically
from sglat_lab.measure.picture_metrics import METRICS
from sglat_lab.report import plots
from sglat_lab.report.document import Table, about, caveats, headline, number, provenance_lines
from sglat_lab.report.pages import bench_page
from sglat_lab.report.plots import Pictures, side_by_side, strip
from sglat_lab.report.tables_cost import tables
from sglat_lab.report.tables_quality import main_metrics

Record = dict[str, Any]
NAMES: Final = ("report.html", "results.json", "results.csv", "results.md")
VIDEO_FRAMES: Final = 100
BETTER: Final = " (better)"

STYLE: Final = """
:root { --line: #ddd; --soft: #666; --ours: #c0392b; }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; margin: 0 auto;
  max-width: 1240px; padding: 0 1.5em 4em; color: #222; background: #fff; }
h1 { font-size: 1.7em; margin: 1em 0 .2em; }
h2 { font-size: 1.2em; margin: 2.2em 0 .5em; padding-top: .5em; border-top: 1px solid var(--line); }
h3 { font-size: 1.05em; margin: 1.8em 0 .4em; }
.lead { font-size: 1.08em; max-width: 52em; }
nav { font-size: 13px; margin: 1em 0; line-height: 2; }
nav a { margin-right: 1em; color: #2471a3; text-decoration: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; }
td, th { border-bottom: 1px solid var(--line); padding: 4px 8px; text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
td.word, th.word { text-align: left; }
th { background: #f6f6f6; font-weight: 600; vertical-align: bottom; }
td.lost { background: #fdf0e4; }
.key { display: inline-block; width: 1.6em; height: .9em; background: #fdf0e4;
  border: 1px solid var(--line); vertical-align: middle; }
td.yes { background: #e8f6ec; } td.no { background: #fbe3e0; }
svg { max-width: 100%; height: auto; display: block; margin: .8em 0; }
.note, ul { color: var(--soft); font-size: 13px; max-width: 66em; }
details { margin: .6em 0; } summary { cursor: pointer; color: #2471a3; }
.sheet { display: grid; grid-template-columns: 11.5em 1fr; gap: 3px 12px; align-items: center; }
.sheet img { width: 100%; display: block; }
.sheet div, .columns div { font-size: 12px; line-height: 1.35; }
.sheet b, .columns b { font-size: 13px; }
.columns { display: grid; gap: 0; margin-top: 1em; text-align: center; }
video { width: 100%; display: block; background: #000; }
.ours b { color: var(--ours); }
"""


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
    """Return the page.

    Args:
        record: of `Benchmark.run`.
        clips: pictures, in the record's order.
    """
    named = {table.title: table for table in tables(record)}
    titles = list(named)
    first, rest = titles[:1], titles[1:]
    parts = ["<h1>sglat benchmark</h1>", f'<p class="lead">{_text(headline(record))}</p>']
    parts.append(_menu([*first, "Rate and quality", "Pictures and videos", *rest]))
    parts += [_table(named[title]) for title in first]
    parts += [_heading("How to read this"), _list(caveats(record))]
    parts += [_heading("Rate and quality"), plots.mean_curves(record)]
    parts.append(
        '<p class="note">Means over clips of the settings that every clip has. Top: over 60 s, '
        "bottom: over 10 s; what is sent once counts once.</p>"
    )
    parts += [
        f"<details><summary>{html.escape(clip['clip'])}: its own curves</summary>"
        f"{plots.clip_curves(record, clip)}</details>"
        for clip in record["clips"]
    ]
    parts.append(_heading("Pictures and videos"))
    for clip, found in zip(clips, record["clips"], strict=True):
        parts.append(_pictures(clip, found, record))
    beside = {
        "What our files cost": plots.length_plot,
        "Motion groups lost and interpolated": plots.loss_plot,
        "Peak memory against the length of the clip": plots.memory_plot,
        "The method's solver against the fast one": plots.solver_plot,
    }
    for title in rest:
        plot = beside[title](record) if title in beside else ""
        parts.append(_table(named[title], plot))
    origin = [line.removeprefix("* ") for line in provenance_lines([record["about"]])]
    parts += [_heading("Machine and settings"), _list([*about(record), *origin])]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="data:,">'
        f"<title>sglat benchmark</title><style>{STYLE}</style></head><body>\n{body}\n"
        "</body></html>\n"
    )


def _mark(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _heading(title: str) -> str:
    return f'<h2 id="{_mark(title)}">{_text(title)}</h2>'


def _menu(titles: Sequence[str]) -> str:
    links = (f'<a href="#{_mark(title)}">{_text(title)}</a>' for title in titles)
    return f"<nav>{' '.join(links)}</nav>"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _text(line: str) -> str:
    """Return a line for HTML; emphasis between asterisks becomes italics."""
    plain = html.escape(line, quote=False).replace("`", "")
    return re.sub(r"\*([^*]+)\*", r"<i>\1</i>", plain)


def _table(table: Table, plot: str = "") -> str:
    words = _word_columns(table)
    head = "".join(
        f'<th class="word">{_text(cell)}</th>' if at in words else f"<th>{_text(cell)}</th>"
        for at, cell in enumerate(table.head)
    )
    rows = "".join(
        "<tr>" + "".join(_cell(cell, at in words) for at, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in table.notes)
    if any(BETTER in cell for row in table.rows for cell in row):
        notes = '<p class="note"><span class="key"></span> here an anchor is better.</p>' + notes
    return (
        f"{_heading(table.title)}{plot}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div>{notes}"
    )


def _word_columns(table: Table) -> set[int]:
    """Return the columns that hold words, which stand to the left."""
    return {
        at
        for at in range(len(table.head))
        if at == 0 or all(re.match(r"[A-Za-z]|$", row[at]) for row in table.rows)
    }


def _cell(cell: str, is_word: bool) -> str:
    classes = ["word"] if is_word else []
    if BETTER in cell:  # shown by colour
        classes.append("lost")
        cell = cell.replace(BETTER, "")
    elif cell.startswith("yes ("):
        classes.append("yes")
    elif cell.startswith("NO ("):
        classes.append("no")
    mark = f' class="{" ".join(classes)}"' if classes else ""
    return f"<td{mark}>{_text(cell)}</td>"


def _pictures(clip: ClipPictures, found: Record, record: Record) -> str:
    """Return a clip's contact sheet and video: source, ours, each anchor at our rate."""
    count = min(clip.window, VIDEO_FRAMES)
    at_our_rate = {"sglat": found["ours"], **found["at_our_rate"]}
    name = html.escape(found["clip"])
    lines, columns = "", ""
    for at, shown in enumerate(clip.versions):
        label = "<b>source</b>"
        if shown.codec in at_our_rate:
            label = _label(shown.codec, at_our_rate[shown.codec], record)
        cell = f'<div class="{"ours" if shown.codec == "sglat" else ""}">{label}</div>'
        lines += f'{cell}<img src="{strip(shown.frames)}" alt="{name}: {at}">'
        columns += cell
    width = f"grid-template-columns: repeat({len(clip.versions)}, 1fr)"
    video = side_by_side([shown.window[:count] for shown in clip.versions], clip.rate)
    return (
        f'<h3>{name}</h3><div class="sheet">{lines}</div>'
        f'<div class="columns" style="{width}">{columns}</div>'
        f'<video src="{video}" controls autoplay loop muted playsinline preload="auto"></video>'
    )


def _label(name: str, version: Record, record: Record) -> str:
    lowest = "<br>lowest rate reached" if version["is_lowest"] else ""
    figures = "".join(
        f"<br>{_text(metric.label)} {number(version['figures'].get(metric.key), metric.digits)}"
        for metric in main_metrics(record)
    )
    rate = number(version["kbit_per_second_60s"])
    return f"<b>{html.escape(name)}</b> {rate} kbit/s{lowest}{figures}"


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
        "results.md": bench_page(record),
    }
    for name, text in contents.items():
        write_atomically(out / name, text)
    _write_csv(record, out / "results.csv")
    return [out / name for name in NAMES]


def _write_csv(record: Record, path: Path) -> None:
    """Write one line for each version of each clip."""
    rates = [key for key in record["clips"][0]["ours"] if key.startswith("kbit")]
    keys = [metric.key for metric in METRICS]
    with (
        AtomicOutput(path, force=True) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["clip", "use", "codec", "setting", "kind", "is_lowest", *rates, *keys])
        for clip in record["clips"]:
            lines = [("curve", v) for points in clip["curves"].values() for v in points]
            lines += [("at our rate", v) for v in clip["at_our_rate"].values()]
            for use, v in lines:
                figures = [v["figures"].get(key, "") for key in keys]
                writer.writerow(
                    [clip["clip"], use, v["codec"], v["setting"], v["kind"], v["is_lowest"]]
                    + [v[key] for key in rates]
                    + figures
                )
