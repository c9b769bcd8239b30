"""`kill -9` again and again: the same command ends with the same bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import draw_clip

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("track", "align", "invert", "tune", "expression")

# The encoder on a drawn face, telling its progress; the weights are random, the rest is real.
DRIVER = """
import sys
from pathlib import Path
from sglat.bundles.bundle import Bundle
from sglat.encoder import encode as module
from tests.encoder.test_encode import CONFIG, Eyes, Pixels

bundle = Bundle(Path(sys.argv[3]))
bundle.__dict__.update(faces=Eyes(), perceptual=Pixels())
module.load_bundle = lambda name, device: bundle
module.encode(
    Path(sys.argv[1]), Path(sys.argv[2]), CONFIG,
    progress=lambda stage, done, total: print(stage, done, flush=True),
)
"""


def start(source: Path, target: Path, bundle: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "codec"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", "-c", DRIVER]
    return subprocess.Popen(
        [*command, str(source), str(target), str(bundle)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def kill_in(process: subprocess.Popen[str], stage: str, done: int) -> None:
    """Kill the process once a stage has told of `done` units."""
    assert process.stdout is not None
    for line in process.stdout:
        name, count = line.split()
        if name == stage and int(count) >= done:
            process.kill()
            break
    process.communicate()
    assert process.returncode == -9, f"ended by itself before {stage} {done}"


@pytest.mark.slow
def test_five_kills_leave_the_same_bytes(tmp_path: Path) -> None:
    source = draw_clip(tmp_path / "in.mp4")
    make_tiny_bundle(tmp_path / "tiny")
    whole, cut = tmp_path / "whole.sglat", tmp_path / "cut.sglat"
    start(source, whole, tmp_path / "tiny").communicate()
    places = random.Random(0)
    for stage in STAGES:
        done = 1 if stage in ("invert", "expression") else places.randint(1, 6)
        kill_in(start(source, cut, tmp_path / "tiny"), stage, done)
        assert not cut.exists()
    start(source, cut, tmp_path / "tiny").communicate()
    assert cut.read_bytes() == whole.read_bytes()
