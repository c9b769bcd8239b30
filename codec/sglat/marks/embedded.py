"""What files carry beside their pictures: C2PA manifest stores, XMP packets and text tags.

Only lengths that are known to fit are read into memory; the pictures are skipped.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from sglat.files import open_input
from sglat.media.pictures import AUTHOR_KEY, SERVICE_BREAK
from sglat.media.xmp import AVI_CHUNK, GIF_APPLICATION, PNG_KEYWORD, XMP_UUID

MAX_STORE_BYTES: Final = 1 << 24  # thumbnails of a few hundred kB each are usual
MAX_PACKET_BYTES: Final = 1 << 20  # an APP1 segment holds 64 kB
MAX_TEXT_BYTES: Final = 1 << 16
MAX_TEXTS: Final = 256
MAX_PARTS: Final = 1 << 20  # boxes, chunks or segments; 36 hours of fragments of 0.25 s
# C2PA technical specification 2.2, section A.5 (BMFF), A.3.4 (GIF)
C2PA_UUID: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
TS_PACKET, SDT_PACKETS, SDT_TABLE, SERVICE_DESCRIPTOR = 188, 0x11, 0x42, 0x48
SYNC: Final = b"\x47\x47"
MAX_TS_PACKETS: Final = 4096
C2PA_GIF: Final = b"C2PA_GIF\x01\x00\x00"


class DamageError(Exception):
    """What is embedded cannot be read; the text says why."""


@dataclass
class Embedded:
    """What was found in a file."""

    kind: str = ""
    """MIME type; empty for containers that this module does not read."""
    store: bytes = b""
    """C2PA manifest store (JUMBF); empty if there is none."""
    packets: list[bytes] = field(default_factory=list)
    """XMP."""
    texts: dict[str, str] = field(default_factory=dict)
    """Text chunks of a PNG, comment of a GIF, name of an MPEG-TS service."""
    damage: str = ""
    """Why reading ended early; empty if it did not."""

    @property
    def is_empty(self) -> bool:
        """Nothing was found."""
        return not (self.store or self.packets or self.texts)

    def add_packet(self, data: bytes) -> None:
        """Keep an XMP packet; of many, the first ones."""
        if len(self.packets) < 4:
            self.packets.append(data)

    def add_text(self, key: str, value: str) -> None:
        """Keep a text; of many, the first ones."""
        if len(self.texts) < MAX_TEXTS:
            self.texts.setdefault(key, value)


def read_embedded(path: Path) -> Embedded:
    """Return what a file carries; damage ends the search and is told.

    Raises:
        UsageError: the file cannot be opened.
    """
    found = Embedded()
    with open_input(path) as file:
        head = file.read(16)
        found.kind, read = _kind_of(head)
        if read is None:
            return found
        file.seek(0)
        source = _Source(file)
        try:
            read(source, found)
        except DamageError as error:
            found.damage = str(error)
    return found


class _Source:
    """A file whose end is known, read in parts of known length."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def take(self, count: int, most: int, what: str) -> bytes:
        """Return bytes from here, at most `most`.

        Raises:
            DamageError: more than that, or more than there are.
        """
        if count > most:
            raise DamageError(f"expected {what} of at most {most} bytes, found {count}")
        data = self._file.read(count)
        if len(data) < count:
            raise DamageError(f"expected {count} bytes of {what}, found {len(data)}")
        return data

    def until(self, mark: bytes, most: int, what: str) -> bytes:
        """Return at most `most` bytes up to a mark, and go behind it.

        Raises:
            DamageError: no mark within these.
        """
        start = self.at()
        data, found, _ = self._file.read(most + len(mark)).partition(mark)
        if not found:
            raise DamageError(f"expected the end of {what} within {most} bytes, found none")
        self.to(start + len(data) + len(mark))
        return data

    def at(self) -> int:
        """Return the position."""
        return self._file.tell()

    def to(self, position: int) -> None:
        """Go to a position in the file."""
        if position > self.size:
            raise DamageError(
                f"expected {position - self.size} more bytes, found the end of the file"
            )
        self._file.seek(position)


def _parts() -> Iterator[int]:
    """Count parts; a file of more is no video."""
    yield from range(MAX_PARTS)
    raise DamageError(f"expected at most {MAX_PARTS} parts, found more")


