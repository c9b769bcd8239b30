"""Steps and integers: equal visibility, quality octaves, cheap paths that stay near."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglat.encoder.pack import PackConfig, latent_layers, motion_steps, quantize_motion


def test_steps_make_every_number_equally_visible() -> None:
    effect = np.linspace(0.01, 0.1, 34).astype(np.float32)
    steps = motion_steps(effect, PackConfig())
    assert np.allclose(steps * effect, (steps * effect)[0])


def test_twelve_points_of_quality_halve_the_steps() -> None:
    effect = np.full(34, 0.05, np.float32)
    coarse, fine = (motion_steps(effect, PackConfig(quality=q)) for q in (50, 62))
    assert coarse / fine == pytest.approx(np.full(34, 2.0), rel=1e-5)


def test_a_number_without_effect_gets_a_finite_step() -> None:
    effect = np.full(34, 0.05, np.float32)
    effect[7] = 0.0
    assert np.isfinite(motion_steps(effect, PackConfig())).all()


@given(st.integers(0, 2**32 - 1))
def test_a_calm_path_is_never_more_than_one_and_a_half_steps_away(seed: int) -> None:
    motion = np.random.default_rng(seed).standard_normal((20, 34)).astype(np.float32)
    steps = np.full(34, 0.3, np.float32)
    integers = quantize_motion(motion, steps, PackConfig(calm=0.05))
    assert float(np.abs(integers * steps - motion).max()) <= 1.5 * 0.3 + 1e-5


def test_a_calm_path_changes_less_often_than_rounding() -> None:
    random = np.random.default_rng(0)
    motion = (0.5 + 0.1 * random.standard_normal((200, 34))).astype(np.float32)  # between two steps
    steps = np.ones(34, np.float32)
    calm = quantize_motion(motion, steps, PackConfig(calm=0.05))
    rounded = quantize_motion(motion, steps, PackConfig(calm=0.0))
    assert (np.diff(calm, axis=0) != 0).sum() < 0.3 * (np.diff(rounded, axis=0) != 0).sum()


def test_latent_layers_add_up_to_the_latent_within_half_a_fine_step() -> None:
    offset = np.random.default_rng(0).standard_normal((12, 256)).astype(np.float32)
    layers, exact = latent_layers(offset)
    assert float(np.abs(exact - offset).max()) <= layers[1].latent.step / 2 + 1e-6
