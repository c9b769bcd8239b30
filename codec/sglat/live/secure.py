"""Keys, sealed packets and the replay window (LIVE.md sections 2 and 3)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sglat.errors import MissingExtraError, SglatError, UsageError
from sglat.files import naming, open_input
from sglat.live.rtp import HEADER, RtpHeader, extended, pack_rtp, unpack_rtp

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
NONCE_BYTES: Final = 13
TAG_BYTES: Final = 8
REPLAY_WINDOW: Final = 128
"""Packets: more than ten seconds of motion."""
_PASSPHRASE_SALT: Final = b"sglat live 1 passphrase"
_LEAST_PASSPHRASE: Final = 8
_SCRYPT: Final = {"n": 1 << 16, "r": 8, "p": 1, "maxmem": 1 << 27}  # 64 MiB, a quarter of a second


class LiveError(SglatError):
    """A call that cannot be made or goes on no longer."""


class SealError(LiveError):
    """Bytes that were not sealed with this key, or were changed."""


def key_from_file(path: Path) -> bytes:
    """Return a key from a file of 32 bytes, or of 64 hexadecimal digits.

    Raises:
        UsageError: no such file, or other contents.
    """
    with open_input(path) as file, naming(path):
        data = file.read(1024)
    if len(data) == KEY_BYTES:
        return data
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UsageError(
            "bad-key",
            f"expected {KEY_BYTES} bytes or {2 * KEY_BYTES} hexadecimal digits in {path}, "
            f"found {len(data)} bytes; make one with: openssl rand -hex 32",
        )
    return key


def key_from_passphrase(passphrase: str) -> bytes:
    """Return the key of a passphrase.

    Source: scrypt, RFC 7914.

    Raises:
        UsageError: it is too short.
    """
    if len(passphrase) < _LEAST_PASSPHRASE:
        raise UsageError(
            "bad-key", f"expected a passphrase of at least {_LEAST_PASSPHRASE} characters"
        )
    return hashlib.scrypt(passphrase.encode(), salt=_PASSPHRASE_SALT, dklen=KEY_BYTES, **_SCRYPT)


def new_salt() -> bytes:
    """Return one side's part of a session's salt."""
    return secrets.token_bytes(SALT_BYTES)


def new_ssrc() -> int:
    """Return a random number of a stream."""
    return secrets.randbits(32)


def derive(key: bytes, salt: bytes, name: str, size: int) -> bytes:
    """Return bytes for one use; HKDF with SHA-256, RFC 5869."""
    inner = hmac.digest(salt, key, "sha256")
    out, block = b"", b""
    for number in range(1, -(-size // 32) + 1):
        block = hmac.digest(inner, block + name.encode() + bytes([number]), "sha256")
        out += block
    return out[:size]


class Sealer:
    """AES-256-CCM with a tag of eight bytes; one key a direction and session.

    A nonce is the derived salt xor the numbers it is called with, which never repeat.
    """

    def __init__(self, key: bytes, session_salt: bytes, name: str) -> None:
        self._cipher = _aes_ccm(derive(key, session_salt, f"sglat live 1 {name} key", KEY_BYTES))
        salt = derive(key, session_salt, f"sglat live 1 {name} nonce", NONCE_BYTES)
        self._salt = int.from_bytes(salt, "big")

    def seal(self, stream: int, number: int, data: bytes, header: bytes) -> bytes:
        """Return sealed data and tag; the header is authenticated too."""
        sealed: bytes = self._cipher.encrypt(self._nonce(stream, number), data, header)
        return sealed

    def open(self, stream: int, number: int, sealed: bytes, header: bytes) -> bytes:
        """Return the data.

        Raises:
            SealError: another key, or changed bytes.
        """
        from cryptography.exceptions import InvalidTag

        try:
            data: bytes = self._cipher.decrypt(self._nonce(stream, number), sealed, header)
        except (InvalidTag, ValueError) as error:
            raise SealError("forged", "expected a packet sealed with the session's key") from error
        return data

    def _nonce(self, stream: int, number: int) -> bytes:
        return (self._salt ^ (stream << 48 | number)).to_bytes(NONCE_BYTES, "big")


def _aes_ccm(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESCCM
    except ImportError as error:
        raise MissingExtraError("cryptography", extra="live") from error
    return AESCCM(key, tag_length=TAG_BYTES)


@dataclass
class ReplayWindow:
    """Numbers of the latest packets of one stream."""

    highest: int = -1
    _seen: int = 0
    """Bit n: highest - n has come."""

    def is_new(self, number: int) -> bool:
        """Whether a packet has not come before; one too old to know counts as seen."""
        behind = self.highest - number
        return behind < 0 or (behind < REPLAY_WINDOW and not self._seen >> behind & 1)

    def take(self, number: int) -> None:
        """Remember a packet whose seal was right."""
        if number > self.highest:
            self._seen = (self._seen << (number - self.highest) | 1) & ((1 << REPLAY_WINDOW) - 1)
            self.highest = number
        else:
            self._seen |= 1 << (self.highest - number)


@dataclass
class PacketSealer:
    """Makes the packets of one stream."""

    sealer: Sealer
    ssrc: int
    payload_type: int
    number: int = 0
    """Of the next packet."""

    def pack(self, timestamp: int, payload: bytes, *, is_marked: bool = False) -> bytes:
        """Return header, sealed payload and tag."""
        header = pack_rtp(
            RtpHeader(
                payload_type=self.payload_type,
                sequence=self.number & 0xFFFF,
                timestamp=timestamp,
                ssrc=self.ssrc,
                is_marked=is_marked,
            )
        )
        sealed = self.sealer.seal(self.ssrc, self.number, payload, header)
        self.number += 1
        return header + sealed


@dataclass(frozen=True, kw_only=True)
class OpenedPacket:
    """A packet whose seal was right."""

    header: RtpHeader
    number: int
    """In the stream, not wrapped."""
    payload: bytes


@dataclass
class PacketOpener:
    """Opens the packets of a session's streams, each once.

    Args:
        sealer: of the direction.
        streams: payload type of each SSRC.
    """

    sealer: Sealer
    streams: dict[int, int]
    forged: int = 0
    """Packets of other sessions or keys, changed ones, and what is no packet at all."""
    replayed: int = 0
    _windows: dict[int, ReplayWindow] = field(default_factory=dict)

    def open(self, packet: bytes) -> OpenedPacket | None:
        """Return a packet, or count why it is not taken and return None."""
        try:
            header = unpack_rtp(packet)
        except SglatError:
            self.forged += 1
            return None
        if self.streams.get(header.ssrc) != header.payload_type:
            self.forged += 1
            return None
        window = self._windows.setdefault(header.ssrc, ReplayWindow())
        number = extended(header.sequence, 16, max(window.highest, 0))
        if not window.is_new(number):
            self.replayed += 1
            return None
        front, sealed = packet[: HEADER.size], packet[HEADER.size :]
        try:
            payload = self.sealer.open(header.ssrc, number, sealed, front)
        except SealError:
            self.forged += 1
            return None
        window.take(number)
        return OpenedPacket(header=header, number=number, payload=payload)
