"""Manifests, XMP and tags found in files, and hostile files that claim to hold some."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from sglat.marks import embedded, tags
from sglat.marks.embedded import read_embedded
from sglat.marks.tags import container_tags, read_tags, read_xmp
from sglat.media.pictures import encode_png, generated_marks
from sglat.media.reader import VideoReader
from sglat.media.xmp import IPTC_EXT, XMP_UUID, append_xmp_chunk, xmp_packet
from tests.support.marked import KINDS, make_media, write_generated
from tests.support.video import moving_square

GENERATED = "trainedAlgorithmicMedia"
HUGE = 0xFFFF_FFF0


def found_in(path: Path) -> tags.Tags:
    return read_tags(read_embedded(path), container_tags(path))


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.gif", "a.apng"])
def test_containers_hold_xmp_with_the_source_type(tmp_path: Path, name: str) -> None:
    found = found_in(write_generated(tmp_path / name, consent="ja"))
    assert (found.source_types, found.is_synthetic) == ((GENERATED,), True)
    assert "xmp" in found.places
    assert (found.generated_by, found.consent) == ("sglat test", "ja")


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.nut", "a.flv"])
def test_other_containers_hold_the_tags_alone(tmp_path: Path, name: str) -> None:
    found = found_in(write_generated(tmp_path / name))
    assert (found.source_types, found.places) == ((GENERATED,), ("container",))


@pytest.mark.parametrize("name", ["a.ts", "a.m2ts"])
def test_a_transport_stream_holds_what_fits_its_service_name(tmp_path: Path, name: str) -> None:
    found = found_in(write_generated(tmp_path / name, consent="ja; " * 99, watermark="0a0b0c0d"))
    assert (found.source_types, found.places) == ((GENERATED,), ("text",))
    assert (found.watermark, found.consent, found.generated_by) == ("0a0b0c0d", "", "sglat test")
    assert found_in(write_generated(tmp_path / name, is_marked=False)).is_empty


def test_a_png_holds_xmp_and_text(tmp_path: Path) -> None:
    marks = generated_marks(generated_by='<"sglat" & co>', is_composite=True)
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(moving_square(0), marks=marks))
    found = found_in(path)
    assert found.source_types == ("compositeWithTrainedAlgorithmicMedia",)
    assert found.generated_by == '<"sglat" & co>'
    assert {"xmp", "text"} <= set(found.places)


@pytest.mark.parametrize("name", KINDS)
def test_unmarked_files_hold_nothing(tmp_path: Path, name: str) -> None:
    path = make_media(tmp_path, name)
    assert read_embedded(path).store == b""
    assert read_embedded(path).damage == ""
    assert found_in(path).is_empty


def test_a_cameras_source_type_is_not_synthetic(tmp_path: Path) -> None:
    found = embedded.Embedded(packets=[xmp_packet(source_type="x/digitalCapture", creator_tool="")])
    assert read_tags(found, {}).source_types == ("digitalCapture",)
    assert not read_tags(found, {}).is_synthetic


def test_xmp_is_read_from_an_element_too() -> None:
    text = f'<d xmlns:q="{IPTC_EXT}"><q:DigitalSourceType> a/b </q:DigitalSourceType></d>'
    assert read_xmp(text.encode()) == {"digitalSourceType": "a/b"}
    assert read_xmp(b"<d/>") == {}
    assert read_xmp(b"<?xml version='1.0' encoding='cp037'?><d>\x4c\x5a</d>") == {}


LAUGHS = "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><d>&b;</d>"


@pytest.mark.parametrize(
    "packet",
    [
        b"", b"<d>", b"\xff\xfe<\0d\0/\0>\0", b"<d/><d/>", LAUGHS.encode(), LAUGHS.encode("utf-16"),
        b"<d" + b"\0" * 99 + b"/>",
    ],
)  # fmt: skip
def test_hostile_xmp_is_one_line(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"^expected XML[^\n]*$"):
        read_xmp(packet)
    (fault,) = read_tags(embedded.Embedded(packets=[packet]), {}).faults
    assert fault.startswith("XMP: expected XML")


def test_deep_xmp_is_read_or_refused_in_one_line() -> None:
    packet = b"<d>" * 100_000 + b"</d>" * 100_000
    faults = read_tags(embedded.Embedded(packets=[packet]), {}).faults
    assert all("\n" not in fault for fault in faults)


def test_a_manifest_elsewhere_is_named_and_never_fetched() -> None:
    packet = b'<d xmlns:t="t" t:provenance="https://example.com/m.c2pa"/>'
    assert read_tags(embedded.Embedded(packets=[packet]), {}).remote == "https://example.com/m.c2pa"


def box(kind: bytes, data: bytes, *, size: int | None = None) -> bytes:
    return struct.pack(">I4s", size or 8 + len(data), kind) + data


FTYP = box(b"ftyp", b"isom\0\0\0\0")
PNG = b"\x89PNG\r\n\x1a\n"
GIF = b"GIF89a" + bytes(7)
HOSTILE = {
    "XMP longer than any": FTYP + box(b"uuid", XMP_UUID + bytes(2 << 20)),
    "box longer than the file": FTYP + box(b"moov", b"", size=HUGE),
    "box of no size": FTYP + box(b"moov", b"", size=7),
    "box of 64 bits": FTYP + box(b"moov", struct.pack(">Q", 1 << 62), size=1),
    "PNG manifest longer than the file": PNG + struct.pack(">I4s", HUGE, b"caBX"),
    "PNG text longer than the file": PNG + struct.pack(">I4s", 1000, b"iTXt"),
    "PNG chunk longer than the file": PNG + struct.pack(">I4s", HUGE, b"IDAT"),
    "JPEG without segments": b"\xff\xd8\xff\xe0\0\x01" + bytes(20),
    "JPEG that ends": b"\xff\xd8\xff\xe1\xff\xff" + bytes(20),
    "GIF that ends in XMP": GIF + b"\x21\xff\x0bXMP DataXMP" + b"a" * 99,
    "GIF with endless XMP": GIF + b"\x21\xff\x0bXMP DataXMP" + bytes(2 << 20),
    "GIF without blocks": GIF + b"\x99" * 9,
    "GIF with an endless comment": GIF + b"\x21\xfe" + (b"\xff" + b"a" * 255) * 300,
    "WebP manifest longer than the file": b"RIFF\0\0\0\0WEBP" + struct.pack("<4sI", b"C2PA", HUGE),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_lengths_are_checked_before_memory_is_taken(tmp_path: Path, name: str) -> None:
    import tracemalloc

    path = tmp_path / "a"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        found = read_embedded(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.damage.startswith("expected") and "\n" not in found.damage
    assert found.store == b""
    assert peak < 4 * embedded.MAX_PACKET_BYTES


def test_a_file_of_endless_parts_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "MAX_PARTS", 50)
    (tmp_path / "a").write_bytes(FTYP + box(b"free", b"") * 60)
    assert "50 parts" in read_embedded(tmp_path / "a").damage


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "a.jpg", "a.avi", "a.webp", "a.ts"])
def test_random_damage_is_told_or_harmless(tmp_path: Path, name: str) -> None:
    if name in ("a.mp4", "a.gif", "a.ts"):
        path = write_generated(tmp_path / name)
    else:
        path = make_media(tmp_path, name)
    data, chance = path.read_bytes(), random.Random(2)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 3, 30))):
            changed[chance.randrange(len(data))] = chance.choice((0, 255, chance.randrange(256)))
        path.write_bytes(changed[: chance.choice((len(data), chance.randrange(len(data))))])
        found = read_embedded(path)
        assert "\n" not in found.damage
        assert len(found.texts) <= embedded.MAX_TEXTS
        read_tags(found, {})


def test_an_avi_with_xmp_still_plays_and_holds_all_marks(tmp_path: Path) -> None:
    path = write_generated(tmp_path / "a.avi", consent='<"ja">', watermark="0a0b0c0d", label="KI")
    found = found_in(path)
    assert (found.source_types, found.places) == ((GENERATED,), ("xmp",))
    assert (found.consent, found.watermark, found.label) == ('<"ja">', "0a0b0c0d", "KI")
    assert read_embedded(path).damage == ""
    with VideoReader(path) as reader:
        assert len(list(reader)) == 8


def test_xmp_goes_into_the_last_part_of_a_long_avi(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(b"".join(b"RIFF" + struct.pack("<I", 12) + k + b"JUNK\0\0\0\0" for k in PARTS))
    append_xmp_chunk(path, b"<d/>!")
    data = path.read_bytes()
    assert data[4:8] == struct.pack("<I", 12)
    assert data[24:28] == struct.pack("<I", 12 + 14) == struct.pack("<I", len(data) - 28)
    assert read_embedded(path).packets == [b"<d/>!"]


PARTS = (b"AVI ", b"AVIX")
