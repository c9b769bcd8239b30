"""A line on stderr for long work: stage, frames done, rate, time left."""

from __future__ import annotations

import sys
import time

_BAR_WIDTH = 24
_SECONDS_BETWEEN = 0.2  # between two drawings
_SECONDS_BETWEEN_LINES = 10.0  # where stderr is a file, not a screen


class StageBar:
    """Draws one line that is overwritten; where nobody watches, a plain line now and then.

    Args:
        is_quiet: draw nothing.
    """

    def __init__(self, *, is_quiet: bool = False) -> None:
        self.is_quiet = is_quiet
        self.is_screen = sys.stderr.isatty()
        self._stage = ""
        self._started = self._drawn = 0.0
        self._first = 0
        self._is_open = False

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show `done` of `total` units of a stage; None if the total is unknown."""
        if self.is_quiet:
            return
        now = time.monotonic()
        if stage != self._stage:
            self.close()
            self._stage, self._started, self._first, self._drawn = stage, now, done, 0.0
        pause = _SECONDS_BETWEEN if self.is_screen else _SECONDS_BETWEEN_LINES
        if done != total and now - self._drawn < pause:
            return
        self._drawn = now
        text = describe_progress(stage, done, total, done - self._first, now - self._started)
        if self.is_screen:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._is_open = True
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line, so that other words start on their own."""
        if self._is_open:
            print(file=sys.stderr, flush=True)
        self._is_open = False
        self._stage = ""


def describe_progress(
    stage: str, done: int, total: int | None, recent: int, elapsed_seconds: float
) -> str:
    """Return one line such as `track [####----] 120/480 31.5/s 0:11 left`.

    Args:
        stage: its name.
        done: units done, those of an earlier run included.
        total: all units, None if unknown.
        recent: units done in this run, from which the rate is taken.
        elapsed_seconds: time this run has taken.
    """
    rate = recent / elapsed_seconds if elapsed_seconds > 0 else 0.0
    if not total:
        return f"{stage:<10} {done} {rate:.1f}/s"
    filled = min(_BAR_WIDTH, _BAR_WIDTH * done // total)
    bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
    left = f" {clock((total - done) / rate)} left" if rate > 0 and done < total else ""
    return f"{stage:<10} [{bar}] {done}/{total} {rate:.1f}/s{left}"


def clock(seconds: float) -> str:
    """Return minutes and seconds, with hours where there are any."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{whole % 60:02d}"
    return f"{minutes}:{whole % 60:02d}"
