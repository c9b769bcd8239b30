"""The 34 numbers of every frame as a small nonlinear least-squares problem.

Damped Gauss-Newton on batched frames. The Jacobian is taken by forward-mode differentiation at a
few anchor frames, reused for every frame whose motion is near, and corrected for each frame by what
its own steps did to its picture (Broyden 1965, https://doi.org/10.1090/S0025-5718-1965-0198670-6):
a picture costs one generator pass an iteration instead of a backward pass for each of a hundred
epochs. Where that ends, fresh Jacobians are taken amid each window's own frames: the anchors are
the most different frames of a clip, so few frames are near any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacfwd

from sglat.encoder.residuals import Residual

Render = Callable[[Tensor], Tensor]
"""Motion values `[N, 34]` to pictures `[N, 3, H, W]`."""


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How the numbers are solved."""

    iterations: int = 4
    damping: float = 0.03
    """First damping, relative to the diagonal of the normal matrix."""
    weight_prior: float = 2e-3
    """Pull towards the start values, relative to the mean diagonal."""
    weight_inter_frame: float = 0.0
    """Weight of the change of the residual between neighbouring frames (method, equation S3). At
    0.5 an error that all frames share shrinks by half a step only, and few steps are taken; what
    trembles is smoothed once it is solved."""
    scales: tuple[int, ...] = (1, 4)
    """Pooling factors of the residual; coarse scales widen the basin."""
    window: int = 24
    """Frames solved together."""
    batch: int = 8
    is_corrected: bool = True
    """Correct each frame's Jacobian by what its steps did."""
    fresh: int = 2
    """Jacobians taken in the middle of each whole window's own frames, to go on with; fewer where
    a window is cut short by the end of the clip."""
    fresh_iterations: int = 3
    active: tuple[int, ...] = tuple(range(34))
    """Numbers that are solved; the others keep their start values."""


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Jacobians of the picture at a few motions."""

    motion: Tensor
    """`[A, 34]`."""
    jacobians: Tensor
    """Weighted residual change per unit of each number, `[A, R, 34]`."""
    normals: Tensor
    """`JᵀJ`, `[A, 34, 34]`."""
    picture_effect: Tensor
    """Root mean square picture change per unit of each number, `[34]`."""


def motion_jacobian(render: Render, motion: Tensor) -> Tensor:
    """Return the picture's derivative by each number at one motion `[34]`, `[34, 3, H, W]`."""
    jacobian: Tensor = jacfwd(lambda numbers: render(numbers[None])[0])(motion)
    return jacobian.movedim(-1, 0)


@torch.no_grad()
def take_anchors(
    render: Render,
    motion: Tensor,
    residuals: Sequence[Residual],
    progress: Callable[[int, int], None] | None = None,
) -> list[Anchors]:
    """Take Jacobians at the given motions `[A, 34]`, once for each way of weighting pictures."""
    jacobians: list[list[Tensor]] = [[] for _ in residuals]
    effects = []
    for index, row in enumerate(motion):
        tangents = motion_jacobian(render, row)
        picture = render(row[None])
        effects.append(tangents.square().mean((1, 2, 3)))
        for found, residual in zip(jacobians, residuals, strict=True):
            found.append(residual.pushed(picture, tangents).T.contiguous())
        if progress is not None:
            progress(index + 1, len(motion))
    effect = torch.stack(effects).mean(0).sqrt()
    return [
        Anchors(
            motion=motion,
            jacobians=(stacked := torch.stack(found)),
            normals=stacked.transpose(1, 2) @ stacked,
            picture_effect=effect,
        )
        for found in jacobians
    ]


@dataclass(kw_only=True)
class _Window:
    """State of the frames that are solved together."""

    numbers: Tensor
    start: Tensor
    residuals: Tensor
    damping: Tensor
    jacobian: _Corrected


