"""An optimizer for ill-conditioned filters: steps of equal size in all directions of a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sglat.encoder.optim import orthogonal


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
