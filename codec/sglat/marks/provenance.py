"""Signed provenance of `.sglat` files, and marks of the source that they carry (SPEC.md 10.1)."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from sglat.bitstream.edits import Source, replace_provenance, rewrite
from sglat.bitstream.extras import pack_provenance, unpack_provenance
from sglat.bitstream.origins import (
    DRIVE,
    HASH_BYTES,
    LABEL,
    LOOK,
    SIGNED_KEYS,
    drive_origins,
    label_of,
    look_origin,
    pack_fitting,
)
from sglat.bitstream.records import Provenance
from sglat.errors import FormatError, MissingExtraError, SglatError, UsageError
from sglat.files import atomic_file, open_input
from sglat.marks.embedded import read_embedded
from sglat.marks.keys import Signer
from sglat.marks.search import search_watermark
from sglat.marks.tags import container_tags, read_tags

MESSAGE_HEAD: Final = b"sglat PROV signature 1\0"
MAX_STORE_BYTES: Final = 24_576  # of the 65536 of PROV; consent takes half
MAX_SIGNER_BYTES: Final = 256
MAX_TYPE_BYTES: Final = 256
STORE, STORE_HASH, SOURCE_TYPE = "c2pa", "c2pa_sha256", "source_type"
SOURCE_WATERMARK: Final = "source_watermark"
SEARCHED_FRAMES: Final = 64
"""Of a source, which are searched for its watermark: 2.6 s at 25 fps."""

State = Literal["none", "holds", "broken", "unchecked"]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What the signature of one PROV record says."""

    state: State
    """`unchecked`: cryptography is not installed."""
    signer: str = ""
    """Name that the signer gives himself."""
    key: bytes = b""
    """Ed25519 public key."""
    identity_sha256: bytes = b""
    motion_sha256: bytes = b""
    time: int | None = None
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A record of a file that this one was made from."""

    role: Literal["look", "motion"]
    record: Provenance | None
    """None: only its hash was kept, or it is damaged."""
    signature: Signature
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Provenances:
    """The provenance of one `.sglat` file."""

    record: Provenance | None
    signature: Signature
    is_covered: bool
    """The signature is for the identity and motion that are in the file."""
    identity_sha256: bytes = b""
    """Of the file itself."""
    origins: tuple[Origin, ...] = ()


def unsigned(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the further keys of a record without its signature."""
    return {key: value for key, value in extra.items() if key not in SIGNED_KEYS}


def signed_record(
    payload: bytes, signer: Signer, *, identity_sha256: bytes, motion_sha256: bytes,
    seconds: int | None = None,
) -> bytes:  # fmt: skip
    """Return a PROV payload with a signature.

    A record that somebody has signed already for another file becomes an origin of the new one.

    Args:
        payload: PROV so far.
        signer: with an Ed25519 key.
        identity_sha256: identity hash of the file.
        motion_sha256: motion hash of the file.
        seconds: time of signing since 1970; None leaves it out, so that the bytes repeat.

    Raises:
        UsageError: `bad-key` for a key of another kind.
    """
    private = signer.ed25519()
    if private is None:
        raise UsageError(
            "bad-key", f"expected an Ed25519 key to sign .sglat files, found {signer.algorithm}"
        )
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    record = unpack_provenance(payload)
    extra = unsigned(record.extra)
    found = signature_of(payload)
    if found.state != "none" and (
        (found.identity_sha256, found.motion_sha256) != (identity_sha256, motion_sha256)
    ):
        extra |= {LOOK: look_origin(payload) or payload, DRIVE: drive_origins(payload)}
    extra |= {
        "identity": identity_sha256,
        "motion": motion_sha256,
        "signer": _cut(signer.title, MAX_SIGNER_BYTES),
        "key": private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        "sig": bytes(64),
    }
    if seconds is not None:
        extra["time"] = seconds
    fitting = unpack_provenance(pack_fitting(replace(record, extra=extra)))
    signature = private.sign(_message(fitting))
    return pack_provenance(replace(fitting, extra=fitting.extra | {"sig": signature}))


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode("utf-8", "ignore")


