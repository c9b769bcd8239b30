"""How long an encoding takes, told before it starts, and one bar over all its stages."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sglat.cli.common import SECONDS_BETWEEN_LINES, StageBar, open_bar

if TYPE_CHECKING:
    from sglat.encoder.config import EncodeConfig

# One thread of the machine of benchmarks/results/RESULTS.md, section "Encoding: seconds a frame by
# stage"; the bar corrects them by the time that has passed.
FRAME_SECONDS: Final = {
    "track": 0.012, "align": 0.018, "invert": 0.048, "sweep": 0.045, "pose": 0.16,
    "expression": 0.66, "check": 0.066,
}  # fmt: skip
STEP_SECONDS: Final = {"refine": 0.114, "tune": 0.12, "detail": 0.08}
ITERATION_SECONDS: Final = 0.0375  # of a batched step, a frame
JACOBIAN_SECONDS: Final = 1.5  # at one linearisation point
LEAST_SECONDS: Final = 2.0  # of work before the time left is corrected
PHASES: Final = (
    "track", "align", "invert", "refine", "tune", "detail", "jacobian", "sweep", "pose",
    "expression", "check",
)  # fmt: skip
ENROLLING: Final = PHASES[:6]


def expected_seconds(
    frames: int, config: EncodeConfig, *, is_enrolled: bool = False
) -> dict[str, float]:
    """Return an estimate for a clip of some frames by phase, in the order in which they run.

    Args:
        frames: of the clip.
        config: preset and choices.
        is_enrolled: only the person is wanted, no motion.
    """
    from sglat.encoder.config import PRESETS
    from sglat.encoder.solve_motion import LineariseConfig

    preset, is_known = PRESETS[config.preset], config.identity is not None
    is_refined = not is_known or config.adapt
    counts = {name: frames for name in FRAME_SECONDS}
    counts["invert"] = min(frames, preset.inverted_frames) if is_refined else 0
    seconds = {name: FRAME_SECONDS[name] * count for name, count in counts.items()}
    for name, most in _steps(config).items():
        seconds[name] = STEP_SECONDS[name] * most
    points = LineariseConfig()
    count = min(points.points, max(2, frames // points.frames_per_point))
    seconds["jacobian"] = JACOBIAN_SECONDS * count
    if config.solver == "paper":
        seconds["sweep"] = 0.0
    else:
        seconds["pose"], seconds["expression"] = 0.0, _polish_seconds(frames, config)
    if not config.is_checked:
        seconds["check"] = 0.0
    phases = ENROLLING if is_enrolled else PHASES
    return {name: seconds[name] for name in phases if seconds[name] > 0}


def _steps(config: EncodeConfig) -> dict[str, int]:
    from sglat.encoder.adapt import AdaptConfig
    from sglat.encoder.config import PRESETS

    preset, steps = PRESETS[config.preset], config.tune_steps
    if config.identity is not None:
        most = (AdaptConfig().steps if steps is None else steps) if config.adapt else 0
        return {"refine": 0, "tune": most, "detail": 0}
    is_tuned = config.tuning != "none"
    found = {
        "refine": preset.refine_steps, "tune": preset.tune_steps, "detail": preset.detail_steps,
    }  # fmt: skip
    if steps is not None:
        found = {name: min(most, steps) for name, most in found.items()} | {"tune": steps}
    return {name: most if is_tuned or name == "refine" else 0 for name, most in found.items()}


def _polish_seconds(frames: int, config: EncodeConfig) -> float:
    """Return the time of the steps after the sweep."""
    from sglat.encoder.config import polish_of

    polish = polish_of(config)
    if polish is None:
        return 0.0
    windows = -(-frames // polish.window)
    steps = polish.iterations + (polish.fresh_iterations if polish.fresh else 0)
    return JACOBIAN_SECONDS * polish.fresh * windows + ITERATION_SECONDS * steps * frames


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
