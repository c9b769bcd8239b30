"""StyleFlow: a conditional continuous flow over W+ rows that turns heads and changes attributes.

The log-density, needed only to train the flow from scratch, is left out: at inference it costs a
divergence per step and changes nothing. Source: Abdal et al. 2021, https://arxiv.org/abs/2008.02401,
section 4; layers after Grathwohl et al. 2019, https://arxiv.org/abs/1810.01367.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import torch
from torch import Tensor, nn

from sglat.errors import BundleError

FACE_CONDITIONS: Final = (
    *(f"light_{index}" for index in range(9)),
    *("gender", "glasses", "yaw", "pitch", "baldness", "beard", "age", "expression"),
)
# Means of the 1000 samples published with the method: the default for an unlabelled picture.
FACE_NEUTRAL: Final = (
    *(0.854, -0.151, 0.281, -0.042, -0.022, -0.014, -0.163, -0.005, 0.121),
    *(0.43, 0.17, 0.0, -2.9, 0.07, 0.08, 30.5, 0.74),
)
# W+ rows that an edit of an attribute keeps, first and one after the last (the method's own demo).
EDITED_ROWS: Final = {
    "light": (7, 12),
    "gender": (0, 8),
    "glasses": (2, 4),
    "yaw": (0, 4),
    "pitch": (0, 4),
    "baldness": (0, 6),
    "beard": (5, 10),
    "age": (4, 8),
    "expression": (4, 6),
}


@dataclass(frozen=True, kw_only=True)
class StyleFlowConfig:
    """Shape of the flow, meaning of its conditions, and how it is solved."""

    style_dim: int = 512
    """Width D of one W+ row."""
    hidden: tuple[int, ...] = (512,) * 5
    """Widths of the hidden layers of the velocity network."""
    conditions: tuple[str, ...] = FACE_CONDITIONS
    """Names of the conditions, in order."""
    neutral: tuple[float, ...] = FACE_NEUTRAL
    """Values of unspecified conditions; yaw and pitch in degrees, age in years."""
    pose_rows: tuple[int, int] = EDITED_ROWS["yaw"]
    """Rows that yaw and pitch change, first and one after the last."""
    solver: Literal["dopri5", "rk4"] = "dopri5"
    """`dopri5` chooses its steps by the error over the batch; `rk4` takes fixed steps, so that a
    sample's result does not depend on its neighbours."""
    tolerance: float = 1e-5
    """Absolute and relative, of `dopri5`."""
    steps: int = 16
    """Of `rk4`."""

    def __post_init__(self) -> None:
        if len(self.neutral) != len(self.conditions):
            raise BundleError(
                "bad-config",
                f"expected {len(self.conditions)} neutral values, got {len(self.neutral)}",
            )
        if self.steps < 1 or self.tolerance <= 0 or self.solver not in ("dopri5", "rk4"):
            raise BundleError("bad-config", f"cannot solve a flow with {self}")


class MovingBatchNorm(nn.Module):
    """Normalisation by stored statistics, invertible."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))  # logarithm of the scale
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def _log_gain(self) -> Tensor:
        return self.weight - 0.5 * torch.log(self.running_var + 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[..., D]`."""
        return (x - self.running_mean) * self._log_gain().exp() + self.bias

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        return (y - self.bias) * (-self._log_gain()).exp() + self.running_mean


