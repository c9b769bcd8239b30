"""The reliable channel of a call: handshake and records (LIVE.md section 1)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.header import pack_header, unpack_header
from sglat.bitstream.records import MOTION_CHANNELS, Header
from sglat.bitstream.values import Cursor, Fields, pack_map, pack_text, unpack_map
from sglat.errors import FormatError
from sglat.live.look import MAX_ANCHOR, MAX_LOOK_BYTES, Look
from sglat.live.rtp import CLOCK_RATE
from sglat.live.secure import SALT_BYTES, TAG_BYTES, LiveError, Sealer, SealError, new_salt

MAGIC: Final = b"SGLLIVE\x01"
HANDSHAKE_SECONDS: Final = 10.0
LOADING_SECONDS: Final = 120.0  # that a receiver may take to load weights and open its outputs
MAX_RECORD: Final = 65_535
PIECE_BYTES: Final = 32_768
KEYS_DIFFER: Final = b"\xff\xff\xff\xff"
FRAME_TICKS: Final = (1_500, 18_000)  # 60 to 5 frames a second
OFFER, ACCEPT, REFUSE, PIECE, READY, REPORT, BYE, CLOCK = range(1, 9)
_SIZE: Final = struct.Struct(">I")
_CLOCK: Final = struct.Struct(">Q")
_REPORT: Final = struct.Struct(">IIII")
_T = TypeVar("_T")


class ClosedError(LiveError):
    """The other end is gone."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a sender tells before the first packet."""

    header: Header
    anchor: NDArray[np.int32]
    identity_sha256: bytes
    size_bytes: int
    ssrc: int
    sound_ssrc: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a receiver has counted since the session began."""

    taken: int
    lost: int
    forged: int
    replayed: int


def offer_of(look: Look, *, ssrc: int, sound_ssrc: int) -> Offer:
    """Return the offer of a person."""
    return Offer(
        header=look.header, anchor=look.anchor, identity_sha256=look.sha256,
        size_bytes=len(look.data), ssrc=ssrc, sound_ssrc=sound_ssrc,
    )  # fmt: skip


def pack_offer(offer: Offer) -> bytes:
    """Return the contents of an OFFER."""
    return pack_map(
        {
            "anchor": [int(value) for value in offer.anchor],
            "head": pack_header(offer.header),
            "identity": offer.identity_sha256,
            "size": offer.size_bytes,
            "sound": offer.sound_ssrc,
            "ssrc": offer.ssrc,
        }
    )


def unpack_offer(data: bytes) -> Offer:
    """Read the contents of an OFFER.

    Raises:
        FormatError: `bad-offer`, or a code of the header.
    """
    fields = Fields(unpack_map(data), "OFFER", code="bad-offer", offset=None)
    header = unpack_header(fields.data("head", None))
    ticks = header.frame_ticks
    if header.time_base.as_integer_ratio() != (1, CLOCK_RATE) or not (
        ticks is not None and FRAME_TICKS[0] <= ticks <= FRAME_TICKS[1] and header.start_ticks == 0
    ):
        raise FormatError("bad-offer", "expected a constant rate of 5 to 60 frames/s from time 0")
    anchor = fields.integers("anchor", [(-MAX_ANCHOR, MAX_ANCHOR)] * MOTION_CHANNELS)
    return Offer(
        header=header,
        anchor=np.array(anchor, np.int32),
        identity_sha256=fields.data("identity", 32),
        size_bytes=fields.integer("size", 1, MAX_LOOK_BYTES),
        ssrc=fields.integer("ssrc", 1, 0xFFFFFFFF),
        sound_ssrc=fields.integer("sound", 0, 0xFFFFFFFF),
    )


def pack_report(report: Report) -> bytes:
    """Return the contents of a REPORT."""
    counts = (report.taken, report.lost, report.forged, report.replayed)
    return _REPORT.pack(*(min(max(count, 0), 0xFFFFFFFF) for count in counts))


def unpack_report(data: bytes) -> Report:
    """Read the contents of a REPORT."""
    if len(data) != _REPORT.size:
        raise FormatError("bad-offer", f"expected a report of {_REPORT.size} bytes")
    taken, lost, forged, replayed = _REPORT.unpack(data)
    return Report(taken=taken, lost=lost, forged=forged, replayed=replayed)


def pack_clock(unix_seconds: float) -> bytes:
    """Return the contents of a CLOCK: the time of time stamp 0."""
    return _CLOCK.pack(round(unix_seconds * 1e6))


def unpack_clock(data: bytes) -> float:
    """Read the contents of a CLOCK, in seconds of Unix time."""
    if len(data) != _CLOCK.size:
        raise FormatError("bad-offer", f"expected a clock of {_CLOCK.size} bytes")
    return int(_CLOCK.unpack(data)[0]) / 1e6


class Channel:
    """One end of the control connection, after the salts were exchanged."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        key: bytes,
        salt: bytes,
        *,
        is_sender: bool,
    ) -> None:
        self.media = Sealer(key, salt, "media")
        names = ("control sender", "control receiver")
        self._out = Sealer(key, salt, names[not is_sender])
        self._in = Sealer(key, salt, names[is_sender])
        self._reader, self._writer = reader, writer
        self._sent = self._received = 0

    @property
    def peer(self) -> str:
        """Address of the other end."""
        address = self._writer.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if address else "the other end"

    async def send(self, kind: int, data: bytes = b"") -> None:
        """Send one record.

        Raises:
            ClosedError: the other end is gone.
        """
        size = _SIZE.pack(1 + len(data) + TAG_BYTES)
        sealed = self._out.seal(0, self._sent, bytes([kind]) + data, size)
        self._sent += 1
        try:
            self._writer.write(size + sealed)
            await self._writer.drain()
        except OSError as error:
            raise _closed() from error

    async def receive(self) -> tuple[int, bytes]:
        """Return kind and contents of the next record.

        Raises:
            ClosedError: the other end is gone.
            SealError: `wrong-key`; the other end was told so, or told us.
        """
        size = await _exactly(self._reader, _SIZE.size)
        if size == KEYS_DIFFER:
            raise _wrong_key()
        (count,) = _SIZE.unpack(size)
        if not TAG_BYTES < count <= MAX_RECORD:
            raise FormatError("bad-offer", f"expected a record of up to {MAX_RECORD} bytes")
        sealed = await _exactly(self._reader, count)
        try:
            record = self._in.open(0, self._received, sealed, size)
        except SealError as error:
            with suppress(OSError):
                self._writer.write(KEYS_DIFFER)
                await self._writer.drain()
            raise _wrong_key() from error
        self._received += 1
        return record[0], record[1:]

    async def expect(self, *kinds: int, seconds: float = HANDSHAKE_SECONDS) -> tuple[int, bytes]:
        """Return the next record, which must be of one of some kinds, during the handshake.

        Raises:
            LiveError: the other end refuses, with its code; FormatError: another kind.
        """
        kind, data = await in_time(self.receive(), seconds)
        if kind == REFUSE:
            raise refusal(data)
        if kind not in kinds:
            raise FormatError("bad-offer", f"expected a record of kind {kinds}, found {kind}")
        return kind, data

    async def refuse(self, error_code: str, message: str) -> None:
        """Tell the other end why there is no session, and close."""
        with suppress(LiveError):
            await self.send(REFUSE, pack_text(error_code) + pack_text(message[:400]))
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        with suppress(OSError, asyncio.TimeoutError):
            self._writer.close()
            await asyncio.wait_for(self._writer.wait_closed(), 1.0)


