"""Writes the bytes of test vectors, legal and illegal, with the reference decoder's tables.

It is the mirror of `reference_decoder.py` and, like it, shares no code with the codec. Nothing is
checked here: a vector that must be refused is made with the same functions as one that must be
read.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import reference_decoder as reference

Symbol = tuple[int, int, int]
"""Lane, start, frequency."""


def varint(value: int) -> bytes:
    """Return unsigned LEB128 in its shortest form."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def svarint(value: int) -> bytes:
    """Return a signed varint: 0, -1, 1, -2, …"""
    return varint(2 * value if value >= 0 else -2 * value - 1)


def text(value: str) -> bytes:
    """Return a counted UTF-8 text."""
    raw = value.encode()
    return varint(len(raw)) + raw


def f32(*values: float) -> bytes:
    """Return little-endian binary32 values."""
    return struct.pack(f"<{len(values)}f", *values)


def f16(*values: float) -> bytes:
    """Return little-endian binary16 values."""
    return struct.pack(f"<{len(values)}e", *values)


def canonical(value: Any) -> bytes:
    """Return canonical msgpack; maps are sorted here."""
    return reference._pack(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=str.encode)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def chunk(
    kind: str,
    payload: bytes,
    *,
    flags: int | None = None,
    crc: int | None = None,
    length: int | None = None,
) -> bytes:
    """Return one chunk; flags, crc and length can be forged."""
    known = reference.CHUNKS.get(kind.encode())
    flags = (known[0] if known else 1) if flags is None else flags
    size = len(payload) if length is None else length
    body = kind.encode("latin-1") + bytes([flags]) + size.to_bytes(3, "little") + payload
    return body + struct.pack("<I", reference.crc32c(body) if crc is None else crc)


class Writer:
    """Collects the symbols of one stream in reading order and writes them (section 5.3)."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.symbols: list[Symbol] = []
        self.escapes = bytearray()

    def binary(self, p: int, is_first: bool) -> None:
        """Add a symbol of two."""
        self.symbols.append((0, 0, p) if is_first else (0, p, reference.M - p))

    def integer(self, value: int, scale: int, mu: int = 0, lane: int = 0) -> None:
        """Add one residual."""
        centre = (mu + 8) >> 4
        bounds = reference.boundaries(scale, mu - 16 * centre)
        k = reference.K
        j = min(max(value - centre + k + 1, 0), 2 * k + 2)
        if j in (0, 2 * k + 2):
            self.escapes += varint(abs(value - centre) - k - 1)
        self.symbols.append((lane, bounds[j], bounds[j + 1] - bounds[j]))

    def bytes(self) -> bytes:
        """Return the stream."""
        state = [reference.LEAST] * self.lanes
        words: list[bytes] = []
        for lane, start, frequency in reversed(self.symbols):
            x = state[lane]
            while x >= frequency << 25:
                words.append(struct.pack("<H", x & 0xFFFF))
                x >>= 16
            state[lane] = ((x // frequency) << 15) + x % frequency + start
        head = b"".join(x.to_bytes(5, "little") for x in state)
        return head + b"".join(reversed(words)) + bytes(reversed(self.escapes))


def integers_stream(values: list[int], lanes_log2: int = 0, spread: int = 16) -> bytes:
    """Return a plain integer stream (5.5)."""
    lanes = 1 << lanes_log2
    writer = Writer(lanes)
    width = -(-len(values) // lanes)
    fast = [reference.middle(spread)] * lanes
    slow = list(fast)
    for i in range(width):
        rate = 2 if i < 4 else 3 if i < 12 else 4 if i < 28 else 5 if i < 60 else 7
        for lane in range(lanes):
            position = lane * width + i
            if position >= len(values):
                break
            m = (reference.PLAIN_BASE + 40 * fast[lane] + 208 * slow[lane]) >> 8
            writer.integer(values[position], reference.scale_of(m), lane=lane)
            a = min(16 * abs(values[position]), 4095) << 8
            fast[lane] += (a - fast[lane]) >> 3
            slow[lane] += (a - slow[lane]) >> rate
    return writer.bytes()


class _Recorder:
    """Stands in for a stream: the decoder's own frame procedure runs over it and drives the writer.

    The procedure of 7.3 is stated once, in the reference decoder; a slip there shows against the
    codec, not here.
    """

    def __init__(self, values: np.ndarray, model: list[reference.ChannelModel]) -> None:
        self.writer = Writer()
        start = np.array([one.start for one in model])
        self.differences = np.diff(values.astype(np.int64), axis=0, prepend=start[None])
        self.frame, self.channel = 0, 0

    def binary(self, p: int) -> bool:
        self.frame += 1
        self.channel = 0
        is_still = not self.differences[self.frame].any()
        self.writer.binary(p, is_still)
        return is_still

    def integer(self, scale: int, mu: int = 0) -> int:
        value = int(self.differences[self.frame, self.channel])
        self.channel += 1
        self.writer.integer(value, scale, mu)
        return value

    def end(self) -> None:
        pass


def frames_stream(values: np.ndarray, model: list[reference.ChannelModel] | None = None) -> bytes:
    """Return the frames of one group (7.3)."""
    values = np.asarray(values)
    model = model or [reference.ChannelModel()] * values.shape[1]
    recorder = _Recorder(values, model)
    reference.run_frames(recorder, len(values), model)
    return recorder.writer.bytes()


def model_bytes(model: list[reference.ChannelModel]) -> bytes:
    """Return HEAD's `model`."""
    return b"".join(
        svarint(one.start) + bytes([one.spread, one.ref]) + struct.pack("<b", one.weight)
        for one in model
    )


