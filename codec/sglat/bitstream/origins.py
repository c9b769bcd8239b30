"""Records of origin that an edited file keeps of the files it was made from (SPEC.md 10.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sglat.bitstream.constants import CHUNKS
from sglat.bitstream.extras import pack_provenance, unpack_provenance
from sglat.bitstream.records import Provenance
from sglat.errors import FormatError

LOOK: Final = "look"
"""Key of the record of the file that the identity comes from: bytes."""
DRIVE: Final = "drive"
"""Key of the records of the files that the motion comes from: a list of bytes."""
LABEL: Final = "label"
"""Key of the visible label that decoders draw into the pictures: str."""
EDITS: Final = "edits"
"""Key of the edits of the motion by name, in their order: a list of str."""
SIGNED_KEYS: Final = ("identity", "motion", "signer", "time", "key", "sig")
"""Keys that a signature consists of."""
MAX_DRIVES: Final = 64
MAX_EDITS: Final = 128
MAX_EDIT_BYTES: Final = 160
HASH_BYTES: Final = 32
"""An origin of this length is the SHA-256 of a record that did not fit."""
NO_CONSENT: Final = "swapped without a consent statement of the person shown"


def look_origin(payload: bytes) -> bytes | None:
    """Return the record of the identity's own file; None if the payload is the only one."""
    found = unpack_provenance(payload).extra.get(LOOK)
    return found if isinstance(found, bytes) else None


def drive_origins(payload: bytes) -> list[bytes]:
    """Return the records of the files that the motion of a file comes from: those it keeps, or its
    own."""
    found = unpack_provenance(payload).extra.get(DRIVE)
    items = [item for item in found if isinstance(item, bytes)] if isinstance(found, list) else []
    return items or [payload]


def label_of(*payloads: bytes | None) -> dict[str, Any]:
    """Return the label of the first of several records that has one, as a key and its value."""
    for payload in payloads:
        extra = {} if payload is None else unpack_provenance(payload).extra
        if extra.get(LABEL):
            return {LABEL: extra[LABEL]}
    return {}


def swapped(look: bytes | None, motion: bytes | None) -> bytes | None:
    """Return PROV of a file with the identity of one file and the motion of another.

    Args:
        look: PROV of the identity's file.
        motion: PROV of the motion's file.

    Returns:
        A record that names both, unsigned; consent, note and source are those of the identity, the
        label that of either. None if neither file has one.
    """
    if look is None and motion is None:
        return None
    if look is None:
        assert motion is not None
        # The mark of synthetic media stays; the other person's consent does not carry over.
        shown = Provenance(generated_by=unpack_provenance(motion).generated_by)
    else:
        shown = unpack_provenance(look)
    extra = label_of(look, motion)
    if look is not None and shown.extra:  # else all of it stands in the new record
        extra[LOOK] = look_origin(look) or look
    if motion is not None:
        extra[DRIVE] = drive_origins(motion)
    notes = [note for note in shown.note.split("; ") if note and note != NO_CONSENT]
    if not shown.consent:
        notes.append(NO_CONSENT)
    return pack_fitting(
        Provenance(
            generated_by=shown.generated_by, consent=shown.consent, note="; ".join(notes),
            source_sha256=shown.source_sha256, extra=extra,
        )
    )  # fmt: skip


def derived(payload: bytes) -> bytes:
    """Return PROV of a file with the same identity and other motion: a signature does not cover it,
    so a signed record becomes an origin; an unsigned one stays as it is."""
    record = unpack_provenance(payload)
    if "sig" not in record.extra:
        return payload
    extra = {LOOK: look_origin(payload) or payload} | label_of(payload)
    return pack_fitting(replace(record, extra=extra))


def is_signed(payload: bytes) -> bool:
    """Tell whether a record has a signature, which need not hold."""
    return "sig" in unpack_provenance(payload).extra


def edits_of(record: Provenance) -> tuple[str, ...]:
    """Return the edits by name that a record names, the first one first."""
    found = record.extra.get(EDITS)
    return tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()


def edited(
    payload: bytes | None, texts: Sequence[str], drives: Sequence[bytes], *, made_by: str
) -> bytes:
    """Return PROV of a file whose motion was edited by name, unsigned.

    Args:
        payload: PROV of the file before; a signed one becomes an origin.
        texts: the edits in their order; of too many, the last ones are kept.
        drives: PROV of files whose motion was mixed in.
        made_by: program, for a file without a record.
    """
    record = Provenance(generated_by=made_by) if payload is None else unpack_provenance(payload)
    extra = {key: value for key, value in record.extra.items() if key not in SIGNED_KEYS}
    if payload is not None and (drives or "sig" in record.extra):
        others = [item for drive in drives for item in drive_origins(drive)]
        extra[LOOK] = look_origin(payload) or payload
        extra[DRIVE] = list(dict.fromkeys([*drive_origins(payload), *others]))
    elif drives:
        extra[DRIVE] = list(dict.fromkeys(item for d in drives for item in drive_origins(d)))
    cut = [text.encode()[:MAX_EDIT_BYTES].decode("utf-8", "ignore") for text in texts]
    extra[EDITS] = [*edits_of(record), *cut][-MAX_EDITS:]
    return pack_fitting(replace(record, extra=extra))


def joined(payloads: Sequence[bytes | None], *, is_swapped: bool = False) -> bytes | None:
    """Return PROV of files joined one after the other, the look being the first one's.

    The first file's record stays as it is where the others have the same or none.

    Args:
        payloads: PROV of each file.
        is_swapped: some motion is of a file with another look; without a statement of consent the
            note says so.
    """
    first, known = payloads[0], [payload for payload in payloads if payload is not None]
    if not known or (not is_swapped and all(payload == first for payload in known)):
        return first
    result = swapped(first, known[0])
    assert result is not None  # a file that differs from the first has a record
    record = unpack_provenance(result)
    drives = list(dict.fromkeys(item for payload in known for item in drive_origins(payload)))
    own = "" if first is None else unpack_provenance(first).note
    note = record.note if is_swapped else own
    return pack_fitting(
        Provenance(
            generated_by=record.generated_by, consent=record.consent, note=note,
            source_sha256=record.source_sha256,
            extra=record.extra | label_of(*known) | {DRIVE: drives},
        )
    )  # fmt: skip


def pack_fitting(record: Provenance) -> bytes:
    """Return a record that fits PROV: from its longest origins on, hashes take their place.

    Raises:
        FormatError: `bad-length` if consent and note alone are too long.
    """
    extra = dict(record.extra)
    if isinstance(extra.get(DRIVE), list):
        extra[DRIVE] = extra[DRIVE][:MAX_DRIVES]
    most = CHUNKS["PROV"].max_bytes
    while True:
        payload = pack_provenance(replace(record, extra=extra))
        if len(payload) <= most:
            return payload
        drives: list[bytes] = extra.get(DRIVE, [])
        look = extra.get(LOOK, b"")
        longest = max([look, *drives], key=len)
        if len(longest) <= HASH_BYTES:
            raise FormatError("bad-length", f"expected PROV of at most {most} bytes")
        short = hashlib.sha256(longest).digest()
        if look == longest:
            extra[LOOK] = short
        if drives:
            extra[DRIVE] = [short if item == longest else item for item in drives]
