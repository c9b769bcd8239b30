"""The entropy coder: round trips, twins, bounds, damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglat.bitstream.constants import MAX_VALUE, SCALES, TOTAL
from sglat.bitstream.integers import choose_lanes, pack_integers, unpack_integers
from sglat.bitstream.integers import unpack_integers_scalar as unpack_scalar
from sglat.bitstream.rans import (
    THETA,
    boundaries,
    cumulative,
    pack_escapes,
    scale_middle,
    scale_rows,
)
from sglat.errors import FormatError

integers = st.one_of(st.integers(-3, 3), st.integers(-60, 60), st.integers(-MAX_VALUE, MAX_VALUE))


def test_every_symbol_of_every_table_has_a_frequency() -> None:
    frequencies = np.diff(boundaries(), axis=1)
    assert frequencies.min() >= 1
    assert (frequencies.sum(axis=1) == TOTAL).all()


def test_the_distribution_is_one_half_at_its_middle() -> None:
    middle = cumulative().shape[1] // 2
    assert (cumulative()[:, middle] == TOTAL // 2).all()


def test_the_scale_table_is_the_rounded_exponential_it_claims_to_be() -> None:
    scales = np.array([scale_middle(index) for index in range(len(THETA))]) / 4096
    expected = 2.0**30 * np.exp(-1 / (16 * scales))
    assert np.abs(np.array(THETA) - expected).max() <= 0.51


def test_each_magnitude_gets_the_scale_with_its_leading_bits() -> None:
    rows = scale_rows()
    for magnitude in (0, 127, 128, 159, 160, 4096, 65535):
        clamped = max(magnitude, 128)
        exponent = clamped.bit_length() - 3
        assert rows[magnitude] == 16 * (4 * (exponent - 5) + (clamped >> exponent) - 4) + 8


def test_the_largest_magnitude_gets_the_last_scale() -> None:
    assert scale_rows()[-1] // 16 == SCALES - 1


@given(st.lists(integers, max_size=80), st.integers(0, 5), st.integers(0, SCALES - 1))
@settings(max_examples=80, deadline=None)
def test_integers_come_back(values: list[int], lane_bits: int, spread: int) -> None:
    array = np.array(values, dtype=np.int64)
    data = pack_integers(array, lane_bits=lane_bits, spread=spread)
    found = unpack_integers(data, len(array), lane_bits=lane_bits, spread=spread)
    assert found.tolist() == values


@given(st.lists(integers, min_size=1, max_size=200), st.integers(3, 5))
@settings(max_examples=40, deadline=None)
def test_many_lanes_decode_as_one_by_one(values: list[int], lane_bits: int) -> None:
    data = pack_integers(np.array(values, dtype=np.int64), lane_bits=lane_bits)
    fast = unpack_integers(data, len(values), lane_bits=lane_bits)
    assert np.array_equal(fast, unpack_scalar(data, len(values), lane_bits=lane_bits))


@given(st.binary(max_size=120), st.integers(0, 200), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_noise_is_refused_with_one_code(data: bytes, count: int, lane_bits: int) -> None:
    try:
        unpack_integers(data, count, lane_bits=lane_bits)
    except FormatError as error:
        assert error.code == "bad-stream"


@pytest.mark.parametrize("lane_bits", [0, 3])
def test_every_cut_of_a_stream_is_refused(lane_bits: int) -> None:
    values = np.random.default_rng(0).integers(-40, 41, 60)
    data = pack_integers(values, lane_bits=lane_bits)
    for length in range(len(data)):
        with pytest.raises(FormatError, match="bad-stream"):
            unpack_integers(data[:length], 60, lane_bits=lane_bits)


def test_a_stream_with_a_byte_too_many_is_refused() -> None:
    data = pack_integers(np.arange(10))
    with pytest.raises(FormatError, match="bad-stream"):
        unpack_integers(data[:5] + b"\0" + data[5:], 10)


def test_an_escape_beyond_four_bytes_is_not_written() -> None:
    with pytest.raises(FormatError, match="bad-value"):
        pack_escapes([1 << 28])


def test_laplacian_integers_cost_at_most_four_percent_more_than_their_entropy() -> None:
    values = np.rint(np.random.default_rng(0).laplace(0, 1, 20000)).astype(np.int64)
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    entropy_bits = -(share * np.log2(share)).sum() * len(values)
    assert 8 * len(pack_integers(values)) < 1.04 * entropy_bits


def test_lanes_grow_with_the_stream() -> None:
    assert [choose_lanes(n) for n in (0, 32767, 32768, 200_000, 10**7)] == [0, 0, 5, 7, 8]
