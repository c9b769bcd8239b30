"""What each test vector is: one function a file, named like it, and what reading it must give.

`VALID`: what an ordinary encoder writes. `UNUSUAL`: legal, but at an edge of the specification.
`INVALID`: must be refused with the code that stands beside it. All values come from fixed
arithmetic, never from a random generator, so that the files can be made again anywhere.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from reference_decoder import LEAST, MAX_INTEGER, SIGNATURE, ChannelModel, crc32c
from vector_tools import (
    AUDIO,
    ROWS,
    Maker,
    apkt,
    canonical,
    chunk,
    dense,
    f16,
    f32,
    frames_stream,
    gain,
    head,
    head_map,
    iden,
    integers_stream,
    latent_layer,
    layer,
    low_rank,
    model_bytes,
    motn,
    plac,
    shape,
    sparse,
    spectral,
    svarint,
    text,
    varint,
)  # fmt: skip


@dataclass
class Vector:
    """One file."""

    data: bytes
    what: str
    code: str | None = None
    offset: int | None = None
    motion: np.ndarray | None = None
    extra: dict[str, Any] = field(default_factory=dict)


Function = Callable[[], Vector]
VALID: dict[str, Function] = {}
UNUSUAL: dict[str, Function] = {}
INVALID: dict[str, Function] = {}


def vector(folder: dict[str, Function]) -> Callable[[Function], Function]:
    """Register a vector under its function's name."""

    def register(function: Function) -> Function:
        folder[function.__name__.replace("_", "-")] = function
        return function

    return register


def wave(frames: int, channels: int = 34, *, first: int = 0, reach: int = 12) -> np.ndarray:
    """Return smooth integers `[frames, channels]`: triangle waves with pauses."""
    t = np.arange(first, first + frames)
    t = np.where(t % 23 < 7, t - t % 23, t)[:, None]  # hold the first 7 of every 23 frames
    c = np.arange(channels)[None]
    period = 17 + 2 * c
    phase = (t * (1 + c % 3) + 5 * c) % (2 * period)
    triangle = np.abs(phase - period) * 2 * reach // period - reach
    jitter = (t * 7919 + c * 104729) % 13 == 0
    return (triangle + jitter).astype(np.int32)


def still(frames: int, channels: int = 34) -> np.ndarray:
    """Return frames that all equal the first."""
    return np.broadcast_to(wave(1, channels), (frames, channels)).copy()


def begin(**changes: Any) -> Maker:
    """Return a file with header and identity."""
    return Maker().add("HEAD", head(**changes)).add("IDEN", iden())


def whole(maker: Maker, what: str, **extra: Any) -> Vector:
    """Finish a legal file."""
    motion = np.concatenate([np.zeros((0, 34), np.int32), *maker.motion])
    return Vector(maker.end(), what, motion=motion, extra=extra)


# ----------------------------------------------------------------------------------------- valid


@vector(VALID)
def minimal() -> Vector:
    return whole(begin(frames=1).group(wave(1)), "header, identity, one frame, end")


@vector(VALID)
def worked_example() -> Vector:
    """The file that section 16 of SPEC.md walks through."""
    rows = np.array([[1, 0, -1, 2], [1, 0, -1, 2]])
    table = {
        "bundle": "mini",
        "decoder": bytes(range(32)),
        "encoder": None,
        "frames": 3,
        "rate": [1, 25, 1, 0],
        "size": [128, 2, 4],
        "steps": f32(*[0.25] * 34),
    }
    body = latent_layer(rows, bytes([0, 12]), step=0.5, spread=15)
    maker = Maker().add("HEAD", head(**table)).add("IDEN", iden(body, f16(*[0.0] * 34)))
    values = np.zeros((3, 34), np.int32)
    values[:, 0], values[:, 1] = [4, 5, 5], -2
    return whole(maker.group(values).index(), "the worked example of SPEC.md")


@vector(VALID)
def detached_identity() -> Vector:
    return whole(begin(), "an identity without motion")


@vector(VALID)
def signed_provenance() -> Vector:
    """Section 10.1; the private key is the bytes 0 to 31."""
    maker, values = begin(frames=3), wave(3)
    payload = iden()
    table = {
        "by": "make_vectors.py",
        "consent": "given for tests",
        "drive": [canonical({"by": "make_vectors.py", "consent": "given too"}), bytes(32)],
        "identity": hashlib.sha256(len(payload).to_bytes(4, "little") + payload).digest(),
        "key": bytes.fromhex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"),
        "motion": hashlib.sha256(values.astype("<i4").tobytes()).digest(),
        "signer": "test vector",
        "source": bytes(32),
        "time": 1_796_083_200,
    }
    signature = bytes.fromhex(
        "e93a92a9928de6f3f925b1ab8e6379dbd03bea1ec8d8f350f6a97f88e1a2ca87"
        "7f1d7cc79e96a89a986b03a7cffeb5e177c387334d4d10ebf6c715159bc35203"
    )
    maker.add("PROV", canonical(table | {"sig": signature})).group(values).index()
    return whole(maker, "a signed record of origin, and one record of which the hash alone is kept")


@vector(VALID)
def referenced_identity() -> Vector:
    maker = Maker().add("HEAD", head()).add("IREF", bytes(range(32)) + text("ask Ada: ada.sglid"))
    return whole(maker.group(wave(3)).index(), "motion whose identity lies elsewhere")


@vector(VALID)
def two_groups() -> Vector:
    maker = begin(frames=80).group(wave(50)).group(wave(30, first=50)).index()
    return whole(maker, "two groups and an index")


@vector(VALID)
def still_frames() -> Vector:
    return whole(begin().group(still(100)).index(), "a face that does not move for 100 frames")


