"""Edits: what they keep, what they drop, what they refuse."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from sglat.bitstream import edits, join, timeline
from sglat.bitstream.chunks import ByteSource, Chunk, pack_chunk, read_chunks
from sglat.bitstream.constants import FIRST_VERSION, SPECTRAL_VERSION
from sglat.bitstream.demux import Group
from sglat.bitstream.extras import (
    pack_audio_format,
    unpack_audio_format,
    unpack_audio_packets,
)
from sglat.bitstream.header import pack_header, unpack_header
from sglat.bitstream.reader import Group as ReadGroup
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import AudioPacket, DeltaLayer
from sglat.bitstream.seek import SeekableFile
from sglat.bitstream.writer import Muxer, Writer
from sglat.errors import BundleMismatchError, FormatError, UsageError
from tests.bitstream import samples
from tests.bitstream.samples import (
    sample_file,
    sample_header,
    sample_identity,
    sample_motion,
    sample_placement,
    spectral,
)


def chunks_of(data: bytes, type_: str) -> list[bytes]:
    return [c.payload for c in all_chunks(data) if c.type == type_]


def all_chunks(data: bytes) -> list[Chunk]:
    return list(read_chunks(ByteSource(io.BytesIO(data))))


def motion_of(data: bytes) -> np.ndarray:
    return Reader(io.BytesIO(data)).read_motion().values


@pytest.fixture(scope="module")
def one() -> bytes:
    return sample_file(seed=1)


@pytest.fixture(scope="module")
def other() -> bytes:
    return sample_file(seed=2, frames=20)


@pytest.fixture(scope="module")
def swapped(one: bytes, other: bytes) -> bytes:
    out = io.BytesIO()
    edits.swap(io.BytesIO(one), io.BytesIO(other), out)
    return out.getvalue()


def test_swap_copies_motion_bytes_verbatim(one: bytes, swapped: bytes) -> None:
    assert chunks_of(swapped, "MOTN") == chunks_of(one, "MOTN")


def test_swap_keeps_the_motion_hash(one: bytes, swapped: bytes) -> None:
    ends = [Reader(io.BytesIO(data)) for data in (one, swapped)]
    for reader in ends:
        list(reader.groups())
    assert ends[0].end is not None
    assert ends[1].end is not None
    assert ends[0].end.motion_sha256 == ends[1].end.motion_sha256


def test_swap_takes_the_look_of_the_identity_file(other: bytes, swapped: bytes) -> None:
    for type_ in ("IDEN", "LAYR", "PLAT", "THMB"):
        assert chunks_of(swapped, type_) == chunks_of(other, type_)


def test_swap_remembers_the_neutral_of_the_motion(one: bytes, swapped: bytes) -> None:
    assert chunks_of(swapped, "NEUT") == chunks_of(one, "NEUT")


def test_swap_without_a_stored_neutral_takes_it_from_the_identity(one: bytes, other: bytes) -> None:
    plain = without(one, "NEUT")
    out = io.BytesIO()
    edits.swap(io.BytesIO(plain), io.BytesIO(other), out)
    assert chunks_of(out.getvalue(), "NEUT") == [chunks_of(one, "IDEN")[0][:68]]


def without(data: bytes, type_: str) -> bytes:
    """Return the file without chunks of a type, its end made right again."""
    source = edits.Source(io.BytesIO(data))
    source.preamble = [chunk for chunk in source.preamble if chunk.type != type_]
    out = io.BytesIO()
    muxer = Muxer(out, source.header)
    muxer.copy(source.preamble)
    edits._copy_body(source, muxer)
    return out.getvalue()


def test_consent_does_not_pass_to_a_person_who_gave_none(one: bytes, other: bytes) -> None:
    out = io.BytesIO()
    edits.swap(io.BytesIO(one), io.BytesIO(without(other, "PROV")), out)
    provenance = Reader(io.BytesIO(out.getvalue())).provenance
    assert provenance is not None
    assert (provenance.generated_by, provenance.consent) == ("sglat test", "")


def with_header(data: bytes, **changes: object) -> bytes:
    """Return the file with another header, its end made right again."""
    chunks = all_chunks(data)
    header = replace(unpack_header(chunks[0].payload), **changes)  # type: ignore[arg-type]
    rest = data[chunks[1].offset :]
    first = data[:8] + pack_chunk("HEAD", pack_header(header))
    shift = len(first) - chunks[1].offset
    if not shift:
        return first + rest
    raise AssertionError("a header of another length moves the index")


def test_swap_refuses_another_decoder_and_says_so(one: bytes, other: bytes) -> None:
    foreign = with_header(other, decoder_id=bytes(32))
    with pytest.raises(BundleMismatchError, match="decoder-mismatch"):
        edits.swap(io.BytesIO(one), io.BytesIO(foreign), io.BytesIO())


def test_swap_refuses_another_latent_width(one: bytes, other: bytes) -> None:
    foreign = with_header(other, w_dim=9)
    with pytest.raises(BundleMismatchError, match="expected latents 8 wide, found 9"):
        edits.swap(io.BytesIO(one), io.BytesIO(foreign), io.BytesIO())


def trimmed(data: bytes, start: Fraction, end: Fraction) -> bytes:
    out = io.BytesIO()
    timeline.trim(io.BytesIO(data), out, start_seconds=start, end_seconds=end)
    return out.getvalue()


@pytest.mark.parametrize("is_variable", [False, True])
def test_trim_is_exact_to_the_frame(is_variable: bool) -> None:
    data = sample_file(is_variable=is_variable)
    before = Reader(io.BytesIO(data)).read_motion()
    header = Reader(io.BytesIO(data)).header
    stamps = before.pts if before.pts is not None else 1001 * np.arange(len(before.values))
    for first, last in ((7, 29), (16, 32), (0, 1), (15, 17), (20, len(stamps) + 9)):
        start = int(stamps[first]) * header.time_base
        end = int(stamps[last]) * header.time_base if last < len(stamps) else Fraction(99)
        out = trimmed(data, start, end)
        after = Reader(io.BytesIO(out)).read_motion()
        assert np.array_equal(after.values, before.values[first:last])
        assert SeekableFile(io.BytesIO(out)).index[0].first_pts == stamps[first]
        if before.pts is not None and after.pts is not None:
            assert np.array_equal(after.pts, before.pts[first:last])


def test_trim_between_two_frames_begins_with_the_next(one: bytes) -> None:
    out = trimmed(one, Fraction(1, 1000), Fraction(1))  # frames every 1001/30000 s
    assert np.array_equal(motion_of(out), motion_of(one)[1:30])


def streams(data: bytes) -> list[bytes]:
    """Return the coded frames of each group."""
    return [e.head.stream for e in edits.Source(io.BytesIO(data)).body() if isinstance(e, Group)]


def test_trim_copies_groups_inside_the_span(one: bytes) -> None:
    before, after = streams(one), streams(trimmed(one, Fraction(1, 3), Fraction(9)))
    assert after[1:] == before[1:]
    assert after[0] != before[0]


def places(groups: list[ReadGroup]) -> np.ndarray:
    return np.concatenate([g.placement.values for g in groups if g.placement is not None])


def flags(groups: list[ReadGroup]) -> np.ndarray:
    none = [np.zeros(len(g.motion.values), np.uint8) for g in groups]
    stored = [g.motion.flags for g in groups]
    return np.concatenate([n if s is None else s for n, s in zip(none, stored, strict=True)])


def test_trim_keeps_placement_flags_and_sound_of_its_frames(one: bytes) -> None:
    out = trimmed(one, Fraction(3, 5), Fraction(1))  # frames 18 to 29
    before, after = (Reader(io.BytesIO(data)).read_all() for data in (one, out))
    assert np.array_equal(places(after), places(before)[18:30])
    assert np.array_equal(flags(after), flags(before)[18:30])
    assert after[0].placement is not None and after[0].placement.first_frame == 0
    sound = Reader(io.BytesIO(out)).audio_format
    assert sound is not None
    times = [p.pts * sound.time_base for g in after for p in g.packets]
    assert all(Fraction(1, 2) < time < Fraction(1) + Fraction(1, 30) for time in times)


def test_trim_to_nothing_is_refused_with_what_there_is(one: bytes) -> None:
    with pytest.raises(UsageError, match=r"empty-trim.*the file has 0\.00 s to"):
        trimmed(one, Fraction(70), Fraction(80))


@pytest.mark.parametrize("is_variable", [False, True])
def test_concat_puts_one_after_the_other(is_variable: bool) -> None:
    data = sample_file(is_variable=is_variable)
    out = io.BytesIO()
    join.concat([io.BytesIO(data), io.BytesIO(data)], out)
    joined = Reader(io.BytesIO(out.getvalue())).read_motion()
    assert np.array_equal(joined.values, np.concatenate([motion_of(data)] * 2))
    assert joined.pts is None or (np.diff(joined.pts) > 0).all()


def long_packets(rng: np.random.Generator, first: int, count: int) -> list[AudioPacket]:
    """Sound that begins before the first picture and ends after the last one."""
    stamps = [8_000 * (first + n) - 5_000 for n in range(count)]
    return [AudioPacket(data=rng.bytes(9), pts=at, dts=at, duration=8_000) for at in stamps]


def test_concat_never_lets_sound_go_back_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "sample_packets", long_packets)
    data = sample_file()
    own = [p for payload in chunks_of(data, "APKT") for p in unpack_audio_packets(payload)]
    out = io.BytesIO()
    join.concat([io.BytesIO(data) for _ in range(3)], out)
    packets = [
        packet
        for payload in chunks_of(out.getvalue(), "APKT")
        for packet in unpack_audio_packets(payload)
    ]
    assert len(packets) == 3 * len(own) - 4  # two are left out where two files meet
    assert (np.diff([packet.dts for packet in packets]) > 0).all()
    overlaps = [a.pts + a.duration - b.pts for a, b in pairwise(packets)]
    assert max(overlaps) <= 4_000


def test_concat_of_the_parts_is_the_whole(one: bytes) -> None:
    parts = []
    for span in ((Fraction(0), Fraction(3, 5)), (Fraction(3, 5), Fraction(9))):
        out = io.BytesIO()
        timeline.trim(io.BytesIO(one), out, start_seconds=span[0], end_seconds=span[1])
        parts.append(io.BytesIO(out.getvalue()))
    out = io.BytesIO()
    join.concat(parts, out)
    assert np.array_equal(motion_of(out.getvalue()), motion_of(one))


def take(seed: int, **changes: object) -> bytes:
    """Return a file whose header differs from `sample_file`'s."""
    rng = np.random.default_rng(seed)
    header = replace(sample_header(), **changes)  # type: ignore[arg-type]
    file = io.BytesIO()
    writer = Writer(file, header, group_frames=16)
    writer.put_identity(sample_identity(rng))
    writer.put_motion(sample_motion(rng, header, 40), sample_placement(rng, header, 40))
    writer.close()
    return file.getvalue()


