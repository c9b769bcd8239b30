"""Every edit of every legal vector is again a legal file with the same numbers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

import pytest

from sglat.bitstream import edits
from sglat.bitstream.info import describe
from sglat.bitstream.reader import Reader
from sglat.errors import FormatError
from tests.format_spec.support import READABLE, REFUSED, data_of, reference, reference_facts

Edit = Callable[[BinaryIO, BinaryIO], None]
EDITS: dict[str, Edit] = {
    "rewrite": edits.rewrite,
    "strip": edits.strip,
    "drop_layers": lambda file, out: edits.drop_layers(file, out, keep=1),
    "swap_with_itself": lambda file, out: edits.swap(file, io.BytesIO(_bytes_of(file)), out),
}
WITHOUT_IDENTITY = [n for n in READABLE if reference.decode(data_of(n)).reference is not None]


def _bytes_of(file: BinaryIO) -> bytes:
    at = file.tell()
    data = file.read()
    file.seek(at)
    return data


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
@pytest.mark.parametrize("name", [n for n in READABLE if n not in WITHOUT_IDENTITY])
def test_edited_vector_keeps_motion_placement_and_sound(name: str, edit: Edit) -> None:
    data, out = data_of(name), io.BytesIO()
    edit(io.BytesIO(data), out)
    before, after = reference_facts(data), reference_facts(out.getvalue())
    assert after.pop("layers")[:1] == before.pop("layers")[:1]
    assert after == before


@pytest.mark.parametrize("name", READABLE)
def test_groups_are_copied_byte_for_byte(name: str) -> None:
    data, out = data_of(name), io.BytesIO()
    edits.rewrite(io.BytesIO(data), out)
    assert _groups(out.getvalue()) == _groups(data)


def _groups(data: bytes) -> list[bytes]:
    found, at = [], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at + 5 : at + 8], "little")
        if data[at : at + 4] in (b"MOTN", b"PLAC", b"APKT"):
            found.append(data[at:end])
        at = end
    return found


def test_unknown_unbound_chunks_stay_and_bound_ones_fall_away() -> None:
    out = io.BytesIO()
    edits.rewrite(io.BytesIO(data_of("unusual/unknown-chunks.sglat")), out)
    assert reference.decode(out.getvalue()).unknown == [b"ZZZ9", b"ZZZ9"]


def test_unknown_header_keys_stay() -> None:
    data, out = data_of("unusual/unknown-keys.sglat"), io.BytesIO()
    edits.rewrite(io.BytesIO(data), out)
    before, after = (reference.decode(d).head.fields for d in (data, out.getvalue()))
    assert after == before


def _rewrite(file: BinaryIO) -> None:
    edits.rewrite(file, io.BytesIO())


def _refusal(read: Callable[[BinaryIO], object], data: bytes) -> tuple[str, int | None] | None:
    try:
        record = read(io.BytesIO(data))
    except FormatError as error:
        return error.code, error.offset
    if isinstance(record, dict) and record["error"]:  # of `describe`
        return record["error"]["code"], record["error"]["offset"]
    return None


@pytest.mark.parametrize("read", [_rewrite, describe], ids=["edit", "info"])
def test_a_fault_lies_where_the_reader_finds_it(read: Callable[[BinaryIO], object]) -> None:
    """Edits and info decode less than the reader: they may find another fault, or none."""
    places = {
        name: (_refusal(lambda file: Reader(file).read_all(), data), _refusal(read, data))
        for name, data in ((name, data_of(name)) for name in REFUSED)
    }
    same_fault = {name: p for name, p in places.items() if p[0] and p[1] and p[0][0] == p[1][0]}
    assert len(same_fault) > 50
    assert {name: p for name, p in same_fault.items() if p[0] != p[1]} == {}
