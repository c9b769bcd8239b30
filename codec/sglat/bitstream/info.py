"""What `sgl-info` tells about a file, from chunk heads alone (format_spec/info.schema.json)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from sglat.bitstream import extras
from sglat.bitstream.chunks import ByteSource, Chunk, read_chunks
from sglat.bitstream.constants import CHUNK_FRAME_BYTES, SIGNATURE
from sglat.bitstream.demux import Tracker
from sglat.bitstream.groups import GroupHead, unpack_placement
from sglat.bitstream.header import unpack_header
from sglat.bitstream.identity import IdentityDigest, describe_layer, unpack_reference
from sglat.bitstream.records import FRAME_CUT, FRAME_HELD, AudioFormat, Header
from sglat.errors import FormatError

SCHEMA_VERSION = 1


@dataclass
class _Counts:
    """Running totals while chunks pass."""

    header: Header
    tracker: Tracker
    bytes_by_type: Counter[str] = field(default_factory=Counter)
    chunks_by_type: Counter[str] = field(default_factory=Counter)
    identity: IdentityDigest = field(default_factory=IdentityDigest)
    layers: list[dict[str, Any]] = field(default_factory=list)
    held_frames: int = 0
    cuts: int = 0
    last_pts: int | None = None
    audio: AudioFormat | None = None
    audio_packets: int = 0
    audio_bytes: int = 0
    audio_first: int | None = None
    audio_last: int = 0
    found: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def take(self, chunk: Chunk) -> None:
        self.bytes_by_type[chunk.type] += len(chunk.payload)
        self.chunks_by_type[chunk.type] += 1
        if not chunk.is_known and chunk.type not in self.unknown:
            self.unknown.append(chunk.type)
        take = getattr(self, f"_take_{chunk.type.lower()}", None)
        if take is not None and chunk.is_known:
            take(chunk)

    def _take_layer(self, chunk: Chunk) -> None:
        number = len(self.layers)
        shape = (self.header.num_ws, self.header.w_dim)
        layer = describe_layer(chunk.payload, number, shape, offset=chunk.payload_offset)
        self.layers.append({"number": number, "bytes": len(chunk.payload), **layer})
        self.identity.update(chunk.payload)

    _take_iden = _take_layr = _take_layer

    def _take_iref(self, chunk: Chunk) -> None:
        reference = unpack_reference(chunk.payload, offset=chunk.payload_offset)
        self.found["reference"] = {"sha256": reference.sha256.hex(), "hint": reference.hint}

    def _take_motn(self, chunk: Chunk) -> None:
        head: GroupHead = self.tracker.group(chunk)
        if head.flags is not None:
            self.held_frames += int((head.flags & FRAME_HELD > 0).sum())
            self.cuts += int((head.flags & FRAME_CUT > 0).sum())
        self.last_pts = head.last_pts(self.header)

    def _take_plac(self, chunk: Chunk) -> None:
        placement = unpack_placement(chunk.payload, self.header, offset=chunk.payload_offset)
        self.tracker.placement(placement, chunk)

    def _take_ahdr(self, chunk: Chunk) -> None:
        self.audio = extras.unpack_audio_format(chunk.payload, offset=chunk.payload_offset)

    def _take_apkt(self, chunk: Chunk) -> None:
        packets = extras.unpack_audio_packets(chunk.payload, offset=chunk.payload_offset)
        self.tracker.audio.append((chunk.offset, packets[0].dts))
        self.audio_packets += len(packets)
        self.audio_bytes += sum(len(packet.data) for packet in packets)
        if self.audio_first is None:
            self.audio_first = packets[0].pts
        self.audio_last = max(p.pts + p.duration for p in packets)

    def _take_plat(self, chunk: Chunk) -> None:
        picture = extras.unpack_picture(chunk.payload, offset=chunk.payload_offset)
        key = "plate" if chunk.type == "PLAT" else "thumbnail"
        self.found[key] = {"media_type": picture.media_type, "bytes": len(picture.data)}

    _take_thmb = _take_plat

    def _take_prov(self, chunk: Chunk) -> None:
        provenance = extras.unpack_provenance(chunk.payload, offset=chunk.payload_offset)
        self.found["provenance"] = {
            "generated_by": provenance.generated_by,
            "consent": provenance.consent,
            "note": provenance.note,
            "source_sha256": provenance.source_sha256.hex(),
        }

    def _take_meta(self, chunk: Chunk) -> None:
        self.found["metadata"] = extras.unpack_metadata(chunk.payload, offset=chunk.payload_offset)

    def _take_indx(self, chunk: Chunk) -> None:
        self.tracker.index(chunk)

    def _take_ends(self, chunk: Chunk) -> None:
        self.found["motion_sha256"] = self.tracker.end(chunk).motion_sha256.hex()

    def motion(self) -> dict[str, Any] | None:
        """Return the figures of the motion track."""
        frames = self.tracker.frame_count
        if not frames:
            return None
        first = self.tracker.groups[0][2]
        span = (self.last_pts or 0) - first
        step = self.header.frame_ticks or (span / (frames - 1) if frames > 1 else 0)
        duration = float((span + step) * self.header.time_base)
        size = self.bytes_by_type["MOTN"]
        return {
            "frames": frames,
            "groups": len(self.tracker.groups),
            "duration_seconds": duration,
            "frames_per_second": frames / duration if duration else None,
            "is_constant_rate": self.header.frame_ticks is not None,
            "bytes": size,
            "bits_per_frame": 8 * size / frames,
            "kilobits_per_second": 8 * size / duration / 1000 if duration else None,
            "held_frames": self.held_frames,
            "cuts": self.cuts,
            "placement_bytes": self.bytes_by_type["PLAC"],
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
    source = ByteSource(file)
    chunks = read_chunks(source)
    first = next(chunks)
    header = unpack_header(first.payload, offset=first.payload_offset)
    counts = _Counts(header=header, tracker=Tracker(header))
    counts.take(first)
    damage: FormatError | None = None
    try:
        for chunk in chunks:
            counts.take(chunk)
    except FormatError as error:
        damage = error
    found = counts.found
    identity_hex = counts.identity.digest().hex() if counts.layers else None
    number = sum(counts.chunks_by_type.values())
    frame_bytes = len(SIGNATURE) + CHUNK_FRAME_BYTES * number
    container = frame_bytes + counts.bytes_by_type["INDX"] + counts.bytes_by_type["ENDS"]
    return {
        "schema": SCHEMA_VERSION,
        "version": f"{first.payload[0]}.{first.payload[1]}",
        "read_version": f"{first.payload[2]}.{first.payload[3]}",
        "file_bytes": source.position,
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
            "bytes": counts.bytes_by_type["IDEN"] + counts.bytes_by_type["LAYR"],
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
        "container_bytes": container,
        "chunks": {
            type_: {"count": counts.chunks_by_type[type_], "bytes": counts.bytes_by_type[type_]}
            for type_ in counts.chunks_by_type
        },
        "unknown_chunks": counts.unknown,
    }


def _error(error: FormatError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "offset": error.offset}


def verify(file: BinaryIO) -> str:
    """Decode a whole file and return its motion hash, which matched.

    Raises:
        FormatError: any code of SPEC.md section 14.
    """
    from sglat.bitstream.reader import BATCH_GROUPS, Reader

    reader = Reader(file)
    for _ in reader.groups(batch_groups=BATCH_GROUPS):
        pass
    assert reader.end is not None  # groups() ends with ENDS or raises
    return reader.end.motion_sha256.hex()
