"""Edits without a network: chunks are copied, motion bytes verbatim (SPEC.md section 13)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from sglat.bitstream import extras, origins
from sglat.bitstream.chunks import BODY_CHUNKS, Chunk
from sglat.bitstream.constants import FIRST_VERSION, UPPER_VERSION
from sglat.bitstream.demux import Demuxer, End, Event, Group, Index, Placement
from sglat.bitstream.groups import unpack_motion
from sglat.bitstream.identity import (
    HASH_BYTES,
    NEUTRAL_BYTES,
    identity_hash,
    layer_version,
    pack_reference,
)
from sglat.bitstream.records import AudioFormat, Header, IdentityReference
from sglat.bitstream.writer import Muxer
from sglat.errors import BundleMismatchError, FormatError, SglatError, UsageError
from sglat.files import naming

IDENTITY_CHUNKS = ("IDEN", "LAYR", "IREF")
LOOK_CHUNKS = (*IDENTITY_CHUNKS, "PLAT", "THMB", "PROV")
"""What `swap` takes from the identity file."""


class Source:
    """A file opened for an edit: its preamble in memory, its body event by event."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        with naming(file):
            self._open()

    def _open(self) -> None:
        self._demuxer = Demuxer(self._file)
        self.header: Header = self._demuxer.header
        self.preamble: list[Chunk] = []
        """Chunks between HEAD and the first MOTN, PLAC or APKT; unknown bound ones left out."""
        self.end: extras.End | None = None
        while self._demuxer.peek() not in (*BODY_CHUNKS, "INDX", "ENDS", ""):
            event = next(self._demuxer)
            if event.is_copied:
                self.preamble.append(event.chunk)

    def payload(self, type_: str) -> bytes | None:
        """Return the payload of the first chunk of a type."""
        return next((chunk.payload for chunk in self.preamble if chunk.type == type_), None)

    def identity_payloads(self) -> list[bytes]:
        """Return the payloads of IDEN and LAYR."""
        return [chunk.payload for chunk in self.preamble if chunk.type in ("IDEN", "LAYR")]

    def identity_sha256(self) -> bytes | None:
        """Return the identity hash, stored or referenced."""
        reference = self.payload("IREF")
        if reference is not None:
            return reference[:HASH_BYTES]
        payloads = self.identity_payloads()
        return identity_hash(payloads) if payloads else None

    def audio(self) -> AudioFormat | None:
        """Return the audio format of the preamble."""
        payload = self.payload("AHDR")
        return None if payload is None else extras.unpack_audio_format(payload)

    def body(self) -> Iterator[Event]:
        """Yield what follows the preamble and is copied, without INDX; sets `end` at ENDS."""
        while True:
            with naming(self._file):
                event = next(self._demuxer, None)
            if event is None:
                return
            if isinstance(event, End):
                self.end = event.end
            elif event.is_copied and not isinstance(event, Index):
                yield event


def _copy_body(source: Source, muxer: Muxer) -> None:
    """Copy everything after the preamble verbatim and end the file with the source's hash."""
    for event in source.body():
        if isinstance(event, Group):
            muxer.put_group(event.chunk.payload, event.head)
        else:
            muxer.copy([event.chunk])
    assert source.end is not None  # a demuxer ends with ENDS or raises
    muxer.finish(source.end.motion_sha256)


def check_same_decoder(one: Header, other: Header) -> None:
    """Refuse to combine files that were made for different decoders.

    Raises:
        BundleMismatchError: `decoder-mismatch`.
    """
    if one.decoder_id != other.decoder_id:
        raise BundleMismatchError(
            "decoder-mismatch",
            f"expected decoder {one.decoder_id.hex()[:16]} (bundle {one.bundle}), "
            f"found {other.decoder_id.hex()[:16]} (bundle {other.bundle})",
        )
    if one.w_dim != other.w_dim:
        raise BundleMismatchError(
            "decoder-mismatch", f"expected latents {one.w_dim} wide, found {other.w_dim}"
        )


def _readable_like(header: Header, other: Header) -> Header:
    """Return a header that asks for a reader who can read both files."""
    return replace(header, read_version=max(header.read_version, other.read_version))


def swap(motion: BinaryIO, identity: BinaryIO, out: BinaryIO) -> None:
    """Write one file's motion with another file's identity; motion bytes are copied verbatim.

    Raises:
        BundleMismatchError: the files were made for different decoders.
    """
    body, look = Source(motion), Source(identity)
    with naming(identity):
        check_same_decoder(body.header, look.header)
        if not any(chunk.type in IDENTITY_CHUNKS for chunk in look.preamble):
            raise FormatError("no-identity", "expected IDEN or IREF in the identity file")
    header = replace(
        _readable_like(body.header, look.header), resolution=look.header.resolution,
        num_ws=look.header.num_ws, upper_id=look.header.upper_id,
    )  # fmt: skip
    muxer = Muxer(out, header)
    kept = [type_ for type_ in LOOK_CHUNKS if type_ != "PROV"]
    muxer.copy([chunk for chunk in look.preamble if chunk.type in kept])
    record = origins.swapped(look.payload("PROV"), body.payload("PROV"))
    if record is not None:
        muxer.put("PROV", record)
    neutral = body.payload("NEUT") or (body.payload("IDEN") or b"")[:NEUTRAL_BYTES]
    if neutral:
        muxer.put("NEUT", neutral)
    muxer.copy([c for c in body.preamble if c.type not in (*LOOK_CHUNKS, "NEUT")])
    _copy_body(body, muxer)


