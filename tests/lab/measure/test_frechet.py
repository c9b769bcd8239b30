"""Fréchet distances against their closed form."""

from __future__ import annotations

import numpy as np
import pytest

from sglat.errors import UsageError
from sglat_lab.measure.judges import frechet_distance

pytest.importorskip("scipy")


def sample(seed: int, *, shift: float = 0.0, scale: float = 1.0, count: int = 4000) -> np.ndarray:
    return shift + scale * np.random.default_rng(seed).normal(size=(count, 3))


def test_a_set_is_at_no_distance_from_itself() -> None:
    assert frechet_distance(sample(0), sample(0)) == pytest.approx(0, abs=1e-9)


def test_a_shifted_set_is_at_the_squared_shift() -> None:
    assert frechet_distance(sample(0, shift=2), sample(0)) == pytest.approx(12)


def test_a_scaled_set_is_at_the_squared_difference_of_deviations() -> None:
    found = frechet_distance(sample(0, scale=3), sample(1))
    assert found == pytest.approx(12, rel=0.1)


def test_fewer_samples_than_dimensions_are_refused() -> None:
    with pytest.raises(UsageError, match="few-samples"):
        frechet_distance(sample(0, count=3), sample(1))
