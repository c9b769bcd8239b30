"""What a file costs: bytes by stream, kbit/s at any length, and other coders for its integers.

`sei_bits` is the coding of the H.274 generative-face-video SEI message: difference to the frame
before, magnitude as `ue(v)` (0-order Exp-Golomb), a sign bit where the magnitude is not zero.
`gfvc_bits` follows the JVET AhG16 GFVC software (Goluck-Konuko/GFVC,
`source/arithmetic/value_encoder.py`): signed differences interleaved to 0, 1, -1, 2, -2,
Exp-Golomb, the bits through an order-0 adaptive arithmetic coder that starts anew and is flushed to
whole bytes for every frame. Both code the first frame as a difference to zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import CHUNK_FRAME_BYTES
from sglat.bitstream.info import describe
from sglat.bitstream.reader import open_reader
from sglat.errors import FormatError, MissingExtraError

TEN_SECONDS: Final = 10.0
MINUTE: Final = 60.0
LENGTHS_SECONDS: Final = (TEN_SECONDS, MINUTE, 10 * MINUTE)
ENCODED, IDENTITY, QUALITY, LAYERS, COARSER = "encoded", "identity", "quality", "layers", "coarser"
"""Kinds of our versions: as encoded, encoded again with another identity size or motion quality,
identity layers cut off, motion rounded to coarser steps."""
Integers = NDArray[np.int32]
"""`[T, C]` quantized values."""
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


@dataclass(frozen=True, kw_only=True)
class Version:
    """One way to code a clip, its cost and its figures."""

    codec: str
    setting: str
    cost: Cost
    figures: dict[str, float]
    kind: str = ENCODED
    """Of ours: how it came about."""
    is_lowest: bool = False
    """The coarsest setting; as a match: even this one spends more than wanted."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values with the rates worked out."""
        return {
            "codec": self.codec,
            "setting": self.setting,
            "kind": self.kind,
            "kbit_per_second_clip": self.cost.first_view(),
            "kbit_per_second_10s": self.cost.first_view(TEN_SECONDS),
            "kbit_per_second_60s": self.cost.first_view(MINUTE),
            "kbit_per_second_600s": self.cost.first_view(10 * MINUTE),
            "kbit_per_second_cached": self.cost.cached,
            "is_lowest": self.is_lowest,
            "figures": self.figures,
        }


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
        "raw float32": float_bits(values) / frames,
        "H.274 style (difference, Exp-Golomb)": float(sei_bits(values).mean()),
        "GFVC software style": float(gfvc_bits(values).mean()),
    }
    try:
        found["zstd, level 19"] = zstd_bits(values) / frames
    except ModuleNotFoundError:
        found["zstd, level 19"] = f"not measured: {MissingExtraError('zstandard', extra='bench')}"
    return found


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        record = describe(file)
    if not record["is_complete"] or record["motion"] is None:
        raise FormatError("no-motion", f"expected a complete file with motion, found {path.name}")
    return record


def differences(values: Integers) -> Integers:
    """Return what a predictor by the frame before leaves, `[T, C]`; the first frame is whole."""
    return np.diff(values, axis=0, prepend=np.zeros((1, values.shape[1]), values.dtype))


def exp_golomb_length(numbers: Integers) -> Integers:
    """Return the length in bits of `ue(v)` for non-negative numbers."""
    exponent = np.frexp(numbers.astype(np.float64) + 1)[1] - 1  # floor(log2(n + 1)), exact
    return 2 * exponent.astype(np.int32) + 1


def sei_bits(values: Integers) -> NDArray[np.int64]:
    """Return the bits of each frame, `[T]`, coded as the GFV SEI message does."""
    magnitude = np.abs(differences(values))
    bits = exp_golomb_length(magnitude) + (magnitude > 0)
    return np.asarray(bits.sum(axis=1), np.int64)


def gfvc_bits(values: Integers) -> NDArray[np.int64]:
    """Return the bits of each frame, `[T]`, as the GFVC software's files of whole bytes."""
    left = differences(values).astype(np.int64)
    index = np.where(left <= 0, -2 * left, 2 * left - 1)
    exponent = np.frexp(index.astype(np.float64) + 1)[1] - 1
    ones_of_binary = np.bitwise_count(index + 1)
    ones = ones_of_binary.sum(axis=1) + 1  # the software puts one marker bit in front
    zeros = (2 * exponent + 1 - ones_of_binary).sum(axis=1)
    return np.array([_flushed_bits(int(o), int(z)) for o, z in zip(ones, zeros, strict=True)])


def _flushed_bits(ones: int, zeros: int) -> int:
    """Return the size of one flushed order-0 file: counts from nothing, an escape of weight 1.

    The probability of a sequence under adaptive counts does not depend on its order: the product of
    the counts before each symbol over the totals. A first appearance and the end cost an escape and
    a choice among three.
    """
    seen = ones + zeros
    ideal = (
        math.lgamma(seen + 2) - math.lgamma(max(ones, 1)) - math.lgamma(max(zeros, 1))
    ) / math.log(2)
    kinds = (ones > 0) + (zeros > 0)
    ideal += (kinds + 1) * math.log2(3)
    return 8 * math.ceil((ideal + 1) / 8)  # the coder ends with one bit, then fills its byte


def zstd_bits(values: Integers, level: int = 19) -> int:
    """Return the size in bits of all differences as int16, channel by channel, through zstd."""
    import zstandard

    left = np.ascontiguousarray(differences(values).astype("<i2").T)
    planes = left.view(np.uint8).reshape(*left.shape, 2)
    packed = zstandard.ZstdCompressor(level=level).compress(planes.transpose(2, 0, 1).tobytes())
    return 8 * len(packed)


def float_bits(values: Integers) -> int:
    """Return the size in bits of the raw values as float32."""
    return 32 * values.size