def _message(record: Provenance) -> bytes:
    extra = {key: value for key, value in record.extra.items() if key != "sig"}
    return MESSAGE_HEAD + pack_provenance(replace(record, extra=extra))


def signature_of(payload: bytes) -> Signature:
    """Return whether the signature of a record holds; the file it lies in is not looked at.

    Raises:
        FormatError: no PROV record.
    """
    record = unpack_provenance(payload)
    extra = record.extra
    if "sig" not in extra and "key" not in extra:
        return Signature(state="none")
    name, seconds = extra.get("signer", ""), extra.get("time")
    said = Signature(
        state="broken",
        signer=name if isinstance(name, str) else "",
        key=_bytes(extra, "key", 32),
        identity_sha256=_bytes(extra, "identity", 32),
        motion_sha256=_bytes(extra, "motion", 32),
        time=seconds if isinstance(seconds, int) and 0 <= seconds < 1 << 40 else None,
    )
    signature = _bytes(extra, "sig", 64)
    if not (said.key and signature and said.identity_sha256 and said.motion_sha256):
        return said
    if "time" in extra and said.time is None:
        return said
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        return replace(said, state="unchecked")
    try:
        Ed25519PublicKey.from_public_bytes(said.key).verify(signature, _message(record))
    except (InvalidSignature, ValueError):
        return said
    return replace(said, state="holds")


def _bytes(extra: dict[str, Any], key: str, size: int) -> bytes:
    value = extra.get(key)
    return value if isinstance(value, bytes) and len(value) == size else b""


def read_provenance(file: BinaryIO) -> Provenances:
    """Return the provenance of a `.sglat` file and whether its signatures hold.

    Raises:
        FormatError: damage anywhere in the file.
    """
    source = Source(file)
    payload = source.payload("PROV")
    identity, motion = _hashes(source)
    if payload is None:
        nothing = Signature(state="none")
        return Provenances(
            record=None, signature=nothing, is_covered=False, identity_sha256=identity
        )
    signature = signature_of(payload)
    has_motion = source.end is not None and source.end.frame_count > 0
    is_covered = signature.identity_sha256 == identity and (
        signature.motion_sha256 == motion or not has_motion
    )
    record = unpack_provenance(payload)
    origins = []
    if (look := look_origin(payload)) is not None:
        origins.append(_origin("look", look))
    if DRIVE in record.extra:
        origins += [_origin("motion", item) for item in drive_origins(payload) if item != payload]
    return Provenances(
        record=record, signature=signature, is_covered=is_covered, identity_sha256=identity,
        origins=tuple(origins),
    )  # fmt: skip


def _hashes(source: Source) -> tuple[bytes, bytes]:
    """Read a file to its end; return its identity and motion hashes."""
    identity = source.identity_sha256() or b""
    for _ in source.body():
        pass
    assert source.end is not None  # body() ends with ENDS or raises
    return identity, source.end.motion_sha256


def _origin(role: Literal["look", "motion"], payload: bytes) -> Origin:
    if len(payload) == HASH_BYTES:
        nothing = Signature(state="none")
        return Origin(role=role, record=None, signature=nothing, sha256=payload.hex())
    sha256 = hashlib.sha256(payload).hexdigest()
    try:
        record, signature = unpack_provenance(payload), signature_of(payload)
    except FormatError:
        return Origin(role=role, record=None, signature=Signature(state="broken"), sha256=sha256)
    return Origin(role=role, record=record, signature=signature, sha256=sha256)


