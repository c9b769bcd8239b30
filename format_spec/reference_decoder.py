"""Reference decoder of `.sglat` files, written from SPEC.md alone: slow, short, only numpy.

    python format_spec/reference_decoder.py file.sglat

It reads a whole file into memory, checks every rule of SPEC.md and returns the integers of every
frame, placement and identity layer. It shares no code with the codec, so that the two can be held
against each other.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

SIGNATURE = bytes.fromhex("89 53 47 4C 0D 0A 1A 0A")
READS = (1, 2)  # the newest read version this decoder knows

# 2: type -> (flags, payload cap, may occur once)
CHUNKS = {
    b"HEAD": (0, 1 << 16, True),
    b"IDEN": (0, 1 << 20, True),
    b"LAYR": (0, (1 << 24) - 1, False),
    b"IREF": (0, 1 << 10, True),
    b"MOTN": (0, 1 << 20, False),
    b"PLAC": (1, 1 << 18, False),
    b"AHDR": (1, 1 << 17, True),
    b"APKT": (1, 1 << 22, False),
    b"PLAT": (1, 1 << 23, True),
    b"THMB": (1, 1 << 20, True),
    b"PROV": (1, 1 << 16, True),
    b"NEUT": (1, 68, True),
    b"META": (1, 1 << 20, True),
    b"INDX": (3, 1 << 23, True),
    b"ENDS": (0, 48, True),
}
EXACT_LENGTH = {b"NEUT", b"ENDS"}
BEFORE_MOTION = {b"PLAT", b"THMB", b"PROV", b"NEUT", b"META"}
MAX_INTEGER = (1 << 20) - 1
MAX_TIME = 1 << 53
CHANNELS = 34


class SglatError(Exception):
    """A file breaks SPEC.md: `code` is one of section 14, `offset` the place in the file."""

    def __init__(self, code: str, message: str, offset: int | None = None) -> None:
        super().__init__(f"{code}: {message}" + ("" if offset is None else f" (at byte {offset})"))
        self.code = code
        self.offset = offset


def crc32c(data: bytes) -> int:
    """Return the Castagnoli CRC of section 2."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = _crc_table()


class Fields:
    """Reads the fields of one payload from front to back."""

    def __init__(self, data: bytes, code: str = "bad-field") -> None:
        self.data = data
        self.at = 0
        self.code = code

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise SglatError(self.code, f"payload ends inside a field of {size} bytes")
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def u8(self) -> int:
        return self.take(1)[0]

    def i8(self) -> int:
        return int(struct.unpack("<b", self.take(1))[0])

    def varint(self) -> int:
        value = 0
        for count in range(9):
            if self.at >= len(self.data):
                raise SglatError("bad-varint", "a varint runs past the end of its payload")
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:
                if byte == 0 and count > 0:
                    raise SglatError("bad-varint", "a varint is not in its shortest form")
                return value
        raise SglatError("bad-varint", "a varint is longer than 9 bytes")

    def svarint(self) -> int:
        z = self.varint()
        return (z >> 1) ^ -(z & 1)

    def text(self, least: int, most: int, code: str | None = None) -> str:
        size = self.varint()
        if not least <= size <= most:
            message = f"text of {size} bytes, expected {least} to {most}"
            raise SglatError(code or self.code, message)
        return decode_text(self.take(size))

    def step(self) -> np.float32:
        return check_step(self.take(4))

    def end(self) -> None:
        if self.at != len(self.data):
            raise SglatError(self.code, f"{len(self.data) - self.at} bytes left over in payload")


def decode_text(raw: bytes) -> str:
    """Return UTF-8 text without U+0000."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise SglatError("bad-encoding", "text is not UTF-8") from None
    if "\0" in text:
        raise SglatError("bad-encoding", "text contains U+0000")
    return text


def check_step(raw: bytes) -> np.float32:
    """Return one f32 step."""
    step = np.frombuffer(raw, "<f4")[0]
    if not (np.isfinite(step) and step > 0):
        raise SglatError("bad-step", f"a step is {step}")
    return np.float32(step)


def half_floats(raw: bytes) -> np.ndarray:
    """Return finite f16 values."""
    values = np.frombuffer(raw, "<f2")
    if not np.isfinite(values).all():
        raise SglatError("bad-field", "a neutral value is not finite")
    return values


# ---------------------------------------------------------------------------- canonical msgpack (1)


def unpack_canonical(data: bytes) -> dict[str, Any]:
    """Return the map in canonical msgpack bytes."""
    value, end = _unpack(data, 0, 1)
    if not isinstance(value, dict):
        raise SglatError("bad-encoding", "the msgpack value is not a map")
    if end != len(data):
        raise SglatError("bad-encoding", "bytes after the msgpack value")
    if _pack(value) != data:
        raise SglatError("bad-encoding", "msgpack is not in canonical form")
    return value


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    def number(size: int, signed: bool = False) -> tuple[int, int]:
        raw = data[at + 1 : at + 1 + size]
        if len(raw) < size:
            raise SglatError("bad-encoding", "msgpack ends inside a value")
        return int.from_bytes(raw, "big", signed=signed), at + 1 + size

    def raw_bytes(size: int, start: int) -> tuple[bytes, int]:
        if size > len(data) - start:
            raise SglatError("bad-encoding", "msgpack ends inside a value")
        return data[start : start + size], start + size

    if at >= len(data):
        raise SglatError("bad-encoding", "msgpack ends before a value")
    tag = data[at]
    if tag < 0x80:
        return tag, at + 1
    if tag >= 0xE0:
        return tag - 256, at + 1
    if 0xCC <= tag <= 0xCF:
        return number(1 << (tag - 0xCC))
    if 0xD0 <= tag <= 0xD3:
        return number(1 << (tag - 0xD0), signed=True)
    if 0xA0 <= tag <= 0xBF or 0xD9 <= tag <= 0xDB:
        size, start = (tag & 31, at + 1) if tag < 0xC0 else number(1 << (tag - 0xD9))
        raw, end = raw_bytes(size, start)
        return decode_str(raw), end
    if 0xC4 <= tag <= 0xC6:
        size, start = number(1 << (tag - 0xC4))
        return raw_bytes(size, start)
    if 0x80 <= tag <= 0x9F or 0xDC <= tag <= 0xDF:
        if depth > 3:
            raise SglatError("bad-encoding", "msgpack is nested more than 3 deep")
        size, end = (tag & 15, at + 1) if tag < 0xC0 else number(2 << (tag & 1))
        if tag < 0x90 or tag >= 0xDE:
            return _unpack_map(data, end, size, depth)
        items = []
        for _ in range(size):
            item, end = _unpack(data, end, depth + 1)
            items.append(item)
        return items, end
    raise SglatError("bad-encoding", f"msgpack tag {tag:#04x} is not allowed")


def _unpack_map(data: bytes, at: int, size: int, depth: int) -> tuple[dict[str, Any], int]:
    result: dict[str, Any] = {}
    before: bytes | None = None
    for _ in range(size):
        key, at = _unpack(data, at, depth + 1)
        if not isinstance(key, str):
            raise SglatError("bad-encoding", "a msgpack map key is not str")
        name = key.encode()
        if before is not None and name <= before:
            raise SglatError("bad-encoding", "msgpack map keys do not rise")
        before = name
        result[key], at = _unpack(data, at, depth + 1)
    return result, at


def decode_str(raw: bytes) -> str:
    """Return a msgpack str."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise SglatError("bad-encoding", "msgpack str is not UTF-8") from None


