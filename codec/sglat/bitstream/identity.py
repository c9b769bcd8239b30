"""The chunks of an identity: IDEN, LAYR and IREF (SPEC.md section 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np

from sglat.bitstream import constants as k
from sglat.bitstream.layers import (
    count_integers,
    describe_layer_body,
    layer_body_version,
    pack_layer_body,
    unpack_layer_body,
    version_of,
)
from sglat.bitstream.records import (
    MOTION_CHANNELS,
    DeltaLayer,
    Float32,
    Identity,
    IdentityReference,
    LatentLayer,
    SpectralDelta,
)
from sglat.bitstream.values import Cursor, pack_text, pack_varint
from sglat.errors import FormatError

NEUTRAL_BYTES: Final = 2 * MOTION_CHANNELS
HASH_BYTES: Final = 32
MAX_HINT_BYTES: Final = 256


def pack_neutral(neutral: Float32) -> bytes:
    """Return 34 f16.

    Raises:
        FormatError: `bad-field` if a value does not fit or is not finite.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(neutral, dtype="<f2")
    if values.shape != (MOTION_CHANNELS,) or not np.isfinite(values).all():
        raise FormatError("bad-field", f"neutral expected {MOTION_CHANNELS} finite f16 values")
    return values.tobytes()


def unpack_neutral(data: bytes, *, offset: int | None = None) -> Float32:
    """Read 34 f16."""
    values = np.frombuffer(data, dtype="<f2").astype(np.float32)
    if values.shape != (MOTION_CHANNELS,) or not np.isfinite(values).all():
        raise FormatError(
            "bad-field", f"neutral expected {MOTION_CHANNELS} finite f16 values", offset=offset
        )
    return values


def pack_base(identity: Identity) -> bytes:
    """Return the IDEN payload."""
    frame = 0 if identity.id_frame is None else identity.id_frame + 1
    front = pack_neutral(identity.neutral) + pack_varint(frame)
    return front + pack_layer_body(identity.layers[0])


def pack_layer(number: int, layer: LatentLayer | DeltaLayer) -> bytes:
    """Return a LAYR payload."""
    return pack_varint(number) + pack_layer_body(layer)


def needed_version(identity: Identity) -> tuple[int, int]:
    """Return the least version of the format that a reader of an identity must know."""
    deltas = (layer.deltas for layer in identity.layers if isinstance(layer, DeltaLayer))
    has_spectral = any(isinstance(delta, SpectralDelta) for part in deltas for delta in part)
    return version_of(has_spectral)


def pack_identity(identity: Identity) -> list[tuple[str, bytes]]:
    """Return type and payload of all chunks of an identity."""
    if not 1 <= len(identity.layers) <= k.MAX_LAYERS:
        found = len(identity.layers)
        raise FormatError("bad-layer", f"expected 1 to {k.MAX_LAYERS} layers, found {found}")
    if not isinstance(identity.layers[0], LatentLayer):
        raise FormatError("bad-layer", "expected a latent as layer 0, found weight deltas")
    count = sum(count_integers(layer) for layer in identity.layers)
    if count > k.MAX_IDENTITY_VALUES:
        raise FormatError(
            "bad-layer", f"expected at most {k.MAX_IDENTITY_VALUES} integers, found {count}"
        )
    further = enumerate(identity.layers[1:], start=1)
    return [
        ("IDEN", pack_base(identity)),
        *(("LAYR", pack_layer(number, layer)) for number, layer in further),
    ]


class IdentityDigest:
    """The identity hash, fed with the payloads of IDEN and LAYR in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, payload: bytes) -> None:
        self._digest.update(len(payload).to_bytes(4, "little"))
        self._digest.update(payload)

    def digest(self) -> bytes:
        return self._digest.digest()


def identity_hash(payloads: Iterable[bytes]) -> bytes:
    """Return the identity hash over the payloads of IDEN and LAYR in order."""
    digest = IdentityDigest()
    for payload in payloads:
        digest.update(payload)
    return digest.digest()


def unpack_base(
    payload: bytes, latent_shape: tuple[int, int], *, offset: int | None = None
) -> tuple[Float32, int | None, LatentLayer]:
    """Read IDEN: neutral, number of the ID frame, layer 0."""
    cursor = Cursor(payload, offset=offset)
    neutral = unpack_neutral(cursor.take(NEUTRAL_BYTES), offset=offset)
    frame = cursor.varint()
    layer = unpack_layer_body(cursor, latent_shape)
    if not isinstance(layer, LatentLayer):
        raise cursor.error("bad-layer", "expected a latent as layer 0, found weight deltas")
    return neutral, frame - 1 if frame else None, layer


def unpack_layer(
    payload: bytes,
    number: int,
    latent_shape: tuple[int, int],
    *,
    room: int = k.MAX_IDENTITY_VALUES,
    offset: int | None = None,
) -> LatentLayer | DeltaLayer:
    """Read LAYR, which must have this number and at most `room` integers."""
    cursor = Cursor(payload, offset=offset)
    found = cursor.varint()
    if found != number:
        raise cursor.error("bad-order", f"expected layer {number}, found {found}")
    if number >= k.MAX_LAYERS:
        raise cursor.error("bad-layer", f"expected at most {k.MAX_LAYERS} layers, found more")
    return unpack_layer_body(cursor, latent_shape, room=room)


def describe_layer(
    payload: bytes, number: int, latent_shape: tuple[int, int], *, offset: int | None = None
) -> dict[str, object]:
    """Return kind, entries and integers of an IDEN (number 0) or LAYR payload, not decoded."""
    cursor = Cursor(payload, offset=offset)
    if number == 0:
        cursor.take(NEUTRAL_BYTES)
    cursor.varint()
    return describe_layer_body(cursor, latent_shape)


def layer_version(
    payload: bytes, latent_shape: tuple[int, int], *, offset: int | None = None
) -> tuple[int, int]:
    """Return the least version of the format that a reader of a LAYR payload must know."""
    cursor = Cursor(payload, offset=offset)
    cursor.varint()
    return layer_body_version(cursor, latent_shape)


def pack_reference(reference: IdentityReference) -> bytes:
    """Return the IREF payload."""
    payload = reference.sha256 + pack_text(reference.hint)
    unpack_reference(payload)
    return payload


def unpack_reference(payload: bytes, *, offset: int | None = None) -> IdentityReference:
    """Read IREF."""
    cursor = Cursor(payload, offset=offset)
    sha256 = cursor.take(HASH_BYTES)
    hint = cursor.text(MAX_HINT_BYTES)
    cursor.finish("IREF")
    return IdentityReference(sha256=sha256, hint=hint)
