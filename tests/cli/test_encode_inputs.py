"""`sgl-encode` and input it cannot use: one clear line each, before any long work.

A video without a face goes through a process of its own; the rest runs in this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import run_here
from tests.support.video import moving_square, write_audio_only, write_video

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[bytes]


def run(capture: Capture, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return run_here(capture, "encode", "--quiet", *arguments)


def launched(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a fresh process."""
    command = [sys.executable, "-m", "sglat.cli.encode", "--quiet", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "codec")}
    return subprocess.run(command, capture_output=True, env=environment, check=False)


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode().strip().splitlines()
    assert done.returncode in (1, 2), done.stderr
    assert len(lines) == 1, done.stderr
    assert done.stdout == b""
    return lines[0]


def missing(folder: Path) -> Path:
    return folder / "none.mp4"


def zero_length(folder: Path) -> Path:
    (folder / "a.mp4").touch()
    return folder / "a.mp4"


def noise(folder: Path) -> Path:
    (folder / "a.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    return folder / "a.mp4"


def cut_short(folder: Path) -> Path:
    path = write_video(folder / "a.mp4", [moving_square(i) for i in range(5)])
    path.write_bytes(path.read_bytes()[:700])
    return path


def sound_only(folder: Path) -> Path:
    return write_audio_only(folder / "a.m4a")


def a_folder(folder: Path) -> Path:
    return folder


def no_face(folder: Path) -> Path:
    return write_video(
        folder / "a.mp4", [moving_square(i, width=320, height=240) for i in range(3)]
    )


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (missing, "input-missing"),
        (zero_length, "media-empty"),
        (noise, "media-unreadable"),
        (cut_short, "media-unreadable"),
        (sound_only, "no-video"),
        (a_folder, "input-unreadable"),
        (no_face, "no-face"),
    ],
)
def test_useless_input_is_one_clear_line(
    capfdbinary: Capture, tmp_path: Path, make: object, code: str
) -> None:
    source = make(tmp_path)  # type: ignore[operator]
    before = sorted(tmp_path.iterdir())
    arguments = source, tmp_path / "out.sglat"
    done = launched(*arguments) if make is no_face else run(capfdbinary, *arguments)
    assert one_line(done).startswith(f"error: {code}: ")
    assert not (tmp_path / "out.sglat").exists()
    if make is not no_face:
        assert sorted(tmp_path.iterdir()) == before


def test_an_existing_output_is_kept(capfdbinary: Capture, tmp_path: Path) -> None:
    (tmp_path / "out.sglat").write_bytes(b"precious")
    assert "exists" in one_line(run(capfdbinary, sound_only(tmp_path), tmp_path / "out.sglat"))
    assert (tmp_path / "out.sglat").read_bytes() == b"precious"


def test_a_missing_output_folder_is_one_line(capfdbinary: Capture, tmp_path: Path) -> None:
    assert "output-folder" in one_line(
        run(capfdbinary, sound_only(tmp_path), tmp_path / "no" / "out.sglat")
    )


def test_an_unknown_bundle_is_one_line(capfdbinary: Capture, tmp_path: Path) -> None:
    line = one_line(
        run(capfdbinary, no_face(tmp_path), tmp_path / "out.sglat", "--bundle", "nonsense")
    )
    assert "unknown-bundle" in line
