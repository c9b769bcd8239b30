"""Optimisation of weight deltas: Adam, and orthogonalised updates for low-rank factors.

Low-rank factors are tuned by Muon, orthogonalised updates, all else by Adam. `torch.optim.Muon`
takes matrices only; right factors have three axes (frequency, direction, input channel), whose
updates are orthogonalised here as one matrix with a row for each direction. It also iterates in
bfloat16, here it is float32. Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration
_ROUNDS: Final = 5
MOMENTUM: Final = 0.9


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors and singular values near 1."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / (torch.linalg.matrix_norm(wide) + 1e-12)
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrix else x.T


class FactorAdam(torch.optim.Adam):
    """Adam; parameters of groups with a true `is_factor` get orthogonalised updates instead.

    The root mean square of such an update is about its group's rate, as with Adam.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step; clears the gradients of factors."""
        for group in self.param_groups:
            for parameter in group["params"] if group.get("is_factor") else ():
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * self._change(parameter))
                    parameter.grad = None
        super().step(closure)

    def _change(self, parameter: Tensor) -> Tensor:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
        ahead = torch.lerp(gradient, state["exp_avg"], MOMENTUM)
        # left factors are [output, direction], right ones [frequency, direction, input]
        rows = ahead if ahead.ndim == 2 else ahead.transpose(0, 1).flatten(1)
        change = orthogonal(rows) * math.sqrt(max(rows.shape))
        if ahead.ndim == 2:
            return change
        return change.view(ahead.shape[1], ahead.shape[0], -1).transpose(0, 1)


def warm_up_and_fall(step: int, steps: int, warm_up: int) -> float:
    """Return the factor of the learning rate at a step: a linear rise to 1 over `warm_up` steps,
    and a linear fall to 0 over the second half."""
    return min(1.0, (step + 1) / warm_up, 2.0 * (steps - step) / steps)
