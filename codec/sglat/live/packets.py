"""From motion to packets: quantization, slots, gaps and rate (LIVE.md sections 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import MAX_VALUE
from sglat.live.payload import COPY_STRIDE, MAX_FRAMES, pack_payload
from sglat.live.rtp import CLOCK_RATE, OVERHEAD_BYTES
from sglat.live.secure import TAG_BYTES

PACKET_COST_BYTES: Final = OVERHEAD_BYTES + TAG_BYTES
DEFAULT_RATE: Final = 7.8
"""kbit/s with all headers."""
MOST_SAVED_BYTES: Final = 24  # that quiet packets leave to lively ones
KEPT: Final = 16
MOST_BRIDGED: Final = 3
"""Frames that are interpolated where the sender could not keep up."""
HYSTERESIS: Final = 0.7  # steps that a value must move before another integer stands for it


class Quantizer:
    """Motion to integers; a value stays at its integer until it has clearly left it."""

    def __init__(self, steps: NDArray[np.float32]) -> None:
        self._steps = steps.astype(np.float64)
        self._last: NDArray[np.float64] | None = None

    def quantize(self, motion: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the integers of one frame, `[34]`."""
        scaled = np.nan_to_num(
            motion.astype(np.float64) / self._steps, posinf=MAX_VALUE, neginf=-MAX_VALUE
        )
        nearest = np.clip(np.rint(scaled), 16 - MAX_VALUE, MAX_VALUE - 16)
        if self._last is not None:
            nearest = np.where(np.abs(scaled - self._last) <= HYSTERESIS, self._last, nearest)
        self._last = nearest
        return nearest.astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class MotionPacket:
    """One packet before it is sealed."""

    first_slot: int
    payload: bytes
    frames: int
    is_after_gap: bool


@dataclass
class Packetizer:
    """Gathers frames into packets and keeps the rate.

    Args:
        anchor: `[34]`.
        frame_ticks: time from frame to frame.
        frames: in a packet.
        rate: kbit/s with headers, of motion alone.
    """

    anchor: NDArray[np.int32]
    frame_ticks: int
    frames: int = 2
    rate: float = DEFAULT_RATE
    _waiting: list[NDArray[np.int32]] = field(default_factory=list)
    _flags: list[int] = field(default_factory=list)
    _recent: dict[int, NDArray[np.int32]] = field(default_factory=dict)
    _next: int | None = None
    _saved: float = 0.0
    _is_after_gap: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MAX_FRAMES:
            raise ValueError(f"1 to {MAX_FRAMES} frames a packet")

    def push(self, slot: int, values: NDArray[np.int32], flags: int = 0) -> list[MotionPacket]:
        """Take a frame; return the packets that it completes."""
        packets: list[MotionPacket] = []
        if self._next is not None and slot < self._next:
            return packets
        if self._next is not None and slot > self._next:
            packets += self._bridge(slot, values)
        self._take(slot, values, flags)
        if len(self._waiting) == self.frames:
            packets += self.flush()
        return packets

    def flush(self) -> list[MotionPacket]:
        """Return the frames that wait, as a packet of their own."""
        if not self._waiting:
            return []
        assert self._next is not None
        first = self._next - len(self._waiting)
        budget = 1000 * self.rate * len(self._waiting) * self.frame_ticks / CLOCK_RATE / 8
        budget -= PACKET_COST_BYTES
        payload, _ = pack_payload(
            np.array(self._waiting),
            np.array(self._flags, np.uint8),
            self._past(first),
            self.anchor,
            most_bytes=max(0, int(budget + self._saved)),
        )
        self._saved = min(self._saved + budget - len(payload), MOST_SAVED_BYTES)
        packet = MotionPacket(
            first_slot=first,
            payload=payload,
            frames=len(self._waiting),
            is_after_gap=self._is_after_gap,
        )
        self._waiting, self._flags, self._is_after_gap = [], [], False
        return [packet]

    def _bridge(self, slot: int, values: NDArray[np.int32]) -> list[MotionPacket]:
        """Interpolate the frames that were left out; leave a longer gap open."""
        assert self._next is not None
        packets: list[MotionPacket] = []
        gap = slot - self._next
        if gap > MOST_BRIDGED:
            packets = self.flush()
            self._is_after_gap = True
            return packets
        before = self._recent[self._next - 1]
        for at in range(1, gap + 1):
            mixed = np.rint(before + (values - before) * (at / (gap + 1))).astype(np.int32)
            self._take(self._next, mixed, 0)
            if len(self._waiting) == self.frames:
                packets += self.flush()
        return packets

    def _take(self, slot: int, values: NDArray[np.int32], flags: int) -> None:
        self._waiting.append(values)
        self._flags.append(flags)
        self._recent[slot] = values
        self._next = slot + 1
        for old in [s for s in self._recent if s < slot - KEPT]:
            del self._recent[old]

    def _past(self, first: int) -> NDArray[np.int32]:
        """Return the frames that copies are made of, latest first, `[K, 34]`."""
        rows = []
        for slot in range(first - 1, first - 1 - KEPT // 2, -COPY_STRIDE):
            if slot not in self._recent:
                break
            rows.append(self._recent[slot])
        return np.array(rows, np.int32).reshape(-1, len(self.anchor))
