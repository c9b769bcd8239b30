"""The range coder: what is put is read, in few bytes, and damage is found or harmless."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglat.bitstream.constants import SCALES, TOTAL
from sglat.bitstream.rans import boundary_rows
from sglat.errors import FormatError
from sglat.live.range_coder import RangeDecoder, RangeEncoder

Residuals = st.lists(st.tuples(st.integers(0, SCALES - 1), st.integers(-70_000, 70_000)))


@given(Residuals, st.integers(0, 15), st.booleans())
@settings(max_examples=60, deadline=None)
def test_symbols_are_read_as_they_were_put(
    residuals: list[tuple[int, int]], four: int, flag: bool
) -> None:
    coder = RangeEncoder()
    coder.bits(four, 4)
    coder.flag(flag, TOTAL - 512)
    for scale, value in residuals:
        coder.residual(scale, value)
    reader = RangeDecoder(coder.finish())
    assert reader.bits(4) == four
    assert reader.flag(TOTAL - 512) is flag
    assert [reader.residual(scale) for scale, _ in residuals] == [v for _, v in residuals]
    reader.finish()


def test_the_size_is_the_entropy_and_a_byte() -> None:
    values = np.random.default_rng(0).integers(-2, 3, 500)
    coder = RangeEncoder()
    rows = boundary_rows()[16 * 20 + 8]
    bits = 0.0
    for value in values.tolist():
        coder.residual(20, value)
        bits -= np.log2((rows[value + 22] - rows[value + 21]) / TOTAL)
    assert bits / 8 <= len(coder.finish()) <= bits / 8 * 1.002 + 1


def test_golden_bytes() -> None:
    coder = RangeEncoder()
    coder.bits(5, 3)
    coder.flag(True, 30_000)
    for value in (0, -1, 3, 25, -21):
        coder.residual(12, value)
    assert coder.finish().hex() == GOLDEN


GOLDEN = "bdc7cd8c102140"


def test_a_byte_too_many_is_refused() -> None:
    coder = RangeEncoder()
    coder.bits(5, 3)
    data = coder.finish()
    for wrong in (data + b"\0", data + b"\1\2\3\4"):
        reader = RangeDecoder(wrong)
        reader.bits(3)
        with pytest.raises(FormatError) as found:
            reader.finish()
        assert found.value.code == "bad-stream"


@given(st.binary(max_size=64))
@settings(max_examples=80, deadline=None)
def test_any_bytes_give_integers_or_an_error(data: bytes) -> None:
    reader = RangeDecoder(data)
    try:
        values = [reader.residual(scale) for scale in range(SCALES)]
    except FormatError as error:
        assert error.code == "bad-stream"
    else:
        assert max(map(abs, values)) < 1 << 21
