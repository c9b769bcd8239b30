"""Whole calls over sockets of this machine: what is sent arrives, and is recorded."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglat.bitstream.reader import Reader, open_reader
from sglat.bitstream.records import FRAME_HELD
from sglat.files import open_input
from sglat.live.look import Look, cache_path, load_cached
from tests.live.calls import Call, Mover, during, on_line, until, whole


def test_frames_are_shown_in_order_and_none_is_left_out(look: Look) -> None:
    call = Call(look)
    sender = on_line(whole(call, lambda: call.sender(Mover(look, 30), rate=64)))
    assert set(np.diff(call.screen.ticks).tolist()) == {1800}
    assert call.screen.is_closed
    assert sender.describe()["frames_sent"] == 30
    assert len(call.motions) >= 30  # more are held where the end is told late


def test_the_identity_is_sent_once_and_kept(look: Look) -> None:
    one, two = Call(look), Call(look)
    on_line(whole(one, lambda: one.sender(Mover(look, 4))))
    assert cache_path(look.sha256).is_file()
    on_line(whole(two, lambda: two.sender(Mover(look, 4))))
    assert one.said[0].endswith("identity sent")
    assert two.said[0].endswith("identity known there")
    assert two.painters[0].look.data == look.data


def test_a_damaged_kept_identity_is_asked_for_again(look: Look) -> None:
    path = cache_path(look.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(look.data[:-40] + bytes(40))
    call = Call(look)
    on_line(whole(call, lambda: call.sender(Mover(look, 4))))
    assert call.said[0].endswith("identity sent")
    assert load_cached(look.header, look.sha256) is not None


def test_a_kept_identity_has_consent_and_no_motion(look: Look) -> None:
    reader = Reader(io.BytesIO(look.data))
    assert reader.read_all() == []
    assert reader.provenance is not None and reader.provenance.consent == "mine"


def test_the_recording_is_a_valid_file_of_what_arrived(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "call.sglat"
    call = Call(look, record=path)
    camera = Mover(look, 40)
    on_line(whole(call, lambda: call.sender(camera, rate=64)))
    with open_reader(path) as reader:
        motion = reader.read_motion()
        assert reader.identity_sha256 == look.sha256
        assert reader.header.frame_ticks == 1800
        assert reader.end is not None
    assert len(motion.values) == 40
    assert np.abs(motion.dequantize() - camera.motion).max() <= 0.71 * motion.steps.max()
    assert motion.flags is None


def test_a_recording_of_a_call_that_is_stopped_is_whole(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "call.sglat"
    call = Call(look, record=path)

    async def stopped() -> None:
        sending = asyncio.create_task(call.sender(Mover(look, 5000)).run())
        await until(lambda: call.receiver._session is not None)
        session = call.receiver._session
        assert session is not None
        await until(lambda: session.timeline.last >= 30)
        call.receiver.stop()
        await asyncio.sleep(0)
        sending.cancel()

    on_line(during(call, stopped))
    with open_input(path) as file:
        assert len(Reader(file).read_motion().values) > 30


def test_a_face_that_is_lost_is_held_and_marked(look: Look, tmp_path: Path) -> None:
    class Blind(Mover):
        """Sees the face in the first five frames."""

        def step(self, frame: np.ndarray, time: float) -> np.ndarray | None:
            found = super().step(frame, time)
            return found if self.followed <= 5 else None

    path = tmp_path / "call.sglat"
    call = Call(look, record=path)
    sender = on_line(whole(call, lambda: call.sender(Blind(look, 20), rate=64)))
    with open_reader(path) as reader:
        flags = reader.read_motion().flags
    assert flags is not None and flags.tolist() == [0] * 5 + [FRAME_HELD] * 15
    assert sender.describe()["frames_without_face"] == 15


def test_a_follower_in_two_halves_gets_every_frame_in_order(look: Look, tmp_path: Path) -> None:
    class Halves:
        def __init__(self, camera: Mover) -> None:
            self.camera = camera

        def prepare(self, frame: np.ndarray, time: float) -> tuple[str, np.ndarray]:
            return "prepared", frame

        def solve(self, prepared: Iterable[Any]) -> Iterator[Any]:
            for item, (word, frame) in prepared:
                assert word == "prepared"
                yield item, self.camera.step(frame, 0.0)

    path, camera = tmp_path / "call.sglat", Mover(look, 16)
    call = Call(look, record=path)
    on_line(whole(call, lambda: call.sender(camera, follower=Halves(camera), rate=64)))
    with open_reader(path) as reader:
        motion = reader.read_motion()
    assert np.abs(motion.values - camera.motion / motion.steps).max() <= 0.701


def test_a_follower_that_fails_ends_the_call_with_its_error(look: Look) -> None:
    class Broken:
        def prepare(self, frame: np.ndarray, time: float) -> np.ndarray:
            raise RuntimeError("broken")

        def solve(self, prepared: Iterable[Any]) -> Iterator[Any]:
            yield from prepared

    call = Call(look)

    async def broken() -> None:
        with pytest.raises(RuntimeError, match="broken"):
            await call.sender(follower=Broken()).run()

    on_line(during(call, broken))


def test_a_receiver_that_joins_late_gets_the_identity(look: Look) -> None:
    call = Call(look)

    async def late() -> None:
        probe = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = probe.sockets[0].getsockname()[1]
        probe.close()
        await probe.wait_closed()
        sending = asyncio.create_task(call.sender(Mover(look, 6), port=port, wait=20).run())
        await until(lambda: bool(call.said))
        call.receiver.config = replace(call.receiver.config, port=port)
        call.receiver.port = port
        receiving = asyncio.create_task(call.receiver.run())
        await sending
        await receiving

    on_line(late())
    assert call.said[0].startswith("waiting for a receiver at 127.0.0.1:")
    assert len(call.motions) >= 6


def test_figures_name_every_stage(look: Look) -> None:
    call = Call(look)
    sender = on_line(whole(call, lambda: call.sender(Mover(look, 20))))
    sent, received = sender.describe(), call.receiver.describe()
    assert set(sent["latency"]) == {"capture_to_solve", "solve", "pack", "capture_to_sent"}
    assert {"capture_to_arrival", "jitter_buffer", "render", "output", "capture_to_shown"} == set(
        received["latency"]
    )
    session = received["sessions"][0]
    assert session["packets"] == sent["packets"] and session["packets_lost"] == 0
    kinds = ("frames", "frames_from_copies", "frames_bridged", "frames_frozen")
    assert sum(session[kind] for kind in kinds) >= 20
    assert {"p50_ms", "p95_ms"} <= set(received["latency"]["capture_to_shown"])


@pytest.mark.parametrize("frames", [None, 1])
def test_packets_last_80_ms_unless_asked_otherwise(look: Look, frames: int | None) -> None:
    sender = Call(look).sender(frames_a_packet=frames)
    assert sender.frames_a_packet == (4 if frames is None else frames)
