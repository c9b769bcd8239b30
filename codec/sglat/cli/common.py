"""What all commands share: errors, standard input and messages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from sglat.cli.progress import closed_bars
from sglat.errors import SglatError, UsageError
from sglat.files import open_input
from sglat.version import __version__


def run(app: Callable[[], object]) -> None:
    """Run a command; our errors become one line on stderr and status 1, wrong usage status 2."""
    if sys.argv[1:] == ["--version"]:
        print(f"{Path(sys.argv[0]).name} {__version__}")
        sys.exit(0)
    try:
        with closed_bars():
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
    """Print a message on stderr; data go to stdout."""
    print(line, file=sys.stderr, flush=True)
