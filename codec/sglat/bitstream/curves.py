"""Motion and rate of a file over time, for plots and sparklines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.demux import Group, Packets
from sglat.bitstream.edits import Source
from sglat.bitstream.groups import join_motion, motion_model, unpack_motion
from sglat.bitstream.motion_coder import pack_frames
from sglat.bitstream.records import FRAME_HELD, Header, Motion
from sglat.errors import UsageError

Float64: TypeAlias = NDArray[np.float64]
PIECE_FRAMES: Final = 12  # half a second at 25 fps
MAX_PIECES: Final = 240  # a column of a plot each
LEVELS: Final = "▁▂▃▄▅▆▇█"
PLAIN_LEVELS: Final = "_.:-=+*#"
"""For terminals without these characters."""


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """Rate of a stream over time, piece by piece."""

    edges_seconds: Float64
    """Where the pieces begin, and the last one's end, `[P + 1]`."""
    kilobits_per_second: Float64
    """`[P]`."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a file holds, over time."""

    seconds: Float64
    """When each frame begins, `[T]`."""
    values: Float64
    """Yaw, pitch (degrees) and controls, `[T, 34]`."""
    is_held: NDArray[np.bool_]
    """`[T]`."""
    motion_rate: RateCurve
    sound_rate: RateCurve | None
    layers: tuple[tuple[str, int], ...]
    """Name and bytes of each identity layer."""


def read_curves(file: BinaryIO) -> Curves:
    """Read a file to its end.

    Raises:
        UsageError: `no-motion`. FormatError: damage.
    """
    source = Source(file)
    header = source.header
    layers = [chunk for chunk in source.preamble if chunk.type in ("IDEN", "LAYR")]
    parts: list[tuple[Motion, int]] = []
    sound: list[tuple[int, int, int]] = []
    for event in source.body():
        if isinstance(event, Group):
            parts.append((unpack_motion(event.head, header), len(event.chunk.payload)))
        elif isinstance(event, Packets):
            sound += [(p.pts, p.duration, len(p.data)) for p in event.packets]
    if not parts:
        raise UsageError("no-motion", "expected motion to show, found none")
    motion = join_motion([part for part, _ in parts], header)
    stamps = motion.stamps(header)
    flags = motion.flags
    audio = source.audio()
    return Curves(
        seconds=stamps.astype(np.float64) * float(header.time_base),
        values=motion.dequantize().astype(np.float64),
        is_held=np.zeros(len(stamps), bool) if flags is None else (flags & FRAME_HELD) > 0,
        motion_rate=_motion_rate(parts, header),
        sound_rate=_sound_rate(sound, float(audio.time_base)) if audio and sound else None,
        layers=tuple(
            ("latent" if number == 0 else f"layer {number}", len(chunk.payload))
            for number, chunk in enumerate(layers)
        ),
    )


def _motion_rate(parts: Sequence[tuple[Motion, int]], header: Header) -> RateCurve:
    """Return the rate of motion.

    The coder is causal and adaptive, so frames of a group cost what the group grows by with them:
    each piece is coded together with those before it.
    """
    base, stamps, sizes = float(header.time_base), list[int](), list[float]()
    many = max(1, MAX_PIECES // len(parts))
    for motion, size in parts:
        count, own = len(motion.values), motion.stamps(header)
        cuts = np.linspace(0, count, min(many, -(-count // PIECE_FRAMES)) + 1).astype(int)[1:]
        model = motion_model(header)
        coded = [len(pack_frames(motion.values[:cut], model)) for cut in cuts[:-1].tolist()]
        sizes += np.diff([0, *coded, size]).tolist()
        stamps += own[[0, *cuts[:-1].tolist()]].tolist()
    last, count = parts[-1][0].stamps(header), len(parts[-1][0].values)
    step = header.frame_ticks or (int(last[-1] - last[-2]) if count > 1 else 1)
    edges = np.array([*stamps, int(last[-1]) + step]) * base
    return _rate(edges, np.array(sizes))


def _sound_rate(packets: Sequence[tuple[int, int, int]], base: float) -> RateCurve:
    """Return the rate of sound in half seconds."""
    begins, durations, sizes = np.array(packets, dtype=np.float64).T
    first, last = begins[0] * base, (begins[-1] + durations[-1]) * base
    pieces = int(np.clip(round(2 * (last - first)), 1, MAX_PIECES))
    totals, edges = np.histogram(
        begins * base, bins=pieces, range=(first, max(last, first + base)), weights=sizes
    )
    return _rate(edges, totals)


def _rate(edges: Float64, sizes: Float64) -> RateCurve:
    rates = 8 * sizes / np.maximum(np.diff(edges), 1e-9) / 1000
    return RateCurve(edges_seconds=edges, kilobits_per_second=rates)


def sparkline(values: Float64, width: int, levels: str = LEVELS) -> str:
    """Return values `[T]` as a line of at most `width` characters, from the least to the largest.

    A character stands for the value of its frames that is farthest from their track's median, so
    that a blink of three frames stays visible.
    """
    middle, low, high = float(np.median(values)), float(values.min()), float(values.max())
    parts = np.array_split(values, min(width, len(values)))
    peaks = np.array([part[np.abs(part - middle).argmax()] for part in parts])
    if high <= low:
        return levels[0] * len(peaks)
    ranks = np.rint((peaks - low) / (high - low) * (len(levels) - 1)).astype(int)
    return "".join(levels[rank] for rank in ranks.tolist())