class _Corrected:
    """Jacobians of some frames: their anchors', plus rank-one corrections of their own.

    A correction is a pair of `[n, R]` and `[n, 34]` whose outer product is added.
    """

    def __init__(self, anchors: Anchors, anchor: Tensor, units: Tensor) -> None:
        """Begin with the Jacobians of the anchors numbered `anchor` `[n]`."""
        self.anchors, self.anchor = anchors, anchor
        self.metric = units.square()
        self.normals = anchors.normals[anchor]  # [n, 34, 34], kept up to date
        self.corrections: list[tuple[Tensor, Tensor]] = []

    def times(self, step: Tensor) -> Tensor:
        """Return what steps `[n, 34]` should do to the residuals, `[n, R]`."""
        result = torch.stack(
            [self.anchors.jacobians[a] @ d for a, d in zip(self.anchor.tolist(), step, strict=True)]
        )
        for change, direction in self.corrections:
            result = result + change * (direction * step).sum(1, keepdim=True)
        return result

    def transposed(self, residuals: Tensor) -> Tensor:
        """Return gradients `[n, 34]` of residuals `[n, R]`."""
        result = residuals.new_zeros(len(residuals), self.normals.shape[1])
        for index in self.anchor.unique().tolist():
            mine = self.anchor == index
            result[mine] = residuals[mine] @ self.anchors.jacobians[index]
        for change, direction in self.corrections:
            result = result + direction * (change * residuals).sum(1, keepdim=True)
        return result

    def correct(self, step: Tensor, difference: Tensor) -> None:
        """Learn that steps `[n, 34]` changed the residuals by `difference` `[n, R]`."""
        direction = step * self.metric
        length = (step * direction).sum(1, keepdim=True)
        change = (difference - self.times(step)) / length.clamp_min(1e-12)
        change = torch.where(length > 1e-12, change, torch.zeros_like(change))
        cross = self.transposed(change)[:, :, None] * direction[:, None]
        own = change.square().sum(1)[:, None, None] * direction[:, :, None] * direction[:, None]
        self.normals = self.normals + cross + cross.transpose(1, 2) + own
        self.corrections.append((change, direction))


