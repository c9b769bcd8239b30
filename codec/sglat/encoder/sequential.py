"""Motion of a known person frame after frame: one Gauss-Newton step each from the frame before.

Neighbouring frames differ little, so the solution of one, moved by the change of the landmark
estimate, is within one step of the next. Offline the sweep gives the start of the batched solver;
live it is all that is solved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sglat.bitstream.records import FIRST_CONTROL
from sglat.encoder.jacobians import Jacobians, Render
from sglat.encoder.losses import Residual, shown_through
from sglat.encoder.start_motion import SIGMA_DEGREES


@dataclass(frozen=True, kw_only=True)
class SequentialConfig:
    """How a person is followed from frame to frame."""

    damping: float = 0.1
    """Relative to the diagonal of the normal matrix."""
    weight_prior: float = 2e-3
    """Pull towards the predicted motion, relative to the mean diagonal."""
    pull: float = 0.1
    """Share of the way from the predicted motion to the shifted estimate."""
    anchor: float = 0.05
    """Pull of the solution towards the shifted estimate, relative to the diagonal: what the person
    cannot explain, such as another background, must not drive the motion away."""
    most_shift: float = 0.5
    """Most shift from estimate to solution of a value, in units of `comparable`."""
    first_steps: int = 6
    """At the first frame of a scene, from the shifted estimate."""
    memory: int = 50
    """Frames over which the shift from estimate to solution is the median."""
    lasting: int = 250
    """Frames over which losses are compared."""
    surprise: float = 3.0
    """Loss of the prediction, in lower quartiles of the latest ones, from which the estimate is
    tried instead, and further steps are taken."""
    rescue_steps: int = 2
    """Steps after a surprise."""


class SequentialSolver:
    """Follows one person; its state is the frame before.

    Args:
        render: of the known person.
        jacobians: of the residual at typical motions of the person.
        residual: compared between rendering and picture.
        config: see `SequentialConfig`.
    """

    def __init__(
        self, render: Render, jacobians: Jacobians, residual: Residual, config: SequentialConfig
    ) -> None:
        self.render, self.jacobians = render, jacobians
        self.residual, self.config = residual, config
        self.units = jacobians.picture_effect
        self.prior = config.weight_prior * jacobians.normals.diagonal(dim1=1, dim2=2).mean()
        self.identity = torch.eye(jacobians.motion.shape[1], device=jacobians.motion.device)
        self.most_shift = torch.full_like(self.units, config.most_shift)
        self.most_shift[:FIRST_CONTROL] *= SIGMA_DEGREES
        self.last: tuple[Tensor, Tensor] | None = None
        self.shifts: deque[Tensor] = deque(maxlen=config.memory)
        self.losses: deque[float] = deque(maxlen=config.lasting)
        """Of the predictions of the latest frames."""

    def reset(self) -> None:
        """Forget the frame before, as after a cut or a lost face; the person stays the same."""
        self.last = None

    def resume(self, motion: Tensor, estimates: Tensor, losses: Iterable[float]) -> None:
        """Restore the state after frames with motion and estimates `[n, 34]` and some losses."""
        self.last = motion[-1], estimates[-1]
        self.shifts.extend(motion - estimates)
        self.losses.extend(losses)

    @torch.no_grad()
    def step(self, picture: Tensor, estimate: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the motion `[34]` of the next frame.

        Args:
            picture: aligned crop, `[1, 3, H, W]` in [-1, 1].
            estimate: of the motion from landmarks alone, `[34]`.
            mask: `[1, 1, H, W]`, 0 where nothing is compared, or None.
        """
        config = self.config
        goal = _Goal(picture=picture, mask=mask, wanted=self.residual(picture)[0])
        shifted = estimate + self._shift(estimate)
        if self.last is None:
            motion, loss = self._refined(shifted, shifted, goal, config.first_steps)
        else:
            before, estimate_before = self.last
            guess = before + (estimate - estimate_before)
            guess = guess + config.pull * (shifted - guess)
            residual = self._difference(guess, goal)
            loss = float(residual.square().sum())
            if self.losses and loss > config.surprise * float(np.quantile(self.losses, 0.25)):
                other = self._difference(shifted, goal)
                if float(other.square().sum()) < loss:
                    guess = shifted
                motion, loss = self._refined(guess, shifted, goal, config.rescue_steps)
            else:
                motion = guess + self._move(guess, shifted, residual, config.damping)
        self.last = motion, estimate
        self.shifts.append(motion - estimate)
        self.losses.append(loss)
        return motion

    def _shift(self, estimate: Tensor) -> Tensor:
        if not self.shifts:
            return torch.zeros_like(estimate)
        usual = torch.stack(tuple(self.shifts)).median(0).values
        return torch.clamp(usual, -self.most_shift, self.most_shift)

    def _difference(self, motion: Tensor, goal: _Goal) -> Tensor:
        shown = self.render(motion[None])
        if goal.mask is not None:
            shown = shown_through(shown, goal.picture, goal.mask)
        return self.residual(shown)[0] - goal.wanted

    def _move(self, motion: Tensor, anchor: Tensor, residual: Tensor, damping: float) -> Tensor:
        """Return the damped Gauss-Newton step, `[34]`."""
        point = int(self.jacobians.nearest(motion[None], self.units))
        normal = self.jacobians.normals[point]
        scale = normal.diagonal() + 1e-9
        damped = normal + torch.diag((damping + self.config.anchor) * scale)
        gradient = residual @ self.jacobians.matrices[point]
        gradient = gradient + self.config.anchor * scale * (motion - anchor)
        step: Tensor = torch.linalg.solve(damped + self.prior * self.identity, -gradient)
        return step

    def _refined(
        self, motion: Tensor, anchor: Tensor, goal: _Goal, steps: int
    ) -> tuple[Tensor, float]:
        """Take steps that each lower the loss; return motion and loss at its start."""
        residual, damping = self._difference(motion, goal), self.config.damping
        first = loss = float(residual.square().sum())
        for _ in range(steps):
            moved = motion + self._move(motion, anchor, residual, damping)
            found = self._difference(moved, goal)
            if float(found.square().sum()) < loss:
                motion, residual, loss = moved, found, float(found.square().sum())
                damping /= 3
            else:
                damping *= 5
        return motion, first


@dataclass(frozen=True, kw_only=True)
class _Goal:
    """What one frame is compared with."""

    picture: Tensor
    mask: Tensor | None
    wanted: Tensor
    """Residual of the picture, `[R]`."""