def head_map(**changes: Any) -> dict[str, Any]:
    """Return a small legal header; a change to None removes the key."""
    table: dict[str, Any] = {
        "bundle": "vectors",
        "decoder": hashlib.sha256(b"vectors").digest(),
        "encoder": "make_vectors.py",
        "rate": [1, 25, 1, 0],
        "size": [16, 2, 4],
        "steps": f32(*[0.5, 0.5] + [0.25] * 32),
    } | changes
    return {key: value for key, value in table.items() if value is not None}


def head(version: tuple[int, int, int, int] = (1, 0, 1, 0), **changes: Any) -> bytes:
    """Return a HEAD payload."""
    return bytes(version) + canonical(head_map(**changes))


def layer(entries: list[bytes], values: list[int], lanes_log2: int = 0, spread: int = 16) -> bytes:
    """Return a layer body (6.2)."""
    head = varint(len(entries)) + b"".join(entries) + bytes([lanes_log2, spread])
    return head + integers_stream(values, lanes_log2, spread)


def latent_residuals(rows: np.ndarray, weights: bytes) -> list[int]:
    """Return what row prediction leaves of latent integers `[num_ws, w_dim]`."""
    rows = np.asarray(rows, np.int64)
    left = rows.copy()
    for i in range(1, len(rows)):
        left[i] -= (weights[i] * rows[i - 1] + 8) >> 4
    return [int(v) for v in left.ravel()]


def latent_layer(
    rows: Any, weights: bytes | None = None, step: float = 0.125, **coding: int
) -> bytes:
    """Return the body of a latent layer."""
    rows = np.asarray(rows)
    weights = bytes([0] + [16] * (len(rows) - 1)) if weights is None else weights
    return layer([b"\0" + f32(step) + weights], latent_residuals(rows, weights), **coding)


def shape(*axes: int) -> bytes:
    """Return a tensor shape."""
    return bytes([len(axes)]) + b"".join(varint(axis) for axis in axes)


def low_rank(
    name: str, axes: tuple[int, ...], rank: int, left: float = 0.5, right: float = 0.5
) -> bytes:
    """Return the fields of a low-rank entry."""
    return b"\1" + text(name) + shape(*axes) + varint(rank) + f32(left, right)


def spectral(
    name: str, axes: tuple[int, ...], rank: int, shares: list[int], base: float = 0.25
) -> bytes:
    """Return the fields of a spectral entry."""
    front = b"\5" + text(name) + shape(*axes) + varint(rank) + f32(0.5, base)
    return front + b"".join(varint(share) for share in shares)


def gain(name: str, axes: tuple[int, ...], step: float = 0.5) -> bytes:
    """Return the fields of a gain entry."""
    return b"\2" + text(name) + shape(*axes) + f32(step)


def dense(name: str, axes: tuple[int, ...], step: float = 0.5) -> bytes:
    """Return the fields of a dense entry."""
    return b"\3" + text(name) + shape(*axes) + f32(step)


def sparse(name: str, axes: tuple[int, ...], indices: list[int], step: float = 0.5) -> bytes:
    """Return the fields of a sparse entry."""
    gaps = [b - a - 1 for a, b in zip([-1, *indices], indices, strict=False)]
    head = b"\4" + text(name) + shape(*axes) + varint(len(indices)) + f32(step)
    return head + b"".join(varint(gap) for gap in gaps)


ROWS = np.array([[3, -2, 0, 7], [4, -1, 1, 5]])
"""The latent integers of most vectors."""