def _read_boxes(source: _Source, found: Embedded) -> None:
    """Read MP4, MOV, HEIC and AVIF: boxes of ISO/IEC 14496-12, section 4.2."""
    for _ in _parts():
        start = source.at()
        if start >= source.size:
            return
        size, kind = struct.unpack(">I4s", source.take(8, 8, "a box"))
        if size == 1:
            (size,) = struct.unpack(">Q", source.take(8, 8, "a box"))
        elif size == 0:
            size = source.size - start
        end = start + size
        if size < source.at() - start or end > source.size:
            raise DamageError(f"expected a box within the file, found {size} bytes at {start}")
        if kind == b"uuid" and end - source.at() >= 16:
            _read_uuid(source, end, found)
        source.to(end)


def _read_uuid(source: _Source, end: int, found: Embedded) -> None:
    name = source.take(16, 16, "a box")
    if name == XMP_UUID:
        found.add_packet(source.take(end - source.at(), MAX_PACKET_BYTES, "XMP"))
    elif name == C2PA_UUID:
        data = source.take(end - source.at(), MAX_STORE_BYTES, "a C2PA manifest")
        purpose, _, rest = data[4:].partition(b"\0")  # behind version and flags
        if purpose == b"manifest" and not found.store:
            found.store = rest[8:]  # behind the offset of a Merkle tree


def _read_png(source: _Source, found: Embedded) -> None:
    """Read PNG and APNG: chunks of the PNG specification, section 5.3."""
    source.to(8)
    for _ in _parts():
        if source.at() >= source.size:
            return
        size, kind = struct.unpack(">I4s", source.take(8, 8, "a chunk"))
        end = source.at() + size + 4
        if kind == b"caBX":
            found.store = found.store or source.take(size, MAX_STORE_BYTES, "a C2PA manifest")
        elif kind in (b"iTXt", b"tEXt"):
            _read_png_text(source.take(size, MAX_PACKET_BYTES, "text"), kind, found)
        source.to(end)
        if kind == b"IEND":
            return


