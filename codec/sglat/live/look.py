"""The identity of a call: taken from a file, sent once, and kept by its hash."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.edits import LOOK_CHUNKS, Source
from sglat.bitstream.identity import identity_hash
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import Header, Identity, Provenance
from sglat.bitstream.writer import Muxer
from sglat.bundles.bundle import home_folder
from sglat.errors import FormatError, SglatError, UsageError
from sglat.files import naming, open_input, write_atomically
from sglat.live.rtp import CLOCK_RATE
from sglat.marks.marking import Shown
from sglat.version import __version__

MAX_LOOK_BYTES: Final = 1 << 23  # eight times the largest identity of the embedded bundle's rungs
MAX_ANCHOR: Final = 1 << 19


@dataclass(frozen=True, kw_only=True)
class Look:
    """One person as both ends of a call hold them."""

    header: Header
    """Of the call: a recording begins with it."""
    data: bytes
    """A file with identity, provenance and perhaps pictures, without motion."""
    sha256: bytes
    """The identity hash of SPEC.md section 6.3."""
    identity: Identity
    provenance: Provenance | None

    @property
    def shown(self) -> Shown:
        """Whom the pictures of a call show."""
        provenance = self.provenance
        return Shown(
            identity_sha256=self.sha256,
            decoder_id=self.header.decoder_id,
            generated_by=provenance.generated_by if provenance else self.header.encoder or "sglat",
            provenance=provenance,
        )

    @property
    def anchor(self) -> NDArray[np.int32]:
        """The neutral in steps, `[34]`."""
        steps = self.header.motion_steps.astype(np.float64)
        nearest = np.rint(self.identity.neutral.astype(np.float64) / steps)
        return np.clip(nearest, -MAX_ANCHOR, MAX_ANCHOR).astype(np.int32)

    @property
    def frame_ticks(self) -> int:
        """Time from frame to frame in ticks of 1/90000 s."""
        assert self.header.frame_ticks is not None  # `call_header` sets it
        return self.header.frame_ticks


def call_header(header: Header, frame_rate: Fraction) -> Header:
    """Return the header of a call with a person of a file."""
    return replace(
        header,
        time_base=Fraction(1, CLOCK_RATE),
        frame_ticks=round(CLOCK_RATE / frame_rate),
        start_ticks=0,
        frame_count=None,
        source_size=None,
        placement_steps=None,
        encoder=f"sglat {__version__}",
        settings={},
        extra={},
    )


def read_look(path: Path, frame_rate: Fraction = Fraction(25)) -> Look:
    """Return the person of any `.sglat` file that holds its identity.

    Raises:
        FormatError: any code; UsageError: no such file, or only a reference to an identity.
    """
    with open_input(path) as file, naming(path):
        source = Source(file)
        payloads = source.identity_payloads()
        if not payloads:
            raise UsageError(
                "no-identity", f"expected an identity in {path}, found a reference to another file"
            )
        header = call_header(source.header, frame_rate)
        out = io.BytesIO()
        muxer = Muxer(out, header)
        muxer.copy([chunk for chunk in source.preamble if chunk.type in LOOK_CHUNKS])
        muxer.finish(hashlib.sha256().digest())
    return unpack_look(out.getvalue(), header, identity_hash(payloads))


def unpack_look(data: bytes, header: Header, sha256: bytes) -> Look:
    """Read an identity file that was sent or kept.

    Raises:
        FormatError: any code; `identity-mismatch` if it is not the one with this hash.
    """
    if len(data) > MAX_LOOK_BYTES:
        raise FormatError(
            "bad-layer", f"expected an identity of at most {MAX_LOOK_BYTES} bytes, found more"
        )
    reader = Reader(io.BytesIO(data))
    if reader.identity is None or reader.identity_sha256 != sha256:
        found = "none" if reader.identity_sha256 is None else reader.identity_sha256.hex()
        raise FormatError("identity-mismatch", f"expected {sha256.hex()}, found {found}")
    if (reader.header.decoder_id, reader.header.num_ws) != (header.decoder_id, header.num_ws):
        raise FormatError("identity-mismatch", "expected the identity's decoder in the offer")
    return Look(
        header=header,
        data=data,
        sha256=sha256,
        identity=reader.identity,
        provenance=reader.provenance,
    )


def cache_path(sha256: bytes) -> Path:
    """Return where an identity is kept."""
    return home_folder() / "identities" / f"{sha256.hex()}.sglat"


def load_cached(header: Header, sha256: bytes) -> Look | None:
    """Return a kept identity; None if there is none, or a damaged one."""
    path = cache_path(sha256)
    try:
        if not path.is_file() or path.stat().st_size > MAX_LOOK_BYTES:
            return None
        return unpack_look(path.read_bytes(), header, sha256)
    except (SglatError, OSError):
        return None


def store_cached(look: Look) -> None:
    """Keep an identity; a folder that cannot be written costs only the next transfer."""
    path = cache_path(look.sha256)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, look.data)
    except (OSError, SglatError):
        return