def rewrite(file: BinaryIO, out: BinaryIO) -> None:
    """Write the same file again, with a new index; unknown bound chunks fall away."""
    source = Source(file)
    muxer = Muxer(out, source.header)
    muxer.copy(source.preamble)
    _copy_body(source, muxer)


def replace_provenance(file: BinaryIO, out: BinaryIO, payload: bytes) -> None:
    """Write the same file with another PROV."""
    source = Source(file)
    muxer = Muxer(out, source.header)
    muxer.copy([chunk for chunk in source.preamble if chunk.type != "PROV"])
    muxer.put("PROV", payload)
    _copy_body(source, muxer)


def drop_layers(file: BinaryIO, out: BinaryIO, *, keep: int) -> None:
    """Write a file with only the first `keep` identity layers, for any reader who knows these.

    Raises:
        UsageError: `keep` is less than one, or more than the file has.
    """
    if keep < 1:
        raise UsageError("bad-layers", f"expected at least 1 layer to keep, got {keep}")
    source = Source(file)
    layers = [chunk for chunk in source.preamble if chunk.type in ("IDEN", "LAYR")]
    if keep > len(layers):
        raise UsageError("bad-layers", f"expected at most {len(layers)} layers, got {keep}")
    dropped = layers[keep:]
    header = source.header
    if dropped:
        shape = (header.num_ws, header.w_dim)
        versions = (
            layer_version(chunk.payload, shape, offset=chunk.payload_offset)
            for chunk in layers[1:keep]
        )
        least = FIRST_VERSION if header.upper_id is None else UPPER_VERSION
        header = replace(header, read_version=max([least, *versions]))
    muxer = Muxer(out, header)
    muxer.copy([chunk for chunk in source.preamble if chunk not in dropped])
    _copy_body(source, muxer)


def strip(file: BinaryIO, out: BinaryIO) -> None:
    """Write a file without META, THMB and settings; provenance and consent stay."""
    source = Source(file)
    muxer = Muxer(out, replace(source.header, settings={}))
    muxer.copy([chunk for chunk in source.preamble if chunk.type not in ("META", "THMB")])
    _copy_body(source, muxer)


def detach(file: BinaryIO, out: BinaryIO, identity_out: BinaryIO, *, hint: str = "") -> bytes:
    """Write the identity to a file of its own and a reference in its place; return its hash.

    Raises:
        FormatError: `no-identity` if it is detached already; any other code.
    """
    source = Source(file)
    payloads = source.identity_payloads()
    if not payloads:
        raise FormatError("no-identity", "expected an identity to detach, found none")
    sha256 = identity_hash(payloads)
    alone = Muxer(identity_out, replace(source.header, frame_count=None, settings={}))
    alone.copy([chunk for chunk in source.preamble if chunk.type in LOOK_CHUNKS])
    alone.finish(hashlib.sha256().digest())
    muxer = Muxer(out, source.header)
    muxer.put("IREF", pack_reference(IdentityReference(sha256=sha256, hint=hint)))
    muxer.copy([chunk for chunk in source.preamble if chunk.type not in IDENTITY_CHUNKS])
    _copy_body(source, muxer)
    return sha256


def attach(file: BinaryIO, identity: BinaryIO, out: BinaryIO) -> None:
    """Write a file with the detached identity that it refers to.

    Raises:
        FormatError: `identity-mismatch` if it is another one; any other code.
    """
    source, look = Source(file), Source(identity)
    expected, found = source.identity_sha256() or b"", look.identity_sha256() or b""
    with naming(identity):
        check_same_decoder(source.header, look.header)
        if expected != found:
            raise FormatError(
                "identity-mismatch", f"expected {expected.hex()}, found {found.hex()}"
            )
    muxer = Muxer(out, _readable_like(source.header, look.header))
    muxer.copy([chunk for chunk in look.preamble if chunk.type in ("IDEN", "LAYR")])
    muxer.copy([chunk for chunk in source.preamble if chunk.type != "IREF"])
    _copy_body(source, muxer)


def salvage(file: BinaryIO, out: BinaryIO) -> SglatError | None:
    """Write everything before the damage as a whole file; return what was wrong.

    Raises:
        FormatError: the damage comes before identity and header are complete.
    """
    source = Source(file)
    muxer = Muxer(out, replace(source.header, frame_count=None))
    muxer.copy(source.preamble)
    digest = hashlib.sha256()
    damage: SglatError | None = None
    waiting: list[Chunk] = []  # placement goes out only with its group
    try:
        for event in source.body():
            match event:
                case Group(head=head):
                    values = unpack_motion(head, source.header).values
                    muxer.copy(waiting)
                    muxer.put_group(event.chunk.payload, head)
                    digest.update(values.astype("<i4").tobytes())
                    waiting = []
                case Placement():
                    waiting = [event.chunk]
                case _:
                    muxer.copy([event.chunk])
    except FormatError as error:
        damage = error
    if damage is None and source.end is not None and source.end.motion_sha256 != digest.digest():
        damage = FormatError("motion-hash", "expected the motion that was written, found another")
    muxer.finish(digest.digest())
    return damage