def sign(file: BinaryIO, out: BinaryIO, signer: Signer, *, seconds: int | None = None) -> None:
    """Write a `.sglat` file with its provenance signed. The input must be seekable.

    Raises:
        FormatError: damage in the file.
        UsageError: as `signed_record`.
    """
    source = Source(file)
    payload = source.payload("PROV")
    if payload is None:
        payload = pack_provenance(Provenance(generated_by=source.header.encoder or "sglat"))
    identity, motion = _hashes(source)
    payload = signed_record(
        payload, signer, identity_sha256=identity, motion_sha256=motion, seconds=seconds
    )
    file.seek(0)
    replace_provenance(file, out, payload)


def put_label(file: BinaryIO, out: BinaryIO, text: str) -> None:
    """Write a `.sglat` file whose record asks decoders for a visible label; empty: for none.

    A signature does not cover the new record, so a signed one becomes an origin of it.

    Raises:
        FormatError: damage in the file.
    """
    source = Source(file)
    payload = source.payload("PROV")
    if payload is None:
        payload = pack_provenance(Provenance(generated_by=source.header.encoder or "sglat"))
    record = unpack_provenance(payload)
    if record.extra.get(LABEL, "") == text:
        file.seek(0)
        rewrite(file, out)
        return
    extra = unsigned(record.extra)
    if "sig" in record.extra:
        extra |= {LOOK: look_origin(payload) or payload, DRIVE: drive_origins(payload)}
    extra.pop(LABEL, None)
    if text:
        extra[LABEL] = text
    file.seek(0)
    replace_provenance(file, out, pack_fitting(replace(record, extra=extra)))


def sign_in_place(path: Path, signer: Signer, *, seconds: int | None = None) -> None:
    """Sign a complete `.sglat` file; at no time does a part of it bear its name."""
    with open_input(path) as file, atomic_file(path, force=True) as out:
        sign(file, out, signer, seconds=seconds)


def source_marks(path: Path) -> dict[str, Any]:
    """Return what PROV keeps of the marks of a source video: its C2PA manifest or the hash of it,
    its digital source type, and the identifier of its watermark; nothing for a video without marks,
    or one that cannot be read."""
    try:
        embedded = read_embedded(path)
    except SglatError:
        return {}
    kept: dict[str, Any] = {}
    if 0 < len(embedded.store) <= MAX_STORE_BYTES:
        kept[STORE] = embedded.store
    elif embedded.store:
        kept[STORE_HASH] = hashlib.sha256(embedded.store).digest()
    types = read_tags(embedded, container_tags(path)).source_types
    if types and len(types[0].encode()) <= MAX_TYPE_BYTES:
        kept[SOURCE_TYPE] = types[0]
    with suppress(SglatError):
        if identifier := search_watermark(path, SEARCHED_FRAMES)[0].id:
            kept[SOURCE_WATERMARK] = identifier
    return kept


def known_origin(identity: Path | None) -> tuple[str, dict[str, Any]]:
    """Return what a file keeps of the one that its known person comes from: their statement of
    consent, and keys of PROV with its record and its label.

    Raises:
        FormatError: damage in the file.
    """
    if identity is None:
        return "", {}
    with open_input(identity) as file:
        payload = Source(file).payload("PROV")
    if payload is None:
        return "", {}
    look = look_origin(payload) or payload
    return unpack_provenance(payload).consent, {LOOK: look} | label_of(payload)


def source_stores(record: Provenance | None) -> tuple[bytes, ...]:
    """Return the C2PA manifest stores of the sources of a file: of its own record and of those that
    it keeps, each once."""
    if record is None:
        return ()
    payloads = [look_origin(pack_provenance(record)) or b"", *record.extra.get(DRIVE, [])]
    records = [record]
    for payload in payloads:
        if isinstance(payload, bytes) and len(payload) > HASH_BYTES:
            with suppress(FormatError):
                records.append(unpack_provenance(payload))
    stores = [each.extra.get(STORE) for each in records]
    known = [s for s in stores if isinstance(s, bytes) and 0 < len(s) <= MAX_STORE_BYTES]
    return tuple(dict.fromkeys(known))


def need_cryptography() -> None:
    """Raise MissingExtraError where signatures can be neither made nor checked."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("cryptography", extra="c2pa") from error
