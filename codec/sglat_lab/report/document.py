"""Parts of a report: text, tables, figures with targets, provenance, and pages made of them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

Record = dict[str, Any]


def headline(record: Record) -> str:
    """Return the outcome in two sentences, good or bad."""
    summary = record["summary"]
    ours = summary["sglat"]
    rate = ours["kbit_per_second_60s"]["mean"]
    cached = ours["kbit_per_second_cached"]["mean"]
    clips = ours["kbit_per_second_60s"]["clips"]
    text = (
        f"Over 60 s sglat spends {rate:.2f} kbit/s on a face, {cached:.2f} kbit/s once the "
        f"identity is known (mean of {clips} clip{'s' if clips > 1 else ''}). "
    )
    keys = [k for k in ("perceptual_face", "identity_loss") if k in ours["figures"]]
    if not keys:
        return text + "No network was at hand to measure perceptual distance or identity."
    won: list[str] = []
    lost: list[str] = []
    for name in list(summary)[1:]:
        theirs = summary[name]["figures"]
        is_won = all(ours["figures"][k]["mean"] < theirs[k]["mean"] for k in keys if k in theirs)
        (won if is_won else lost).append(name)
    both = "both perceptual distance (face) and L_ID"
    if not lost:
        text += f"At its whole rate over 60 s it is better in {both} than every anchor. "
    elif not won:
        text += f"At its whole rate over 60 s it beats no anchor in {both}. "
    else:
        text += (
            f"At its whole rate over 60 s it is better in {both} than {', '.join(won)}, but not "
            f"than {', '.join(lost)}. "
        )
    return text + _floor(record)


def _floor(record: Record) -> str:
    """Return in a sentence what lies below the anchors' lowest rates."""
    rates = [
        point["kbit_per_second_60s"]
        for clip in record["clips"]
        for name, points in clip["curves"].items()
        if name != "sglat"
        for point in points
    ]
    own = [p["kbit_per_second_60s"] for c in record["clips"] for p in c["curves"]["sglat"]]
    return (
        f"No anchor went below {min(rates):.1f} kbit/s over 60 s on any clip; sglat with its "
        f"identity cut to the first layer went down to {min(own):.1f}."
    )


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _origin(facts: Record) -> str:
    """Return in words how the files came about."""
    plan = facts["plan"]
    if plan is None:
        return "made earlier"
    text = f"encoded in this run: the first {plan['frames']} frames of each clip at most"
    if plan["tune_steps"] is not None:
        text += (
            f", {plan['tune_steps']} steps of tuning instead of the default, at a loss of quality"
        )
    return text + f"; planned for {facts['minutes']:g} minutes"


def about(record: Record) -> list[str]:
    """Return the settings of the run, in lines."""
    facts = record["about"]
    effort = facts["effort"]
    return [
        f"sglat {facts['sglat']}, bundle {facts['bundle']}, decoder {facts['decoder_id'][:16]}",
        f"{len(record['clips'])} clips of {_span([c['frames'] for c in record['clips']])} frames; "
        f"picture metrics on {effort['frames']} frames a clip, evenly spread; measures over time "
        f"on the first {effort['window']} frames" + (" (quick)" if facts["is_quick"] else ""),
        f".sglat files {_origin(facts)}",
        "time: " + ", ".join(f"{k} {v:.0f} s" for k, v in record["stage_seconds"].items()),
        *(f"{a['name']}: {_options(a)}" for a in facts["anchors"]),
    ]


def _options(anchor: Record) -> str:
    options = " ".join(f"{key}={value}" for key, value in anchor["options"].items())
    return f"{anchor['encoder']}, {options}, yuv420p, one intra frame, no B frames"


def _independence(facts: Record) -> list[str]:
    """Return which figures are not independent of what made the pictures, and whom that favours."""
    lines = []
    minimised = facts["tuning_networks"]
    if minimised is None:
        lines.append("Whether networks were minimised when the files were made is not known.")
    elif minimised:
        lines.append(
            f"Not independent: tuning minimises the bundle's {' and '.join(minimised)} network, "
            "taught by the networks that measure here. That favours sglat in perceptual distance "
            "and L_ID."
        )
    else:
        lines.append(
            "Tuning asks no network: it minimises pixel differences and structural similarity. "
            "That makes L1, PSNR, SSIM and MS-SSIM what sglat is tuned for, on a few frames; the "
            "anchors minimise squared differences on every frame."
        )
    if facts["bundle"] == "mini" and (facts["perceptual"] or facts["identity"]):
        lines.append(
            "Not quite independent: the embedded bundle's generator and inverter were trained "
            "with the networks that measure perceptual distance and L_ID here among their losses, "
            "and the landmark network that measures ρ and jitter taught the encoder's own tracker. "
            "None of these networks runs in the encoder; its own small ones were taught by them."
        )
    return lines


