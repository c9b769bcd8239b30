"""BD-rate with its refusals, reading a curve, intervals over clips."""

from __future__ import annotations

import numpy as np
import pytest

from sglat.errors import UsageError
from sglat_lab.measure import rates as curves

pytest.importorskip("bjontegaard")


def curve(factor: float = 1.0, lift: float = 0.0) -> curves.Curve:
    rates = np.array([1.0, 2, 4, 8, 16])
    return curves.Curve(rates=tuple(factor * rates), qualities=tuple(np.log2(rates) + lift))


@pytest.mark.parametrize("method", curves.METHODS)
def test_a_curve_at_half_the_rate_saves_half(method) -> None:
    assert curves.bd_rate_percent(curve(), curve(0.5), method=method) == pytest.approx(-50)


@pytest.mark.parametrize("method", curves.METHODS)
def test_a_curve_saves_nothing_against_itself(method) -> None:
    assert curves.bd_rate_percent(curve(), curve(), method=method) == pytest.approx(0)


def test_curves_that_do_not_meet_are_refused() -> None:
    with pytest.raises(UsageError, match="no-overlap"):
        curves.bd_rate_percent(curve(), curve(lift=10), method="akima")


def test_a_curve_of_three_points_is_refused() -> None:
    short = curves.Curve(rates=(1.0, 2.0, 4.0), qualities=(0.0, 1.0, 2.0))
    with pytest.raises(UsageError, match="few-points"):
        curves.bd_rate_percent(curve(), short, method="pchip")


def test_the_envelope_drops_points_that_pay_more_for_less() -> None:
    found = curves.envelope([(4, 2.0), (1, 1.0), (2, 0.5), (8, 3.0)])
    assert found.rates == (1, 4, 8)
    assert found.qualities == (1.0, 2.0, 3.0)


def test_below_its_lowest_rate_a_curve_says_so_and_is_not_extrapolated() -> None:
    found = curves.read_curve(curve(), 0.25)
    assert found.is_lowest
    assert (found.rate, found.quality) == (1.0, 0.0)


def test_between_two_points_a_curve_is_read_in_the_logarithm_of_the_rate() -> None:
    found = curves.read_curve(curve(), 2**1.5)
    assert not found.is_lowest
    assert found.quality == pytest.approx(1.5)


def test_above_its_highest_rate_a_curve_keeps_its_best() -> None:
    assert curves.read_curve(curve(), 100).quality == 4


def test_the_interval_holds_the_mean_of_known_clips() -> None:
    values = np.random.default_rng(1).normal(5, 1, size=40).tolist()
    found = curves.bootstrap(values)
    assert found["low"] < 5 < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 / np.sqrt(40), rel=0.25)


def test_one_clip_has_no_spread() -> None:
    found = curves.bootstrap([3.0])
    assert found == {"mean": 3, "low": 3, "high": 3, "clips": 1}


@pytest.mark.parametrize("wanted", [11.0, 40.0, 63.0, 64.0])
def test_refining_finds_the_coarsest_setting_that_spends_enough(wanted: float) -> None:
    def rate(setting: int) -> float:
        return 100.0 - setting

    found = curves.refine(rate, 20, 63, wanted)
    assert rate(found) >= wanted
    assert found == 63 or rate(found + 1) < wanted


def test_refining_gives_the_lowest_rate_where_nothing_is_cheap_enough() -> None:
    assert curves.refine(lambda setting: 100.0 - setting, 20, 63, 5.0) == 63
