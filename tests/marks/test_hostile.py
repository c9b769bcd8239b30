"""Hostile marks: manifests, XMP and provenance made to crash, hang or fill memory; fixed seeds."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sglat.bitstream import edits
from sglat.bitstream.extras import pack_provenance, unpack_provenance
from sglat.bitstream.records import Provenance
from sglat.errors import FormatError
from sglat.marks import embedded, keys, tags
from sglat.marks.check import check, to_json
from sglat.marks.embedded import C2PA_UUID, Embedded
from sglat.marks.label import MAX_LABEL, wanted_label
from sglat.marks.provenance import sign
from sglat.marks.tags import read_tags, read_xmp
from sglat.media.xmp import xmp_packet
from tests.bitstream.samples import sample_file
from tests.support.marked import make_media

ROUNDS = 400
OWN = {"sglat:consent": "yes", "sglat:watermark": "0a0b0c0d", "sglat:label": "AI", "sglat:x": "?"}
PACKET = xmp_packet(source_type="a/b", creator_tool="x", more=OWN)
PARTS = (
    b"<!DOCTYPE d>", b"<!ENTITY a 'ha'>", b"&a;", b"&#0;", b"\0", b"<![CDATA[", b"]]>", 
    b"<?xpacket",
    b"?>", b"xmlns:sglat=''",
    b"\xff\xfe", b"<a>" * 500, b"</rdf:RDF>", b'"', b"<!--",
    b"\xed\xa0\x80",
)  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with parts changed, left out, repeated, or of another document put in."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 2, 8))):
        at = chance.randrange(len(result) + 1)
        length = chance.choice((1, 4, 60))
        match chance.randrange(4):
            case 0:
                result[at : at + length] = chance.randbytes(min(length, 4))
            case 1:
                del result[at : at + length]
            case 2:
                result[at:at] = result[at : at + length] * chance.choice((1, 30))
            case _:
                result[at:at] = chance.choice(PARTS)
    return bytes(result)


def test_damaged_xmp_is_read_or_refused_in_one_line() -> None:
    chance, refused = random.Random(3), 0
    for _ in range(ROUNDS):
        found = read_tags(Embedded(packets=[mutated(PACKET, chance)] * 2), {})
        refused += bool(found.faults)
        texts = (*found.source_types, found.consent, found.watermark, found.label)
        assert all(len(text) <= tags.MAX_SHOWN for text in texts)
        assert all("\n" not in fault and len(fault) < 300 for fault in found.faults)
    assert ROUNDS / 4 < refused < ROUNDS


def test_what_xmp_says_is_read_back() -> None:
    assert read_xmp(PACKET) == {
        "digitalSourceType": "a/b", "sglat:consent": "yes", "sglat:watermark": "0a0b0c0d",
        "sglat:label": "AI",
    }  # fmt: skip


@pytest.mark.parametrize(
    "packet",
    [
        b"<d>" + b"<a/>" * 260_000 + b"</d>",
        b"<d>" * 140_000 + b"</d>" * 140_000,
        b"<d " + b" ".join(b'a%d=""' % n for n in range(90_000)) + b"/>",
        b"<d a='" + b"x" * (1 << 20) + b"'/>",
    ],
    ids=["many", "deep", "wide", "long"],
)
def test_xmp_takes_no_more_memory_than_a_few_times_its_size(packet: bytes) -> None:
    tracemalloc.start()
    try:
        read_tags(Embedded(packets=[packet[: embedded.MAX_PACKET_BYTES]]), {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * embedded.MAX_PACKET_BYTES


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


NAME = box(b"jumd", b"c2pa\0\x11\0\x10\x80\0\0\xaa\08\x9bq\x03c2pa\0")


def nested(depth: int) -> bytes:
    """Return manifest boxes inside each other."""
    each = 8 + len(NAME)
    return b"".join(struct.pack(">I4s", each * (depth - n), b"jumb") + NAME for n in range(depth))


STORES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"\0",
    "boxes inside each other": lambda: nested(20_000),
    "boxes beside each other": lambda: box(b"jumb", NAME + box(b"jumb", NAME) * 50_000),
    "a box longer than all": lambda: struct.pack(">I4s", 0xFFFF_FFFF, b"jumb") + NAME,
    "a box of 64 bits": lambda: struct.pack(">I4sQ", 1, b"jumb", 1 << 62) + NAME,
    "a box of no size": lambda: struct.pack(">I4s", 3, b"jumb") + NAME,
    "a manifest without parts": lambda: box(b"jumb", NAME),
    "padding alone": lambda: box(b"jumb", NAME + box(b"free", bytes(1 << 22))),
}


@pytest.mark.parametrize("name", STORES)
def test_hostile_manifests_are_broken_in_one_line(tmp_path: Path, name: str) -> None:
    pytest.importorskip("c2pa", reason="C2PA needs the extra c2pa")
    path = make_media(tmp_path, "a.mp4")
    data = C2PA_UUID + bytes(4) + b"manifest\0" + bytes(8) + STORES[name]()
    path.write_bytes(path.read_bytes() + box(b"uuid", data))
    report = check(path)
    assert report.verdict == "broken"
    (fault,) = report.manifest.faults
    assert "\n" not in fault and len(fault) < 300


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the record of a signed file that was made from another one."""
    pytest.importorskip("cryptography", reason="signatures need the extra c2pa")
    out = io.BytesIO()
    signer = keys.make_signer("Jo", folder=tmp_path_factory.mktemp("keys"))
    sign(io.BytesIO(sample_file(seed=1)), out, signer)
    payload = edits.Source(io.BytesIO(out.getvalue())).payload("PROV")
    assert payload is not None
    record = unpack_provenance(payload)
    extra = {"look": payload, "drive": [payload, bytes(32)], "label": "AI", "c2pa": b"x" * 40}
    return pack_provenance(replace(record, extra=record.extra | extra))


