"""Orthogonalised updates of factors, and the learning rate over an optimisation."""

from __future__ import annotations

import pytest
import torch

from sglat.encoder.optim import FactorAdam, orthogonal, warm_up_and_fall


def test_an_orthogonal_matrix_has_singular_values_near_one() -> None:
    torch.manual_seed(3)
    skewed = torch.randn(24, 60) * torch.logspace(-1, 1, 24)[:, None]
    for matrix in (skewed, skewed.T):
        found = torch.linalg.svdvals(orthogonal(matrix))
        assert float(found.min()) > 0.5 and float(found.max()) < 1.3


def test_a_factor_steps_by_its_rate_in_all_directions() -> None:
    torch.manual_seed(4)
    factor = torch.zeros(4, 300, requires_grad=True)
    optimizer = FactorAdam([{"params": [factor], "lr": 0.02, "is_factor": True}])
    factor.grad = torch.randn(4, 300) * torch.tensor([1.0, 0.3, 0.1, 0.03])[:, None]
    optimizer.step()
    assert float(factor.detach().square().mean().sqrt()) == pytest.approx(0.02, rel=0.3)
    found = torch.linalg.svdvals(factor.detach())
    assert float(found.min() / found.max()) > 0.5
    assert factor.grad is None


def test_a_factor_of_filters_steps_by_directions() -> None:
    filters = torch.nn.Parameter(torch.zeros(9, 4, 6))
    optimizer = FactorAdam([{"params": [filters], "lr": 0.1, "is_factor": True}])
    filters.grad = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(0))
    filters.grad *= torch.tensor([1.0, 0.3, 0.1, 0.03])[:, None]
    optimizer.step()
    rows = filters.detach().transpose(0, 1).flatten(1)
    assert rows.square().mean().sqrt() == pytest.approx(0.1, rel=0.3)
    found = torch.linalg.svdvals(rows)
    assert float(found.min() / found.max()) > 0.5


def test_other_parameters_step_as_by_adam() -> None:
    torch.manual_seed(5)
    mine, theirs = torch.zeros(7, requires_grad=True), torch.zeros(7, requires_grad=True)
    optimizer = FactorAdam([{"params": [mine], "lr": 0.1, "is_factor": False}])
    adam = torch.optim.Adam([theirs], lr=0.1)
    for _ in range(3):
        mine.grad = torch.randn(7)
        theirs.grad = mine.grad.clone()
        optimizer.step()
        adam.step()
    assert torch.equal(mine, theirs) and float(mine.detach().abs().min()) > 0


def test_a_factor_without_gradient_stays() -> None:
    factor = torch.ones(2, 5, requires_grad=True)
    FactorAdam([{"params": [factor], "lr": 0.1, "is_factor": True}]).step()
    assert torch.equal(factor.detach(), torch.ones(2, 5))


def test_the_rate_rises_over_the_warm_up_and_falls_from_the_middle_on() -> None:
    factors = [warm_up_and_fall(step, 100, 10) for step in range(100)]
    assert factors[:10] == [(step + 1) / 10 for step in range(10)]
    assert set(factors[10:51]) == {1.0}
    assert factors[50:] == sorted(factors[50:], reverse=True)
    assert 0 < factors[-1] < 0.03
