"""Following from frame to frame: known motion found again, jumps caught, state restored."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.encoder.jacobians import Render, take_jacobians
from sglat.encoder.losses import PixelResidual
from sglat.encoder.sequential import SequentialConfig, SequentialSolver
from tests.bundles.tiny import make_tiny_bundle

CONFIG = SequentialConfig(weight_prior=1e-6, anchor=0.0, most_shift=math.inf)
FRAMES = 12


@pytest.fixture
def render(tmp_path: Path) -> Render:
    synthesizer = Synthesizer.of(make_tiny_bundle(tmp_path / "tiny"))
    ws = torch.randn(6, 16, generator=torch.Generator().manual_seed(3))
    return partial(synthesizer.render, Person(ws=ws, neutral=torch.zeros(34)))


def solver_of(render: Render, config: SequentialConfig = CONFIG) -> SequentialSolver:
    residual = PixelResidual(torch.ones(1, 1, 16, 16), (1, 2))
    (jacobians,) = take_jacobians(render, torch.zeros(1, 34), (residual,))
    return SequentialSolver(render, jacobians, residual, config)


def true_motion() -> Tensor:
    """A smooth small movement of all 34 values."""
    time = torch.arange(FRAMES)[:, None] / FRAMES
    return 0.04 * torch.sin(6 * time + torch.arange(34)[None])


def estimates() -> Tensor:
    """The movement with a constant shift and noise, as landmarks give it."""
    random = torch.Generator().manual_seed(1)
    shift = 0.05 * torch.randn(34, generator=random)
    return true_motion() + shift + 0.01 * torch.randn(FRAMES, 34, generator=random)


@torch.no_grad()
def followed(
    solver: SequentialSolver, pictures: Tensor, starts: Tensor, *, is_reset: bool = False
) -> Tensor:
    motion = []
    for picture, start in zip(pictures, starts, strict=True):
        if is_reset:
            solver.reset()
        motion.append(solver.step(picture[None], start))
    return torch.stack(motion)


@torch.no_grad()
def error(render: Render, motion: Tensor, pictures: Tensor) -> Tensor:
    """Mean squared error by frame."""
    return (render(motion) - pictures).square().mean((1, 2, 3))


def pictures_of(render: Render, motion: Tensor) -> Tensor:
    with torch.no_grad():
        return render(motion)


def test_known_motion_is_found_again(render: Render) -> None:
    pictures, starts = pictures_of(render, true_motion()), estimates()
    motion = followed(solver_of(render), pictures, starts)
    before = error(render, starts, pictures).mean()
    assert float(error(render, motion, pictures).mean()) < 0.02 * float(before)


def test_one_step_a_frame_is_near_the_slow_way_of_many(render: Render) -> None:
    pictures, starts = pictures_of(render, true_motion()), estimates()
    fast = error(render, followed(solver_of(render), pictures, starts), pictures)
    slow_solver = solver_of(render, replace(CONFIG, first_steps=12))
    slow = error(render, followed(slow_solver, pictures, starts, is_reset=True), pictures)
    start = error(render, starts, pictures)
    assert float(slow.mean()) < float(fast.mean())
    assert float((fast - slow).mean()) < 0.02 * float(start.mean())


def test_the_estimate_holds_what_another_background_would_drive_away(render: Render) -> None:
    pictures, starts = pictures_of(render, true_motion()), estimates()
    pictures[:, :, :, 8:] += 1.5  # the person does not explain it

    def farthest(config: SequentialConfig) -> float:
        motion = followed(solver_of(render, config), pictures, starts)
        return float((motion - true_motion()).norm(dim=1).max())

    held = farthest(replace(CONFIG, anchor=1.0, most_shift=0.5))
    assert held < 0.5 * farthest(CONFIG)


def jump() -> tuple[Tensor, Tensor]:
    """Motion that leaps in the middle, and estimates that miss it."""
    leap = 0.04 * torch.randn(34, generator=torch.Generator().manual_seed(9))
    after = (torch.arange(FRAMES) >= FRAMES // 2)[:, None] * leap
    return true_motion() + after, estimates()


def test_a_jump_is_caught(render: Render) -> None:
    motion, starts = jump()
    pictures = pictures_of(render, motion)
    caught = followed(solver_of(render), pictures, starts)
    blind = followed(solver_of(render, replace(CONFIG, surprise=1e9)), pictures, starts)
    at = FRAMES // 2
    errors = [float(error(render, found, pictures)[at]) for found in (caught, blind)]
    assert errors[0] < 0.5 * errors[1]


def test_a_lost_solution_is_left_for_the_estimate(render: Render) -> None:
    pictures, starts = pictures_of(render, true_motion()), estimates()
    at, errors = FRAMES // 2, []
    for config in (CONFIG, replace(CONFIG, surprise=1e9)):
        solver = solver_of(render, config)
        followed(solver, pictures[:at], starts[:at])
        assert solver.last is not None
        solver.last = solver.last[0] + 0.1, solver.last[1]
        found = followed(solver, pictures[at:], starts[at:])
        errors.append(float(error(render, found, pictures[at:])[0]))
    assert errors[0] < 0.1 * errors[1]


def test_a_reset_forgets_the_frame_before(render: Render) -> None:
    motion, starts = true_motion(), estimates()
    pictures = pictures_of(render, motion)
    at, found = FRAMES // 2, []
    for order in (range(at), range(at - 1, -1, -1)):  # the same shifts, another frame before
        solver = solver_of(render)
        solver.resume(motion[list(order)], starts[list(order)], [1.0] * at)
        solver.reset()
        found.append(solver.step(pictures[at : at + 1], starts[at]))
        solver.resume(motion[list(order)], starts[list(order)], [1.0] * at)
        found.append(solver.step(pictures[at : at + 1], starts[at]))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[1], found[3])


def test_a_resumed_sweep_is_the_same(render: Render) -> None:
    pictures, starts = pictures_of(render, true_motion()), estimates()
    solver = solver_of(render)
    first = followed(solver, pictures[:5], starts[:5])
    losses = list(solver.losses)
    rest = followed(solver, pictures[5:], starts[5:])
    again = solver_of(render)
    again.resume(first, starts[:5], losses)
    assert torch.equal(followed(again, pictures[5:], starts[5:]), rest)


def test_what_a_mask_hides_is_not_compared(render: Render) -> None:
    pictures, starts = pictures_of(render, true_motion()), estimates()
    mask = torch.ones(1, 1, 16, 16)
    mask[..., 10:] = 0
    hidden = pictures.clone()
    hidden[..., 10:] = 1.0
    with torch.no_grad():
        found = [solver_of(render).step(shown[:1], starts[0], mask) for shown in (pictures, hidden)]
    assert torch.allclose(found[0], found[1], atol=1e-5)
