"""What other coders need for the same integers: bit counts, not bitstreams.

`sei_bits` is the coding of the H.274 generative-face-video SEI message: difference to the frame
before, magnitude as `ue(v)` (0-order Exp-Golomb), a sign bit where the magnitude is not zero.
`gfvc_bits` follows the JVET AhG16 GFVC software (Goluck-Konuko/GFVC,
`source/arithmetic/value_encoder.py`): signed differences interleaved to 0, 1, -1, 2, -2,
Exp-Golomb, the bits through an order-0 adaptive arithmetic coder that starts anew and is flushed to
whole bytes for every frame. Both are told the first frame as a difference to zero.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]
"""`[T, C]` quantized values."""


def differences(values: Integers) -> Integers:
    """Return what a predictor by the frame before leaves, `[T, C]`; the first frame is whole."""
    return np.diff(values, axis=0, prepend=np.zeros((1, values.shape[1]), values.dtype))


def exp_golomb_length(numbers: Integers) -> Integers:
    """Return the length in bits of `ue(v)` for non-negative numbers."""
    exponent = np.frexp(numbers.astype(np.float64) + 1)[1] - 1  # floor(log2(n + 1)), exact
    return 2 * exponent.astype(np.int32) + 1


def sei_bits(values: Integers) -> NDArray[np.int64]:
    """Return the bits of each frame, `[T]`, coded as the GFV SEI message does."""
    magnitude = np.abs(differences(values))
    bits = exp_golomb_length(magnitude) + (magnitude > 0)
    return np.asarray(bits.sum(axis=1), np.int64)


def gfvc_bits(values: Integers) -> NDArray[np.int64]:
    """Return the bits of each frame, `[T]`, as the GFVC software's files of whole bytes."""
    left = differences(values).astype(np.int64)
    index = np.where(left <= 0, -2 * left, 2 * left - 1)
    exponent = np.frexp(index.astype(np.float64) + 1)[1] - 1
    ones_of_binary = np.bitwise_count(index + 1)
    ones = ones_of_binary.sum(axis=1) + 1  # the software puts one marker bit in front
    zeros = (2 * exponent + 1 - ones_of_binary).sum(axis=1)
    return np.array([_flushed_bits(int(o), int(z)) for o, z in zip(ones, zeros, strict=True)])


def _flushed_bits(ones: int, zeros: int) -> int:
    """Return the size of one flushed order-0 file: counts from nothing, an escape of weight 1.

    The probability of a sequence under adaptive counts does not depend on its order: the product of
    the counts before each symbol over the totals. A first appearance and the end cost an escape and
    a choice among three.
    """
    seen = ones + zeros
    ideal = (
        math.lgamma(seen + 2) - math.lgamma(max(ones, 1)) - math.lgamma(max(zeros, 1))
    ) / math.log(2)
    kinds = (ones > 0) + (zeros > 0)
    ideal += (kinds + 1) * math.log2(3)
    return 8 * math.ceil((ideal + 1) / 8)  # the coder ends with one bit, then fills its byte


def zstd_bits(values: Integers, level: int = 19) -> int:
    """Return the size in bits of all differences as int16, channel by channel, through zstd."""
    import zstandard

    left = np.ascontiguousarray(differences(values).astype("<i2").T)
    planes = left.view(np.uint8).reshape(*left.shape, 2)
    packed = zstandard.ZstdCompressor(level=level).compress(planes.transpose(2, 0, 1).tobytes())
    return 8 * len(packed)


def deflate_bits(values: Integers) -> int:
    """Return the same through zlib level 9."""
    left = np.ascontiguousarray(differences(values).astype("<i2").T)
    planes = left.view(np.uint8).reshape(*left.shape, 2)
    return 8 * len(zlib.compress(planes.transpose(2, 0, 1).tobytes(), 9))


def float_bits(values: Integers) -> int:
    """Return the size in bits of the raw values as float32."""
    return 32 * values.size


def laplacian(scale: float, *, frames: int, channels: int, seed: int = 0) -> Integers:
    """Return values whose differences are independent rounded Laplacians of `scale` steps."""
    noise = np.random.default_rng(seed).laplace(scale=scale, size=(frames, channels))
    return np.cumsum(np.rint(noise), axis=0).astype(np.int32)