def joined(*files: bytes) -> tuple[bytes, list[join.Joined]]:
    out = io.BytesIO()
    changes = join.concat([io.BytesIO(data) for data in files], out)
    return out.getvalue(), changes


def test_takes_with_other_steps_are_joined_in_the_finest() -> None:
    steps = sample_header().motion_steps
    fine, coarse = take(1), take(2, motion_steps=steps * np.float32(1.7))
    for order in ((fine, coarse), (coarse, fine)):
        out, changes = joined(*order)
        motions = [Reader(io.BytesIO(data)).read_motion() for data in (*order, out)]
        expected = np.concatenate([motions[0].dequantize(), motions[1].dequantize()])
        error = np.abs(motions[2].dequantize() - expected)
        assert (error <= steps / 2 * 1.001).all()
        assert np.array_equal(motions[2].steps, steps)
        changed = changes[1] if order[0] is fine else changes[0]
        other = changes[0] if order[0] is fine else changes[1]
        assert other.requantized_frames == 0
        assert changed.requantized_frames == 40
        part = error[40:] if order[0] is fine else error[:40]
        assert changed.rms_controls == pytest.approx(np.sqrt((part[:, 2:] ** 2).mean()), rel=1e-3)
        assert 0.2 < changed.rms_steps < 0.35  # uniform: 1/sqrt(12)


