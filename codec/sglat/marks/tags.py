"""Plain tags that call a file generated: IPTC digital source type in XMP, container and text tags.

Anybody can write or remove them, so they prove nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.parsers import expat

from sglat.marks.embedded import Embedded
from sglat.media.pictures import (
    AUTHOR_KEY,
    CONSENT_KEY,
    LABEL_KEY,
    SOURCE_TYPE_KEY,
    SYNTHETIC_KEY,
    WATERMARK_KEY,
)
from sglat.media.xmp import IPTC_EXT, OWN_NAMESPACE, OWN_PREFIX

MAX_SHOWN: Final = 512  # characters of one tag
# IPTC source types of media that a machine made or changed.
SYNTHETIC_TYPES: Final = frozenset(
    {
        "trainedAlgorithmicMedia",
        "compositeWithTrainedAlgorithmicMedia",
        "compositeSynthetic",
        "algorithmicMedia",
        "algorithmicallyEnhanced",
        "digitalArt",
        "digitalCreation",
        "virtualRecording",
        "multiFrameCaptureAlgorithmic",
    }
)
_REMOTE: Final = re.compile(rb'provenance\s*=\s*"(https?://[^"<>\s]{1,500})"')


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What the tags of a file say."""

    source_types: tuple[str, ...] = ()
    """IPTC digital source types, their last parts."""
    generated_by: str = ""
    consent: str = ""
    watermark: str = ""
    """Identifier of the invisible watermark, or that it was left out."""
    label: str = ""
    """Text of the visible label, or that it was left out."""
    is_synthetic: bool = False
    """A tag calls the file generated or changed by a machine."""
    remote: str = ""
    """Address of a C2PA manifest kept elsewhere; it is not fetched."""
    places: tuple[str, ...] = field(default=())
    """Where tags were found: `xmp`, `container`, `text`."""
    faults: tuple[str, ...] = field(default=())
    """What could not be read, one line each."""

    @property
    def is_empty(self) -> bool:
        """Nothing was found."""
        return not (self.source_types or self.generated_by or self.is_synthetic)


def read_tags(embedded: Embedded, container: dict[str, str]) -> Tags:
    """Return what tags say.

    Args:
        embedded: of the file.
        container: tags that FFmpeg reads.
    """
    types: list[str] = []
    places, faults = [], []
    remote = ""
    texts: dict[str, str] = {}
    for packet in embedded.packets:
        try:
            found_here = read_xmp(packet)
        except ValueError as error:
            faults.append(f"XMP: {error}")
            continue
        if value := found_here.get(SOURCE_TYPE_KEY):
            types.append(value)
        if found_here:
            places.append("xmp")
        own = {key.lower(): value for key, value in found_here.items() if key != SOURCE_TYPE_KEY}
        texts = own | texts
        match = _REMOTE.search(packet)
        remote = remote or (match[1].decode("latin-1") if match else "")
    for place, found in (("container", container), ("text", embedded.texts)):
        kept = {k.lower(): v[:MAX_SHOWN] for k, v in found.items() if k.lower() in _KNOWN}
        if kept:
            places.append(place)
            texts = kept | texts
    if value := texts.get(SOURCE_TYPE_KEY.lower(), ""):
        types.append(value)
    short = tuple(dict.fromkeys(value.rsplit("/", 1)[-1][:MAX_SHOWN] for value in types))
    return Tags(
        source_types=short,
        generated_by=texts.get(AUTHOR_KEY.lower(), ""),
        consent=texts.get(CONSENT_KEY.lower(), ""),
        watermark=texts.get(WATERMARK_KEY.lower(), ""),
        label=texts.get(LABEL_KEY.lower(), ""),
        is_synthetic=SYNTHETIC_KEY.lower() in texts or bool(SYNTHETIC_TYPES & set(short)),
        remote=remote,
        places=tuple(dict.fromkeys(places)),
        faults=tuple(faults),
    )


_KNOWN: Final = frozenset(
    key.lower()
    for key in (
        SOURCE_TYPE_KEY,
        AUTHOR_KEY,
        CONSENT_KEY,
        SYNTHETIC_KEY,
        WATERMARK_KEY,
        LABEL_KEY,
    )
)


def read_xmp(packet: bytes) -> dict[str, str]:
    """Return what an XMP packet says, by the names of container tags: IPTC digital source type,
    and what sglat writes.

    Raises:
        ValueError: no XML, or XML with a document type, which could expand without bound.
    """
    try:
        text = packet.decode("utf-8-sig").strip("\0 \r\n\t")
    except UnicodeDecodeError as error:
        raise ValueError("expected XML in UTF-8, found other bytes") from error
    if re.search("<!(?!--)", text):
        raise ValueError("expected XML without a document type, found one")
    found: dict[str, str] = {}
    inside: list[str] = []  # keys of open elements that may hold a value as text

    def keep(name: str, value: str) -> None:
        if (key := _XMP_NAMES.get(name)) is not None and value.strip():
            found.setdefault(key, value.strip()[:MAX_SHOWN])

    def start(name: str, attributes: dict[str, str]) -> None:
        for attribute, value in attributes.items():
            keep(attribute, value)
        inside[:] = [name]

    parser = expat.ParserCreate("utf-8", " ")  # builds no tree: memory stays that of the packet
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: inside.clear()
    parser.CharacterDataHandler = lambda value: keep(inside[0] if inside else "", value)
    try:
        parser.Parse(re.sub(r"<\?xpacket.*?\?>", "", text, flags=re.DOTALL).encode(), True)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise ValueError(f"expected XML, found: {error}") from error
    return found


# Namespace and local name, as the parser joins them.
_XMP_NAMES: Final = {f"{IPTC_EXT} DigitalSourceType": SOURCE_TYPE_KEY} | {
    f"{OWN_NAMESPACE} {key.removeprefix(OWN_PREFIX)}": key
    for key in (AUTHOR_KEY, CONSENT_KEY, SYNTHETIC_KEY, WATERMARK_KEY, LABEL_KEY)
}


def container_tags(path: Path) -> dict[str, str]:
    """Return the tags of a video file as FFmpeg reads them; none of a file that it cannot open."""
    import av

    try:
        with av.open(str(path)) as container:
            tags = dict(container.metadata)
            for stream in container.streams:
                tags = dict(stream.metadata) | tags
            return tags
    except (av.error.FFmpegError, ValueError, OSError):
        return {}
