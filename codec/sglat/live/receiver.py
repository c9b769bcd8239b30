"""The receiving end of a call: accept one sender, show and record what arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sglat.errors import BundleError, SglatError
from sglat.live import control
from sglat.live.look import Look, load_cached, store_cached, unpack_look
from sglat.live.outputs import MakeScreens, Outputs
from sglat.live.playout import Timeline
from sglat.live.render import Painter
from sglat.live.secure import LiveError, SealError
from sglat.live.session import Session
from sglat.live.sound import stored_packet
from sglat.live.stats import Stages
from sglat.marks.marking import MarkChoice

REPORT_SECONDS: Final = 3.0
LINGER_SECONDS: Final = 20.0
"""That a broken connection may take to come back before the call ends."""
LAST_SECONDS: Final = 0.1
"""That packets may come after the end of the call."""
MOST_PENDING: Final = 8  # connections in their handshake
SECONDS_BETWEEN_LINES: Final = 5.0  # of one kind, so that a stranger cannot fill the screen

MakePainter = Callable[[Look], Painter]


@dataclass(frozen=True, kw_only=True)
class ReceiveConfig:
    """How a call is received."""

    host: str = "0.0.0.0"
    port: int = 5004
    record: Path | None = None
    force: bool = False
    is_once: bool = True
    """End after the first call; else wait for the next one."""
    linger_seconds: float = LINGER_SECONDS
    patience_seconds: float = 0.08
    """How late a frame may be shown; later ones are left out."""
    marks: MarkChoice = MarkChoice()  # noqa: RUF009 - frozen


class Receiver:
    """One receiving end.

    Args:
        config: where, and what is written.
        key: 32 bytes.
        make_painter: called once a session; may refuse an identity by a BundleError.
        make_screens: called once a call.
        say: takes lines for the user.
    """

    def __init__(
        self,
        config: ReceiveConfig,
        *,
        key: bytes,
        make_painter: MakePainter,
        make_screens: MakeScreens,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.stages = config, Stages()
        self.port = config.port
        self.skipped = 0
        """Frames that were not rendered, since it would have been too late."""
        self.sessions: list[dict[str, Any]] = []
        """Figures of the sessions that are over."""
        self._key, self._say = key, say
        self._make_painter = make_painter
        self._outputs = Outputs(
            make_screens, record=config.record, force=config.force, marks=config.marks
        )
        self._session: Session | None = None
        self._painted: tuple[bytes, Painter] | None = None
        """The latest person's hash and painter."""
        self._pending = 0
        self._told: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="render")
        self._is_taken = False
        self._next_session = asyncio.Event()
        self._over = asyncio.Event()
        self._error: BaseException | None = None
        self.is_listening = asyncio.Event()

    async def run(self) -> None:
        """Receive until the call is over, or for ever.

        Raises:
            LiveError: the port is taken. SglatError: of an output.
        """
        loop = asyncio.get_running_loop()
        server, transport = await self._listen(loop)
        self._say(f"listening on port {self.port}")
        self.is_listening.set()
        playing = asyncio.create_task(self._play())
        try:
            await self._over.wait()
        finally:
            server.close()
            transport.close()
            playing.cancel()
            with suppress(asyncio.CancelledError):
                await playing
            if self._session is not None:
                self.sessions.append(self._session.describe())
            try:
                await self._in_pool(self._outputs.close)
            finally:
                self._pool.shutdown(wait=False)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the call, as when the user interrupts it; outputs are finished."""
        self._over.set()

    def describe(self) -> dict[str, Any]:
        """Return the figures for `--stats`."""
        return {
            "role": "receive",
            "frames_skipped": self.skipped,
            "sessions": self.sessions,
            "latency": self.stages.summary(),
        }

    async def _listen(
        self, loop: asyncio.AbstractEventLoop
    ) -> tuple[asyncio.Server, asyncio.DatagramTransport]:
        try:
            server = await asyncio.start_server(self._answer, self.config.host, self.port)
            self.port = server.sockets[0].getsockname()[1]
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self._take), local_addr=(self.config.host, self.port)
            )
        except OSError as error:
            raise LiveError(
                "port-taken",
                f"port {self.port} cannot be listened on: {error.strerror or error}; "
                "is another receiver running?",
            ) from error
        return server, transport

    def _take(self, packet: bytes) -> None:
        session = self._session
        if session is None:
            return
        wrong = session.opener.forged + session.opener.replayed
        session.take(packet, time.monotonic())
        now = session.opener.forged + session.opener.replayed
        if now > wrong:
            self._tell(
                "wrong",
                f"ignored: {session.opener.forged} forged and {session.opener.replayed} "
                "replayed packets so far",
            )

    def _tell(self, kind: str, line: str) -> None:
        """Say a line, but not one of its kind again too soon."""
        now = time.monotonic()
        if now - self._told.get(kind, -SECONDS_BETWEEN_LINES) >= SECONDS_BETWEEN_LINES:
            self._told[kind] = now
            self._say(line)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection, whoever it comes from."""
        if self._pending >= MOST_PENDING:
            writer.close()
            return
        self._pending += 1
        is_pending = True
        channel: control.Channel | None = None
        session: Session | None = None
        try:
            channel = await control.accept_channel(reader, writer, self._key)
            session = await self._welcome(channel)
            self._pending -= 1
            is_pending = False
            if session is not None:
                await self._attend(channel, session)
        except SealError:
            peer = channel.peer if channel else "a stranger"
            self._tell("key", f"refused {peer}: its key is another one than ours")
        except SglatError as error:
            peer = channel.peer if channel else "a stranger"
            self._tell(error.code, f"refused {peer}: {error}")
        except asyncio.CancelledError:
            pass  # the server closes
        finally:
            if is_pending:
                self._pending -= 1
            if session is not None and session is self._session and not session.is_ended:
                session.lost_since = time.monotonic()
            if session is not None:
                self._is_taken = False
            if channel is not None:
                await channel.close()
            else:
                writer.close()

    async def _welcome(self, channel: control.Channel) -> Session | None:
        """Take a sender's offer; None if it was refused."""
        _, data = await channel.expect(control.OFFER)
        if self._is_taken:
            self._tell("busy", f"refused {channel.peer}: another sender is in the call")
            await channel.refuse("busy", "the receiver is in a call with another sender")
            return None
        self._is_taken = True
        try:
            return await self._take_offer(channel, data)
        except BaseException as error:
            self._is_taken = False
            if isinstance(error, SglatError) and not isinstance(
                error, (SealError, control.ClosedError)
            ):
                await channel.refuse(error.code, error.message)
            raise

    async def _take_offer(self, channel: control.Channel, data: bytes) -> Session:
        offer = control.unpack_offer(data)
        known = self._outputs.look
        if known is not None and offer.identity_sha256 != known.sha256:
            raise LiveError("other-identity", "expected the person that the call began with")
        look = await asyncio.to_thread(load_cached, offer.header, offer.identity_sha256)
        await channel.send(control.ACCEPT, b"\x01" if look is None else b"\x00")
        if look is None:
            sent = await control.receive_look(channel, offer.size_bytes)
            look = await asyncio.to_thread(unpack_look, sent, offer.header, offer.identity_sha256)
            await asyncio.to_thread(store_cached, look)
        await self._in_pool(self._prepare, look, offer.sound_ssrc > 0)
        if self._session is not None:
            self.sessions.append(self._session.describe())
        session = Session(offer, look, channel.media, self.stages)
        self._session = session
        await channel.send(control.READY)
        self._say(f"in a call with {channel.peer}")
        self._next_session.set()
        return session

    def _prepare(self, look: Look, has_sound: bool) -> None:
        """Make ready to show a person; in the rendering thread."""
        if self._painted is None or self._painted[0] != look.sha256:
            try:
                self._painted = look.sha256, self._make_painter(look)
            except BundleError as error:
                raise LiveError("decoder-mismatch", error.message) from error
        try:
            self._outputs.open(look, has_sound=has_sound)
        except BaseException as error:
            self._fail(error)
            raise

    async def _attend(self, channel: control.Channel, session: Session) -> None:
        """Read what the sender tells, and report to it, until the connection ends."""
        reporting = asyncio.create_task(self._report(channel, session))
        try:
            while True:
                kind, data = await channel.receive()
                if kind == control.BYE:
                    session.is_ended = True
                    session.ended_at = time.monotonic()
                    self._say("the sender has ended the call")
                    return
                if kind == control.CLOCK:
                    session.clock = control.unpack_clock(data)
        except control.ClosedError:
            self._say(
                f"the connection to {channel.peer} is lost; waiting "
                f"{self.config.linger_seconds:.0f} s for it"
            )
        finally:
            reporting.cancel()

    async def _report(self, channel: control.Channel, session: Session) -> None:
        with suppress(LiveError):
            while True:
                await asyncio.sleep(REPORT_SECONDS)
                await channel.send(control.REPORT, control.pack_report(session.report()))

    async def _play(self) -> None:
        """Play session after session."""
        try:
            while True:
                await self._next_session.wait()
                self._next_session.clear()
                session = self._session
                assert session is not None
                await self._play_session(session)
                is_over = session is self._session
                if is_over and self.config.is_once:
                    self._over.set()
                    return
                if is_over:
                    await self._in_pool(self._outputs.close)
        except asyncio.CancelledError:
            if self._session is not None:
                await self._in_pool(self._record, self._session.timeline, True)
            raise
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._over.set()

    async def _play_session(self, session: Session) -> None:
        """Show the frames of a session when they are due; return when it is over."""
        while not session.jitter.is_ready:
            if self._is_over(session):
                return
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(session.has_frames.wait(), 0.1)
        first = session.timeline.first or 0
        slot, base = first, self._outputs.shown_slots
        while True:
            due = session.jitter.due(slot * session.period, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            while session.is_ended and slot > session.timeline.last:
                if self._is_over(session):
                    break
                await asyncio.sleep(0.01)
            if self._is_over(session) and slot > session.timeline.last:
                break
            late = time.monotonic() - due
            if late > self.config.patience_seconds:
                missed = int(late / session.period)
                self.skipped += missed
                slot += missed
            motion = session.concealer.next(session.timeline, slot)
            ticks = (base + slot - first) * session.look.frame_ticks
            sound = self._sound_until(session, first, base)
            await self._in_pool(self._show, motion, ticks, sound)
            if session.clock is not None:
                taken = session.clock + slot * session.period
                self.stages.add("capture_to_shown", time.time() - taken)
            self.stages.add("jitter_buffer", session.jitter.extra_seconds)
            await self._in_pool(self._record, session.timeline, False)
            slot += 1
            self._outputs.shown_slots = base + slot - first
        await self._in_pool(self._outputs.hear, self._sound_until(session, first, base))
        await self._in_pool(self._record, session.timeline, True)

    def _is_over(self, session: Session) -> bool:
        """Whether no more frames of a session will come."""
        if session is not self._session:
            return True
        if session.is_ended:
            return time.monotonic() - session.ended_at > LAST_SECONDS
        lost = session.lost_since
        return lost is not None and time.monotonic() - lost > self.config.linger_seconds

    def _sound_until(self, session: Session, first: int, base: int) -> list[Any]:
        """Return the sound that has come, timed from the first picture of the call."""
        packets = []
        shift = (base - first) * session.look.frame_ticks
        while session.sound:
            ticks, data = session.sound.popleft()
            if ticks + shift >= 0:
                packets.append(stored_packet(data, ticks + shift))
        return packets

    def _show(self, motion: Any, ticks: int, sound: list[Any]) -> None:
        """Render and show one frame; in the rendering thread."""
        assert self._painted is not None
        begun = time.monotonic()
        picture = self._painted[1].paint(motion)
        painted = time.monotonic()
        self._outputs.hear(sound)
        self._outputs.show(picture, ticks)
        self.stages.add("render", painted - begun)
        self.stages.add("output", time.monotonic() - painted)

    def _record(self, timeline: Timeline, is_over: bool) -> None:
        self._outputs.record(timeline, is_over=is_over)

    async def _in_pool(self, work: Callable[..., None], *arguments: Any) -> None:
        """Run work in the rendering thread, one piece after the other."""
        await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams to a function."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data)
