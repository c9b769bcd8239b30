"""The anchor codecs: all frames come back, the rate falls with the level, no banner is paid for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat_lab.bench import anchors
from sglat_lab.measure import picture_metrics as pixels

RATE = Fraction(25)


def moving(count: int = 10) -> NDArray[np.uint8]:
    """Return a soft pattern that drifts, `[T, 128, 128, 3]`."""
    y, x = np.mgrid[:128, :128] / 20
    frames = [
        np.stack([np.sin(x + t / 5), np.cos(y), np.sin(x * y / 9 + t / 9)], axis=2)
        for t in range(count)
    ]
    return (127.5 + 100 * np.stack(frames)).astype(np.uint8)


@pytest.fixture(params=anchors.ANCHORS, ids=lambda codec: codec.name)
def codec(request: pytest.FixtureRequest) -> anchors.AnchorCodec:
    reason = anchors.refusal(request.param, 128)
    if reason is not None:
        pytest.skip(reason)
    return request.param


def test_every_frame_comes_back_and_looks_like_its_source(codec: anchors.AnchorCodec) -> None:
    frames = moving()
    coded = anchors.encode(codec, codec.levels[0], frames, RATE)
    shown = np.stack(list(anchors.decode(codec, coded)))
    assert shown.shape == frames.shape
    worst = min(pixels.psnr_db(a, b) for a, b in zip(shown, frames, strict=True))
    assert worst > 25


def test_a_coarser_level_costs_less(codec: anchors.AnchorCodec) -> None:
    sizes = [
        sum(map(len, anchors.encode(codec, level, moving(), RATE).packets))
        for level in (codec.levels[0], codec.levels[-1])
    ]
    assert sizes[1] < sizes[0]


def test_low_delay_gives_a_packet_for_each_frame(codec: anchors.AnchorCodec) -> None:
    stream = anchors.encode(codec, codec.levels[3], moving(), RATE)
    assert len(stream.packets) == 10
    assert stream.first_bytes + stream.other_bytes == sum(map(len, stream.packets))


def test_nobody_pays_for_a_text_about_settings(codec: anchors.AnchorCodec) -> None:
    stream = anchors.encode(codec, codec.levels[-1], moving(2), RATE)
    assert b"options" not in stream.packets[0]
    assert b"x264" not in stream.packets[0]
    assert b"x265" not in stream.packets[0]