def test_damaged_provenance_is_told_and_never_holds(tmp_path: Path, signed: bytes) -> None:
    chance, states = random.Random(4), set()
    path = tmp_path / "a.sglat"
    for _ in range(ROUNDS // 4):
        try:
            payload = mutated(signed, chance)
            out = io.BytesIO()
            edits.replace_provenance(io.BytesIO(sample_file(seed=1)), out, payload)
            path.write_bytes(out.getvalue())
            report = check(path)
        except FormatError as error:
            assert "\n" not in str(error)
            states.add("refused")
            continue
        assert to_json(report)["verdict"] == report.verdict
        assert report.provenance is not None
        states.add(report.provenance.signature.state)
    assert states >= {"refused", "broken"}
    assert "holds" not in states


EXPECTED = {key: {"broken"} for key in ("sig", "key")} | {
    key: {"holds", "broken"} for key in ("look", "drive")
}


def test_odd_values_in_a_record_are_left_out() -> None:
    odd: list[object] = [-1, 1 << 60, b"\xff" * 99, "\ud7ff" * 999, [b"", 3, "x"], {"a": b""}]
    for key in ("look", "drive", "c2pa", "source_type", "label", "sig", "key", "time", "signer"):
        for value in odd:
            out = io.BytesIO()
            record = pack_provenance(Provenance(generated_by="x", extra={key: value}))
            edits.replace_provenance(io.BytesIO(sample_file(seed=1)), out, record)
            report = _checked(out.getvalue())
            assert report in EXPECTED.get(key, {"holds"})
            assert len(wanted_label({key: value})) <= MAX_LABEL


def _checked(data: bytes) -> str:
    from sglat.marks.check import Report
    from sglat.marks.provenance import read_provenance

    report = Report(path=Path("a"), provenance=read_provenance(io.BytesIO(data)))
    to_json(report)
    return report.verdict