async def open_channel(host: str, port: int, key: bytes) -> Channel:
    """Connect to a receiver.

    Raises:
        OSError: nobody listens. LiveError, FormatError: the other end is no receiver.
    """
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), HANDSHAKE_SECONDS)
    own = new_salt()
    try:
        writer.write(MAGIC + own)
        other = await in_time(_read_hello(reader))
    except BaseException:
        writer.close()
        raise
    return Channel(reader, writer, key, own + other, is_sender=True)


async def accept_channel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes
) -> Channel:
    """Answer a sender that has connected."""
    other = await in_time(_read_hello(reader))
    own = new_salt()
    writer.write(MAGIC + own)
    return Channel(reader, writer, key, other + own, is_sender=False)


async def send_look(channel: Channel, data: bytes) -> None:
    """Send an identity in pieces."""
    for at in range(0, len(data), PIECE_BYTES):
        await channel.send(PIECE, data[at : at + PIECE_BYTES])


async def receive_look(channel: Channel, size_bytes: int) -> bytes:
    """Receive an identity of a known size."""
    data = bytearray()
    while len(data) < size_bytes:
        _, piece = await channel.expect(PIECE)
        if not piece or len(data) + len(piece) > size_bytes:
            raise FormatError("bad-offer", f"expected an identity of {size_bytes} bytes")
        data += piece
    return bytes(data)


def refusal(data: bytes) -> LiveError:
    """Return the error that a REFUSE stands for."""
    cursor = Cursor(data)
    return LiveError(cursor.text(64), cursor.text(2048))


async def in_time(step: Awaitable[_T], seconds: float = HANDSHAKE_SECONDS) -> _T:
    """Return the result of a step of the handshake.

    Raises:
        ClosedError: it took too long.
    """
    try:
        return await asyncio.wait_for(step, seconds)
    except TimeoutError as error:
        raise ClosedError(
            "no-answer", f"expected an answer within {seconds:.0f} s, found none"
        ) from error


async def _read_hello(reader: asyncio.StreamReader) -> bytes:
    hello = await _exactly(reader, len(MAGIC) + SALT_BYTES)
    if not hello.startswith(MAGIC):
        raise FormatError("bad-offer", "expected another sgl-live of version 1 at this port")
    return hello[len(MAGIC) :]


async def _exactly(reader: asyncio.StreamReader, count: int) -> bytes:
    try:
        return await reader.readexactly(count)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise _closed() from error


def _closed() -> ClosedError:
    return ClosedError("closed", "the other end closed the connection")


def _wrong_key() -> SealError:
    return SealError(
        "wrong-key", "the two ends have different keys; give both the same --key or --passphrase"
    )
