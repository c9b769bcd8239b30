"""Writes a benchmark's record: one HTML file that needs no other, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sglat.files import AtomicOutput, write_atomically
from sglat_lab.measure.picture_metrics import METRICS
from sglat_lab.report.html import ClipPictures, page
from sglat_lab.report.summary_text import about, caveats, headline
from sglat_lab.report.tables_cost import tables

Record = dict[str, Any]
NAMES: Final = ("report.html", "results.json", "results.csv", "results.md")


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
        "results.md": markdown(record),
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


def markdown(record: Record) -> str:
    """Return all tables as Markdown."""
    lines = ["# Benchmark", "", "Written by `sgl-bench`; do not edit by hand.", ""]
    lines += [headline(record), ""]
    lines += [f"* {line}" for line in about(record)]
    lines += ["", *(f"* {line}" for line in caveats(record)), ""]
    return "\n".join(lines + [table.markdown() for table in tables(record)]).rstrip() + "\n"
