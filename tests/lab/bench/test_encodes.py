"""Encodings of a benchmark: planned from timed ones, kept, and swept only while there is time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sglat.bundles.bundle import Bundle
from sglat.errors import FaceError
from sglat_lab.bench import encodes
from sglat_lab.bench.encodes import IDENTITY_BYTES, EncodeJob, Encodes
from sglat_lab.bench.harness import BenchConfig, Budget, Clock
from tests.bundles.tiny import make_tiny_bundle
from tests.support.video import moving_square, write_video


class Encoder:
    """Stands for the encoder: notes its jobs, writes their records, may fail on a clip."""

    def __init__(self, seconds: float, *, fails_on: str = "") -> None:
        self.seconds, self.fails_on = seconds, fails_on
        self.jobs: list[EncodeJob] = []

    def __call__(self, jobs: Sequence[EncodeJob], workers: int) -> list[dict[str, Any] | Exception]:
        return [self._run(job) for job in jobs]

    def _run(self, job: EncodeJob) -> dict[str, Any] | Exception:
        if job.video.stem == self.fails_on:
            return FaceError("no-face", "none")
        if job.record.exists():
            return json.loads(job.record.read_text())
        self.jobs.append(job)
        stages = {"track": self.seconds, "tune": self.seconds, "jacobian": self.seconds}
        record = {
            "stage_seconds": stages, "frames": 12, "wall_seconds": 3 * self.seconds,
            "peak_memory_megabytes": 100.0,
        }  # fmt: skip
        job.target.write_bytes(b"")
        job.record.write_text(json.dumps(record))
        return record


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    (tmp_path / "clips").mkdir()
    return [
        write_video(tmp_path / "clips" / f"{name}.mp4", [moving_square(i) for i in range(40)])
        for name in ("one", "two", "three")
    ]


def made(tmp_path: Path, bundle: Bundle, *, minutes: float = 10.0) -> Encodes:
    options = BenchConfig(clips=tmp_path / "clips", out=tmp_path / "out")
    clock = Clock(lambda line: None, minutes)
    return Encodes(options, bundle, clock, Budget(minutes=minutes, least_frames=20), 2)


def test_the_first_encodings_are_short_and_the_plan_follows_from_them(
    tmp_path: Path, bundle: Bundle, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(1.0)
    monkeypatch.setattr(encodes, "run_jobs", encoder)
    files = made(tmp_path, bundle).run(videos)
    assert [job.tune_steps for job in encoder.jobs] == [6, 6, None, None, None]
    assert [file.video.stem for file in files] == ["one", "two", "three"]


def test_a_slow_machine_leaves_clips_out_and_says_so(
    tmp_path: Path, bundle: Bundle, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodes, "run_jobs", Encoder(100.0))
    one = made(tmp_path, bundle)
    assert len(one.run(videos)) == 2
    assert one.skipped == {"three.mp4": "left out: no time was left to encode it"}


def test_a_second_run_keeps_the_plan_and_encodes_nothing(
    tmp_path: Path, bundle: Bundle, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodes, "run_jobs", Encoder(1.0))
    first = made(tmp_path, bundle)
    files = first.run(videos)
    again = Encoder(50.0)
    monkeypatch.setattr(encodes, "run_jobs", again)
    second = made(tmp_path, bundle)
    assert second.run(videos) == files
    assert (second.plan, again.jobs) == (first.plan, [])


def test_a_clip_that_fails_is_left_out_and_the_others_are_not(
    tmp_path: Path, bundle: Bundle, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodes, "run_jobs", Encoder(1.0, fails_on="two"))
    one = made(tmp_path, bundle)
    assert [file.video.stem for file in one.run(videos)] == ["one", "three"]
    assert one.skipped == {"two.mp4": "no-face: none"}


def test_identity_sizes_are_swept_clip_by_clip_while_there_is_time(
    tmp_path: Path, bundle: Bundle, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(1.0)
    monkeypatch.setattr(encodes, "run_jobs", encoder)
    one = made(tmp_path, bundle)
    files = one.run(videos)
    done = len(encoder.jobs)
    swept = one.sweep(files, 10.0)
    assert [size for size, _ in swept[0].others] == list(IDENTITY_BYTES)
    assert encoder.jobs[done].shares == files[0].work
    assert one.skipped == {}


def test_without_time_nothing_is_swept_and_it_is_said(
    tmp_path: Path, bundle: Bundle, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodes, "run_jobs", Encoder(1.0))
    one = made(tmp_path, bundle)
    files = one.run(videos)
    one.clock.began -= 9 * 60
    assert not any(file.others for file in one.sweep(files, 10.0))
    assert "sweep of --identity-bytes" in one.skipped
