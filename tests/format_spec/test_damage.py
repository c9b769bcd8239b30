"""Cut, flipped, trickled and lying files: only errors of the tree, no lost groups, no memory."""

from __future__ import annotations

import io
import os
import struct
import threading
import tracemalloc

import numpy as np
import pytest

from sglat.bitstream.reader import Reader
from sglat.errors import FormatError, SglatError
from tests.format_spec.support import READABLE, REFUSED, codec_facts, data_of, reference, small

FRAME_CODES = {
    "bad-signature",
    "truncated",
    "bad-chunk",
    "bad-flags",
    "unknown-critical",
    "bad-length",
    "bad-crc",
}
"""What a flipped bit can be seen as: every byte of a file lies under the signature or a CRC."""
BOMB_BYTES = 4 << 20
IS_THOROUGH = os.environ.get("SGLAT_ALL_FLIPS") == "1"  # every vector: an hour instead of seconds


def groups_before_error(data: bytes) -> tuple[list[list[int]], FormatError | None]:
    """Return the frames that a streaming reader delivers, and the error after them."""
    frames: list[list[int]] = []
    try:
        for group in Reader(io.BytesIO(data)).groups():
            frames += group.motion.values.tolist()
    except FormatError as error:
        return frames, error
    return frames, None


@pytest.mark.parametrize("name", READABLE if IS_THOROUGH else small(READABLE, 600))
def test_every_truncation_is_called_truncated_and_keeps_whole_groups(name: str) -> None:
    data = data_of(name)
    whole = reference.decode(data)
    ends = [_chunk_end(data, group.offset) for group in whole.groups]
    for cut in range(len(data)):
        frames, error = groups_before_error(data[:cut])
        assert error is not None
        assert error.code == "truncated"
        complete = sum(end <= cut for end in ends)
        expected = [row for group in whole.groups[:complete] for row in group.values.tolist()]
        assert frames == expected


def _chunk_end(data: bytes, offset: int) -> int:
    return offset + 12 + int.from_bytes(data[offset + 5 : offset + 8], "little")


