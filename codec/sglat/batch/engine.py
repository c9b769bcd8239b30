"""What carries out jobs: processes of this machine here, a Ray cluster in `ray_engine`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Final, Protocol

import torch

from sglat.batch.work import Facts, Job, failure, perform

ATTEMPTS: Final = 3
"""Times that a file is begun whose process dies before it is given up."""
_STOP_SECONDS: Final = 10.0  # for a process to clear up after Ctrl-C


class Engine(Protocol):
    """Carries out jobs, several at a time."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Facts]]:
        """Yield jobs with what came of them, as they end; every job once."""
        ...


def processor_count() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover - not on Linux
        return os.cpu_count() or 1


def lost(attempts: int, reason: str) -> Facts:
    """Return the facts of a job whose process died each time."""
    message = f"its process died {attempts} times, at last {reason}; is memory short?"
    return failure("worker-lost", message, "SystemError") | {"seconds": None}


@dataclass
class _Worker:
    """A process, our end of its pipe, and its job."""

    process: Any
    pipe: Connection
    job: Job | None = None


@dataclass(kw_only=True)
class LocalEngine:
    """Processes of this machine, each with one bundle in memory."""

    workers: int = 1
    threads: int = 1
    """Of each process."""
    attempts: int = ATTEMPTS
    context: BaseContext = field(default_factory=lambda: multiprocessing.get_context("spawn"))

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Facts]]:
        """Yield jobs with what came of them, as they end. A process that dies is replaced, and its
        job begun again."""
        waiting = deque(jobs)
        begun: dict[int, int] = {}
        pool: list[_Worker] = []
        try:
            while waiting or any(worker.job for worker in pool):
                while waiting and len(pool) < self.workers:
                    pool.append(self._start())
                for worker in pool:
                    if worker.job is None and waiting:
                        _hand(worker, waiting.popleft())
                for pipe in wait([worker.pipe for worker in pool if worker.job is not None]):
                    worker = next(one for one in pool if one.pipe is pipe)
                    job = worker.job
                    assert job is not None
                    try:
                        facts = worker.pipe.recv()
                        worker.job = None
                    except (EOFError, OSError):
                        pool.remove(worker)
                        worker.process.join()
                        reason = _reason(worker.process.exitcode)
                        begun[id(job)] = begun.get(id(job), 0) + 1
                        if begun[id(job)] < self.attempts:
                            waiting.appendleft(job)
                            continue
                        facts = lost(self.attempts, reason)
                    yield job, facts | {"attempts": begun.get(id(job), 0) + 1}
        finally:
            _stop(pool)

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(  # type: ignore[attr-defined]
            target=work_for, args=(theirs, self.threads), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process=process, pipe=ours)


def work_for(pipe: Connection, threads: int) -> None:
    """Carry out the jobs that come through a pipe, until it is closed or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            pipe.send(perform(pipe.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _hand(worker: _Worker, job: Job) -> None:
    worker.job = job
    with suppress(OSError):  # it has died; waiting for it shows that
        worker.pipe.send(job)


def _reason(status: int | None) -> str:
    if status is not None and status < 0:
        return f"by signal {-status}"
    return f"with status {status}"


def _stop(pool: Sequence[_Worker]) -> None:
    """End processes: idle ones at once, others after they have cleared up."""
    for worker in pool:
        worker.pipe.close()
        if worker.job is not None:
            worker.process.terminate()
    until = time.monotonic() + _STOP_SECONDS
    for worker in pool:
        worker.process.join(max(0.0, until - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
