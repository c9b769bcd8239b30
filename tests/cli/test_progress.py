"""Progress on stderr: bars on a screen, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from sglat.cli.common import StageBar, describe_progress
from sglat.cli.estimate import TotalBar, expected_seconds
from sglat.encoder.config import EncodeConfig
from sglat.version import __version__

CODEC = Path(__file__).resolve().parents[2] / "codec"
HIDDEN_CURSOR, SHOWN_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


def on_a_screen(script: str) -> tuple[int, bytes]:
    """Run a script whose stderr is a terminal; return its status and what it showed."""
    screen, stderr = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(CODEC), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", script], stderr=stderr, env=environment)
    os.close(stderr)
    shown = b""
    try:
        while piece := os.read(screen, 1 << 12):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(screen)
    return process.wait(), shown


def test_progress_shows_rate_and_time_left() -> None:
    line = describe_progress("track", 120, 480, recent=100, elapsed_seconds=10.0)
    assert line == "track 120/480 10.0/s 0:00:36 left"


def test_progress_without_a_total_counts() -> None:
    assert describe_progress("tune", 7, 0, recent=7, elapsed_seconds=2.0) == "tune 7 3.5/s"


def test_a_log_file_gets_first_and_last_line_of_a_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    bar = StageBar()
    for stage in ("track", "tune"):
        for done in range(11):
            bar(stage, done, 10)
    lines = [line.split()[:2] for line in log.getvalue().splitlines()]
    assert lines == [["track", "0/10"], ["track", "10/10"], ["tune", "0/10"], ["tune", "10/10"]]


def test_a_quiet_bar_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    StageBar(is_quiet=True)("track", 1, 2)
    assert capsys.readouterr().err == ""


def seconds_of(frames: int = 57, **choices: object) -> dict[str, float]:
    return expected_seconds(frames, EncodeConfig(**choices))  # type: ignore[arg-type]


def test_an_encoding_is_estimated_from_frames_and_steps() -> None:
    short, long = seconds_of(57), seconds_of(570)
    assert sum(long.values()) < 3 * sum(short.values())
    bare = seconds_of(tuning="none", self_check=False)
    assert {"tune", "detail", "check"} & set(bare) == set()
    few = seconds_of(tune_steps=100)
    assert few["detail"] == pytest.approx(short["detail"] / 10)
    paper = seconds_of(solver="paper")
    assert "sweep" not in paper and paper["pose"] > 0
    assert {"pose", "refine"} & set(short) == {"refine"}


def test_a_known_person_is_estimated_without_tuning() -> None:
    known = seconds_of(identity=Path("me.sglat"))
    assert {"invert", "refine", "tune", "detail"} & set(known) == set()
    refined = seconds_of(identity=Path("me.sglat"), adapt=True)
    assert sum(known.values()) < sum(refined.values()) < sum(seconds_of().values())
    live = seconds_of(identity=Path("me.sglat"), preset="live")
    assert "expression" not in live and "check" not in live


def test_presets_are_estimated_in_their_order() -> None:
    totals = [sum(seconds_of(preset=name).values()) for name in ("live", "fast", "default", "best")]
    assert totals == sorted(totals)
    enrolled = expected_seconds(57, EncodeConfig(), is_enrolled=True)
    assert set(enrolled) == {"track", "align", "invert", "refine", "tune", "detail"}


def test_one_bar_counts_all_stages_and_corrects_the_time_left() -> None:
    bar = TotalBar({"track": 10.0, "tune": 30.0})
    bar._note("track", 0.5, is_new=True)
    bar._note("track", 1.0, is_new=False)
    assert bar.share == 0.25
    bar = TotalBar({"track": 10.0, "tune": 30.0})
    bar._note("track", 0.0, is_new=True)
    bar._note("track", 1.0, is_new=False)
    assert bar.seconds_left(20.0) == 60.0  # half as fast as expected


def test_work_of_an_earlier_run_does_not_count_for_the_speed() -> None:
    bar = TotalBar({"track": 10.0, "align": 10.0, "tune": 20.0})
    bar._note("tune", 0.25, is_new=True)  # continued
    bar._note("tune", 0.5, is_new=False)
    assert bar.share == 0.75
    assert bar.seconds_left(10.0) == 20.0


def test_a_log_file_gets_stage_share_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    bar = TotalBar({"track": 10.0, "tune": 30.0})
    for stage in ("track", "tune"):
        for done in range(11):
            bar(stage, done, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "track 0/10, 0% of all, 0:00:40 left",
        "tune 0/10, 25% of all, 0:00:00 left",
        "tune 10/10, 100% of all, 0:00:00 left",
    ]


def test_a_screen_gets_one_bar() -> None:
    script = """
from sglat.cli.estimate import TotalBar
bar = TotalBar({"track": 10.0, "tune": 30.0})
for stage in ("track", "tune"):
    for done in range(11):
        bar(stage, done, 10)
bar.close()
"""
    status, shown = on_a_screen(script)
    assert status == 0, shown
    assert b"100%" in shown and b"tune 10/10" in shown and b"left" in shown
    assert shown.count(b"\n") == 1


ENDS: dict[str, tuple[str, int]] = {
    "done": ("pass", 0),
    "our error": ("raise SglatError('bad', 'no')", 1),
    "wrong usage": ("raise UsageError('bad', 'no')", 2),
    "Ctrl-C": ("raise KeyboardInterrupt", 130),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_terminal_has_its_cursor_back_however_a_command_ends(end: str) -> None:
    action, status = ENDS[end]
    script = f"""
from sglat.cli.common import run
from sglat.cli.common import StageBar
from sglat.errors import SglatError, UsageError
def app():
    StageBar()("track", 3, 10)
    {action}
run(app)
"""
    found, shown = on_a_screen(script)
    assert found == status, shown
    assert b"track" in shown and b"3/10" in shown
    assert HIDDEN_CURSOR in shown
    assert shown.rfind(SHOWN_CURSOR) > shown.rfind(HIDDEN_CURSOR)


@pytest.mark.parametrize(
    "command", ["bundles", "decode", "demo", "encode", "enrol", "info", "swap"]
)
def test_every_command_tells_its_version(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(f"sglat.cli.{command}")
    monkeypatch.setattr(sys, "argv", [f"sgl-{command}", "--version"])
    with pytest.raises(SystemExit) as caught:
        module.main()
    assert caught.value.code in (None, 0)
    assert capsys.readouterr().out == f"sgl-{command} {__version__}\n"
