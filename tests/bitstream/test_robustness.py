"""Every cut and every flipped bit of small files ends in a FormatError of a known code."""

from __future__ import annotations

import io

import numpy as np
import pytest

from sglat.bitstream.chunks import ByteSource, pack_chunk, read_chunks
from sglat.bitstream.constants import SIGNATURE
from sglat.bitstream.edits import salvage
from sglat.bitstream.info import describe
from sglat.bitstream.reader import Reader
from sglat.bitstream.seek import SeekableFile
from sglat.errors import FormatError
from tests.bitstream.samples import sample_file, tiny_file
from tests.support.shared import ERROR_CODES


def read_all(data: bytes) -> None:
    for _ in Reader(io.BytesIO(data)).groups():
        pass


@pytest.fixture(scope="module")
def small() -> bytes:
    return sample_file(frames=5, group_frames=3)


def test_every_cut_is_truncated(small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(FormatError) as caught:
            read_all(small[:length])
        assert caught.value.code == "truncated", length


def test_every_flipped_bit_of_the_file_is_noticed() -> None:
    data = tiny_file()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError) as caught:
            read_all(bytes(damaged))
        assert caught.value.code in ERROR_CODES


def reframed(data: bytes, number: int, bit: int) -> bytes:
    """Return the file with one bit of one payload flipped and the checksum made right again."""
    out = SIGNATURE
    for at, chunk in enumerate(read_chunks(ByteSource(io.BytesIO(data)))):
        payload = bytearray(chunk.payload)
        if at == number:
            payload[bit // 8] ^= 1 << bit % 8
        out += pack_chunk(chunk.type, bytes(payload), flags=chunk.flags)
    return out


@pytest.mark.parametrize("is_variable", [False, True])
def test_a_flipped_bit_behind_a_right_checksum_never_breaks_the_reader(is_variable: bool) -> None:
    data = sample_file(frames=5, group_frames=3, is_variable=is_variable)
    chunks = list(read_chunks(ByteSource(io.BytesIO(data))))
    rng = np.random.default_rng(0)
    for number, chunk in enumerate(chunks):
        bits = 8 * len(chunk.payload)
        for bit in rng.permutation(bits)[:60].tolist():
            damaged = reframed(data, number, bit)
            for attempt in (read_all, lambda d: describe(io.BytesIO(d))):
                try:
                    attempt(damaged)
                except FormatError as error:
                    assert error.code in ERROR_CODES


def test_a_changed_frame_is_caught_by_the_motion_hash() -> None:
    data = tiny_file()
    chunks = list(read_chunks(ByteSource(io.BytesIO(data))))
    other = bytearray(chunks[-1].payload)
    other[20] ^= 1
    out = data[: chunks[-1].offset] + pack_chunk("ENDS", bytes(other))
    with pytest.raises(FormatError, match="motion-hash"):
        read_all(out)


def test_salvage_keeps_every_group_before_the_cut(small: bytes) -> None:
    ends = [
        chunk.offset + len(chunk.payload) + 12
        for chunk in read_chunks(ByteSource(io.BytesIO(small)))
        if chunk.type == "MOTN"
    ]
    whole = Reader(io.BytesIO(small)).read_motion().values
    for length in range(ends[0], len(small), 7):
        out = io.BytesIO()
        damage = salvage(io.BytesIO(small[:length]), out)
        assert isinstance(damage, FormatError)
        found = Reader(io.BytesIO(out.getvalue())).read_motion().values
        frames = 3 if length < ends[1] else 5
        assert np.array_equal(found, whole[:frames])


def test_salvage_of_a_whole_file_finds_no_damage(small: bytes) -> None:
    assert salvage(io.BytesIO(small), io.BytesIO()) is None


def test_seeking_in_a_damaged_file_ends_in_a_format_error_or_a_group(small: bytes) -> None:
    for bit in range(0, 8 * len(small), 23):
        damaged = bytearray(small)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            SeekableFile(io.BytesIO(bytes(damaged))).group_at_frame(4)
        except FormatError as error:
            assert error.code in ERROR_CODES