def test_a_join_shows_the_first_look_and_tells_of_others(one: bytes, other: bytes) -> None:
    out, changes = joined(one, other)
    assert chunks_of(out, "IDEN") == chunks_of(one, "IDEN")
    assert [change.has_other_look for change in changes] == [False, True]


def test_takes_of_other_rates_are_joined_at_a_variable_rate() -> None:
    slow = take(2, time_base=Fraction(1, 25), frame_ticks=1)
    quick = take(1)
    out, _ = joined(quick, slow)
    reader = Reader(io.BytesIO(out))
    motion = reader.read_motion()
    assert reader.header.frame_ticks is None and motion.pts is not None
    seconds = motion.pts * float(reader.header.time_base)
    assert np.diff(seconds[:41]) == pytest.approx(1001 / 30000)
    assert np.diff(seconds[40:]) == pytest.approx(1 / 25)


def test_swapped_motion_is_joined_as_it_is_shown(one: bytes, other: bytes, swapped: bytes) -> None:
    """`swapped` shows `one`'s motion relative to its neutral, on the look of `other`."""
    out, _ = joined(other, swapped)
    readers = [Reader(io.BytesIO(data)) for data in (other, swapped, out)]
    looks = [reader.identity for reader in readers]
    shown = []
    for reader, look in zip(readers, looks, strict=True):
        assert look is not None
        driver = reader.motion_neutral
        offset = 0 if driver is None else look.neutral - driver
        shown.append(reader.read_motion().dequantize() + offset)
    half = Reader(io.BytesIO(out)).header.motion_steps / 2
    assert (np.abs(shown[2] - np.concatenate(shown[:2])) <= half * 1.01).all()


