"""Every command on files of any kind: one clear line or a sensible result, and no traceback."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import socket
import tarfile
import wave
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.bundles import bundle as bundles
from sglat.bundles.bundle import Bundle
from sglat.media.pictures import encode_png
from tests.bitstream.samples import sample_file
from tests.bundles.tiny import make_tiny_bundle
from tests.support.commands import status_of
from tests.support.files import write_file
from tests.support.video import moving_square, write_video

Make = Callable[[Path], Path | None]
"""Makes a file in an empty folder; None where the machine cannot have it."""


def contents(name: str, data: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def picture(name: str, codec: str) -> Make:
    def make(folder: Path) -> Path:
        with av.open(str(folder / name), "w", format="image2") as container:
            stream = container.add_stream(codec, rate=1)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
            frame = av.VideoFrame.from_ndarray(moving_square(0), format="rgb24")
            for packet in (*stream.encode(frame.reformat(format=stream.pix_fmt)), *stream.encode()):
                container.mux(packet)
        return folder / name

    return make


def video(name: str, **options: object) -> Make:
    return lambda folder: write_video(
        folder / name,
        [moving_square(i) for i in range(3)],
        **options,  # type: ignore[arg-type]
    )


def sound(name: str, codec: str) -> Make:
    def make(folder: Path) -> Path:
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=48000)
            samples = np.zeros((1, 4800), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 48000
            for packet in (*stream.encode(frame), *stream.encode()):
                container.mux(packet)
        return folder / name

    return make


def wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("clip.mp4", b"nothing")
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("clip.mp4"))
    return out.getvalue()


def folder_named(name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


def link(target: str, *, name: str = "link.sglat", data: bytes = b"") -> Make:
    def make(folder: Path) -> Path:
        if data:
            (folder / target).write_bytes(data)
        (folder / name).symlink_to(target)
        return folder / name

    return make


def special(path: str) -> Make:
    return lambda folder: Path(path) if Path(path).exists() else None


def socket_file(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the path of a socket is short
        server.bind("socket")
    return folder / "socket"


def cut(name: str, keep: int) -> Make:
    """Return a maker of a video of which only the first bytes are left."""

    def make(folder: Path) -> Path:
        path = video(name)(folder)
        assert path is not None
        path.write_bytes(path.read_bytes()[:keep])
        return path

    return make


def renamed(make: Make, name: str) -> Make:
    def made(folder: Path) -> Path:
        path = make(folder)
        assert path is not None
        return path.rename(folder / name)

    return made


def hostile(name: bytes, data: bytes) -> Make:
    def make(folder: Path) -> Path | None:
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        try:
            path.write_bytes(data)
        except OSError:
            return path if len(name) > 255 else None
        return path

    return make


def flipped(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def sglat_files(data: bytes) -> dict[str, Make]:
    """Return what may have become of a `.sglat` file."""
    half = len(data) // 2
    changed = {
        "whole": data, "one byte": data[:1], "half a signature": data[:5], "signature": data[:8],
        "head of a chunk": data[:12], "half a head": data[:60], "half": data[:half],
        "last byte gone": data[:-1], "index gone": data[:-60], "bit in the head": flipped(data, 30),
        "bit in the middle": flipped(data, half), "bit at the end": flipped(data, -5),
        "more behind": data + b"more", "twice": data + data, "back to front": data[::-1],
        "sent as text": data.replace(b"\r\n", b"\n"), "byte order mark": b"\xef\xbb\xbf" + data,
        "other decoder": sample_file(), "zeros at the end": data[:half] + bytes(len(data) - half),
        "later version": data[:16] + b"\x09\x09\x09\x09" + data[20:],
    }  # fmt: skip
    return {f"sglat: {name}": contents("a.sglat", found) for name, found in changed.items()}


def files(data: bytes) -> dict[str, Make]:
    """Return makers of all kinds of files, by what they are.

    Args:
        data: a whole `.sglat` file.
    """
    noise = np.random.default_rng(1).bytes(4096)
    png = encode_png(moving_square(0))
    return sglat_files(data) | {
        "empty": contents("empty.sglat", b""),
        "empty video": contents("empty.mp4", b""),
        "zeros": contents("zeros.sglat", bytes(4096)),
        "ones": contents("ones.mp4", b"\xff" * 4096),
        "noise": contents("noise.mp4", noise),
        "noise as a picture": contents("noise.png", noise),
        "text": contents("notes.txt", b"Only a few words.\n" * 40),
        "text as a video": contents("notes.mp4", b"Only a few words.\r\n" * 40),
        "text of two bytes": contents("wide.sglat", "Only a few words.".encode("utf-16")),
        "json": contents("a.json", json.dumps({"a": 1}).encode()),
        "web page": contents("clip.mp4", b"<!DOCTYPE html><html><body>404</body></html>"),
        "empty table": contents("empty.csv", b""),
        "wrong table": contents("wrong.csv", b"a,b\n1,2\n"),
        "no hdf5": contents("noise.h5", noise),
        "png": contents("a.png", png),
        "half a png": contents("half.png", png[: len(png) // 2]),
        "png as .sglat": contents("png.sglat", png),
        "jpeg": picture("a.jpg", "mjpeg"),
        "wav": contents("a.wav", wav()),
        "mp4": video("a.mp4"),
        "mp4 as .sglat": renamed(video("a.mp4"), "a.sglat"),
        "mp4 without an index": cut("cut.mp4", 900),
        "mkv": video("a.mkv"),
        "half an mkv": cut("half.mkv", 1100),
        "avi": video("a.avi", codec="mpeg4"),
        "ts": video("a.ts"),
        "sound alone": sound("a.m4a", "aac"),
        "sound as a video": renamed(sound("a.m4a", "aac"), "a.mp4"),
        "sglat as a video": contents("a.mp4", data),
        "sglat as a picture": contents("a.png", data),
        "sglat as a table": contents("a.csv", data),
        "zip": contents("a.zip", zipped()),
        "gzip": contents("a.sglat.gz", gzip.compress(data)),
        "tar": contents("a.tar", tarred()),
        "pdf": contents("a.pdf", b"%PDF-1.7\n" + noise),
        "program": contents("a.exe", b"\x7fELF" + noise),
        "pickle": contents("a.pt", pickle.dumps({"a": 1})),
        "no torch file": contents("noise.pt", noise),
        "no safetensors": contents("a.safetensors", b"\xff" * 64),
        "folder": folder_named("folder"),
        "folder as a video": folder_named("folder.mp4"),
        "folder as .sglat": folder_named("folder.sglat"),
        "missing": lambda folder: folder / "none.sglat",
        "missing video": lambda folder: folder / "none.mp4",
        "missing folder": lambda folder: folder / "no" / "none.sglat",
        "below a file": lambda folder: contents("a.sglat", data)(folder) / "b.sglat",  # type: ignore[operator]
        "link": link("real.sglat", data=data),
        "link to nothing": link("nothing"),
        "link to itself": link("link.sglat"),
        "zero device": special("/dev/zero"),
        "null device": special("/dev/null"),
        "full device": special("/dev/full"),
        "unreadable bytes": special("/proc/self/mem"),
        "socket": socket_file,
        "newline in its name": hostile(b"a\nb.sglat", data[:50]),
        "escape codes in its name": hostile(b"\x1b[31mred\x07.sglat", data[:50]),
        "quotes in its name": hostile(b"it's \"$(a)\" %s {0}.sglat", data[:50]),
        "accents in its name": hostile("Ünï😀.mp4".encode(), b"text"),
        "no text in its name": hostile(b"\xff\xfe\x80.sglat", data[:50]),
        "no text in its name, video": hostile(b"\xff\xfe\x80.mp4", b"text"),
        "long name": hostile(b"n" * 249 + b".sglat", data[:50]),
        "too long a name": hostile(b"n" * 300 + b".sglat", data[:50]),
    }  # fmt: skip


COMMANDS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "encode": lambda at, path: ("encode", path, at / "new.sglat", "--tuning", "none"),
    "encode --list-faces": lambda at, path: ("encode", path, at / "new.png", "--list-faces"),
    "encode --like": lambda at, path: (
        "encode", at / "in.mp4", at / "new.sglat", "--quiet", "--like", path,
    ),
    "encode --bundle": lambda at, path: (
        "encode", at / "in.mp4", at / "new.sglat", "--quiet", "--bundle", path,
    ),
    "enrol": lambda at, path: ("enrol", path, at / "new.sglat", "--quiet"),
    "enrol two": lambda at, path: ("enrol", at / "in.mp4", path, at / "new.sglat", "--quiet"),
    "decode": lambda at, path: ("decode", path, at / "new.mp4", "--bundle", at / "mini"),
    "decode --png": lambda at, path: (
        "decode", path, at / "new", "--png", "--bundle", at / "mini",
    ),
    "decode --onto": lambda at, path: (
        "decode", at / "in.sglat", at / "new.mp4", "--onto", path, "--bundle", at / "mini",
    ),
    "decode --track": lambda at, path: (
        "decode", at / "in.sglat", at / "new.mp4", "--onto", at / "in.png", "--track", path,
        "--bundle", at / "mini",
    ),
    "decode --audio": lambda at, path: (
        "decode", at / "in.sglat", at / "new.mp4", "--audio", path, "--bundle", at / "mini",
    ),
    "decode --identity-file": lambda at, path: (
        "decode", at / "motion.sglat", at / "new.mp4", "--identity-file", path,
        "--bundle", at / "mini",
    ),
    "decode --bundle": lambda at, path: (
        "decode", at / "in.sglat", at / "new.mp4", "--bundle", path,
    ),
    "swap --motion": lambda at, path: ("swap", "--motion", path, at / "new.sglat"),
    "swap --motion twice": lambda at, path: (
        "swap", "--motion", at / "in.sglat", "--motion", path, at / "new.sglat",
    ),
    "swap --trim": lambda at, path: (
        "swap", "--motion", path, "--trim", "0:0.1", at / "new.sglat",
    ),
    "swap --identity": lambda at, path: (
        "swap", "--motion", at / "in.sglat", "--identity", path, at / "new.sglat",
    ),
    "edit": lambda at, path: ("edit", path, at / "new.sglat", "--set", "yaw=5@0f"),
    "edit --mix": lambda at, path: (
        "edit", at / "in.sglat", at / "new.sglat", "--mix", f"eyes:{path}",
    ),
    "info": lambda at, path: ("info", path),
    "info --curves": lambda at, path: ("info", path, "--curves"),
    "info --verify": lambda at, path: ("info", path, "--verify"),
    "info --salvage": lambda at, path: ("info", path, "--salvage", at / "new.sglat"),
    "info --export": lambda at, path: ("info", path, "--export", at / "new.csv"),
    "live --key": lambda at, path: (
        "live", "receive", at / "new.mp4", "--listen", "127.0.0.1:1", "--key", path,
    ),
    "bench": lambda at, path: ("bench", path, "--out", at / "report", "--no-speed"),
    "bundles import": lambda at, path: ("bundles", "import", path, "--name", "mine"),
    "bundles import published": lambda at, path: ("bundles", "import", path, "--accept-licence"),
    "bundles list": lambda at, path: ("bundles", "list", path.name),
    "bundles fetch": lambda at, path: (
        "bundles", "fetch", path.name, "--accept-licence", "--offline",
    ),
    "bundles verify": lambda at, path: ("bundles", "verify", path),
    "bundles keep": lambda at, path: ("bundles", "keep", path),
    "bundles path": lambda at, path: ("bundles", "path", path),
    "bundles remove": lambda at, path: ("bundles", "remove", path.name, "--yes"),
    "bundles discover": lambda at, path: ("bundles", "discover", path, "--write"),
}  # fmt: skip
OUTPUTS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "edit": lambda at, path: ("edit", at / "in.sglat", path, "--set", "yaw=5", "--force"),
    "decode": lambda at, path: ("decode", at / "in.sglat", path, "--bundle", at / "mini"),
    "swap": lambda at, path: ("swap", "--motion", at / "in.sglat", path, "--force"),
    "swap --identity-file": lambda at, path: (
        "swap", "--motion", at / "in.sglat", at / "new.sglat", "--identity-file", path, "--force",
    ),
    "info --salvage": lambda at, path: ("info", at / "in.sglat", "--salvage", path, "--force"),
    "info --export": lambda at, path: ("info", at / "in.sglat", "--export", path, "--force"),
}  # fmt: skip
QUICK = 4  # frames


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path / "home"))
    load = cache(bundles.load_bundle)
    for module in ("sglat.encoder.analysis", "sglat.bundles.bundle"):  # loaded once, to be quick
        monkeypatch.setattr(f"{module}.load_bundle", load, raising=False)
    at = tmp_path / "at"
    at.mkdir()
    (at / "mini").symlink_to(bundle.folder)
    (at / "in.png").write_bytes(encode_png(moving_square(0)))
    write_video(at / "in.mp4", [moving_square(i) for i in range(3)])
    write_file(at / "in.sglat", bundle, frames=QUICK)
    assert status_of("swap", "--motion", at / "in.sglat", at / "motion.sglat",
                     "--identity-file", at / "look.sglat") == 0  # fmt: skip
    yield at


def fault_of(at: Path, command: str, path: Path, capture: pytest.CaptureFixture[str]) -> str | None:
    """Run a command on a file; return what is wrong with how it ends, None if nothing."""
    before = sorted(at.iterdir())
    capture.readouterr()
    module = "sglat_lab.bench.cli" if command == "bench" else None
    status = status_of(*COMMANDS[command](at, path), module=module)
    shown = capture.readouterr()
    lines = shown.err.splitlines()
    made = [found for found in at.iterdir() if found not in before]
    hidden = [found.name for found in made if found.name.startswith(".")]
    for found in made:
        shutil.rmtree(found) if found.is_dir() else found.unlink()
    if hidden:
        return f"left {hidden}"
    if "Traceback" in shown.err or "Errno" in shown.err or ".partial" in shown.err:
        return shown.err
    if status == 0:
        return None if made or shown.out or command == "bundles import" else "nothing was made"
    if status not in (1, 2) or not lines or not lines[-1].startswith("error: "):
        return f"status {status}: {shown.err}"
    if command != "info" and len(lines) > 1 and not command.startswith(("encode", "decode")):
        return f"{len(lines)} lines: {shown.err}"
    name = path.name.encode("unicode_escape", "surrogatepass").decode()[:20]
    plain = path.name[:20]
    if name not in lines[-1].replace("\\\\", "\\") and plain not in lines[-1].replace("\\'", "'"):
        return f"its name is missing: {lines[-1]}"
    return None


@pytest.mark.parametrize("command", COMMANDS)
def test_any_file_gives_one_clear_line_or_a_result(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    def judge(path: Path) -> str | None:
        return fault_of(folder, command, path, capsys)

    assert faults_of(folder, tmp_path, judge) == {}


@pytest.mark.parametrize("command", OUTPUTS)
def test_any_file_as_output_is_written_whole_or_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    def judge(path: Path) -> str | None:
        before = state_of(path)
        status = status_of(*OUTPUTS[command](folder, path))
        error = capsys.readouterr().err
        if status == 0:
            return None if path.is_file() and path.stat().st_size else "nothing was written"
        if state_of(path) != before:
            return f"it was changed: {error}"
        lines = error.splitlines()
        if len(lines) != 1 or not lines[0].startswith("error: ") or "Errno" in error:
            return f"status {status}: {error}"
        return None

    assert faults_of(folder, tmp_path, judge) == {}


def state_of(path: Path) -> object:
    """Return what a file is, to see whether it was changed."""
    try:
        found = path.lstat()
    except OSError as error:
        return error.errno
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns


def faults_of(folder: Path, room: Path, judge: Callable[[Path], str | None]) -> dict[str, str]:
    """Make every kind of file in a room of its own; return what is wrong by kind.

    Args:
        folder: holds a whole `.sglat` file.
        room: where the rooms are made.
        judge: returns what is wrong with a file, None if nothing.
    """
    makers, faults = files((folder / "in.sglat").read_bytes()), {}
    assert len(makers) > 60
    for number, (kind, make) in enumerate(makers.items()):
        (room / str(number)).mkdir()
        path = make(room / str(number))
        if path is None:
            continue
        try:
            fault = judge(path)
        except BaseException as error:  # what would be a traceback
            fault = f"{type(error).__name__}: {error}"
        if fault is not None:
            faults[kind] = fault
    return faults
