"""`sgl-info --curves` and `--plot`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sglat.bitstream.channels import CHANNEL_NAMES
from sglat.bitstream.curves import PLAIN_LEVELS
from sglat.cli.info import info, parse
from sglat.errors import UsageError
from tests.bitstream.samples import sample_file, tiny_file


@pytest.fixture(params=["sample", "one frame", "tiny"])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    files = {"sample": sample_file(), "one frame": sample_file(frames=1), "tiny": tiny_file()}
    path = tmp_path / "a$b.sglat"
    path.write_bytes(files[request.param])
    return path


def run(*arguments: object) -> int:
    return info(parse([str(a) for a in arguments]))


def test_curves_show_every_channel(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(clip, "--curves")
    lines = capsys.readouterr().out.splitlines()
    found = {" ".join(line[:11].split()) for line in lines}
    assert found >= {*CHANNEL_NAMES, "mouth", "eyes", "gaze"}
    assert max(map(len, lines)) <= 80


def test_a_plain_terminal_gets_plain_characters(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    run(clip, "--curves")
    out.seek(0)
    assert PLAIN_LEVELS[0] in out.read()


def test_a_plot_as_svg_names_its_parts(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    clip, out = tmp_path / "a$b.sglat", tmp_path / "a.svg"
    clip.write_bytes(sample_file())
    assert run(clip, "--plot", out) == 0
    words = [e.text for e in ElementTree.fromstring(out.read_text()).iter() if e.text]
    assert {"a$b.sglat", "mouth", "gaze", "rate", "kbit/s"} <= set(words)


def test_one_frame_is_plotted_as_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    clip, out = tmp_path / "a.sglat", tmp_path / "a.png"
    clip.write_bytes(sample_file(frames=1))
    assert run(clip, "--plot", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_plot_needs_a_known_ending_and_replaces_nothing(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bad-suffix: expected a name ending in"):
        run(clip, "--plot", tmp_path / "a.pdf")
    old = tmp_path / "a.svg"
    old.write_text("mine")
    with pytest.raises(UsageError, match="output-exists"):
        run(clip, "--plot", old)
    assert old.read_text() == "mine"
