"""What all commands share: how errors end the program and how progress is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from sglat.errors import SglatError, UsageError
from sglat.files import open_input

_BAR_WIDTH = 30
_SECONDS_BETWEEN = 0.1  # between two drawings


def run(app: Callable[[], object]) -> None:
    """Run a command; our errors become one line on stderr and status 1, wrong usage status 2."""
    try:
        app()
    except SglatError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except BrokenPipeError:
        sys.stdout = None  # whoever read us has gone; nothing is left to flush
        sys.exit(0)
    except OSError as error:
        print(f"error: file: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def open_source(path: Path) -> AbstractContextManager[BinaryIO]:
    """Open an input file, or standard input for `-`, which stays open.

    Raises:
        UsageError: no such file.
    """
    return nullcontext(sys.stdin.buffer) if str(path) == "-" else open_input(path)


def say(line: str) -> None:
    """Tell people something; data go to stdout."""
    print(line, file=sys.stderr, flush=True)


class ByteBar:
    """A line on stderr that shows how much of a file is there; silent where nobody watches."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.is_shown = sys.stderr.isatty()
        self.started = self.drawn = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """Draw `done` of `total` bytes, None if unknown."""
        now = time.monotonic()
        if self.first is None:
            self.first, self.started = done, now
        if not self.is_shown or (done != total and now - self.drawn < _SECONDS_BETWEEN):
            return
        self.drawn = now
        rate = (done - self.first) / max(now - self.started, 1e-3) / 1e6
        filled = _BAR_WIDTH * done // total if total else 0
        bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
        end = "\n" if done == total else ""
        whole = f"{total / 1e6:.1f}" if total else "?"
        text = f"\r{self.label} [{bar}] {done / 1e6:.1f}/{whole} MB {rate:.1f} MB/s "
        print(text, end=end, file=sys.stderr, flush=True)