def test_other_sound_is_refused_with_what_to_do(one: bytes) -> None:
    def change(payload: bytes) -> bytes:
        return pack_audio_format(replace(unpack_audio_format(payload), codec="aac"))

    source = edits.Source(io.BytesIO(one))
    source.preamble = [
        replace(c, payload=change(c.payload)) if c.type == "AHDR" else c for c in source.preamble
    ]
    out = io.BytesIO()
    muxer = Muxer(out, source.header)
    muxer.copy(source.preamble)
    edits._copy_body(source, muxer)
    with pytest.raises(UsageError, match=r"cannot-concat: the sound of file 1 .* --audio"):
        joined(one, out.getvalue())


def test_a_take_without_sound_is_joined(one: bytes) -> None:
    out, _ = joined(take(1), one)
    assert chunks_of(out, "AHDR") == chunks_of(one, "AHDR")


def test_more_layers_than_there_are_cannot_be_kept(one: bytes) -> None:
    with pytest.raises(UsageError, match="bad-layers: expected at most 3 layers, got 9"):
        edits.drop_layers(io.BytesIO(one), io.BytesIO(), keep=9)


def test_dropped_layers_are_gone_and_the_rest_decodes(one: bytes) -> None:
    out = io.BytesIO()
    edits.drop_layers(io.BytesIO(one), out, keep=2)
    identity = Reader(io.BytesIO(out.getvalue())).identity
    assert identity is not None
    assert len(identity.layers) == 2


