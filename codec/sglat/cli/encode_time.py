"""How long an encoding takes: an estimate before it starts, and one bar over all its stages."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sglat.cli.common import SECONDS_BETWEEN_LINES, StageBar, open_bar

if TYPE_CHECKING:
    from sglat.encoder.encode import EncodeConfig

# One thread of the machine of benchmarks/results/RESULTS.md, section "Encoding: seconds a frame by
# stage"; the bar corrects them by the time that has passed.
FRAME_SECONDS: Final = {
    "track": 0.012, "align": 0.018, "invert": 0.048, "pose": 0.16, "expression": 0.66,
    "check": 0.066,
}  # fmt: skip
STEP_SECONDS: Final = {"refine": 0.114, "tune": 0.12}
JACOBIAN_SECONDS: Final = 15.0
INVERTED_FRAMES: Final = 400  # at most, spread over the clip
LEAST_SECONDS: Final = 2.0  # of work before the time left is corrected
PHASES: Final = ("track", "align", "invert", "refine", "tune", "jacobian", "pose", "expression")


def expected_seconds(frames: int, config: EncodeConfig) -> dict[str, float]:
    """Return an estimate for a clip of some frames by phase, in the order in which they run."""
    counts = {name: frames for name in FRAME_SECONDS}
    counts["invert"] = min(frames, INVERTED_FRAMES)
    seconds = {name: FRAME_SECONDS[name] * count for name, count in counts.items()}
    steps = {"refine": 200, "tune": 1500}
    if config.tune_steps is not None:
        steps = {"refine": min(200, config.tune_steps), "tune": config.tune_steps}
    if config.tuning == "none":
        steps["tune"] = 0
    seconds |= {name: STEP_SECONDS[name] * count for name, count in steps.items()}
    seconds["jacobian"] = JACOBIAN_SECONDS
    phases = (*PHASES, "check") if config.self_check else PHASES
    return {name: seconds[name] for name in phases}


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


class TotalBar(StageBar):
    """One bar over all stages, with the stage's name and the time left; plain lines in a file.
    `expected` has seconds by phase, in order."""

    def __init__(self, expected: dict[str, float], *, is_quiet: bool = False) -> None:
        super().__init__(is_quiet=is_quiet)
        self.expected = expected
        self._shares = dict.fromkeys(expected, 0.0)
        self._skipped = 0.0  # work of an earlier run
        self._started = time.monotonic()
        self._told = -SECONDS_BETWEEN_LINES

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Take note of `done` of `total` units of a stage, and show it."""
        if self.is_quiet or stage not in self.expected:
            return
        is_new = stage != self._stage
        self._note(stage, min(1.0, done / total) if total else 0.0, is_new=is_new)
        self._stage = stage
        now = time.monotonic()
        units = f"{done}/{total}" if total else f"{done}"
        text = f"{clock(self.seconds_left(now - self._started))} left"
        if self.is_screen:
            self._draw_share(f"{stage} {units}", text)
        elif is_new or self.share == 1 or now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            print(f"{stage} {units}, {self.share:.0%} of all, {text}", file=sys.stderr, flush=True)

    @property
    def share(self) -> float:
        """Work done of all work, 0 to 1."""
        return self._work / max(sum(self.expected.values()), 1e-9)

    @property
    def _work(self) -> float:
        return sum(self.expected[name] * share for name, share in self._shares.items())

    def _note(self, stage: str, share: float, *, is_new: bool) -> None:
        before = self._work
        if is_new:  # stages that said nothing were done by an earlier run
            for name in list(self.expected)[: list(self.expected).index(stage)]:
                if self._shares[name] == 0:
                    self._shares[name] = 1.0
            if self._shares[stage] == 0:
                self._shares[stage] = share
            self._skipped += self._work - before
        self._shares[stage] = max(self._shares[stage], share)

    def seconds_left(self, elapsed_seconds: float) -> float:
        """Return the time left after some time: the estimate, corrected by the speed so far."""
        work = self._work - self._skipped
        left = sum(self.expected.values()) - self._work
        return left * (elapsed_seconds / work if work >= LEAST_SECONDS else 1.0)

    def _draw_share(self, stage: str, left: str) -> None:
        if self._progress is None:
            from rich import progress as parts

            self._progress = open_bar(
                parts.BarColumn(bar_width=24),
                parts.TaskProgressColumn(),
                parts.TextColumn("{task.description}", markup=False),
                parts.TextColumn("{task.fields[left]}", markup=False),
            )
            self._task = self._progress.add_task(stage, total=1.0, left=left)
        self._progress.update(self._task, completed=self.share, description=stage, left=left)
