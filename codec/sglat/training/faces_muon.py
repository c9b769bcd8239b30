"""An optimizer for ill-conditioned filters: steps of equal size in all directions of a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that draws singular values towards 1
_ROUNDS = 5


class Muon(torch.optim.AdamW):
    """Momentum made orthogonal for matrices and filters; AdamW for all other parameters.

    A step's root mean square is the learning rate, as with AdamW.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95):
        every = list(parameters)
        self.matrices = [p for p in every if p.ndim >= 2]
        self.momentum = momentum
        super().__init__(every, lr=lr, weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step."""
        rate = self.param_groups[0]["lr"]
        for parameter in self.matrices:
            if parameter.grad is None:
                continue
            gradient = parameter.grad.flatten(1)
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(gradient)
            state["momentum"].lerp_(gradient, 1 - self.momentum)
            ahead = torch.lerp(gradient, state["momentum"], self.momentum)
            change = orthogonal(ahead) * max(ahead.shape) ** 0.5
            parameter.sub_(rate * change.view_as(parameter))
            parameter.grad = None
        super().step(closure)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors and singular values near 1."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / (torch.linalg.matrix_norm(wide) + 1e-12)
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrix else x.T