def test_a_file_without_its_spectral_layer_is_for_older_readers_again() -> None:
    rng = np.random.default_rng(4)
    plain = sample_identity(rng)
    identity = replace(plain, layers=(*plain.layers, DeltaLayer(deltas=(spectral(rng),))))
    header = replace(sample_header(), read_version=SPECTRAL_VERSION)
    file = io.BytesIO()
    writer = Writer(file, header)
    writer.put_identity(identity)
    writer.put_motion(sample_motion(rng, header, 8), sample_placement(rng, header, 8))
    writer.close()
    for keep, version in ((1, FIRST_VERSION), (3, FIRST_VERSION), (4, SPECTRAL_VERSION)):
        out = io.BytesIO()
        edits.drop_layers(io.BytesIO(file.getvalue()), out, keep=keep)
        found = Reader(io.BytesIO(out.getvalue()))
        assert found.header.read_version == version
        assert found.identity is not None and len(found.identity.layers) == keep


def test_layer_zero_cannot_be_dropped(one: bytes) -> None:
    with pytest.raises(UsageError, match="bad-layers"):
        edits.drop_layers(io.BytesIO(one), io.BytesIO(), keep=0)


def test_strip_removes_metadata_and_keeps_consent(one: bytes) -> None:
    out = io.BytesIO()
    edits.strip(io.BytesIO(one), out)
    reader = Reader(io.BytesIO(out.getvalue()))
    assert reader.metadata == {}
    assert reader.thumbnail is None
    assert reader.header.settings == {}
    assert reader.provenance is not None
    assert reader.provenance.consent


@pytest.fixture
def detached(one: bytes) -> tuple[bytes, bytes]:
    out, alone = io.BytesIO(), io.BytesIO()
    edits.detach(io.BytesIO(one), out, alone, hint="person.sglat")
    return out.getvalue(), alone.getvalue()


def test_a_detached_identity_is_a_file_of_its_own(detached: tuple[bytes, bytes]) -> None:
    motion, alone = (Reader(io.BytesIO(data)) for data in detached)
    assert motion.identity is None
    assert motion.identity_reference is not None
    assert motion.identity_reference.sha256 == alone.identity_sha256


def test_attach_undoes_detach(one: bytes, detached: tuple[bytes, bytes]) -> None:
    out = io.BytesIO()
    edits.attach(io.BytesIO(detached[0]), io.BytesIO(detached[1]), out)
    assert all_chunks(out.getvalue())[1:4] == all_chunks(one)[1:4]


def test_attach_refuses_another_person(detached: tuple[bytes, bytes], other: bytes) -> None:
    with pytest.raises(FormatError, match="identity-mismatch"):
        edits.attach(io.BytesIO(detached[0]), io.BytesIO(other), io.BytesIO())


def inserted(data: bytes, chunk: bytes) -> bytes:
    """Return the file rewritten with one more chunk after HEAD, and no index."""
    chunks = all_chunks(data)
    at = chunks[1].offset
    index = next(c for c in chunks if c.type == "INDX")
    end = bytearray(chunks[-1].payload)
    end[:8] = bytes(8)
    return data[:at] + chunk + data[at : index.offset] + pack_chunk("ENDS", bytes(end))


def test_an_unknown_chunk_is_copied_through_edits(one: bytes, other: bytes) -> None:
    strange = inserted(one, pack_chunk("ZZZZ", b"hello", flags=1))
    for edit in (
        edits.strip,
        edits.rewrite,
        lambda a, b: edits.swap(a, io.BytesIO(other), b),
        lambda a, b: edits.drop_layers(a, b, keep=1),
        lambda a, b: timeline.trim(a, b, start_seconds=Fraction(0), end_seconds=Fraction(1)),
        lambda a, b: join.concat([a], b),
    ):
        out = io.BytesIO()
        edit(io.BytesIO(strange), out)
        assert chunks_of(out.getvalue(), "ZZZZ") == [b"hello"]


def test_an_unknown_bound_chunk_is_dropped_by_edits(one: bytes) -> None:
    strange = inserted(one, pack_chunk("ZZZZ", b"hello", flags=3))
    out = io.BytesIO()
    edits.rewrite(io.BytesIO(strange), out)
    assert chunks_of(out.getvalue(), "ZZZZ") == []
