"""`sgl-enrol`, and `sgl-encode --identity` against what it made, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.encoder import analysis as analysis_module
from sglat.encoder import enrol as enrol_module
from sglat.media.pictures import encode_png
from tests.encoder.test_encode import draw_clip
from tests.encoder.test_stages import tiny
from tests.support.commands import status_of
from tests.support.video import write_video

QUICK = ("--tune-steps", 3, "--identity-bytes", 6_000, "--threads", 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny(Path(tmp_path_factory.mktemp("bundle")) / "tiny")


@pytest.fixture
def at(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
    draw_clip(tmp_path / "in.mp4", 6, audio=None)
    return tmp_path


def test_a_person_is_enrolled_and_encoded(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("enrol", at / "in.mp4", at / "me.sglat", *QUICK, "--json") == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out)
    assert (record["frames"], record["resolution"]) == (6, 16)
    assert record["bytes"] == (at / "me.sglat").stat().st_size
    assert "6 frames take about 0:0" in shown.err and "tune 1/3, " in shown.err
    assert status_of("encode", at / "in.mp4", at / "out.sglat", "--identity", at / "me.sglat") == 0
    assert status_of("info", at / "out.sglat") == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("identity")]
    with open_reader(at / "me.sglat") as reader:
        assert reader.identity_sha256 is not None
        assert line.endswith(f"in another file, {reader.identity_sha256.hex()[:16]} me.sglat")
    assert status_of("info", at / "me.sglat") == 0
    assert "enrolled   from 6 frames of 1 inputs" in capsys.readouterr().out.splitlines()


def test_files_that_refer_are_edited_like_others(at: Path) -> None:
    status_of("enrol", at / "in.mp4", at / "me.sglat", *QUICK, "--quiet")
    encode = ("encode", at / "in.mp4", at / "out.sglat", "--quiet", "--no-self-check")
    assert status_of(*encode, "--identity", at / "me.sglat") == 0
    swap = ("swap", "--motion", at / "out.sglat")
    assert status_of(*swap, "--attach", "--identity", at / "me.sglat", at / "whole.sglat") == 0
    assert status_of(*swap, "--trim", "0:0.12", at / "short.sglat") == 0
    assert status_of(*swap, "--motion", at / "out.sglat", at / "twice.sglat") == 0
    assert status_of(*swap, "--identity", at / "me.sglat", at / "swapped.sglat") == 0
    frames = {}
    for name in ("whole", "short", "twice", "swapped"):
        with open_reader(at / f"{name}.sglat") as reader:
            frames[name] = len(reader.read_motion().values)
            assert (reader.identity is None) == (name in ("short", "twice"))
    assert frames == {"whole": 6, "short": 3, "twice": 12, "swapped": 6}


def wall(at: Path) -> Path:
    return write_video(at / "wall.mp4", [np.full((96, 128, 3), 60, np.uint8)] * 3)


def not_video(at: Path) -> Path:
    (at / "note.txt").write_text("a note")
    return at / "note.txt"


BAD: dict[str, tuple[Callable[[Path], tuple[object, ...]], str]] = {
    "no face in one": (lambda at: (at / "in.mp4", wall(at), at / "me.sglat"), "wall.mp4 shows no"),
    "no face at all": (lambda at: (wall(at), at / "me.sglat"), "no-face"),
    "no video": (lambda at: (at / "in.mp4", not_video(at), at / "me.sglat"), "note.txt"),
    "a folder": (lambda at: (at, at / "me.sglat"), "it is a folder"),
    "missing": (lambda at: (at / "no.mp4", at / "me.sglat"), "no.mp4: there is no such file"),
    "output is an input": (lambda at: (at / "in.mp4", at / "in.mp4", "--force"), "would replace"),
    "output is a video": (lambda at: (at / "in.mp4", at / "me.mp4"), "file name such as me.sglat"),
    "two ways to choose": (
        lambda at: (at / "in.mp4", at / "me.sglat", "--face", 2, "--like", at / "in.mp4"),
        "--face and --like contradict",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gives_one_line(at: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    make, message = BAD[kind]
    assert status_of("enrol", *make(at), *QUICK, "--quiet") in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not (at / "me.sglat").exists()


def test_an_output_alone_is_wrong_usage(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("enrol", at / "me.sglat") == 2
    assert "expected one input or more" in capsys.readouterr().err


def test_one_picture_says_what_is_guessed(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.support.faces import draw_face

    face = draw_face(np.full((96, 128, 3), 60, np.uint8), 60, 48, 72)
    (at / "me.png").write_bytes(encode_png(face))
    assert status_of("enrol", at / "me.png", at / "me.sglat", *QUICK) == 0
    assert enrol_module.FEW_FRAMES in capsys.readouterr().err


CHOICES = (
    ("--embed", "--embed needs --identity FILE"),
    ("--adapt", "--adapt needs --identity FILE"),
    ("--identity IN --tune-steps 9", "--tune-steps and --identity contradict"),
    ("--identity IN --tuning none", "--tuning and --identity contradict"),
    ("--identity IN --identity-bytes 9000", "--identity-bytes and --identity contradict"),
    ("--identity IN --resolution 16 --adapt", "--resolution and --identity contradict"),
    ("--identity no.sglat", "no.sglat"),
    ("--identity IN", "in.mp4"),
)


@pytest.mark.parametrize(("options", "message"), CHOICES)
def test_contradictions_are_refused_in_one_line(
    at: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    words = [at / "in.mp4" if word == "IN" else word for word in options.split()]
    clip = draw_clip(at / "clip.mp4", 3, audio=None)
    assert status_of("encode", clip, at / "out.sglat", "--quiet", *words) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not (at / "out.sglat").exists()
