"""Signed PROV: what a signature covers, and what an edit leaves of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from sglat.bitstream import edits, timeline
from sglat.bitstream.chunks import ByteSource, read_chunks
from sglat.bitstream.extras import pack_provenance, unpack_provenance
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import Provenance
from sglat.errors import FormatError, UsageError
from sglat.marks import keys
from sglat.marks.provenance import (
    MAX_STORE_BYTES,
    read_provenance,
    sign,
    sign_in_place,
    signature_of,
    source_stores,
)
from tests.bitstream.samples import sample_file
from tests.support.shared import REPOSITORY
from tests.support.signers import studio_files


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> keys.Signer:
    return keys.make_signer("Jo", folder=tmp_path_factory.mktemp("keys"))


def signed(data: bytes, signer: keys.Signer, *, seconds: int | None = None) -> bytes:
    out = io.BytesIO()
    sign(io.BytesIO(data), out, signer, seconds=seconds)
    return out.getvalue()


def prov(data: bytes) -> bytes:
    chunks = read_chunks(ByteSource(io.BytesIO(data)))
    return next(chunk.payload for chunk in chunks if chunk.type == "PROV")


def swapped(motion: bytes, look: bytes) -> bytes:
    out = io.BytesIO()
    edits.swap(io.BytesIO(motion), io.BytesIO(look), out)
    return out.getvalue()


def test_a_signed_file_says_who_signed_and_decodes_as_before(signer: keys.Signer) -> None:
    data = sample_file(seed=1)
    result = signed(data, signer)
    found = read_provenance(io.BytesIO(result))
    assert (found.signature.state, found.signature.signer) == ("holds", "Jo (self-signed)")
    assert found.is_covered
    ends = [Reader(io.BytesIO(each)) for each in (data, result)]
    motions = [reader.read_motion().values.tobytes() for reader in ends]
    assert motions[0] == motions[1]
    assert ends[0].identity_sha256 == ends[1].identity_sha256


def test_signing_twice_gives_the_same_bytes(signer: keys.Signer) -> None:
    once = signed(sample_file(seed=1), signer)
    assert signed(sample_file(seed=1), signer) == once
    assert signed(once, signer) == once


def test_time_stands_in_the_record_where_wanted(signer: keys.Signer) -> None:
    data = sample_file(seed=1)
    assert signature_of(prov(signed(data, signer))).time is None
    found = signature_of(prov(signed(data, signer, seconds=1_796_083_200)))
    assert (found.state, found.time) == ("holds", 1_796_083_200)


def test_unsigned_files_are_read_as_such() -> None:
    found = read_provenance(io.BytesIO(sample_file(seed=1)))
    assert (found.signature.state, found.is_covered, found.origins) == ("none", False, ())


def test_every_flipped_bit_of_a_signed_record_is_found(signer: keys.Signer) -> None:
    payload = prov(signed(sample_file(seed=1), signer))
    missed = []
    for bit in range(8 * len(payload)):
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            state = signature_of(bytes(changed)).state
        except FormatError:  # no record at all
            continue
        if state == "holds":
            missed.append(bit)
    assert missed == []


@pytest.mark.parametrize("key", ["by", "consent", "identity", "motion", "signer", "drive", "c2pa"])
def test_a_changed_field_breaks_the_signature(signer: keys.Signer, key: str) -> None:
    record = unpack_provenance(prov(signed(sample_file(seed=1), signer)))
    changes = {"by": {"generated_by": "other"}, "consent": {"consent": "yes!"}}.get(key)
    if changes is None:
        value = {"signer": "Eve", "drive": [b""]}.get(key, bytes(32))
        changes = {"extra": record.extra | {key: value}}
    assert signature_of(pack_provenance(replace(record, **changes))).state == "broken"


@pytest.mark.parametrize(
    "odd", [{"sig": b"x"}, {"key": b""}, {"sig": 3}, {"time": -1}, {"key": []}]
)
def test_values_of_another_type_break_the_signature(
    signer: keys.Signer, odd: dict[str, object]
) -> None:
    record = unpack_provenance(prov(signed(sample_file(seed=1), signer)))
    payload = pack_provenance(replace(record, extra=record.extra | odd))
    assert signature_of(payload).state == "broken"


def test_a_signature_moved_to_another_file_does_not_cover_it(signer: keys.Signer) -> None:
    payload, out = prov(signed(sample_file(seed=1), signer)), io.BytesIO()
    edits.replace_provenance(io.BytesIO(sample_file(seed=2)), out, payload)
    found = read_provenance(io.BytesIO(out.getvalue()))
    assert (found.signature.state, found.is_covered) == ("holds", False)


def test_a_trimmed_file_is_no_longer_covered_until_it_is_signed(signer: keys.Signer) -> None:
    out = io.BytesIO()
    source = io.BytesIO(signed(sample_file(seed=1), signer))
    timeline.trim(source, out, start_seconds=0, end_seconds=0.2)
    cut = read_provenance(io.BytesIO(out.getvalue()))
    assert (cut.signature.state, cut.is_covered) == ("holds", False)
    again = read_provenance(io.BytesIO(signed(out.getvalue(), signer)))
    assert (again.signature.state, again.is_covered) == ("holds", True)
    assert [(o.role, o.signature.state) for o in again.origins] == [
        ("look", "holds"), ("motion", "holds")
    ]  # fmt: skip


def test_a_detached_identity_is_covered_by_the_signature_of_its_file(signer: keys.Signer) -> None:
    out, alone = io.BytesIO(), io.BytesIO()
    edits.detach(io.BytesIO(signed(sample_file(seed=1), signer)), out, alone)
    for data in (out, alone):
        found = read_provenance(io.BytesIO(data.getvalue()))
        assert (found.signature.state, found.is_covered) == ("holds", True)


def test_a_swap_keeps_both_signatures(signer: keys.Signer) -> None:
    one, two = (signed(sample_file(seed=seed), signer) for seed in (1, 2))
    found = read_provenance(io.BytesIO(swapped(one, two)))
    assert found.signature.state == "none"
    assert [(o.role, o.signature.state) for o in found.origins] == [
        ("look", "holds"), ("motion", "holds")
    ]  # fmt: skip
    assert found.origins[1].signature.motion_sha256 == signature_of(prov(one)).motion_sha256


def test_a_damaged_origin_is_told(signer: keys.Signer) -> None:
    record = Provenance(generated_by="x", extra={"drive": [b"\xc1", bytes(32)]})
    out = io.BytesIO()
    edits.replace_provenance(io.BytesIO(sample_file(seed=1)), out, pack_provenance(record))
    found = read_provenance(io.BytesIO(out.getvalue()))
    assert [o.signature.state for o in found.origins] == ["broken", "none"]


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = keys.load_signer(*studio_files(tmp_path))
    with pytest.raises(UsageError, match="expected an Ed25519 key"):
        signed(sample_file(seed=1), other)


def test_a_refused_file_stays_as_it_was(tmp_path: Path, signer: keys.Signer) -> None:
    path = tmp_path / "a.sglat"
    path.write_bytes(sample_file(seed=1)[:-9])
    with pytest.raises(FormatError, match="truncated"):
        sign_in_place(path, signer)
    assert path.read_bytes() == sample_file(seed=1)[:-9]
    assert [p.name for p in tmp_path.iterdir()] == ["a.sglat"]


def test_manifests_of_all_sources_are_found_once() -> None:
    own, look = b"own" * 20, b"look" * 20
    inner = pack_provenance(Provenance(generated_by="a", extra={"c2pa": look}))
    record = Provenance(generated_by="b", extra={"c2pa": own, "look": inner, "drive": [inner]})
    assert source_stores(record) == (own, look)
    odd = {"c2pa": "text", "look": b"\xc1" * 40, "drive": [3, bytes(MAX_STORE_BYTES + 1)]}
    assert source_stores(Provenance(generated_by="b", extra=odd)) == ()


def test_the_vector_of_the_specification_holds() -> None:
    path = REPOSITORY / "format_spec/vectors/valid/signed-provenance.sglat"
    with path.open("rb") as file:
        found = read_provenance(file)
    assert (found.signature.state, found.signature.signer) == ("holds", "test vector")
    assert found.is_covered
    assert [origin.record is None for origin in found.origins] == [False, True]
