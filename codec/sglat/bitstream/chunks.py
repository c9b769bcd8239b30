"""Signature, chunk framing and CRC-32C, in both directions (SPEC.md sections 2 and 3)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO, Final

from sglat.bitstream.constants import (
    ANCILLARY,
    BOUND,
    CHUNK_HEAD_BYTES,
    CHUNKS,
    MAX_GROUPS,
    MAX_PAYLOAD,
    SIGNATURE,
    ChunkRule,
)
from sglat.errors import FormatError
from sglat.files import KIND_BYTES, kind_of

HEAD: Final = struct.Struct("<4sI")  # type; flags in the low byte, length in the upper three
_CRC: Final = struct.Struct("<I")
_PIECE_BYTES: Final = 1 << 16  # a false length costs the memory of one piece
_TYPE_BYTES: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
BODY_CHUNKS: Final = frozenset({"MOTN", "PLAC", "APKT"})
_UNKNOWN: Final = ChunkRule(flags=ANCILLARY, max_bytes=MAX_PAYLOAD, is_single=False)
CRC_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, reflected

COMPILED_CRC_BYTES: Final = 1 << 14  # the compiled package takes longer to load than this to sum


@cache
def _compiled_crc() -> Callable[[bytes, int], int] | None:
    try:
        from crc32c import crc32c as compiled
    except ImportError:  # it has no wheel for some machines
        return None
    return compiled


@cache
def _crc_table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (CRC_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


def crc32c_scalar(data: bytes, start: int = 0) -> int:
    """Return what `crc32c` returns, byte by byte; the slow twin."""
    table = _crc_table()
    value = start ^ 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF


def crc32c(data: bytes, start: int = 0) -> int:
    """Return CRC-32C of data, continuing from the CRC of what came before."""
    compiled = _compiled_crc() if len(data) >= COMPILED_CRC_BYTES else None
    return crc32c_scalar(data, start) if compiled is None else compiled(data, start)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One chunk of a file."""

    type: str
    flags: int
    payload: bytes
    offset: int
    """Position of the chunk's first byte in the file."""

    @property
    def payload_offset(self) -> int:
        return self.offset + CHUNK_HEAD_BYTES

    @property
    def is_known(self) -> bool:
        return self.type in CHUNKS

    def error(self, code: str, message: str) -> FormatError:
        """Return an error that points at the chunk."""
        return FormatError(code, message, offset=self.offset)


def pack_chunk(type_: str, payload: bytes, *, flags: int | None = None) -> bytes:
    """Return a whole chunk; known types bring their own flags."""
    rule = CHUNKS.get(type_, _UNKNOWN)
    if not rule.min_bytes <= len(payload) <= rule.max_bytes:
        raise FormatError(
            "bad-length",
            f"{type_} expected {rule.min_bytes} to {rule.max_bytes} bytes, found {len(payload)}",
        )
    bits = rule.flags if flags is None else flags
    body = HEAD.pack(type_.encode("ascii"), bits | len(payload) << 8) + payload
    return body + _CRC.pack(crc32c(body))


