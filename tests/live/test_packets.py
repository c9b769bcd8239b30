"""Frames to packets: quantization, gaps, rate."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.bitstream.constants import MAX_VALUE
from sglat.live.packets import PACKET_COST_BYTES, MotionPacket, Packetizer, Quantizer
from sglat.live.payload import unpack_payload

ANCHOR = np.zeros(34, np.int32)
STEPS = np.full(34, 0.25, np.float32)


def track(frames: int, *, size: float = 0.5, seed: int = 0) -> NDArray[np.int32]:
    moves = np.random.default_rng(seed).normal(0, size, (frames, 34))
    return np.rint(moves.cumsum(axis=0)).astype(np.int32)


def packetizer(**options: float) -> Packetizer:
    return Packetizer(ANCHOR, 3600, **options)  # type: ignore[arg-type]


def packets_of(maker: Packetizer, slots: dict[int, NDArray[np.int32]]) -> list[MotionPacket]:
    made = [packet for slot, values in slots.items() for packet in maker.push(slot, values)]
    return made + maker.flush()


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_every_frame_is_in_one_packet(frames: int) -> None:
    values = track(21)
    made = packets_of(packetizer(frames=frames, rate=64), dict(enumerate(values)))
    shown = [unpack_payload(packet.payload, ANCHOR).frames for packet in made]
    assert np.array_equal(np.concatenate(shown), values)
    assert [p.first_slot for p in made] == list(range(0, 21, frames))


def test_copies_are_of_every_second_frame_before() -> None:
    values = track(20)
    made = packets_of(packetizer(rate=64), dict(enumerate(values)))
    copies = unpack_payload(made[6].payload, ANCHOR).copies
    assert np.abs(copies - values[[11, 9, 7, 5]]).max() <= 2


@pytest.mark.parametrize(("size", "most"), [(0.2, 7.8), (0.5, 7.8), (1.2, 8.4)])
def test_the_rate_is_kept_with_headers(size: float, most: float) -> None:
    made = packets_of(packetizer(), dict(enumerate(track(250, size=size))))
    total = sum(len(packet.payload) + PACKET_COST_BYTES for packet in made)
    assert 8 * total / 10 / 1000 <= most


def test_a_short_gap_is_interpolated() -> None:
    values = track(4)
    slots = {0: values[0], 1: values[1], 4: values[1] + 30, 5: values[3]}
    made = packets_of(packetizer(rate=64), slots)
    middle = unpack_payload(made[1].payload, ANCHOR).frames
    assert np.array_equal(middle - values[1], [[10] * 34, [20] * 34])
    assert not any(packet.is_after_gap for packet in made)


def test_a_long_gap_ends_the_packet_and_is_marked() -> None:
    values = track(4)
    made = packets_of(packetizer(rate=64), {0: values[0], 50: values[1], 51: values[2]})
    assert [(p.first_slot, p.frames, p.is_after_gap) for p in made] == [
        (0, 1, False),
        (50, 2, True),
    ]


def test_a_frame_from_the_past_is_left_out() -> None:
    maker = packetizer(frames=1, rate=64)
    values = track(2)
    assert len(maker.push(5, values[0])) == 1
    assert maker.push(4, values[1]) == []


def test_values_flicker_between_no_two_integers() -> None:
    quantizer = Quantizer(STEPS)
    noise = np.random.default_rng(0).normal(0, 0.02, (100, 34)) + 0.125  # half a step
    found = np.array([quantizer.quantize(row.astype(np.float32)) for row in noise])
    assert np.abs(np.diff(found, axis=0)).mean() < 0.02


def test_motion_is_followed_within_less_than_a_step() -> None:
    quantizer = Quantizer(STEPS)
    ramp = np.linspace(0, 5, 200)[:, None] * np.ones(34)
    found = np.array([quantizer.quantize(row.astype(np.float32)) for row in ramp])
    assert np.abs(found * 0.25 - ramp).max() <= 0.7 * 0.25 + 1e-6


def test_values_that_are_no_numbers_or_too_large_stay_legal() -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 1e30] + [0] * 30, np.float32)
    assert np.abs(Quantizer(STEPS).quantize(wild)).max() < MAX_VALUE
