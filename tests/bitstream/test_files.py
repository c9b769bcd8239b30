"""Whole files: round trips, golden bytes, streaming, seeking."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglat.bitstream.chunks import ByteSource, pack_chunk, read_chunks
from sglat.bitstream.constants import SIGNATURE
from sglat.bitstream.header import pack_header
from sglat.bitstream.integers import pack_integers
from sglat.bitstream.reader import Reader, open_reader
from sglat.bitstream.records import IdentityReference, Motion
from sglat.bitstream.seek import SeekableFile
from sglat.bitstream.values import pack_varint
from sglat.bitstream.writer import Writer, open_writer
from sglat.errors import FormatError, UsageError
from tests.bitstream.samples import (
    sample_file,
    sample_header,
    sample_identity,
    sample_motion,
    sample_packets,
    sample_placement,
    tiny_file,
)
from tests.bitstream.test_chunks import OneByte


def reader_of(data: bytes) -> Reader:
    return Reader(io.BytesIO(data))


def written(data: bytes, *, is_variable: bool = False) -> tuple[Motion, np.ndarray]:
    """Return what `sample_file` put into its default file."""
    rng = np.random.default_rng(1)
    header = sample_header(is_variable=is_variable, frame_count=40)
    sample_identity(rng)
    rng.normal(size=34)
    motion = sample_motion(rng, header, 40)
    return motion, sample_placement(rng, header, 40).values


@pytest.mark.parametrize("is_variable", [False, True])
def test_motion_flags_and_time_stamps_come_back(is_variable: bool) -> None:
    data = sample_file(is_variable=is_variable)
    expected, _ = written(data, is_variable=is_variable)
    found = reader_of(data).read_motion()
    assert np.array_equal(found.values, expected.values)
    assert np.array_equal(found.flags, expected.flags)
    if is_variable:
        assert np.array_equal(found.pts, expected.pts)


def test_placement_comes_back_with_its_group() -> None:
    data = sample_file()
    _, expected = written(data)
    tracks = [group.placement for group in reader_of(data).groups()]
    assert np.array_equal(np.concatenate([t.values for t in tracks if t]), expected)


def test_audio_comes_back_bit_for_bit() -> None:
    rng = np.random.default_rng(5)
    packets = [replace(p, pts=p.pts + 7) for p in sample_packets(rng, 0, 30)]
    out = io.BytesIO()
    writer = Writer(out, sample_header())
    writer.put_identity(sample_identity(rng))
    from tests.bitstream.samples import AUDIO

    writer.put_audio_format(AUDIO)
    writer.put_audio(packets)
    writer.close()
    reader = reader_of(out.getvalue())
    assert list(reader.groups()) == []
    assert list(reader.trailing_packets) == packets
    assert reader.audio_format == AUDIO


def test_everything_of_the_preamble_comes_back() -> None:
    reader = reader_of(sample_file())
    assert reader.provenance is not None
    assert reader.provenance.consent == "yes, I agree"
    assert reader.metadata == {"title": "a test"}
    assert reader.plate is not None
    assert reader.plate.data == b"not really a picture"
    assert reader.thumbnail is not None
    assert reader.motion_neutral is not None
    assert reader.identity is not None
    assert len(reader.identity.layers) == 3


def test_a_reader_may_stop_after_a_layer() -> None:
    reader = Reader(io.BytesIO(sample_file()), max_layers=1)
    assert reader.identity is not None
    assert len(reader.identity.layers) == 1


def test_groups_decoded_side_by_side_equal_groups_one_by_one() -> None:
    data = sample_file(frames=100, group_frames=7)
    one = [group.motion.values for group in reader_of(data).groups()]
    many = [group.motion.values for group in reader_of(data).groups(batch_groups=64)]
    assert np.array_equal(np.concatenate(one), np.concatenate(many))


def test_the_tiny_file_has_these_bytes() -> None:
    """A format change must change SPEC.md section 16 and this hash together."""
    digest = hashlib.sha256(tiny_file()).hexdigest()
    assert digest == "1b365699eb542a88bf483307e2ba635ee4495555413bf75689db9d47fffad8e3"


def test_the_bytes_do_not_depend_on_how_frames_arrive() -> None:
    rng = np.random.default_rng(0)
    header = sample_header()
    motion = sample_motion(rng, header, 50)
    outs = []
    for size in (1, 13, 50):
        out = io.BytesIO()
        writer = Writer(out, header, group_frames=20)
        writer.put_identity_reference(IdentityReference(sha256=bytes(32)))
        for at in range(0, 50, size):
            part = slice(at, at + size)
            assert motion.flags is not None
            writer.put_motion(replace(motion, values=motion.values[part], flags=motion.flags[part]))
        writer.close()
        outs.append(out.getvalue())
    assert outs[0] == outs[1] == outs[2]


def test_short_reads_change_nothing() -> None:
    data = sample_file()
    slow = Reader(OneByte(data))  # type: ignore[arg-type]
    assert np.array_equal(slow.read_motion().values, reader_of(data).read_motion().values)


def test_groups_arrive_through_a_pipe_before_the_writer_is_done() -> None:
    rng = np.random.default_rng(0)
    header = sample_header()
    motion = sample_motion(rng, header, 8)
    read_end, write_end = os.pipe()
    may_finish = threading.Event()

    def write() -> None:
        with os.fdopen(write_end, "wb") as file:
            writer = Writer(file, header)
            writer.put_identity(sample_identity(rng))
            for _ in range(2):
                writer.put_motion(motion)
                writer.flush()
                file.flush()
            assert may_finish.wait(20)
            writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(read_end, "rb") as file:
        groups = Reader(file).groups()
        first = next(groups)
        may_finish.set()
        assert np.array_equal(first.motion.values, motion.values)
        assert len(list(groups)) == 1
    thread.join()


def test_an_existing_file_is_not_replaced_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.sglat"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="output-exists"), open_writer(path, sample_header()):
        pass
    assert path.read_bytes() == b"mine"


def test_a_failed_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FormatError), open_writer(tmp_path / "a.sglat", sample_header()):
        pass  # no identity: close() refuses
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_reads_back_from_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.sglat"
    header = sample_header(frame_count=9)
    with open_writer(path, header) as writer:
        writer.put_identity(sample_identity(rng))
        writer.put_motion(sample_motion(rng, header, 9))
    with open_reader(path) as reader:
        assert len(reader.read_motion().values) == 9


def test_a_promised_frame_count_must_be_kept() -> None:
    writer = Writer(io.BytesIO(), sample_header(frame_count=9))
    writer.put_identity(sample_identity(np.random.default_rng(0)))
    with pytest.raises(FormatError, match="bad-frames"):
        writer.close()


@pytest.mark.parametrize("is_variable", [False, True])
def test_a_seek_finds_the_group_of_each_frame(is_variable: bool) -> None:
    data = sample_file(is_variable=is_variable)
    everything = reader_of(data).read_motion().values
    file = SeekableFile(io.BytesIO(data))
    for frame in range(40):
        group = file.group_at_frame(frame)
        assert group.first_frame <= frame < group.first_frame + len(group.values)
        at = frame - group.first_frame
        assert np.array_equal(group.values[at], everything[frame])


def test_a_seek_by_time_finds_the_frame_on_screen() -> None:
    file = SeekableFile(io.BytesIO(sample_file()))
    for seconds, first_frame in ((0.9, 16), (-1, 0), (1e6, 32)):  # 0.9 s: frame 26 of 29.97 fps
        ticks = int(seconds / file.header.time_base)
        assert file.group_at_ticks(ticks).first_frame == first_frame


class Counting(io.BytesIO):
    """Remembers which bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.spans: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        at = self.tell()
        data = super().read(size)
        self.spans.append((at, at + len(data)))
        return data


