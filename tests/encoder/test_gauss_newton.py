"""The fast solver: right Jacobians, known motion found again, resuming, few generator passes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.encoder import jacobians as jacobians_module
from sglat.encoder.gauss_newton import FastSolver, SolverConfig, _Corrected
from sglat.encoder.jacobians import Render, motion_jacobian, secant_jacobians, take_jacobians
from sglat.encoder.losses import PixelResidual
from sglat.encoder.paper_solver import sensitivity_rates
from tests.bundles.tiny import make_tiny_bundle
from tests.support.tolerances import JACOBIAN_RTOL

CONFIG = SolverConfig(iterations=12, weight_prior=1e-6, window=4, fresh=0)
SCALES = (1, 2)


@pytest.fixture
def render(tmp_path: Path) -> Render:
    synthesizer = Synthesizer.of(make_tiny_bundle(tmp_path / "tiny"))
    ws = torch.randn(6, 16, generator=torch.Generator().manual_seed(3))
    return partial(synthesizer.render, Person(ws=ws, neutral=torch.zeros(34)))


@pytest.fixture
def solver(render: Render) -> FastSolver:
    residual = PixelResidual(torch.ones(1, 1, 16, 16), SCALES)
    jacobians = take_jacobians(render, torch.zeros(1, 34), (residual,))[0]
    return FastSolver(render, jacobians, residual, CONFIG)


def true_motion(frames: int) -> Tensor:
    """A smooth small movement of all 34 values."""
    time = torch.arange(frames)[:, None] / frames
    phase = torch.arange(34)[None]
    return 0.04 * torch.sin(6 * time + phase)


def test_the_jacobian_agrees_with_finite_differences(render: Render) -> None:
    at = 0.05 * torch.randn(34, generator=torch.Generator().manual_seed(1))
    found = motion_jacobian(render, at)
    eye = torch.eye(34)
    step = 3e-4  # kinks of the leaky rectifiers disturb larger steps
    difference = render(at + step * eye) - render(at - step * eye)
    error = (found - difference / (2 * step)).norm() / found.norm()
    assert float(error) < JACOBIAN_RTOL


def test_known_motion_is_found_again(render: Render, solver: FastSolver) -> None:
    with torch.no_grad():
        targets = render(true_motion(8))
        before = (render(torch.zeros(8, 34)) - targets).square().mean()
        solved = torch.cat(list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34))))
        after = (render(solved) - targets).square().mean()
    assert float(after) < 1e-3 * float(before)


def test_a_resumed_solution_is_the_same(render: Render, solver: FastSolver) -> None:
    with torch.no_grad():
        targets = render(true_motion(8))
    whole = list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34)))
    rest = list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34), first=4))
    assert torch.equal(whole[1], rest[0])


def error_left(render: Render, config: SolverConfig) -> tuple[float, int]:
    """Solve frames far from the only linearisation point; return squared error and passes."""
    residual = PixelResidual(torch.ones(1, 1, 16, 16), SCALES)
    far = torch.full((1, 34), 0.6)
    jacobians = take_jacobians(render, far, (residual,))[0]
    solver = FastSolver(render, jacobians, residual, config)
    with torch.no_grad():
        targets = render(3 * true_motion(8))
        solved = torch.cat(list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34))))
        return float((render(solved) - targets).square().mean()), solver.passes


def test_fresh_jacobians_go_further_than_as_many_steps_with_distant_ones(
    render: Render,
) -> None:
    stale = replace(CONFIG, iterations=6, is_corrected=False)
    fresh = replace(stale, iterations=3, fresh=1, fresh_iterations=3)
    error_stale, passes_stale = error_left(render, stale)
    error_fresh, passes_fresh = error_left(render, fresh)
    assert error_fresh < 0.5 * error_stale
    assert passes_fresh == passes_stale + 2 * (1 + 34)  # two windows


def test_a_resumed_solution_with_fresh_jacobians_is_the_same(render: Render) -> None:
    config = replace(CONFIG, iterations=2, fresh=2, fresh_iterations=2)
    residual = PixelResidual(torch.ones(1, 1, 16, 16), SCALES)
    jacobians = take_jacobians(render, torch.zeros(1, 34), (residual,))[0]
    solver = FastSolver(render, jacobians, residual, config)
    with torch.no_grad():
        targets = render(true_motion(8))
    whole = list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34)))
    rest = list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34), first=4))
    assert torch.equal(whole[1], rest[0])


def test_a_corrected_jacobian_predicts_the_effect_of_the_steps(render: Render) -> None:
    residual = PixelResidual(torch.ones(1, 1, 16, 16), (1,))
    motion = torch.stack([torch.zeros(34), torch.full((34,), 0.1)])
    (jacobians,) = take_jacobians(render, motion, (residual,))
    units = torch.linspace(0.5, 2, 34)
    corrected = _Corrected(jacobians, motion.flip(0), units)
    generator = torch.Generator().manual_seed(5)
    for _ in range(2):
        step = torch.randn(2, 34, generator=generator)
        seen = torch.randn(2, jacobians.matrices.shape[1], generator=generator)
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


def test_inactive_values_stay(render: Render) -> None:
    config = SolverConfig(iterations=3, active=(0, 1))
    residual = PixelResidual(torch.ones(1, 1, 16, 16), SCALES)
    jacobians = take_jacobians(render, torch.zeros(1, 34), (residual,))[0]
    with torch.no_grad():
        targets = render(true_motion(4))
    solver = FastSolver(render, jacobians, residual, config)
    solved = torch.cat(list(solver.solve(lambda a, b: targets[a:b], torch.zeros(4, 34))))
    assert float(solved[:, 2:].abs().max()) == 0.0
    assert float(solved[:, :2].abs().max()) > 0.0


def test_a_frame_costs_few_passes(render: Render, solver: FastSolver) -> None:
    with torch.no_grad():
        targets = render(true_motion(8))
    list(solver.solve(lambda a, b: targets[a:b], torch.zeros(8, 34)))
    assert solver.passes <= 8 * (CONFIG.iterations + 2)


def test_rates_fall_with_sensitivity_within_the_methods_range() -> None:
    rates = sensitivity_rates(torch.tensor([0.0, 0.5, 1.0, 2.0]))
    assert rates.tolist() == sorted(rates.tolist(), reverse=True)
    assert float(rates.max()) == 1.0
    assert float(rates.min()) == pytest.approx(0.223, abs=1e-3)


def test_secants_of_small_changes_are_the_derivatives(render: Render) -> None:
    residual = PixelResidual(torch.ones(1, 1, 16, 16), SCALES)
    at = 0.05 * torch.randn(2, 34, generator=torch.Generator().manual_seed(1))
    told: list[tuple[int, int]] = []
    change = torch.full((34,), 3e-4)
    found = secant_jacobians(
        render, at, residual, change, lambda done, total: told.append((done, total))
    )
    exact = take_jacobians(render, at, (residual,))[0]
    for name in ("matrices", "normals", "picture_effect"):
        mine, right = getattr(found, name), getattr(exact, name)
        assert mine.shape == right.shape
        assert float((mine - right).norm() / right.norm()) < 2 * JACOBIAN_RTOL
    assert told == [(1, 2), (2, 2)]


def test_a_jacobian_in_chunks_is_the_same() -> None:
    render, motion = smooth_render(), torch.linspace(-1, 1, 34)
    whole, parts = motion_jacobian(render, motion), motion_jacobian(render, motion, 5)
    torch.testing.assert_close(parts, whole)


def test_large_jacobians_are_kept_in_files_and_solve_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render, motion = smooth_render(), torch.linspace(-1, 1, 68).view(2, 34)
    residual = PixelResidual(torch.ones(1, 1, 8, 8), (1,))
    (inside,) = take_jacobians(render, motion, (residual,))
    monkeypatch.setattr(jacobians_module, "MOST_MATRIX_BYTES", 1000)
    (outside,) = take_jacobians(render, motion, (residual,), tangents=5, folder=tmp_path)
    assert isinstance(outside.matrices, list)
    assert not list(tmp_path.iterdir())  # the files have no names
    torch.testing.assert_close(torch.stack(outside.matrices), inside.matrices)
    torch.testing.assert_close(outside.normals, inside.normals)


def smooth_render() -> Render:
    directions = torch.randn(34, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return lambda motion: torch.einsum("nk,kchw->nchw", motion, directions).tanh()
