"""Failures in other processes come back instead of leaving the caller waiting."""

from __future__ import annotations

import os
import signal

import pytest

from sglat.errors import FaceError, UsageError
from sglat_lab.bench.harness import (
    Failure,
    apart,
    guarded,
    processes,
    side_by_side,
    unwrapped,
)


def refuse() -> None:
    raise FaceError("no-face", "expected a face, found none")


def stumble() -> None:
    raise ZeroDivisionError("by nought")


def fall(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_process_ends_the_wait() -> None:
    with processes(1) as executor:
        found = side_by_side(executor, fall, [(0,), (1,), (2,)])
    assert found[0] == 0
    assert [type(one) for one in found[1:]] == [Failure, Failure]
    assert "ended from outside" in str(found[1])


def test_apart_a_killed_process_loses_its_own_task_alone() -> None:
    found = apart(2, fall, [(0,), (1,), (2,)])
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], Failure)


def test_our_errors_cross_from_another_process() -> None:
    with processes(1) as executor:
        (found,) = side_by_side(executor, refuse, [()])
    assert found == Failure(code="no-face", message="expected a face, found none")


def test_other_errors_keep_their_name() -> None:
    assert str(guarded(stumble)) == "failed: ZeroDivisionError: by nought"


def test_a_failure_is_raised_where_it_is_needed() -> None:
    with pytest.raises(UsageError, match="no-face"):
        unwrapped(guarded(refuse))


def test_a_result_stays_what_it_is() -> None:
    assert unwrapped(guarded(divmod, 7, 2)) == (3, 1)
