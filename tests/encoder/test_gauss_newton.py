"""The fast solver: right Jacobians, known numbers found again, resuming, few generator passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sglat.encoder.gauss_newton import (
    FastSolver,
    SolverConfig,
    _Corrected,
    motion_jacobian,
    take_anchors,
)
from sglat.encoder.manifold import Manifold
from sglat.encoder.paper_solver import sensitivity_rates
from sglat.encoder.residuals import PixelResidual
from tests.bundles.tiny import make_tiny_bundle
from tests.support.tolerances import JACOBIAN_RTOL

CONFIG = SolverConfig(
    iterations=12, weight_prior=1e-6, weight_inter_frame=0.2, scales=(1, 2), window=4, fresh=0
)


@pytest.fixture
def manifold(tmp_path: Path) -> Manifold:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    ws = torch.randn(6, 16, generator=torch.Generator().manual_seed(3))
    return Manifold(bundle, ws, torch.zeros(34))


@pytest.fixture
def solver(manifold: Manifold) -> FastSolver:
    residual = PixelResidual(torch.ones(1, 1, 16, 16), CONFIG.scales)
    anchors = take_anchors(manifold.render, torch.zeros(1, 34), (residual,))[0]
    return FastSolver(manifold.render, anchors, residual, CONFIG)


def true_motion(frames: int) -> Tensor:
    """A smooth small movement of all 34 numbers."""
    time = torch.arange(frames)[:, None] / frames
    phase = torch.arange(34)[None]
    return 0.04 * torch.sin(6 * time + phase)


def test_the_jacobian_agrees_with_finite_differences(manifold: Manifold) -> None:
    at = 0.05 * torch.randn(34, generator=torch.Generator().manual_seed(1))
    found = motion_jacobian(manifold.render, at)
    eye = torch.eye(34)
    step = 3e-4  # kinks of the leaky rectifiers disturb larger steps
    difference = manifold.render(at + step * eye) - manifold.render(at - step * eye)
    error = (found - difference / (2 * step)).norm() / found.norm()
    assert float(error) < JACOBIAN_RTOL


def test_known_numbers_are_found_again(manifold: Manifold, solver: FastSolver) -> None:
    with torch.no_grad():
        targets = manifold.render(true_motion(8))
        before = (manifold.render(torch.zeros(8, 34)) - targets).square().mean()
        solved = torch.cat(list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34))))
        after = (manifold.render(solved) - targets).square().mean()
    assert float(after) < 1e-3 * float(before)


def test_a_resumed_solution_is_the_same(manifold: Manifold, solver: FastSolver) -> None:
    with torch.no_grad():
        targets = manifold.render(true_motion(8))
    whole = list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34)))
    rest = list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34), done=whole[0]))
    assert torch.equal(whole[1], rest[0])


def error_left(manifold: Manifold, config: SolverConfig) -> tuple[float, int]:
    """Solve frames that are far from the only anchor; return the squared error and the passes."""
    residual = PixelResidual(torch.ones(1, 1, 16, 16), config.scales)
    far = torch.full((1, 34), 0.6)
    anchors = take_anchors(manifold.render, far, (residual,))[0]
    solver = FastSolver(manifold.render, anchors, residual, config)
    with torch.no_grad():
        targets = manifold.render(3 * true_motion(8))
        solved = torch.cat(list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34))))
        return float((manifold.render(solved) - targets).square().mean()), solver.passes


def test_fresh_jacobians_go_further_than_as_many_steps_with_distant_ones(
    manifold: Manifold,
) -> None:
    stale = replace(CONFIG, iterations=6, is_corrected=False)
    fresh = replace(stale, iterations=3, fresh=1, fresh_iterations=3)
    error_stale, passes_stale = error_left(manifold, stale)
    error_fresh, passes_fresh = error_left(manifold, fresh)
    assert error_fresh < 0.5 * error_stale
    assert passes_fresh == passes_stale + 2 * (1 + 34)  # two windows


def test_a_resumed_solution_with_fresh_jacobians_is_the_same(manifold: Manifold) -> None:
    config = replace(CONFIG, iterations=2, fresh=2, fresh_iterations=2)
    residual = PixelResidual(torch.ones(1, 1, 16, 16), config.scales)
    anchors = take_anchors(manifold.render, torch.zeros(1, 34), (residual,))[0]
    solver = FastSolver(manifold.render, anchors, residual, config)
    with torch.no_grad():
        targets = manifold.render(true_motion(8))
    whole = list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34)))
    rest = list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34), done=whole[0]))
    assert torch.equal(whole[1], rest[0])


def test_a_corrected_jacobian_says_what_the_steps_did(manifold: Manifold) -> None:
    residual = PixelResidual(torch.ones(1, 1, 16, 16), (1,))
    motion = torch.stack([torch.zeros(34), torch.full((34,), 0.1)])
    (anchors,) = take_anchors(manifold.render, motion, (residual,))
    units = torch.linspace(0.5, 2, 34)
    corrected = _Corrected(anchors, torch.tensor([1, 0]), units)
    generator = torch.Generator().manual_seed(5)
    for _ in range(2):
        step = torch.randn(2, 34, generator=generator)
        seen = torch.randn(2, anchors.jacobians.shape[1], generator=generator)
        corrected.correct(step, seen)
        assert torch.allclose(corrected.times(step), seen, atol=1e-4)
    eye = torch.eye(34)
    explicit = torch.stack(
        [corrected.times(column.expand(2, -1)) for column in eye], dim=2
    )  # [2, R, 34]
    normals = explicit.transpose(1, 2) @ explicit
    assert torch.allclose(corrected.normals, normals, rtol=1e-3, atol=1e-3)
    gradient = (explicit * seen[..., None]).sum(1)
    assert torch.allclose(corrected.transposed(seen), gradient, rtol=1e-3, atol=1e-3)


def test_inactive_numbers_stay(manifold: Manifold) -> None:
    config = SolverConfig(iterations=3, active=(0, 1), scales=(1,))
    residual = PixelResidual(torch.ones(1, 1, 16, 16), config.scales)
    anchors = take_anchors(manifold.render, torch.zeros(1, 34), (residual,))[0]
    with torch.no_grad():
        targets = manifold.render(true_motion(4))
    solver = FastSolver(manifold.render, anchors, residual, config)
    solved = torch.cat(list(solver.solve(lambda a, b: targets[a:b], torch.zeros(4, 34))))
    assert float(solved[:, 2:].abs().max()) == 0.0
    assert float(solved[:, :2].abs().max()) > 0.0


def test_a_frame_costs_few_passes(manifold: Manifold, solver: FastSolver) -> None:
    with torch.no_grad():
        targets = manifold.render(true_motion(8))
    list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34)))
    assert solver.passes <= 8 * (CONFIG.iterations + 2)


def test_rates_fall_with_sensitivity_within_the_methods_range() -> None:
    rates = sensitivity_rates(torch.tensor([0.0, 0.5, 1.0, 2.0]))
    assert rates.tolist() == sorted(rates.tolist(), reverse=True)
    assert float(rates.max()) == 1.0
    assert float(rates.min()) == pytest.approx(0.223, abs=1e-3)
