"""Layers of an identity: entries, row prediction, the stream of integers (SPEC.md section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream import constants as k
from sglat.bitstream.integers import choose_lanes, pack_integers, unpack_integers
from sglat.bitstream.rans import scale_middle
from sglat.bitstream.records import (
    DeltaLayer,
    DenseDelta,
    GainDelta,
    Int32,
    LatentLayer,
    LowRankDelta,
    QuantizedTensor,
    SparseDelta,
    SpectralDelta,
    WeightDelta,
    weight_resolution,
)
from sglat.bitstream.values import Cursor, pack_step, pack_text, pack_varint
from sglat.errors import FormatError

Ints = NDArray[np.int64]
Integers = NDArray[np.int64] | NDArray[np.int32]

FULL_WEIGHT: Final = 16  # of the row before in the prediction of a row: one
LATENT, LOW_RANK, GAIN, DENSE, SPARSE, SPECTRAL = range(6)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One entry of a layer: its description and the integers it takes from the stream."""

    kind: int
    name: str = ""
    shape: tuple[int, ...] = ()
    rank: int = 0
    steps: tuple[float, ...] = ()
    weights: tuple[int, ...] = ()
    sixteenths: tuple[int, ...] = ()
    indices: Ints | None = None

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of its arrays as they stand in the stream."""
        if self.kind == LOW_RANK:
            return (self.rank, self.shape[0]), (self.rank, prod(self.shape[1:]))
        if self.kind == SPECTRAL:
            frequencies = prod(self.shape[2:])
            return (self.rank, self.shape[0]), (frequencies, self.rank, self.shape[1])
        if self.kind == GAIN:
            return (self.shape[:1],)
        if self.kind == SPARSE and self.indices is not None:
            return ((len(self.indices),),)
        return (self.shape,)

    @property
    def count(self) -> int:
        return sum(prod(part) for part in self.parts)


def pack_layer_body(layer: LatentLayer | DeltaLayer) -> bytes:
    """Return number of entries, entries and stream."""
    if isinstance(layer, LatentLayer):
        entries, arrays = _latent_entry(layer)
    else:
        entries, arrays = [], []
        for delta in layer.deltas:
            entry, parts = _delta_entry(delta)
            entries.append(entry)
            arrays += parts
    values = np.concatenate([part.reshape(-1) for part in arrays] or [np.zeros(0, np.int64)])
    # Residuals of a latent may be larger than what they stand for.
    stored = layer.latent.values.astype(np.int64) if isinstance(layer, LatentLayer) else values
    if stored.size and np.abs(stored).max() > k.MAX_VALUE:
        raise FormatError(
            "bad-value", f"expected integers within ±{k.MAX_VALUE}, found a larger one"
        )
    lanes = choose_lanes(len(values))
    spread = choose_spread(values)
    stream = pack_integers(values, lane_bits=lanes, spread=spread)
    described = b"".join(_pack_entry(entry) for entry in entries)
    body = pack_varint(len(entries)) + described + bytes((lanes, spread)) + stream
    _check_counts(entries, len(stream), Cursor(b""))
    return body


def choose_spread(values: Ints) -> int:
    """Return the scale index nearest to the mean magnitude of the first integers of a stream."""
    head = np.abs(values[:: max(1, len(values) // 4096)])
    mean = 4096 * float(head.mean()) if head.size else 0.0
    return min(range(k.SCALES), key=lambda index: abs(scale_middle(index) - mean))


def _latent_entry(layer: LatentLayer) -> tuple[list[_Entry], list[Ints]]:
    values = layer.latent.values.astype(np.int64)
    weights = choose_weights(values)
    entry = _Entry(
        kind=LATENT, shape=values.shape, steps=(layer.latent.step,), weights=tuple(weights)
    )
    return [entry], [residual_rows(values, weights)]


def _delta_entry(delta: WeightDelta) -> tuple[_Entry, list[Ints]]:
    if isinstance(delta, LowRankDelta):
        left, right = delta.left.values, delta.right.values
        steps = (delta.left.step, delta.right.step)
        rank = right.shape[0]
        entry = _Entry(kind=LOW_RANK, name=delta.name, shape=delta.shape, rank=rank, steps=steps)
        arrays = [left.T.astype(np.int64), right.astype(np.int64)]
    elif isinstance(delta, SpectralDelta):
        entry = _Entry(
            kind=SPECTRAL, name=delta.name, shape=delta.shape, rank=delta.left.values.shape[1],
            steps=(delta.left.step, delta.base_step), sixteenths=tuple(delta.sixteenths.tolist()),
        )  # fmt: skip
        arrays = [delta.left.values.T.astype(np.int64), delta.right.astype(np.int64)]
    elif isinstance(delta, GainDelta):
        entry = _Entry(kind=GAIN, name=delta.name, shape=delta.shape, steps=(delta.gains.step,))
        arrays = [delta.gains.values.astype(np.int64)]
    elif isinstance(delta, DenseDelta):
        shape = delta.values.values.shape
        entry = _Entry(kind=DENSE, name=delta.name, shape=shape, steps=(delta.values.step,))
        arrays = [delta.values.values.astype(np.int64)]
    else:
        entry = _Entry(
            kind=SPARSE,
            name=delta.name,
            shape=delta.shape,
            steps=(delta.values.step,),
            indices=delta.indices.astype(np.int64),
        )
        arrays = [delta.values.values.astype(np.int64)]
    if isinstance(delta, SpectralDelta) and delta.sixteenths.shape != (prod(delta.shape[2:]),):
        found = delta.sixteenths.shape
        raise FormatError("bad-layer", f"{delta.name} expected a step a frequency, found {found}")
    found = tuple(array.shape for array in arrays)
    if found != entry.parts:
        raise FormatError("bad-layer", f"{delta.name} expected {entry.parts}, found {found}")
    return entry, arrays


def _pack_entry(entry: _Entry) -> bytes:
    if entry.kind == LATENT:
        return bytes((LATENT,)) + pack_step(entry.steps[0]) + bytes(entry.weights)
    out = bytes((entry.kind,)) + pack_text(entry.name) + bytes((len(entry.shape),))
    out += b"".join(pack_varint(side) for side in entry.shape)
    if entry.kind in (LOW_RANK, SPECTRAL):
        out += pack_varint(entry.rank)
    if entry.kind == SPARSE and entry.indices is not None:
        out += pack_varint(len(entry.indices))
    out += b"".join(pack_step(step) for step in entry.steps)
    out += b"".join(pack_varint(share) for share in entry.sixteenths)
    if entry.kind == SPARSE and entry.indices is not None:
        gaps = np.diff(entry.indices, prepend=-1) - 1
        if gaps.size and gaps.min() < 0:
            raise FormatError("bad-layer", f"{entry.name} expected rising indices, found others")
        out += b"".join(pack_varint(gap) for gap in gaps.tolist())
    _read_entry(Cursor(out), LATENT_FREE)  # one set of checks for both directions
    return out


LATENT_FREE: Final = (1, 1)  # latent shape for entries that have none


def _read_entry(cursor: Cursor, latent_shape: tuple[int, int]) -> _Entry:
    kind = cursor.u8()
    if kind == LATENT:
        step = cursor.step()
        weights = tuple(cursor.take(latent_shape[0]))
        if weights[0] != 0 or max(weights) > 16:
            raise cursor.error("bad-layer", f"expected row weights 0, 0 to 16, found {weights}")
        return _Entry(kind=kind, shape=latent_shape, steps=(step,), weights=weights)
    if kind > SPECTRAL:
        raise cursor.error("bad-layer", f"expected an entry of kind 0 to {SPECTRAL}, found {kind}")
    name = cursor.text(k.MAX_NAME_BYTES, min_bytes=1, code="bad-layer")
    shape = _read_shape(cursor)
    if kind in (LOW_RANK, SPECTRAL):
        rank, highest = cursor.varint(), min(shape[0], prod(shape[1:]))
        if not 1 <= rank <= highest:
            raise cursor.error("bad-layer", f"expected a rank of 1 to {highest}, found {rank}")
        steps = (cursor.step(), cursor.step())
        sixteenths = _read_sixteenths(cursor, shape) if kind == SPECTRAL else ()
        return _Entry(
            kind=kind, name=name, shape=shape, rank=rank, steps=steps, sixteenths=sixteenths
        )
    if kind == SPARSE:
        count = cursor.varint()
        steps_ = (cursor.step(),)
        indices = _read_gaps(cursor, count, prod(shape))
        return _Entry(kind=kind, name=name, shape=shape, steps=steps_, indices=indices)
    return _Entry(kind=kind, name=name, shape=shape, steps=(cursor.step(),))


def _read_shape(cursor: Cursor) -> tuple[int, ...]:
    axes = cursor.u8()
    if not 1 <= axes <= k.MAX_AXES:
        raise cursor.error("bad-layer", f"expected 1 to {k.MAX_AXES} axes, found {axes}")
    shape = tuple(cursor.varint() for _ in range(axes))
    if min(shape) < 1 or prod(shape) > k.MAX_TENSOR:
        raise cursor.error("bad-layer", f"expected at most {k.MAX_TENSOR} weights, found {shape}")
    return shape


def _read_sixteenths(cursor: Cursor, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != k.MAX_AXES or prod(shape[2:]) > k.MAX_FREQUENCIES:
        raise cursor.error(
            "bad-layer",
            f"expected filters of at most {k.MAX_FREQUENCIES} places, found the shape {shape}",
        )
    shares = tuple(cursor.varint() for _ in range(prod(shape[2:])))
    if not 1 <= min(shares) <= max(shares) <= k.MAX_SIXTEENTHS:
        raise cursor.error(
            "bad-layer", f"expected sixteenths of 1 to {k.MAX_SIXTEENTHS}, found {shares}"
        )
    return shares


def _read_gaps(cursor: Cursor, count: int, size: int) -> Ints:
    # Each gap takes a byte, so the payload bounds the allocation.
    if not 1 <= count <= min(size, cursor.left):
        raise cursor.error("bad-layer", f"expected 1 to {size} sparse values, found {count}")
    indices, index = [], -1
    for _ in range(count):
        index += 1 + cursor.varint()
        if index >= size:
            raise cursor.error("bad-layer", f"expected an index below {size}, found {index}")
        indices.append(index)
    return np.array(indices, dtype=np.int64)


def _check_counts(
    entries: Sequence[_Entry], stream_bytes: int, cursor: Cursor, room: int = k.MAX_IDENTITY_VALUES
) -> int:
    """Return how many integers the entries need, once that is known to be allowed."""
    kinds = {entry.kind for entry in entries}
    if not entries or (LATENT in kinds and len(entries) > 1):
        raise cursor.error("bad-layer", f"expected one latent or weight deltas, found {kinds}")
    count = sum(entry.count for entry in entries)
    most = k.LAYER_VALUES_FREE + k.LAYER_VALUES_PER_BYTE * stream_bytes
    most = min(most, k.MAX_LAYER_VALUES, room)
    if count > most:
        raise cursor.error("bad-layer", f"expected at most {most} integers, found {count}")
    return count


def _read_entries(cursor: Cursor, latent_shape: tuple[int, int]) -> list[_Entry]:
    number = cursor.varint()
    if not 1 <= number <= k.MAX_LAYER_ENTRIES:
        raise cursor.error(
            "bad-layer", f"expected 1 to {k.MAX_LAYER_ENTRIES} entries, found {number}"
        )
    return [_read_entry(cursor, latent_shape) for _ in range(number)]


def count_integers(layer: LatentLayer | DeltaLayer) -> int:
    """Return how many integers a layer holds."""
    if isinstance(layer, LatentLayer):
        return layer.latent.values.size
    pairs = (_delta_entry(delta)[0] for delta in layer.deltas)
    return sum(entry.count for entry in pairs)


def unpack_layer_body(
    cursor: Cursor, latent_shape: tuple[int, int], *, room: int = k.MAX_IDENTITY_VALUES
) -> LatentLayer | DeltaLayer:
    """Read a layer of at most `room` integers; the stream ends with the payload."""
    entries = _read_entries(cursor, latent_shape)
    lane_bits, spread = cursor.u8(), cursor.u8()
    if lane_bits > 8 or spread >= k.SCALES:
        raise cursor.error(
            "bad-layer", f"expected lanes 0-8, spread 0-35, found {lane_bits}, {spread}"
        )
    count = _check_counts(entries, cursor.left, cursor, room)
    stream = cursor.rest()
    values = unpack_integers(stream, count, lane_bits=lane_bits, spread=spread)
    if entries[0].kind == LATENT:
        rows = predict_rows(values.reshape(latent_shape), entries[0].weights)
        _check_range(rows, cursor)
        return LatentLayer(latent=_tensor(rows, entries[0].steps[0]))
    _check_range(values, cursor)
    deltas, at = [], 0
    for entry in entries:
        arrays = []
        for part in entry.parts:
            arrays.append(values[at : at + prod(part)].reshape(part))
            at += prod(part)
        deltas.append(_delta(entry, arrays))
    return DeltaLayer(deltas=tuple(deltas))


def _check_range(values: Integers, cursor: Cursor) -> None:
    if values.size and max(int(values.max()), -int(values.min())) > k.MAX_VALUE:
        raise cursor.error(
            "bad-value", f"expected integers within ±{k.MAX_VALUE}, found a larger one"
        )


def _tensor(values: Integers, step: float) -> QuantizedTensor:
    return QuantizedTensor(values=values.astype(np.int32, copy=False), step=step)


def _delta(entry: _Entry, arrays: Sequence[Int32]) -> WeightDelta:
    first = _tensor(arrays[0], entry.steps[0])
    if entry.kind == LOW_RANK:
        left = _tensor(arrays[0].T, entry.steps[0])
        right = _tensor(arrays[1], entry.steps[1])
        return LowRankDelta(name=entry.name, shape=entry.shape, left=left, right=right)
    if entry.kind == SPECTRAL:
        outputs, inputs, height, width = entry.shape
        return SpectralDelta(
            name=entry.name,
            shape=(outputs, inputs, height, width),
            left=_tensor(arrays[0].T, entry.steps[0]),
            right=arrays[1].astype(np.int32, copy=False),
            base_step=entry.steps[1],
            sixteenths=np.array(entry.sixteenths, np.int32),
        )
    if entry.kind == GAIN:
        return GainDelta(name=entry.name, shape=entry.shape, gains=first)
    if entry.kind == SPARSE and entry.indices is not None:
        return SparseDelta(name=entry.name, shape=entry.shape, indices=entry.indices, values=first)
    return DenseDelta(name=entry.name, values=first)


def describe_layer_body(cursor: Cursor, latent_shape: tuple[int, int]) -> dict[str, object]:
    """Return kind, entries and integers of a layer, not decoded."""
    entries = _read_entries(cursor, latent_shape)
    kind = "latent" if entries[0].kind == LATENT else "weights"
    count = sum(entry.count for entry in entries)
    resolutions = [weight_resolution(entry.name) for entry in entries if entry.kind != LATENT]
    return {
        "kind": kind, "entries": len(entries), "integers": count,
        "resolution": max(resolutions, default=None),
    }  # fmt: skip


def layer_body_version(cursor: Cursor, latent_shape: tuple[int, int]) -> tuple[int, int]:
    """Return the least version of the format that a reader of a layer must know."""
    entries = _read_entries(cursor, latent_shape)
    return version_of(any(entry.kind == SPECTRAL for entry in entries))


def version_of(has_spectral: bool) -> tuple[int, int]:
    """Return the least version of the format that knows an identity with spectral deltas or
    without."""
    return k.SPECTRAL_VERSION if has_spectral else k.FIRST_VERSION


def predict_rows(residuals: Ints | NDArray[np.int32], weights: Sequence[int]) -> Ints:
    """Return rows from residuals, `[L, D]` (SPEC.md section 6.2)."""
    rows = residuals.astype(np.int64)
    for i, weight in enumerate(weights):
        if weight:
            # Bounded residuals keep this far inside 64 bits only row by row, so stop early.
            if np.abs(rows[i - 1]).max(initial=0) > k.MAX_VALUE:
                raise FormatError(
                    "bad-value", f"expected integers within ±{k.MAX_VALUE}, found a larger one"
                )
            rows[i] += (weight * rows[i - 1] + 8) >> 4
    return rows


def residual_rows(rows: Ints, weights: Sequence[int]) -> Ints:
    """Return residuals from rows, `[L, D]`; the reverse of `predict_rows`."""
    residuals = rows.astype(np.int64)
    for i, weight in enumerate(weights):
        if weight:
            residuals[i] -= (weight * rows[i - 1] + 8) >> 4
    return residuals


def _cost(residuals: Ints) -> float:
    """Return a stand-in for the bits of residuals."""
    return float(np.log2(1 + 2 * np.abs(residuals)).sum())


def choose_weights(rows: Ints) -> list[int]:
    """Return the row weights that make the residuals of `[L, D]` cheapest."""
    chosen = [0]
    for i in range(1, len(rows)):
        options = range(FULL_WEIGHT + 1)
        costs = [_cost(rows[i] - ((weight * rows[i - 1] + 8) >> 4)) for weight in options]
        chosen.append(int(np.argmin(costs)))
    return chosen
