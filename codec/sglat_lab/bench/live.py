"""Live calls under loss: real motion through packets, a lossy link and the receiver's playout.

    python -m sglat_lab.bench.live OUT.json FILE.sglat [...]

The product's own packetizer, sealing, timeline, jitter buffer and concealment run on a virtual
clock, so that the figures do not depend on the machine. Loss comes in bursts (Gilbert 1960,
https://doi.org/10.1002/j.1538-7305.1960.tb03959.x): two states, of which one loses every packet.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.reader import open_reader
from sglat.live.control import offer_of
from sglat.live.look import Look, read_look
from sglat.live.packets import DEFAULT_RATE, Packetizer, Quantizer
from sglat.live.rtp import CLOCK_RATE, MOTION_TYPE
from sglat.live.secure import PacketSealer, Sealer
from sglat.live.session import Session
from sglat.live.stats import Stages
from sglat_lab.report.pages import provenance, write_page

LOSSES: Final = (0.0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3)
BURST_PACKETS: Final = 2.0
"""Mean length of a burst."""
SECONDS: Final = 60.0
"""Each track is played forth and back until it is this long."""
SEED: Final = 7
_UDP_BYTES: Final = 28


@dataclass(frozen=True, kw_only=True)
class Link:
    """A one-way path."""

    loss: float
    """Share of packets."""
    burst: float = BURST_PACKETS
    delay_seconds: float = 0.03
    jitter_seconds: float = 0.005
    """Mean of an exponential extra delay."""
    seed: int = SEED

    def arrivals(self, sent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return when packets arrive that are sent at some times; infinity for lost ones."""
        random = np.random.default_rng(self.seed)
        leave = 1 / self.burst
        enter = leave * self.loss / (1 - self.loss)
        is_bad = False
        late = self.delay_seconds + random.exponential(self.jitter_seconds, len(sent))
        for at, draw in enumerate(random.random(len(sent))):
            is_bad = draw >= leave if is_bad else draw < enter
            if is_bad:
                late[at] = np.inf
        return sent + late


def long_track(path: Path, look: Look, seconds: float = SECONDS) -> NDArray[np.float32]:
    """Return the motion of a file forth and back, `[T, 34]`, at one frame a slot."""
    with open_reader(path) as reader:
        motion = reader.read_motion().dequantize()
    there_and_back = np.concatenate([motion, motion[-2:0:-1]]) if len(motion) > 2 else motion
    count = round(seconds * CLOCK_RATE / look.frame_ticks)
    return there_and_back[np.arange(count) % len(there_and_back)]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A track as it goes onto a link."""

    motion: NDArray[np.float32]
    """`[T, 34]`."""
    integers: NDArray[np.int32]
    packets: list[tuple[float, bytes]]
    """When each leaves, in seconds."""


def sent_track(look: Look, motion: NDArray[np.float32], *, frames: int, rate: float) -> Sent:
    """Return the sealed packets of motion `[T, 34]`."""
    maker = PacketSealer(_media(), 1, MOTION_TYPE)
    quantizer = Quantizer(look.header.motion_steps)
    packetizer = Packetizer(look.anchor, look.frame_ticks, frames, rate)
    integers = np.array([quantizer.quantize(row) for row in motion])
    packets: list[tuple[float, bytes]] = []
    for slot, row in enumerate(integers):
        for packet in packetizer.push(slot, row):
            data = maker.pack(packet.first_slot * look.frame_ticks, packet.payload)
            packets.append((slot * look.frame_ticks / CLOCK_RATE, data))
    return Sent(motion=motion, integers=integers, packets=packets)


def _media() -> Sealer:
    return Sealer(bytes(32), bytes(64), "media")


def run_link(look: Look, sent: Sent, link: Link) -> dict[str, Any]:
    """Send a track over a link; return rate, delay, and what was shown."""
    period = look.frame_ticks / CLOCK_RATE
    motion, steps = sent.motion, look.header.motion_steps
    arrivals = link.arrivals(np.array([leaves for leaves, _ in sent.packets]))
    session = Session(offer_of(look, ssrc=1, sound_ssrc=0), look, _media(), Stages())
    order = [at for at in np.argsort(arrivals).tolist() if np.isfinite(arrivals[at])]
    arriving = [(float(arrivals[at]), sent.packets[at][1]) for at in order]
    shown, delays = _played(session, arriving, len(motion))
    error = (shown - motion) / steps
    jumps = np.abs(np.diff(shown, axis=0) / steps).max(axis=1)
    own = np.abs(np.diff(sent.integers, axis=0)).max(axis=1)
    counts, size = session.concealer.counts, sum(len(d) + _UDP_BYTES for _, d in sent.packets)
    return {
        "loss": link.loss,
        "packets_lost": round(float(np.isinf(arrivals).mean()), 4),
        "kbit_per_second": round(8 * size / 1000 / (len(motion) * period), 3),
        "kbit_per_second_range": _extremes(sent.packets, period),
        "frozen_share": round(counts.frozen / len(shown), 4),
        "copied_share": round(counts.copies / len(shown), 4),
        "bridged_share": round(counts.bridged / len(shown), 4),
        "error_rms_steps": round(float(np.sqrt(np.square(error).mean())), 4),
        "jump_p99_steps": round(float(np.quantile(jumps, 0.99)), 2),
        "jump_p99_steps_sent": round(float(np.quantile(own, 0.99)), 2),
        "delay_p50_ms": round(1000 * float(np.quantile(delays, 0.5)), 1),
        "delay_p95_ms": round(1000 * float(np.quantile(delays, 0.95)), 1),
    }


def _played(
    session: Session, arriving: list[tuple[float, bytes]], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return what a receiver shows, `[T, 34]`, and from capture to screen without rendering."""
    at, shown, delays = 0, [], []
    while at < len(arriving) and not session.jitter.is_ready:
        session.take(arriving[at][1], arriving[at][0])
        at += 1
    first = session.timeline.first or 0
    now = arriving[at - 1][0]
    for slot in range(first, count):
        frame = slot * session.period
        while True:
            due = session.jitter.due(frame, now)
            if at == len(arriving) or arriving[at][0] > due:
                break
            now = max(now, arriving[at][0])
            session.take(arriving[at][1], now)
            at += 1
        now = max(now, due)
        shown.append(session.concealer.next(session.timeline, slot))
        delays.append(now - frame)
    rows = np.array(shown, np.float32)
    return np.concatenate([np.repeat(rows[:1], first, axis=0), rows]), np.array(delays)


