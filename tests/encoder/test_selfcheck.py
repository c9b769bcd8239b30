"""The self-check names the seconds that are poor."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from sglat.encoder.selfcheck import poor_seconds

GOOD = (28.0, 0.05, 0.9)
STRANGER = (28.0, 0.05, 0.3)
BLURRED = (17.0, 0.05, 0.9)


def warnings(*figures: tuple[float, float, float]) -> list[str]:
    """Return what is said of frames at two a second."""
    clock = SimpleNamespace(pts=np.arange(len(figures)) + 7, time_base=Fraction(1, 2))
    return poor_seconds([(i, *f) for i, f in enumerate(figures)], clock)  # type: ignore[arg-type]


def test_a_good_clip_is_not_warned_of() -> None:
    assert warnings(*[GOOD] * 6) == []


def test_a_second_that_shows_another_person_is_named() -> None:
    assert warnings(*[GOOD] * 2, *[STRANGER] * 2, *[GOOD] * 2) == [
        "second 1: identity 0.30 is poor"
    ]


def test_a_second_without_the_right_shapes_is_named() -> None:
    assert warnings(*[GOOD] * 4, *[BLURRED] * 2) == ["second 2: 17.0 dB is poor"]


def test_the_worst_second_comes_first() -> None:
    found = warnings(*[(28.0, 0.05, 0.45)] * 2, *[STRANGER] * 2)
    assert [line.split(":")[0] for line in found] == ["second 1", "second 0"]
