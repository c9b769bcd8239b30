"""The motion coder: round trips, twins, still frames, the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sglat.bitstream.constants import MAX_VALUE, SCALES
from sglat.bitstream.motion_batch import unpack_frames_batch
from sglat.bitstream.motion_coder import (
    NO_REF,
    MotionModel,
    default_model,
    fit_model,
    pack_frames,
    pack_model,
    quantize,
    unpack_frames,
    unpack_model,
)
from sglat.errors import FormatError
from tests.bitstream.samples import walk

CHANNELS = 5
tracks = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 12), st.just(CHANNELS)),
    elements=st.one_of(st.integers(-2, 2), st.integers(-MAX_VALUE, MAX_VALUE)),
)


@st.composite
def models(draw: st.DrawFn) -> MotionModel:
    refs = [draw(st.sampled_from([NO_REF, *range(c)])) for c in range(CHANNELS)]
    return MotionModel(
        start=tuple(draw(st.integers(-MAX_VALUE, MAX_VALUE)) for _ in refs),
        spread=tuple(draw(st.integers(0, SCALES - 1)) for _ in refs),
        ref=tuple(refs),
        weight=tuple(0 if ref == NO_REF else draw(st.integers(-64, 64)) for ref in refs),
    )


@given(tracks, models())
@settings(max_examples=80, deadline=None)
def test_frames_come_back(values: np.ndarray, model: MotionModel) -> None:
    assert np.array_equal(unpack_frames(pack_frames(values, model), len(values), model), values)


@given(models())
@settings(max_examples=40, deadline=None)
def test_a_model_comes_back(model: MotionModel) -> None:
    assert unpack_model(pack_model(model), CHANNELS) == model


@given(st.lists(tracks, min_size=1, max_size=9), models())
@settings(max_examples=40, deadline=None)
def test_the_batch_decoder_equals_its_scalar_twin(
    groups: list[np.ndarray], model: MotionModel
) -> None:
    payloads = [pack_frames(values, model) for values in groups]
    found = unpack_frames_batch(payloads, [len(values) for values in groups], model)
    assert found is not None
    for values, decoded in zip(groups, found, strict=True):
        assert np.array_equal(values, decoded)


@given(tracks, st.binary(min_size=5, max_size=60))
@settings(max_examples=100, deadline=None)
def test_the_batch_decoder_refuses_what_its_twin_refuses(values: np.ndarray, noise: bytes) -> None:
    model = default_model(CHANNELS)
    payloads = [pack_frames(values, model), noise]
    try:
        expected = unpack_frames(noise, 9, model)
    except FormatError:
        assert unpack_frames_batch(payloads, [len(values), 9], model) is None
    else:
        found = unpack_frames_batch(payloads, [len(values), 9], model)
        assert found is not None
        assert np.array_equal(found[1], expected)


def test_a_group_of_still_frames_costs_less_than_two_bits_a_frame() -> None:
    values = np.tile(np.arange(34, dtype=np.int32), (256, 1))
    assert 8 * len(pack_frames(values, default_model(34))) / 256 < 2


def test_a_still_frame_after_motion_costs_less_than_two_bits() -> None:
    moving = walk(np.random.default_rng(0), 128)
    held = np.concatenate([moving, np.repeat(moving[-1:], 128, axis=0)])
    model = default_model(34)
    extra_bytes = len(pack_frames(held, model)) - len(pack_frames(moving, model))
    assert 8 * extra_bytes / 128 < 2


def test_a_value_beyond_the_bound_is_not_written() -> None:
    with pytest.raises(FormatError, match="bad-value"):
        pack_frames(np.full((1, 34), MAX_VALUE + 1, dtype=np.int32), default_model(34))


def test_a_value_beyond_the_bound_is_not_read() -> None:
    model = default_model(1)
    far = MotionModel(start=(MAX_VALUE,), spread=(16,), ref=(NO_REF,), weight=(0,))
    data = pack_frames(np.array([[1]], dtype=np.int32), model)
    with pytest.raises(FormatError, match="bad-value"):
        unpack_frames(data, 1, far)


@pytest.mark.parametrize("bad", [b"\0\x24\xff\0", b"\0\x10\0\x01", b"\0\x10\xff\x01", b"\0\x10"])
def test_a_model_that_breaks_its_rules_is_refused(bad: bytes) -> None:
    with pytest.raises(FormatError, match="bad-model"):
        unpack_model(bad, 1)


def test_a_fitted_model_makes_coupled_channels_cheaper() -> None:
    rng = np.random.default_rng(0)
    values = walk(rng, 2000)
    values[:, 3:] = values[:, 2:3] + walk(rng, 2000, 31) // 4
    model = fit_model(values)
    assert model is not None
    assert set(model.ref[3:]) <= set(range(2, 34))
    assert len(pack_frames(values, model)) < len(pack_frames(values, default_model(34)))


def test_a_track_that_stands_still_gets_no_model() -> None:
    assert fit_model(np.ones((1500, 34), dtype=np.int32)) is None


def test_quantize_refuses_what_has_no_integer() -> None:
    with pytest.raises(FormatError, match="bad-value"):
        quantize(np.array([[np.nan]], dtype=np.float32), np.ones(1, dtype=np.float32))
