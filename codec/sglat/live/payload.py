"""The payload of one motion packet: frames, and a coarse copy of those before (LIVE.md section 4).

Every packet is decoded by itself: values are coded against the session's anchor, so that no loss
and no order of arrival changes what a later packet means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import MAX_VALUE, REACH, SCALES, TOTAL
from sglat.bitstream.rans import boundary_rows
from sglat.bitstream.records import FIRST_CONTROL, MOTION_CHANNELS
from sglat.errors import FormatError
from sglat.live.range_coder import RangeDecoder, RangeEncoder

Ints = NDArray[np.int64]

MAX_FRAMES: Final = 4
MAX_COPIES: Final = 7
COPY_STRIDE: Final = 2
"""Frames from one coarse copy to the one before."""
COARSE_SHIFTS: Final = (2, 3)
"""Coarse copies have units of four or eight steps."""
MAX_SHIFT: Final = 3
LEVELS: Final = 16
NO_FLAGS: Final = TOTAL - (TOTAL >> 6)  # one packet in 64 shows a cut or a lost face
MAX_PAYLOAD_BYTES: Final = 1024  # what four frames of escapes may take, with room

# Scale indices by amplitude of the two channels before, first yaw and pitch, then the controls;
# fitted to the motion of encoded clips, as it is and with noise of a third of a step.
_FRAME: Final = (
    (23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 25, 27),
    (12, 12, 13, 13, 14, 15, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17),
)
_NEXT: Final = (
    (21, 21, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25),
    (17, 18, 18, 18, 20, 20, 22, 22, 22, 24, 24, 28, 28, 28, 28, 28),
)
_COPY: Final = (
    (17, 17, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20),
    (12, 14, 16, 16, 18, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20),
)
TABLES: Final = np.array([_FRAME, _NEXT, _COPY])
FRAME, NEXT, COPY = range(3)
_CLASS: Final = (np.arange(MOTION_CHANNELS) >= FIRST_CONTROL).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class MotionPayload:
    """What one motion packet holds, as the receiver decodes it."""

    frames: NDArray[np.int32]
    """Consecutive frames, `[T, 34]`, T 1 to 4."""
    flags: NDArray[np.uint8]
    """Of each frame, as in the file format, `[T]`."""
    copies: NDArray[np.int32]
    """Coarse copies of the frames 1, 3, 5 … before the first, latest first, `[K, 34]`."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How finely a packet is coded; chosen packet by packet to keep the rate."""

    shift: int = 0
    """Frames have units of 2^shift steps."""
    coarse_shift: int = COARSE_SHIFTS[0]
    copies: int = 4


# From the best to the smallest
FORMS: Final = (
    Form(),
    Form(coarse_shift=3),
    Form(coarse_shift=3, copies=2),
    Form(copies=0),
    Form(shift=1, copies=0),
    Form(shift=2, copies=0),
    Form(shift=3, copies=0),
)


@cache
def _costs() -> NDArray[np.float64]:
    """Return bits of each residual -REACH - 1 … REACH + 1 at each scale, `[SCALES, symbols]`."""
    rows = np.array(boundary_rows())[8::16]
    return np.asarray(-np.log2(np.diff(rows, axis=1) / TOTAL))


def _contexts(residuals: Ints) -> Ints:
    """Return the amplitude of the channels before each, `[N, 34]`, as the tables count it."""
    amplitude = np.abs(residuals)
    padded = np.concatenate([np.zeros((len(amplitude), 2), np.int64), amplitude], axis=1)
    return np.asarray(np.minimum(2 * padded[:, 1:-1] + padded[:, :-2], LEVELS - 1))


def _scales(kind: int, residuals: Ints, lower: int = 0) -> Ints:
    """Return the scale index of each residual `[N, 34]` at level 0."""
    return np.asarray(TABLES[kind][_CLASS, _contexts(residuals)] - lower)


