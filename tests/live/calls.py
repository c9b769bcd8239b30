"""Calls on this machine: both ends in one event loop, with a renderer that paints one colour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import AudioPacket
from sglat.live.look import Look
from sglat.live.receiver import ReceiveConfig, Receiver
from sglat.live.sender import SendConfig, Sender

KEY = bytes(range(32))


class Mover:
    """A camera whose frames are motion, `count` frames at 50 a second, and its follower; none is
    dropped on a slow machine."""

    frame_rate, is_live, first_seconds = Fraction(50), False, 0.0

    def __init__(self, look: Look, count: int = 20, *, seed: int = 0) -> None:
        moves = np.random.default_rng(seed).normal(0, 0.5, (count, 34)).cumsum(axis=0)
        self.motion = (look.identity.neutral + moves * look.header.motion_steps).astype(np.float32)
        self.is_closed = False
        self.given = self.followed = 0

    def step(self, frame: NDArray[Any], time: float) -> NDArray[np.float32] | None:
        self.followed += 1
        return frame

    def frames(self) -> Iterator[tuple[NDArray[Any], float]]:
        begun = time.monotonic()
        for at, motion in enumerate(self.motion):
            due = begun + at / 50
            while not self.is_closed and (time.monotonic() < due or self.followed < self.given):
                time.sleep(0.002)
            self.given += 1
            if self.is_closed:
                return
            yield motion, due

    def close(self) -> None:
        self.is_closed = True


class Flat:
    """Paints the first control as one colour."""

    side = 16

    def __init__(self, look: Look) -> None:
        self.look = look
        self.motions: list[NDArray[np.float32]] = []

    def paint(self, motion: NDArray[np.float32]) -> NDArray[np.uint8]:
        self.motions.append(motion)
        return np.full((16, 16, 3), int(abs(motion[2] * 50)) % 256, np.uint8)


class Kept:
    """A screen that keeps what it was given."""

    def __init__(self) -> None:
        self.pictures: list[NDArray[np.uint8]] = []
        self.ticks: list[int] = []
        self.packets: list[AudioPacket] = []
        self.is_closed = False

    def show(self, picture: NDArray[np.uint8], ticks: int) -> None:
        self.pictures.append(picture)
        self.ticks.append(ticks)

    def hear(self, packet: AudioPacket) -> None:
        self.packets.append(packet)

    def close(self) -> None:
        self.is_closed = True


class Call:
    """One receiver and the senders that a test makes.

    Lines said by either end are kept in `heard` and `said`.
    """

    def __init__(self, look: Look, *, key: bytes = KEY, **config: Any) -> None:
        self.look = look
        self.heard: list[str] = []
        self.said: list[str] = []
        self.painters: list[Flat] = []
        self.screen = Kept()
        self.screens: Callable[[Look, bool], list[Any]] = lambda look, has_sound: [self.screen]
        self.receiver = Receiver(
            ReceiveConfig(host="127.0.0.1", port=0, patience_seconds=20.0, **config),
            key=key,
            make_painter=self.paint,
            make_screens=lambda look, has_sound: self.screens(look, has_sound),
            say=self.heard.append,
        )

    def paint(self, look: Look) -> Flat:
        self.painters.append(Flat(look))
        return self.painters[-1]

    def sender(
        self, camera: Any = None, *, key: bytes = KEY, look: Look | None = None, port: int = 0,
        follower: Any = None, sound: Any = None, wait: float = 5.0, **config: Any,
    ) -> Sender:  # fmt: skip
        """Return a sender to the receiver."""
        look = look or self.look
        camera = camera or Mover(look)
        return Sender(
            SendConfig(
                host="127.0.0.1", port=port or self.receiver.port, wait_seconds=wait, **config
            ),
            key=key,
            look=look,
            camera=camera,
            follower=follower or camera,
            sound=sound,
            say=self.said.append,
        )

    @property
    def motions(self) -> NDArray[np.float32]:
        """What was painted, `[T, 34]`."""
        return np.array([motion for painter in self.painters for motion in painter.motions])


def on_line(work: Awaitable[Any], seconds: float = 30.0) -> Any:
    """Run a call to its end."""

    async def run() -> Any:
        return await asyncio.wait_for(work, seconds)

    return asyncio.run(run())


async def during(call: Call, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run something while the receiver listens, then stop it; return its result."""
    receiving = asyncio.create_task(call.receiver.run())
    try:
        listening = asyncio.create_task(call.receiver.is_listening.wait())
        await asyncio.wait({receiving, listening}, return_when=asyncio.FIRST_COMPLETED)
        return await work()
    finally:
        call.receiver.stop()
        await receiving


async def whole(call: Call, sender_of: Callable[[], Sender]) -> Sender:
    """Run one call to its natural end; return the sender."""
    receiving = asyncio.create_task(call.receiver.run())
    await call.receiver.is_listening.wait()
    sender = sender_of()
    await sender.run()
    await receiving
    return sender


async def until(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.005)
