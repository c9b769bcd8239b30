"""The sending end of a call: connect, offer, and keep frames and sound going out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from sglat.errors import SglatError
from sglat.live import control
from sglat.live.camera import Camera
from sglat.live.capture import Capture, Follower, StagedFollower, Taken
from sglat.live.look import Look
from sglat.live.packets import DEFAULT_RATE, Packetizer, Quantizer
from sglat.live.payload import MAX_FRAMES
from sglat.live.rtp import CLOCK_RATE, MOTION_TYPE, SOUND_TYPE
from sglat.live.secure import LiveError, PacketSealer, SealError, new_ssrc
from sglat.live.sound import SoundSource, SoundThread
from sglat.live.stats import Stages, kbit_per_second

PACKET_SECONDS: Final = 0.08
"""Of frames in a packet: longer ones cost delay, shorter ones headers."""
RETRY_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 15.0
"""Without a report, after which the connection counts as lost."""
STALE_SECONDS: Final = 1.0
NO_PACKETS_SECONDS: Final = 4.0
UDP_HEADER_BYTES: Final = 28

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SendConfig:
    """How a call is sent."""

    host: str
    port: int
    wait_seconds: float = 60.0
    """For a receiver, at the start and after a broken connection."""
    frames_a_packet: int | None = None
    """None: as many as last 80 ms."""
    rate: float = DEFAULT_RATE
    """kbit/s of motion with all headers."""


@dataclass
class SendFigures:
    """What was sent."""

    packets: int = 0
    frames: int = 0
    motion_bytes: int = 0
    """With IPv4, UDP and RTP headers."""
    sound_bytes: int = 0
    begun: float | None = None
    ended: float = 0.0
    sessions: int = 0
    receiver: control.Report | None = None


class Sender:
    """One sending end.

    Args:
        config: where to, and how.
        key: 32 bytes.
        look: the person.
        camera: read from the first session on; closed at the end.
        follower: of the person.
        sound: sent along; None for none.
        say: takes lines for the user.
    """

    def __init__(
        self,
        config: SendConfig,
        *,
        key: bytes,
        look: Look,
        camera: Camera,
        follower: Follower | StagedFollower,
        sound: SoundSource | None = None,
        say: Say,
    ) -> None:
        self.config, self.figures, self.stages = config, SendFigures(), Stages()
        self._key, self._look, self._camera, self._say = key, look, camera, say
        self._quantizer = Quantizer(look.header.motion_steps)
        self._capture = Capture(
            camera, follower, look.identity.neutral,
            on_frame=lambda taken: self._post(taken),
            on_state=lambda line: self._post(line),
            on_end=lambda error: self._post(_End(error)),
        )  # fmt: skip
        self._sound = None if sound is None else SoundThread(sound, self._post_sound)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._session: _Session | None = None

    @property
    def frames_a_packet(self) -> int:
        """Frames in a full packet."""
        if self.config.frames_a_packet is not None:
            return self.config.frames_a_packet
        wanted = ceil(PACKET_SECONDS * CLOCK_RATE / self._look.frame_ticks - 0.01)
        return min(max(wanted, 1), MAX_FRAMES)

    async def run(self) -> None:
        """Send until the source ends or the receiver hangs up.

        Raises:
            LiveError: no receiver, a refusal, another key; the camera's error. SglatError: others
                of camera and follower.
        """
        self._loop = asyncio.get_running_loop()
        is_started = False
        try:
            while True:
                channel = await self._connect()
                if not is_started:
                    self._capture.start()
                    is_started = True
                is_over = await self._send(channel)
                if is_over:
                    return
                self._say("the connection is lost; connecting again")
        finally:
            if self._sound is not None:
                await asyncio.to_thread(self._sound.stop)
            if is_started:
                await asyncio.to_thread(self._capture.stop)
            else:
                self._camera.close()

    def describe(self) -> dict[str, Any]:
        """Return the figures for `--stats`."""
        f = self.figures
        seconds = 0.0 if f.begun is None else f.ended - f.begun
        receiver = None if f.receiver is None else vars(f.receiver)
        return {
            "role": "send",
            "seconds": round(seconds, 3),
            "sessions": f.sessions,
            "packets": f.packets,
            "frames_a_packet": self.frames_a_packet,
            "frames_sent": f.frames,
            "frames_dropped": self._capture.dropped,
            "frames_without_face": self._capture.lost,
            "motion_kbit_per_second": kbit_per_second(f.motion_bytes, seconds),
            "sound_kbit_per_second": kbit_per_second(f.sound_bytes, seconds),
            "receiver": receiver,
            "latency": self.stages.summary(),
        }

    def _post(self, event: Any) -> None:
        """Hand an event of another thread to the loop."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _post_sound(self, seconds: float, data: bytes) -> None:
        self._post(_Sound(seconds, data))

    async def _connect(self) -> control.Channel:
        """Return a channel whose receiver is ready for packets."""
        place = f"{self.config.host}:{self.config.port}"
        until = time.monotonic() + self.config.wait_seconds
        has_said = False
        while True:
            try:
                return await self._shake_hands()
            except (TimeoutError, OSError, control.ClosedError) as error:
                if time.monotonic() >= until:
                    raise LiveError(
                        "no-receiver",
                        f"expected a receiver at {place} within {self.config.wait_seconds:.0f} s, "
                        f"found none ({getattr(error, 'strerror', None) or error})",
                    ) from error
                if not has_said:
                    self._say(f"waiting for a receiver at {place}")
                    has_said = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _shake_hands(self) -> control.Channel:
        channel = await control.open_channel(self.config.host, self.config.port, self._key)
        try:
            session = _Session(
                look=self._look, frames=self.frames_a_packet, rate=self.config.rate,
                channel=channel, has_sound=self._sound is not None,
            )  # fmt: skip
            await channel.send(control.OFFER, control.pack_offer(session.offer))
            _, needs = await channel.expect(control.ACCEPT)
            if needs == b"\x01":
                await control.send_look(channel, self._look.data)
            await channel.expect(control.READY, seconds=control.LOADING_SECONDS)
        except BaseException:
            await channel.close()
            raise
        how = "sent" if needs == b"\x01" else "known there"
        self._say(f"connected to {channel.peer}; identity {how}")
        self._session = session
        self.figures.sessions += 1
        return channel

    async def _send(self, channel: control.Channel) -> bool:
        """Send one session; return whether the call is over."""
        assert self._loop is not None and self._session is not None
        host, port = channel.peer.rsplit(":", 1)
        transport, _ = await self._loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(host, int(port))
        )
        listener = asyncio.create_task(self._listen(channel))
        event = asyncio.create_task(self._events.get())
        patience = 2 * self._look.frame_ticks / CLOCK_RATE
        try:
            while True:
                done, _ = await asyncio.wait(
                    {event, listener}, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if listener in done:
                    return listener.result()
                if not done:  # no frame has come for a while: what waits for company goes out
                    self._flush(transport)
                    continue
                if self._handle(event.result(), channel, transport):
                    break
                event = asyncio.create_task(self._events.get())
            self._flush(transport)
            await channel.send(control.BYE, b"")
            return True
        finally:
            if event.done() and not isinstance(event.result(), Taken):
                self._events.put_nowait(event.result())  # of the next session
            event.cancel()
            listener.cancel()
            transport.close()
            await channel.close()

    def _handle(
        self, event: Any, channel: control.Channel, transport: asyncio.DatagramTransport
    ) -> bool:
        """Handle one event of the threads; return whether the source is at its end."""
        if isinstance(event, _End):
            if event.error is not None:
                raise event.error
            return True
        if isinstance(event, str):
            self._say(event)
        elif isinstance(event, Taken):
            self._send_frame(event, channel, transport)
        elif isinstance(event, _Sound):
            self._send_sound(event, transport)
        return False

    def _tell_clock(self, channel: control.Channel, captured: float) -> None:
        unix = time.time() - (time.monotonic() - captured)
        task = asyncio.create_task(channel.send(control.CLOCK, control.pack_clock(unix)))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _send_frame(
        self, taken: Taken, channel: control.Channel, transport: asyncio.DatagramTransport
    ) -> None:
        session = self._session
        assert session is not None
        is_first = session.zero is None
        if is_first and time.monotonic() - taken.captured > STALE_SECONDS:
            return  # taken while there was no connection
        slot = session.slot_of(taken.captured)
        if is_first:
            self._tell_clock(channel, taken.captured)
        if self.figures.begun is None:
            self.figures.begun = taken.captured
        if self._sound is not None:
            self._sound.start(taken.captured - self._camera.first_seconds)
        self.stages.add("capture_to_solve", taken.solved - taken.solve_seconds - taken.captured)
        self.stages.add("solve", taken.solve_seconds)
        begun = time.monotonic()
        values = self._quantizer.quantize(taken.motion)
        for packet in session.packetizer.push(slot, values, taken.flags):
            self._emit(packet, transport)
            self.stages.add("pack", time.monotonic() - begun)
            self.stages.add("capture_to_sent", time.monotonic() - taken.captured)

    def _flush(self, transport: asyncio.DatagramTransport) -> None:
        assert self._session is not None
        for packet in self._session.packetizer.flush():
            self._emit(packet, transport)

    def _emit(self, packet: Any, transport: asyncio.DatagramTransport) -> None:
        session = self._session
        assert session is not None
        data = session.motion.pack(
            packet.first_slot * self._look.frame_ticks,
            packet.payload,
            is_marked=packet.is_after_gap,
        )
        transport.sendto(data)
        self.figures.packets += 1
        self.figures.frames += packet.frames
        self.figures.motion_bytes += len(data) + UDP_HEADER_BYTES
        self.figures.ended = time.monotonic()

    def _send_sound(self, sound: _Sound, transport: asyncio.DatagramTransport) -> None:
        session = self._session
        assert session is not None
        assert self.figures.begun is not None  # sound starts with the first frame
        zero = self.figures.begun - self._camera.first_seconds
        ticks = session.sound_ticks(zero + sound.seconds)
        if ticks is None:
            return
        data = session.sound.pack(ticks, sound.data)
        transport.sendto(data)
        self.figures.sound_bytes += len(data) + UDP_HEADER_BYTES

    async def _listen(self, channel: control.Channel) -> bool:
        """Read what the receiver tells; return whether it hung up on purpose."""
        begun, has_said, told = time.monotonic(), False, (0, 0)
        while True:
            try:
                kind, data = await asyncio.wait_for(channel.receive(), SILENCE_SECONDS)
            except (TimeoutError, control.ClosedError, SealError, SglatError):
                return False
            if kind == control.BYE:
                self._say("the receiver has ended the call")
                return True
            if kind != control.REPORT:
                continue
            report = control.unpack_report(data)
            self.figures.receiver = report
            is_late = time.monotonic() - begun > NO_PACKETS_SECONDS
            if is_late and not has_said and report.taken == 0 and self.figures.packets:
                self._say("the receiver gets no packets: is UDP blocked on this port?")
                has_said = True
            told = self._tell_wrong(report, told)

    def _tell_wrong(self, report: control.Report, told: tuple[int, int]) -> tuple[int, int]:
        wrong = (report.forged, report.replayed)
        if wrong != told and told == (0, 0):
            self._say(
                f"the receiver ignores packets of somebody else: {report.forged} forged, "
                f"{report.replayed} replayed so far"
            )
        return wrong


@dataclass(frozen=True)
class _End:
    error: BaseException | None


@dataclass(frozen=True)
class _Sound:
    seconds: float
    data: bytes


class _Session:
    """Streams, clock and packetizer of one connection."""

    def __init__(
        self, *, look: Look, frames: int, rate: float, channel: control.Channel, has_sound: bool
    ) -> None:
        ssrc = new_ssrc() or 1
        sound_ssrc = (new_ssrc() or 1) if has_sound else 0
        if sound_ssrc == ssrc:
            sound_ssrc ^= 1
        self.offer = control.offer_of(look, ssrc=ssrc, sound_ssrc=sound_ssrc)
        self.zero: float | None = None
        """Monotonic time of time stamp 0: that of the session's first frame."""
        self._ticks = look.frame_ticks
        self._last = -1
        self.packetizer = Packetizer(look.anchor, look.frame_ticks, frames, rate)
        self.motion = PacketSealer(channel.media, ssrc, MOTION_TYPE)
        self.sound = PacketSealer(channel.media, sound_ssrc, SOUND_TYPE)

    def slot_of(self, captured: float) -> int:
        """Return the slot of a frame: the nearest free one."""
        if self.zero is None:
            self.zero = captured
        nearest = round((captured - self.zero) * CLOCK_RATE / self._ticks)
        self._last = max(nearest, self._last + 1)
        return self._last

    def sound_ticks(self, taken: float) -> int | None:
        """Return the time stamp of sound by its monotonic time; None before the first frame."""
        if self.zero is None or taken < self.zero:
            return None
        return round((taken - self.zero) * CLOCK_RATE)
