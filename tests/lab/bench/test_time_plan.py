"""What a benchmark has time for."""

from __future__ import annotations

from typing import Any

import pytest

from sglat_lab.bench.harness import (
    LEAST_STEPS,
    MOST_FRAMES,
    START_STEPS,
    Clock,
    Speeds,
    make_plan,
    speeds,
)

COST = Speeds(once=10.0, step=0.5, frame=0.5)


def plan(seconds: float, **options: Any) -> Any:
    known: dict[str, Any] = {"clips": 6, "workers": 2, "default_steps": 260}
    return make_plan(COST, seconds=seconds, **(known | options))


def test_speeds_are_read_off_a_short_encoding() -> None:
    stages = {"track": 2.0, "tune": 8.0, "jacobian": 9.0, "expression": 4.0}
    record = {"stage_seconds": stages, "frames": 12, "wall_seconds": 24.0}
    found = speeds(record, 6)
    assert found == Speeds(once=10.0, step=8 / (6 + START_STEPS), frame=0.5)
    assert found.encoding(12, 6) == pytest.approx(24)


@pytest.mark.parametrize("seconds", [300, 600, 900, 2000])
def test_what_is_planned_fits_into_the_time(seconds: float) -> None:
    found = plan(seconds)
    steps = 260 if found.tune_steps is None else found.tune_steps
    rounds = -(-found.clips // 2)
    assert rounds * COST.encoding(found.frames, steps) <= seconds


def test_with_much_time_tuning_is_whole_and_clips_are_long() -> None:
    found = plan(20_000)
    assert (found.tune_steps, found.frames, found.clips) == (None, MOST_FRAMES, 6)


def test_with_less_time_frames_go_first_and_steps_after_them() -> None:
    some, little = plan(540), plan(300)
    assert some.tune_steps is None
    assert 24 < some.frames < MOST_FRAMES
    assert little.frames == 24
    assert LEAST_STEPS < little.tune_steps < 260


def test_without_time_clips_are_left_out_but_no_worker_is_idle() -> None:
    assert plan(100).clips == 4
    assert plan(1).clips == 2


def test_frames_that_were_asked_for_are_planned() -> None:
    assert plan(540, frames=77).frames == 77
    assert plan(540, frames=10).frames == 10


def test_the_clock_adds_up_its_stages() -> None:
    said: list[str] = []
    clock = Clock(said.append, 1.0)
    for name in ("plan", "encode", "plan"):
        clock.stage(name)
    found = clock.finish()
    assert list(found) == ["plan", "encode"]
    assert said[0] == "[0:00, 0:59 left] plan" or said[0] == "[0:00, 1:00 left] plan"


def test_a_clock_that_ran_out_says_so() -> None:
    said: list[str] = []
    clock = Clock(said.append, -1.0)
    clock.stage("measure", "2 clips")
    assert clock.left < 0
    assert said[0].endswith("1:00 over] measure: 2 clips")
