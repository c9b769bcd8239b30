"""What all commands share: errors, standard input, messages and progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from shutil import copyfileobj
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final

from sglat.errors import SglatError, UsageError
from sglat.files import PARTIAL_PATTERN, open_input, reason_of
from sglat.version import __version__

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn
    from typer import Typer

SECONDS_BETWEEN_LINES: Final = 10.0  # where stderr is a file, not a screen
_open: list[Progress] = []


def new_app(about: str | None = None, *, has_subcommands: bool = False) -> Typer:
    """Return the typer application of a command; typer is not loaded with this module, since it
    takes longer than all of `sgl-info`."""
    from typer import Typer

    return Typer(
        help=about, no_args_is_help=has_subcommands, add_completion=False, rich_markup_mode=None,
        pretty_exceptions_enable=False, epilog="--version prints the version.",
    )  # fmt: skip


def run(app: Callable[[], object]) -> None:
    """Run a command; our errors become one line on stderr and status 1, wrong usage status 2."""
    if sys.argv[1:] == ["--version"]:
        print(f"{Path(sys.argv[0]).name} {__version__}")
        sys.exit(0)
    try:
        with closed_bars():
            app()
    except SglatError as error:
        say(f"error: {error}")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except BrokenPipeError:
        sys.stdout = None  # whoever read us has gone; nothing is left to flush
        sys.exit(0)
    except OSError as error:
        say(f"error: file: {_file_fault(error)}")
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


def parse_time(text: str) -> float | None:
    """Return seconds of `12.5`, `1:02.5` or `1:00:02`; None for nothing.

    Raises:
        UsageError: anything else.
    """
    if not text:
        return None
    try:
        seconds = 0.0
        for part in text.split(":"):
            seconds = 60 * seconds + float(part)
    except ValueError as error:
        raise UsageError("bad-time", f"expected seconds or m:ss, got {text!r}") from error
    if not 0 <= seconds < float("inf"):
        raise UsageError("bad-time", f"expected a time from 0 on, got {text!r}")
    return seconds


@contextmanager
def video_source(path: Path, beside: Path) -> Iterator[Path]:
    """Yield a video file that can be read several times: standard input, `-`, is kept in a hidden
    file in the folder of `beside` until the end."""
    if str(path) != "-":
        yield path
        return
    with NamedTemporaryFile(dir=beside.parent, prefix=".sglat-stdin-") as kept:
        copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        try:
            yield Path(kept.name)
        except SglatError as error:
            error.message = error.message.replace(kept.name, "standard input")
            raise


def say(line: str) -> None:
    """Print a message of one line on stderr; data go to stdout."""
    print(printable(line), file=sys.stderr, flush=True)


def printable(text: object) -> str:
    """Return text, such as a file's name or what it contains, with control characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )


def _file_fault(error: OSError) -> str:
    """Return why a file could not be written or read; temporary files by their folder."""
    if not isinstance(error.filename, str):
        return reason_of(error)
    path = Path(error.filename)
    is_temporary = path.match(PARTIAL_PATTERN) or path.name.endswith(".lock")
    place = f"in the folder {path.parent}" if is_temporary else str(path)
    return f"{place}: {reason_of(error)}"


@contextmanager
def closed_bars() -> Iterator[None]:
    """End all bars at the end, however that comes; a bar hides the cursor of the terminal."""
    try:
        yield
    finally:
        while _open:
            _open.pop().stop()


class StageBar:
    """One bar a stage, of units or of bytes; `is_quiet` draws nothing."""

    def __init__(self, *, is_quiet: bool = False, is_bytes: bool = False) -> None:
        self.is_quiet = is_quiet
        self.is_screen = sys.stderr.isatty()
        self._is_bytes = is_bytes
        self._stage = ""
        self._started = self._told = 0.0
        self._first = 0
        self._progress: Progress | None = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show `done` of `total` units of a stage; None or 0 if the total is unknown."""
        if self.is_quiet:
            return
        now = time.monotonic()
        is_new = stage != self._stage
        if is_new:
            self._stage, self._started, self._first = stage, now, done
            self._told = -SECONDS_BETWEEN_LINES
        if self.is_screen:
            self._draw(done, total, is_new=is_new)
        elif done == total or now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            recent, elapsed = done - self._first, now - self._started
            print(
                describe_progress(stage, done, total, recent, elapsed), file=sys.stderr, flush=True
            )

    def _draw(self, done: int, total: int | None, *, is_new: bool) -> None:
        if self._progress is None:
            self._progress = open_bar(*_stage_columns(is_bytes=self._is_bytes))
        if is_new:  # what an earlier run has done does not count for the speed
            self._task = self._progress.add_task(self._stage, completed=done, total=total or None)
        self._progress.update(self._task, completed=done, total=total or None)
        if done == total:
            self._progress.stop_task(self._task)

    def close(self) -> None:
        """End the bars, so that messages start on a line of their own."""
        if self._progress is not None:
            stop_bar(self._progress)
        self._progress, self._stage = None, ""


class ByteBar(StageBar):
    """A bar for one file, named by a label; nothing where stderr is no screen."""

    def __init__(self, label: str) -> None:
        super().__init__(is_quiet=not sys.stderr.isatty(), is_bytes=True)
        self.label = label

    def show(self, done: int, total: int | None) -> None:
        """Show `done` of `total` bytes, None if unknown."""
        self(self.label, done, total)
        if done == total:
            self.close()


def open_bar(*columns: ProgressColumn) -> Progress:
    """Start a bar on stderr; `closed_bars` ends it at the latest."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(
        *columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False
    )
    bar.start()
    _open.append(bar)
    return bar


def stop_bar(bar: Progress) -> None:
    """End a bar."""
    bar.stop()
    _open.remove(bar)


def _stage_columns(*, is_bytes: bool) -> list[ProgressColumn]:
    from rich import progress as parts

    class SpeedColumn(parts.ProgressColumn):
        """Units a second."""

        def render(self, task: parts.Task) -> str:
            speed = task.finished_speed or task.speed
            return "" if speed is None else f"{speed:.1f}/s"

    return [
        parts.TextColumn("{task.description:<10}", markup=False),
        parts.BarColumn(bar_width=24),
        parts.DownloadColumn() if is_bytes else parts.MofNCompleteColumn(),
        parts.TransferSpeedColumn() if is_bytes else SpeedColumn(),
        parts.TimeRemainingColumn(compact=True),
    ]


def describe_progress(
    stage: str, done: int, total: int | None, recent: int, elapsed_seconds: float
) -> str:
    """Return one plain line such as `track 120/480 31.5/s 0:00:11 left`.

    `done` counts the units of an earlier run too, `recent` those of this run, from which the rate
    is taken; `total` is None or 0 if unknown.
    """
    rate = recent / elapsed_seconds if elapsed_seconds > 0 else 0.0
    if not total:
        return f"{stage} {done} {rate:.1f}/s"
    left = ""
    if rate > 0 and done < total:
        left = f" {timedelta(seconds=round((total - done) / rate))} left"
    return f"{stage} {done}/{total} {rate:.1f}/s{left}"
