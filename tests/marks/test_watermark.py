"""The watermark: its code, its strength, and what the detector finds after common changes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.marks.detect import detect, viterbi
from sglat.marks.watermark import Watermark, encode, pack, unpack

ID = b"\x12\x34\x56\x78"
FRAMES = 64


@cache
def clip() -> NDArray[np.uint8]:
    """Return smooth moving pictures `[T, 128, 128, 3]` with a little noise."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:128, :128]
    frames = [
        128 + 60 * np.sin(x / 17 + t / 9) * np.cos(y / 23) + random.normal(0, 2, x.shape)
        for t in range(FRAMES)
    ]
    return np.repeat(np.stack(frames)[..., None].clip(0, 255).astype(np.uint8), 3, axis=3)


@cache
def marked() -> NDArray[np.uint8]:
    mark = Watermark(ID)
    return np.stack([mark.mark(frame, index) for index, frame in enumerate(clip())])


def test_the_code_corrects_a_tenth_of_the_symbols_inverted() -> None:
    symbols = encode(pack(ID))
    symbols[::10] *= -1
    assert unpack(viterbi(symbols)) == (1, ID)


def test_one_wrong_payload_bit_fails_the_checksum() -> None:
    bits = pack(ID)
    bits[7] ^= 1
    assert unpack(bits) is None


def test_the_change_is_at_least_46_decibels_below_the_picture() -> None:
    error = np.square(marked().astype(float) - clip()).mean()
    assert 10 * np.log10(255**2 / error) >= 46


def test_a_frame_depends_on_its_index_alone() -> None:
    assert np.array_equal(Watermark(ID).mark(clip()[20], 20), marked()[20])


def test_nothing_outside_the_mask_is_changed() -> None:
    mask = np.zeros((128, 128), np.float32)
    mask[:, 64:] = 1
    made = Watermark(ID).mark(clip()[0], 0, mask=mask)
    assert np.array_equal(made[:, :64], clip()[0, :, :64])
    assert not np.array_equal(made[:, 64:], clip()[0, :, 64:])


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f,
        lambda f: f[9:],
        lambda f: f[:, 7:122, 5:120],
        lambda f: (f * 0.8 + 20).astype(np.uint8),
        lambda f: (255 * (f / 255) ** 0.8).astype(np.uint8),
        lambda f: f.repeat(2, 1).repeat(2, 2),
    ],
    ids=["plain", "late", "crop", "brightness", "gamma", "doubled"],
)
def test_the_identifier_is_read_after_a_change(change: object) -> None:
    found = detect(change(marked()))  # type: ignore[operator]
    assert (found.found, found.id, found.version) == (True, ID, 1)


def test_other_frame_rates_are_read_by_their_times() -> None:
    assert detect(marked()[::2], frame_rate=12.5).id == ID


def test_unmarked_pictures_and_other_keys_give_nothing() -> None:
    assert not detect(clip()).found
    assert not detect(marked(), b"another key").found


def test_few_or_flat_frames_give_nothing() -> None:
    assert not detect(marked()[:3]).found
    assert not detect(np.zeros((20, 64, 64, 3), np.uint8)).found
