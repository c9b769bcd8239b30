"""XMP packets that call a video or picture generated, written into MP4, MOV, AVI, PNG and GIF."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final
from xml.sax.saxutils import quoteattr

# ISO/IEC 11578 name of XMP in boxes. Source: XMP specification part 3, section 1.2.7.
XMP_UUID: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
PNG_KEYWORD: Final = "XML:com.adobe.xmp"
GIF_APPLICATION: Final = b"XMP DataXMP"
IPTC_EXT: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMP_NAMESPACE: Final = "http://ns.adobe.com/xap/1.0/"
OWN_NAMESPACE: Final = "urn:sglat:marks:1/"
OWN_PREFIX: Final = "sglat:"
AVI_CHUNK: Final = b"_PMX"


def xmp_packet(
    *, source_type: str, creator_tool: str, more: Mapping[str, str] | None = None
) -> bytes:
    """Return a packet with the IPTC digital source type, as checkers read it.

    Args:
        source_type: address of an IPTC NewsCode.
        creator_tool: program and version.
        more: further tags; those whose names begin with `sglat:` are taken.

    Source: IPTC Photo Metadata Standard 2023.2, "Digital Source Type".
    """
    own = "".join(
        f" {key}={quoteattr(_clean(value))}"
        for key, value in (more or {}).items()
        if key.startswith(OWN_PREFIX)
    )
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{IPTC_EXT}" xmlns:xmp="{XMP_NAMESPACE}"'
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(source_type)}"
        f' xmlns:sglat="{OWN_NAMESPACE}"{own}'
        f" xmp:CreatorTool={quoteattr(_clean(creator_tool))}/>"
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def _clean(text: str) -> str:
    """Return text without the characters that XML 1.0 has no form for."""
    return "".join(c for c in text if c.isprintable() and not "\ud800" <= c <= "\udfff")


def append_xmp_box(path: Path, packet: bytes) -> None:
    """Add a packet at the end of a complete MP4 or MOV file."""
    with path.open("ab") as file:
        file.write(struct.pack(">I", 24 + len(packet)) + b"uuid" + XMP_UUID + packet)


def append_xmp_chunk(path: Path, packet: bytes) -> None:
    """Add a packet at the end of a complete AVI file, inside its last RIFF.

    Source: XMP specification part 3, section 1.2.6; OpenDML AVI 1.02, section 3.
    """
    with path.open("r+b") as file:
        start, size = _last_riff(file)
        padded = packet + b"\0" * (len(packet) % 2)
        if size + 8 + len(padded) >= 1 << 32:
            return
        file.seek(0, 2)
        file.write(AVI_CHUNK + struct.pack("<I", len(packet)) + padded)
        file.seek(start + 4)
        file.write(struct.pack("<I", size + 8 + len(padded)))


def _last_riff(file: BinaryIO) -> tuple[int, int]:
    """Return where the last RIFF of a file begins, and its size as it stands there."""
    start, end = 0, file.seek(0, 2)
    while True:
        file.seek(start + 4)
        (size,) = struct.unpack("<I", file.read(4))
        if start + 8 + size + size % 2 + 8 > end:
            return start, size
        start += 8 + size + size % 2


def gif_xmp(packet: bytes) -> bytes:
    """Return the application extension that holds a packet in a GIF.

    Its trailer leads a reader that takes the packet for sub-blocks to the end of it. Source: XMP
    specification part 3, section 1.1.2.
    """
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    return b"\x21\xff\x0b" + GIF_APPLICATION + packet + trailer
