"""Motion of each frame by damped Gauss-Newton, on batches of frames.

Jacobians are taken by forward-mode differentiation at a few linearisation points and reused for
every frame with similar motion, corrected for each frame by the effect of its own steps (Broyden
1965, https://doi.org/10.1090/S0025-5718-1965-0198670-6): an iteration costs one generator pass a
picture, where gradient descent takes a backward pass for each of a hundred epochs. Then each window
of frames takes Jacobians of its own at typical frames, since the first linearisation points are the
most different frames of a clip and few frames are near any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sglat.encoder.jacobians import Jacobians, Render, take_jacobians
from sglat.encoder.losses import Residual, shown_through


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How motion is solved."""

    iterations: int = 4
    damping: float = 0.03
    """First damping, relative to the diagonal of the normal matrix."""
    weight_prior: float = 2e-3
    """Pull towards the start values, relative to the mean diagonal."""
    window: int = 24
    """Frames solved together."""
    batch: int = 8
    is_corrected: bool = True
    """Correct each frame's Jacobian by the effect of its steps."""
    fresh: int = 2
    """Jacobians taken at typical frames of each window, in proportion fewer in a shorter last
    window."""
    fresh_iterations: int = 3
    """Iterations with these, after the first `iterations`."""
    active: tuple[int, ...] = tuple(range(34))
    """Columns of motion that are solved; the others keep their start values."""
    tangents: int | None = None
    """See `motion_jacobian`."""


@dataclass(frozen=True, kw_only=True)
class _Goal:
    """What the frames of a window are compared with."""

    targets: Tensor
    """`[n, 3, H, W]`."""
    masks: Tensor | None
    """`[n, 1, H, W]`."""
    wanted: Tensor
    """Residuals of the targets, `[n, R]`."""


@dataclass(kw_only=True)
class _Window:
    """State of the frames that are solved together."""

    motion: Tensor
    start: Tensor
    residuals: Tensor
    damping: Tensor
    jacobian: _Corrected


class _Corrected:
    """Jacobians of some frames: those of their linearisation points plus rank-one corrections.

    A correction is a pair of `[n, R]` and `[n, 34]` whose outer product is added.
    """

    def __init__(self, jacobians: Jacobians, motion: Tensor, units: Tensor) -> None:
        """Begin with the Jacobians nearest to motion `[n, 34]` in units of equal effect `[34]`."""
        self.jacobians, self.point = jacobians, jacobians.nearest(motion, units)
        self.metric = units.square()
        self.normals = jacobians.normals[self.point]  # [n, 34, 34], kept up to date
        self.corrections: list[tuple[Tensor, Tensor]] = []

    def times(self, step: Tensor) -> Tensor:
        """Return the predicted change of the residuals by steps `[n, 34]`, `[n, R]`."""
        points = zip(self.point.tolist(), step, strict=True)
        result = torch.stack([self.jacobians.matrices[point] @ row for point, row in points])
        for change, direction in self.corrections:
            result = result + change * (direction * step).sum(1, keepdim=True)
        return result

    def transposed(self, residuals: Tensor) -> Tensor:
        """Return gradients `[n, 34]` of residuals `[n, R]`."""
        result = residuals.new_zeros(len(residuals), self.normals.shape[1])
        for index in self.point.unique().tolist():
            mine = self.point == index
            result[mine] = residuals[mine] @ self.jacobians.matrices[index]
        for change, direction in self.corrections:
            result = result + direction * (change * residuals).sum(1, keepdim=True)
        return result

    def correct(self, step: Tensor, difference: Tensor) -> None:
        """Add the rank-one correction by which steps `[n, 34]` change residuals by `[n, R]`."""
        direction = step * self.metric
        length = (step * direction).sum(1, keepdim=True)
        change = (difference - self.times(step)) / length.clamp_min(1e-12)
        change = torch.where(length > 1e-12, change, torch.zeros_like(change))
        cross = self.transposed(change)[:, :, None] * direction[:, None]
        own = change.square().sum(1)[:, None, None] * direction[:, :, None] * direction[:, None]
        self.normals = self.normals + cross + cross.transpose(1, 2) + own
        self.corrections.append((change, direction))


class WindowSolver(ABC):
    """Solves motion window by window.

    Args:
        window: frames solved together.
    """

    def __init__(self, window: int) -> None:
        self.window = window

    def begin(self, start: Tensor) -> None:  # noqa: B027 - not every solver needs it
        """Prepare for start values `[T, 34]`."""

    @abstractmethod
    def solve_window(
        self, targets: Tensor, start: Tensor, masks: Tensor | None, first: int
    ) -> Tensor:
        """Return the motion `[n, 34]` of one window, which begins with frame `first`."""

    def solve(
        self,
        targets: Callable[[int, int], Tensor],
        start: Tensor,
        *,
        first: int = 0,
        masks: Callable[[int, int], Tensor | None] = lambda first, last: None,
    ) -> Iterator[Tensor]:
        """Yield solved motion `[n, 34]` of consecutive windows.

        Args:
            targets: gives pictures `[n, 3, H, W]` of frames first to last (exclusive).
            start: start values of all frames, `[T, 34]`.
            first: frame to begin with, a multiple of the window.
            masks: gives masks `[n, 1, H, W]`, 0 where nothing is compared, or None.
        """
        self.begin(start)
        for at in range(first, len(start), self.window):
            last = min(at + self.window, len(start))
            yield self.solve_window(targets(at, last), start[at:last], masks(at, last), at)


