"""Ctrl-C: one line, status 130, nothing half-written; an encoding goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sglat.bundles.bundle import Bundle
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import draw_clip
from tests.support.files import write_file

ROOT = Path(__file__).resolve().parents[2]

# `sgl-encode` itself, with a drawn face's networks, telling its progress on stdout.
ENCODE = """
import sys
from pathlib import Path
from sglat.bundles.bundle import Bundle
from sglat.cli import encode as command
from sglat.encoder import encode as module
from tests.encoder.test_encode import see_drawn_faces

bundle = see_drawn_faces(Bundle(Path(sys.argv.pop())))
module.load_bundle = lambda name, device: bundle

class Bar(command.TotalBar):
    def __call__(self, stage, done, total):
        print(stage, done, flush=True)

command.TotalBar = Bar
command.main()
"""

DECODE = """
import sys
from sglat.cli import decode as command

class Bar(command.StageBar):
    def __call__(self, stage, done, total):
        print(stage, done, flush=True)

command.StageBar = Bar
command.main()
"""


def interrupted(script: str, stage: str, *arguments: object) -> tuple[int, list[str]]:
    """Run a script, press Ctrl-C once it tells of a stage, and return status and stderr lines."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "codec"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # a run in the background ignores Ctrl-C, and its children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.split()[0] == stage:
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate()
    return process.returncode, errors.strip().splitlines()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.mark.parametrize("stage", ["track", "tune"])
def test_an_encoding_stops_with_one_line_and_keeps_its_work(
    tmp_path: Path, bundle: Bundle, stage: str
) -> None:
    source, target = draw_clip(tmp_path / "in.mp4", 30), tmp_path / "out.sglat"
    options = ("--tune-steps", 40, "--identity-bytes", 6000, "--quiet")
    status, lines = interrupted(ENCODE, stage, source, target, *options, bundle.folder)
    assert status == 130
    assert len(lines) == 1
    assert lines[0].startswith("stopped; unfinished work is kept in")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.sglat.work"]


def test_a_decoding_stops_at_once_and_leaves_nothing(tmp_path: Path, bundle: Bundle) -> None:
    source = write_file(tmp_path / "in.sglat", bundle, frames=4000)
    options = ("--bundle", bundle.folder, "--device", "cpu", "--encoder", "libx264")
    status, lines = interrupted(DECODE, "decode", source, tmp_path / "out.mp4", *options)
    assert status == 130
    assert len(lines) <= 1  # "Aborted." of some versions of typer
    assert [p.name for p in tmp_path.iterdir()] == ["in.sglat"]