class ByteSource:
    """Reads exact amounts from any file, pipes with short reads included."""

    def __init__(self, file: BinaryIO, *, position: int = 0) -> None:
        self._file = file
        self.position = position

    def jump(self, position: int) -> None:
        """Continue at another position of a seekable file."""
        self._file.seek(position)
        self.position = position

    def read_some(self, count: int) -> bytes:
        """Return `count` bytes, or fewer only at the end of the input."""
        pieces: list[bytes] = []
        left = count
        while left:
            piece = self._file.read(min(left, _PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        self.position += count - left
        return b"".join(pieces)

    def read(self, count: int, what: str) -> bytes:
        """Return `count` bytes or raise `truncated`."""
        data = self.read_some(count)
        if len(data) < count:
            raise FormatError(
                "truncated",
                f"expected {count} bytes of {what}, found {len(data)}",
                offset=self.position,
            )
        return data


def read_signature(source: ByteSource) -> None:
    """Read and check the eight bytes at the front of every file."""
    found = source.read_some(len(SIGNATURE))
    if found == SIGNATURE:
        return
    if not found:
        raise FormatError("truncated", "expected an .sglat file, found an empty one", offset=0)
    if found == SIGNATURE[: len(found)]:
        raise FormatError(
            "truncated", f"expected a signature, found {len(found)} bytes", offset=len(found)
        )
    kind = kind_of(found + source.read_some(KIND_BYTES - len(found)))
    shown = kind or f"bytes {found.hex(' ')}"
    if "video" in kind:
        shown += "; encode it first: sgl-encode"
    if found[1:4] == SIGNATURE[1:4]:
        shown = "one damaged by text conversion; copy it in binary mode"
    raise FormatError("bad-signature", f"expected an .sglat file, found {shown}", offset=0)


def read_chunk(source: ByteSource) -> Chunk:
    """Read one chunk and check all that needs no context."""
    offset = source.position
    head = source.read(CHUNK_HEAD_BYTES, "a chunk head")
    raw_type, packed = HEAD.unpack(head)
    flags, length = packed & 255, packed >> 8
    if not _TYPE_BYTES.issuperset(raw_type):
        raise FormatError(
            "bad-chunk", f"expected a chunk type of A-Z 0-9, found {raw_type!r}", offset=offset
        )
    type_ = raw_type.decode("ascii")
    _check_flags(type_, flags, offset)
    rule = CHUNKS.get(type_, _UNKNOWN)
    if not rule.min_bytes <= length <= rule.max_bytes:
        raise FormatError(
            "bad-length",
            f"{type_} expected {rule.min_bytes} to {rule.max_bytes} bytes, found {length}",
            offset=offset,
        )
    payload = source.read(length, f"{type_} payload")
    (expected,) = _CRC.unpack(source.read(_CRC.size, f"{type_} checksum"))
    found = crc32c(payload, crc32c(head))
    if found != expected:
        raise FormatError(
            "bad-crc", f"{type_} expected {expected:08x}, found {found:08x}", offset=offset
        )
    return Chunk(type=type_, flags=flags, payload=payload, offset=offset)


def _check_flags(type_: str, flags: int, offset: int) -> None:
    rule = CHUNKS.get(type_)
    if rule is not None and flags != rule.flags:
        message = f"{type_} expected flags {rule.flags}, found {flags}"
        raise FormatError("bad-flags", message, offset=offset)
    if flags & ~(ANCILLARY | BOUND) or flags == BOUND:
        message = f"{type_} expected flags 0, 1 or 3, found {flags}"
        raise FormatError("bad-flags", message, offset=offset)
    if rule is None and not flags & ANCILLARY:
        message = f"expected a known chunk or an ancillary one, found {type_}"
        raise FormatError("unknown-critical", message, offset=offset)


class Order:
    """Checks the order and number of chunks while they pass."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._last = ""
        self._groups = 0

    def check(self, chunk: Chunk) -> None:
        """Raise if this chunk must not stand here."""
        type_ = chunk.type
        rule = CHUNKS.get(type_, _UNKNOWN)
        if rule.is_single and type_ in self._seen:
            raise chunk.error("duplicate-chunk", f"expected one {type_}, found another")
        reason = self._misplaced(type_, rule)
        if reason:
            raise chunk.error("bad-order", f"{reason}, found {type_}")
        if type_ in ("MOTN", "ENDS") and not self._seen & {"IDEN", "IREF"}:
            raise chunk.error("no-identity", f"expected IDEN or IREF, found {type_}")
        self._groups += type_ == "MOTN"
        if self._groups > MAX_GROUPS:
            raise chunk.error("bad-frames", f"expected at most {MAX_GROUPS} groups, found more")
        self._seen.add(type_)
        self._last = type_

    def _misplaced(self, type_: str, rule: ChunkRule) -> str:
        """Return what was expected, or an empty string."""
        if not self._seen:
            return "" if type_ == "HEAD" else "expected HEAD first"
        if self._last == "INDX" and type_ != "ENDS":
            return "expected ENDS after INDX"
        if rule.is_preamble and self._seen & BODY_CHUNKS:
            return "expected nothing of the preamble after motion, placement or audio"
        if type_ == "LAYR" and "IDEN" not in self._seen:
            return "expected IDEN before LAYR"
        if {type_, *self._seen} >= {"IDEN", "IREF"}:
            return "expected either IDEN or IREF"
        if type_ == "APKT" and "AHDR" not in self._seen:
            return "expected AHDR before APKT"
        return ""


def read_chunks(source: ByteSource) -> Iterator[Chunk]:
    """Yield all chunks of a file, from the signature to the end, checked in order."""
    read_signature(source)
    order = Order()
    while True:
        chunk = read_chunk(source)
        order.check(chunk)
        yield chunk
        if chunk.type == "ENDS":
            break
    if source.read_some(1):
        raise FormatError(
            "trailing-bytes", "expected the end after ENDS, found more", offset=source.position - 1
        )
