"""`sgl-decode` from the outside: data on stdout, talk on stderr, one line an error.

Raw frames and one error go through a process of its own; the rest runs in this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sglat.bundles.bundle import Bundle
from sglat.cli.common import parse_time
from sglat.errors import UsageError
from sglat.marks.watermark import ID_BYTES
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.support.commands import run_here
from tests.support.files import write_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def source(tmp_path: Path, bundle: Bundle) -> Path:
    return write_file(tmp_path / "in.sglat", bundle, frames=6)


Capture = pytest.CaptureFixture[bytes]
Done = subprocess.CompletedProcess[bytes]


def options(bundle: Bundle) -> tuple[object, ...]:
    return "--bundle", bundle.folder, "--device", "cpu", "--encoder", "libx264"


def launched(bundle: Bundle, *arguments: object) -> Done:
    """Run the command in a fresh process."""
    command = [sys.executable, "-m", "sglat.cli.decode", *arguments, *options(bundle)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "codec")}
    return subprocess.run(list(map(str, command)), capture_output=True, env=environment)


def run(capture: Capture, bundle: Bundle, *arguments: object, stdin: bytes | None = None) -> Done:
    return run_here(capture, "decode", *arguments, *options(bundle), stdin=stdin)


def test_a_video_is_written_and_described(
    capfdbinary: Capture, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    done = run(capfdbinary, bundle, source, tmp_path / "out.mp4", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["frames"], record["width"], record["height"]) == (6, 16, 16)
    assert (record["label"], len(record["watermark"])) == (None, 2 * ID_BYTES)
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert len(list(reader)) == 6


def test_raw_frames_go_to_standard_output(bundle: Bundle, source: Path) -> None:
    done = launched(bundle, source, "-", "--size", 32)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 6 * 32 * 32 * 3
    assert np.frombuffer(done.stdout, np.uint8).std() > 1


def test_a_file_may_come_from_standard_input(
    capfdbinary: Capture, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    done = run(capfdbinary, bundle, "-", tmp_path / "frames", "--png", stdin=source.read_bytes())
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "frames").glob("*.png"))) == 6


def fails_in_one_line(done: Done, code: str, status: int) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == b""
    lines = done.stderr.decode().strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {code}")


def test_a_missing_file_is_one_line(capfdbinary: Capture, tmp_path: Path, bundle: Bundle) -> None:
    done = run(capfdbinary, bundle, tmp_path / "none.sglat", tmp_path / "out.mp4")
    fails_in_one_line(done, "input-missing", 2)


def test_a_damaged_file_is_one_line(tmp_path: Path, bundle: Bundle, source: Path) -> None:
    data = bytearray(source.read_bytes())
    data[200] ^= 1
    source.write_bytes(data)
    done = launched(bundle, source, tmp_path / "out.mp4")
    fails_in_one_line(done, "bad-crc", 1)
    assert not (tmp_path / "out.mp4").exists()


def test_an_existing_output_is_kept_in_one_line(
    capfdbinary: Capture, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"precious")
    fails_in_one_line(run(capfdbinary, bundle, source, tmp_path / "out.mp4"), "output-exists", 2)
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


def test_contradicting_options_are_wrong_usage(
    capfdbinary: Capture, bundle: Bundle, source: Path
) -> None:
    fails_in_one_line(run(capfdbinary, bundle, source, "-", "--json"), "bad-options", 2)


@pytest.mark.parametrize(
    ("text", "seconds"), [("12.5", 12.5), ("1:02.5", 62.5), ("1:00:02", 3602.0), ("", None)]
)
def test_times_are_read(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["abc", "-1", "1:x", "inf", "nan"])
def test_other_times_are_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text)


def test_the_watermark_is_left_out_on_the_users_word_alone(
    capfdbinary: Capture, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    marked, plain = tmp_path / "marked.mkv", tmp_path / "plain.mkv"
    refused = run(capfdbinary, bundle, source, plain, "--no-watermark")
    assert refused.returncode == 2
    assert refused.stderr.startswith(b"error: unmarked: ")
    assert not plain.exists()
    word = ("--no-watermark", "--i-will-mark-it-myself")
    assert run(capfdbinary, bundle, source, plain, *word).returncode == 0
    assert run(capfdbinary, bundle, source, marked).returncode == 0
    assert b"left out on the user's word to mark it" in plain.read_bytes()
    assert b"left out" not in marked.read_bytes()
    raw = [run(capfdbinary, bundle, source, "-", *more).stdout for more in ((), word)]
    assert len(raw[0]) == len(raw[1]) > 0
    assert raw[0] != raw[1]
