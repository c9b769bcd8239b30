"""Numbers and names of the format (SPEC.md sections 2, 3, 5.1 and 14), each written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAJOR: Final = 1
MINOR: Final = 2
VERSION: Final = (MAJOR, MINOR)
FIRST_VERSION: Final = (1, 0)
SPECTRAL_VERSION: Final = (1, 1)
"""Read version of files with spectral weight deltas."""
UPPER_VERSION: Final = (1, 2)
"""Read version of files that need the generator's layers above its base resolution."""

SIGNATURE: Final = b"\x89SGL\r\n\x1a\n"
CHUNK_HEAD_BYTES: Final = 8  # type 4, flags 1, length 3
CHUNK_CRC_BYTES: Final = 4
CHUNK_FRAME_BYTES: Final = CHUNK_HEAD_BYTES + CHUNK_CRC_BYTES

ANCILLARY: Final = 1
BOUND: Final = 2

ENDS_BYTES: Final = 48
ENDS_CHUNK_BYTES: Final = ENDS_BYTES + CHUNK_FRAME_BYTES  # where a seeking reader starts: the tail

MAX_PAYLOAD: Final = (1 << 24) - 1  # largest value of the 24-bit length field


@dataclass(frozen=True, kw_only=True)
class ChunkRule:
    """Flags, size and number that one chunk type must have."""

    flags: int
    max_bytes: int
    min_bytes: int = 0
    is_single: bool = True
    """May occur once."""
    is_preamble: bool = False
    """Must stand before all motion, placement and audio packets."""


CHUNKS: Final[dict[str, ChunkRule]] = {
    "HEAD": ChunkRule(flags=0, max_bytes=1 << 16, is_preamble=True),
    "IDEN": ChunkRule(flags=0, max_bytes=1 << 20, is_preamble=True),
    "LAYR": ChunkRule(flags=0, max_bytes=MAX_PAYLOAD, is_single=False, is_preamble=True),
    "IREF": ChunkRule(flags=0, max_bytes=1 << 10, is_preamble=True),
    "MOTN": ChunkRule(flags=0, max_bytes=1 << 20, is_single=False),
    "PLAC": ChunkRule(flags=ANCILLARY, max_bytes=1 << 18, is_single=False),
    "AHDR": ChunkRule(flags=ANCILLARY, max_bytes=1 << 17, is_preamble=True),
    "APKT": ChunkRule(flags=ANCILLARY, max_bytes=1 << 22, is_single=False),
    "PLAT": ChunkRule(flags=ANCILLARY, max_bytes=1 << 23, is_preamble=True),
    "THMB": ChunkRule(flags=ANCILLARY, max_bytes=1 << 20, is_preamble=True),
    "PROV": ChunkRule(flags=ANCILLARY, max_bytes=1 << 16, is_preamble=True),
    "NEUT": ChunkRule(flags=ANCILLARY, max_bytes=68, min_bytes=68, is_preamble=True),
    "META": ChunkRule(flags=ANCILLARY, max_bytes=1 << 20, is_preamble=True),
    "INDX": ChunkRule(flags=ANCILLARY | BOUND, max_bytes=1 << 23),
    "ENDS": ChunkRule(flags=0, max_bytes=ENDS_BYTES, min_bytes=ENDS_BYTES),
}

MAX_FRAMES: Final = 1 << 24  # 7.8 days at 25 fps; bounds every later allocation
MAX_GROUP_FRAMES: Final = 1024  # 41 s at 25 fps; 139 kB of integers
MAX_GROUPS: Final = 1 << 20
MAX_LAYERS: Final = 64
MAX_VALUE: Final = (1 << 20) - 1  # exact in float32 with room for sums
MAX_TICKS: Final = 1 << 53  # exact in a double, for programs that use one
MAX_TIME_BASE: Final = (1 << 32) - 1
MAX_LAYER_VALUES: Final = 1 << 23
LAYER_VALUES_FREE: Final = 1 << 16  # integers a layer may have whatever its size …
LAYER_VALUES_PER_BYTE: Final = 512  # … and for each byte of its stream: a bomb needs bytes
MAX_IDENTITY_VALUES: Final = 1 << 24  # of all layers together: 64 MB once decoded
MAX_LAYER_ENTRIES: Final = 4096
MAX_AXES: Final = 4
MAX_FREQUENCIES: Final = 64  # places of one filter of spectral weight deltas
MAX_SIXTEENTHS: Final = (1 << 14) - 1
MAX_TENSOR: Final = 1 << 26
MAX_NAME_BYTES: Final = 128
MAX_PACKETS: Final = 4096
MAX_RESOLUTION: Final = 1 << 16
MAX_NUM_WS: Final = 64
MAX_W_DIM: Final = 4096
MAX_SETTINGS: Final = 32
MAX_METADATA_KEYS: Final = 256

TOTAL_BITS: Final = 15
TOTAL: Final = 1 << TOTAL_BITS  # M: frequencies add up to this
LEAST_STATE: Final = 1 << 24  # L: with 16-bit words one refill always suffices
REACH: Final = 20  # K: largest residual inside the tables
SCALES: Final = 36
DEFAULT_SPREAD: Final = 16  # about half a step
