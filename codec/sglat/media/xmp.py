"""XMP packets that call a video or picture generated, written into MP4, MOV, PNG and GIF."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

# ISO/IEC 11578 name of XMP in boxes. Source: XMP specification part 3, section 1.2.7.
XMP_UUID: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
PNG_KEYWORD: Final = "XML:com.adobe.xmp"
GIF_APPLICATION: Final = b"XMP DataXMP"
IPTC_EXT: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMP_NAMESPACE: Final = "http://ns.adobe.com/xap/1.0/"


def xmp_packet(*, source_type: str, creator_tool: str) -> bytes:
    """Return a packet with the IPTC digital source type, as checkers read it.

    Args:
        source_type: address of an IPTC NewsCode.
        creator_tool: program and version.

    Source: IPTC Photo Metadata Standard 2023.2, "Digital Source Type".
    """
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{IPTC_EXT}" xmlns:xmp="{XMP_NAMESPACE}"'
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(source_type)}"
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


def gif_xmp(packet: bytes) -> bytes:
    """Return the application extension that holds a packet in a GIF.

    Its trailer leads a reader that takes the packet for sub-blocks to the end of it. Source: XMP
    specification part 3, section 1.1.2.
    """
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    return b"\x21\xff\x0b" + GIF_APPLICATION + packet + trailer