def _extremes(packets: Sequence[tuple[float, bytes]], period: float) -> list[float]:
    """Return the lowest and highest rate over ten seconds, kbit/s."""
    times = np.array([sent for sent, _ in packets])
    sizes = np.cumsum([0, *(len(data) + _UDP_BYTES for _, data in packets)])
    ends = np.searchsorted(times, times + 10.0)
    is_whole = times + 10.0 <= times[-1] + period
    rates = (sizes[ends] - sizes[:-1])[is_whole] * 8 / 10_000
    return [round(float(rates.min()), 3), round(float(rates.max()), 3)] if len(rates) else []


def bench(paths: Sequence[Path], *, seconds: float = SECONDS) -> dict[str, Any]:
    """Return the figures of all files at all losses, with two and with four frames a packet."""
    rows = []
    for number, path in enumerate(paths):
        look = read_look(path, Fraction(25))
        motion = long_track(path, look, seconds)
        for frames, rate in ((2, DEFAULT_RATE), (4, 5.0)):
            sent = sent_track(look, motion, frames=frames, rate=rate)
            for loss in LOSSES:
                figures = run_link(look, sent, Link(loss=loss, seed=SEED + number))
                rows.append({"file": path.name, "frames_a_packet": frames, **figures})
    return {
        "burst_packets": BURST_PACKETS, "seconds": seconds, "seed": SEED,
        "link": {"delay_ms": 30, "jitter_ms": 5}, "rows": rows, "means": _means(rows),
    }  # fmt: skip


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over the files of each case."""
    cases = sorted({(row["frames_a_packet"], row["loss"]) for row in rows})
    made = []
    for frames, loss in cases:
        same = [r for r in rows if (r["frames_a_packet"], r["loss"]) == (frames, loss)]
        numbers = [name for name, value in same[0].items() if isinstance(value, float)]
        means = {name: round(float(np.mean([r[name] for r in same])), 4) for name in numbers}
        made.append({"frames_a_packet": frames, "files": len(same), **means})
    return made


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description="Live calls under loss, on a virtual clock.")
    parser.add_argument("out", type=Path, help="the record; its page goes beside it")
    parser.add_argument("files", type=Path, nargs="+", help=".sglat files with motion")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each track")
    options = parser.parse_args()
    figures = bench(options.files, seconds=options.seconds)
    runs = [provenance("python -m sglat_lab.bench.live")]
    write_page(options.out, {"runs": runs, **figures}, "live")


if __name__ == "__main__":
    main()
