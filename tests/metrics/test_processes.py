"""Failures in other processes come back instead of leaving the caller waiting."""

from __future__ import annotations

from multiprocessing import get_context

import pytest

from sglat.errors import FaceError, UsageError
from sglat.metrics.processes import Failure, guarded, unwrapped


def refuse() -> None:
    raise FaceError("no-face", "expected a face, found none")


def stumble() -> None:
    raise ZeroDivisionError("by nought")


def test_our_errors_cross_from_another_process() -> None:
    with get_context("spawn").Pool(1) as pool:
        found = pool.apply_async(guarded, (refuse,)).get(timeout=60)
    assert found == Failure(code="no-face", message="expected a face, found none")


def test_other_errors_keep_their_name() -> None:
    assert str(guarded(stumble)) == "failed: ZeroDivisionError: by nought"


def test_a_failure_is_raised_where_it_is_needed() -> None:
    with pytest.raises(UsageError, match="no-face"):
        unwrapped(guarded(refuse))


def test_a_result_stays_what_it_is() -> None:
    assert unwrapped(guarded(divmod, 7, 2)) == (3, 1)
