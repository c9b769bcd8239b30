"""Head pose as a latent edit: yaw and pitch in degrees move the coarse rows of W+.

The scheme is StyleFlow's (Abdal et al. 2021, https://arxiv.org/abs/2008.02401, section 4): run a
conditional flow forward under the conditions a latent has, backward under the ones wanted. Here two
conditions and a fixed-step solver, so that every machine takes the same steps.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_DEGREES = (
    20.0  # conditions enter the network as degrees / 20, about one standard deviation and a half
)


@dataclass(frozen=True, kw_only=True)
class PoseFlowConfig:
    """Sizes of the embedded pose flow."""

    style_dim: int = 256
    """Width of a style row."""
    rows: int = 6
    """Leading W+ rows that the flow may change; each flows alone under the same condition."""
    hidden: tuple[int, ...] = (192, 192)
    """Widths of the hidden layers of the velocity network."""
    steps: int = 4
    """Runge-Kutta steps from time 0 to 1."""


class ConcatSquash(nn.Module):
    """Linear layer gated and shifted by time and conditions.

    Source: Grathwohl et al. 2019, https://arxiv.org/abs/1810.01367 (FFJORD), as StyleFlow uses it.
    """

    def __init__(self, inputs: int, outputs: int, context: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(context, outputs)
        self.shift = nn.Linear(context, outputs, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y: Tensor = self.linear(x) * torch.sigmoid(self.gate(context)) + self.shift(context)
        return y


class PoseFlow(nn.Module):
    """Turns ID latents to a wanted yaw and pitch."""

    def __init__(self, config: PoseFlowConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.style_dim, *config.hidden, config.style_dim)
        self.layers = nn.ModuleList(ConcatSquash(a, b, 3) for a, b in itertools.pairwise(widths))
        last = self.layers[-1]
        for tensor in last.parameters():  # starts as the identity
            nn.init.zeros_(tensor)

    def _velocity(self, time: float, x: Tensor, conditions: Tensor) -> Tensor:
        context = torch.cat([torch.full_like(conditions[..., :1], time), conditions], -1)
        for index, layer in enumerate(self.layers):
            x = layer(x, context)
            if index + 1 < len(self.layers):
                x = torch.tanh(x)
        return x

    def _integrate(self, x: Tensor, conditions: Tensor, start: float, end: float) -> Tensor:
        step = (end - start) / self.config.steps
        for index in range(self.config.steps):
            time = start + index * step
            k1 = self._velocity(time, x, conditions)
            k2 = self._velocity(time + step / 2, x + step / 2 * k1, conditions)
            k3 = self._velocity(time + step / 2, x + step / 2 * k2, conditions)
            k4 = self._velocity(time + step, x + step * k3, conditions)
            x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x

    def turn(self, ws: Tensor, source_degrees: Tensor, target_degrees: Tensor) -> Tensor:
        """Return the latents with the head turned.

        Args:
            ws: W+ latents, `[N, L, D]`.
            source_degrees: yaw and pitch the latents have, `[N, 2]`.
            target_degrees: yaw and pitch wanted, `[N, 2]`; differentiable.

        Returns:
            Latents `[N, L, D]`; only the first `config.rows` rows differ.
        """
        rows = self.config.rows
        moving = ws[:, :rows]
        source = (source_degrees / _DEGREES)[:, None].expand(-1, rows, -1)
        target = (target_degrees / _DEGREES)[:, None].expand(-1, rows, -1)
        upright = self._integrate(moving, source, 0.0, 1.0)
        turned = self._integrate(upright, target, 1.0, 0.0)
        return torch.cat([turned, ws[:, rows:]], dim=1)