def _bits_by_level(residuals: Ints, scales: Ints) -> NDArray[np.float64]:
    """Return an estimate of the bits of residuals `[N, 34]` at each level, `[LEVELS]`."""
    symbol = np.clip(residuals + REACH + 1, 0, 2 * REACH + 2)
    beyond = np.maximum(np.abs(residuals) - REACH, 0)
    escape = float(np.where(beyond > 0, 2 * np.floor(np.log2(np.maximum(beyond, 1))) + 1, 0).sum())
    offsets = np.array([offset_of(level) for level in range(LEVELS)])
    rows = np.clip(scales[None] + offsets[:, None, None], 0, SCALES - 1)
    return np.asarray(_costs()[rows, symbol[None]].sum(axis=(1, 2)) + escape)


def offset_of(level: int) -> int:
    """Return what a level adds to scale indices: half octaves."""
    return 2 * (level - 7)


@dataclass(frozen=True, kw_only=True)
class _Residuals:
    """A packet before entropy coding."""

    form: Form
    first: Ints
    further: Ints
    copies: Ints
    decoded: MotionPayload

    def levels(self) -> tuple[int, int, float]:
        """Return the best levels of the first frame and of all that follows, and bits in all."""
        first = _bits_by_level(self.first, _scales(FRAME, self.first))
        rest = np.zeros(LEVELS)
        if len(self.further):
            rest += _bits_by_level(self.further, _scales(NEXT, self.further))
        if len(self.copies):
            lower = _lower(self.form.coarse_shift)
            rest += _bits_by_level(self.copies, _scales(COPY, self.copies, lower))
        return int(first.argmin()), int(rest.argmin()), float(first.min() + rest.min() + 17)


def _lower(coarse_shift: int) -> int:
    return 4 * (coarse_shift - COARSE_SHIFTS[0])  # an octave for each bit


def _residuals(
    frames: Ints, flags: NDArray[np.uint8], past: Ints, anchor: Ints, form: Form
) -> _Residuals:
    unit = 1 << form.shift
    before, rows, shown = anchor, [], []
    for frame in frames:
        residual = np.rint((frame - before) / unit).astype(np.int64)
        before = before + unit * residual
        rows.append(residual)
        shown.append(before)
    coarse = 1 << form.coarse_shift
    before, copy_rows, copies = shown[0], [], []
    for frame in past[: form.copies]:
        residual = np.rint((frame - before) / coarse).astype(np.int64)
        before = before + coarse * residual
        copy_rows.append(residual)
        copies.append(before)
    empty = np.zeros((0, MOTION_CHANNELS), np.int64)
    decoded = MotionPayload(
        frames=np.array(shown).astype(np.int32),
        flags=flags.astype(np.uint8),
        copies=np.array([*copies, *empty]).reshape(-1, MOTION_CHANNELS).astype(np.int32),
    )
    return _Residuals(
        form=form,
        first=np.array(rows[:1]),
        further=np.array([*rows[1:], *empty]).reshape(-1, MOTION_CHANNELS),
        copies=np.array([*copy_rows, *empty]).reshape(-1, MOTION_CHANNELS),
        decoded=decoded,
    )


def pack_payload(
    frames: NDArray[np.int32],
    flags: NDArray[np.uint8],
    past: NDArray[np.int32],
    anchor: NDArray[np.int32],
    *,
    most_bytes: int = MAX_PAYLOAD_BYTES,
    forms: Sequence[Form] = FORMS,
) -> tuple[bytes, MotionPayload]:
    """Return a payload in the finest form that fits, and what it decodes to.

    Args:
        frames: consecutive, `[T, 34]`, T 1 to 4.
        flags: of each, `[T]`.
        past: the frames 1, 3, 5 … before the first, latest first, `[K, 34]`; fewer at the start.
        anchor: what the session's first residuals are counted from, `[34]`.
        most_bytes: wanted; the smallest form is taken where none fits.
        forms: from the finest to the smallest.

    Raises:
        FormatError: `bad-value` for integers beyond the legal ones, `bad-frames`.
    """
    if not 1 <= len(frames) <= MAX_FRAMES or len(flags) != len(frames):
        raise FormatError("bad-frames", f"expected 1 to {MAX_FRAMES} frames, found {len(frames)}")
    if max(np.abs(frames).max(), np.abs(past).max(initial=0)) > MAX_VALUE - 8:
        raise FormatError("bad-value", f"expected integers within ±{MAX_VALUE}, found a larger one")
    wide, history = frames.astype(np.int64), past.astype(np.int64)[:MAX_COPIES]
    for form in forms:
        parts = _residuals(wide, flags, history, anchor.astype(np.int64), form)
        first, rest, bits = parts.levels()
        if form is forms[-1] or bits <= 8 * most_bytes:
            data = _code(parts, first, rest)
            if form is forms[-1] or len(data) <= most_bytes:
                return data, parts.decoded
    raise AssertionError("the last form is always taken")


