"""Signature, framing, order: one literal damage for each code."""

from __future__ import annotations

import io

import pytest

from sglat.bitstream.chunks import (
    COMPILED_CRC_BYTES,
    ByteSource,
    crc32c,
    crc32c_scalar,
    pack_chunk,
    read_chunks,
)
from sglat.bitstream.constants import SIGNATURE
from sglat.errors import FormatError
from tests.bitstream.samples import tiny_file

HEAD, IDEN = pack_chunk("HEAD", b"h"), pack_chunk("IDEN", b"i")
MOTN, PLAC, APKT = (pack_chunk(type_, b"m") for type_ in ("MOTN", "PLAC", "APKT"))
AHDR, INDX, ENDS = pack_chunk("AHDR", b""), pack_chunk("INDX", b""), pack_chunk("ENDS", bytes(48))


def types_of(*chunks: bytes, end: bytes = b"") -> list[str]:
    data = SIGNATURE + b"".join(chunks) + end
    return [chunk.type for chunk in read_chunks(ByteSource(io.BytesIO(data)))]


def code_of(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        list(read_chunks(ByteSource(io.BytesIO(data))))
    return caught.value.code


def test_crc_has_the_published_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_crc_equals_its_scalar_twin() -> None:
    data = 40 * tiny_file()
    assert len(data) > COMPILED_CRC_BYTES
    assert crc32c(data, 77) == crc32c_scalar(data, 77)


def test_a_chunk_has_these_bytes() -> None:
    expected = b"META\x01\x02\x00\x00hi"
    assert pack_chunk("META", b"hi") == expected + crc32c(expected).to_bytes(4, "little")


def test_chunks_come_in_order() -> None:
    assert types_of(HEAD, IDEN, MOTN, INDX, ENDS) == ["HEAD", "IDEN", "MOTN", "INDX", "ENDS"]


def test_an_unknown_ancillary_chunk_passes() -> None:
    assert types_of(HEAD, pack_chunk("ABCD", b"", flags=1), IDEN, ENDS)[1] == "ABCD"


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("truncated", b""),
        ("truncated", SIGNATURE[:5]),
        ("bad-signature", b"\x89SGL\n\x1a\n" + HEAD),
        ("bad-signature", b"GIF89a.."),
        ("truncated", SIGNATURE),
        ("truncated", SIGNATURE + HEAD + IDEN),
        ("truncated", SIGNATURE + HEAD[:-1]),
        ("bad-chunk", SIGNATURE + b"head" + HEAD[4:]),
        ("bad-flags", SIGNATURE + HEAD + pack_chunk("IDEN", b"", flags=1)),
        ("bad-flags", SIGNATURE + HEAD + pack_chunk("ABCD", b"", flags=2)),
        ("bad-flags", SIGNATURE + HEAD + pack_chunk("ABCD", b"", flags=9)),
        ("unknown-critical", SIGNATURE + HEAD + pack_chunk("ABCD", b"", flags=0)),
        ("bad-length", SIGNATURE + b"HEAD\x00\xff\xff\xff"),
        ("bad-length", SIGNATURE + HEAD + IDEN + b"ENDS\x00\x2f\x00\x00" + bytes(60)),
        ("bad-crc", SIGNATURE + HEAD[:-1] + bytes((HEAD[-1] ^ 1,)) + IDEN),
        ("bad-order", SIGNATURE + IDEN),
        ("bad-order", SIGNATURE + HEAD + pack_chunk("LAYR", b"")),
        ("bad-order", SIGNATURE + HEAD + IDEN + pack_chunk("IREF", b"")),
        ("bad-order", SIGNATURE + HEAD + IDEN + MOTN + pack_chunk("META", b"")),
        ("bad-order", SIGNATURE + HEAD + IDEN + APKT),
        ("bad-order", SIGNATURE + HEAD + IDEN + AHDR + APKT + pack_chunk("LAYR", b"")),
        ("bad-order", SIGNATURE + HEAD + IDEN + INDX + MOTN),
        ("duplicate-chunk", SIGNATURE + HEAD + HEAD),
        ("duplicate-chunk", SIGNATURE + HEAD + IDEN + IDEN),
        ("no-identity", SIGNATURE + HEAD + MOTN),
        ("no-identity", SIGNATURE + HEAD + ENDS),
        ("trailing-bytes", SIGNATURE + HEAD + IDEN + ENDS + b"\0"),
    ],
)
def test_each_breach_has_its_code(code: str, data: bytes) -> None:
    assert code_of(data) == code


def test_an_error_names_the_byte() -> None:
    with pytest.raises(FormatError) as caught:
        types_of(HEAD, IDEN[:-1] + bytes((IDEN[-1] ^ 1,)))
    assert caught.value.offset == len(SIGNATURE + HEAD)


class OneByte(io.RawIOBase):
    """A pipe that gives one byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(size, 1))


def test_short_reads_give_the_same_chunks() -> None:
    data = tiny_file()
    slow = list(read_chunks(ByteSource(OneByte(data))))  # type: ignore[arg-type]
    assert slow == list(read_chunks(ByteSource(io.BytesIO(data))))