@vector(VALID)
def motion_model() -> Vector:
    model = [ChannelModel(start=c - 17, spread=(c * 5) % 36) for c in range(34)]
    for c in range(2, 34, 2):
        model[c] = ChannelModel(start=2 * c, spread=10, ref=c - 2, weight=8 * (-1) ** (c // 2))
    values = wave(40)
    maker = begin(model=model_bytes(model)).group(values, model=model)
    return whole(maker.index(), "starts, spreads, and channels predicted from others")


@vector(VALID)
def ntsc() -> Vector:
    maker = begin(rate=[1, 30000, 1001, 0]).group(wave(10)).index()
    return whole(maker, "30000/1001 frames a second", times=[1001 * n for n in range(10)])


@vector(VALID)
def variable_rate() -> Vector:
    times = [0, 40, 80, 121, 160, 240, 241, 300, 1000, 1040]
    maker = begin(rate=[1, 1000, 0, 0]).group(wave(6), times=times[:6])
    maker.group(wave(4, first=6), times=times[6:]).index()
    return whole(maker, "time stamps of a variable frame rate", times=times)


@vector(VALID)
def frame_flags() -> Vector:
    runs = [(2, 3, 1), (0, 1, 2), (4, 2, 3)]
    flags = [0, 0, 1, 1, 1, 2, 0, 0, 0, 0, 3, 3, 0]
    maker = begin().group(wave(13), runs=runs).group(wave(2, first=13)).index()
    return whole(maker, "held and cut frames", flags=[*flags, 0, 0])


@vector(VALID)
def placement() -> Vector:
    centre = np.array([960, 540, 400, 0])
    places = [wave(12, 4, reach=40) + centre, wave(5, 4, reach=9) + centre]
    maker = begin(placement=f32(0.25, 0.25, 0.5, 0.125), source=[1920, 1080])
    maker.add("PLAC", plac(0, places[0])).group(wave(12))
    maker.add("PLAC", plac(12, places[1])).group(wave(5, first=12)).index()
    return whole(maker, "where the crop sits in the full frame", placement=places)


@vector(VALID)
def audio() -> Vector:
    first, second = [b"\xfc\xff\xfe", b"\xfc", b"\xfc\x01\x02"], [b"\xfc\x10"]
    maker = begin().add("AHDR", canonical(AUDIO))
    maker.packets(first, [-312, 648, 1608], durations=[960] * 3, shifts=[0] * 3, keys=[1] * 3)
    maker.group(wave(2))
    maker.packets(second, [2568], durations=[480], shifts=[0], keys=[1]).group(wave(1, first=2))
    return whole(
        maker.index(), "opus packets before the groups they start in", packets=[*first, *second]
    )


@vector(VALID)
def identity_layers() -> Vector:
    rows = [ROWS, np.array([[0, 1, -1, 0], [2, 0, 0, -3]])]
    low = [(-1) ** i * (i % 5) for i in range(2 * (3 + 8))]
    gains, full, few = [1, 0, -2], [0, 0, 9, -9, 0, 30], [5, -6, 700]
    names = [("conv1.weight", (3, 2, 4)), ("conv1.weight", (3, 2, 4)), ("torgb.bias", (6,))]
    deltas = layer([low_rank(*names[0], 2), gain(*names[1]), dense(*names[2])], low + gains + full)
    last = layer([sparse("conv2.weight", (4, 4), [0, 7, 15])], few)
    maker = Maker().add("HEAD", head()).add("IDEN", iden(frame=8))
    maker.add("LAYR", varint(1) + latent_layer(rows[1], step=0.03125))
    maker.add("LAYR", varint(2) + deltas).add("LAYR", varint(3) + last)
    layers = [[rows[0].ravel()], [rows[1].ravel()], [low, gains, full], [few]]
    return whole(
        maker.group(wave(2)).index(),
        "a refined latent and every kind of weight delta",
        layers=layers,
    )


@vector(VALID)
def upper_layers() -> Vector:
    """A person of 256 px: layers up to 128 px, then one of the resolution above."""
    first = layer([dense("layers.16.bias", (3,))], [1, -1, 0])
    second = layer([dense("layers.17.bias", (2,)), dense("layers.19.bias", (3,))], [2, 0, 1, 1, 3])
    changes = {"size": [256, 2, 4], "upper": bytes(range(32))}
    maker = Maker().add("HEAD", head((1, 2, 1, 2), frames=1, **changes)).add("IDEN", iden())
    maker.add("LAYR", varint(1) + first).add("LAYR", varint(2) + second)
    return whole(maker.group(wave(1)), "layers above the base resolution, read version 1.2")


@vector(VALID)
def spectral_layers() -> Vector:
    square = [(-1) ** i * (i % 7) for i in range(2 * (3 + 9 * 2))]
    flat = [5, -6, 1, 0, 2, -3, 0, 40]
    entries = [
        spectral("conv1.weight", (3, 2, 3, 3), 2, [16, 17, 40, 16, 80, 99, 128, 129, 16383]),
        spectral("conv2.weight", (2, 2, 1, 3), 1, [16, 1, 300]),
    ]
    body = layer(entries, square + flat)
    maker = Maker().add("HEAD", head((1, 1, 1, 1))).add("IDEN", iden())
    maker.add("LAYR", varint(1) + body)
    return whole(
        maker.group(wave(2)).index(),
        "weight deltas whose filters are given by their cosine transform",
        layers=[[ROWS.ravel()], [square, flat]],
    )


@vector(VALID)
def all_chunks() -> Vector:
    maker = begin(
        frames=9,
        settings={"quality": "1.0", "preset": "slow"},
        placement=f32(1, 1, 1, 1),
        source=[640, 480],
    )
    maker.add("PLAT", text("image/png") + b"\x89PNG...").add("THMB", text("image/webp") + b"RIFF")
    maker.add(
        "PROV",
        canonical({"by": "make_vectors.py", "consent": "given for tests", "source": bytes(32)}),
    )
    maker.add("NEUT", f16(*[0.25] * 34)).add("META", canonical({"title": "Grüße", "year": "2026"}))
    maker.add("AHDR", canonical(AUDIO))
    maker.packets([b"a", b"bc"], [0, 960], durations=[960] * 2, shifts=[0, 0], keys=[1, 1])
    maker.add("PLAC", plac(0, wave(9, 4))).group(wave(9)).index()
    return whole(maker, "every known chunk but LAYR and IREF")


# --------------------------------------------------------------------------------------- unusual


@vector(UNUSUAL)
def reference_without_motion() -> Vector:
    maker = Maker().add("HEAD", head()).add("IREF", bytes(32) + text(""))
    return whole(maker, "a reference, an empty hint, no motion")


@vector(UNUSUAL)
def live_end() -> Vector:
    return whole(begin().group(wave(5)).group(wave(5, first=5)), "no frame count, no index")


@vector(UNUSUAL)
def unknown_chunks() -> Vector:
    maker = begin().add("ZZZ9", b"loose", flags=1).add("0BND", bytes(300), flags=3).group(wave(2))
    maker.add("ZZZ9", b"", flags=1).index()
    return whole(maker, "chunks that only a later version knows, to be skipped")


@vector(UNUSUAL)
def unknown_keys() -> Vector:
    later = {"xtra": [1, -33, b"\0", {"a": "b"}], "zeta": -(1 << 63), "yy": (1 << 64) - 1}
    maker = Maker().add("HEAD", head((1, 9, 1, 0), **later)).add("IDEN", iden()).group(wave(2))
    maker_index = maker.index()
    return whole(maker_index, "minor version 9, readable by 1.0, with header keys of the future")


@vector(UNUSUAL)
def escapes() -> Vector:
    values = np.zeros((6, 34), np.int32)
    values[1] = MAX_INTEGER
    values[2] = -MAX_INTEGER
    values[3, ::2] = [
        20,
        21,
        22,
        127,
        148,
        149,
        150,
        16000,
        16404,
        16405,
        16406,
        40000,
        -21,
        -22,
        -148,
        -149,
        1,
    ]
    values[4] = values[3] + 1000
    values[5] = values[4]
    values[5, 33] += 21
    return whole(begin().group(values).index(), "jumps over the whole range")


@vector(UNUSUAL)
def one_frame_groups() -> Vector:
    maker = begin()
    for n in range(12):
        maker.group(wave(1, first=n))
    return whole(maker.index(), "each frame a group of its own")


@vector(UNUSUAL)
def longest_group() -> Vector:
    values = still(1024)
    values[700:, 5] += 3
    return whole(begin().group(values).index(), "a group of 1024 frames, all but one still")


@vector(UNUSUAL)
def model_extremes() -> Vector:
    model = [ChannelModel(start=MAX_INTEGER, spread=0), ChannelModel(start=-MAX_INTEGER, spread=35)]
    for c in range(2, 34):
        model.append(ChannelModel(start=0, spread=35 * (c % 2), ref=c - 1, weight=64 * (-1) ** c))
    values = wave(20, reach=300)
    values[10:, 0] += 40000
    maker = begin(model=model_bytes(model)).group(values, model=model).index()
    return whole(maker, "model values at their bounds, clamped predictions")


@vector(UNUSUAL)
def lanes() -> Vector:
    rows = np.array([[(i * 37) % 19 - 9 for i in range(4)], [(i * 11) % 7 - 3 for i in range(4)]])
    more = [(i * i) % 41 - 20 for i in range(700)]
    maker = Maker().add("HEAD", head())
    maker.add("IDEN", iden(latent_layer(rows, lanes_log2=8, spread=0)))
    maker.add("LAYR", varint(1) + layer([dense("w", (7, 100))], more, lanes_log2=5, spread=35))
    maker.add("LAYR", varint(2) + layer([dense("w", (3,))], [9, -9, 9], lanes_log2=2))
    return whole(
        maker.group(wave(1)),
        "more lanes than integers",
        layers=[[rows.ravel()], [more], [[9, -9, 9]]],
    )


@vector(UNUSUAL)
def steps_extremes() -> Vector:
    steps = [1e-45, 3.4028234e38, 1.1754944e-38] + [0.1] * 31
    return whole(begin(steps=f32(*steps)).group(wave(4)).index(), "subnormal and largest steps")


@vector(UNUSUAL)
def header_bounds() -> Vector:
    table = {
        "bundle": "b" * 64,
        "encoder": "é" * 32,
        "rate": [2**32 - 1, 2**32 - 1, 2**32 - 1, -(2**53)],
        "size": [65536, 1, 1],
        "source": [65536, 1],
        "settings": {f"{n:0256d}": "v" * 256 for n in range(32)},
        "placement": f32(1, 1, 1, 1),
    }
    maker = Maker().add("HEAD", head(**table)).add("IDEN", iden(latent_layer([[MAX_INTEGER]])))
    times = [-(2**53) + n * (2**32 - 1) for n in range(2)]
    return whole(maker.group(wave(2)), "header fields at their bounds", times=times)


@vector(UNUSUAL)
def times_extremes() -> Vector:
    times = [-(2**53), -(2**53) + 1, -(2**53) + 2**27, 2**27, 2**53]
    maker = begin(rate=[1, 1, 0, 0])
    maker.group(wave(3), times=times[:3]).group(wave(1, first=3), times=times[3:4])
    maker.group(wave(1, first=4), times=times[4:]).index()
    return whole(maker, "time stamps at both bounds", times=times)


@vector(UNUSUAL)
def placement_gaps() -> Vector:
    place = wave(3, 4)
    maker = begin(placement=f32(1, 1, 1, 1), source=[1, 1]).group(wave(4))
    maker.add("PLAC", plac(4, place)).add("ZZZ9", b"", flags=1).group(wave(3, first=4))
    maker.group(wave(2, first=7)).index()
    return whole(maker, "placement for one group of three", placement=[None, place, None])


@vector(UNUSUAL)
def audio_odd() -> Vector:
    packets = [b"", b"x" * 40, b"", b"yz"]
    maker = begin().add(
        "AHDR", canonical(AUDIO | {"extra": b"", "frame": 0, "layout": "", "channels": 255})
    )
    maker.packets(
        packets, [5, 5, 3, 1000], durations=[0, 7, 0, 7], shifts=[2, -1, 0, 3], keys=[1, 0, 0, 1]
    )
    maker.packets(
        [b""] * 4096, [0] * 4096, durations=[0] * 4096, shifts=[0] * 4096, keys=[0] * 4096
    )
    maker.group(wave(1))
    return whole(
        maker.index(),
        "empty packets, dts that stand and fall, 4096 packets",
        packets=[*packets, *[b""] * 4096],
    )


@vector(UNUSUAL)
def audio_only() -> Vector:
    maker = begin().add("AHDR", canonical(AUDIO))
    maker.packets([b"q"], [0], durations=[960], shifts=[0], keys=[1])
    return whole(maker.index(), "an identity with sound and no motion", packets=[b"q"])


@vector(UNUSUAL)
def delta_shapes() -> Vector:
    entries = [
        dense("w" * 128, (1, 1, 1, 1)),
        low_rank("ü", (1, 3), 1),
        sparse("w" * 128, (1 << 13, 1 << 13), [0, 127, 128, (1 << 26) - 1]),
        gain("w" * 128, (2, 5)),
        low_rank("vector", (4,), 1),
    ]
    values = [[MAX_INTEGER], [1, -1, -MAX_INTEGER, 2], [1, 2, 3, 4], [0, 0], [7, 8, 9, 10, -1]]
    body = layer(entries, [v for part in values for v in part])
    maker = begin().add("LAYR", varint(1) + body)
    return whole(
        maker,
        "four axes, one axis, the largest shape, a name twice",
        layers=[[ROWS.ravel()], values],
    )


@vector(UNUSUAL)
def empty_maps() -> Vector:
    maker = (
        begin(settings={}, encoder="")
        .add("META", canonical({}))
        .add("PROV", canonical({"by": "", "z": -1}))
    )
    return whole(maker, "maps and strings with nothing in them")


@vector(UNUSUAL)
def row_weights() -> Vector:
    rows = np.array([[100, -100, 7, -7], [50, -50, 3, -4]])
    first = iden(latent_layer(rows, bytes([0, 8])), frame=1 << 40)
    maker = Maker().add("HEAD", head()).add("IDEN", first)
    maker.add("LAYR", varint(1) + latent_layer(rows, bytes([0, 0])))
    maker.add("LAYR", varint(2) + latent_layer(-rows, bytes([0, 15])))
    layers = [[rows.ravel()], [rows.ravel()], [(-rows).ravel()]]
    return whole(maker, "three latents, other row weights each", layers=layers)


# --------------------------------------------------------------------------------------- invalid


def refused(code: str, data: bytes, what: str, offset: int | None = None, **extra: Any) -> Vector:
    """Describe a file that must be refused."""
    return Vector(bytes(data), what, code=code, offset=offset, extra=extra)


def sound() -> bytes:
    """Return a small sound file to break."""
    return begin(frames=4).group(wave(3)).group(wave(1, first=3)).index().end()


def with_chunk(kind: str, payload: bytes, code: str, what: str, **forged: int) -> Vector:
    """Put one chunk after the identity."""
    maker = begin()
    at = len(maker.data)
    is_frame_fault = code in ("bad-chunk", "bad-flags", "unknown-critical", "bad-length", "bad-crc")
    data = maker.add(kind, payload, **forged).group(wave(1)).end()
    return refused(code, data, what, at if is_frame_fault else None)


def with_head(
    code: str, what: str, version: tuple[int, int, int, int] = (1, 0, 1, 0), **changes: Any
) -> Vector:
    """Use another header."""
    maker = Maker().add("HEAD", head(version, **changes)).add("IDEN", iden()).group(wave(1))
    return refused(code, maker.end(), what)


def with_identity(code: str, what: str, payload: bytes) -> Vector:
    """Use another IDEN."""
    return refused(
        code, Maker().add("HEAD", head()).add("IDEN", payload).group(wave(1)).end(), what
    )


def with_layer(code: str, what: str, payload: bytes) -> Vector:
    """Add one LAYR."""
    return refused(code, begin().add("LAYR", payload).group(wave(1)).end(), what)


def with_motion(code: str, what: str, payload: bytes, **changes: Any) -> Vector:
    """Use another MOTN."""
    maker = begin(**changes)
    maker.motion.append(wave(1))
    return refused(code, maker.add("MOTN", payload).end(), what)


@vector(INVALID)
def text_mode() -> Vector:
    return refused("bad-signature", sound().replace(b"\r\n", b"\n", 1), "line endings converted", 0)


@vector(INVALID)
def seven_bits() -> Vector:
    return refused("bad-signature", bytes(b & 0x7F for b in sound()), "bit 7 lost", 0)


@vector(INVALID)
def not_sglat() -> Vector:
    return refused("bad-signature", b"\x89PNG\r\n\x1a\n" + sound()[8:], "another format", 0)


@vector(INVALID)
def empty() -> Vector:
    return refused("truncated", b"", "no bytes at all")


@vector(INVALID)
def half_signature() -> Vector:
    return refused("truncated", SIGNATURE[:5], "five bytes of the signature")


@vector(INVALID)
def cut_in_chunk() -> Vector:
    return refused("truncated", sound()[:-70], "the input ends inside a chunk")


@vector(INVALID)
def cut_between_chunks() -> Vector:
    return refused("truncated", sound()[:-60], "ENDS is missing")


@vector(INVALID)
def newer_minor() -> Vector:
    return with_head("unsupported-version", "needs a reader of 1.255", (1, 255, 1, 255))


@vector(INVALID)
def newer_major() -> Vector:
    data = Maker().add("HEAD", bytes([2, 0, 2, 0]) + b"not a map of version 1").end()
    return refused("unsupported-version", data, "needs a reader of 2.0, header unreadable")


@vector(INVALID)
def after_end() -> Vector:
    data = sound()
    return refused("trailing-bytes", data + b"\0", "one byte after ENDS", len(data))


@vector(INVALID)
def two_files() -> Vector:
    data = sound()
    return refused("trailing-bytes", data + data, "two files in one", len(data))


@vector(INVALID)
def lower_case_type() -> Vector:
    return with_chunk("meta", canonical({}), "bad-chunk", "a chunk type in lower case", flags=1)


@vector(INVALID)
def reserved_flag() -> Vector:
    return with_chunk("ZZZ9", b"", "bad-flags", "flag bit 2", flags=5)


@vector(INVALID)
def bound_critical() -> Vector:
    return with_chunk("ZZZ9", b"", "bad-flags", "bound without ancillary", flags=2)


@vector(INVALID)
def wrong_flags() -> Vector:
    return with_chunk("META", canonical({}), "bad-flags", "META that is not ancillary", flags=0)


@vector(INVALID)
def unknown_critical() -> Vector:
    return with_chunk(
        "ZZZ9", b"", "unknown-critical", "an unknown chunk that must be known", flags=0
    )


@vector(INVALID)
def long_chunk() -> Vector:
    maker = begin()
    at = len(maker.data)
    maker.data += chunk("IREF", b"", length=(1 << 10) + 1)
    return refused("bad-length", bytes(maker.data), "a length above the cap", at)


@vector(INVALID)
def long_motion() -> Vector:
    maker = begin()
    at = len(maker.data)
    maker.data += chunk("MOTN", bytes(20), length=(1 << 24) - 1)
    return refused("bad-length", bytes(maker.data), "16 MB announced in a small file", at)


@vector(INVALID)
def short_end() -> Vector:
    data = begin().group(wave(1)).add("ENDS", bytes(47)).data
    return refused("bad-length", bytes(data), "ENDS of 47 bytes")


@vector(INVALID)
def short_neutral() -> Vector:
    return with_chunk("NEUT", bytes(66), "bad-length", "NEUT of 66 bytes")


@vector(INVALID)
def flipped_bit() -> Vector:
    data = bytearray(sound())
    data[30] ^= 1
    return refused("bad-crc", data, "one bit of the header flipped")


@vector(INVALID)
def wrong_crc() -> Vector:
    return with_chunk("META", canonical({}), "bad-crc", "a forged checksum", crc=0)


@vector(INVALID)
def crc32_of_zip() -> Vector:
    import zlib

    body = b"META" + bytes([1, 1, 0, 0]) + canonical({})
    assert zlib.crc32(body) != crc32c(body)
    return with_chunk(
        "META", canonical({}), "bad-crc", "the CRC of zip in place of CRC-32C", crc=zlib.crc32(body)
    )


@vector(INVALID)
def head_not_first() -> Vector:
    maker = Maker().add("IDEN", iden()).add("HEAD", head()).group(wave(1))
    return refused("bad-order", maker.end(), "IDEN before HEAD", 8)


@vector(INVALID)
def layer_skipped() -> Vector:
    return with_layer("bad-order", "layer 2 after layer 0", varint(2) + latent_layer(ROWS))


@vector(INVALID)
def layer_after_motion() -> Vector:
    maker = begin().group(wave(1)).add("LAYR", varint(1) + latent_layer(ROWS))
    return refused("bad-order", maker.end(), "LAYR after MOTN")


@vector(INVALID)
def layer_of_reference() -> Vector:
    maker = Maker().add("HEAD", head()).add("IREF", bytes(32) + text(""))
    return refused(
        "bad-order", maker.add("LAYR", varint(1) + latent_layer(ROWS)).end(), "LAYR after IREF"
    )


@vector(INVALID)
def two_identities() -> Vector:
    maker = begin().add("IREF", bytes(32) + text("")).group(wave(1))
    return refused("bad-order", maker.end(), "both IDEN and IREF")


@vector(INVALID)
def late_picture() -> Vector:
    maker = begin().group(wave(1)).add("THMB", text("image/png") + b"x")
    return refused("bad-order", maker.end(), "a thumbnail after the motion")


@vector(INVALID)
def packets_without_header() -> Vector:
    maker = begin().packets([b"q"], [0], durations=[1], shifts=[0], keys=[1])
    return refused("bad-order", maker.end(), "APKT before AHDR")


@vector(INVALID)
def index_not_last() -> Vector:
    maker = begin().group(wave(1)).index().add("ZZZ9", b"", flags=1)
    return refused("bad-order", maker.end(), "an unknown chunk between INDX and ENDS")


@vector(INVALID)
def second_head() -> Vector:
    return with_chunk("HEAD", head(), "duplicate-chunk", "a second HEAD")


@vector(INVALID)
def second_identity() -> Vector:
    return with_chunk("IDEN", iden(), "duplicate-chunk", "a second IDEN")


@vector(INVALID)
def second_meta() -> Vector:
    maker = begin().add("META", canonical({})).add("META", canonical({})).group(wave(1))
    return refused("duplicate-chunk", maker.end(), "a second META")


@vector(INVALID)
def motion_without_identity() -> Vector:
    return refused(
        "no-identity", Maker().add("HEAD", head()).group(wave(1)).end(), "MOTN before IDEN"
    )


@vector(INVALID)
def nothing_but_header() -> Vector:
    return refused("no-identity", Maker().add("HEAD", head()).end(), "HEAD and ENDS alone")


@vector(INVALID)
def padded_varint() -> Vector:
    return with_motion("bad-varint", "0 written as 80 00", b"\x80\0" + motn(0, wave(1))[1:])


@vector(INVALID)
def endless_varint() -> Vector:
    return with_motion("bad-varint", "ten bytes of a varint", b"\xff" * 10 + motn(0, wave(1))[1:])


@vector(INVALID)
def cut_varint() -> Vector:
    return with_motion("bad-varint", "a varint that runs out of the payload", b"\x80")


@vector(INVALID)
def float_in_map() -> Vector:
    return with_chunk("META", b"\x81\xa1a\xcb" + bytes(8), "bad-encoding", "a float in msgpack")


@vector(INVALID)
def unsorted_keys() -> Vector:
    return with_chunk("META", b"\x82\xa1b\xa0\xa1a\xa0", "bad-encoding", "map keys that fall")


@vector(INVALID)
def repeated_key() -> Vector:
    return with_chunk("META", b"\x82\xa1a\xa0\xa1a\xa0", "bad-encoding", "a map key twice")


@vector(INVALID)
def long_form() -> Vector:
    return with_chunk("META", b"\x81\xd9\x01a\xa0", "bad-encoding", "a short str in a long form")


@vector(INVALID)
def deep_map() -> Vector:
    deep = Maker().add("HEAD", head(zz=[[[0]]])).add("IDEN", iden())
    return refused("bad-encoding", deep.end(), "msgpack four deep")


@vector(INVALID)
def after_map() -> Vector:
    return with_chunk("META", b"\x80\x80", "bad-encoding", "two msgpack values")


@vector(INVALID)
def map_bomb() -> Vector:
    return with_chunk(
        "META", b"\xdf\xff\xff\xff\xff", "bad-encoding", "a map of 2^32 - 1 entries in 5 bytes"
    )


@vector(INVALID)
def not_utf8() -> Vector:
    payload = b"\1\xff" + b"x"
    return with_chunk("THMB", payload, "bad-encoding", "text that is not UTF-8")


@vector(INVALID)
def nul_in_text() -> Vector:
    return with_chunk("THMB", text("a\0b") + b"x", "bad-encoding", "U+0000 in a text")


@vector(INVALID)
def no_decoder() -> Vector:
    return with_head("bad-field", "no decoder id", decoder=None)


@vector(INVALID)
def zero_rate() -> Vector:
    return with_head("bad-field", "a time base over 0", rate=[1, 0, 1, 0])


@vector(INVALID)
def huge_latent() -> Vector:
    return with_head("bad-field", "65 latent rows", size=[16, 65, 4])


@vector(INVALID)
def head_list() -> Vector:
    data = Maker().add("HEAD", bytes([1, 0, 1, 0]) + canonical([])).add("IDEN", iden()).end()
    return refused("bad-encoding", data, "a header that is no map")


@vector(INVALID)
def short_head() -> Vector:
    data = Maker().add("HEAD", b"\1\0\1").add("IDEN", iden()).end()
    return refused("bad-field", data, "a header of three bytes")


@vector(INVALID)
def neutral_nan() -> Vector:
    return with_identity("bad-field", "NaN in the neutral", iden(neutral=f16(*[float("nan")] * 34)))


@vector(INVALID)
def long_hint() -> Vector:
    data = Maker().add("HEAD", head()).add("IREF", bytes(32) + text("h" * 257)).end()
    return refused("bad-field", data, "a hint of 257 bytes")


@vector(INVALID)
def hint_left_over() -> Vector:
    data = Maker().add("HEAD", head()).add("IREF", bytes(32) + text("h") + b"x").end()
    return refused("bad-field", data, "a byte after the hint")


@vector(INVALID)
def provenance_without_by() -> Vector:
    return with_chunk("PROV", canonical({"note": "x"}), "bad-field", "PROV without by")


@vector(INVALID)
def meta_number() -> Vector:
    return with_chunk("META", canonical({"a": 1}), "bad-field", "a number in META")


@vector(INVALID)
def zero_step() -> Vector:
    return with_head("bad-step", "a step of 0", steps=f32(*[0] + [1] * 33))


@vector(INVALID)
def infinite_step() -> Vector:
    return with_head("bad-step", "an infinite step", steps=f32(*[1] * 33 + [float("inf")]))


@vector(INVALID)
def nan_layer_step() -> Vector:
    return with_identity(
        "bad-step", "NaN as step of the latent", iden(latent_layer(ROWS, step=float("nan")))
    )


@vector(INVALID)
def model_forward() -> Vector:
    model = [ChannelModel(ref=5, weight=1)] + [ChannelModel()] * 33
    return with_head("bad-model", "a channel predicted from a later one", model=model_bytes(model))


@vector(INVALID)
def model_self() -> Vector:
    model = [ChannelModel()] * 7 + [ChannelModel(ref=7, weight=1)] + [ChannelModel()] * 26
    return with_head("bad-model", "a channel predicted from itself", model=model_bytes(model))


@vector(INVALID)
def model_short() -> Vector:
    return with_head("bad-model", "33 channels", model=model_bytes([ChannelModel()] * 33))


@vector(INVALID)
def model_long() -> Vector:
    return with_head("bad-model", "35 channels", model=model_bytes([ChannelModel()] * 35))


@vector(INVALID)
def model_spread() -> Vector:
    model = model_bytes([ChannelModel(spread=36)] + [ChannelModel()] * 33)
    return with_head("bad-model", "a spread of 36", model=model)


@vector(INVALID)
def model_weight() -> Vector:
    model = [ChannelModel(), ChannelModel(ref=0, weight=65)] + [ChannelModel()] * 32
    return with_head("bad-model", "a weight of 65", model=model_bytes(model))


@vector(INVALID)
def layer_kind() -> Vector:
    return with_layer(
        "bad-layer", "kind 5 without a name", varint(1) + varint(1) + b"\5" + bytes(40)
    )


@vector(INVALID)
def layer_later_kind() -> Vector:
    return with_layer("bad-layer", "kind 6", varint(1) + varint(1) + b"\6" + bytes(40))


@vector(INVALID)
def upper_size() -> Vector:
    return with_head("bad-field", "an upper id of 31 bytes", (1, 2, 1, 2), upper=bytes(31))


@vector(INVALID)
def spectral_axes() -> Vector:
    body = layer([spectral("w", (2, 3, 3), 1, [16] * 3)], [0] * 11)
    return with_layer("bad-layer", "a spectrum of three axes", varint(1) + body)


@vector(INVALID)
def spectral_places() -> Vector:
    body = layer([spectral("w", (2, 1, 13, 5), 1, [16] * 65)], [0] * 67)
    return with_layer("bad-layer", "a filter of 65 places", varint(1) + body)


@vector(INVALID)
def spectral_step() -> Vector:
    body = layer([spectral("w", (2, 1, 1, 2), 1, [16, 0])], [0] * 4)
    return with_layer("bad-layer", "a frequency with a step of 0", varint(1) + body)


@vector(INVALID)
def spectral_long_step() -> Vector:
    body = layer([spectral("w", (2, 1, 1, 2), 1, [16, 1 << 14])], [0] * 4)
    return with_layer("bad-layer", "a frequency with a step of 16384 sixteenths", varint(1) + body)


@vector(INVALID)
def spectral_rank() -> Vector:
    body = layer([spectral("w", (2, 1, 3, 3), 3, [16] * 9)], [0] * 33)
    return with_layer("bad-layer", "a spectrum of rank 3 for 2 outputs", varint(1) + body)


@vector(INVALID)
def layer_empty() -> Vector:
    return with_layer("bad-layer", "no entries", varint(1) + layer([], []))


@vector(INVALID)
def layer_mixed() -> Vector:
    entries = [b"\0" + f32(1) + bytes(2), gain("g", (1,))]
    return with_layer("bad-layer", "a latent beside a gain", varint(1) + layer(entries, [0] * 9))


@vector(INVALID)
def layer_zero_deltas() -> Vector:
    body = layer([gain("g", (1,))], [0])
    return with_identity("bad-layer", "layer 0 that is no latent", iden(body))


@vector(INVALID)
def layer_rank() -> Vector:
    body = layer([low_rank("w", (2, 3), 3)], [0] * 15)
    return with_layer("bad-layer", "rank 3 of a 2 by 3 matrix", varint(1) + body)


@vector(INVALID)
def layer_axes() -> Vector:
    body = layer([dense("w", (1, 1, 1, 1, 1))], [0])
    return with_layer("bad-layer", "five axes", varint(1) + body)


@vector(INVALID)
def layer_shape() -> Vector:
    body = layer([sparse("w", (1 << 20, 1 << 20, 1 << 20, 1 << 20), [0])], [0])
    return with_layer("bad-layer", "a shape of 2^80", varint(1) + body)


@vector(INVALID)
def layer_zero_axis() -> Vector:
    return with_layer(
        "bad-layer", "an axis of length 0", varint(1) + layer([dense("w", (0, 4))], [])
    )


@vector(INVALID)
def layer_index() -> Vector:
    body = layer([sparse("w", (3, 3), [0, 9])], [0, 0])
    return with_layer("bad-layer", "index 9 of 9", varint(1) + body)


@vector(INVALID)
def layer_sparse_bomb() -> Vector:
    entry = b"\4" + text("w") + shape(1 << 26) + varint(1 << 26) + f32(1)
    return with_layer(
        "bad-layer", "2^26 sparse values in no bytes", varint(1) + varint(1) + entry + b"\0\0"
    )


@vector(INVALID)
def layer_dense_bomb() -> Vector:
    body = varint(1) + dense("w", (1 << 23,)) + b"\0\x10" + bytes([0, 0, 0, 1, 0])
    return with_layer("bad-layer", "2^23 integers in five bytes", varint(1) + body)


@vector(INVALID)
def layer_name() -> Vector:
    return with_layer("bad-layer", "a name of no bytes", varint(1) + layer([gain("", (1,))], [0]))


@vector(INVALID)
def layer_lanes() -> Vector:
    body = varint(1) + gain("g", (1,)) + bytes([9, 16]) + bytes(3000)
    return with_layer("bad-layer", "512 lanes", varint(1) + body)


@vector(INVALID)
def latent_weight() -> Vector:
    return with_identity(
        "bad-layer", "a row weight of 17", iden(latent_layer(ROWS, bytes([0, 17])))
    )


@vector(INVALID)
def latent_first_weight() -> Vector:
    return with_identity(
        "bad-layer", "a weight for the first row", iden(latent_layer(ROWS, bytes([1, 16])))
    )


def _stream(change: Callable[[bytearray], Any], what: str) -> Vector:
    stream = bytearray(frames_stream(wave(8)))
    change(stream)
    return with_motion("bad-stream", what, motn(0, wave(8), stream=bytes(stream)))


@vector(INVALID)
def stream_short() -> Vector:
    return _stream(lambda s: s.__delitem__(slice(-2, None)), "a word is missing")


@vector(INVALID)
def stream_long() -> Vector:
    return _stream(lambda s: s.extend(b"\0\0"), "a word too many")


@vector(INVALID)
def stream_empty() -> Vector:
    return _stream(lambda s: s.clear(), "a stream of no bytes")


@vector(INVALID)
def stream_state() -> Vector:
    return _stream(
        lambda s: s.__setitem__(slice(0, 5), (LEAST - 1).to_bytes(5, "little")), "a state below L"
    )


@vector(INVALID)
def stream_end_state() -> Vector:
    return _stream(lambda s: s.__setitem__(-2, s[-2] ^ 1), "a last word that ends in another state")


@vector(INVALID)
def stream_odd() -> Vector:
    return _stream(lambda s: s.insert(len(s), 0), "an odd byte between words and escapes")


@vector(INVALID)
def escape_long() -> Vector:
    values = wave(1)
    values[0, 0] = 500
    stream = frames_stream(values)
    end = bytes(reversed(varint(479)))
    assert stream.endswith(end)
    padded = stream[: -len(end)] + b"\0\x83\xdf"
    return with_motion(
        "bad-stream", "an escape of 479 in three bytes", motn(0, values, stream=padded)
    )


@vector(INVALID)
def escape_five_bytes() -> Vector:
    values = wave(1)
    values[0, 0] = 500
    stream = frames_stream(values)[:-2] + bytes(reversed(varint(1 << 28)))
    return with_motion("bad-stream", "an escape of five bytes", motn(0, values, stream=stream))


@vector(INVALID)
def value_range() -> Vector:
    values = wave(2)
    values[1, 3] = MAX_INTEGER + 1
    return with_motion("bad-value", "a motion integer of 2^20", motn(0, values))


@vector(INVALID)
def latent_range() -> Vector:
    rows = np.array([[MAX_INTEGER] * 4, [MAX_INTEGER + 1] * 4])
    return with_identity("bad-value", "a latent integer of 2^20", iden(latent_layer(rows)))


@vector(INVALID)
def delta_range() -> Vector:
    body = layer([gain("g", (1,))], [-(1 << 20)])
    return with_layer("bad-value", "a gain integer of -2^20", varint(1) + body)


@vector(INVALID)
def group_gap() -> Vector:
    maker = begin().group(wave(2)).add("MOTN", motn(3, wave(1)))
    return refused("bad-frames", maker.end(), "a group that starts one frame late")


@vector(INVALID)
def group_empty() -> Vector:
    payload = varint(0) + varint(0) + b"\0" + LEAST.to_bytes(5, "little")
    return with_motion("bad-frames", "a group of no frames", payload)


@vector(INVALID)
def group_too_long() -> Vector:
    return with_motion("bad-frames", "a group of 1025 frames", motn(0, still(1025)))


@vector(INVALID)
def group_bomb() -> Vector:
    payload = varint(0) + varint(1 << 60) + b"\0" + LEAST.to_bytes(5, "little")
    return with_motion("bad-frames", "a group of 2^60 frames", payload)


@vector(INVALID)
def end_count() -> Vector:
    maker = begin().group(wave(2))
    maker.motion.append(wave(1))
    return refused("bad-frames", maker.end(), "ENDS counts a frame too many")


@vector(INVALID)
def head_count() -> Vector:
    return refused(
        "bad-frames", begin(frames=3).group(wave(2)).end(), "HEAD counts a frame too many"
    )


@vector(INVALID)
def group_form() -> Vector:
    return with_motion("bad-group", "form bit 2", motn(0, wave(1), form=4))


@vector(INVALID)
def times_unexpected() -> Vector:
    return with_motion("bad-group", "time stamps at a constant rate", motn(0, wave(1), times=[0]))


@vector(INVALID)
def times_missing() -> Vector:
    return with_motion(
        "bad-group", "a variable rate without time stamps", motn(0, wave(1)), rate=[1, 25, 0, 0]
    )


@vector(INVALID)
def flags_reach() -> Vector:
    return with_motion("bad-group", "flags beyond the group", motn(0, wave(2), runs=[(1, 2, 1)]))


@vector(INVALID)
def flags_value() -> Vector:
    return with_motion("bad-group", "flag bit 2 of a frame", motn(0, wave(2), runs=[(0, 1, 4)]))


@vector(INVALID)
def flags_none() -> Vector:
    return with_motion("bad-group", "no runs of flags", motn(0, wave(2), runs=[]))


@vector(INVALID)
def flags_bomb() -> Vector:
    runs = [(0, 1 << 60, 1)]
    return with_motion("bad-group", "2^60 flagged frames", motn(0, wave(2), runs=runs))


@vector(INVALID)
def times_equal() -> Vector:
    payload = motn(0, wave(3), times=[5, 9, 9])
    return with_motion("bad-time", "two equal time stamps", payload, rate=[1, 25, 0, 0])


@vector(INVALID)
def times_fall() -> Vector:
    maker = (
        begin(rate=[1, 25, 0, 0]).group(wave(2), times=[5, 9]).group(wave(1, first=2), times=[9])
    )
    return refused("bad-time", maker.end(), "a group that starts when the one before ended")


@vector(INVALID)
def times_constant() -> Vector:
    changes = {"rate": [1, 1, 2**32 - 1, 2**53]}
    maker = begin(**changes).group(wave(2))
    return refused("bad-time", maker.end(), "a constant rate that runs past 2^53")


@vector(INVALID)
def layer_sixty_five() -> Vector:
    maker = begin()
    for number in range(1, 65):
        maker.add("LAYR", varint(number) + layer([gain("g", (1,))], [0]))
    return refused("bad-layer", maker.group(wave(1)).end(), "64 layers beside layer 0")


@vector(INVALID)
def group_short() -> Vector:
    return with_motion("bad-group", "a group without form", varint(0) + varint(1))


@vector(INVALID)
def index_bomb() -> Vector:
    maker = begin().group(wave(1))
    maker.index_at = len(maker.data)
    data = maker.add("INDX", varint(1 << 40)).end()
    return refused("bad-index", data, "an index of 2^40 groups in six bytes")


@vector(INVALID)
def times_range() -> Vector:
    payload = motn(0, wave(1), times=[2**53 + 1])
    return with_motion("bad-time", "a time stamp beyond 2^53", payload, rate=[1, 25, 0, 0])


@vector(INVALID)
def placement_steps() -> Vector:
    maker = begin(source=[9, 9]).add("PLAC", plac(0, wave(1, 4))).group(wave(1))
    return refused("bad-placement", maker.end(), "PLAC without steps in HEAD")


PLACED = {"placement": f32(1, 1, 1, 1), "source": [9, 9]}


@vector(INVALID)
def placement_source() -> Vector:
    maker = begin(placement=f32(1, 1, 1, 1)).add("PLAC", plac(0, wave(1, 4))).group(wave(1))
    return refused("bad-placement", maker.end(), "PLAC without the size of the source")


@vector(INVALID)
def placement_last() -> Vector:
    maker = begin(**PLACED).group(wave(1)).add("PLAC", plac(1, wave(1, 4)))
    return refused("bad-placement", maker.end(), "PLAC without a group after it")


@vector(INVALID)
def placement_empty() -> Vector:
    payload = varint(0) + varint(0) + LEAST.to_bytes(5, "little")
    maker = begin(**PLACED).add("PLAC", payload).group(wave(1))
    return refused("bad-frames", maker.end(), "PLAC of no frames")


@vector(INVALID)
def placement_stream() -> Vector:
    maker = begin(**PLACED).add("PLAC", plac(0, wave(1, 4)) + b"x").group(wave(1))
    return refused("bad-stream", maker.end(), "a byte after the placement")


@vector(INVALID)
def placement_frames() -> Vector:
    maker = begin(**PLACED).add("PLAC", plac(0, wave(1, 4))).group(wave(2))
    return refused("bad-placement", maker.end(), "PLAC of fewer frames than its group")


@vector(INVALID)
def second_placement() -> Vector:
    maker = begin(**PLACED).add("PLAC", plac(0, wave(1, 4))).add("PLAC", plac(0, wave(1, 4)))
    return refused("bad-placement", maker.group(wave(1)).end(), "two PLAC for one group")


def _with_audio(payload: bytes, what: str) -> Vector:
    maker = begin().add("AHDR", canonical(AUDIO)).add("APKT", payload).group(wave(1))
    return refused("bad-audio", maker.end(), what)


PACKET: dict[str, list[int]] = {"durations": [1], "shifts": [0], "keys": [1]}


@vector(INVALID)
def audio_header() -> Vector:
    table = {key: AUDIO[key] for key in AUDIO if key != "rate"}
    return with_chunk("AHDR", canonical(table), "bad-audio", "no sample rate")


@vector(INVALID)
def audio_sizes() -> Vector:
    return _with_audio(apkt([b"q"], [0], **PACKET) + b"x", "packet sizes that do not add up")


@vector(INVALID)
def audio_count() -> Vector:
    return _with_audio(apkt([b"q"], [0], **PACKET, count=0), "no packets")


@vector(INVALID)
def audio_many() -> Vector:
    return _with_audio(apkt([b""], [0], **PACKET, count=4097), "4097 packets")


@vector(INVALID)
def audio_mode() -> Vector:
    return _with_audio(varint(1) + svarint(0) + b"\2" + bytes(20), "column mode 2")


@vector(INVALID)
def audio_key() -> Vector:
    return _with_audio(
        apkt([b"q"], [0], durations=[1], shifts=[0], keys=[2]), "a key frame flag of 2"
    )


@vector(INVALID)
def audio_duration() -> Vector:
    return _with_audio(apkt([b"q"], [0], durations=[-1], shifts=[0], keys=[1]), "a duration of -1")


@vector(INVALID)
def audio_dts() -> Vector:
    return _with_audio(apkt([b"q"], [2**53 + 1], **PACKET), "a dts beyond 2^53")


@vector(INVALID)
def picture_empty() -> Vector:
    return with_chunk("PLAT", text("image/png"), "bad-picture", "a plate without bytes")


@vector(INVALID)
def picture_type() -> Vector:
    return with_chunk("PLAT", text("") + b"x", "bad-picture", "a plate without media type")


@vector(INVALID)
def index_offset() -> Vector:
    maker = begin().group(wave(1))
    maker.groups[0] = (1, maker.groups[0][1] + 1, None)
    return refused("bad-index", maker.index().end(), "an index that points one byte too far")


@vector(INVALID)
def index_count() -> Vector:
    maker = begin().group(wave(1))
    maker.groups.append((1, maker.groups[0][1] + 9, None))
    return refused("bad-index", maker.index().end(), "an index of a group that is not there")


@vector(INVALID)
def index_frames() -> Vector:
    maker = begin().group(wave(2))
    maker.groups[0] = (1, maker.groups[0][1], None)
    return refused("bad-index", maker.index().end(), "an index with another frame count")


@vector(INVALID)
def index_left_over() -> Vector:
    maker = begin().group(wave(1))
    maker.index_at = len(maker.data)
    data = maker.add("INDX", maker.index_payload() + b"\0").end()
    return refused("bad-index", data, "a byte after the index")


@vector(INVALID)
def index_position() -> Vector:
    maker = begin().group(wave(1)).index()
    maker.index_at += 1
    return refused("bad-index", maker.end(), "ENDS points one byte beside INDX")


@vector(INVALID)
def index_absent() -> Vector:
    maker = begin().group(wave(1))
    maker.index_at = 8
    return refused("bad-index", maker.end(), "ENDS points at HEAD")


@vector(INVALID)
def motion_hash() -> Vector:
    maker = begin().group(wave(2))
    maker.motion[0] = maker.motion[0] + 1
    return refused("motion-hash", maker.end(), "the hash of another motion")


@vector(INVALID)
def other_identity() -> Vector:
    maker = (
        Maker().add("HEAD", head()).add("IREF", bytes(32) + text("valid/detached-identity.sglat"))
    )
    data = maker.group(wave(1)).end()
    extra = {"identity": "valid/detached-identity.sglat"}
    return refused("identity-mismatch", data, "legal alone; its identity is another file", **extra)


@vector(INVALID)
def times_count() -> Vector:
    payload = varint(0) + varint(2) + b"\1" + svarint(0) + varint(1 << 40) + bytes(9)
    return with_motion("bad-group", "2^40 bytes of time stamps", payload, rate=[1, 25, 0, 0])


@vector(INVALID)
def times_stream() -> Vector:
    packed = integers_stream([1, 0])[:-1]
    payload = varint(0) + varint(3) + b"\1" + svarint(0) + varint(len(packed)) + packed
    payload += frames_stream(wave(3))
    return with_motion(
        "bad-stream", "a stream of time stamps cut short", payload, rate=[1, 25, 0, 0]
    )


assert struct.calcsize("<QQ32s") == 48 and head_map()