def _read_png_text(data: bytes, kind: bytes, found: Embedded) -> None:
    keyword, _, rest = data.partition(b"\0")
    if kind == b"iTXt":
        if rest[:1] != b"\0":
            return  # compressed; a tag of a few words is not
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    key = keyword.decode("latin-1")
    if key == PNG_KEYWORD:
        found.add_packet(rest)
    elif len(rest) <= MAX_TEXT_BYTES:
        found.add_text(key, rest.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace"))


def _read_jpeg(source: _Source, found: Embedded) -> None:
    """Read JPEG: marker segments of ITU-T T.81, section B.1.1; C2PA lies in APP11."""
    source.to(2)
    store = b""
    for _ in _parts():
        mark, kind, size = struct.unpack(">BBH", source.take(4, 4, "a segment"))
        if mark != 0xFF or size < 2:
            raise DamageError("expected a JPEG segment, found other bytes")
        if kind == 0xDA:
            break
        data = source.take(size - 2, 1 << 16, "a segment")
        if kind == 0xEB and data[:2] == b"JP" and len(data) > 16:
            number = int.from_bytes(data[4:8], "big")
            store += data[8:] if number <= 1 else data[16:]  # later ones repeat the box's head
            if len(store) > MAX_STORE_BYTES:
                raise DamageError(f"expected a C2PA manifest of at most {MAX_STORE_BYTES} bytes")
        elif kind == 0xE1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            found.add_packet(data.partition(b"\0")[2])
        elif kind == 0xFE and len(data) <= MAX_TEXT_BYTES:
            found.add_text("comment", data.decode("utf-8", "replace"))
    found.store = store


def _read_gif(source: _Source, found: Embedded) -> None:
    """Read GIF: blocks of the GIF89a specification, section 12."""
    header = source.take(13, 13, "a header")
    if header[10] & 0x80:
        source.to(13 + 3 * (2 << (header[10] & 7)))
    for _ in _parts():
        kind = source.take(1, 1, "a block")
        if kind == b";":
            return
        if kind == b",":
            flags = source.take(9, 9, "a picture")[8]
            source.to(source.at() + (3 * (2 << (flags & 7)) if flags & 0x80 else 0) + 1)
            _read_blocks(source, 0)
        elif kind == b"!":
            _read_extension(source, found)
        else:
            raise DamageError(f"expected a GIF block, found {kind!r}")


def _read_extension(source: _Source, found: Embedded) -> None:
    label = source.take(1, 1, "an extension")
    if label == b"\xfe":
        text = _read_blocks(source, MAX_TEXT_BYTES).decode("utf-8", "replace")
        for line in text.splitlines():
            key, colon, value = line.partition(": ")
            found.add_text(key if colon else "comment", value if colon else line)
        return
    if label != b"\xff":
        _read_blocks(source, 0)
        return
    size = source.take(1, 1, "an extension")[0]
    name = source.take(size, 255, "an extension")
    if name == GIF_APPLICATION:
        found.add_packet(source.until(b"\x01\xff\xfe", MAX_PACKET_BYTES, "XMP"))
        source.to(source.at() + 255)
    elif name == C2PA_GIF:
        found.store = _read_blocks(source, MAX_STORE_BYTES)
    else:
        _read_blocks(source, 0)


def _read_blocks(source: _Source, most: int) -> bytes:
    """Return sub-blocks up to the empty one; with `most` 0 they are skipped."""
    data = bytearray()
    for _ in _parts():
        size = source.take(1, 1, "a block")[0]
        if not size:
            return bytes(data)
        block = source.take(size, 255, "a block")
        if most:
            data += block
            if len(data) > most:
                raise DamageError(f"expected at most {most} bytes in a GIF extension, found more")
    return bytes(data)


def _read_riff(source: _Source, found: Embedded) -> None:
    """Read WebP and AVI: chunks of RIFF."""
    source.to(12)
    for _ in _parts():
        if source.at() + 8 > source.size:
            return
        kind, size = struct.unpack("<4sI", source.take(8, 8, "a chunk"))
        end = source.at() + size + size % 2
        if kind == b"RIFF":
            end = source.at() + 4  # a further part of a long AVI, whose chunks follow
        elif kind == b"C2PA":
            found.store = source.take(size, MAX_STORE_BYTES, "a C2PA manifest")
        elif kind in (b"XMP ", AVI_CHUNK):
            found.add_packet(source.take(size, MAX_PACKET_BYTES, "XMP"))
        source.to(min(end, source.size))


def _read_ts(source: _Source, found: Embedded) -> None:
    """Read MPEG-TS: the first service description, ETSI EN 300 468, section 5.2.3."""
    head = source.take(min(TS_PACKET + 9, source.size), TS_PACKET + 9, "packets")
    front = next(
        (n for n in (0, 4) if head[n : n + TS_PACKET + n + 1 : TS_PACKET + n] == SYNC), None
    )
    if front is None:
        return  # other bytes that begin like a packet
    source.to(0)
    for _ in range(MAX_TS_PACKETS):
        if source.at() + front + TS_PACKET > source.size:
            return
        packet = source.take(front + TS_PACKET, TS_PACKET + 4, "a packet")[front:]
        if packet[0] == SYNC[0] and packet[1] & 0x5F == 0x40 and packet[2] == SDT_PACKETS:
            _read_service(packet, found)
            return


def _read_service(packet: bytes, found: Embedded) -> None:
    """Keep the names in a packet of a service description table, section 6.2.33."""
    start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    section = packet[start + 1 + packet[start] :] if start < len(packet) else b""
    at = 16  # behind the head of the table and of the first service
    if len(section) <= at or section[0] != SDT_TABLE:
        return
    while at + 2 <= len(section) and section[at] != SERVICE_DESCRIPTOR:
        at += 2 + section[at + 1]
    provider = section[at + 4 : at + 4 + section[at + 3]] if at + 4 <= len(section) else b""
    rest = section[at + 4 + len(provider) :]
    name = rest[1 : 1 + rest[0]] if rest else b""
    for pair in name.decode("utf-8", "replace").strip("\x15").split(SERVICE_BREAK):
        key, equals, value = pair.partition("=")
        if equals:
            found.add_text(key, value)
            found.add_text(AUTHOR_KEY, provider.decode("utf-8", "replace").strip("\x15"))


_Read = Callable[[_Source, Embedded], None]
_HEIF: Final = {b"heic": "image/heic", b"mif1": "image/heif", b"avif": "image/avif"}


def _kind_of(head: bytes) -> tuple[str, _Read | None]:
    """Return MIME type and parser for the first 16 bytes of a file."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"styp"):
        if head[8:12] in _HEIF:
            return _HEIF[head[8:12]], _read_boxes
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4", _read_boxes
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"AVI "):
        return "image/webp" if head[8:12] == b"WEBP" else "video/x-msvideo", _read_riff
    for mark, kind, read in (
        (b"\x89PNG\r\n\x1a\n", "image/png", _read_png),
        (b"\xff\xd8\xff", "image/jpeg", _read_jpeg),
        (b"GIF8", "image/gif", _read_gif),
    ):
        if head.startswith(mark):
            return kind, read
    if SYNC[:1] in (head[:1], head[4:5]):
        return "video/mp2t", _read_ts
    return "", None
