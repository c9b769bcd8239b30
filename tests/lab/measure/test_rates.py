"""The coders we compare with count what their descriptions say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sglat_lab.measure import rates as anchors


def test_exp_golomb_lengths_are_those_of_ue_v() -> None:
    numbers = np.array([0, 1, 2, 3, 6, 7, 14, 15, 2**20 - 2, 2**20 - 1])
    assert anchors.exp_golomb_length(numbers).tolist() == [1, 3, 3, 5, 5, 7, 7, 9, 39, 41]


def test_sei_codes_the_first_frame_whole_and_then_differences() -> None:
    values = np.array([[0, 3], [1, 3], [1, -4]])
    assert anchors.sei_bits(values).tolist() == [1 + 6, 4 + 1, 1 + 8]


def test_gfvc_never_writes_less_than_two_bytes_a_frame() -> None:
    assert anchors.gfvc_bits(np.zeros((5, 34), np.int32)).tolist() == [16] * 5


def adaptive_bits(sequence: list[int]) -> int:
    """Return the flushed size of bits under an order-0 model, symbol by symbol."""
    counts, ideal = {0: 0, 1: 0}, 0.0
    for symbol in [*sequence, 2]:
        total = sum(counts.values()) + 1
        if symbol != 2 and counts[symbol]:
            ideal -= math.log2(counts[symbol] / total)
        else:
            ideal -= math.log2(1 / total) + math.log2(1 / 3)
        if symbol != 2:
            counts[symbol] += 1
    return 8 * math.ceil((ideal + 1) / 8)


@pytest.mark.parametrize("difference", [0, 1, -1, 2, -7, 100])
def test_gfvc_size_is_that_of_its_bits_coded_one_by_one(difference: int) -> None:
    index = -2 * difference if difference <= 0 else 2 * difference - 1
    code = [0] * ((index + 1).bit_length() - 1) + [int(b) for b in f"{index + 1:b}"]
    expected = adaptive_bits([1] + code * 34)
    assert anchors.gfvc_bits(np.full((1, 34), difference, np.int32)).tolist() == [expected]
