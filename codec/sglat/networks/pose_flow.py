"""Head pose as a latent edit: yaw and pitch in degrees move the coarse rows of W+.

StyleFlow (Abdal et al. 2021, https://arxiv.org/abs/2008.02401, section 4; layers after Grathwohl et
al. 2019, https://arxiv.org/abs/1810.01367) runs a conditional continuous flow forward under the
conditions a latent has, backward under the target's. The embedded flow has the same scheme with two
conditions and a fixed-step solver, so that every machine takes the same steps. The log-density,
needed only to train StyleFlow from scratch, is left out: it costs a divergence per step
and changes nothing at inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import torch
from torch import Tensor, nn

from sglat.errors import BundleError

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
        """Return the gate and the shift of time and conditions, `[..., 1 + K]`, time first."""
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
        self.layers = nn.ModuleList(ConcatSquash(a, b, 3) for a, b in pairwise(widths))
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
        return self.posed(self.pose_free(ws, source_degrees), ws, target_degrees)

    def pose_free(self, ws: Tensor, source_degrees: Tensor) -> Tensor:
        """Return the first half of `turn`, the same for all poses of a person: `[N, R, D]`."""
        return self._integrate(ws[:, : self.config.rows], source_degrees / _DEGREES, backward=False)

    def posed(self, pose_free: Tensor, ws: Tensor, target_degrees: Tensor) -> Tensor:
        """Return the second half of `turn`: latents `[N, L, D]` at poses `[N, 2]`."""
        count = len(target_degrees)
        turned = self._integrate(
            pose_free.expand(count, -1, -1), target_degrees / _DEGREES, backward=True
        )
        return torch.cat([turned, ws[:, self.config.rows :].expand(count, -1, -1)], dim=1)


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


class StyleFlow(nn.Module):
    """Normalisation, continuous flow, normalisation; each W+ row flows alone."""

    def __init__(self, config: StyleFlowConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.style_dim, *config.hidden, config.style_dim)
        self.before = MovingBatchNorm(config.style_dim)
        self.layers = nn.ModuleList(
            ConcatSquash(inputs, outputs, 1 + len(config.conditions))
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
        return self._edited(self(ws[:, slice(*rows)], source), ws, target, rows)

    def _edited(self, z: Tensor, ws: Tensor, target: Tensor, rows: tuple[int, int]) -> Tensor:
        first, end = rows
        z, ws = (x.expand(len(target), -1, -1) for x in (z, ws))
        return torch.cat([ws[:, :first], self.inverse(z, target), ws[:, end:]], dim=1)

    def turn(self, ws: Tensor, source_degrees: Tensor, target_degrees: Tensor) -> Tensor:
        """Return the latents with the head turned, as `PoseFlow.turn`; only the pose rows
        differ."""
        return self.posed(self.pose_free(ws, source_degrees), ws, target_degrees)

    def pose_free(self, ws: Tensor, source_degrees: Tensor) -> Tensor:
        """Return the pose rows in the prior's space, `[N, R, D]`, the same for all poses of a
        person."""
        z: Tensor = self(ws[:, slice(*self.config.pose_rows)], self.with_pose(source_degrees))
        return z

    def posed(self, pose_free: Tensor, ws: Tensor, target_degrees: Tensor) -> Tensor:
        """Return latents `[N, L, D]` at poses `[N, 2]` from what `pose_free` returned."""
        rows = self.config.pose_rows
        return self._edited(pose_free, ws, self.with_pose(target_degrees), rows)

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
        for index, layer in enumerate(self.layers):
            modulation = layer.modulation(context)  # type: ignore[operator]
            x = layer(x if index == 0 else x.tanh(), modulation)
        return x

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
