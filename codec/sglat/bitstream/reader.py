"""Bytes to records: a streaming reader, and random access where the file allows it (SPEC.md 12)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final

from sglat.bitstream import demux, extras
from sglat.bitstream.constants import MAX_IDENTITY_VALUES
from sglat.bitstream.groups import (
    GroupHead,
    join_motion,
    motion_model,
    motion_of,
    unpack_motion,
)
from sglat.bitstream.identity import IdentityDigest
from sglat.bitstream.layers import count_integers
from sglat.bitstream.motion_batch import LEAST_GROUPS, unpack_frames_batch
from sglat.bitstream.records import (
    AudioFormat,
    AudioPacket,
    DeltaLayer,
    Float32,
    Header,
    Identity,
    IdentityReference,
    LatentLayer,
    Motion,
    Picture,
    Placement,
    Provenance,
)
from sglat.bitstream.seek import SeekableFile
from sglat.errors import FormatError, SglatError
from sglat.files import StrPath, naming, open_input

BATCH_GROUPS: Final = 128  # decoded side by side by `Reader.read_all`


@dataclass(frozen=True, kw_only=True)
class Group:
    """One motion group and what came with it."""

    motion: Motion
    placement: Placement | None
    packets: tuple[AudioPacket, ...]
    """Audio packets since the group before."""


class Reader:
    """Reads one file front to back, pipes included; holds one group at a time.

    What stands before the first motion group is read at once.

    Args:
        file: open for reading in binary mode; it is not closed.
        max_layers: stop after this many identity layers; None takes all.
    """

    def __init__(self, file: BinaryIO, *, max_layers: int | None = None) -> None:
        self.identity: Identity | None = None
        self.identity_sha256: bytes | None = None
        self.identity_reference: IdentityReference | None = None
        self.motion_neutral: Float32 | None = None
        self.audio_format: AudioFormat | None = None
        self.plate: Picture | None = None
        self.thumbnail: Picture | None = None
        self.provenance: Provenance | None = None
        self.metadata: dict[str, str] = {}
        self.end: extras.End | None = None
        self.trailing_packets: tuple[AudioPacket, ...] = ()
        """Audio after the last group; complete when the groups are."""
        self._max_layers = max_layers
        self._layers: list[LatentLayer | DeltaLayer] = []
        self._identity_digest = IdentityDigest()
        self._room = MAX_IDENTITY_VALUES
        self._digest = hashlib.sha256()
        self._packets: list[AudioPacket] = []
        self._waiting_placement: Placement | None = None
        self._pending: list[tuple[GroupHead, Placement | None, tuple[AudioPacket, ...]]] = []
        self._ready: list[Group] = []
        self._file = file
        self._has_skipped = False
        with naming(file):
            self._demuxer = demux.Demuxer(file)
            self.header: Header = self._demuxer.header
            self._has_more = self._read_to_group()

    def _read_to_group(self) -> bool:
        """Handle events up to the next group; return whether there is one."""
        while type_ := self._demuxer.peek():
            if type_ == "MOTN":
                self._finish_identity()
                return True
            if type_ == "ENDS":
                self._decode_pending()
            self._take(next(self._demuxer))
        self._finish_identity()
        self.trailing_packets = tuple(self._packets)
        return False

    def _take(self, event: demux.Event) -> None:
        match event:
            case demux.Layer():
                self._take_layer(event)
            case demux.Reference():
                self.identity_reference = event.unpack()
            case demux.Neutral():
                self.motion_neutral = event.unpack()
            case demux.Placement():
                self._waiting_placement = event.placement
            case demux.Sound():
                self.audio_format = event.unpack()
            case demux.Packets():
                self._packets += event.packets
            case demux.Picture() if event.is_plate:
                self.plate = event.unpack()
            case demux.Picture():
                self.thumbnail = event.unpack()
            case demux.Provenance():
                self.provenance = event.unpack()
            case demux.Metadata():
                self.metadata = event.unpack()
            case demux.End():
                self.end = event.end
                self._check_hash(event)

    def _take_layer(self, event: demux.Layer) -> None:
        self._identity_digest.update(event.chunk.payload)
        if event.number == 0:
            self._neutral, self._id_frame, base = event.unpack_base()
            self._layers = [base]
        elif self._max_layers is None or event.number < self._max_layers:
            self._layers.append(event.unpack(self._room))
        self._room = MAX_IDENTITY_VALUES - sum(map(count_integers, self._layers))

    def _finish_identity(self) -> None:
        if self._layers and self.identity is None:
            self.identity = Identity(
                layers=tuple(self._layers), neutral=self._neutral, id_frame=self._id_frame
            )
            self.identity_sha256 = self._identity_digest.digest()

    def skip_to(self, ticks: int) -> None:
        """Go on shortly before a time, by the index; groups in between are neither read nor hashed.

        To be called before the first group is taken. Without an index, or in a pipe, nothing is
        skipped.

        Raises:
            FormatError: the index names another place.
        """
        if not self._file.seekable():
            return
        source, sound = self._demuxer.source, self.audio_format
        back = source.position
        heard = None if sound is None else int(ticks * self.header.time_base / sound.time_base)
        place = SeekableFile(self._file).place_before(ticks, heard)
        source.jump(back)
        if place is None:
            return
        self._demuxer.skip_to(*place)
        self._has_skipped, self._waiting_placement, self._packets = True, None, []
        with naming(self._file):
            self._has_more = self._read_to_group()

    def _check_hash(self, event: demux.End) -> None:
        if self._has_skipped:
            return
        found = self._digest.digest()
        if found != event.end.motion_sha256:
            raise FormatError(
                "motion-hash",
                f"expected {event.end.motion_sha256.hex()}, found {found.hex()}",
                offset=event.chunk.offset,
            )

    def _decode_pending(self) -> None:
        """Decode the groups that wait, side by side where possible."""
        waiting, self._pending = self._pending, []
        heads = [head for head, _, _ in waiting]
        decoded = None
        if len(heads) >= LEAST_GROUPS:
            streams, counts = [h.stream for h in heads], [h.frame_count for h in heads]
            decoded = unpack_frames_batch(streams, counts, motion_model(self.header))
        for at, (head, placement, packets) in enumerate(waiting):
            if decoded is None:
                motion = unpack_motion(head, self.header)
            else:
                motion = motion_of(head, decoded[at], self.header)
            self._digest.update(motion.values.astype("<i4").tobytes())
            self._ready.append(Group(motion=motion, placement=placement, packets=packets))

    def _take_group(self, batch_groups: int) -> None:
        event = next(self._demuxer)
        assert isinstance(event, demux.Group)  # its type was peeked at
        self._pending.append((event.head, self._waiting_placement, tuple(self._packets)))
        self._waiting_placement, self._packets = None, []
        if len(self._pending) >= batch_groups:
            self._decode_pending()

    def groups(self, *, batch_groups: int = 1) -> Iterator[Group]:
        """Yield motion groups in order.

        The last step compares count and motion hash with the end of the file. With `batch_groups`
        of 1 each group comes as soon as its bytes are here; more are decoded side by side, which is
        several times faster for long files.
        """
        while self._has_more:
            with naming(self._file):
                self._take_group(batch_groups)
            yield from self._drain()
            with naming(self._file):
                self._has_more = self._read_to_group()
        yield from self._drain()

    def _drain(self) -> Iterator[Group]:
        ready, self._ready = self._ready, []
        yield from ready

    def read_all(self) -> list[Group]:
        """Return all groups, decoded side by side."""
        return list(self.groups(batch_groups=BATCH_GROUPS))

    def read_motion(self) -> Motion:
        """Return the motion of the whole file as one record, `[T, 34]`."""
        return join_motion([group.motion for group in self.read_all()], self.header)


@contextmanager
def open_reader(path: StrPath, *, max_layers: int | None = None) -> Iterator[Reader]:
    """Yield a reader of a file on disk.

    Raises:
        FormatError: the preamble breaks the specification.
        UsageError: no such file.
    """
    with open_input(path) as file:
        yield Reader(file, max_layers=max_layers)


def load_identity(path: StrPath) -> Identity:
    """Return the identity of a file, a detached one or a complete one.

    Raises:
        FormatError: any code; `no-identity` when it is only referenced.
    """
    with open_reader(path) as reader:
        if reader.identity is None:
            raise FormatError("no-identity", f"expected an identity in {path}, found a reference")
        return reader.identity


def identity_beside(file: object, reference: IdentityReference) -> Path | None:
    """Return the file with a detached identity, if it lies beside a file that refers to it.

    A hint is a name and never a path; the identity's hash decides (SPEC.md 6.3).

    Args:
        file: path, or open file; one without a name has nothing beside it.
        reference: in that file.
    """
    name = file if isinstance(file, str | PathLike) else getattr(file, "name", None)
    hint = reference.hint
    if not isinstance(name, str | PathLike) or name == "<stdin>" or Path(hint).name != hint:
        return None
    try:
        path = Path(name).with_name(hint)
        if not path.is_file():
            return None
        with open_reader(path) as other:
            return path if other.identity_sha256 == reference.sha256 else None
    except (OSError, ValueError, SglatError):  # another file of this name
        return None


def check_identity_file(reader: Reader, sha256: bytes) -> None:
    """Compare a detached identity with the reference in a file."""
    reference = reader.identity_reference
    if reference is not None and reference.sha256 != sha256:
        raise FormatError(
            "identity-mismatch", f"expected {reference.sha256.hex()}, found {sha256.hex()}"
        )
