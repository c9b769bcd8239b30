"""Records, and the pages of `benchmarks/results` made from them by templates of the same names.

    python -m sglat_lab.report.pages benchmarks/results

writes `<name>.md` for each `<name>.json` of the folder. Figures, targets, remarks and provenance
come from the record; headings, columns and explanations from `templates/<name>.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined

from sglat.files import write_atomically
from sglat_lab.report import quality

Record = dict[str, Any]
PACKAGES: Final = ("numpy", "torch", "av", "scikit-image", "scipy", "bjontegaard", "mediapipe",
                   "matplotlib", "zstandard")  # fmt: skip
NOT_MEASURED: Final = "–"


def number(value: object, digits: int = 2) -> str:
    """Return a figure with some digits; a reason as it is; a dash for nothing."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:.{digits}f}"
    is_absent = value is None or isinstance(value, Undefined)
    return NOT_MEASURED if is_absent else str(value)


def lookup(record: Any, path: str) -> Any:
    """Return the value at a path of keys separated by `/`; None where there is none."""
    for key in path.split("/"):
        if not isinstance(record, Mapping) or key not in record:
            return None
        record = record[key]
    return record


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a record and, where there is one, its target."""

    label: str
    path: str
    """Keys separated by `/`."""
    digits: int = 2
    unit: str = ""
    least: float | None = None
    most: float | None = None
    below: str | None = None
    """Path of the figure that this one must stay below."""
    needs: str | None = None
    """Path of the figure that decides whether the target applies, and …"""
    needs_least: float = 0.0
    """… the value from which on it does."""

    def target(self) -> str:
        """Return the target in words; empty where there is none."""
        if self.unit == "yes":
            return "yes"
        unit = f" {self.unit}" if self.unit else ""
        if self.least is not None and self.most is not None:
            text = f"{self.least:g} to {self.most:g}{unit}"
        elif self.least is not None:
            text = f"≥ {self.least:g}{unit}"
        elif self.most is not None:
            text = f"≤ {self.most:g}{unit}"
        else:
            text = "" if self.below is None else "< inverter"
        if self.needs is not None:
            text += f" where {self.needs.rsplit('/', 1)[-1]} ≥ {self.needs_least:g}"
        return text

    def is_met(self, record: Record) -> bool | None:
        """Return whether the target is met; None: no target, not applicable, or not measured."""
        value = lookup(record, self.path)
        if not self.target() or not isinstance(value, float | int):
            return None
        if self.needs is not None and (lookup(record, self.needs) or 0.0) < self.needs_least:
            return None
        limit = None if self.below is None else lookup(record, self.below)
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (limit is None or value < limit)
        )

    def found(self, record: Record) -> str:
        """Return the figure as text."""
        value = lookup(record, self.path)
        if isinstance(value, bool):
            return "yes" if value else "NO"
        unit = f" {self.unit}" if self.unit and value is not None else ""
        return f"{number(value, self.digits)}{unit}"


def misses(records: Mapping[str, Record], figures: Sequence[Figure]) -> list[str]:
    """Return one line for each value that misses its target."""
    return [
        f"{name}: {figure.label} {figure.found(record)}, target {figure.target()}"
        for figure in figures
        for name, record in records.items()
        if figure.is_met(record) is False
    ]


def provenance(program: str, **facts: Any) -> Record:
    """Return where and with what this process measures.

    Args:
        program: the command as a user types it; this process's options are appended.
        facts: anything else that the figures depend on.
    """
    names = [Path(part).name if "/" in part else part for part in sys.argv[1:]]
    return {
        "commit": commit(),
        "command": " ".join([program, *names]),
        "machine": machine(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        **facts,
    }


def provenance_lines(runs: Sequence[Record]) -> list[str]:
    """Return one line of Markdown for each run that figures of a page come from."""
    lines = []
    for run in runs:
        parts = [f"commit {run.get('commit') or 'unknown'}"]
        parts += [str(run[key]) for key in ("machine", "remark") if run.get(key)]
        if run.get("python"):
            packages = [f"{name} {v}" for name, v in run.get("packages", {}).items() if v]
            parts.append(", ".join([f"Python {run['python']}", *packages]))
        if run.get("command"):
            parts.append(f"`{run['command']}`")
        what = f"{run['what']}: " if run.get("what") else ""
        lines.append(f"* {what}{'; '.join(parts)}")
    return lines


def package_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the short hash of the checkout this code runs from; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def machine() -> str:
    """Return the processor, its cores and the system in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


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
    return fmean(values) if values else None


def target_grid(record: Record) -> str:
    """Return all figures of `record["targets"]` with a target, and whether each is met."""
    verdicts = {True: "met", False: "**missed**", None: NOT_MEASURED}
    return grid(
        ["figure", "target", "measured", ""],
        [[f.label, f.target(), f.found(record), verdicts[f.is_met(record)]]
         for f in (Figure(**one) for one in record["targets"])],
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
    return [asdict(Figure(**one)) for one in json.loads(text)]


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
        "targets": [Figure(**one) for one in record.get("targets", [])],
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
