"""Steps and integers: equal visibility, quality octaves, cheap paths that stay near."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglat.encoder.quantize import (
    DEFAULT_MOST_BITS,
    PictureMetric,
    QuantizeConfig,
    bits_a_frame,
    latent_layers,
    motion_steps,
    quantize_motion,
    quantize_within,
    smoothed,
)


def test_steps_make_every_channel_equally_visible() -> None:
    effect = np.linspace(0.01, 0.1, 34).astype(np.float32)
    steps = motion_steps(effect, QuantizeConfig())
    assert np.allclose(steps * effect, (steps * effect)[0])


def test_twelve_points_of_quality_halve_the_steps() -> None:
    effect = np.full(34, 0.05, np.float32)
    coarse, fine = (motion_steps(effect, QuantizeConfig(quality=q)) for q in (50, 62))
    assert coarse / fine == pytest.approx(np.full(34, 2.0), rel=1e-5)


def test_a_channel_without_effect_gets_a_finite_step() -> None:
    effect = np.full(34, 0.05, np.float32)
    effect[7] = 0.0
    assert np.isfinite(motion_steps(effect, QuantizeConfig())).all()


@settings(deadline=None)  # the first call loads a library
@given(st.integers(0, 2**32 - 1))
def test_a_calm_path_is_never_more_than_one_and_a_half_steps_away(seed: int) -> None:
    motion = np.random.default_rng(seed).standard_normal((20, 34)).astype(np.float32)
    steps = np.full(34, 0.3, np.float32)
    integers = quantize_motion(motion, steps, QuantizeConfig(calm=0.05))
    assert float(np.abs(integers * steps - motion).max()) <= 1.5 * 0.3 + 1e-5


def test_a_calm_path_changes_less_often_than_rounding() -> None:
    random = np.random.default_rng(0)
    motion = (0.5 + 0.1 * random.standard_normal((200, 34))).astype(np.float32)  # between two steps
    steps = np.ones(34, np.float32)
    calm = quantize_motion(motion, steps, QuantizeConfig(calm=0.05))
    rounded = quantize_motion(motion, steps, QuantizeConfig(calm=0.0))
    assert (np.diff(calm, axis=0) != 0).sum() < 0.3 * (np.diff(rounded, axis=0) != 0).sum()


def test_latent_layers_add_up_to_the_latent_within_half_a_fine_step() -> None:
    offset = np.random.default_rng(0).standard_normal((12, 256)).astype(np.float32)
    layers, exact = latent_layers(offset)
    assert float(np.abs(exact - offset).max()) <= layers[1].latent.step / 2 + 1e-6


def wandering(frames: int = 120) -> np.ndarray:
    random = np.random.default_rng(3)
    return np.cumsum(0.4 * random.standard_normal((frames, 34)), axis=0).astype(np.float32)


def overlapping_metric(frames: int = 120) -> PictureMetric:
    """Numbers that move the same few pixels."""
    jacobian = np.random.default_rng(4).standard_normal((40, 34))
    jacobian[:, 17:] = jacobian[:, :17] + 0.5 * jacobian[:, 17:]
    return PictureMetric(normals=(jacobian.T @ jacobian)[None], nearest=np.zeros(frames, np.int64))


def picture_error(errors: np.ndarray, metric: PictureMetric) -> float:
    return float(np.einsum("ti,ij,tj->t", errors, metric.normals[0], errors).mean())


def test_channels_rounded_together_miss_the_picture_by_less_at_the_same_bits() -> None:
    motion, metric = wandering(), overlapping_metric()
    steps = motion_steps(np.sqrt(np.diag(metric.normals[0])).astype(np.float32), QuantizeConfig())
    steps = (steps * (0.5 / steps.mean())).astype(np.float32)
    together = quantize_motion(motion, steps, QuantizeConfig(), metric)
    allowed = bits_a_frame(together)
    missed = math.inf
    for factor in (0.6, 0.7, 0.8, 0.9, 1.0):  # finest steps that cost no more, each by itself
        finer = (steps * factor).astype(np.float32)
        alone = quantize_motion(motion, finer, QuantizeConfig(steady=0.0))
        if bits_a_frame(alone) <= allowed:
            missed = min(missed, picture_error(alone * finer - motion, metric))
    assert math.isfinite(missed)
    assert picture_error(together * steps - motion, metric) < 0.8 * missed


def test_steady_rounding_flickers_less() -> None:
    motion, metric = wandering(), overlapping_metric()
    steps = np.full(34, 0.5, np.float32)
    flicker = [
        picture_error(np.diff(v * steps - motion, axis=0), metric)
        for v in (
            quantize_motion(motion, steps, QuantizeConfig(steady=w), metric) for w in (0.0, 1.0)
        )
    ]
    assert flicker[1] < 0.8 * flicker[0]


def test_the_quality_gives_way_where_the_bits_are_few() -> None:
    motion, metric = wandering(), overlapping_metric()
    effect = np.full(34, 0.02, np.float32)
    free = quantize_within(motion, effect, metric, QuantizeConfig.of(50, None))
    bound = quantize_within(motion, effect, metric, QuantizeConfig.of(None, None))
    assert free.quality == 50
    assert bits_a_frame(free.values) > DEFAULT_MOST_BITS >= bits_a_frame(bound.values)
    assert bound.quality < 50
    few = quantize_within(motion, 0.05 * effect, metric, QuantizeConfig.of(None, None))
    assert few.quality == 62 and bits_a_frame(few.values) <= DEFAULT_MOST_BITS
    assert np.allclose(bound.steps, motion_steps(effect, QuantizeConfig(quality=bound.quality)))


def waves(period: float, frames: int = 100) -> np.ndarray:
    return np.cos(2 * np.pi / period * np.arange(frames))[:, None].astype(np.float32)


@pytest.mark.parametrize(("period", "kept"), [(10, 0.972), (4, 0.556), (2, 0.238)])
def test_smoothing_takes_jitter_and_leaves_movement(period: float, kept: float) -> None:
    found = smoothed(waves(period), 0.2, np.zeros(100, bool))
    assert np.allclose(found[30:70], kept * waves(period)[30:70], atol=2e-3)


def test_smoothing_keeps_lines_and_stops_at_cuts() -> None:
    line = np.linspace(-3, 5, 50, dtype=np.float32)[:, None]
    assert np.allclose(smoothed(line, 0.2, np.zeros(50, bool)), line, atol=1e-5)
    jump = np.repeat([0.0, 1.0], 20)[:, None].astype(np.float32)
    cuts = np.arange(40) == 20
    assert np.allclose(smoothed(jump, 0.2, cuts), jump, atol=1e-6)
    assert abs(float(smoothed(jump, 0.2, np.zeros(40, bool))[19, 0])) > 0.05


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_smoothing_takes_short_clips(frames: int) -> None:
    motion = np.full((frames, 34), 2.0, np.float32)
    assert np.allclose(smoothed(motion, 0.2, np.zeros(frames, bool)), motion, atol=1e-5)


def test_a_number_that_hardly_shows_stays_near_its_value() -> None:
    motion, metric = wandering(), overlapping_metric()
    metric.normals[:, 5] *= 1e-7
    metric.normals[:, :, 5] *= 1e-7
    metric.normals[:, 5, 6] = metric.normals[:, 6, 5] = 3.0  # as rounding errors may leave it
    steps = np.full(34, 0.5, np.float32)
    values = quantize_motion(motion, steps, QuantizeConfig(), metric)
    assert float(np.abs(values[:, 5] - motion[:, 5] / 0.5).max()) < 10
