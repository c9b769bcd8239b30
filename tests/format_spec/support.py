"""The vectors, the reference decoder, and what each reader makes of a file."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sglat.bitstream.reader import Group, Reader
from sglat.bitstream.records import (
    DenseDelta,
    GainDelta,
    LatentLayer,
    LowRankDelta,
    SparseDelta,
    SpectralDelta,
    WeightDelta,
)

FORMAT_SPEC = Path(__file__).resolve().parents[2] / "format_spec"
VECTORS = FORMAT_SPEC / "vectors"
if str(FORMAT_SPEC) not in sys.path:
    sys.path.insert(0, str(FORMAT_SPEC))

import reference_decoder as reference  # noqa: E402

MANIFEST: dict[str, dict[str, Any]] = json.loads(
    (VECTORS / "manifest.json").read_text(encoding="utf-8")
)["vectors"]
READABLE = [name for name, entry in MANIFEST.items() if "error" not in entry["expect"]]
REFUSED = [
    name
    for name, entry in MANIFEST.items()
    if entry["expect"].get("error") not in (None, "identity-mismatch")
]

__all__ = ["FORMAT_SPEC", "MANIFEST", "READABLE", "REFUSED", "VECTORS", "reference"]


def data_of(name: str) -> bytes:
    """Return the bytes of a vector."""
    return (VECTORS / name).read_bytes()


def small(names: list[str], size_bytes: int) -> list[str]:
    """Return the vectors up to a size."""
    return [name for name in names if MANIFEST[name]["bytes"] <= size_bytes]


def codec_facts(data: bytes, *, is_batch: bool = False) -> dict[str, Any]:
    """Return what the codec reads, under the names of the manifest."""
    reader = Reader(io.BytesIO(data))
    groups = reader.read_all() if is_batch else list(reader.groups())
    packets = [p for group in groups for p in group.packets] + list(reader.trailing_packets)
    layers = [] if reader.identity is None else reader.identity.layers
    return {
        "frames": sum(len(group.motion.values) for group in groups),
        "motion": [row for group in groups for row in group.motion.values.tolist()],
        "times": _times(reader, groups),
        "flags": [flag for group in groups for flag in _flags(group)],
        "placement": [
            None if group.placement is None else group.placement.values.tolist() for group in groups
        ],
        "layers": [
            [layer.latent.values.ravel().tolist()]
            if isinstance(layer, LatentLayer)
            else [_delta_integers(delta) for delta in layer.deltas]
            for layer in layers
        ],
        "packets": [packet.data for packet in packets],
    }


def _times(reader: Reader, groups: list[Group]) -> list[int]:
    times: list[int] = []
    for group in groups:
        if group.motion.pts is not None:
            times += group.motion.pts.tolist()
        else:
            ticks, start = reader.header.frame_ticks or 0, reader.header.start_ticks
            first = group.motion.first_frame
            times += [start + ticks * (first + n) for n in range(len(group.motion.values))]
    return times


def _flags(group: Group) -> list[int]:
    if group.motion.flags is None:
        return [0] * len(group.motion.values)
    return [int(flag) for flag in group.motion.flags]


def _delta_integers(delta: WeightDelta) -> list[int]:
    """Return the integers of a delta in the order of the stream."""
    match delta:
        case LowRankDelta():
            parts = [delta.left.values.T, delta.right.values]
        case SpectralDelta():
            parts = [delta.left.values.T, delta.right]
        case GainDelta():
            parts = [delta.gains.values]
        case DenseDelta() | SparseDelta():
            parts = [delta.values.values]
    return [int(v) for part in parts for v in np.asarray(part).ravel()]


def reference_facts(data: bytes) -> dict[str, Any]:
    """Return what the reference decoder reads, under the names of the manifest."""
    file = reference.decode(data)
    places = [file.placements.get(n) for n in range(len(file.groups))]
    return {
        "frames": file.frames,
        "motion": file.motion.tolist(),
        "times": file.times,
        "flags": [flag for group in file.groups for flag in group.flags],
        "placement": [None if place is None else place.tolist() for place in places],
        "layers": [[e.integers.ravel().tolist() for e in layer] for layer in file.layers],
        "packets": [packet for chunk in file.packets for packet in chunk.packets],
    }