class FastSolver:
    """Damped Gauss-Newton with reused Jacobians."""

    def __init__(
        self, render: Render, anchors: Anchors, residual: Residual, config: SolverConfig
    ) -> None:
        self.render = render
        self.anchors = anchors
        self.residual = residual
        self.config = config
        self.passes = 0
        # number units in which all have the same effect on the picture, for choosing anchors
        self.units = anchors.picture_effect
        diagonal = anchors.normals.diagonal(dim1=1, dim2=2).mean()
        self.prior = config.weight_prior * diagonal
        self.active = torch.tensor(config.active, device=anchors.motion.device)

    @torch.no_grad()
    def solve(
        self,
        targets: Callable[[int, int], Tensor],
        start: Tensor,
        *,
        done: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yield solved motion window by window.

        Args:
            targets: gives pictures `[n, 3, H, W]` of frames first to last (exclusive).
            start: start values of all frames, `[T, 34]`.
            done: what an interrupted run has yielded already, `[D, 34]`, whole windows.

        Yields:
            `[n, 34]` for consecutive frames.
        """
        last_solved = None if done is None or not len(done) else done[-1]
        begin = 0 if done is None else len(done)
        for first in range(begin, len(start), self.config.window):
            last = min(first + self.config.window, len(start))
            before = None
            if last_solved is not None:  # rendered alone, so that a resumed run finds the same
                wanted = self.residual(targets(first - 1, first))
                before = self._residuals(last_solved[None], wanted)[0]
            window = self._solve_window(targets(first, last), start[first:last], before)
            last_solved = window.numbers[-1]
            yield window.numbers

    def _residuals(self, numbers: Tensor, wanted: Tensor) -> Tensor:
        """Return what pictures of numbers `[n, 34]` lack of the wanted vectors `[n, R]`."""
        self.passes += len(numbers)
        batch = self.config.batch
        parts = [self.residual(self.render(part)) for part in numbers.split(batch)]
        return torch.cat(parts) - wanted

    def _loss(
        self, residuals: Tensor, numbers: Tensor, start: Tensor, before: Tensor | None
    ) -> Tensor:
        """Return what each frame costs `[n]`, the changes to its neighbours included."""
        loss = residuals.square().sum(1) + self.prior * (numbers - start).square().sum(1)
        if self.config.weight_inter_frame:
            first = residuals[:1] if before is None else before[None]
            changes = (residuals - torch.cat([first, residuals[:-1]])).square().sum(1)
            changes = changes + torch.cat([changes[1:], changes.new_zeros(1)])
            loss = loss + self.config.weight_inter_frame * changes
        return loss

    def _solve_window(self, targets: Tensor, start: Tensor, before: Tensor | None) -> _Window:
        config = self.config
        anchor = torch.cdist(start * self.units, self.anchors.motion * self.units).argmin(1)
        wanted = torch.cat([self.residual(t) for t in targets.split(config.batch)])
        residuals = self._residuals(start, wanted)
        state = _Window(
            numbers=start.clone(),
            start=start,
            residuals=residuals,
            damping=start.new_full((len(start),), config.damping),
            jacobian=_Corrected(self.anchors, anchor, self.units),
        )
        self._iterate(state, wanted, before, config.iterations)
        if config.fresh:
            count = max(1, round(config.fresh * len(start) / config.window))
            middle = _middles(state.numbers * self.units, count)
            (near,) = take_anchors(self.render, state.numbers[middle], (self.residual,))
            self.passes += len(middle) * (1 + near.motion.shape[1])
            anchor = torch.cdist(state.numbers * self.units, near.motion * self.units).argmin(1)
            state.jacobian = _Corrected(near, anchor, self.units)
            state.damping = start.new_full((len(start),), config.damping)
            self._iterate(state, wanted, before, config.fresh_iterations)
        return state

    def _iterate(
        self, state: _Window, wanted: Tensor, before: Tensor | None, iterations: int
    ) -> None:
        """Take damped steps; a frame keeps a step that lowers its loss."""
        for _ in range(iterations):
            step = self._step(state, before)
            numbers = state.numbers + step
            residuals = self._residuals(numbers, wanted)
            loss = self._loss(residuals, numbers, state.start, before)
            if self.config.is_corrected:
                state.jacobian.correct(step, residuals - state.residuals)
            better = loss < self._loss(state.residuals, state.numbers, state.start, before)
            state.numbers = torch.where(better[:, None], numbers, state.numbers)
            state.residuals = torch.where(better[:, None], residuals, state.residuals)
            state.damping = torch.where(better, state.damping / 3, state.damping * 5)

    def _step(self, state: _Window, before: Tensor | None) -> Tensor:
        """Return the damped Gauss-Newton step of every frame, `[n, 34]`."""
        weight = self.config.weight_inter_frame
        r = state.residuals
        earlier = torch.cat([(r[:1] if before is None else before[None]), r[:-1]])
        later = torch.cat([r[1:], r[-1:]])
        pulled = (1 + 2 * weight) * r - weight * (earlier + later)
        active = self.active
        moved = (state.numbers - state.start)[:, active]
        gradient = state.jacobian.transposed(pulled)[:, active] + self.prior * moved
        normal = state.jacobian.normals[:, active][:, :, active]
        diagonal = normal.diagonal(dim1=1, dim2=2)
        eye = torch.eye(len(active), device=active.device)
        damped = (1 + 2 * weight) * normal + self.prior * eye
        damped = damped + state.damping[:, None, None] * torch.diag_embed(diagonal + 1e-9)
        steps = torch.zeros_like(state.numbers)
        steps[:, active] = -torch.linalg.solve(damped, gradient[..., None])[..., 0]
        return steps


def _middles(places: Tensor, count: int) -> list[int]:
    """Return rows of `[n, D]` that together lie nearest to all rows, found one by one."""
    distance = torch.cdist(places, places)
    nearest = places.new_full((len(places),), torch.inf)
    chosen: list[int] = []
    for _ in range(min(count, len(places))):
        best = int(torch.minimum(distance, nearest[None]).sum(1).argmin())
        chosen.append(best)
        nearest = torch.minimum(nearest, distance[best])
    return chosen
