"""Tasks in other processes: whatever goes wrong there comes back as a value.

Our exceptions carry more than one argument and do not survive pickling; a pool that fails to read a
result waits for it forever.
"""

from __future__ import annotations

from collections.abc import Callable
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
