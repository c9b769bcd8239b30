"""`kill -9` again and again: the same command ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import random
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from sglat.bundles.bundle import Bundle
from sglat.encoder import encode as module
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import CONFIG, draw_clip, see_drawn_faces

QUICK = replace(CONFIG, self_check=False)
STAGES = ("track", "align", "invert", "tune", "expression")

# A server that has imported torch forks each process: importing takes longer than encoding.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [__name__, "torch._dynamo", "torch._decomp.decompositions_for_jvp"]
)


def encode_told(source: Path, target: Path, folder: Path, told: Connection) -> None:
    """Encode a drawn face, telling the progress; the weights are random, the rest is real."""
    bundle = see_drawn_faces(Bundle(folder))
    module.load_bundle = lambda name, device: bundle  # type: ignore[assignment,misc]
    module.encode(
        source, target, QUICK, progress=lambda stage, done, total: told.send((stage, done))
    )


def start(source: Path, target: Path, bundle: Path) -> tuple[ForkServerProcess, Connection]:
    """Start an encoding in a process of its own; return it, and where it tells its progress."""
    heard, told = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=encode_told, args=(source, target, bundle, told))
    process.start()
    told.close()
    return process, heard


def finish(source: Path, target: Path, bundle: Path) -> None:
    """Run an encoding to its end."""
    process, _heard = start(source, target, bundle)
    process.join()
    assert process.exitcode == 0


def kill_in(process: ForkServerProcess, heard: Connection, stage: str, done: int) -> None:
    """Kill the process once a stage has told of `done` units."""
    for name, count in iter(heard.recv, None):
        if name == stage and count >= done:
            process.kill()
            break
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_five_kills_leave_the_same_bytes(tmp_path: Path) -> None:
    source, tiny = draw_clip(tmp_path / "in.mp4"), tmp_path / "tiny"
    make_tiny_bundle(tiny)
    whole, cut = tmp_path / "whole.sglat", tmp_path / "cut.sglat"
    finish(source, whole, tiny)
    places = random.Random(0)
    for stage in STAGES:
        done = 1 if stage in ("invert", "expression") else places.randint(1, 6)
        kill_in(*start(source, cut, tiny), stage, done)
        assert not cut.exists()
    finish(source, cut, tiny)
    assert cut.read_bytes() == whole.read_bytes()