def _pack(value: Any) -> bytes:
    def sized(size: int, fix: tuple[int, int] | None, tags: dict[int, int]) -> bytes:
        if fix is not None and size < fix[1]:
            return bytes([fix[0] | size])
        for width, tag in tags.items():
            if size < 1 << (8 * width):
                return bytes([tag]) + size.to_bytes(width, "big")
        raise AssertionError

    if isinstance(value, dict):
        head = sized(len(value), (0x80, 16), {2: 0xDE, 4: 0xDF})
        return head + b"".join(_pack(k) + _pack(v) for k, v in value.items())
    if isinstance(value, list):
        head = sized(len(value), (0x90, 16), {2: 0xDC, 4: 0xDD})
        return head + b"".join(_pack(v) for v in value)
    if isinstance(value, str):
        raw = value.encode()
        return sized(len(raw), (0xA0, 32), {1: 0xD9, 2: 0xDA, 4: 0xDB}) + raw
    if isinstance(value, bytes):
        return sized(len(value), None, {1: 0xC4, 2: 0xC5, 4: 0xC6}) + value
    if value >= 0:
        return sized(value, (0, 128), {1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF})
    if value >= -32:
        return bytes([256 + value])
    for width, tag in {1: 0xD0, 2: 0xD1, 4: 0xD2, 8: 0xD3}.items():
        if value >= -(1 << (8 * width - 1)):
            return bytes([tag]) + int(value).to_bytes(width, "big", signed=True)
    raise AssertionError


# -------------------------------------------------------------------------------- entropy coder (5)

M = 1 << 15
LEAST = 1 << 24
K = 20
N = 16 * (K + 1)
SCALES = 36
PLAIN_BASE = 81920
THETA = (
    181476666, 250725673, 313605438, 369532315, 441428461, 518858980, 580285511, 629906582,
    688462200, 746405110, 789352154, 822409291, 859785240, 895235379, 920630448, 939710196,
    960826400, 980434429, 994243138, 1004492976, 1015716246, 1026027998, 1033228165, 1038540380,
    1044326105, 1049613821, 1053290223, 1055994433, 1058931828, 1061609278, 1063466861, 1064831155,
    1066311114, 1067658317, 1068591993, 1069277207, 1070020019, 1070695750, 1071163814, 1071507190,
)  # fmt: skip


