"""The tables of the clip benchmark: every figure beside its bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sglat_lab.measure.motion_figures import MOVING_DEGREES, MOVING_EYES, MOVING_MOUTH

Record = dict[str, Any]
NOT_MEASURED: Final = "-"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of every clip and what is wanted of it."""

    label: str
    bar: str
    value: Callable[[Record], float | None]
    is_reached: Callable[[Record, float], bool | None]
    """None: the bar does not apply to this clip."""
    digits: int = 2


def _signal(name: str) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        found = record["figures"]["signals"].get(name)
        return None if found is None else found["r"]

    return value


def _moves(name: str, least: float, bar: float) -> Callable[[Record, float], bool | None]:
    def reached(record: Record, value: float) -> bool | None:
        return value >= bar if record["figures"]["signals"][name]["span"] >= least else None

    return reached


def _quality(version: str, key: str) -> Callable[[Record], float | None]:
    return lambda record: record.get(version, record["figures"].get(version, {})).get(key)


def _better(key: str) -> Callable[[Record, float], bool | None]:
    return lambda r, value: value < r["figures"]["inverter"][key]


def _at_most(bar: float) -> Callable[[Record, float], bool | None]:
    return lambda _, value: value <= bar


def _no_bar(_: Record, __: float) -> None:
    return None


ROWS: Final = (
    Row(label="frames", bar="", value=lambda r: r["frames"], is_reached=_no_bar, digits=0),
    Row(label="verified: motion hash", bar="yes", value=lambda r: r["verified"],
        is_reached=lambda _, v: bool(v), digits=0),
    Row(label="sound bit for bit", bar="yes", value=lambda r: r["audio_is_bit_exact"],
        is_reached=lambda _, v: bool(v), digits=0),
    Row(label="A/V offset (frames)", bar="<= 1", value=lambda r: r["av_offset_frames"],
        is_reached=_at_most(1)),
    Row(label="encode (s/frame)", bar="<= 2.5 of 250 frames",
        value=lambda r: r["seconds_per_frame"], is_reached=_no_bar),
    Row(label="encode, as 250 frames (s/frame)", bar="<= 2.5",
        value=lambda r: r["seconds_per_frame_250"], is_reached=_at_most(2.5)),
    Row(label="decode (frames/s)", bar=">= 25", value=lambda r: r["decode_frames_per_second"],
        is_reached=lambda _, v: v >= 25, digits=1),
    Row(label="perceptual, face", bar="< inverter", value=_quality("ours", "perceptual_face"),
        is_reached=_better("perceptual_face"), digits=4),
    Row(label="- inverter's own", bar="", value=_quality("inverter", "perceptual_face"),
        is_reached=_no_bar, digits=4),
    Row(label="identity loss", bar="< inverter", value=_quality("ours", "identity_loss"),
        is_reached=_better("identity_loss"), digits=4),
    Row(label="- inverter's own", bar="", value=_quality("inverter", "identity_loss"),
        is_reached=_no_bar, digits=4),
    Row(label="PSNR, face (dB)", bar="", value=_quality("ours", "psnr_face"), is_reached=_no_bar),
    Row(label="- inverter's own", bar="", value=_quality("inverter", "psnr_face"),
        is_reached=_no_bar),
    Row(label="jitter / source's", bar="<= 1.2", value=lambda r: r["figures"]["jitter_ratio"],
        is_reached=_at_most(1.2)),
    Row(label="r yaw", bar=f">= 0.9 where >= {MOVING_DEGREES:g} deg", value=_signal("yaw"),
        is_reached=_moves("yaw", MOVING_DEGREES, 0.9)),
    Row(label="r pitch", bar=f">= 0.9 where >= {MOVING_DEGREES:g} deg", value=_signal("pitch"),
        is_reached=_moves("pitch", MOVING_DEGREES, 0.9)),
    Row(label="r mouth opening", bar=">= 0.85 where it speaks", value=_signal("mouth"),
        is_reached=_moves("mouth", MOVING_MOUTH, 0.85)),
    Row(label="r eye opening", bar=">= 0.7 where it blinks", value=_signal("eyes"),
        is_reached=_moves("eyes", MOVING_EYES, 0.7)),
    Row(label="r blink blendshape", bar="", value=_signal("blink_shape"), is_reached=_no_bar),
    Row(label="r jaw blendshape", bar="", value=_signal("jaw_shape"), is_reached=_no_bar),
    Row(label="r gaze along the eye", bar="", value=_signal("gaze_along"), is_reached=_no_bar),
    Row(label="r gaze across the eye", bar="", value=_signal("gaze_across"), is_reached=_no_bar),
    Row(label="motion (kbit/s at 25 fps)", bar="<= 1.2",
        value=lambda r: r["bits_per_frame"] * 25 / 1000, is_reached=_at_most(1.2)),
    Row(label="identity (kB)", bar="<= 64", value=lambda r: r["bytes"]["identity"] / 1000,
        is_reached=_at_most(64), digits=1),
    Row(label="at 8 kB: perceptual, face", bar="usable",
        value=_quality("small", "perceptual_face"), is_reached=_no_bar, digits=4),
    Row(label="at 8 kB: identity loss", bar="usable", value=_quality("small", "identity_loss"),
        is_reached=_no_bar, digits=4),
    Row(label="at 8 kB: PSNR, face (dB)", bar="", value=_quality("small", "psnr_face"),
        is_reached=_no_bar),
)  # fmt: skip


def table(records: Mapping[str, Record]) -> str:
    """Return all figures in Markdown: a column a clip; a value that misses its bar is bold."""
    names = list(records)
    lines = ["| figure | bar | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for row in ROWS:
        cells = [_cell(row, records[name]) for name in names]
        lines.append(f"| {row.label} | {row.bar} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Row, record: Record) -> str:
    value = row.value(record)
    if value is None:
        return NOT_MEASURED
    text = ("yes" if value else "NO") if isinstance(value, bool) else f"{value:.{row.digits}f}"
    reached = row.is_reached(record, float(value))
    return f"**{text}**" if reached is False else text


def misses(records: Mapping[str, Record]) -> list[str]:
    """Return one line for each value that misses its bar."""
    found = []
    for row in ROWS:
        for name, record in records.items():
            value = row.value(record)
            if value is not None and row.is_reached(record, float(value)) is False:
                found.append(f"{name}: {row.label} {float(value):.{row.digits}f}, bar {row.bar}")
    return found


def spans(records: Mapping[str, Record]) -> str:
    """Return how far the source moves, in Markdown: whether a bar applies can be seen here."""
    keys: Sequence[str] = ("yaw", "pitch", "mouth", "eyes", "gaze_along", "gaze_across")
    lines = ["| source moves by | " + " | ".join(keys) + " |", "|---" * (1 + len(keys)) + "|"]
    for name, record in records.items():
        signals = record["figures"]["signals"]
        cells = [f"{signals[key]['span']:.2f}" if key in signals else NOT_MEASURED for key in keys]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
