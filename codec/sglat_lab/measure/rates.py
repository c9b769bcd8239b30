"""What a file costs: bytes by stream, kbit/s at any length, and other coders for its integers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import CHUNK_FRAME_BYTES
from sglat.bitstream.info import describe
from sglat.bitstream.reader import open_reader
from sglat.errors import FormatError, MissingExtraError
from sglat_lab.measure import motion_coders

TEN_SECONDS: Final = 10.0
MINUTE: Final = 60.0
LENGTHS_SECONDS: Final = (TEN_SECONDS, MINUTE, 10 * MINUTE)
_RUNNING: Final = ("MOTN", "PLAC", "INDX")  # grow with the clip
_APART: Final = ("AHDR", "APKT", "PLAT", "THMB")  # sound and stills: anchors carry none


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes paid once and bytes paid with every second, of any codec."""

    once_bytes: int
    """Identity and header, or the intra frame."""
    running_bytes: int
    """Motion, placement and index, or the predicted frames."""
    seconds: float
    """Length of the clip."""

    def first_view(self, seconds: float | None = None) -> float:
        """Return kbit/s when everything is sent, over a length; None: the clip's own.

        Longer clips are extrapolated: what is paid once stays, the rest grows with the length.
        """
        length = seconds or self.seconds
        running = self.running_bytes * length / self.seconds
        return 8e-3 * (self.once_bytes + running) / length

    @property
    def cached(self) -> float:
        """Kbit/s when the receiver already has what is paid once."""
        return 8e-3 * self.running_bytes / self.seconds


def file_cost(path: Path) -> Cost:
    """Return the cost of a `.sglat` file; sound and still pictures are left out.

    Raises:
        FormatError: damaged, or without motion.
    """
    record = _described(path)
    chunks: dict[str, dict[str, int]] = record["chunks"]

    def whole(kinds: tuple[str, ...]) -> int:
        found = [chunks[kind] for kind in kinds if kind in chunks]
        return sum(c["bytes"] + CHUNK_FRAME_BYTES * c["count"] for c in found)

    running, apart = whole(_RUNNING), whole(_APART)
    return Cost(
        once_bytes=record["file_bytes"] - running - apart,
        running_bytes=running,
        seconds=record["motion"]["duration_seconds"],
    )


def file_rates(path: Path) -> dict[str, Any]:
    """Return all rate figures of a file, as plain values."""
    record = _described(path)
    motion = record["motion"]
    cost = file_cost(path)
    chunks = record["chunks"]
    sizes = {kind: chunk["bytes"] for kind, chunk in chunks.items()}
    placement_bits = 8 * sizes.get("PLAC", 0)
    return {
        "file_bytes": record["file_bytes"],
        "bytes_by_stream": {
            "identity": sizes.get("IDEN", 0) + sizes.get("LAYR", 0),
            "motion": sizes["MOTN"],
            "placement": sizes.get("PLAC", 0),
            "audio": sizes.get("AHDR", 0) + sizes.get("APKT", 0),
            "plate": sizes.get("PLAT", 0),
            "header": sizes["HEAD"],
            "container": record["container_bytes"],
        },
        "frames": motion["frames"],
        "seconds": motion["duration_seconds"],
        "motion_bits_per_frame": 8 * sizes["MOTN"] / motion["frames"],
        "placement_bits_per_frame": placement_bits / motion["frames"],
        "kbit_per_second": {
            "motion": 8e-3 * sizes["MOTN"] / cost.seconds,
            "cached_identity": cost.cached,
            "first_view": cost.first_view(),
            **{f"first_view_{length:.0f}s": cost.first_view(length) for length in LENGTHS_SECONDS},
        },
        "other_coders_bits_per_frame": other_coders(path),
    }


def other_coders(path: Path) -> dict[str, float | str]:
    """Return what other coders need for the same integers, in bits a frame."""
    with open_reader(path) as reader:
        values = reader.read_motion().values
    frames = len(values)
    found: dict[str, float | str] = {
        "raw float32": motion_coders.float_bits(values) / frames,
        "H.274 style (difference, Exp-Golomb)": float(motion_coders.sei_bits(values).mean()),
        "GFVC software style": float(motion_coders.gfvc_bits(values).mean()),
    }
    try:
        found["zstd, level 19"] = motion_coders.zstd_bits(values) / frames
    except ModuleNotFoundError:
        found["zstd, level 19"] = f"not measured: {MissingExtraError('zstandard', extra='bench')}"
    return found


def motion_values(path: Path) -> NDArray[np.int32]:
    """Return the motion integers of a file, `[T, 34]`."""
    with open_reader(path) as reader:
        return reader.read_motion().values


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        record = describe(file)
    if not record["is_complete"] or record["motion"] is None:
        raise FormatError("no-motion", f"expected a complete file with motion, found {path.name}")
    return record
