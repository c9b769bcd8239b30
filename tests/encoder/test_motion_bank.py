"""Tuning regularised by motions that the clip lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle, load_bundle
from sglat.bundles.manifest import write_part
from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.encoder.motion_bank import (
    ROLE,
    Expression,
    MotionBankConfig,
    MotionRegularizer,
    expression_loss,
    gaze,
)
from sglat.encoder.stages import stage_key
from sglat.encoder.tune import TuneConfig, Tuner, tune
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_tune import SHORT, squared_error

HELD = MotionBankConfig(weight=1.0, every=1)
NEUTRAL = torch.zeros(34)
KNOWN = torch.zeros(4, 34)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def ws() -> Tensor:
    return torch.randn(6, 16, generator=torch.Generator().manual_seed(3))


def motion_bank(count: int = 20) -> Tensor:
    return torch.randn(count, 34, generator=torch.Generator().manual_seed(5))


def face_points() -> Tensor:
    return torch.rand(478, 2, generator=torch.Generator().manual_seed(6))


def regularizer(
    bundle: Bundle, *, neutral: Tensor = NEUTRAL, motions: Tensor | None = None
) -> MotionRegularizer:
    motions = motion_bank() if motions is None else motions
    landmarks = load_bundle().landmarks
    synthesizer = Synthesizer.of(bundle)
    return MotionRegularizer(synthesizer, neutral, motions, KNOWN, landmarks, face_points(), HELD)


def weights_of(bundle: Bundle, change: float) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        name: value.detach() + change * torch.randn(value.shape, generator=random)
        for name, value in bundle.generator.named_parameters()
        if name.startswith("layers.") and name.endswith(("weight", "bias")) and "affine" not in name
    }


def test_untuned_weights_cost_nothing(bundle: Bundle, ws: Tensor) -> None:
    cost = regularizer(bundle)(0, ws, weights_of(bundle, 0.0), torch.float32)
    assert float(cost) == pytest.approx(0, abs=1e-5)


def test_other_changes_than_the_untuned_ones_cost_something(bundle: Bundle, ws: Tensor) -> None:
    cost = regularizer(bundle)(0, ws, weights_of(bundle, 0.5), torch.float32)
    assert float(cost) > 1e-3


def test_the_draw_of_a_step_can_be_repeated(bundle: Bundle, ws: Tensor) -> None:
    weights = weights_of(bundle, 0.3)
    first, second = (regularizer(bundle)(4, ws, weights, torch.float32) for _ in range(2))
    assert float(first) == float(second)


def test_poses_of_the_bank_stay_within_what_heads_can_turn(bundle: Bundle) -> None:
    turned = regularizer(bundle, neutral=torch.full((34,), 24.0))
    assert float(turned.motions[:, 0].max()) <= 25
    assert float(turned.motions[:, 1].max()) <= 20


def test_motions_of_the_clip_are_drawn_less_often(bundle: Bundle) -> None:
    motions = torch.cat([torch.zeros(1, 34), torch.full((1, 34), 3.0)])
    chosen = regularizer(bundle, motions=motions)
    assert chosen.probability[0] < chosen.probability[1]


def test_a_restored_regularised_tuner_ends_with_the_same_numbers(
    bundle: Bundle, ws: Tensor
) -> None:
    synthesizer, person = Synthesizer.of(bundle), Person(ws=ws, neutral=NEUTRAL)
    motion = 0.1 * motion_bank(3)
    with torch.no_grad():
        targets = synthesizer.render(person, motion) + 0.5

    def tuner(*, is_held: bool = True) -> Tuner:
        return Tuner(
            synthesizer, person, targets, motion, squared_error, SHORT, budget_bits=8_000,
            regularizer=regularizer(bundle) if is_held else None,
        )  # fmt: skip

    first = tuner()
    for _ in range(9):
        first.step()
    arrays, facts = first.state()
    arrays = {name: np.array(value) for name, value in arrays.items()}
    whole = tune(first)
    other = tuner()
    other.restore(arrays, facts)
    assert torch.equal(whole.motion, tune(other).motion)
    assert not torch.equal(whole.motion, tune(tuner(is_held=False)).motion)


def with_bank(bundle: Bundle, count: int = 20) -> Bundle:
    """Write a motion bank into the bundle's folder, and open it anew."""
    tensors = {"motions": motion_bank(count).half()}
    write_part(bundle.folder, name=bundle.name, role=ROLE, kind=ROLE, tensors=tensors)
    return Bundle(bundle.folder)


def held_by(bundle: Bundle, config: MotionBankConfig) -> MotionRegularizer | None:
    return MotionRegularizer.of(
        bundle, Synthesizer.of(bundle), KNOWN, id_frame=1, points=face_points(), config=config
    )


def test_a_bundle_without_a_bank_is_not_regularised(bundle: Bundle) -> None:
    assert held_by(bundle, HELD) is None


def test_weight_zero_is_not_regularised(bundle: Bundle) -> None:
    banked = with_bank(bundle)
    assert held_by(banked, MotionBankConfig()) is None
    assert held_by(banked, HELD) is not None


def test_the_key_of_tuning_holds_settings_and_bank(bundle: Bundle) -> None:
    off = TuneConfig()
    held = TuneConfig(motion_bank=HELD)
    other = TuneConfig(motion_bank=replace(HELD, weight_layout=0.7))
    keys = [stage_key(stage, bundle, ()) for stage in (off, held, other)]
    assert len(set(keys)) == 3
    for count in (20, 30):
        banked = with_bank(bundle, count)
        assert stage_key(off, banked, ()) == keys[0]
        keys.append(stage_key(held, banked, ()))
    assert len(set(keys)) == 5


def test_gaze_is_measured_in_widths_of_the_eye() -> None:
    points = torch.zeros(1, 478, 2)
    for first, second, iris in ((33, 133, 468), (362, 263, 473)):
        points[0, first], points[0, second] = torch.tensor([0.2, 0.4]), torch.tensor([0.4, 0.4])
        points[0, iris] = torch.tensor([0.35, 0.42])
    torch.testing.assert_close(gaze(points), torch.tensor([[0.25, 0.1, 0.25, 0.1]]))


def test_an_expression_moved_by_no_change_costs_nothing() -> None:
    expression = Expression(
        shapes=torch.rand(2, 51), gaze=torch.randn(2, 4), openness=torch.rand(2, 2),
        pose=torch.randn(2, 2),
    )  # fmt: skip
    assert expression_loss(expression.moved(expression, expression), expression).abs().max() < 1e-6
