"""Motion payloads: exact round trips, coarse copies, rate, and bytes that are no payload."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sglat.bitstream.constants import MAX_VALUE
from sglat.errors import FormatError
from sglat.live.payload import (
    FORMS,
    TABLES,
    Form,
    MotionPayload,
    pack_payload,
    unpack_payload,
)

ROOT = Path(__file__).resolve().parents[2]


def motion(frames: int, *, seed: int = 0, size: float = 0.7) -> NDArray[np.int32]:
    """Return motion that moves by a part of a step a frame, `[T, 34]`."""
    moves = np.random.default_rng(seed).normal(0, size, (frames, 34))
    return np.rint(np.cumsum(moves, axis=0)).astype(np.int32)


def no_flags(count: int) -> NDArray[np.uint8]:
    return np.zeros(count, np.uint8)


ANCHOR = motion(1, seed=9, size=4)[0]


def same(one: MotionPayload, other: MotionPayload) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("frames", "flags", "copies")
    )


@given(
    st.integers(1, 4), st.integers(0, 7), st.integers(0, 3), st.sampled_from((2, 3)),
    st.floats(0, 40), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_what_the_sender_expects_is_what_is_decoded(
    frames: int, copies: int, shift: int, coarse: int, size: float, seed: int
) -> None:
    track = motion(frames + copies, seed=seed, size=size)
    form = Form(shift=shift, coarse_shift=coarse, copies=copies)
    flags = np.random.default_rng(seed).integers(0, 4, frames).astype(np.uint8)
    data, expected = pack_payload(
        track[copies:], flags, track[:copies][::-1], ANCHOR, forms=(form,)
    )
    assert same(unpack_payload(data, ANCHOR), expected)


def test_the_finest_form_is_exact_and_its_copies_are_within_half_a_unit() -> None:
    track = motion(10)
    past = track[7::-2][:4]
    data, _ = pack_payload(track[8:], no_flags(2), past, ANCHOR)
    found = unpack_payload(data, ANCHOR)
    assert np.array_equal(found.frames, track[8:])
    assert np.abs(found.copies - past).max() <= 2


@pytest.mark.parametrize("most", [60, 40, 30, 20])
def test_a_coarser_form_is_taken_where_bytes_are_short(most: int) -> None:
    track = motion(10, size=1.0)
    data, shown = pack_payload(track[8:], no_flags(2), track[7::-2][:4], ANCHOR, most_bytes=most)
    smallest, _ = pack_payload(track[8:], no_flags(2), track[:0], ANCHOR, forms=FORMS[-1:])
    assert len(data) <= max(most, len(smallest))
    assert np.abs(shown.frames - track[8:]).max() <= 4


def test_no_packet_needs_another() -> None:
    track = motion(40)
    packets = [
        pack_payload(track[t : t + 2], no_flags(2), track[t - 1 :: -2][:4], ANCHOR)[0]
        for t in range(8, 40, 2)
    ]
    order = np.random.default_rng(0).permutation(len(packets))
    for at in order[: len(order) // 2].tolist():
        found = unpack_payload(packets[at], ANCHOR)
        assert np.array_equal(found.frames, track[8 + 2 * at : 10 + 2 * at])


def test_golden_bytes() -> None:
    track = np.array([[(3 * t + c * c) % 7 - 3 for c in range(34)] for t in range(6)], np.int32)
    flags = np.array([0, 1], np.uint8)
    data, _ = pack_payload(track[4:], flags, track[3::-2], track[0])
    assert data.hex() == GOLDEN


GOLDEN = (
    "44b88e3012c92c65c20251112f5bc1afb44292ebd709fe9e1bdf698de5919e28d2749d058b0935eb1fd53843641b33"
    "efc9e41ea3cabb54e90e94ae1b31"
)


@pytest.mark.parametrize("value", [MAX_VALUE, -MAX_VALUE])
def test_values_beyond_the_legal_ones_are_not_sent(value: int) -> None:
    frames = np.full((1, 34), value, np.int32)
    with pytest.raises(FormatError, match="bad-value"):
        pack_payload(frames, no_flags(1), frames[:0], ANCHOR)


@pytest.mark.parametrize("frames", [0, 5])
def test_other_numbers_of_frames_are_refused(frames: int) -> None:
    with pytest.raises(FormatError, match="bad-frames"):
        pack_payload(motion(frames), no_flags(frames), motion(0), ANCHOR)


@given(st.binary(max_size=80))
@settings(max_examples=80, deadline=None)
def test_any_bytes_give_a_payload_or_an_error(data: bytes) -> None:
    try:
        found = unpack_payload(data, ANCHOR)
    except FormatError as error:
        assert error.code in ("bad-stream", "bad-value")
    else:
        assert np.abs(found.frames).max() <= MAX_VALUE


def test_a_payload_larger_than_any_is_refused_unread() -> None:
    with pytest.raises(FormatError, match="1024"):
        unpack_payload(bytes(2000), ANCHOR)


def test_the_tables_are_those_of_the_document() -> None:
    text = (ROOT / "format_spec" / "LIVE.md").read_text()
    rows = re.findall(r"^\| (?:FRAME|NEXT|COPY) \| [01] \| ([\d ]+) \|$", text, re.MULTILINE)
    found = [[int(word) for word in row.split()] for row in rows]
    assert found == TABLES.reshape(6, 16).tolist()
