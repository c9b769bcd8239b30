"""Parts of a record and its page: figures with targets, and provenance."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from jinja2 import Undefined

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
