"""`sgl-batch` as a user types it: options, messages, status."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sglat.batch.work import DecodeWork, EncodeWork, Facts, Job, perform
from sglat.bundles.bundle import Bundle
from sglat.cli import batch as command
from tests.bundles.tiny import make_tiny_bundle
from tests.support.commands import status_of
from tests.support.files import write_file


class Here:
    """Does the jobs in this process; `most` stops it as Ctrl-C does."""

    def __init__(self, most: int = 99) -> None:
        self.jobs: list[Job] = []
        self.most = most

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Facts]]:
        for job in jobs:
            if len(self.jobs) == self.most:
                raise KeyboardInterrupt
            self.jobs.append(job)
            yield job, perform(job)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    engine = Here()
    monkeypatch.setattr(command, "_engine", lambda chosen, workers, threads: engine)
    return engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def files(tmp_path: Path, bundle: Bundle) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(3):
        write_file(folder / f"{number}.sglat", bundle, frames=4, seed=number)
    return folder


def decode(files: object, out: Path, bundle: Bundle, *more: object) -> int:
    """Run `sgl-batch decode`."""
    weights = ("--bundle", bundle.folder, "--device", "cpu", "--encoder", "libx264")
    return status_of("batch", "decode", files, "--out-dir", out, *weights, *more)


def test_decoding_a_folder_says_what_was_done(
    tmp_path: Path, files: Path, bundle: Bundle, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decode(files, tmp_path / "out", bundle, "--size", 16, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["files"], summary["made"], summary["failed"]) == (3, 3, 0)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "0.mp4", "1.mp4", "2.mp4", "results.jsonl",
    ]  # fmt: skip
    assert decode(files, tmp_path / "out", bundle, "--size", 16) == 0
    assert "3 of 3 files are done already" in capsys.readouterr().err
    assert len(here.jobs) == 3


def test_options_of_the_single_commands_are_passed_on(
    tmp_path: Path, files: Path, bundle: Bundle, here: Here
) -> None:
    decode(files, tmp_path / "out", bundle, "--crf", 30, "--container", "mkv", "--no-audio")
    work = here.jobs[0].work
    assert isinstance(work, DecodeWork)
    assert (work.output.crf, work.output.has_sound, work.container) == (30, False, ".mkv")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    out = tmp_path / "encoded"
    options = ("--preset", "fast", "--end", "1:30", "--threads", 3, "--no-sign", "-q", 40)
    assert status_of("batch", "encode", *options, tmp_path, "--out-dir", out) == 1
    config = next(job.work for job in here.jobs if isinstance(job.work, EncodeWork)).config
    assert (config.preset, config.end_seconds, config.threads) == ("fast", 90.0, 3)
    assert config.quality == 40


def test_a_damaged_file_among_good_ones_is_one_line_and_status_1(
    tmp_path: Path, files: Path, bundle: Bundle, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (files / "1.sglat").read_bytes()
    (files / "1.sglat").write_bytes(data[: len(data) // 2])
    (files / "3.sglat").mkdir()
    (files / "4.sglat").write_bytes(b"")
    assert decode(files, tmp_path / "out", bundle) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("failed: ") for line in lines) == 2
    assert "2 made" in lines[-1] and "2 failed" in lines[-1]


def test_checking_reads_every_file(
    tmp_path: Path, bundle: Bundle, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("a.sglat\nb.sglat\ngone.sglat\n")
    for name in "ab":
        write_file(tmp_path / f"{name}.sglat", bundle, frames=4)
    data = bytearray((tmp_path / "b.sglat").read_bytes())
    data[-10] ^= 1
    (tmp_path / "b.sglat").write_bytes(bytes(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sglat.batch.work.held_bundle", lambda name, device: bundle)
        arguments = ("check", tmp_path / "list.txt", "--out-dir", tmp_path / "out", "--json")
        assert status_of("batch", *arguments) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["made"] == 1
    assert f"failed: input-missing: {tmp_path / 'gone.sglat'}" in shown.err


WRONG: dict[str, tuple[tuple[Any, ...], str]] = {
    "shard": (("--shard", "5/4"), "bad-shard"),
    "address": (("--address", "10.0.0.1:6379"), "--address needs --engine ray"),
    "contradiction": (("--crf", 20, "--quality", 50), "contradict"),
    "container": (("--container", ".xyz"), "output-container"),
    "word": (("--no-watermark",), "--i-will-mark-it-myself"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_one_line_before_anything_is_done(
    tmp_path: Path, files: Path, bundle: Bundle, here: Here, name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options, words = WRONG[name]
    (tmp_path / "out").mkdir()
    assert decode(files, tmp_path / "out", bundle, *options) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert here.jobs == [] and list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("content", [None, "input\n", "path\na.sglat\n"])
def test_a_list_without_files_is_one_line(
    tmp_path: Path, bundle: Bundle, here: Here, content: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "list.csv"
    if content is None:
        path = tmp_path / "empty"
        path.mkdir()
    else:
        path.write_text(content)
    assert decode(path, tmp_path / "out", bundle) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_says_how_far_it_came_and_the_command_goes_on(
    tmp_path: Path, files: Path, bundle: Bundle, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    here.most = 1
    assert decode(files, tmp_path / "out", bundle) == 130
    assert "stopped; 1 of 3 files" in capsys.readouterr().err
    here.most = 99
    assert decode(files, tmp_path / "out", bundle) == 0
    assert [job.output for job in here.jobs] == ["0.mp4", "1.mp4", "2.mp4"]