class FastSolver(WindowSolver):
    """Damped Gauss-Newton with reused Jacobians."""

    def __init__(
        self, render: Render, jacobians: Jacobians, residual: Residual, config: SolverConfig
    ) -> None:
        super().__init__(config.window)
        self.render, self.residual, self.config = render, residual, config
        self.jacobians = jacobians
        self.units = jacobians.picture_effect
        self.passes = 0
        diagonal = jacobians.normals.diagonal(dim1=1, dim2=2).mean()
        self.prior = config.weight_prior * diagonal
        self.active = torch.tensor(config.active, device=jacobians.motion.device)

    def _residuals(self, motion: Tensor, goal: _Goal) -> Tensor:
        """Return the residual of rendered motion `[n, 34]` minus that of the targets `[n, R]`."""
        self.passes += len(motion)
        parts = []
        for at in range(0, len(motion), self.config.batch):
            rows = slice(at, at + self.config.batch)
            shown = self.render(motion[rows])
            if goal.masks is not None:
                shown = shown_through(shown, goal.targets[rows], goal.masks[rows])
            parts.append(self.residual(shown))
        return torch.cat(parts) - goal.wanted

    def _loss(self, residuals: Tensor, motion: Tensor, start: Tensor) -> Tensor:
        """Return the loss of each frame `[n]`, prior included."""
        return residuals.square().sum(1) + self.prior * (motion - start).square().sum(1)

    @torch.no_grad()
    def solve_window(
        self, targets: Tensor, start: Tensor, masks: Tensor | None, first: int
    ) -> Tensor:
        """See `WindowSolver`."""
        config = self.config
        wanted = torch.cat([self.residual(t) for t in targets.split(config.batch)])
        goal = _Goal(targets=targets, masks=masks, wanted=wanted)
        state = _Window(
            motion=start.clone(),
            start=start,
            residuals=self._residuals(start, goal),
            damping=start.new_full((len(start),), config.damping),
            jacobian=_Corrected(self.jacobians, start, self.units),
        )
        self._iterate(state, goal, config.iterations)
        if config.fresh:
            count = max(1, round(config.fresh * len(start) / config.window))
            typical = medoids(state.motion * self.units, count)
            (near,) = take_jacobians(
                self.render, state.motion[typical], (self.residual,), tangents=config.tangents
            )
            self.passes += len(typical) * (1 + near.motion.shape[1])
            state.jacobian = _Corrected(near, state.motion, self.units)
            state.damping = start.new_full((len(start),), config.damping)
            self._iterate(state, goal, config.fresh_iterations)
        return state.motion

    def _iterate(self, state: _Window, goal: _Goal, iterations: int) -> None:
        """Take damped steps; a frame keeps a step that lowers its loss."""
        for _ in range(iterations):
            step = self._step(state)
            motion = state.motion + step
            residuals = self._residuals(motion, goal)
            if self.config.is_corrected:
                state.jacobian.correct(step, residuals - state.residuals)
            loss = self._loss(residuals, motion, state.start)
            better = loss < self._loss(state.residuals, state.motion, state.start)
            state.motion = torch.where(better[:, None], motion, state.motion)
            state.residuals = torch.where(better[:, None], residuals, state.residuals)
            state.damping = torch.where(better, state.damping / 3, state.damping * 5)

    def _step(self, state: _Window) -> Tensor:
        """Return the damped Gauss-Newton step of every frame, `[n, 34]`."""
        active = self.active
        moved = (state.motion - state.start)[:, active]
        gradient = state.jacobian.transposed(state.residuals)[:, active] + self.prior * moved
        normal = state.jacobian.normals[:, active][:, :, active]
        diagonal = normal.diagonal(dim1=1, dim2=2)
        damped = normal + self.prior * torch.eye(len(active), device=active.device)
        damped = damped + state.damping[:, None, None] * torch.diag_embed(diagonal + 1e-9)
        steps = torch.zeros_like(state.motion)
        steps[:, active] = -torch.linalg.solve(damped, gradient[..., None])[..., 0]
        return steps


def medoids(places: Tensor, count: int, candidates: Tensor | None = None) -> list[int]:
    """Return rows of candidates `[M, D]` with the least summed distance to all places `[n, D]`,
    chosen greedily; without candidates, of the places themselves."""
    distance = torch.cdist(places if candidates is None else candidates, places)
    nearest = places.new_full((len(places),), torch.inf)
    chosen: list[int] = []
    for _ in range(min(count, len(distance))):
        best = int(torch.minimum(distance, nearest[None]).sum(1).argmin())
        chosen.append(best)
        nearest = torch.minimum(nearest, distance[best])
    return chosen