def test_a_seek_reads_one_group_besides_header_and_index() -> None:
    data = sample_file(frames=200)
    chunks = {c.offset: c for c in read_chunks(ByteSource(io.BytesIO(data)))}
    file = Counting(data)
    SeekableFile(file).group_at_frame(77)
    touched = {
        chunk.type: offset
        for offset, chunk in chunks.items()
        if any(start < offset + 8 and end > offset for start, end in file.spans)
    }
    groups = [o for o, c in chunks.items() if c.type == "MOTN"]
    hit = [o for o in groups if any(s < o + 8 and e > o for s, e in file.spans)]
    assert len(hit) == 1
    assert set(touched) == {"HEAD", "INDX", "ENDS", "MOTN"}


def test_the_index_is_rebuilt_when_the_end_is_missing() -> None:
    data = sample_file()
    whole = SeekableFile(io.BytesIO(data))
    cut = SeekableFile(io.BytesIO(data[:-1]))
    assert cut.is_index_rebuilt
    assert cut.index == whole.index


def test_sixty_seconds_of_motion_carry_three_percent_of_container_at_most() -> None:
    rng = np.random.default_rng(0)
    header = sample_header(frame_count=1500)
    out = io.BytesIO()
    writer = Writer(out, header)
    writer.put_identity(sample_identity(rng))
    writer.put_motion(sample_motion(rng, header, 1500))
    writer.close()
    data = out.getvalue()
    chunks = list(read_chunks(ByteSource(io.BytesIO(data))))
    useful = sum(len(c.payload) for c in chunks if c.type not in ("INDX", "ENDS"))
    assert len(data) - useful <= 0.03 * len(data)


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_files_of_any_shape_come_back(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    header = sample_header(is_variable=data.draw(st.booleans()))
    motion = sample_motion(rng, header, data.draw(st.integers(1, 60)))
    out = io.BytesIO()
    writer = Writer(out, header, group_frames=data.draw(st.integers(1, 30)))
    writer.put_identity(sample_identity(rng))
    writer.put_motion(motion)
    writer.close()
    found = reader_of(out.getvalue()).read_motion()
    assert np.array_equal(found.values, motion.values)
    assert header.frame_ticks is not None or np.array_equal(found.pts, motion.pts)


def bomb(type_: str, payload: bytes) -> bytes:
    """Return a file of a kilobyte whose last chunk claims much."""
    header = SIGNATURE + pack_chunk("HEAD", pack_header(sample_header()))
    return header + pack_chunk(type_, payload)


STEP = b"\0\0\0\x3f"
ZEROS = 550_000  # as many as a layer of a kilobyte may claim: zeros cost next to nothing
ZERO_STREAM = pack_integers(np.zeros(ZEROS, dtype=np.int64), lane_bits=7, spread=0)
MANY = pack_varint(1 << 26)


@pytest.mark.parametrize(
    "data",
    [
        SIGNATURE + b"HEAD\0\xff\xff\0" + bytes(900),
        bomb("IDEN", b"")[:-12] + b"IDEN\0\xff\xff\x0f" + bytes(700),
        bomb("IDEN", b"")[:-12] + b"ABCD\x01\xff\xff\xff" + bytes(700),
        bomb("IDEN", bytes(69) + b"\x01\x03\x01a\x01" + MANY + STEP + b"\0\x10" + bytes(500)),
        bomb("IDEN", bytes(69) + b"\x01\x04\x01a\x01" + MANY + MANY + STEP + bytes(500)),
        bomb("IDEN", bytes(69) + pack_varint(4096) + 60 * b"\x03\x01a\x01\x7f"),
        bomb(
            "IDEN",
            bytes(69) + b"\x01\x03\x01a\x01" + pack_varint(ZEROS) + STEP + b"\x07\0" + ZERO_STREAM,
        ),
        bomb("META", b"\xdf\xff\xff\xff\xff" + bytes(600)),
        bomb("META", b"\x81\xa1a\xc6\xff\xff\xff\xff" + bytes(600)),
        bomb("AHDR", b"\xdd\xff\xff\xff\xff" + bytes(600)),
    ],
)
def test_a_kilobyte_never_takes_more_than_a_few_megabytes(data: bytes) -> None:
    tiny = tiny_file()
    list(reader_of(tiny).groups())  # build the tables first
    tracemalloc.start()
    with pytest.raises(FormatError):
        list(reader_of(data).groups())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) < 2500
    assert peak_bytes < 6e6
