"""What a decoded video says of its file, and its signature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from sglat.bitstream.records import Provenance
from sglat.decoder.decode import Decoder
from sglat.marks.c2pa import Claim, load_library, media_type, sign_media
from sglat.marks.keys import Signer
from sglat.marks.provenance import SOURCE_TYPE, source_stores
from sglat.marks.watermark import Watermark


def source_type(decoder: Decoder) -> str:
    """Return the digital source type that the encoded video carried; empty if none."""
    provenance = decoder.reader.provenance
    found = None if provenance is None else provenance.extra.get(SOURCE_TYPE)
    return found if isinstance(found, str) else ""


def watermark_of(identity: bytes, provenance: Provenance | None) -> Watermark:
    """Return the watermark of what a file or a call shows; its identifier is the start of a SHA-256
    over the identity's hash and the fields of PROV that outlive an edit of the signature."""
    digest = hashlib.sha256(b"sglat watermark\0" + identity)
    if provenance is not None:
        for field in (provenance.generated_by, provenance.consent, provenance.note):
            digest.update(field.encode("utf-8", "replace") + b"\0")
        digest.update(provenance.source_sha256)
    return Watermark(digest.digest())


def watermark(decoder: Decoder) -> Watermark:
    """Return the watermark of a decoded file."""
    reader = decoder.reader
    reference = reader.identity_reference
    identity = reference.sha256 if reference is not None else reader.identity_sha256
    return watermark_of(identity or b"", reader.provenance)


def facts(decoder: Decoder) -> dict[str, str]:
    """Return what the signature of a decoded video covers beside its pictures; complete only when
    all frames are decoded."""
    reader = decoder.reader
    reference, provenance = reader.identity_reference, reader.provenance
    identity = reference.sha256 if reference is not None else reader.identity_sha256
    found = {
        "identity_sha256": (identity or b"").hex(),
        "motion_sha256": reader.end.motion_sha256.hex() if reader.end is not None else "",
        "decoder_id": decoder.header.decoder_id.hex(),
    }
    if provenance is not None:
        found |= {
            "consent": provenance.consent,
            "source_sha256": provenance.source_sha256.hex(),
            "source_type": source_type(decoder),
            "note": provenance.note,
        }
    return found


def finisher(
    decoder: Decoder, signer: Signer, target: Path, *, onto: Path | None, is_composite: bool,
    is_folder: bool = False, more: dict[str, str] | None = None,
) -> Callable[[Path], None] | None:  # fmt: skip
    """Return what signs each complete output file; None where C2PA has no place in the container.

    Args:
        decoder: of the file; its facts are read when the output is complete.
        signer: whose name the signature bears.
        target: the output, a video or a folder of PNG.
        onto: video or picture that the face is pasted into.
        is_composite: the face is pasted into recorded pictures.
        is_folder: the output is a folder of PNG.
        more: further facts.

    Raises:
        MissingExtraError: c2pa-python is not installed.
    """
    load_library()
    if not _has_place(target, is_folder=is_folder):
        return None
    provenance = decoder.reader.provenance

    def finish(path: Path) -> None:
        claim = Claim(
            title=target.name,
            generated_by=provenance.generated_by if provenance else decoder.header.encoder,
            is_composite=is_composite,
            facts=facts(decoder) | (more or {}),
            stores=source_stores(provenance),
            parent=onto,
        )
        sign_media(path, claim, signer)

    return finish


def _has_place(target: Path, *, is_folder: bool) -> bool:
    return is_folder or bool(media_type(target))


def signed_by(signer: Signer | None, target: Path, *, is_folder: bool) -> str:
    """Return who signs an output; empty if nobody does."""
    is_signed = signer is not None and _has_place(target, is_folder=is_folder)
    return signer.title if signer is not None and is_signed else ""


def notes(signer: Signer | None, target: Path, *, is_folder: bool) -> list[str]:
    """Return what a user should know of the signature of an output, one line each."""
    if signer is None:
        return []
    if name := signed_by(signer, target, is_folder=is_folder):
        return [f"signed by {name} (C2PA)"]
    where = f"a {target.suffix} file" if target.suffix else "raw frames"
    return [f"not signed: C2PA has no place in {where}, which carries tags alone"]