def caveats(record: Record) -> list[str]:
    """Return what a reader must know to weigh the figures."""
    facts = record["about"]
    lines = [
        "All codecs get the same aligned crops at the bundle's resolution; the background outside "
        "the crop is not coded by any of them. Anchors are counted without a container.",
        "Face region: inside MediaPipe's face oval on the source frame, as the paper masks the "
        "reference face. Perceptual distances average feature differences over that region.",
    ]
    lines.append(
        "MS-SSIM: as many of the five scales as have room for the window of 11 pixels (four at "
        "128 px), their weights brought to a sum of 1; not comparable with figures of five scales."
    )
    if facts["perceptual"]:
        lines.append(
            f"Perceptual distance: {facts['perceptual']}; not LPIPS, which was "
            + ("measured too." if record["not_measured"].get("LPIPS") is None else "not measured.")
        )
    if facts["identity"]:
        lines.append(f"L_ID: {facts['identity']}, not ArcFace.")
    lines += _independence(facts)
    if facts["signals"]:
        lines.append(
            f"ρ_AU, ρ_GZ and ρ_pose are proxies: {facts['signals']} (blendshapes, iris between the "
            "eye corners, head matrix), not OpenFace 2.0. Jitter: second differences of rigid "
            "landmarks."
        )
    return lines


PACKAGES: Final = ("numpy", "torch", "av", "scikit-image", "scipy", "bjontegaard", "mediapipe",
                   "matplotlib", "zstandard")  # fmt: skip
NOT_MEASURED: Final = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table; cells are text."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def markdown(self, level: int = 2) -> str:
        """Return the table as Markdown, notes below; without a title if that is empty."""
        lines = [f"{'#' * level} {self.title}", ""] if self.title else []
        if self.rows:
            lines.append("| " + " | ".join(self.head) + " |")
            lines.append("|" + "---|" * len(self.head))
            lines += ["| " + " | ".join(row) + " |" for row in self.rows]
            lines.append("")
        lines += [part for note in self.notes for part in (note, "")]
        return "\n".join(lines)


def number(value: object, digits: int = 2) -> str:
    """Return a figure with some digits; a reason as it is; a dash for nothing."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:.{digits}f}"
    return NOT_MEASURED if value is None else str(value)


def cells(record: Mapping[str, Any], columns: Sequence[tuple[str, int]]) -> list[str]:
    """Return one cell for each column: a path into the record and its digits."""
    return [number(lookup(record, path), digits) for path, digits in columns]


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


def target_table(record: Record, title: str = "Targets") -> Table:
    """Return all figures of `record["targets"]` with a target, and whether each is met."""
    rows = []
    for figure in targets_of(record):
        is_met = figure.is_met(record)
        verdict = {True: "met", False: "**missed**", None: NOT_MEASURED}[is_met]
        rows.append([figure.label, figure.target(), figure.found(record), verdict])
    return Table(title=title, head=["figure", "target", "measured", ""], rows=rows)


def figure_table(records: Mapping[str, Record], figures: Sequence[Figure], title: str) -> Table:
    """Return all figures, a column a record; a value that misses its target is bold."""
    rows = []
    for figure in figures:
        row = [figure.label, figure.target()]
        for record in records.values():
            text = figure.found(record)
            row.append(f"**{text}**" if figure.is_met(record) is False else text)
        rows.append(row)
    return Table(title=title, head=["figure", "target", *records], rows=rows)


def misses(records: Mapping[str, Record], figures: Sequence[Figure]) -> list[str]:
    """Return one line for each value that misses its target."""
    return [
        f"{name}: {figure.label} {figure.found(record)}, target {figure.target()}"
        for figure in figures
        for name, record in records.items()
        if figure.is_met(record) is False
    ]


def targets_of(record: Record) -> list[Figure]:
    """Return the figures that a record carries with its targets."""
    return [Figure(**one) for one in record["targets"]]


def remarks(record: Record, part: str) -> list[str]:
    """Return the recorded remarks on a part of a page."""
    found: list[str] = record.get("remarks", {}).get(part, [])
    return found


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


def page(title: str, parts: Sequence[str | Table], runs: Sequence[Record]) -> str:
    """Return a page in Markdown: title, paragraphs and tables, provenance at the end."""
    lines = [f"# {title}", ""]
    for part in parts:
        lines += [part.markdown()] if isinstance(part, Table) else [part, ""]
    lines += ["## Provenance", "", *provenance_lines(runs)]
    return "\n".join(lines).rstrip() + "\n"


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
