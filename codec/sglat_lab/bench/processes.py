"""Tasks in other processes: whatever goes wrong there comes back as a value.

Our exceptions carry more than one argument and do not survive pickling. A process that is ended
from outside (by a person, or for want of memory) ends those beside it, and each unfinished task
says so.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sglat.errors import SglatError, UsageError


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What went wrong in another process."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def guarded(task: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a task returns, or its failure; for the other process."""
    try:
        return task(*arguments)
    except SglatError as error:
        return Failure(code=error.code, message=error.message)
    except Exception as error:
        return Failure(code="failed", message=f"{type(error).__name__}: {error}")


def unwrapped(result: Any) -> Any:
    """Return a result; for this process.

    Raises:
        UsageError: it is a failure.
    """
    if isinstance(result, Failure):
        raise UsageError(result.code, result.message)
    return result


@contextmanager
def processes(
    count: int,
    *,
    begin: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[ProcessPoolExecutor]:
    """Give fresh processes, and end them; at once where an exception leaves the block.

    Args:
        count: how many.
        begin: called first in each, with `arguments`.
        arguments: of `begin`.
    """
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(count, context, begin, arguments)
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
    """Return what a task returns for each set of arguments, in order, or its `Failure`."""
    lost = Failure(
        code="process-lost",
        message="expected a result, found that a process was ended from outside "
        "(out of memory?); run the same command again to go on",
    )
    try:
        futures = [executor.submit(guarded, task, *one) for one in arguments]
    except BrokenProcessPool:
        return [lost] * len(arguments)
    found = []
    for future in futures:
        try:
            found.append(future.result())
        except BrokenProcessPool:
            found.append(lost)
    return found


def apart(count: int, task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Do the same with a fresh process for every task, `count` of them at a time.

    What one task takes in memory is then its own, and a lost process loses one task.
    """

    def alone(one: tuple[Any, ...]) -> Any:
        with processes(1) as executor:
            return side_by_side(executor, task, [one])[0]

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(alone, arguments))
