"""The language of edits by name: `mouth 3+0.4@2s-4s~0.2s` to records."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

from sglat.errors import UsageError

Kind = Literal["set", "add", "neutral", "gain", "smooth", "only", "freeze", "mix", "retime"]
MAX_GAIN: Final = 100.0
MAX_SMOOTH_SECONDS: Final = 10.0
MAX_SPEED: Final = 20
MAX_SECONDS: Final = 10**9  # beyond any clip; bounds the arithmetic
_TIME: Final = r"(?:\d+:)?(?:\d+:)?(?:\d+(?:\.\d*)?|\.\d+)(?:s|ms|f)?"
_SPAN: Final = re.compile(rf"\s*({_TIME})?\s*(-)?\s*({_TIME})?\s*(?:~\s*({_TIME}))?\s*")
_CHANGE: Final = re.compile(r"\s*([^=+\-]+?)\s*([=+\-])\s*(.+?)\s*", re.DOTALL)
_NUMBER: Final = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*(.*)", re.IGNORECASE)
_DEGREES: Final = ("deg", "degree", "degrees", "°")
_MILLIS: Final = Fraction(1, 1000)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A time: seconds of the file's clock, or the number of a frame."""

    seconds: Fraction | None = None
    frame: int | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Frames that an edit changes; None at an end is the clip's."""

    start: Moment | None = None
    end: Moment | None = None
    """Excluded."""
    is_instant: bool = False
    """Only `start` was given: the frame on screen then."""
    ramp_seconds: Fraction | None = None
    """Of the transition inside each end; None: the default."""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edit by name."""

    kind: Kind
    target: str = "all"
    value: float = 0.0
    """Degrees or units of the control, factor, or seconds, as the kind has it."""
    is_degrees: bool = False
    """The value was given in degrees."""
    speed: Fraction = Fraction(1)
    """Of `retime`."""
    span: Span = Span()
    source: Path | None = None
    """File of `mix`."""
    text: str = ""
    """As given, with the file of `mix` by its name alone."""


def parse_edit(option: str, text: str = "") -> Edit:
    """Return the edit of one option.

    Args:
        option: set, gain, smooth, only, freeze, retime, neutral or mix.
        text: its value; empty for neutral, or which controls and when.

    Raises:
        UsageError: `bad-edit`, `bad-time`, `bad-value` with what was expected and found.
    """
    parsers = {
        "set": _set, "gain": _gain, "smooth": _smooth, "only": _only, "freeze": _freeze,
        "retime": _retime, "neutral": _neutral, "mix": _mix,
    }  # fmt: skip
    if option not in parsers:
        raise UsageError("bad-edit", f"expected one of {', '.join(parsers)}, found {option!r:.40}")
    return parsers[option](text)


def parse_span(text: str | None) -> Span:
    """Return `2s-4s`, `2s-`, `-4s`, `1s`, each perhaps with `~0.2s`; None or empty: all of it.

    Raises:
        UsageError: `bad-time`.
    """
    if text is None or not text.strip():
        return Span()
    match = _SPAN.fullmatch(text)
    if match is None or not (match[1] or match[3] or match[4]):
        raise UsageError("bad-time", f"expected {_TIMES}, found {text.strip()!r:.60}")
    first, dash, last, ramp = match.groups()
    if ramp is not None and ramp.endswith("f"):
        raise UsageError("bad-time", f"expected a ramp in s or ms, found {ramp!r:.40}")
    span = Span(
        start=_moment(first) if first else None,
        end=_moment(last) if last else None,
        is_instant=bool(first) and not dash,
        ramp_seconds=None if ramp is None else _moment(ramp).seconds,
        text=text.strip(),
    )
    start, end = span.start, span.end
    if start is not None and end is not None:
        for a, b in ((start.seconds, end.seconds), (start.frame, end.frame)):
            if a is not None and b is not None and a >= b:
                raise UsageError(
                    "bad-time", f"expected a range that ends after it begins, found {span.text!r}"
                )
    return span


_TIMES: Final = "a time or range such as 2s, 500ms, 1:02.5, 50f (a frame), 2s-4s, 2s-4s~0.2s (ramp)"


def _moment(text: str) -> Moment:
    if text.endswith("f"):
        if not text[:-1].isdecimal() or len(text) > 10:
            raise UsageError("bad-time", f"expected a frame such as 50f, found {text!r:.40}")
        return Moment(frame=int(text[:-1]), text=text)
    unit = _MILLIS if text.endswith("ms") else Fraction(1)
    seconds = Fraction(0)
    for part in text.removesuffix("ms").removesuffix("s").split(":"):
        seconds = 60 * seconds + Fraction(part if part[0] != "." else f"0{part}")
    if ":" in text and unit != 1:
        raise UsageError("bad-time", f"expected m:ss or milliseconds, found {text!r:.40}")
    if seconds * unit > MAX_SECONDS:
        raise UsageError("bad-time", f"expected at most {MAX_SECONDS} s, found {text!r:.40}")
    return Moment(seconds=seconds * unit, text=text)


def _split(option: str, text: str, form: str) -> tuple[str, Span]:
    """Return what stands before `@`, and the span after it."""
    head, at, tail = text.partition("@")
    if not head.strip() or (at and not tail.strip()):
        raise UsageError("bad-edit", f"--{option}: expected {form}, found {text!r:.60}")
    return head.strip(), parse_span(tail)


def _assigned(option: str, text: str, form: str) -> tuple[str, str, Span]:
    head, span = _split(option, text, form)
    target, equals, value = head.partition("=")
    if not equals or not target.strip() or not value.strip():
        raise UsageError("bad-edit", f"--{option}: expected {form}, found {text!r:.60}")
    return target.strip(), value.strip(), span


def _number(option: str, text: str, units: tuple[str, ...], form: str) -> tuple[float, str]:
    """Return a finite number and its unit."""
    match = _NUMBER.fullmatch(text)
    value = float(match[1]) if match is not None else math.nan
    if match is None or not math.isfinite(value):
        raise UsageError("bad-value", f"--{option}: expected {form}, found {text!r:.60}")
    if match[2] and match[2] not in units:
        allowed = f"no unit or {', '.join(units)}" if units else "a number without a unit"
        raise UsageError("bad-value", f"--{option}: expected {allowed}, found {text!r:.60}")
    return value, match[2]


def _set(text: str) -> Edit:
    form = 'CONTROL=VALUE, CONTROL+VALUE or CONTROL-VALUE, such as "mouth 3+0.4@2s-4s"'
    head, span = _split("set", text, form)
    match = _CHANGE.fullmatch(head)
    if match is None:
        raise UsageError("bad-edit", f"--set: expected {form}, found {text!r:.60}")
    target, sign, value = match.groups()
    text = f"set {text.strip()}"
    if value == "neutral" and sign == "=":
        return Edit(kind="neutral", target=target, span=span, text=text)
    number, unit = _number("set", value, _DEGREES, "a number, or neutral")
    return Edit(
        kind="set" if sign == "=" else "add", target=target, is_degrees=bool(unit), span=span,
        value=-number if sign == "-" else number, text=text,
    )  # fmt: skip


def _gain(text: str) -> Edit:
    target, value, span = _assigned("gain", text, "CONTROL=FACTOR, such as eyes=1.2")
    factor, unit = _number("gain", value, ("x", "%"), "a factor such as 1.2 or 120%")
    factor /= 100 if unit == "%" else 1
    if abs(factor) > MAX_GAIN:
        raise UsageError("bad-value", f"--gain: expected at most {MAX_GAIN:g}, found {value!r:.40}")
    return Edit(kind="gain", target=target, value=factor, span=span, text=f"gain {text.strip()}")


def _smooth(text: str) -> Edit:
    target, value, span = _assigned("smooth", text, "CONTROL=SECONDS, such as pose=0.3")
    width, unit = _number("smooth", value, ("s", "ms"), "a width in seconds such as 0.3 or 300ms")
    width /= 1000 if unit == "ms" else 1
    if not 0 < width <= MAX_SMOOTH_SECONDS:
        raise UsageError(
            "bad-value",
            f"--smooth: expected a width above 0 and up to {MAX_SMOOTH_SECONDS:g} s, "
            f"found {value!r:.40}",
        )
    return Edit(kind="smooth", target=target, value=width, span=span, text=f"smooth {text.strip()}")


def _only(text: str) -> Edit:
    target, span = _split("only", text, "CONTROL, such as mouth")
    return Edit(kind="only", target=target, span=span, text=f"only {text.strip()}")


def _freeze(text: str) -> Edit:
    form = "CONTROL@TIME, such as pose@1s, pose@1s- (from then on) or pose@1s-2s"
    target, span = _split("freeze", text, form)
    if span.start is None:
        raise UsageError("bad-edit", f"--freeze: expected {form}, found {text!r:.60}")
    return Edit(kind="freeze", target=target, span=span, text=f"freeze {text.strip()}")


def _neutral(text: str) -> Edit:
    if not text.strip():
        return Edit(kind="neutral", text="neutral")
    target, span = _split("neutral", text, "CONTROL or CONTROL@RANGE")
    return Edit(kind="neutral", target=target, span=span, text=f"neutral {text.strip()}")


def _retime(text: str) -> Edit:
    form = f"one speed for the whole clip, such as 1.5 or 3/2, 1/{MAX_SPEED} to {MAX_SPEED}"
    try:
        speed = (
            Fraction(text.strip()) if len(text) <= 20 and "e" not in text.lower() else Fraction(0)
        )
    except (ValueError, ZeroDivisionError):
        speed = Fraction(0)
    if not Fraction(1, MAX_SPEED) <= speed <= MAX_SPEED:
        raise UsageError("bad-value", f"--retime: expected {form}, found {text!r:.60}")
    return Edit(kind="retime", speed=speed, text=f"retime {text.strip()}")


def _mix(text: str) -> Edit:
    form = "CONTROL:FILE, such as eyes:other.sglat or mouth:speech.csv"
    target, colon, rest = text.partition(":")
    head, at, tail = rest.rpartition("@")
    is_timed = bool(at) and _SPAN.fullmatch(tail) is not None and bool(tail.strip())
    name, span = (head, parse_span(tail)) if is_timed else (rest, Span())
    if not colon or not target.strip() or not name.strip():
        raise UsageError("bad-edit", f"--mix: expected {form}, found {text!r:.80}")
    source = Path(name)
    suffix = f"@{span.text}" if is_timed else ""
    return Edit(
        kind="mix", target=target.strip(), span=span, source=source,
        text=f"mix {target.strip()}:{source.name}{suffix}",
    )  # fmt: skip