class ConcatSquash(nn.Module):
    """Linear layer, gated and shifted by time and conditions."""

    def __init__(self, inputs: int, outputs: int, conditions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(1 + conditions, outputs)
        self.shift = nn.Linear(1 + conditions, outputs, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map `[N, L, I]` under a context `[N, 1, 1 + K]`, time first, to `[N, L, O]`."""
        y: Tensor = self.linear(x) * self.gate(context).sigmoid() + self.shift(context)
        return y


class StyleFlow(nn.Module):
    """Normalisation, continuous flow, normalisation; each W+ row flows alone."""

    def __init__(self, config: StyleFlowConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.style_dim, *config.hidden, config.style_dim)
        self.before = MovingBatchNorm(config.style_dim)
        self.layers = nn.ModuleList(
            ConcatSquash(inputs, outputs, len(config.conditions))
            for inputs, outputs in pairwise(widths)
        )
        self.sqrt_end_time = nn.Parameter(torch.ones(()))
        self.after = MovingBatchNorm(config.style_dim)

    def forward(self, ws: Tensor, conditions: Tensor) -> Tensor:
        """Map latents `[N, L, D]` with the conditions they have, `[N, K]`, to the prior's space."""
        z: Tensor = self.after(self._flow(self.before(ws), conditions, reverse=False))
        return z

    def inverse(self, z: Tensor, conditions: Tensor) -> Tensor:
        """Map `[N, L, D]` of the prior's space to latents with these conditions, `[N, K]`."""
        return self.before.inverse(self._flow(self.after.inverse(z), conditions, reverse=True))

    def edit(self, ws: Tensor, source: Tensor, target: Tensor, *, rows: tuple[int, int]) -> Tensor:
        """Return latents whose rows have other conditions; the other rows stay as they are.

        Args:
            ws: `[N, L, D]`; one, `[1, L, D]`, is edited for every target.
            source: conditions the latents have, `[N, K]`, or `[1, K]` of one latent.
            target: conditions of the result, `[N, K]`; differentiable.
            rows: first row and one after the last.
        """
        first, end = rows
        z, ws = (x.expand(len(target), -1, -1) for x in (self(ws[:, first:end], source), ws))
        moved = self.inverse(z, target)
        return torch.cat([ws[:, :first], moved, ws[:, end:]], dim=1)

    def turn(self, ws: Tensor, source_degrees: Tensor, target_degrees: Tensor) -> Tensor:
        """Return the latents with the head turned; only the pose rows differ.

        Args:
            ws: `[N, L, D]`; one, `[1, L, D]`, is turned to every target.
            source_degrees: yaw and pitch the latents have, `[N, 2]`, or `[1, 2]` of one latent.
            target_degrees: yaw and pitch of the result, `[N, 2]`; differentiable.
        """
        source, target = self.with_pose(source_degrees), self.with_pose(target_degrees)
        return self.edit(ws, source, target, rows=self.config.pose_rows)

    def with_pose(self, degrees: Tensor) -> Tensor:
        """Return neutral conditions `[N, K]` with this yaw and pitch, `[N, 2]`."""
        names = self.config.conditions
        neutral = degrees.new_tensor(self.config.neutral).expand(len(degrees), -1)
        columns = list(neutral.unbind(dim=1))
        columns[names.index("yaw")] = degrees[:, 0]
        columns[names.index("pitch")] = degrees[:, 1]
        return torch.stack(columns, dim=1)

    def velocity(self, time: Tensor, x: Tensor, conditions: Tensor) -> Tensor:
        """Return dx/dt `[N, L, D]` at a time `[]`, under conditions `[N, K]`."""
        stamp = time.to(x).expand(len(conditions), 1)
        context = torch.cat([stamp, conditions], dim=1)[:, None]
        for layer in self.layers[:-1]:
            x = layer(x, context).tanh()
        last: Tensor = self.layers[-1](x, context)
        return last

    def _flow(self, x: Tensor, conditions: Tensor, *, reverse: bool) -> Tensor:
        start, end = self.sqrt_end_time.new_zeros(()), self.sqrt_end_time.square()
        if reverse:
            start, end = end, start
        if self.config.solver == "rk4":
            return self._runge_kutta(x, conditions, start, end)
        # The package makes its coefficients when imported; as inference tensors they would break
        # every later gradient.
        with_gradient = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(with_gradient):
            from torchdiffeq import odeint  # slow to import, and fixed steps do without

            states: Tensor = odeint(
                lambda time, state: self.velocity(time, state, conditions),
                x,
                torch.stack([start, end]),
                rtol=self.config.tolerance,
                atol=self.config.tolerance,
                method="dopri5",
            )
            return states[-1]

    def _runge_kutta(self, x: Tensor, conditions: Tensor, start: Tensor, end: Tensor) -> Tensor:
        step = (end - start) / self.config.steps
        for index in range(self.config.steps):
            time = start + index * step
            k1 = self.velocity(time, x, conditions)
            k2 = self.velocity(time + step / 2, x + step / 2 * k1, conditions)
            k3 = self.velocity(time + step / 2, x + step / 2 * k2, conditions)
            k4 = self.velocity(time + step, x + step * k3, conditions)
            x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x
