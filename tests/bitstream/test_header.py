"""HEAD: round trip, and one breach for each rule."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import msgpack
import numpy as np
import pytest

from sglat.bitstream.header import pack_header, unpack_header
from sglat.bitstream.motion_coder import default_model
from sglat.bitstream.values import pack_map
from sglat.errors import FormatError
from tests.bitstream.samples import sample_header

VERSION = b"\x01\x00\x01\x00"


def fields(**changes: Any) -> bytes:
    """Return a HEAD payload with some fields changed, or removed where None."""
    values = msgpack.unpackb(pack_header(sample_header(frame_count=5))[4:])
    values.update(changes)
    return VERSION + pack_map({k: v for k, v in values.items() if v is not None})


def same(one: object, other: object) -> bool:
    return repr(one) == repr(other)


@pytest.mark.parametrize(
    "header",
    [
        sample_header(),
        sample_header(is_variable=True, frame_count=7),
        replace(sample_header(), placement_steps=None, source_size=None, settings={}, encoder=""),
        replace(sample_header(), start_ticks=-5, time_base=Fraction(1001, 30000)),
        replace(sample_header(), model=default_model(34), extra={"zz": [1, -2]}),
    ],
)
def test_a_header_comes_back(header: Any) -> None:
    assert same(unpack_header(pack_header(header)), header)


def test_a_newer_reader_is_asked_for() -> None:
    payload = b"\x02\x00\x02\x00" + pack_header(sample_header())[4:]
    with pytest.raises(FormatError, match="unsupported-version"):
        unpack_header(payload)


def test_a_newer_minor_version_that_old_readers_may_read_is_read() -> None:
    payload = b"\x01\x07\x01\x00" + pack_header(sample_header())[4:]
    assert unpack_header(payload).bundle == "mini"


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        ("bad-field", b"\x01\x00"),
        ("bad-encoding", VERSION),
        ("bad-encoding", VERSION + b"\xc1"),
        ("bad-encoding", VERSION + b"\x90"),
        ("bad-encoding", VERSION + b"\x81\x01\x02"),
        ("bad-encoding", VERSION + b"\x82\xa1b\x01\xa1a\x01"),
        ("bad-encoding", VERSION + b"\x82\xa1a\x01\xa1a\x01"),
        ("bad-encoding", VERSION + b"\x81\xa1a\xcc\x01"),
        ("bad-encoding", VERSION + b"\x81\xa1a\xc3"),
        ("bad-encoding", VERSION + b"\x81\xa1a\xcb" + bytes(8)),
        ("bad-encoding", VERSION + b"\x81\xa1a\xd4\x01\x00"),
        ("bad-encoding", VERSION + b"\x81\xa1a" + 40 * b"\x91" + b"\x01"),
        ("bad-encoding", VERSION + b"\x81\xa1\xff\x01"),
        ("bad-encoding", VERSION + b"\x80\x00"),
        ("bad-encoding", VERSION + b"\xdf\xff\xff\xff\xff"),
        ("bad-field", VERSION + b"\x80"),
        ("bad-field", fields(decoder=bytes(31))),
        ("bad-field", fields(decoder="x" * 32)),
        ("bad-field", fields(bundle="")),
        ("bad-field", fields(bundle="b" * 65)),
        ("bad-field", fields(frames=-1)),
        ("bad-field", fields(frames=(1 << 24) + 1)),
        ("bad-field", fields(rate=[1, 0, 1, 0])),
        ("bad-field", fields(rate=[1, 1, 1])),
        ("bad-field", fields(rate=[1, 1 << 32, 1, 0])),
        ("bad-field", fields(size=[128, 65, 8])),
        ("bad-field", fields(size=[128, 4, 8, 1])),
        ("bad-field", fields(source=[0, 1])),
        ("bad-field", fields(steps=bytes(135))),
        ("bad-field", fields(settings={"a": "b" * 257})),
        ("bad-field", fields(settings={str(n): "" for n in range(33)})),
        ("bad-step", fields(steps=bytes(136))),
        ("bad-step", fields(steps=np.full(34, np.nan, dtype="<f4").tobytes())),
        ("bad-step", fields(placement=np.full(4, -1, dtype="<f4").tobytes())),
        ("bad-model", fields(model=b"")),
    ],
)
def test_each_breach_of_the_header_has_its_code(code: str, payload: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        unpack_header(payload)
    assert caught.value.code == code


def test_a_step_that_is_not_positive_is_not_written() -> None:
    with pytest.raises(FormatError, match="bad-step"):
        pack_header(replace(sample_header(), motion_steps=np.zeros(34, dtype=np.float32)))