def _half_tables() -> list[list[int]]:
    powers = []
    for theta in THETA:
        p = [1 << 30]
        for _ in range(N):
            p.append((p[-1] * theta) >> 30)
        powers.append(p)
    tables = []
    for s in range(SCALES):
        mix = [(7 * powers[s][n] + powers[s + 4][n]) >> 3 for n in range(N + 1)]
        tables.append(
            [((mix[n] * (M // 2 - K - 2)) >> 30) + ((N - n) >> 4) + 1 for n in range(N + 1)]
        )
    return tables


HALF = _half_tables()
_bounds: dict[tuple[int, int], list[int]] = {}


def boundaries(scale: int, phase: int) -> list[int]:
    """Return B[0 … 2K + 3] of section 5.2."""
    if (scale, phase) not in _bounds:
        half = HALF[scale]
        b = [0]
        for j in range(1, 2 * K + 3):
            x = 16 * (j - 1 - K) - 8 - phase
            b.append(half[-x] if x <= 0 else M - half[x])
        _bounds[scale, phase] = [*b, M]
    return _bounds[scale, phase]


def scale_of(m: int) -> int:
    """Return the scale index of an expected magnitude in 1/4096 steps (5.4)."""
    m = min(max(m, 128), 65535)
    e = m.bit_length() - 3
    return 4 * (e - 5) + (m >> e) - 4


def middle(index: int) -> int:
    """Return MID of a scale index (5.4)."""
    return (9 + 2 * (index % 4)) << (4 + index // 4)


class Stream:
    """One entropy-coded stream of section 5.3."""

    def __init__(self, data: bytes, lanes: int = 1) -> None:
        if len(data) < 5 * lanes:
            raise SglatError("bad-stream", "a stream is shorter than its states")
        self.data = data
        self.state = [int.from_bytes(data[5 * i : 5 * i + 5], "little") for i in range(lanes)]
        if min(self.state) < LEAST:
            raise SglatError("bad-stream", "a start state is too small")
        self.front = 5 * lanes
        self.back = len(data)

    def _advance(self, lane: int, start: int, frequency: int, slot: int) -> None:
        x = frequency * (self.state[lane] >> 15) + slot - start
        if x < LEAST:
            if self.front + 2 > self.back:
                raise SglatError("bad-stream", "a stream has too few words")
            x = (x << 16) | int.from_bytes(self.data[self.front : self.front + 2], "little")
            self.front += 2
        self.state[lane] = x

    def _escape(self) -> int:
        value = 0
        for count in range(4):
            if self.back <= self.front:
                raise SglatError("bad-stream", "a stream has too few escape bytes")
            self.back -= 1
            byte = self.data[self.back]
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:
                if byte == 0 and count > 0:
                    raise SglatError("bad-stream", "an escape is not in its shortest form")
                return value
        raise SglatError("bad-stream", "an escape is longer than 4 bytes")

    def binary(self, p: int) -> bool:
        """Read a symbol of two: True for the one with start 0 and frequency p."""
        slot = self.state[0] % M
        first = slot < p
        self._advance(0, 0 if first else p, p if first else M - p, slot)
        return first

    def integer(self, scale: int, mu: int = 0, lane: int = 0) -> int:
        """Read one residual."""
        centre = (mu + 8) >> 4
        bounds = boundaries(scale, mu - 16 * centre)
        slot = self.state[lane] % M
        j = int(np.searchsorted(bounds, slot, side="right")) - 1
        self._advance(lane, bounds[j], bounds[j + 1] - bounds[j], slot)
        if j == 0:
            return centre - K - 1 - self._escape()
        if j == 2 * K + 2:
            return centre + K + 1 + self._escape()
        return centre + j - 1 - K

    def end(self) -> None:
        if any(x != LEAST for x in self.state) or self.front != self.back:
            raise SglatError("bad-stream", "a stream does not end where its integers do")


def plain_integers(data: bytes, count: int, lanes_log2: int, spread: int) -> list[int]:
    """Return the integers of a plain stream (5.5)."""
    lanes = 1 << lanes_log2
    stream = Stream(data, lanes)
    width = -(-count // lanes)
    out = [0] * count
    fast = [middle(spread)] * lanes
    slow = [middle(spread)] * lanes
    for i in range(width):
        rate = 2 if i < 4 else 3 if i < 12 else 4 if i < 28 else 5 if i < 60 else 7
        for lane in range(lanes):
            position = lane * width + i
            if position >= count:
                break
            m = (PLAIN_BASE + 40 * fast[lane] + 208 * slow[lane]) >> 8
            v = stream.integer(scale_of(m), lane=lane)
            out[position] = v
            a = min(16 * abs(v), 4095) << 8
            fast[lane] += (a - fast[lane]) >> 3
            slow[lane] += (a - slow[lane]) >> rate
    stream.end()
    return out


# --------------------------------------------------------------------------------------- motion (7)


@dataclass(frozen=True)
class ChannelModel:
    """One channel of the motion model (7.2)."""

    start: int = 0
    spread: int = 16
    ref: int = 255
    weight: int = 0


def read_model(raw: bytes) -> list[ChannelModel]:
    """Return the 34 channels of HEAD's `model`."""
    fields = Fields(raw)
    channels = []
    try:
        for c in range(CHANNELS):
            one = ChannelModel(fields.svarint(), fields.u8(), fields.u8(), fields.i8())
            known = one.ref < c or (one.ref == 255 and one.weight == 0)
            if (
                abs(one.start) > MAX_INTEGER
                or one.spread >= SCALES
                or abs(one.weight) > 64
                or not known
            ):
                raise SglatError("bad-model", f"channel {c} of the motion model is {one}")
            channels.append(one)
        fields.end()
    except SglatError as error:
        raise SglatError("bad-model", str(error)) from None
    return channels


def decode_frames(data: bytes, count: int, model: list[ChannelModel]) -> np.ndarray:
    """Return the integers `[count, C]` of one group (7.3)."""
    stream = Stream(data)
    frames = run_frames(stream, count, model)
    stream.end()
    if np.abs(frames).max() > MAX_INTEGER:
        raise SglatError("bad-value", "a frame leaves the range")
    return frames.astype(np.int32)


def run_frames(stream: Stream, count: int, model: list[ChannelModel]) -> np.ndarray:
    """Run the procedure of section 7.3 over anything that answers `binary` and `integer`."""
    channels = range(len(model))
    fast = [middle(one.spread) for one in model]
    slow = list(fast)
    x = [one.start for one in model]
    recent, moved, was_still = 256, 0, 0
    still = [1024, 24576]
    out = np.zeros((count, len(model)), np.int64)
    for t in range(count):
        if t == 0:
            for c in channels:
                x[c] += stream.integer(scale_of(24576))
        else:
            is_still = stream.binary(min(max(still[was_still], 32), M - 32))
            if is_still:
                still[was_still] += (M - still[was_still]) >> 4
            else:
                still[was_still] -= still[was_still] >> 4
            was_still = int(is_still)
            if not is_still:
                recent = _moving_frame(stream, model, x, fast, slow, recent, moved)
                moved += 1
        out[t] = x
    return out


def _moving_frame(
    stream: Stream,
    model: list[ChannelModel],
    x: list[int],
    fast: list[int],
    slow: list[int],
    recent: int,
    moved: int,
) -> int:
    rate = 2 if moved < 4 else 3 if moved < 12 else 4 if moved < 28 else 5
    total, expected, a1, a2 = 0, 8192, 0, 0
    d = [0] * len(model)
    magnitudes = [0] * len(model)
    for c, one in enumerate(model):
        r = min(((total << 16) + 8192 * recent) // expected, 4095)
        m = (
            122880
            + 14 * fast[c]
            + 6 * slow[c]
            + (((59 * fast[c] + 101 * slow[c]) * r) >> 8)
            + ((18 * a1 + 6 * a2) << 8)
        ) >> 8
        mu = 0 if one.ref == 255 else min(max(one.weight * d[one.ref], -32768), 32767)
        d[c] = stream.integer(scale_of(m), mu)
        a = min(abs(16 * d[c] - mu), 4095)
        total += a
        expected += slow[c]
        a2, a1 = a1, a
        magnitudes[c] = a
    recent = (256 + min(((total << 16) + 8192 * recent) // expected, 4095)) >> 1
    for c in range(len(model)):
        x[c] += d[c]
        fast[c] += ((magnitudes[c] << 8) - fast[c]) >> 2
        slow[c] += ((magnitudes[c] << 8) - slow[c]) >> rate
    return recent


@dataclass
class Group:
    """One MOTN chunk."""

    offset: int
    first: int
    values: np.ndarray
    flags: list[int]
    times: list[int] | None


def read_group(payload: bytes, offset: int, head: Header) -> Group:
    """Return the group of a MOTN payload (7.1)."""
    fields = Fields(payload, "bad-group")
    first, count = fields.varint(), fields.varint()
    if not 1 <= count <= 1024 or first + count > 1 << 24:
        raise SglatError("bad-frames", f"a group of {count} frames from frame {first}", offset)
    form = fields.u8()
    if form > 3 or bool(form & 1) != (head.frame_ticks == 0):
        raise SglatError("bad-group", f"form {form:#04x}", offset)
    flags = [0] * count
    if form & 2:
        runs, at = fields.varint(), 0
        if not 1 <= runs <= count:
            raise SglatError("bad-group", f"{runs} runs of frame flags", offset)
        for _ in range(runs):
            skip, length, value = fields.varint(), fields.varint(), fields.u8()
            at += skip
            if length < 1 or not 1 <= value <= 3 or at + length > count:
                raise SglatError("bad-group", "a run of frame flags", offset)
            flags[at : at + length] = [value] * length
            at += length
    times = _read_times(fields, count) if form & 1 else None
    last = head.start_ticks + (first + count - 1) * head.frame_ticks
    if times is None and last > MAX_TIME:
        raise SglatError("bad-time", "a time stamp beyond 2^53", offset)
    return Group(offset, first, decode_frames(fields.rest(), count, head.model), flags, times)


def _read_times(fields: Fields, count: int) -> list[int]:
    times = [fields.svarint()]
    if count > 1:
        size = fields.varint()
        delta = 0
        for v in plain_integers(fields.take(size), count - 1, 0, 16):
            delta += v
            times.append(times[-1] + delta)
    if any(abs(t) > MAX_TIME for t in times) or any(b <= a for a, b in pairwise(times)):
        raise SglatError("bad-time", "time stamps that do not rise or are out of range")
    return times


# ------------------------------------------------------------------------------------- identity (6)


@dataclass
class Entry:
    """One entry of an identity layer (6.2): integers as they are multiplied by the steps."""

    kind: int
    name: str
    shape: tuple[int, ...]
    steps: tuple[np.float32, ...]
    integers: np.ndarray
    extra: Any = None  # rank, or the indices of a sparse entry, or the row weights


def read_layer(fields: Fields, head: Header, before: list[list[Entry]]) -> list[Entry]:
    """Return the entries of a layer body that follows some layers."""
    count = fields.varint()
    if not 1 <= count <= 4096:
        raise SglatError("bad-layer", f"{count} entries in a layer")
    plans = [_read_entry(fields, head) for _ in range(count)]
    if any(plan.kind == 0 for plan in plans) and count > 1:
        raise SglatError("bad-layer", "a latent beside other entries")
    lanes_log2, spread = fields.u8(), fields.u8()
    if lanes_log2 > 8 or spread >= SCALES:
        raise SglatError("bad-layer", f"{lanes_log2} lane bits, spread {spread}")
    data = fields.rest()
    total = sum(int(plan.integers) for plan in plans)
    if total > (1 << 16) + 512 * len(data) or total > 1 << 23:
        raise SglatError("bad-layer", f"{total} integers in a stream of {len(data)} bytes")
    if total + sum(entry.integers.size for layer in before for entry in layer) > 1 << 24:
        raise SglatError("bad-layer", "an identity of more than 2^24 integers")
    values = np.array(plain_integers(data, total, lanes_log2, spread), np.int64)
    at = 0
    for plan in plans:
        size = int(plan.integers)
        plan.integers = values[at : at + size]
        at += size
        if plan.kind == 0:
            plan.integers = _predict_rows(
                plan.integers.reshape(head.num_ws, head.w_dim), plan.extra
            )
        if np.abs(plan.integers).max() > MAX_INTEGER:
            raise SglatError("bad-value", "an identity integer is out of range")
        plan.integers = plan.integers.astype(np.int32)
    return plans


def _predict_rows(residuals: np.ndarray, weights: bytes) -> np.ndarray:
    rows = residuals.copy()
    for i in range(1, len(rows)):
        rows[i] += (weights[i] * rows[i - 1] + 8) >> 4
        if np.abs(rows[i]).max() > MAX_INTEGER:
            raise SglatError("bad-value", "a latent integer is out of range")
    return rows


def _read_entry(fields: Fields, head: Header) -> Entry:
    kind = fields.u8()
    if kind == 0:
        step = fields.step()
        weights = fields.take(head.num_ws)
        if weights[0] != 0 or max(weights) > 16:
            raise SglatError("bad-layer", "row weights of a latent")
        return Entry(
            0, "", (head.num_ws, head.w_dim), (step,), np.int64(head.num_ws * head.w_dim), weights
        )
    if kind > 5:
        raise SglatError("bad-layer", f"kind {kind} of a layer entry")
    name = fields.text(1, 128, "bad-layer")
    axes = fields.u8()
    if not 1 <= axes <= 4:
        raise SglatError("bad-layer", f"{axes} axes")
    shape = tuple(fields.varint() for _ in range(axes))
    size = 1
    for length in shape:
        size *= length
    if not 1 <= size <= 1 << 26:
        raise SglatError("bad-layer", f"shape {shape}")
    rest = size // shape[0]
    if kind == 1:
        rank = fields.varint()
        if not 1 <= rank <= min(shape[0], rest):
            raise SglatError("bad-layer", f"rank {rank} of shape {shape}")
        steps = fields.step(), fields.step()
        return Entry(1, name, shape, steps, np.int64(rank * (shape[0] + rest)), rank)
    if kind == 5:
        return _read_spectral(fields, name, shape)
    if kind == 4:
        return _read_sparse(fields, name, shape, size)
    step = fields.step()
    return Entry(kind, name, shape, (step,), np.int64(shape[0] if kind == 2 else size))


def _read_spectral(fields: Fields, name: str, shape: tuple[int, ...]) -> Entry:
    rank = fields.varint()
    rest = 1
    for length in shape[1:]:
        rest *= length
    if not 1 <= rank <= min(shape[0], rest):
        raise SglatError("bad-layer", f"rank {rank} of shape {shape}")
    left, base = fields.step(), fields.step()
    if len(shape) != 4 or shape[2] * shape[3] > 64:
        raise SglatError("bad-layer", f"a spectrum of the shape {shape}")
    shares = [fields.varint() for _ in range(shape[2] * shape[3])]
    if min(shares) < 1 or max(shares) > 16383:
        raise SglatError("bad-layer", "the step of a frequency")
    steps = left, *(base * np.float32(m) / np.float32(16) for m in shares)
    return Entry(5, name, shape, steps, np.int64(rank * (shape[0] + rest)), rank)


def weight_change(entry: Entry) -> np.ndarray:
    """Return what a low-rank or spectral entry adds to its weight (6.2), float64."""
    rank, outputs = entry.extra, entry.shape[0]
    left = entry.integers[: rank * outputs].reshape(rank, outputs).T * np.float64(entry.steps[0])
    right = entry.integers[rank * outputs :].astype(np.float64)
    if entry.kind == 1:
        return (left @ (right.reshape(rank, -1) * entry.steps[1])).reshape(entry.shape)
    inputs, height, width = entry.shape[1:]
    spectrum = right.reshape(height, width, rank, inputs)
    filters = np.zeros((rank, inputs, height, width))
    for u in range(height):
        for v in range(width):
            wave = np.outer(_cosine(height, u), _cosine(width, v))
            step = np.float64(entry.steps[1 + u * width + v])
            filters += spectrum[u, v][:, :, None, None] * step * wave
    return (left @ filters.reshape(rank, -1)).reshape(entry.shape)


def _cosine(n: int, k: int) -> np.ndarray:
    places = np.arange(n)
    return np.cos(np.pi * k * (2 * places + 1) / (2 * n)) * np.sqrt((1 if k == 0 else 2) / n)


def _read_sparse(fields: Fields, name: str, shape: tuple[int, ...], size: int) -> Entry:
    n = fields.varint()
    step = fields.step()
    if not 1 <= n <= min(size, len(fields.data) - fields.at):
        raise SglatError("bad-layer", f"{n} values in a sparse entry of {size}")
    indices, at = [], -1
    for _ in range(n):
        at += 1 + fields.varint()
        if at >= size:
            raise SglatError("bad-layer", f"index {at} outside a shape of {size}")
        indices.append(at)
    return Entry(4, name, shape, (step,), np.int64(n), indices)


# ----------------------------------------------------------------------------------- the header (4)


@dataclass
class Header:
    """The HEAD chunk."""

    version: tuple[int, int]
    read_version: tuple[int, int]
    fields: dict[str, Any]
    steps: np.ndarray
    model: list[ChannelModel]
    frame_ticks: int
    num_ws: int
    w_dim: int
    placement_steps: np.ndarray | None

    @property
    def start_ticks(self) -> int:
        return int(self.fields["rate"][3])


def is_int(value: Any, least: int, most: int) -> bool:
    """Tell whether a msgpack value is an integer within bounds."""
    return isinstance(value, int) and least <= value <= most


def is_str(value: Any, least: int, most: int) -> bool:
    """Tell whether a msgpack value is a str of that many UTF-8 bytes."""
    return isinstance(value, str) and least <= len(value.encode()) <= most


def is_bin(value: Any, size: int) -> bool:
    """Tell whether a msgpack value is bin of that size."""
    return isinstance(value, bytes) and len(value) == size


def read_head(payload: bytes) -> Header:
    """Return the header."""
    fields = Fields(payload)
    version, read_version = tuple(fields.take(2)), tuple(fields.take(2))
    if read_version > READS:
        raise SglatError(
            "unsupported-version", f"the file needs a reader of version {read_version}"
        )
    table = unpack_canonical(fields.rest())
    for key in ("bundle", "decoder", "rate", "size", "steps"):
        require(key in table, f"the header has no {key}")
    for key, check in HEAD_CHECKS.items():
        require(key not in table or check(table[key]), f"the header's {key} is {table.get(key)!r}")
    steps = np.array([check_step(table["steps"][4 * i : 4 * i + 4]) for i in range(CHANNELS)])
    placement = table.get("placement")
    return Header(
        version=version,
        read_version=read_version,
        fields=table,
        steps=steps,
        model=read_model(table["model"]) if "model" in table else [ChannelModel()] * CHANNELS,
        frame_ticks=table["rate"][2],
        num_ws=table["size"][1],
        w_dim=table["size"][2],
        placement_steps=None
        if placement is None
        else np.array([check_step(placement[4 * i : 4 * i + 4]) for i in range(4)]),
    )


def require(holds: bool, message: str, code: str = "bad-field") -> None:
    """Raise unless a claim holds."""
    if not holds:
        raise SglatError(code, message)


def _is_rate(value: Any) -> bool:
    bounds = ((1, 2**32 - 1), (1, 2**32 - 1), (0, 2**32 - 1), (-MAX_TIME, MAX_TIME))
    return isinstance(value, list) and len(value) == 4 and all(
        is_int(v, *b) for v, b in zip(value, bounds, strict=True)
    )  # fmt: skip


def _is_size(value: Any) -> bool:
    bounds = ((1, 1 << 16), (1, 64), (1, 4096))
    return isinstance(value, list) and len(value) == 3 and all(
        is_int(v, *b) for v, b in zip(value, bounds, strict=True)
    )  # fmt: skip


def _is_settings(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= 32 and all(
        is_str(k, 0, 256) and is_str(v, 0, 256) for k, v in value.items()
    )  # fmt: skip


HEAD_CHECKS = {
    "bundle": lambda v: is_str(v, 1, 64),
    "decoder": lambda v: is_bin(v, 32),
    "encoder": lambda v: is_str(v, 0, 64),
    "frames": lambda v: is_int(v, 0, 1 << 24),
    "model": lambda v: isinstance(v, bytes),
    "placement": lambda v: is_bin(v, 16),
    "rate": _is_rate,
    "settings": _is_settings,
    "size": _is_size,
    "upper": lambda v: is_bin(v, 32),
    "source": lambda v: (
        isinstance(v, list) and len(v) == 2 and all(is_int(x, 1, 1 << 16) for x in v)
    ),
    "steps": lambda v: is_bin(v, 4 * CHANNELS),
}


# ------------------------------------------------------------------------------ other chunks (8–11)


@dataclass
class Packets:
    """One APKT chunk."""

    offset: int
    dts: list[int]
    pts: list[int]
    durations: list[int]
    keys: list[int]
    packets: list[bytes]


def read_audio_header(payload: bytes) -> dict[str, Any]:
    """Return the AHDR map (9)."""
    table = unpack_canonical(payload)
    bounds = {
        "channels": lambda v: is_int(v, 1, 255),
        "codec": lambda v: is_str(v, 1, 32),
        "extra": lambda v: isinstance(v, bytes) and len(v) <= 1 << 16,
        "frame": lambda v: is_int(v, 0, 2**31 - 1),
        "layout": lambda v: is_str(v, 0, 64),
        "rate": lambda v: is_int(v, 1, 2**31 - 1),
        "tb": lambda v: (
            isinstance(v, list) and len(v) == 2 and all(is_int(x, 1, 2**32 - 1) for x in v)
        ),
    }
    for key, check in bounds.items():
        require(key in table and check(table[key]), f"audio header: {key}", "bad-audio")
    return table


def read_packets(payload: bytes, offset: int) -> Packets:
    """Return the packets of an APKT chunk (9)."""
    fields = Fields(payload, "bad-audio")
    count = fields.varint()
    require(1 <= count <= 4096, f"{count} packets", "bad-audio")
    dts = fields.svarint()

    def column() -> list[int]:
        mode = fields.u8()
        require(mode <= 1, f"column mode {mode}", "bad-audio")
        return [fields.svarint() for _ in range(count)] if mode else [fields.svarint()] * count

    sizes, durations, steps, shifts, keys = (column() for _ in range(5))
    require(min(sizes) >= 0 and min(durations) >= 0, "a negative size or duration", "bad-audio")
    large = max(map(abs, (*durations, *steps, *shifts)))
    require(large <= MAX_TIME, "a time beyond 2^53", "bad-audio")
    require(set(keys) <= {0, 1}, "a key frame flag", "bad-audio")
    require(sum(sizes) == len(payload) - fields.at, "packet sizes do not add up", "bad-audio")
    all_dts = [dts]
    for step in steps[1:]:
        all_dts.append(all_dts[-1] + step)
    require(max(map(abs, all_dts)) <= MAX_TIME, "a dts beyond 2^53", "bad-audio")
    pts = [d + s for d, s in zip(all_dts, shifts, strict=True)]
    return Packets(offset, all_dts, pts, durations, keys, [fields.take(size) for size in sizes])


def read_provenance(payload: bytes) -> dict[str, Any]:
    """Return the PROV map (10)."""
    table = unpack_canonical(payload)
    require(isinstance(table.get("by"), str), "provenance without by")
    for key in ("consent", "note"):
        require(isinstance(table.get(key, ""), str), f"provenance: {key}")
    require("source" not in table or is_bin(table["source"], 32), "provenance: source")
    return table


def read_meta(payload: bytes) -> dict[str, str]:
    """Return the META map (10)."""
    table = unpack_canonical(payload)
    is_text = all(isinstance(value, str) for value in table.values())
    require(len(table) <= 256 and is_text, "META is not a map of at most 256 str")
    return table


def read_picture(payload: bytes) -> tuple[str, bytes]:
    """Return media type and bytes of PLAT or THMB (10)."""
    fields = Fields(payload, "bad-picture")
    media_type = fields.text(1, 64)
    require(fields.at < len(payload), "a picture without bytes", "bad-picture")
    return media_type, fields.rest()


# ------------------------------------------------------------------------------------- the file (2)


@dataclass
class Decoded:
    """Everything in a file."""

    head: Header
    layers: list[list[Entry]] = field(default_factory=list)
    neutral: np.ndarray | None = None
    id_frame: int | None = None
    reference: tuple[bytes, str] | None = None
    groups: list[Group] = field(default_factory=list)
    placements: dict[int, np.ndarray] = field(default_factory=dict)  # by group number
    waiting: tuple[int, int] | None = None  # first frame and count of a PLAC before its MOTN
    audio: dict[str, Any] | None = None
    packets: list[Packets] = field(default_factory=list)
    pictures: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    provenance: dict[str, Any] | None = None
    meta: dict[str, str] | None = None
    source_neutral: np.ndarray | None = None
    unknown: list[bytes] = field(default_factory=list)
    order: list[bytes] = field(default_factory=list)
    index: tuple[int, bytes] | None = None
    identity_hash: bytes = b""

    @property
    def frames(self) -> int:
        return sum(len(group.values) for group in self.groups)

    @property
    def motion(self) -> np.ndarray:
        """All integers, `[T, 34]`."""
        return np.concatenate([np.zeros((0, CHANNELS), np.int32), *(g.values for g in self.groups)])

    @property
    def values(self) -> np.ndarray:
        """All values, float32 `[T, 34]`: one binary32 multiplication each."""
        return self.motion.astype(np.float32) * self.head.steps.astype(np.float32)

    @property
    def times(self) -> list[int]:
        """Time stamps of all frames in ticks."""
        if self.head.frame_ticks:
            return [self.head.start_ticks + n * self.head.frame_ticks for n in range(self.frames)]
        return [t for group in self.groups for t in group.times or []]

    @property
    def motion_hash(self) -> bytes:
        return hashlib.sha256(self.motion.astype("<i4").tobytes()).digest()


def read_chunk(data: bytes, at: int) -> tuple[bytes, bytes, int]:
    """Return type, payload and end of the chunk at an offset, after every check of section 2
    that needs no other chunk.
    """
    if len(data) - at < 8:
        raise SglatError("truncated", "the input ends before ENDS", len(data))
    kind, flags, length = (
        data[at : at + 4],
        data[at + 4],
        int.from_bytes(data[at + 5 : at + 8], "little"),
    )
    if not all(0x41 <= c <= 0x5A or 0x30 <= c <= 0x39 for c in kind):
        raise SglatError("bad-chunk", f"chunk type {kind!r}", at)
    known = CHUNKS.get(kind)
    if flags > 3 or flags == 2 or (known is not None and flags != known[0]):
        raise SglatError("bad-flags", f"flags {flags:#04x} of {kind!r}", at + 4)
    if known is None and not flags & 1:
        raise SglatError("unknown-critical", f"unknown chunk {kind!r}", at)
    if known and (length > known[1] or (kind in EXACT_LENGTH and length != known[1])):
        raise SglatError("bad-length", f"{length} bytes in {kind!r}", at + 5)
    end = at + 8 + length
    if end + 4 > len(data):
        raise SglatError("truncated", "the input ends before ENDS", len(data))
    if crc32c(data[at:end]) != int.from_bytes(data[end : end + 4], "little"):
        raise SglatError("bad-crc", f"checksum of {kind!r}", end)
    return kind, data[at + 8 : end], end + 4


def decode(data: bytes) -> Decoded:
    """Return everything in a file, or raise the first error."""
    if data[:8] != SIGNATURE:
        is_cut = len(data) < 8 and SIGNATURE.startswith(data)
        raise SglatError("truncated" if is_cut else "bad-signature", f"first bytes {data[:8]!r}", 0)
    kind, payload, at = read_chunk(data, 8)
    if kind != b"HEAD":
        raise SglatError("bad-order", f"{kind!r} where HEAD must stand", 8)
    file = Decoded(read_head(payload), order=[b"HEAD"])
    digest = hashlib.sha256()
    while True:
        start = at
        kind, payload, at = read_chunk(data, at)
        check_order(file, kind, start)
        if kind in (b"IDEN", b"LAYR"):
            digest.update(struct.pack("<I", len(payload)) + payload)
            file.identity_hash = digest.digest()
        if kind == b"ENDS":
            check_end(file, payload, start)
            if at != len(data):
                raise SglatError("trailing-bytes", f"{len(data) - at} bytes after ENDS", at)
            return file
        try:
            take_chunk(file, kind, payload, start)
        except SglatError as error:
            if error.offset is None:
                raise SglatError(error.code, str(error), start) from None
            raise
        file.order.append(kind)


def check_order(file: Decoded, kind: bytes, at: int) -> None:
    """Check what section 2 says about the order of chunks."""
    seen = file.order
    known = CHUNKS.get(kind)
    if known and known[2] and kind in seen:
        raise SglatError("duplicate-chunk", f"a second {kind!r}", at)
    has_motion = b"MOTN" in seen
    wrong = b"INDX" in seen and kind != b"ENDS"
    wrong |= kind in BEFORE_MOTION and has_motion
    wrong |= kind in (b"IDEN", b"IREF") and (has_motion or b"IDEN" in seen or b"IREF" in seen)
    wrong |= kind == b"LAYR" and (has_motion or b"IDEN" not in seen)
    wrong |= kind == b"APKT" and b"AHDR" not in seen
    if wrong:
        raise SglatError("bad-order", f"{kind!r} must not stand here", at)
    if kind in (b"MOTN", b"ENDS") and not {b"IDEN", b"IREF"} & set(seen):
        raise SglatError("no-identity", f"{kind!r} before any identity", at)


def take_chunk(file: Decoded, kind: bytes, payload: bytes, at: int) -> None:
    """Decode one chunk between HEAD and ENDS into the file."""
    fields = Fields(payload)
    if kind == b"IDEN":
        file.neutral = half_floats(fields.take(2 * CHANNELS))
        file.id_frame = fields.varint() - 1
        layer = read_layer(fields, file.head, file.layers)
        require(layer[0].kind == 0, "layer 0 is not a latent", "bad-layer")
        file.layers.append(layer)
    elif kind == b"LAYR":
        number = fields.varint()
        require(number == len(file.layers), f"layer {number}", "bad-order")
        require(number <= 63, "more than 63 layers", "bad-layer")
        file.layers.append(read_layer(fields, file.head, file.layers))
    elif kind == b"IREF":
        file.reference = fields.take(32), fields.text(0, 256)
        fields.end()
    elif kind == b"MOTN":
        take_group(file, read_group(payload, at, file.head))
    elif kind == b"PLAC":
        take_placement(file, payload)
    elif kind == b"AHDR":
        file.audio = read_audio_header(payload)
    elif kind == b"APKT":
        file.packets.append(read_packets(payload, at))
    elif kind in (b"PLAT", b"THMB"):
        file.pictures[kind.decode()] = read_picture(payload)
    elif kind == b"PROV":
        file.provenance = read_provenance(payload)
    elif kind == b"META":
        file.meta = read_meta(payload)
    elif kind == b"NEUT":
        file.source_neutral = half_floats(payload)
    elif kind == b"INDX":
        file.index = at, payload
        check_index(file, Fields(payload, "bad-index"))
    else:
        file.unknown.append(kind)


def take_group(file: Decoded, group: Group) -> None:
    """Append a group that starts where the one before ended."""
    require(group.first == file.frames, f"a group starts at frame {group.first}", "bad-frames")
    agrees = file.waiting in (None, (group.first, len(group.values)))
    require(agrees, f"placement {file.waiting} before another group", "bad-placement")
    file.waiting = None
    if group.times and file.groups and file.groups[-1].times:
        require(group.times[0] > file.groups[-1].times[-1], "time does not rise", "bad-time")
    file.groups.append(group)


def take_placement(file: Decoded, payload: bytes) -> None:
    """Decode the placement of the group that follows (8)."""
    head = file.head
    has_meaning = head.placement_steps is not None and "source" in head.fields
    require(has_meaning, "the header has no placement steps or source size", "bad-placement")
    fields = Fields(payload, "bad-placement")
    first, count = fields.varint(), fields.varint()
    require(1 <= count <= 1024 and first + count <= 1 << 24, "frames of a placement", "bad-frames")
    values = decode_frames(fields.rest(), count, [ChannelModel()] * 4)
    require(file.waiting is None, "two placements before one group", "bad-placement")
    file.waiting = first, count
    file.placements[len(file.groups)] = values


def check_index(file: Decoded, fields: Fields) -> None:
    """Compare INDX with the file (11)."""
    require(file.waiting is None, "a placement without its group", "bad-placement")
    has_times = file.head.frame_ticks == 0
    groups, offset, time = [], 0, 0
    for _ in range(index_count(fields)):
        count, gap = fields.varint(), fields.varint()
        offset, time = offset + gap, time + (fields.svarint() if has_times else 0)
        require(count >= 1 and gap >= 1, "groups do not rise", "bad-index")
        groups.append((count, offset, time))
    audio, offset, dts = [], 0, 0
    for _ in range(index_count(fields)):
        gap = fields.varint()
        offset, dts = offset + gap, dts + fields.svarint()
        require(gap >= 1, "audio chunks do not rise", "bad-index")
        audio.append((offset, dts))
    fields.end()
    found = [(len(g.values), g.offset, g.times[0] if g.times else 0) for g in file.groups]
    require(groups == found, f"groups {groups}, found {found}", "bad-index")
    chunks = [(packets.offset, packets.dts[0]) for packets in file.packets]
    require(audio == chunks, f"APKT chunks {audio}, found {chunks}", "bad-index")


def index_count(fields: Fields) -> int:
    """Return a number of items, each of which takes at least a byte."""
    count = fields.varint()
    left = len(fields.data) - fields.at
    require(count <= left, f"{count} items in {left} bytes", "bad-index")
    return count


def check_end(file: Decoded, payload: bytes, at: int) -> None:
    """Compare ENDS with the file (11)."""
    if file.waiting is not None:
        raise SglatError("bad-placement", "a placement without its group", at)
    index, frames = struct.unpack("<QQ", payload[:16])
    if frames != file.frames or file.head.fields.get("frames", frames) != frames:
        raise SglatError("bad-frames", f"{frames} frames announced, {file.frames} found", at)
    if index != (file.index[0] if file.index else 0):
        raise SglatError("bad-index", f"INDX is not at byte {index}", at)
    if payload[16:] != file.motion_hash:
        raise SglatError("motion-hash", "the decoded motion is not what was written", at)


def summary(file: Decoded) -> dict[str, Any]:
    """Return the facts that a vector's expectation states, ready for JSON."""
    placements = [file.placements.get(n) for n in range(len(file.groups))]
    return {
        "version": list(file.head.version),
        "chunks": [kind.decode() for kind in [*file.order, b"ENDS"]],
        "frames": file.frames,
        "motion_sha256": file.motion_hash.hex(),
        "values_sha256": hashlib.sha256(file.values.astype("<f4").tobytes()).hexdigest(),
        "times_sha256": hashlib.sha256(np.array(file.times, "<i8").tobytes()).hexdigest(),
        "flags_sha256": hashlib.sha256(bytes(f for g in file.groups for f in g.flags)).hexdigest(),
        "placement_sha256": [
            None if p is None else hashlib.sha256(p.astype("<i4").tobytes()).hexdigest()
            for p in placements
        ],
        "identity_sha256": file.identity_hash.hex() or None,
        "layers": [
            [
                {
                    "kind": entry.kind,
                    "name": entry.name,
                    "shape": list(entry.shape),
                    "integers_sha256": hashlib.sha256(
                        entry.integers.astype("<i4").tobytes()
                    ).hexdigest(),
                }
                for entry in layer
            ]
            for layer in file.layers
        ],
        "audio_packets": sum(len(p.packets) for p in file.packets),
        "audio_sha256": hashlib.sha256(
            b"".join(b for p in file.packets for b in p.packets)
        ).hexdigest(),
    }


def main() -> int:
    """Print the summary of one file as JSON, or its error in one line."""
    if len(sys.argv) != 2:
        print("usage: reference_decoder.py file.sglat", file=sys.stderr)
        return 2
    try:
        print(json.dumps(summary(decode(Path(sys.argv[1]).read_bytes())), indent=1))
    except SglatError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
