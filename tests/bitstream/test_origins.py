"""Records of origin: what a swapped or joined file says of the files it was made from."""

from __future__ import annotations

import hashlib

import pytest

from sglat.bitstream.constants import CHUNKS
from sglat.bitstream.extras import pack_provenance, unpack_provenance
from sglat.bitstream.origins import NO_CONSENT, derived, drive_origins, joined, look_origin, swapped
from sglat.bitstream.records import Provenance
from sglat.errors import FormatError


def record(name: str, **fields: object) -> bytes:
    known: dict[str, object] = {
        "consent": f"{name} agrees",
        "source_sha256": name[:1].encode() * 32,
    }
    return pack_provenance(Provenance(generated_by="sglat", **{**known, **fields}))  # type: ignore[arg-type]


ANN, BEN = record("Ann"), record("Ben")
SIGNED = record("Cem", extra={"sig": b"s" * 64})


def test_a_swapped_file_has_the_consent_and_source_of_the_person_shown() -> None:
    found = unpack_provenance(swapped(ANN, BEN) or b"")
    assert (found.consent, found.source_sha256, found.note) == ("Ann agrees", b"A" * 32, "")


def test_a_swapped_file_keeps_the_record_of_the_motion() -> None:
    assert drive_origins(swapped(ANN, BEN) or b"") == [BEN]


def test_a_signed_record_of_the_identity_is_kept_byte_for_byte() -> None:
    result = swapped(SIGNED, BEN) or b""
    assert look_origin(result) == SIGNED
    assert "sig" not in unpack_provenance(result).extra


def test_a_second_swap_keeps_first_hands_only() -> None:
    first = swapped(SIGNED, BEN) or b""
    as_look = swapped(first, ANN) or b""
    assert (look_origin(as_look), drive_origins(as_look)) == (SIGNED, [ANN])
    as_motion = swapped(ANN, first) or b""
    assert drive_origins(as_motion) == [BEN]


def test_missing_consent_is_recorded_once() -> None:
    silent = record("Dan", consent="", note="cropped")
    result = swapped(silent, BEN) or b""
    assert unpack_provenance(result).note == f"cropped; {NO_CONSENT}"
    assert unpack_provenance(swapped(result, ANN) or b"").note == f"cropped; {NO_CONSENT}"


def test_motion_alone_keeps_the_mark_without_its_consent() -> None:
    found = unpack_provenance(swapped(None, BEN) or b"")
    assert (found.generated_by, found.consent, found.note) == ("sglat", "", NO_CONSENT)
    assert swapped(None, None) is None


def test_files_with_one_record_are_joined_under_it() -> None:
    assert joined([SIGNED, SIGNED, None]) == SIGNED


def test_joined_files_keep_the_record_of_each() -> None:
    result = joined([ANN, None, BEN, SIGNED]) or b""
    assert drive_origins(result) == [ANN, BEN, SIGNED]
    assert unpack_provenance(result).consent == "Ann agrees"


def test_origins_that_do_not_fit_become_hashes() -> None:
    look = record("Ann", consent="a" * 30_000, extra={"sig": b"s"})
    drive = record("Ben", consent="b" * 32_000)
    result = swapped(look, drive) or b""
    assert len(result) <= CHUNKS["PROV"].max_bytes
    assert drive_origins(result) == [hashlib.sha256(drive).digest()]
    assert look_origin(result) == look


def test_a_record_too_long_by_itself_is_refused() -> None:
    with pytest.raises(FormatError, match="bad-length"):
        swapped(record("Ann", consent="", note="n" * 65_400), ANN)


@pytest.mark.parametrize("odd", [{"look": 3, "drive": "x"}, {"drive": [1, {}]}, {"drive": []}])
def test_origins_of_another_type_count_as_none(odd: dict[str, object]) -> None:
    payload = record("Ann", extra=odd)
    assert look_origin(payload) is None
    assert drive_origins(payload) == [payload]


def test_other_motion_ends_what_a_signature_covers_and_keeps_it_as_an_origin() -> None:
    assert derived(ANN) == ANN
    found = unpack_provenance(derived(SIGNED))
    assert (found.consent, "sig" in found.extra) == ("Cem agrees", False)
    assert look_origin(derived(SIGNED)) == SIGNED
    assert derived(derived(SIGNED)) == derived(SIGNED)
