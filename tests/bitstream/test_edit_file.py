"""Edits by name on files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sglat.bitstream.channels import SETS
from sglat.bitstream.demux import Demuxer
from sglat.bitstream.demux import Group as Coded
from sglat.bitstream.edit_file import EditReport, edit_motion
from sglat.bitstream.edit_grammar import parse_edit
from sglat.bitstream.edits import swap
from sglat.bitstream.extras import pack_provenance, unpack_provenance
from sglat.bitstream.motion_table import read_table, save_table
from sglat.bitstream.origins import edited, edits_of
from sglat.bitstream.reader import Group, Reader
from sglat.bitstream.records import Provenance
from sglat.bitstream.writer import Writer
from sglat.errors import BundleMismatchError, FormatError, UsageError
from tests.bitstream.samples import sample_file, sample_header, sample_identity


def edit(data: bytes, *edits: str) -> tuple[bytes, EditReport]:
    """Return an edited file; edits as `set yaw=5`."""
    out = io.BytesIO()
    parsed = [parse_edit(*text.partition(" ")[::2]) for text in edits]
    report = edit_motion(io.BytesIO(data), out, parsed)
    return out.getvalue(), report


def groups(data: bytes) -> list[Group]:
    return Reader(io.BytesIO(data)).read_all()


def values(data: bytes) -> np.ndarray:
    return np.concatenate([group.motion.values for group in groups(data)])


def payloads(data: bytes) -> list[bytes]:
    """Return the coded groups."""
    return [event.chunk.payload for event in Demuxer(io.BytesIO(data)) if isinstance(event, Coded)]


def without_motion(**changes: object) -> bytes:
    out, rng = io.BytesIO(), np.random.default_rng(0)
    writer = Writer(out, replace(sample_header(), **changes))
    writer.put_identity(sample_identity(rng))
    writer.close()
    return out.getvalue()


@pytest.mark.parametrize("is_variable", [False, True])
def test_an_edit_changes_its_channels_and_nothing_else(is_variable: bool) -> None:
    data = sample_file(is_variable=is_variable)
    result, report = edit(data, "set mouth 3+5")
    before, after = groups(data), groups(result)
    difference = values(result) - values(data)
    assert np.all(difference[:, 4] == 20)
    assert not np.delete(difference, 4, axis=1).any()
    assert report.changed == "mouth 3"
    for old, new in zip(before, after, strict=True):
        assert old.motion.first_frame == new.motion.first_frame
        assert (old.placement is None) == (new.placement is None)
        assert old.packets == new.packets
        for name in ("pts", "flags"):
            assert np.array_equal(getattr(old.motion, name), getattr(new.motion, name))


def test_groups_that_no_edit_changes_keep_their_bytes() -> None:
    data = sample_file()
    result, _ = edit(data, "set mouth 3+5@0f-2f")
    before, after = payloads(data), payloads(result)
    assert before[0] != after[0]
    assert before[1:] == after[1:] != []


def test_a_faster_file_has_another_clock_and_no_sound() -> None:
    data = sample_file()
    result, report = edit(data, "retime 3/2")
    old, new = Reader(io.BytesIO(data)), Reader(io.BytesIO(result))
    assert new.header.time_base * 3 == old.header.time_base * 2
    assert new.audio_format is None
    assert report.is_sound_dropped == (old.audio_format is not None)
    assert np.array_equal(values(data), values(result))


def test_a_clock_that_the_format_cannot_have_is_refused() -> None:
    with pytest.raises(UsageError, match="simple ratio"):
        edit(sample_file(), "retime 1.41421356237")


def test_the_record_names_the_edits_in_their_order() -> None:
    once, _ = edit(sample_file(), "set yaw=5", "gain eyes=1.2")
    twice, _ = edit(once, "neutral")
    record = Reader(io.BytesIO(twice)).provenance
    assert record is not None
    assert edits_of(record) == ("set yaw=5", "gain eyes=1.2", "neutral")


def test_a_signed_record_becomes_an_origin() -> None:
    signed = pack_provenance(Provenance(generated_by="a", consent="yes", extra={"sig": bytes(64)}))
    found = unpack_provenance(edited(signed, ["set yaw=5"], [], made_by="b"))
    assert (found.extra["look"], found.extra["drive"]) == (signed, [signed])
    assert (found.consent, "sig" in found.extra) == ("yes", False)


def test_many_edits_fit_the_record() -> None:
    payload = None
    for number in range(40):
        payload = edited(payload, [f"set yaw={number}" + "x" * 500] * 9, [], made_by="b")
    assert payload is not None
    assert len(edits_of(unpack_provenance(payload))) == 128


def test_a_swapped_file_rests_at_the_neutral_of_its_motion() -> None:
    out = io.BytesIO()
    swap(io.BytesIO(sample_file(seed=1)), io.BytesIO(sample_file(seed=2)), out)
    result, _ = edit(out.getvalue(), "neutral")
    neutral = Reader(io.BytesIO(sample_file(seed=1))).motion_neutral
    assert neutral is not None
    assert np.array_equal(values(result)[0], np.rint(neutral / 0.25))


def mixed(tmp_path: Path, name: str, data: bytes, span: str = "") -> bytes:
    path = tmp_path / name
    path.write_bytes(data)
    return edit(sample_file(), f"mix eyes:{path}{span}")[0]


def test_a_file_mixed_in_with_itself_changes_nothing(tmp_path: Path) -> None:
    data = sample_file()
    assert np.array_equal(values(mixed(tmp_path, "a.sglat", data)), values(data))


def test_a_file_mixed_in_becomes_an_origin_of_the_motion(tmp_path: Path) -> None:
    result = mixed(tmp_path, "a.sglat", sample_file(seed=2))
    record = Reader(io.BytesIO(result)).provenance
    other = Reader(io.BytesIO(sample_file(seed=2))).provenance
    assert record is not None
    assert other is not None
    assert pack_provenance(other) in record.extra["drive"]


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
def test_an_exported_table_mixed_in_brings_its_columns(tmp_path: Path, suffix: str) -> None:
    other = sample_file(seed=2)
    path = tmp_path / f"other{suffix}"
    save_table(read_table(io.BytesIO(other)), path)
    result, _ = edit(sample_file(), f"mix eyes:{path}")
    expected = values(sample_file())
    expected[:, SETS["eyes"]] = values(other)[:, SETS["eyes"]]
    assert np.array_equal(values(result), expected)


def test_a_table_of_any_program_needs_named_columns_alone(tmp_path: Path) -> None:
    count = len(values(sample_file()))
    rows = "\n".join(f"{n / 25},{n / 4}" for n in range(count))
    data = f"time,eyes_02\n{rows}\n".encode()
    result = mixed(tmp_path, "a.csv", data)
    assert np.array_equal(values(result)[:, 24], np.arange(count))
    expected = np.delete(values(sample_file()), 24, axis=1)
    assert np.array_equal(np.delete(values(result), 24, axis=1), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eyes 1\n1\n2\n", "expected [0-9]+ rows, one a frame, found 2"),
        ("eyse 1\n1\n", "nearest: eyes 1"),
        ("eyes 1\nnan\n", "eyes 1, row 0: expected a finite number"),
        ("eyes 1\n\n", "found none"),
        ("eyes 1\nx\n", "expected a number, found 'x'"),
        ("yaw,eyes 1\n1\n", "found 'no column'"),
        ("eyes 1,eyes_01\n1,2\n", "each column once"),
        ("eyes\n1\n", "expected a single control"),
        ("", "found none"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((UsageError, FormatError), match=message) as caught:
        mixed(tmp_path, "a.csv", text.encode())
    assert "a.csv" in str(caught.value)


def test_a_table_without_the_channels_wanted_is_refused(tmp_path: Path) -> None:
    rows = "1\n" * len(values(sample_file()))
    with pytest.raises(UsageError, match=r"a.csv: expected a column of eyes"):
        mixed(tmp_path, "a.csv", f"yaw\n{rows}".encode())


@pytest.mark.parametrize("name", ["a.csv", "a.h5", "a.sglat"])
def test_nonsense_is_not_mixed_in(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        mixed(tmp_path, name, b"\xff\xfe\x00")


def test_a_file_for_other_weights_is_not_mixed_in(tmp_path: Path) -> None:
    with pytest.raises(BundleMismatchError, match="bundle other"):
        mixed(tmp_path, "a.sglat", without_motion(decoder_id=bytes(32), bundle="other"))


def test_a_file_without_motion_cannot_be_edited() -> None:
    with pytest.raises(UsageError, match="no-motion"):
        edit(without_motion(), "set yaw=5")
