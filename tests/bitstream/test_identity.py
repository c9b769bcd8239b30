"""Identity layers: round trips, budgets, hostile descriptions."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sglat.bitstream.edits import swap
from sglat.bitstream.identity import (
    identity_hash,
    pack_identity,
    pack_layer,
    unpack_base,
    unpack_layer,
)
from sglat.bitstream.layers import (
    choose_weights,
    pack_layer_body,
    predict_rows,
    residual_rows,
    unpack_layer_body,
)
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import (
    DeltaLayer,
    DenseDelta,
    Header,
    Identity,
    LatentLayer,
    LowRankDelta,
    QuantizedTensor,
    SparseDelta,
    SpectralDelta,
    cosines,
)
from sglat.bitstream.values import Cursor
from sglat.bitstream.writer import Writer
from sglat.errors import FormatError
from tests.bitstream.samples import (
    NUM_WS,
    W_DIM,
    sample_header,
    sample_identity,
    sample_motion,
    spectral,
    tensor,
)

SHAPE = (NUM_WS, W_DIM)


def decoded(identity: Identity) -> Identity:
    chunks = pack_identity(identity)
    neutral, frame, base = unpack_base(chunks[0][1], SHAPE)
    rest = [unpack_layer(p, n, SHAPE) for n, (_, p) in enumerate(chunks[1:], start=1)]
    return Identity(layers=(base, *rest), neutral=neutral, id_frame=frame)


def test_the_latent_comes_back() -> None:
    identity = sample_identity(np.random.default_rng(0))
    assert np.array_equal(decoded(identity).latent_offset(), identity.latent_offset())


def test_neutral_and_frame_number_come_back() -> None:
    identity = sample_identity(np.random.default_rng(0))
    found = decoded(identity)
    assert (found.neutral.tolist(), found.id_frame) == (identity.neutral.tolist(), 17)


def test_weight_deltas_come_back() -> None:
    identity = sample_identity(np.random.default_rng(0))
    pairs = zip(identity.weight_deltas(), decoded(identity).weight_deltas(), strict=True)
    for expected, found in pairs:
        assert type(found) is type(expected)
        for name in ("left", "right", "gains", "values"):
            if hasattr(expected, name):
                one, other = getattr(expected, name), getattr(found, name)
                assert np.array_equal(one.values, other.values)
                assert one.step == other.step


def test_sparse_indices_come_back() -> None:
    sparse = decoded(sample_identity(np.random.default_rng(0))).weight_deltas()[3]
    assert isinstance(sparse, SparseDelta)
    assert sparse.indices.tolist() == [0, 7, 199]


@given(hnp.arrays(np.int64, (3, 5), elements=st.integers(-500, 500)))
@settings(max_examples=50, deadline=None)
def test_predicted_rows_come_back(rows: np.ndarray) -> None:
    weights = choose_weights(rows)
    assert np.array_equal(predict_rows(residual_rows(rows, weights), weights), rows)


def test_equal_rows_cost_almost_nothing() -> None:
    row = np.random.default_rng(0).integers(-3, 4, (1, 512)).astype(np.int32)
    one = len(pack_layer_body(layer_of(row)))
    many = len(pack_layer_body(layer_of(np.repeat(row, 18, axis=0))))
    assert 8 * (many - one) < 0.12 * 17 * 512  # bits a repeated integer


def layer_of(values: np.ndarray) -> LatentLayer:
    return LatentLayer(latent=QuantizedTensor(values=values, step=0.5))


def test_the_hash_covers_every_layer() -> None:
    payloads = [payload for _, payload in pack_identity(sample_identity(np.random.default_rng(0)))]
    assert identity_hash(payloads) != identity_hash(payloads[:-1])


def test_weight_deltas_cannot_be_layer_zero() -> None:
    delta = DeltaLayer(deltas=(DenseDelta(name="b", values=tensor(np.random.default_rng(0), 3)),))
    with pytest.raises(FormatError, match="bad-layer"):
        pack_identity(Identity(layers=(delta,), neutral=np.zeros(34, dtype=np.float32)))


def test_a_low_rank_delta_of_the_wrong_shape_is_not_written() -> None:
    rng = np.random.default_rng(0)
    left, right = tensor(rng, 6, 2), tensor(rng, 2, 5)
    delta = LowRankDelta(name="w", shape=(6, 4), left=left, right=right)
    with pytest.raises(FormatError, match="bad-layer"):
        pack_layer_body(DeltaLayer(deltas=(delta,)))


def test_indices_that_do_not_rise_are_not_written() -> None:
    values = tensor(np.random.default_rng(0), 2)
    delta = SparseDelta(name="w", shape=(9,), indices=np.array([4, 4]), values=values)
    with pytest.raises(FormatError, match="bad-layer"):
        pack_layer_body(DeltaLayer(deltas=(delta,)))


STEP = b"\0\0\0\x3f"


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("bad-layer", b"\0"),
        ("bad-layer", b"\x02" + 2 * (b"\0" + STEP + bytes(4)) + bytes(10)),
        ("bad-layer", b"\x01\x06"),
        ("bad-layer", b"\x01\0" + STEP + b"\x01\0\0\0\0\x10"),
        ("bad-layer", b"\x01\0" + STEP + b"\0\x11\0\0\0\x10"),
        ("bad-layer", b"\x01\x03\0"),
        ("bad-layer", b"\x01\x03\x01a\0"),
        ("bad-layer", b"\x01\x03\x01a\x05"),
        ("bad-layer", b"\x01\x03\x01a\x01\0"),
        ("bad-layer", b"\x01\x03\x01a\x02\x80\x80\x80\x10\x02" + STEP + b"\0\x10" + bytes(5)),
        ("bad-layer", b"\x01\x03\x01a\x01\x80\x80\x80\x04" + STEP + b"\0\x10" + bytes(5)),
        ("bad-layer", b"\x01\x01\x01a\x02\x04\x04\x05" + STEP + STEP),
        ("bad-layer", b"\x01\x01\x01a\x02\x04\x04\0" + STEP + STEP),
        ("bad-layer", b"\x01\x04\x01a\x01\x04\0" + STEP),
        ("bad-layer", b"\x01\x04\x01a\x01\x04\x01" + STEP + b"\x04" + bytes(7)),
        ("bad-layer", b"\x01\0" + STEP + b"\0\0\0\0\x09\x10"),
        ("bad-layer", b"\x01\0" + STEP + b"\0\0\0\0\0\x24"),
        ("bad-step", b"\x01\0\0\0\x80\xbf"),
        ("bad-step", b"\x01\0\0\0\x80\x7f"),
        ("bad-encoding", b"\x01\x03\x01\xff"),
        ("bad-encoding", b"\x01\x03\x01\0"),
        ("bad-varint", b"\x81\0"),
        ("bad-varint", b"\xff" * 10),
        ("bad-field", b"\x01\0\0"),
        ("bad-stream", b"\x01\0" + STEP + b"\0\0\0\0\0\x10" + bytes(5)),
    ],
)
def test_each_breach_of_a_layer_has_its_code(code: str, body: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        unpack_layer_body(Cursor(body), SHAPE)
    assert caught.value.code == code


def test_layers_together_may_not_hold_more_than_there_is_room_for() -> None:
    payload = pack_identity(sample_identity(np.random.default_rng(0)))[1][1]
    assert unpack_layer(payload, 1, SHAPE, room=NUM_WS * W_DIM)
    with pytest.raises(FormatError, match="bad-layer"):
        unpack_layer(payload, 1, SHAPE, room=NUM_WS * W_DIM - 1)


def test_a_layer_out_of_sequence_is_refused() -> None:
    payload = pack_identity(sample_identity(np.random.default_rng(0)))[1][1]
    with pytest.raises(FormatError, match="bad-order"):
        unpack_layer(payload, 2, SHAPE)


def test_a_spectral_delta_comes_back() -> None:
    delta = spectral(np.random.default_rng(3))
    payload = pack_layer(1, DeltaLayer(deltas=(delta, delta)))
    layer = unpack_layer(payload, 1, (2, 4))
    assert isinstance(layer, DeltaLayer) and len(layer.deltas) == 2
    for found in layer.deltas:
        assert isinstance(found, SpectralDelta)
        assert (found.name, found.shape, found.base_step) == ("conv.weight", (6, 4, 3, 3), 0.125)
        assert np.array_equal(found.left.values, delta.left.values)
        assert np.array_equal(found.right, delta.right)
        assert np.array_equal(found.sixteenths, delta.sixteenths)


def test_a_flat_spectrum_is_a_filter_of_equal_places() -> None:
    right = np.zeros((9, 2, 4), np.int32)
    right[0, 0, 1] = 3
    left, filters = spectral(np.random.default_rng(0), right=right).dequantize()
    assert left.shape == (6, 2)
    wanted = np.zeros((2, 4, 9), np.float32)
    wanted[0, 1] = 3 * 0.125 / 3  # the cosine of frequency 0 is 1/3 at all nine places
    np.testing.assert_allclose(filters, wanted.reshape(2, -1), atol=1e-7)


def test_the_transform_keeps_lengths() -> None:
    for size in (1, 2, 3, 5):
        np.testing.assert_allclose(cosines(size) @ cosines(size).T, np.eye(size), atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"sixteenths": np.full(8, 16, np.int32)},
        {"sixteenths": np.array([0] + [16] * 8, np.int32)},
        {"sixteenths": np.array([1 << 14] + [16] * 8, np.int32)},
        {"right": np.zeros((9, 2, 5), np.int32)},
        {"right": np.zeros((9, 3, 4), np.int32)},
    ],
)
def test_a_spectral_delta_that_does_not_fit_is_not_written(changes: dict[str, Any]) -> None:
    delta = spectral(np.random.default_rng(0), **changes)
    with pytest.raises(FormatError, match="bad-layer"):
        pack_layer_body(DeltaLayer(deltas=(delta,)))


def with_spectral(header: Header) -> bytes:
    rng = np.random.default_rng(0)
    person = sample_identity(rng)
    person = replace(person, layers=(*person.layers, DeltaLayer(deltas=(spectral(rng),))))
    out = io.BytesIO()
    writer = Writer(out, header)
    writer.put_identity(person)
    writer.put_motion(sample_motion(rng, header, 3))
    writer.close()
    return out.getvalue()


def test_a_spectral_delta_asks_for_a_newer_reader() -> None:
    header = sample_header(frame_count=3)
    with pytest.raises(FormatError, match="unsupported-version"):
        with_spectral(header)
    data = with_spectral(replace(header, read_version=(1, 1)))
    assert Reader(io.BytesIO(data)).header.read_version == (1, 1)


def test_a_swap_asks_for_the_newer_reader_of_both() -> None:
    header = sample_header(frame_count=3)
    newer = io.BytesIO(with_spectral(replace(header, read_version=(1, 1))))
    older = io.BytesIO()
    writer = Writer(older, header)
    rng = np.random.default_rng(1)
    writer.put_identity(sample_identity(rng))
    writer.put_motion(sample_motion(rng, header, 3))
    writer.close()
    older.seek(0)
    out = io.BytesIO()
    swap(older, newer, out)
    out.seek(0)
    assert Reader(out).header.read_version == (1, 1)