def iden(body: bytes | None = None, neutral: bytes | None = None, frame: int = 0) -> bytes:
    """Return an IDEN payload; `frame` is the frame's number + 1, or 0."""
    neutral = f16(*[0.5 * c for c in range(34)]) if neutral is None else neutral
    return neutral + varint(frame) + (latent_layer(ROWS) if body is None else body)


def motn(
    first: int,
    values: np.ndarray,
    *,
    model: list[reference.ChannelModel] | None = None,
    times: list[int] | None = None,
    runs: list[tuple[int, int, int]] | None = None,
    form: int | None = None,
    stream: bytes | None = None,
) -> bytes:
    """Return a MOTN payload."""
    bits = (times is not None) + 2 * (runs is not None)
    out = varint(first) + varint(len(values)) + bytes([bits if form is None else form])
    if runs is not None:
        out += varint(len(runs))
        out += b"".join(varint(skip) + varint(size) + bytes([value]) for skip, size, value in runs)
    if times is not None:
        out += svarint(times[0])
        if len(values) > 1:
            packed = integers_stream([int(v) for v in np.diff(np.diff(times), prepend=0)])
            out += varint(len(packed)) + packed
    return out + (frames_stream(values, model) if stream is None else stream)


def plac(first: int, values: np.ndarray) -> bytes:
    """Return a PLAC payload."""
    return varint(first) + varint(len(values)) + frames_stream(values)


AUDIO = {"channels": 1, "codec": "opus", "extra": b"OpusHead", "frame": 960, "layout": "mono",
         "rate": 48000, "tb": [1, 48000]}  # fmt: skip


def apkt(
    packets: list[bytes],
    dts: list[int],
    *,
    durations: list[int],
    shifts: list[int],
    keys: list[int],
    count: int | None = None,
) -> bytes:
    """Return an APKT payload; a column of equal values takes mode 0."""

    def column(values: list[int]) -> bytes:
        if len(set(values)) == 1:
            return b"\0" + svarint(values[0])
        return b"\1" + b"".join(svarint(v) for v in values)

    sizes = [len(packet) for packet in packets]
    steps = [0, *(b - a for a, b in pairwise(dts))]
    steps = [steps[1], *steps[1:]] if len(set(steps[1:])) == 1 else steps
    out = varint(len(packets) if count is None else count) + svarint(dts[0])
    out += column(sizes) + column(durations) + column(steps) + column(shifts) + column(keys)
    return out + b"".join(packets)


@dataclass
class Maker:
    """Puts a file together and remembers what its index and end need."""

    data: bytearray = field(default_factory=lambda: bytearray(reference.SIGNATURE))
    groups: list[tuple[int, int, int | None]] = field(default_factory=list)
    audio: list[tuple[int, int]] = field(default_factory=list)
    motion: list[np.ndarray] = field(default_factory=list)
    index_at: int = 0

    def add(self, kind: str, payload: bytes, **forged: int) -> Maker:
        """Append a chunk."""
        self.data += chunk(kind, payload, **forged)
        return self

    def group(self, values: np.ndarray, **options: Any) -> Maker:
        """Append a MOTN chunk."""
        values = np.asarray(values, np.int32)
        times = options.get("times")
        self.groups.append((len(values), len(self.data), None if times is None else times[0]))
        first = sum(len(v) for v in self.motion)
        self.motion.append(values)
        return self.add("MOTN", motn(first, values, **options))

    def packets(self, packets: list[bytes], dts: list[int], **columns: list[int]) -> Maker:
        """Append an APKT chunk."""
        self.audio.append((len(self.data), dts[0]))
        return self.add("APKT", apkt(packets, dts, **columns))  # type: ignore[arg-type]

    def index(self) -> Maker:
        """Append INDX."""
        self.index_at = len(self.data)
        return self.add("INDX", self.index_payload())

    def index_payload(self) -> bytes:
        """Return what INDX must hold."""
        out, at, time = varint(len(self.groups)), 0, 0
        for count, offset, first in self.groups:
            out += varint(count) + varint(offset - at)
            if first is not None:
                out += svarint(first - time)
                time = first
            at = offset
        out, at, dts = out + varint(len(self.audio)), 0, 0
        for offset, first in self.audio:
            out += varint(offset - at) + svarint(first - dts)
            at, dts = offset, first
        return out

    def ends_payload(self) -> bytes:
        """Return what ENDS must hold."""
        motion = np.concatenate([np.zeros((0, 34), np.int32), *self.motion])
        digest = hashlib.sha256(motion.astype("<i4").tobytes()).digest()
        return struct.pack("<QQ", self.index_at, len(motion)) + digest

    def end(self) -> bytes:
        """Append ENDS and return the file."""
        self.add("ENDS", self.ends_payload())
        return bytes(self.data)