@pytest.mark.parametrize("name", sorted(set(READABLE) - set(small(READABLE, 600))))
def test_truncation_of_large_vectors_is_called_truncated(name: str) -> None:
    data = data_of(name)
    for cut in range(0, len(data), max(1, len(data) // 100)):
        _, error = groups_before_error(data[:cut])
        assert error is not None
        assert error.code == "truncated"


QUICK_FLIPS = (
    "valid/minimal.sglat",
    "valid/detached-identity.sglat",
    "valid/variable-rate.sglat",
    "unusual/reference-without-motion.sglat",
    "unusual/audio-only.sglat",
)


@pytest.mark.parametrize("name", READABLE if IS_THOROUGH else QUICK_FLIPS)
def test_every_single_bit_flip_is_noticed(name: str) -> None:
    data = bytearray(data_of(name))
    for position in range(8 * len(data)):
        data[position >> 3] ^= 1 << (position & 7)
        _, error = groups_before_error(bytes(data))
        assert error is not None
        assert error.code in FRAME_CODES
        data[position >> 3] ^= 1 << (position & 7)


def test_reference_notices_every_single_bit_flip_too() -> None:
    data = bytearray(data_of("valid/minimal.sglat"))
    for position in range(8 * len(data)):
        data[position >> 3] ^= 1 << (position & 7)
        with pytest.raises(reference.SglatError) as caught:
            reference.decode(bytes(data))
        assert caught.value.code in FRAME_CODES
        data[position >> 3] ^= 1 << (position & 7)


@pytest.mark.parametrize("name", ["valid/minimal.sglat", "valid/variable-rate.sglat"])
def test_flips_behind_a_mended_checksum_end_in_the_tree_or_in_agreement(name: str) -> None:
    data = bytearray(data_of(name))
    at = 8
    while at < len(data):
        end = _chunk_end(data, at)
        for position in range(8 * (at + 8), 8 * (end - 4), 1 if IS_THOROUGH else 7):
            data[position >> 3] ^= 1 << (position & 7)
            flipped = bytes(data[: end - 4])
            crc = struct.pack("<I", reference.crc32c(flipped[at:]))
            _agree(flipped + crc + bytes(data[end:]))
            data[position >> 3] ^= 1 << (position & 7)
        at = end


def _agree(data: bytes) -> None:
    frames, error = groups_before_error(data)
    try:
        expected = reference.decode(data).motion.tolist()
    except reference.SglatError as refusal:
        assert error is not None
        assert error.code == refusal.code
        return
    assert error is None
    assert frames == expected


class Trickle(io.RawIOBase):
    """Gives one byte at a time, as a slow pipe may."""

    def __init__(self, data: bytes) -> None:
        self._left = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._left.read(min(size, 1) if size > 0 else size)


@pytest.mark.parametrize("name", small(READABLE, 2000))
def test_short_reads_give_the_same_frames(name: str) -> None:
    groups = Reader(Trickle(data_of(name))).groups()  # type: ignore[arg-type]
    frames = [row for group in groups for row in group.motion.values.tolist()]
    assert frames == codec_facts(data_of(name))["motion"]


def test_groups_come_out_of_a_pipe_before_its_end() -> None:
    data = data_of("valid/two-groups.sglat")
    first_end = _chunk_end(data, reference.decode(data).groups[0].offset)
    # The next chunk head is needed to know that no placement or sound is missing.
    second_end = _chunk_end(data, first_end)
    read_end, write_end = os.pipe()
    release = threading.Event()

    def feed() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            pipe.write(data[:second_end])
            release.wait(20)
            pipe.write(data[second_end:])

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            groups = Reader(pipe).groups()  # type: ignore[arg-type]
            assert len(next(groups).motion.values) == 50
            release.set()
            assert [len(group.motion.values) for group in groups] == [30]
    finally:
        release.set()
        feeder.join()


def test_what_stands_before_a_damaged_group_is_read() -> None:
    data = bytearray(data_of("valid/two-groups.sglat"))
    second = reference.decode(bytes(data)).groups[1].offset
    data[second + 20] ^= 4
    frames, error = groups_before_error(bytes(data))
    assert error is not None
    assert (len(frames), error.code) == (50, "bad-crc")


@pytest.mark.parametrize("name", small(REFUSED, 1100))
def test_a_small_bad_file_never_takes_much_memory(name: str) -> None:
    data = data_of(name)
    codec_facts(data_of("valid/identity-layers.sglat"))  # tables are built once, not per file
    tracemalloc.start()
    try:
        with pytest.raises(SglatError):
            codec_facts(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BOMB_BYTES


def bomb(kind: bytes, flags: int, body: bytes, size: int) -> bytes:
    """Return a small file with a chunk that claims a size it does not have."""
    data = data_of("valid/minimal.sglat")
    front = data[: data.index(b"MOTN")]
    return front + kind + bytes([flags]) + size.to_bytes(3, "little") + body


@pytest.mark.parametrize(
    ("kind", "flags"), [(b"LAYR", 0), (b"PLAT", 1), (b"ZZZ9", 1), (b"APKT", 1), (b"MOTN", 0)]
)
def test_a_claimed_length_costs_nothing(kind: bytes, flags: int) -> None:
    size = min(reference.CHUNKS.get(kind, (0, (1 << 24) - 1))[1], (1 << 24) - 1)
    data = bomb(kind, flags, bytes(200), size)
    assert len(data) <= 1024
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            codec_facts(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code == "truncated"
    assert peak < BOMB_BYTES


def test_a_layer_that_decodes_to_the_most_its_bytes_allow_stays_small() -> None:
    """A stream of the least length may stand for 2^16 zeros; that is half a megabyte, no more."""
    import vector_tools as tools

    zeros = np.zeros(1 << 16, np.int64).tolist()
    body = tools.layer([tools.dense("w", (1 << 16,))], zeros, spread=0)
    maker = tools.Maker().add("HEAD", tools.head()).add("IDEN", tools.iden())
    data = maker.add("LAYR", tools.varint(1) + body).end()
    tracemalloc.start()
    try:
        facts = codec_facts(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(facts["layers"][1][0]) == 1 << 16
    assert peak < 2 * BOMB_BYTES


@pytest.mark.parametrize("lanes_log2", [0, 3, 6])
def test_a_kilobyte_that_promises_the_most_integers_stays_small(lanes_log2: int) -> None:
    import vector_tools as tools

    front = tools.Maker().add("HEAD", tools.head()).add("IDEN", tools.iden()).data
    stream = (1 << 24).to_bytes(5, "little") * (1 << lanes_log2) + bytes(160)
    count = (1 << 16) + 512 * len(stream)
    body = tools.varint(1) + tools.dense("w", (count,)) + bytes([lanes_log2, 0]) + stream
    data = bytes(front) + tools.chunk("LAYR", tools.varint(1) + body)
    assert len(data) <= 1024
    codec_facts(data_of("unusual/lanes.sglat"))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            codec_facts(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code == "bad-stream"
    assert peak < BOMB_BYTES
