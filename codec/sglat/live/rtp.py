"""RTP headers and the sequence numbers behind them (LIVE.md section 3, RFC 3550)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from sglat.errors import FormatError

CLOCK_RATE: Final = 90_000
"""Ticks a second of all time stamps, motion and sound alike."""
HEADER: Final = struct.Struct(">BBHII")
VERSION_BYTE: Final = 0x80  # version 2, no padding, extension or contributing sources
MOTION_TYPE: Final = 96
SOUND_TYPE: Final = 97
MARKER: Final = 0x80
OVERHEAD_BYTES: Final = 28 + HEADER.size
"""IPv4, UDP and RTP headers."""


@dataclass(frozen=True, kw_only=True)
class RtpHeader:
    """The twelve bytes in front of every packet."""

    payload_type: int
    sequence: int
    """Lowest 16 bits of the packet's number."""
    timestamp: int
    """Lowest 32 bits of the first frame's time in ticks."""
    ssrc: int
    is_marked: bool = False
    """The first packet after a gap: nothing was sent in between."""


def pack_rtp(header: RtpHeader) -> bytes:
    """Return the header as sent."""
    second = header.payload_type | (MARKER if header.is_marked else 0)
    return HEADER.pack(
        VERSION_BYTE, second, header.sequence & 0xFFFF, header.timestamp & 0xFFFFFFFF, header.ssrc
    )


def unpack_rtp(packet: bytes) -> RtpHeader:
    """Read the header of a packet.

    Raises:
        FormatError: `bad-packet`.
    """
    if len(packet) < HEADER.size or packet[0] != VERSION_BYTE:
        raise FormatError("bad-packet", "expected an RTP packet of version 2 with a plain header")
    _, second, sequence, timestamp, ssrc = HEADER.unpack_from(packet)
    return RtpHeader(
        payload_type=second & 0x7F,
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        is_marked=bool(second & MARKER),
    )


def extended(low: int, bits: int, near: int) -> int:
    """Return the number with these lowest bits that lies nearest to another, not below 0."""
    size = 1 << bits
    value = near + ((low - near + size // 2) % size) - size // 2
    return value if value >= 0 else value + size
