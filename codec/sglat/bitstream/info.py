"""The figures of a file that `sgl-info` prints (format_spec/info.schema.json), without decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from sglat.bitstream import demux
from sglat.bitstream.constants import CHUNK_FRAME_BYTES, CHUNKS, SIGNATURE
from sglat.bitstream.demux import Demuxer
from sglat.bitstream.groups import GroupHead
from sglat.bitstream.identity import IdentityDigest
from sglat.bitstream.origins import edits_of
from sglat.bitstream.reader import BATCH_GROUPS, Reader
from sglat.bitstream.records import FRAME_CUT, FRAME_HELD, AudioFormat, AudioPacket
from sglat.errors import FormatError
from sglat.files import naming

SCHEMA_VERSION: Final = 1
STREAMS: Final = {
    "identity": ("IDEN", "LAYR", "IREF"), "motion": ("MOTN",), "placement": ("PLAC",),
    "audio": ("AHDR", "APKT"), "plate": ("PLAT",),
}  # fmt: skip
"""Chunk types by stream."""


@dataclass
class _Counts:
    """Running totals while events pass."""

    demuxer: Demuxer
    identity: IdentityDigest = field(default_factory=IdentityDigest)
    layers: list[dict[str, Any]] = field(default_factory=list)
    groups: int = 0
    held_frames: int = 0
    cuts: int = 0
    first_pts: int = 0
    last_pts: int = 0
    audio: AudioFormat | None = None
    audio_packets: int = 0
    audio_bytes: int = 0
    audio_first: int | None = None
    audio_last: int = 0
    found: dict[str, Any] = field(default_factory=dict)

    def take(self, event: demux.Event) -> None:
        """Add one event."""
        match event:
            case demux.Layer():
                size = len(event.chunk.payload)
                self.layers.append({"number": event.number, "bytes": size, **event.describe()})
                self.identity.update(event.chunk.payload)
            case demux.Reference():
                reference = event.unpack()
                self.found["reference"] = {"sha256": reference.sha256.hex(), "hint": reference.hint}
            case demux.Group(head=head):
                self._take_group(head)
            case demux.Sound():
                self.audio = event.unpack()
            case demux.Packets(packets=packets):
                self._take_packets(packets)
            case demux.Picture():
                picture = event.unpack()
                key = "plate" if event.is_plate else "thumbnail"
                self.found[key] = {"media_type": picture.media_type, "bytes": len(picture.data)}
            case demux.Provenance():
                provenance = event.unpack()
                self.found["provenance"] = {
                    "generated_by": provenance.generated_by,
                    "consent": provenance.consent,
                    "note": provenance.note,
                    "source_sha256": provenance.source_sha256.hex(),
                    "edits": list(edits_of(provenance)),
                }
            case demux.Metadata():
                self.found["metadata"] = event.unpack()
            case demux.End(end=end):
                self.found["motion_sha256"] = end.motion_sha256.hex()

    def _take_group(self, head: GroupHead) -> None:
        header = self.demuxer.header
        if head.flags is not None:
            self.held_frames += int((head.flags & FRAME_HELD > 0).sum())
            self.cuts += int((head.flags & FRAME_CUT > 0).sum())
        if not self.groups:
            self.first_pts = head.first_pts(header)
        self.last_pts = head.last_pts(header)
        self.groups += 1

    def _take_packets(self, packets: Sequence[AudioPacket]) -> None:
        self.audio_packets += len(packets)
        self.audio_bytes += sum(len(packet.data) for packet in packets)
        if self.audio_first is None:
            self.audio_first = packets[0].pts
        self.audio_last = max(p.pts + p.duration for p in packets)

    def motion(self) -> dict[str, Any] | None:
        """Return the figures of the motion track."""
        frames, header = self.demuxer.frame_count, self.demuxer.header
        if not frames:
            return None
        span = self.last_pts - self.first_pts
        step = header.frame_ticks or (span / (frames - 1) if frames > 1 else 0)
        duration = float((span + step) * header.time_base)
        size = self.demuxer.chunk_bytes["MOTN"]
        return {
            "frames": frames,
            "groups": self.groups,
            "duration_seconds": duration,
            "frames_per_second": frames / duration if duration else None,
            "is_constant_rate": header.frame_ticks is not None,
            "bytes": size,
            "bits_per_frame": 8 * size / frames,
            "kilobits_per_second": 8 * size / duration / 1000 if duration else None,
            "held_frames": self.held_frames,
            "cuts": self.cuts,
            "placement_bytes": self.demuxer.chunk_bytes["PLAC"],
        }

    def sound(self) -> dict[str, Any] | None:
        """Return the figures of the audio stream."""
        if self.audio is None:
            return None
        ticks = self.audio_last - (self.audio_first or 0)
        return {
            "codec": self.audio.codec,
            "sample_rate": self.audio.sample_rate,
            "channels": self.audio.channels,
            "packets": self.audio_packets,
            "bytes": self.audio_bytes,
            "duration_seconds": float(ticks * self.audio.time_base),
        }


def describe(file: BinaryIO) -> dict[str, Any]:
    """Return all figures of a file; a damaged one is described up to the damage.

    Raises:
        FormatError: the header cannot be read.
    """
    with naming(file):
        demuxer = Demuxer(file)
    header = demuxer.header
    counts = _Counts(demuxer)
    damage: FormatError | None = None
    try:
        for event in demuxer:
            counts.take(event)
    except FormatError as error:
        damage = error
    found, sizes = counts.found, demuxer.chunk_bytes
    identity_hex = counts.identity.digest().hex() if counts.layers else None
    frame_bytes = len(SIGNATURE) + CHUNK_FRAME_BYTES * demuxer.chunk_counts.total()
    return {
        "schema": SCHEMA_VERSION,
        "version": f"{demuxer.head.payload[0]}.{demuxer.head.payload[1]}",
        "read_version": f"{demuxer.head.payload[2]}.{demuxer.head.payload[3]}",
        "file_bytes": demuxer.source.position,
        "is_complete": damage is None,
        "error": None if damage is None else _error(damage),
        "decoder_id": header.decoder_id.hex(),
        "bundle": header.bundle,
        "resolution": header.resolution,
        "latent_shape": [header.num_ws, header.w_dim],
        "encoder": header.encoder,
        "settings": header.settings,
        "time_base": str(header.time_base),
        "source_size": None if header.source_size is None else list(header.source_size),
        "identity": {
            "sha256": identity_hex,
            "bytes": sizes["IDEN"] + sizes["LAYR"],
            "layers": counts.layers,
            "reference": found.get("reference"),
        },
        "motion": counts.motion(),
        "motion_sha256": found.get("motion_sha256"),
        "audio": counts.sound(),
        "plate": found.get("plate"),
        "thumbnail": found.get("thumbnail"),
        "provenance": found.get("provenance"),
        "metadata": found.get("metadata", {}),
        "container_bytes": frame_bytes + sizes["INDX"] + sizes["ENDS"],
        "chunks": {
            type_: {"count": count, "bytes": sizes[type_]}
            for type_, count in demuxer.chunk_counts.items()
        },
        "unknown_chunks": [type_ for type_ in demuxer.chunk_counts if type_ not in CHUNKS],
    }


def _error(error: FormatError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "offset": error.offset}


def verify(file: BinaryIO) -> str:
    """Decode a whole file and return its motion hash, which matched."""
    reader = Reader(file)
    for _ in reader.groups(batch_groups=BATCH_GROUPS):
        pass
    assert reader.end is not None  # groups() ends with ENDS or raises
    return reader.end.motion_sha256.hex()


def stream_bytes(record: dict[str, Any]) -> dict[str, int]:
    """Return bytes by stream of what `describe` found.

    Payloads count for their stream; all else, and the framing of all chunks, is `container`. The
    sum is `total`.
    """
    chunks, total = record["chunks"], record["file_bytes"]
    sizes = {
        stream: sum(chunks[type_]["bytes"] for type_ in types if type_ in chunks)
        for stream, types in STREAMS.items()
    }
    return {**sizes, "container": total - sum(sizes.values()), "total": total}
