"""Every output of every command that shows generated pictures is marked, in each place it has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.api import decode
from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.cli.live import open_screens
from sglat.decoder.decode import DecodeConfig
from sglat.errors import SglatError
from sglat.live.look import read_look
from sglat.live.outputs import Outputs
from sglat.live.screens import PipeScreen
from sglat.marks import keys
from sglat.marks.check import Report, check
from sglat.marks.detect import detect
from sglat.marks.marking import MarkChoice, watermark_id
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.support.commands import run_here
from tests.support.files import write_file

pytest.importorskip("c2pa", reason="C2PA needs the extra c2pa")
Capture = pytest.CaptureFixture[bytes]
Pictures = list[NDArray[np.uint8]]
FRAMES, SIDE = 100, 128
SIGNED = (".mp4", ".mov", ".m4v", ".avi", ".gif", ".apng", ".png")
FINE: dict[str, tuple[object, ...]] = {".avi": ("--encoder", "ffv1")} | dict.fromkeys(
    (".mp4", ".mkv", ".webm", ".ts"), ("--crf", 18)
)
UNMARKED = ("--no-watermark", "--i-will-mark-it-myself")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    path = tmp_path_factory.mktemp("source") / "in.sglat"
    return write_file(path, bundle, frames=FRAMES, most_motion=0, consent="I agree")


@pytest.fixture(scope="module")
def identifier(source: Path) -> bytes:
    with open_reader(source) as reader:
        assert reader.identity_sha256 is not None
        return watermark_id(reader.identity_sha256, reader.provenance)


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> keys.Signer:
    monkeypatch.setenv("SGLAT_CONFIG", str(tmp_path / "config"))
    return keys.make_signer("Jo", folder=tmp_path / "config")


def written(capture: Capture, bundle: Bundle, *arguments: object) -> bytes:
    """Run `sgl-decode`; return its standard output."""
    common = "--bundle", bundle.folder, "--device", "cpu", "--size", SIDE, "--quiet", "--force"
    done = run_here(capture, "decode", *arguments, *common)
    assert done.returncode == 0, done.stderr
    return done.stdout


def raw_pictures(data: bytes) -> Pictures:
    return list(np.frombuffer(data, np.uint8).reshape(-1, SIDE, SIDE, 3))


def pictures_of(path: Path) -> Pictures:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [frame.picture for file in files for frame in VideoReader(file)]


def said(report: Report, kind: str) -> dict[str, str]:
    """Return what the tags and, where there is a place, the signature of a file say."""
    tags = report.tags
    assert tags.is_synthetic and tags.consent == "I agree"
    assert (report.manifest.state != "none") == (kind in SIGNED)
    assert report.verdict == "holds"
    if kind in SIGNED:
        assert report.manifest.facts["watermark"] == tags.watermark
        assert report.manifest.facts.get("label", "") == tags.label
    return {"watermark": tags.watermark, "label": tags.label}


@pytest.mark.parametrize("kind", [".mp4", ".mkv", ".webm", ".avi", ".ts", ".png", "-"])
def test_a_decoded_output_is_marked(
    capfdbinary: Capture, tmp_path: Path, bundle: Bundle, source: Path, identifier: bytes, kind: str
) -> None:
    options = FINE.get(kind, ())
    if kind == "-":
        shown = raw_pictures(written(capfdbinary, bundle, source, "-", *options))
    else:
        path = tmp_path / ("frames" if kind == ".png" else f"out{kind}")
        more = ("--png",) if kind == ".png" else options
        written(capfdbinary, bundle, source, path, *more)
        shown = pictures_of(path)
        report = check(path / "00007.png" if kind == ".png" else path)
        assert said(report, kind)["watermark"] == identifier.hex()
    assert len(shown) == FRAMES
    assert detect(shown).id == identifier


@pytest.mark.parametrize("kind", [".mkv", ".gif", ".png", "-"])
def test_marks_left_out_are_recorded(
    capfdbinary: Capture, tmp_path: Path, bundle: Bundle, source: Path, kind: str
) -> None:
    options = (*UNMARKED, "--end", "0.2")
    plain = [f.picture for f in decode(source, bundle=bundle, config=DecodeConfig(size=SIDE))][:5]
    if kind == "-":
        shown = raw_pictures(written(capfdbinary, bundle, source, "-", *options))
    else:
        path = tmp_path / ("frames" if kind == ".png" else f"out{kind}")
        written(capfdbinary, bundle, source, path, *options, *["--png"] * (kind == ".png"))
        shown = pictures_of(path)
        report = check(path / "00003.png" if kind == ".png" else path)
        assert said(report, kind)["watermark"].startswith("left out")
    if kind in (".png", "-"):
        assert np.array_equal(shown, plain)


@pytest.mark.parametrize("kind", [".mp4", ".apng", "-"])
def test_a_label_is_drawn_and_recorded(
    capfdbinary: Capture, tmp_path: Path, bundle: Bundle, source: Path, kind: str
) -> None:
    options = ("--label-text", "Made by AI", "--end", "0.2")
    if kind == "-":
        shown = raw_pictures(written(capfdbinary, bundle, source, "-", *options))
    else:
        path = tmp_path / ("frames" if kind == ".png" else f"out{kind}")
        written(capfdbinary, bundle, source, path, *options, *["--png"] * (kind == ".png"))
        shown = pictures_of(path)
        report = check(path / "00003.png" if kind == ".png" else path)
        assert said(report, kind)["label"] == "Made by AI"
    corner = shown[0][-14:-4, 4:50].astype(int)
    assert (corner > 200).any() and (corner < 90).any()


class FakeWindow(SimpleNamespace):
    """Takes the place of OpenCV."""

    WINDOW_NORMAL, error = 0, RuntimeError


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> dict[str, Pictures]:
    """Put a window and a virtual camera in place that keep what they are shown."""
    kept: dict[str, Pictures] = {"window": [], "camera": []}
    window = FakeWindow(
        namedWindow=lambda *_: None, waitKey=lambda _: 0, destroyWindow=lambda _: None,
        imshow=lambda _, picture: kept["window"].append(picture[:, :, ::-1].copy()),
    )  # fmt: skip
    camera = SimpleNamespace(
        send=lambda picture: kept["camera"].append(picture.copy()), close=lambda: None
    )
    monkeypatch.setitem(sys.modules, "cv2", window)
    fake = SimpleNamespace(Camera=lambda *_: camera)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", fake)
    return kept


@pytest.fixture(scope="module")
def painted(bundle: Bundle, source: Path) -> Pictures:
    return [f.picture for f in decode(source, bundle=bundle, config=DecodeConfig(size=SIDE))]


@pytest.fixture
def call(
    tmp_path: Path, source: Path, painted: Pictures, devices: dict[str, Pictures],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., dict[str, Pictures]]]:  # fmt: skip
    """Yield what shows a call on all outputs at once, and returns what each of them got."""
    sent: list[bytes] = []
    pipe = SimpleNamespace(write=lambda data: sent.append(bytes(data)), flush=lambda: None)

    def show(name: str, choice: MarkChoice, count: int = FRAMES) -> dict[str, Pictures]:
        def screens(look: Any, has_sound: bool) -> list[Any]:
            made = open_screens(
                look, str(tmp_path / name), has_sound=False, force=True, has_window=True,
                has_camera=True, marks=choice,
            )  # fmt: skip
            return [*made, PipeScreen(pipe)]

        outputs = Outputs(screens, record=tmp_path / "call.sglat", force=True, marks=choice)
        outputs.open(read_look(source), has_sound=False)
        for index, picture in enumerate(painted[:count]):
            outputs.show(picture, index * 3600)
        outputs.close()
        raw = raw_pictures(b"".join(sent))
        return devices | {"raw": raw, "file": pictures_of(tmp_path / name)}

    yield show


def test_every_output_of_a_call_is_marked(
    call: Callable[..., dict[str, Pictures]], tmp_path: Path, identifier: bytes, key: keys.Signer
) -> None:
    shown = call("out.mp4", MarkChoice(signer=key))
    assert {name: detect(pictures).id for name, pictures in shown.items()} == dict.fromkeys(
        ("window", "camera", "raw", "file"), identifier
    )
    report = check(tmp_path / "out.mp4")
    assert said(report, ".mp4")["watermark"] == identifier.hex()
    recorded = check(tmp_path / "call.sglat")
    assert recorded.provenance is not None
    assert (recorded.verdict, recorded.provenance.is_covered) == ("holds", True)
    assert recorded.named_watermark == identifier.hex()


@pytest.mark.parametrize("name", ["out.mkv", "out.gif"])
def test_marks_of_a_call_left_out_are_recorded(
    call: Callable[..., dict[str, Pictures]], tmp_path: Path, painted: Pictures, name: str,
    key: keys.Signer,
) -> None:  # fmt: skip
    shown = call(name, MarkChoice(has_watermark=False, label="Made by AI", signer=key), 5)
    report = check(tmp_path / name)
    assert said(report, Path(name).suffix)["watermark"].startswith("left out")
    assert report.tags.label == "Made by AI"
    for kind in ("window", "camera", "raw"):
        assert np.array_equal(shown[kind][0][:64], painted[0][:64])
        assert not np.array_equal(shown[kind][0][64:], painted[0][64:])


def test_a_call_that_cannot_be_signed_is_kept_unsigned(
    call: Callable[..., dict[str, Pictures]], tmp_path: Path, key: keys.Signer
) -> None:
    broken = replace(key, certificates_pem=b"rubbish")
    with pytest.raises(SglatError, match=r"unsigned: \S*out\.mp4 is complete, but unsigned"):
        call("out.mp4", MarkChoice(signer=broken), 5)
    report = check(tmp_path / "out.mp4")
    assert (report.verdict, report.is_signed, report.tags.is_synthetic) == ("holds", False, True)
    assert check(tmp_path / "call.sglat").verdict == "holds"
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["call.sglat", "out.mp4"]
