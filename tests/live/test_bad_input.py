"""What goes wrong in a call: one clear line each, and a sensible state after it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglat.bitstream.reader import open_reader
from sglat.errors import BundleMismatchError, FormatError, UsageError
from sglat.live import capture, control, receiver
from sglat.live.camera import CameraGoneError, MotionCamera, check_device, open_camera
from sglat.live.look import Look, read_look, unpack_look
from sglat.live.rtp import MOTION_TYPE
from sglat.live.secure import LiveError, PacketSealer, Sealer, SealError
from tests.live.calls import KEY, Call, Kept, Mover, during, on_line, until, whole


def line_of(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


def test_a_wrong_key_is_told_at_both_ends(look: Look) -> None:
    call = Call(look)

    async def wrong() -> None:
        with pytest.raises(SealError) as found:
            await call.sender(key=bytes(32)).run()
        assert line_of(found.value).startswith("wrong-key: the two ends have different keys")
        await until(lambda: any("its key is another one" in line for line in call.heard))
        await call.sender(Mover(look, 6)).run()  # and the right one is still welcome
        await until(lambda: len(call.motions) >= 6)

    on_line(during(call, wrong))


def test_a_second_sender_is_refused_and_the_first_goes_on(look: Look, other_look: Look) -> None:
    call = Call(look)

    async def two() -> None:
        first = call.sender(Mover(look, 120))
        sending = asyncio.create_task(first.run())
        await until(lambda: len(call.motions) > 5)
        with pytest.raises(LiveError) as found:
            await call.sender(look=other_look).run()
        assert line_of(found.value) == "busy: the receiver is in a call with another sender"
        assert any("another sender is in the call" in line for line in call.heard)
        await sending
        await until(lambda: len(call.motions) >= 120)

    on_line(during(call, two))
    assert {painter.look.sha256 for painter in call.painters} == {look.sha256}


def media(call: Call, key: bytes = KEY) -> tuple[PacketSealer, socket.socket]:
    """Return a packet maker with the SSRC of the call in progress, and a socket to it."""
    session = call.receiver._session
    assert session is not None
    sealer = Sealer(key, bytes(64), "media")
    maker = PacketSealer(sealer, session.offer.ssrc, MOTION_TYPE, number=1 << 15)
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.connect(("127.0.0.1", call.receiver.port))
    return maker, out


def test_forged_and_replayed_packets_are_counted_and_change_nothing(
    look: Look, tmp_path: Path
) -> None:
    call = Call(look, record=tmp_path / "call.sglat")
    camera = Mover(look, 60)

    taken: list[bytes] = []
    inner = call.receiver._take

    def take(packet: bytes) -> None:
        taken.append(packet)
        inner(packet)

    call.receiver._take = take  # type: ignore[method-assign]

    async def attacked() -> None:
        sending = asyncio.create_task(call.sender(camera, rate=64).run())
        await until(lambda: len(taken) >= 3)
        maker, out = media(call)
        with out:
            for _ in range(20):
                out.send(maker.pack(0, b"another face"))
            for packet in (taken[0], taken[1], b"", b"\x80", bytes(1500)):
                out.send(packet)
            await until(lambda: call.receiver._session.opener.replayed >= 2)  # type: ignore[union-attr]
        await sending
        await until(lambda: len(call.motions) >= 60)

    on_line(during(call, attacked))
    figures = call.receiver.sessions[0]
    assert (figures["packets_forged"], figures["packets_replayed"]) == (23, 2)
    with open_reader(tmp_path / "call.sglat") as reader:
        motion = reader.read_motion()
    assert np.abs(motion.values - camera.motion / motion.steps).max() <= 0.701
    assert any("forged" in line for line in call.heard)


def test_a_well_sealed_packet_against_the_document_is_counted(look: Look) -> None:
    call = Call(look)

    async def broken() -> None:
        sending = asyncio.create_task(call.sender(Mover(look, 40)).run())
        await until(lambda: len(call.motions) > 2)
        session = call.receiver._session
        assert session is not None
        sealer = session.opener.sealer
        for number, (ticks, data) in enumerate([(7, b"\1"), (0, bytes(2000)), (1 << 31, b"\1")]):
            packet = PacketSealer(sealer, session.offer.ssrc, MOTION_TYPE, number=900 + number)
            session.take(packet.pack(ticks, data), 0.0)
        assert session.traffic.malformed == 3
        await sending

    on_line(during(call, broken))


def test_an_identity_for_other_weights_is_refused_at_both_ends(look: Look) -> None:
    call = Call(look)

    def refuse(look: Look) -> Any:
        raise BundleMismatchError("decoder-mismatch", "the identity was made for bundle other")

    call.receiver._make_painter = refuse

    async def offered() -> None:
        with pytest.raises(LiveError) as found:
            await call.sender().run()
        assert line_of(found.value) == "decoder-mismatch: the identity was made for bundle other"
        await until(lambda: any("made for bundle other" in line for line in call.heard))

    on_line(during(call, offered))


def test_no_receiver_is_one_line(look: Look) -> None:
    call = Call(look)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LiveError) as found:
        on_line(call.sender(port=port, wait=0.0).run())
    assert line_of(found.value).startswith(f"no-receiver: expected a receiver at 127.0.0.1:{port}")


def test_a_port_that_is_taken_is_one_line(look: Look) -> None:
    call = Call(look)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        call.receiver.port = taken.getsockname()[1]
        with pytest.raises(LiveError) as found:
            on_line(call.receiver.run())
    assert "is another receiver running?" in line_of(found.value)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n" + b"x" * 40, b"", control.MAGIC + b"x" * 9])
def test_strangers_at_the_port_do_no_harm(look: Look, data: bytes) -> None:
    call = Call(look)

    async def knocked() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", call.receiver.port)
        writer.write(data)
        writer.write_eof()
        await until(lambda: any("refused" in line for line in call.heard))
        writer.close()
        await call.sender(Mover(look, 4)).run()
        await until(lambda: len(call.motions) >= 4)

    on_line(during(call, knocked))


def test_many_silent_connections_do_not_pile_up(look: Look) -> None:
    call = Call(look)

    async def knocked() -> None:
        links = [
            await asyncio.open_connection("127.0.0.1", call.receiver.port)
            for _ in range(receiver.MOST_PENDING + 3)
        ]
        reads = [asyncio.create_task(reader.read(1)) for reader, _ in links]
        await until(lambda: sum(read.done() for read in reads) == 3)
        for _, writer in links:
            writer.close()

    on_line(during(call, knocked))


def test_a_broken_connection_is_made_again_and_the_same_person_goes_on(look: Look) -> None:
    call = Call(look)

    async def broken() -> None:
        sender = call.sender(Mover(look, 150))
        sending = asyncio.create_task(sender.run())
        await until(lambda: len(call.motions) > 10)
        session = call.receiver._session
        for task in asyncio.all_tasks():
            if "Receiver._answer" in repr(task):
                task.cancel()
        await until(lambda: call.receiver._session is not session)
        await sending
        await until(lambda: call.receiver._session.is_ended)  # type: ignore[union-attr]
        assert sender.figures.sessions == 2

    on_line(during(call, broken))
    assert any("connecting again" in line for line in call.said)
    assert len(call.painters) == 1
    assert np.diff(call.screen.ticks).min() > 0


def test_another_person_is_never_shown_in_a_call_that_goes_on(look: Look, other_look: Look) -> None:
    call = Call(look)

    async def changed() -> None:
        sending = asyncio.create_task(call.sender(Mover(look, 5000)).run())
        await until(lambda: len(call.motions) > 5)
        sending.cancel()
        await until(lambda: call.receiver._is_taken is False)
        with pytest.raises(LiveError, match="other-identity"):
            await call.sender(look=other_look).run()

    on_line(during(call, changed))
    assert {painter.look.sha256 for painter in call.painters} == {look.sha256}


def test_an_output_that_fails_ends_the_receiver_with_its_error(look: Look) -> None:
    class Full(Kept):
        def show(self, picture: Any, ticks: int) -> None:
            raise OSError(28, "No space left on device")

    call = Call(look)
    call.screens = lambda look, has_sound: [Full()]

    async def full() -> None:
        receiving = asyncio.create_task(call.receiver.run())
        await call.receiver.is_listening.wait()
        sending = asyncio.create_task(call.sender(Mover(look, 5000)).run())
        with pytest.raises(OSError, match="No space left"):
            await receiving
        sending.cancel()

    on_line(full())


class Unplugged(Mover):
    """Gives five frames, is gone for one attempt, comes back for ten more, then ends."""

    is_live = True

    def __init__(self, look: Look, *, comes_back: bool = True) -> None:
        super().__init__(look, 5)
        self.attempts, self.comes_back = 0, comes_back

    def frames(self) -> Iterator[tuple[Any, float]]:
        self.attempts += 1
        if self.attempts == 2 or not self.comes_back:
            raise CameraGoneError("camera-gone", "camera 0 gives no more frames")
        yield from super().frames()
        if self.attempts == 1:
            raise CameraGoneError("camera-gone", "camera 0 gives no more frames")


def test_a_camera_that_is_gone_is_told_and_waited_for(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "REOPEN_SECONDS", 0.1)
    call = Call(look)
    on_line(whole(call, lambda: call.sender(Unplugged(look), rate=64)))
    assert call.said[1:3] == [
        "camera-gone: camera 0 gives no more frames; the other end sees a still face until it is "
        "back",
        "the camera is back",
    ]
    counts = call.receiver.sessions[0]
    assert counts["packets"] == 4  # four frames, and one alone before each end


def test_a_camera_that_stays_away_ends_the_call_with_its_line(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "REOPEN_SECONDS", 0.01)
    monkeypatch.setattr(capture, "GIVE_UP_SECONDS", 0.1)
    call = Call(look)

    async def away() -> None:
        with pytest.raises(CameraGoneError):
            await call.sender(Unplugged(look, comes_back=False)).run()

    on_line(during(call, away))


def test_no_camera_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(LiveError, match="there is none on this machine"):
        check_device(0, tmp_path)
    (tmp_path / "video2").touch()
    with pytest.raises(LiveError, match=r"no-camera: expected camera 0 .*; there are 2"):
        check_device(0, tmp_path)


def test_a_camera_without_permission_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "video0").touch()
    monkeypatch.setattr("sglat.live.camera.os.access", lambda path, mode: False)
    with pytest.raises(LiveError, match=r"no-permission: .*join its group"):
        check_device(0, tmp_path)


def test_a_missing_or_unreadable_video_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="input-missing"):
        open_camera(str(tmp_path / "none.mp4"))


def test_motion_for_other_weights_is_refused(person: Path, look: Look, bundle: Any) -> None:
    from dataclasses import replace

    other = replace(look, header=replace(look.header, decoder_id=bytes(32)))
    with pytest.raises(UsageError, match="decoder-mismatch"):
        MotionCamera(person, other)


@pytest.mark.parametrize("change", ["cut", "flip", "other"])
def test_an_identity_that_was_changed_on_the_way_is_refused(
    look: Look, other_look: Look, change: str
) -> None:
    data = {
        "cut": look.data[:-30],
        "flip": look.data[:400] + bytes([look.data[400] ^ 1]) + look.data[401:],
        "other": other_look.data,
    }[change]
    with pytest.raises(FormatError):
        unpack_look(data, look.header, look.sha256)


def test_an_offer_survives_its_own_packing_and_nothing_else(look: Look) -> None:
    offer = control.offer_of(look, ssrc=7, sound_ssrc=0)
    data = control.pack_offer(offer)
    assert control.unpack_offer(data).ssrc == 7
    for size in range(0, len(data), 7):
        with pytest.raises(FormatError):
            control.unpack_offer(data[:size])


@pytest.mark.parametrize("rate", [Fraction(1), Fraction(200)])
def test_an_offer_with_another_rate_is_refused(person: Path, rate: Fraction) -> None:
    offer = control.offer_of(read_look(person, rate), ssrc=7, sound_ssrc=0)
    with pytest.raises(FormatError, match="5 to 60"):
        control.unpack_offer(control.pack_offer(offer))
