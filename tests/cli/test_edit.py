"""`sgl-edit` as people use it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

import sglat
from sglat.bitstream.reader import open_reader
from sglat.cli import edit as module
from tests.bitstream.samples import sample_file


@pytest.fixture
def one(tmp_path: Path) -> Path:
    path = tmp_path / "one.sglat"
    path.write_bytes(sample_file(seed=1))
    return path


def edit(*arguments: object) -> int:
    """Run the command in this process; return the exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sgl-edit", *map(str, arguments)])
        try:
            module.main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def motion(path: Path) -> np.ndarray:
    with open_reader(path) as reader:
        return reader.read_motion().values


def test_edits_of_several_kinds_act_in_the_order_given(one: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.sglat", tmp_path / "b.sglat"
    assert edit(one, first, "--set", "yaw=4", "--neutral", "--set", "yaw+1") == 0
    assert edit(one, second, "--neutral", "--set", "yaw=4", "--set", "yaw+1") == 0
    assert motion(second)[0, 0] == 20
    assert motion(first)[0, 0] != 20


def test_the_library_does_the_same(one: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.sglat", tmp_path / "b.sglat"
    assert edit(one, first, "--gain", "eyes=1.5", "--freeze", "pose@0s") == 0
    report = sglat.edit(one, second, ["gain eyes=1.5", "freeze pose@0s"])
    assert first.read_bytes() == second.read_bytes()
    assert report.frames == len(motion(one))


def test_standard_input_is_read(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.sglat"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(one.read_bytes())))
        assert edit("-", out, "--set", "yaw=4") == 0
    assert set(motion(out)[:, 0].tolist()) == {16}


def test_what_was_done_and_dropped_is_said(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(one, tmp_path / "a.sglat", "--set", "yaw=40", "--retime", "2")
    said = capsys.readouterr().err
    assert "yaw changed in" in said
    assert "sound: dropped" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "at least one edit"),
        (("--set", "mouht 3=1"), "nearest: mouth 3"),
        (("--set", "yaw=5@900s"), "the clip has"),
        (("--set", "yaw=inf"), "expected a number"),
        (("--gain", "yaw=1kg"), "found '1kg'"),
        (("--mix", "eyes:none.sglat"), "none.sglat"),
        (("--sign", "--set", "yaw=5"), "no-key"),
    ],
)
def test_a_fault_is_one_line_and_nothing_is_written(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("SGLAT_CONFIG", str(tmp_path / "config"))
    assert edit(one, tmp_path / "a.sglat", *arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix) == ["one.sglat"]


def test_the_file_itself_is_not_replaced(one: Path) -> None:
    assert edit(one, one, "--set", "yaw=5", "--force") == 2


def test_an_edited_file_is_signed_again(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from sglat.cli import marks
    from sglat.marks.provenance import read_provenance

    monkeypatch.setenv("SGLAT_CONFIG", str(tmp_path / "config"))
    signed, again, bare = (tmp_path / f"{name}.sglat" for name in "abc")
    with pytest.raises(SystemExit):
        monkeypatch.setattr(sys, "argv", ["sgl-marks", "init", "Jo Doe"])
        marks.main()
    assert edit(one, signed, "--set", "yaw=5") == 0
    assert edit(signed, again, "--set", "pitch=5") == 0
    assert edit(signed, bare, "--set", "pitch=5", "--no-sign") == 0
    for path, state in ((signed, "holds"), (again, "holds"), (bare, "none")):
        with path.open("rb") as file:
            found = read_provenance(file)
        assert found.signature.state == state
        assert found.is_covered == (state == "holds")
    assert "stays as a record of origin" in capsys.readouterr().err
    assert [origin.signature.state for origin in found.origins] == ["holds", "holds"]