def _code(parts: _Residuals, first: int, rest: int) -> bytes:
    form, flags = parts.form, parts.decoded.flags
    coder = RangeEncoder()
    coder.bits(len(flags) - 1, 2)
    coder.bits(form.shift, 2)
    coder.bits(len(parts.copies), 3)
    coder.bits(form.coarse_shift - COARSE_SHIFTS[0], 1)
    coder.bits(first, 4)
    coder.bits(rest, 4)
    coder.flag(bool(flags.any()), NO_FLAGS)
    if flags.any():
        for flag in flags.tolist():
            coder.bits(flag, 2)
    lower = _lower(form.coarse_shift)
    for kind, rows, level, less in (
        (FRAME, parts.first, first, 0),
        (NEXT, parts.further, rest, 0),
        (COPY, parts.copies, rest, lower),
    ):
        if not len(rows):
            continue
        scales = np.clip(_scales(kind, rows, less) + offset_of(level), 0, SCALES - 1)
        for scale, value in zip(scales.ravel().tolist(), rows.ravel().tolist(), strict=True):
            coder.residual(scale, value)
    return coder.finish()


def unpack_payload(data: bytes, anchor: NDArray[np.int32]) -> MotionPayload:
    """Read a payload.

    Raises:
        FormatError: `bad-stream` or `bad-value`.
    """
    if len(data) > MAX_PAYLOAD_BYTES:
        raise FormatError("bad-stream", f"expected at most {MAX_PAYLOAD_BYTES} bytes of payload")
    coder = RangeDecoder(data)
    count = coder.bits(2) + 1
    shift, copies = coder.bits(2), coder.bits(3)
    coarse_shift = COARSE_SHIFTS[0] + coder.bits(1)
    first, rest = offset_of(coder.bits(4)), offset_of(coder.bits(4))
    flags = np.zeros(count, np.uint8)
    if coder.flag(NO_FLAGS):
        flags[:] = [coder.bits(2) for _ in range(count)]
    tables: list[list[list[int]]] = TABLES.tolist()
    values = [_add(anchor.tolist(), _row(coder, tables[FRAME], first), shift)]
    for _ in range(count - 1):
        values.append(_add(values[-1], _row(coder, tables[NEXT], rest), shift))
    coarse = [values[0]]
    less = rest - _lower(coarse_shift)
    for _ in range(copies):
        coarse.append(_add(coarse[-1], _row(coder, tables[COPY], less), coarse_shift))
    coder.finish()
    both = np.array(values + coarse[1:], dtype=np.int64)
    if np.abs(both).max() > MAX_VALUE:
        raise FormatError("bad-value", f"expected integers within ±{MAX_VALUE}, found a larger one")
    narrow = both.astype(np.int32)
    return MotionPayload(frames=narrow[:count], flags=flags, copies=narrow[count:])


def _row(coder: RangeDecoder, tables: list[list[int]], offset: int) -> list[int]:
    """Read the residuals of one frame."""
    out: list[int] = []
    near = far = 0
    for channel in range(MOTION_CHANNELS):
        table = tables[0] if channel < FIRST_CONTROL else tables[1]
        scale = table[min(2 * near + far, LEVELS - 1)] + offset
        value = coder.residual(min(max(scale, 0), SCALES - 1))
        far, near = near, abs(value)
        out.append(value)
    return out


def _add(before: Sequence[int], residuals: list[int], shift: int) -> list[int]:
    return [a + (b << shift) for a, b in zip(before, residuals, strict=True)]
