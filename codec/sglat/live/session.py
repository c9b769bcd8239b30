"""One session at the receiver: packets in, motion out at the right time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from sglat.errors import FormatError
from sglat.live import control
from sglat.live.look import Look
from sglat.live.payload import unpack_payload
from sglat.live.playout import Concealer, JitterBuffer, Timeline
from sglat.live.rtp import CLOCK_RATE, MOTION_TYPE, OVERHEAD_BYTES, SOUND_TYPE, extended
from sglat.live.secure import TAG_BYTES, OpenedPacket, PacketOpener, Sealer
from sglat.live.sound import MAX_SOUND_BYTES
from sglat.live.stats import Stages

MOST_JUMP: Final = 3600 * CLOCK_RATE  # ticks; a longer pause needs a new session
MOST_SOUND: Final = 500  # packets that wait to be played
_HEADERS: Final = OVERHEAD_BYTES + TAG_BYTES


@dataclass
class Traffic:
    """What came over UDP."""

    motion: int = 0
    motion_bytes: int = 0
    """With IPv4, UDP and RTP headers."""
    sound: int = 0
    sound_bytes: int = 0
    malformed: int = 0
    """Well sealed, but against the document."""
    highest: int = -1
    """Number of the latest motion packet."""
    first_at: float | None = None
    last_at: float = 0.0

    @property
    def lost(self) -> int:
        """Motion packets that have not come."""
        return self.highest + 1 - self.motion


class Session:
    """State of one session.

    Args:
        offer: of the sender.
        look: the person.
        media: opens its packets.
        stages: takes latencies.
    """

    def __init__(self, offer: control.Offer, look: Look, media: Sealer, stages: Stages) -> None:
        self.offer, self.look, self.stages = offer, look, stages
        streams = {offer.ssrc: MOTION_TYPE}
        if offer.sound_ssrc:
            streams[offer.sound_ssrc] = SOUND_TYPE
        self.opener = PacketOpener(media, streams)
        self.traffic = Traffic()
        self.timeline = Timeline()
        self.jitter = JitterBuffer()
        self.period = look.frame_ticks / CLOCK_RATE
        self.concealer = Concealer(look.identity.neutral, look.header.motion_steps, self.period)
        self.sound: deque[tuple[int, bytes]] = deque(maxlen=MOST_SOUND)
        """Packets and their time stamps, in the order they came."""
        self.clock: float | None = None
        """Unix time of time stamp 0."""
        self.is_ended = False
        """The sender hung up."""
        self.ended_at = 0.0
        """Monotonic time at which it did."""
        self.lost_since: float | None = None
        """Monotonic time at which the connection broke."""
        self.has_frames = asyncio.Event()
        self._ticks = 0
        self._sound_ticks = 0

    def take(self, packet: bytes, now: float) -> None:
        """Take one datagram; anything but a new packet of this session is counted and ignored."""
        opened = self.opener.open(packet)
        if opened is None:
            return
        try:
            if opened.header.payload_type == MOTION_TYPE:
                self._take_motion(opened, now)
            else:
                self._take_sound(opened)
        except FormatError:
            self.traffic.malformed += 1

    def _take_motion(self, opened: OpenedPacket, now: float) -> None:
        traffic = self.traffic
        traffic.motion += 1
        traffic.motion_bytes += len(opened.payload) + _HEADERS
        traffic.highest = max(traffic.highest, opened.number)
        traffic.first_at = now if traffic.first_at is None else traffic.first_at
        traffic.last_at = now
        ticks = self._extend(opened.header.timestamp, self._ticks)
        slot, rest = divmod(ticks, self.look.frame_ticks)
        if rest:
            raise FormatError("bad-packet", "expected a time stamp of a whole slot")
        payload = unpack_payload(opened.payload, self.offer.anchor)
        self._ticks = max(self._ticks, ticks)
        for known in self.timeline.add(slot, payload):
            self.jitter.note(known * self.period, now)
        if self.clock is not None:
            newest = self.clock + (slot + len(payload.frames) - 1) * self.period
            self.stages.add("capture_to_arrival", time.time() - newest)
        self.has_frames.set()

    def _take_sound(self, opened: OpenedPacket) -> None:
        if len(opened.payload) > MAX_SOUND_BYTES:
            raise FormatError("bad-packet", f"expected at most {MAX_SOUND_BYTES} bytes of sound")
        self.traffic.sound += 1
        self.traffic.sound_bytes += len(opened.payload) + _HEADERS
        ticks = self._extend(opened.header.timestamp, self._sound_ticks)
        self._sound_ticks = max(self._sound_ticks, ticks)
        self.sound.append((ticks, opened.payload))

    def _extend(self, timestamp: int, near: int) -> int:
        ticks = extended(timestamp, 32, near)
        if ticks > near + MOST_JUMP:
            raise FormatError("bad-packet", "expected a time stamp within an hour of the last one")
        return ticks

    def report(self) -> control.Report:
        """Return the counts that the sender is told."""
        return control.Report(
            taken=self.traffic.motion,
            lost=self.traffic.lost,
            forged=self.opener.forged,
            replayed=self.opener.replayed,
        )

    def describe(self) -> dict[str, Any]:
        """Return figures for `--stats`."""
        traffic, counts = self.traffic, self.concealer.counts
        seconds = 0.0 if traffic.first_at is None else traffic.last_at - traffic.first_at
        shown = max(1, counts.frames + counts.copies + counts.bridged + counts.frozen)
        rate = 8 / 1000 / seconds if seconds > 0 else 0.0
        return {
            "identity": self.look.sha256.hex(),
            "seconds": round(seconds, 3),
            "packets": traffic.motion,
            "packets_lost": traffic.lost,
            "packets_forged": self.opener.forged,
            "packets_replayed": self.opener.replayed,
            "packets_malformed": traffic.malformed,
            "motion_kbit_per_second": round(traffic.motion_bytes * rate, 3),
            "sound_packets": traffic.sound,
            "sound_kbit_per_second": round(traffic.sound_bytes * rate, 3),
            "frames": counts.frames,
            "frames_from_copies": counts.copies,
            "frames_bridged": counts.bridged,
            "frames_frozen": counts.frozen,
            "frozen_share": round(counts.frozen / shown, 5),
        }
