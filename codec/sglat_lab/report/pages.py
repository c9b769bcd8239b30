"""Pages of `benchmarks/results`, each made from its JSON record by the template of the same name.

    python -m sglat_lab.report.pages benchmarks/results

writes `<name>.md` for each `<name>.json` of the folder. Figures, targets, remarks and provenance
come from the record; headings, columns and explanations from `templates/<name>.md`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from sglat.files import write_atomically
from sglat_lab.report import quality
from sglat_lab.report.document import (
    NOT_MEASURED,
    Figure,
    Record,
    lookup,
    misses,
    number,
    provenance_lines,
)

TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=ChainableUndefined,
)


def cells(record: Any, columns: str) -> str:
    """Return cells of one row: columns are paths into the record, each with `:digits`."""
    pairs = (column.rsplit(":", 1) for column in columns.split())
    return " | ".join(number(lookup(record, path), int(digits)) for path, digits in pairs)


def grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown; empty without rows."""
    names, lines = list(head), ["| " + " | ".join(row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *lines])


def average(records: Iterable[Any], path: str) -> float | None:
    """Return the mean of the figures at a path; None where no record has it."""
    values = [v for record in records if isinstance(v := lookup(record, path), float | int)]
    return quality.mean(values) if values else None


def target_grid(record: Record) -> str:
    """Return all figures of `record["targets"]` with a target, and whether each is met."""
    verdicts = {True: "met", False: "**missed**", None: NOT_MEASURED}
    return grid(
        ["figure", "target", "measured", ""],
        [[f.label, f.target(), f.found(record), verdicts[f.is_met(record)]]
         for f in map(from_json, record["targets"])],
    )  # fmt: skip


def figure_rows(records: dict[str, Record], figures: Sequence[Figure]) -> list[list[str]]:
    """Return a row a figure and a column a record; a value that misses its target is bold."""
    return [
        [figure.label, figure.target()]
        + [bold(figure.found(r), figure.is_met(r) is False) for r in records.values()]
        for figure in figures
    ]


def bold(text: str, is_bold: object = True) -> str:
    """Return text, bold where a condition holds."""
    return f"**{text}**" if is_bold else text


def percent(value: float, digits: int = 0) -> str:
    """Return a share in percent."""
    return f"{value:.{digits}%}"


def from_json(plain: Record) -> Figure:
    """Return a figure with its target from plain values."""
    return Figure(**plain)


TEMPLATES.filters |= {"cells": cells, "number": number, "percent": percent, "bold": bold}
TEMPLATES.globals |= {
    "grid": grid, "average": average, "target_grid": target_grid, "figure_rows": figure_rows,
    "misses": misses, "quality": quality,
}  # fmt: skip


def targets(name: str, **facts: Any) -> list[Record]:
    """Return the figures of `templates/<name>.targets.json` as plain values, for a record.

    Args:
        name: of the record.
        facts: what its template repeats figures for.
    """
    text = TEMPLATES.get_template(f"{name}.targets.json").render(facts)
    return [asdict(from_json(one)) for one in json.loads(text)]


def part(name: str, **facts: Any) -> str:
    """Return what a template makes of facts, with single blank lines."""
    text = TEMPLATES.get_template(f"{name}.md").render(facts)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def page(name: str, record: Record) -> str:
    """Return the page of a record by the template of a name, with the provenance at its end."""

    def remarks(part: str) -> str:
        return "\n\n".join(record.get("remarks", {}).get(part, []))

    context = record | {
        "record": record, "remarks": remarks,
        "targets": [from_json(one) for one in record.get("targets", [])],
    }  # fmt: skip
    runs = record["runs"] if "runs" in record else [record["about"]]
    lines = ["", "## Provenance", "", *provenance_lines(runs), ""]
    return part(name, **context) + "\n".join(lines)


def write_page(path: Path, record: Record, name: str | None = None) -> str:
    """Write a record as `path` with suffix `.json` and its page beside it, and return the page.

    Args:
        path: of either; folders must exist.
        record: with its `runs`.
        name: of the template; None: that of the file.
    """
    text = page(name or path.stem, record)
    data = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path.with_suffix(".json"), data)
    write_atomically(path.with_suffix(".md"), text)
    return text


def write_pages(folder: Path) -> list[Path]:
    """Write the page of each record in a folder, and return the pages."""
    made = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        write_atomically(path.with_suffix(".md"), page(path.stem, record))
        made.append(path.with_suffix(".md"))
    return made


def main() -> None:
    """Write all pages of a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    for path in write_pages(parser.parse_args().folder):
        print(path)


if __name__ == "__main__":
    main()
