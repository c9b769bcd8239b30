"""What every benchmark runs on: processes side by side, results kept on disk, a plan of its time.

Errors of other processes come back as values. A process that is ended from outside (by a person, or
for want of memory) ends those beside it, and each unfinished task returns an error.

Time is planned from short, timed encodings: the cost of a frame, of a step of tuning and of the
rest on this machine with all its workers busy.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import UsageError
from sglat.files import atomic_file, write_atomically

PROTOCOL: Final = 3
"""Raised when figures of the same name come to mean something else."""
MOST_FRAMES: Final = 150
LEAST_STEPS: Final = 20
START_STEPS: Final = 10
"""Steps of tuning that its beginning and its choice of quantizer steps cost as much as."""
TUNING: Final = ("tune",)
ONCE: Final = ("refine", "jacobian")
"""Stages that cost the same for every length."""


@dataclass(frozen=True, kw_only=True)
class ToolConfig:
    """What is measured with."""

    out: Path
    """Folder of results."""
    bundle: str = "mini"
    teachers: Path | None = None
    heads: Path | None = None
    """LPIPS v0.1 heads for SqueezeNet."""
    is_quick: bool = False
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class BenchConfig(ToolConfig):
    """What is measured with what."""

    clips: Path
    """Folder of videos."""
    encoded: Path | None = None
    """Folder with `<clip>.sglat` made earlier; None: encode."""
    with_speed: bool = True
    frames: int | None = None
    """Most frames of each clip; None: as many as there is time for."""
    minutes: float | None = None
    """Time that encoding and sweeps are planned for; None: by `is_quick`."""
    workers: int | None = None
    """Processes side by side; None: one a core."""
    openface: Path | None = None
    """Folder of CSV files by OpenFace; see `published_probe`."""
    probes: tuple[str, ...] = ()
    """Names of the probes beside `quality`; empty: all."""


def digest(*parts: object) -> str:
    """Return a short name for what a result depends on; files count by their bytes."""
    total = hashlib.sha256(str(PROTOCOL).encode())
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else repr(part).encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()[:16]


class Cache:
    """One folder of results that share what they depend on.

    Args:
        folder: made if it is absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def record(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a JSON value, made on first use."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            write_atomically(file, json.dumps(make()))
        return json.loads(file.read_text(encoding="utf-8"))

    def array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return an array, made on first use and read as it is needed."""
        file = self.folder / f"{name}.npy"
        if not file.exists():
            with atomic_file(file, force=True) as stream:
                np.save(stream, make(), allow_pickle=False)
        found: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        return found


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Give fresh processes, and end them; at once where an exception leaves the block."""
    executor = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
    before = set(multiprocessing.active_children())
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    executor.shutdown()


def side_by_side(
    executor: ProcessPoolExecutor,
    task: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
) -> list[Any]:
    """Return what a task returns for each set of arguments, in order, or the error it raises."""
    try:
        futures = [executor.submit(task, *one) for one in arguments]
    except BrokenProcessPool:
        return [_lost()] * len(arguments)
    errors = [future.exception() for future in futures]
    return [
        _lost() if isinstance(error, BrokenProcessPool) else error or future.result()
        for future, error in zip(futures, errors, strict=True)
    ]


def _lost() -> UsageError:
    return UsageError(
        "process-lost", "expected a result, found that a process was ended from outside (out of "
        "memory?); run the same command again to go on",
    )  # fmt: skip


def apart(count: int, task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Do the same with a fresh process for every task, `count` of them at a time.

    What one task takes in memory is then its own, and a lost process loses one task.
    """

    def alone(one: tuple[Any, ...]) -> Any:
        with processes(1) as executor:
            return side_by_side(executor, task, [one])[0]

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(alone, arguments))


def peak_memory_megabytes() -> float:
    """Return this process's peak resident memory.

    Linux's own record of the address space; `getrusage` would also count what the parent held when
    it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a benchmark may take, and how that is shared out."""

    minutes: float
    encoding: float = 0.55
    """Share of the time for encoding every clip once."""
    reserve: float = 0.17
    """Share that sweeps must leave for what comes after them."""
    least_frames: int = 60
    """Fewer show little movement: rather fewer steps of tuning than fewer frames."""
    probe_frames: int = 12
    probe_steps: int = 6


FULL_BUDGET: Final = Budget(minutes=28)
QUICK_BUDGET: Final = Budget(
    minutes=4.5, encoding=0.62, reserve=0.3, least_frames=16, probe_steps=2
)


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What encoding costs one worker, in seconds, with all workers busy."""

    once: float
    step: float
    frame: float

    def encoding(self, frames: int, steps: int) -> float:
        """Return the seconds of one encoding."""
        tuning = self.step * (steps + START_STEPS) if steps else 0.0
        return self.once + tuning + self.frame * frames


def speeds(record: dict[str, Any], steps: int) -> Speeds:
    """Return the speeds that a short encoding with some steps of tuning shows."""
    stages: dict[str, float] = record["stage_seconds"]
    tuning = sum(stages.get(name, 0.0) for name in TUNING)
    once = sum(stages.get(name, 0.0) for name in ONCE)
    start = record["wall_seconds"] - sum(stages.values())
    return Speeds(
        once=once + max(0.0, start),
        step=tuning / (steps + START_STEPS),
        frame=(sum(stages.values()) - tuning - once) / record["frames"],
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is encoded how."""

    frames: int
    """Most frames of each clip, from its beginning."""
    tune_steps: int | None
    """None: the encoder's default; fewer cost quality, which the report states."""
    clips: int
    """How many of the clips; the others are left out for lack of time."""
    encode_seconds: float
    """Expected for one clip."""


def make_plan(
    cost: Speeds, *, clips: int, workers: int, seconds: float, default_steps: int,
    frames: int | None = None, least_frames: int = 24,
) -> Plan:  # fmt: skip
    """Return the plan that encodes the most in the given time.

    Full tuning comes before many frames, since it is what the codec does by default; fewer steps
    are taken only where full tuning leaves no time for the least frames, and clips are left out
    only where the least tuning does not fit.

    Args:
        cost: of one worker.
        clips: how many there are.
        workers: at work side by side.
        seconds: for all encodings.
        default_steps: of the encoder's tuning.
        frames: wanted by the user; None: as many as there is time for, `MOST_FRAMES` at most.
        least_frames: unless `frames` is fewer.
    """
    least = min(frames or least_frames, least_frames)

    def each(count: int) -> float:
        """Seconds for one of `count` clips when all are to be done in time."""
        return seconds / -(-count // workers)

    count = clips
    while count > workers and cost.encoding(least, LEAST_STEPS) > each(count):
        count -= 1
    # the frames wanted are kept; the time left goes to tuning
    time_left = each(count) - cost.encoding(frames or least, 0)
    affordable = int(time_left / cost.step) - START_STEPS if cost.step > 0 else default_steps
    steps = max(LEAST_STEPS, min(default_steps, affordable))
    rest = each(count) - cost.encoding(0, steps)
    fitting = int(rest / cost.frame) if cost.frame > 0 else MOST_FRAMES
    chosen = frames or max(least, min(MOST_FRAMES, fitting))
    return Plan(
        frames=chosen,
        tune_steps=None if steps >= default_steps else steps,
        clips=count,
        encode_seconds=round(cost.encoding(chosen, steps), 1),
    )


class Clock:
    """Tells each stage with the time spent and the time left.

    Args:
        tell: told a line at each step.
        minutes: in all.
    """

    def __init__(self, tell: Callable[[str], None], minutes: float) -> None:
        self.tell = tell
        self.seconds = 60 * minutes
        self.began = time.monotonic()
        self.stages: dict[str, float] = {}
        self._stage: tuple[str, float] | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds of the planned time that are left; negative when it is over."""
        return self.seconds - self.elapsed

    def stage(self, name: str, what: str = "") -> None:
        """Begin a stage of the benchmark."""
        now = self.elapsed
        self._close(now)
        self._stage = (name, now)
        over = f"{_minutes(self.left)} left" if self.left > 0 else f"{_minutes(-self.left)} over"
        self.tell(f"[{_minutes(now)}, {over}] {name}{': ' + what if what else ''}")

    def finish(self) -> dict[str, float]:
        """Return the seconds of each stage."""
        self._close(self.elapsed)
        self._stage = None
        return {name: round(value, 1) for name, value in self.stages.items()}

    def _close(self, now: float) -> None:
        if self._stage is not None:
            name, since = self._stage
            self.stages[name] = self.stages.get(name, 0.0) + now - since


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
