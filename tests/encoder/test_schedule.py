"""The factor of the rate over an optimisation."""

from __future__ import annotations

from sglat.encoder.schedule import warm_up_and_fall


def test_it_rises_over_the_warm_up_and_falls_from_the_middle_on() -> None:
    factors = [warm_up_and_fall(step, 100, 10) for step in range(100)]
    assert factors[:10] == [(step + 1) / 10 for step in range(10)]
    assert set(factors[10:51]) == {1.0}
    assert factors[50:] == sorted(factors[50:], reverse=True)
    assert 0 < factors[-1] < 0.03
