"""`sgl-live` as people use it: options that do not fit, and a call through two commands."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.cli.live import choose_key, parse_place
from sglat.errors import UsageError
from sglat.live.look import read_look
from sglat.live.sender import SendConfig, Sender
from sglat.marks.check import check
from sglat.marks.keys import make_signer
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.live.calls import Mover
from tests.support.commands import run_here
from tests.support.files import write_file

Capture = pytest.CaptureFixture[bytes]
Done = subprocess.CompletedProcess[bytes]
PHRASE = ("--passphrase", "correct horse")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def person(tmp_path: Path, bundle: Bundle) -> Path:
    return write_file(tmp_path / "me.sglat", bundle, frames=6)


@pytest.mark.parametrize(
    ("text", "place"),
    [("host:5004", ("host", 5004)), ("[::1]:80", ("::1", 80)), ("10.0.0.1:1", ("10.0.0.1", 1))],
)
def test_a_place_is_host_and_port(text: str, place: tuple[str, int]) -> None:
    assert parse_place(text) == place


def test_a_receiver_may_leave_out_its_host() -> None:
    assert parse_place("5004", default_host="0.0.0.0") == ("0.0.0.0", 5004)


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:x", "host:0", "host:70000"])
def test_other_places_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="bad-address"):
        parse_place(text)


def test_a_passphrase_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLAT_PASSPHRASE", "correct horse")
    assert choose_key(None, None) == choose_key(None, "correct horse")


def line(done: Done) -> bytes:
    """Return the one line of an error."""
    assert done.stderr.count(b"\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("receive", "out.mp4"), b"one of --key FILE and --passphrase TEXT"),
        (("receive", *PHRASE), b"no-output"),
        (("receive", "out.mp4", "--stay", *PHRASE), b"a file holds one call"),
        (("receive", "out.mp4", "--listen", "x", *PHRASE), b"bad-address"),
        (("receive", "out.mp4", "--no-watermark", *PHRASE), b"add --i-will-mark-it-myself"),
        (("receive", "-", "--no-watermark", *PHRASE), b"add --i-will-mark-it-myself"),
        (("receive", "--window", "--no-label", *PHRASE), b"add --i-will-mark-it-myself"),
        (("receive", "-", "--sign", *PHRASE), b"--sign needs a file"),
        (
            ("receive", "out.mp4", "--label-text", "\N{CJK UNIFIED IDEOGRAPH-751F}", *PHRASE),
            b"bad-label",
        ),
        (("receive", "--key", "none.key", "out.mp4"), b"input-missing"),
        (("send", "--identity", "none.sglat", "--to", "localhost:1", *PHRASE), b"input-missing"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    capfdbinary: Capture, arguments: tuple[str, ...], words: bytes,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SGLAT_PASSPHRASE", raising=False)
    done = run_here(capfdbinary, "live", *arguments)
    assert done.returncode == 2
    assert words in line(done)


def test_no_camera_is_one_line(capfdbinary: Capture, person: Path) -> None:
    done = run_here(
        capfdbinary, "live", "send", "--identity", person, "--camera", "97", "--to", "localhost:1",
        *PHRASE,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"error: no-camera: expected camera 97" in line(done)


def test_no_window_is_one_line(capfdbinary: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")

    def refuse(*_: object) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    done = run_here(capfdbinary, "live", "receive", "--window", *PHRASE)
    assert done.returncode == 1
    assert b"error: no-window: this OpenCV has no windows" in line(done)


def test_a_call_through_both_commands(
    capfdbinary: Capture, tmp_path: Path, person: Path, bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The receiver is the command; the sender's parts run in a thread, since commands end
    processes."""
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SGLAT_CONFIG", str(tmp_path / "config"))
    signs = find_spec("c2pa") is not None
    if signs:
        make_signer("Jo", folder=tmp_path / "config")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    look = read_look(person, Fraction(50))
    camera = Mover(look, 6)
    sender = Sender(
        SendConfig(host="127.0.0.1", port=port, rate=64),
        key=choose_key(None, "correct horse"),
        look=look,
        camera=camera,
        follower=camera,
        say=lambda line: None,
    )
    thread = threading.Thread(target=lambda: asyncio.run(sender.run()))
    thread.start()
    done = run_here(
        capfdbinary, "live", "receive", tmp_path / "out.mp4", "--listen", f"127.0.0.1:{port}",
        "--record", tmp_path / "call.sglat", "--bundle", bundle.folder, "--device", "cpu",
        "--stats", tmp_path / "stats.json", "--size", "64", "--label", *PHRASE,
    )  # fmt: skip
    thread.join()
    assert done.returncode == 0
    assert b"the sender has ended the call" in done.stderr
    with VideoReader(tmp_path / "out.mp4") as video:
        assert video.info.width == 64
        assert sum(1 for _ in video) >= 6
    with open_reader(tmp_path / "call.sglat") as kept:
        motion = kept.read_motion()
    assert np.abs(motion.values - camera.motion / motion.steps).max() <= 0.701
    assert (tmp_path / "stats.json").stat().st_size > 100
    video, recording = check(tmp_path / "out.mp4"), check(tmp_path / "call.sglat")
    assert (video.tags.label, video.tags.watermark) == ("AI-generated", recording.named_watermark)
    assert (video.verdict, recording.verdict) == ("holds", "holds")
    assert (video.is_signed, recording.is_signed) == (signs, signs)
    assert (b"signed by Jo (self-signed) (C2PA)" in done.stderr) == signs
