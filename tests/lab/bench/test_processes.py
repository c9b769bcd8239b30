"""Errors of other processes come back instead of leaving the caller waiting."""

from __future__ import annotations

import os
import pickle
import signal

import pytest

from sglat.errors import FaceError, FormatError, MissingExtraError, SglatError, UsageError
from sglat_lab.bench.harness import apart, processes, side_by_side


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
    assert [type(one) for one in found[1:]] == [UsageError, UsageError]
    assert "ended from outside" in str(found[1])


def test_apart_a_killed_process_loses_its_own_task_alone() -> None:
    found = apart(2, fall, [(0,), (1,), (2,)])
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], UsageError)


def test_errors_cross_from_another_process() -> None:
    with processes(1) as executor:
        ours, other = (side_by_side(executor, task, [()])[0] for task in (refuse, stumble))
    assert str(ours) == "no-face: expected a face, found none"
    assert (type(ours), type(other)) == (FaceError, ZeroDivisionError)


@pytest.mark.parametrize(
    "error",
    [FormatError("bad-magic", "not ours", offset=4), MissingExtraError("scipy", extra="bench")],
)
def test_an_error_with_more_than_a_message_survives_pickling(error: SglatError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.__dict__) == (str(error), error.__dict__)
