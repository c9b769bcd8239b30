"""Pivotal tuning as published: what it changes, when it ends, and what of it a file carries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.decoder.synthesizer import Synthesizer, synthesize
from sglat.encoder.pti import PivotTuner, PtiConfig, carried
from sglat.encoder.weight_deltas import DeltaConfig
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import see_drawn_faces

PIVOTS = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(3))
PICTURES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(4)) - 0.5


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return see_drawn_faces(make_tiny_bundle(tmp_path / "tiny"))


def frame(row: int) -> tuple[Tensor, Tensor, None]:
    return PIVOTS[row][None], PICTURES[row][None], None


def tuner_of(bundle: Bundle, config: PtiConfig) -> PivotTuner:
    return PivotTuner(bundle.generator, bundle.perceptual, len(PIVOTS), frame, config)


def test_constants_are_the_published_ones() -> None:
    config = PtiConfig()
    assert (config.steps, config.rate, config.enough) == (350, 3e-4, 0.06)
    assert (config.weight_l2, config.weight_perceptual) == (1, 1)


def test_every_frame_is_taken_once_a_round(bundle: Bundle) -> None:
    taken: list[int] = []

    def noting(row: int) -> tuple[Tensor, Tensor, None]:
        taken.append(row)
        return frame(row)

    tuner = PivotTuner(bundle.generator, bundle.perceptual, 3, noting, PtiConfig())
    for _ in range(6):
        tuner.step()
    assert [sorted(taken[:3]), sorted(taken[3:])] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("has_affine", [True, False])
def test_all_weights_that_make_the_picture_change(bundle: Bundle, has_affine: bool) -> None:
    tuner = tuner_of(bundle, PtiConfig(has_affine=has_affine))
    for _ in range(3):
        tuner.step()
    before = dict(bundle.generator.named_parameters())
    changed = {n for n, v in tuner.generator.named_parameters() if not torch.equal(v, before[n])}
    wanted = {
        name
        for name in before
        if not name.startswith("mapping.") and (has_affine or ".affine." not in name)
    }
    assert changed == wanted


def test_tuning_brings_the_renderings_of_the_pivots_nearer(bundle: Bundle) -> None:
    tuner = tuner_of(bundle, PtiConfig(rate=3e-3, enough=0.0, steps=60))
    while not tuner.is_done:
        tuner.step()
    assert sum(tuner.distances[-3:]) < 0.7 * sum(tuner.distances[:3])


def test_tuning_ends_after_a_round_that_is_close_enough(bundle: Bundle) -> None:
    tuner = tuner_of(bundle, PtiConfig(enough=10.0))
    while not tuner.is_done:
        tuner.step()
    assert tuner.done == 3


def test_restored_tuning_goes_on_the_same(bundle: Bundle) -> None:
    whole, first = (tuner_of(bundle, PtiConfig()) for _ in range(2))
    for _ in range(5):
        whole.step()
    for _ in range(2):
        first.step()
    rest = tuner_of(bundle, PtiConfig())
    rest.restore(*first.state())
    for _ in range(3):
        rest.step()
    for name, value in whole.weights().items():
        assert torch.equal(value, rest.weights()[name])


def error_carried(bundle: Bundle, config: PtiConfig) -> float:
    """Return how far pictures by the carried weights are from those by the tuned ones."""
    tuner = tuner_of(bundle, replace(config, rate=1e-2))
    for _ in range(12):
        tuner.step()
    deltas = carried(Synthesizer.of(bundle), tuner.weights(), PIVOTS, config)
    generator = bundle.generator
    with torch.no_grad():
        shown = synthesize(generator, generator.styles(PIVOTS), weights=deltas.weights())
        change = (tuner.generator(PIVOTS) - generator(PIVOTS)).square().mean()
        return float((shown - tuner.generator(PIVOTS)).square().mean() / change)


def test_a_large_budget_carries_nearly_all_and_a_small_one_some(bundle: Bundle) -> None:
    whole = PtiConfig(deltas=DeltaConfig(ranks=(12,)), identity_bytes=200_000)
    part = PtiConfig(deltas=DeltaConfig(ranks=(1,)), identity_bytes=6_000)
    errors = error_carried(bundle, whole), error_carried(bundle, part)
    assert errors[0] < 1e-3 < errors[1] < 1
