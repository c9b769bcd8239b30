"""Head pose as a latent edit: yaw and pitch in degrees move the coarse rows of W+.

The scheme is StyleFlow's (Abdal et al. 2021, https://arxiv.org/abs/2008.02401, section 4): run a
conditional flow forward under the conditions a latent has, backward under the target's. Here two
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

Modulation = tuple[Tensor, Tensor]
"""Gate and shift of a layer's outputs, `[N, 1, O]`."""


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

    def modulation(self, context: Tensor) -> Modulation:
        """Return the gate and the shift of time and conditions, `[..., 3]`."""
        return torch.sigmoid(self.gate(context)), self.shift(context)

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """Map `[..., I]` to `[..., O]`."""
        gate, shift = modulation
        return torch.addcmul(shift, self.linear(x), gate)


class PoseFlow(nn.Module):
    """Turns ID latents to a target yaw and pitch."""

    def __init__(self, config: PoseFlowConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.style_dim, *config.hidden, config.style_dim)
        self.layers = nn.ModuleList(ConcatSquash(a, b, 3) for a, b in itertools.pairwise(widths))
        last = self.layers[-1]
        for tensor in last.parameters():  # starts as the identity
            nn.init.zeros_(tensor)

    def _integrate(self, x: Tensor, conditions: Tensor, *, backward: bool) -> Tensor:
        """Flow rows `[N, R, D]` from time 0 to 1, or backward, under `[N, 2]`."""
        moments = 2 * self.config.steps + 1  # each step evaluates its start, middle and end
        times = torch.linspace(0, 1, moments, dtype=x.dtype, device=x.device)
        if backward:
            times = times.flip(0)
        modulations = self._modulations(times, conditions)
        step = (-1 if backward else 1) / self.config.steps
        for at in range(0, moments - 1, 2):
            begin, middle, end = modulations[at : at + 3]
            k1 = self._velocity(x, begin)
            k2 = self._velocity(x + step / 2 * k1, middle)
            k3 = self._velocity(x + step / 2 * k2, middle)
            k4 = self._velocity(x + step * k3, end)
            x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x

    def _modulations(self, times: Tensor, conditions: Tensor) -> list[list[Modulation]]:
        """Return each layer's modulation at every time `[S]` under conditions `[N, 2]`."""
        context = torch.cat(
            [
                times[:, None, None].expand(-1, len(conditions), 1),
                conditions.expand(len(times), -1, -1),
            ],
            -1,
        )[:, :, None]
        layers = [layer.modulation(context) for layer in self.layers]  # type: ignore[operator]
        return [[(gate[at], shift[at]) for gate, shift in layers] for at in range(len(times))]

    def _velocity(self, x: Tensor, modulations: list[Modulation]) -> Tensor:
        for index, (layer, modulation) in enumerate(zip(self.layers, modulations, strict=True)):
            x = layer(x, modulation) if index == 0 else layer(torch.tanh(x), modulation)
        return x

    def turn(self, ws: Tensor, source_degrees: Tensor, target_degrees: Tensor) -> Tensor:
        """Return the latents with the head turned.

        Args:
            ws: W+ latents, `[N, L, D]`; one, `[1, L, D]`, is turned to every target.
            source_degrees: yaw and pitch the latents have, `[N, 2]`, or `[1, 2]` of one latent.
            target_degrees: yaw and pitch of the result, `[N, 2]`; differentiable.

        Returns:
            Latents `[N, L, D]`; only the first `config.rows` rows differ.
        """
        rows = self.config.rows
        count = len(target_degrees)
        upright = self._integrate(ws[:, :rows], source_degrees / _DEGREES, backward=False)
        turned = self._integrate(
            upright.expand(count, -1, -1), target_degrees / _DEGREES, backward=True
        )
        return torch.cat([turned, ws[:, rows:].expand(count, -1, -1)], dim=1)
