"""StyleFlow: invertible, differentiable in the pose, edits only its rows, any size."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from sglat.errors import BundleError
from sglat.networks.layouts import read_styleflow, styleflow_names
from sglat.networks.pose_flow import StyleFlow, StyleFlowConfig
from tests.support.tolerances import FLOW_GRADIENT_RTOL, FLOW_ROUND_TRIP_ATOL

Solver = Literal["dopri5", "rk4"]
SOLVERS: tuple[Solver, ...] = ("dopri5", "rk4")


def small_flow(solver: Solver, **changes: object) -> StyleFlow:
    config = StyleFlowConfig(
        style_dim=12,
        hidden=(16, 16),
        conditions=("yaw", "pitch"),
        neutral=(0.0, 0.0),
        solver=solver,
        **changes,  # type: ignore[arg-type]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        flow = StyleFlow(config).eval()
        flow.before.running_mean.normal_()
        flow.before.weight.data.normal_(std=0.2)
        flow.after.bias.data.normal_(std=0.2)
        for layer in flow.layers:  # conditions are degrees
            for context in (layer.gate, layer.shift):
                context.weight.data[:, 1:] *= 0.1
    return flow


def latents(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 8, 12, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("solver", SOLVERS)
@torch.inference_mode()
def test_reverse_undoes_forward(solver: Solver) -> None:
    flow = small_flow(solver, tolerance=1e-8, steps=32).double()
    conditions = torch.tensor([[10.0, -5.0], [-20.0, 3.0]]).double()
    ws = latents().double()
    back = flow.inverse(flow(ws, conditions), conditions)
    torch.testing.assert_close(back, ws, rtol=0, atol=FLOW_ROUND_TRIP_ATOL)


@pytest.mark.parametrize("solver", SOLVERS)
@torch.inference_mode()
def test_turning_changes_the_pose_rows_only(solver: Solver) -> None:
    turned = small_flow(solver).turn(latents(), torch.zeros(2, 2), torch.full((2, 2), 15.0))
    assert torch.equal(turned[:, 4:], latents()[:, 4:])
    assert float((turned[:, :4] - latents()[:, :4]).abs().amax(dim=2).min()) > 0.01


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradient_in_yaw_and_pitch_equals_finite_differences(solver: Solver) -> None:
    flow = small_flow(solver, tolerance=1e-10).double().requires_grad_(False)
    ws = latents().double()
    source = torch.tensor([[2.0, 1.0], [-3.0, 0.0]], dtype=torch.float64)
    weights = torch.randn(ws.shape, generator=torch.Generator().manual_seed(4)).double()

    def value(target: torch.Tensor) -> torch.Tensor:
        return (flow.turn(ws, source, target) * weights).sum()

    target = torch.tensor([[8.0, -4.0], [5.0, 9.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(target), target)
    assert float(gradient.abs().min()) > 0
    step = 1e-4
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(2)).tolist():
        shift = torch.zeros_like(target)
        shift[tuple(index)] = step
        with torch.no_grad():
            slope = (value(target + shift) - value(target - shift)) / (2 * step)
        assert float(gradient[tuple(index)]) == pytest.approx(float(slope), rel=FLOW_GRADIENT_RTOL)


@torch.inference_mode()
def test_fixed_steps_do_not_mix_samples() -> None:
    flow = small_flow("rk4")
    source, target = torch.zeros(2, 2), torch.tensor([[9.0, 1.0], [-14.0, 6.0]])
    together = flow.turn(latents(), source, target)
    alone = torch.cat(
        [flow.turn(latents()[n : n + 1], source[:1], target[n : n + 1]) for n in range(2)]
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_latent_serves_all_targets(solver: Solver) -> None:
    flow, ws = small_flow(solver), latents()[:1]
    source, target = torch.tensor([[4.0, -2.0]]), torch.tensor([[9.0, 1.0], [-14.0, 6.0]])
    found = flow.turn(ws, source, target)
    wanted = flow.turn(ws.expand(2, -1, -1), source.expand(2, -1), target)
    assert not wanted[0].allclose(wanted[1])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("solver", SOLVERS)
def test_turning_is_its_two_halves(solver: Solver) -> None:
    flow, ws = small_flow(solver), latents(1)
    source, target = torch.tensor([[3.0, -2.0]]), torch.tensor([[10.0, 4.0], [-5.0, 1.0]])
    halves = flow.posed(flow.pose_free(ws, source), ws, target)
    assert torch.equal(halves, flow.turn(ws, source, target))
    assert not torch.equal(halves[0], halves[1])


@torch.inference_mode()
def test_fixed_steps_approach_the_adaptive_solution() -> None:
    conditions = torch.tensor([[10.0, -5.0], [-20.0, 3.0]])
    exact = small_flow("dopri5", tolerance=1e-9).double()(latents().double(), conditions.double())
    errors = []
    for steps in (2, 4, 8):
        flow = small_flow("rk4", steps=steps).double()
        found = flow(latents().double(), conditions.double())
        errors.append(float((found - exact).abs().max()))
    assert errors[1] < errors[0] / 8 and errors[2] < errors[1] / 8  # fourth order: 16 in the limit


def test_neutral_conditions_fill_in_what_nobody_gives() -> None:
    with torch.device("meta"):
        flow = StyleFlow(StyleFlowConfig())
    conditions = flow.with_pose(torch.tensor([[7.0, -3.0]]))
    assert conditions.shape == (1, 17)
    assert conditions[0, 11:13].tolist() == [7.0, -3.0]
    assert float(conditions[0, 15]) == 30.5


def test_a_config_with_too_few_neutral_values_is_refused() -> None:
    with pytest.raises(BundleError, match="expected 17 neutral values, got 1"):
        StyleFlowConfig(neutral=(0.0,))


def test_a_checkpoint_of_another_width_is_refused() -> None:
    config = small_flow("rk4").config
    tensors = {name.theirs: torch.zeros(name.shape) for name in styleflow_names(config)}
    read_styleflow(tensors, config, source="flow.pt")
    tensors["chain.0.bias"] = torch.zeros(13)
    with pytest.raises(
        BundleError, match=r"flow\.pt: expected chain\.0\.bias \[12\], found \[13\]"
    ):
        read_styleflow(tensors, config, source="flow.pt")
