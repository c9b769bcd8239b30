"""The paper's own solver: pose, then all offsets by AdamW: METHOD.md, "Motion by the paper"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.channels import GROUPS
from sglat.bundles.bundle import Bundle
from sglat.encoder.losses import shown_through
from sglat.encoder.paper_losses import (
    GAZE,
    LOSS_GROUPS,
    Before,
    TermWeights,
    WindowLoss,
    region_masks,
)
from sglat.encoder.paper_pose import NUM_ANGLES, PaperPoseConfig
from sglat.encoder.person import TunedPerson
from sglat.encoder.quantize import SolvedMotion
from sglat.encoder.solve_motion import LineariseConfig, MotionProblem, SmoothConfig
from sglat.encoder.stages import Made, Runner, Stage, Task

PASSES_AN_EPOCH: Final = 3
"""Of each picture: forwards, and backwards for the sum of the losses and for gaze."""
_SIGMAS: Final = torch.arange(-1.5, 1.51, 0.5)  # units that a control is moved by to measure it


@dataclass(frozen=True, kw_only=True)
class PaperConfig(Stage[Tensor]):
    """Constants of the supplement's section E.4."""

    name = "expression"
    version = 4
    networks = ("perceptual", "faces", "inverter", "synthesizer")

    epochs: int = 100
    decay: float = 0.8
    decay_every: int = 10
    rate: float = 1.0
    """Learning rate of a control without effect: in StyleSpace's own unit where a control is one
    channel, else in the bundle's sigma of it."""
    weights: TermWeights = TermWeights()  # noqa: RUF009
    window: int = 8
    """Consecutive frames optimised side by side."""

    def run(self, task: Task, person: TunedPerson, problem: MotionProblem, start: Tensor) -> Tensor:
        """Solve the controls of all frames, `[T, 34]`, from start values `[T, 34]`; yaw and pitch
        stay.

        The task keeps the windows, and work continues behind those already stored.
        """
        store, rows, clip = task.open(), problem.solved, clip_in(problem)
        solver = PaperSolver(person, task.bundle, clip, self)
        done = start[:0]
        if store.rows:
            done = torch.from_numpy(store.read("motion")).to(start)
        for motion in solver.solve(start[torch.from_numpy(rows)], done):
            store.append({"motion": motion.cpu().numpy()})
            task.tell(store.rows, len(rows))
        if not store.is_done:
            store.finish()
        return torch.from_numpy(problem.spread(store.read("motion"))).to(start.device)


def solve_by_paper(
    run: Runner, person: Made[TunedPerson], problem: Made[MotionProblem]
) -> Made[SolvedMotion]:
    """Solve yaw and pitch, then the controls; nothing is smoothed afterwards.

    The Jacobians only weigh the values against each other when they are quantized.
    """
    linearisation = run(LineariseConfig(), person, problem)
    pose = run(PaperPoseConfig(), person, problem)
    motion = run(PaperConfig(), person, problem, pose)
    return run(SmoothConfig(strength=0.0), problem, linearisation, motion)


@dataclass(frozen=True, kw_only=True)
class PaperClip:
    """What is solved, frame by frame; held frames are left out."""

    targets: Callable[[int, int], Tensor]
    """Pictures `[n, 3, H, W]` of frames first to last (exclusive)."""
    points: NDArray[np.floating]
    """Landmarks in crop units, `[T, 478, 2]`."""
    begins: NDArray[np.bool_]
    """`[T]`: the frame does not continue the one before it."""
    shut: NDArray[np.bool_]
    """`[T]`: an eye is shut."""
    visible: Callable[[int, int], Tensor | None] = lambda first, last: None
    """Masks `[n, 1, H, W]`, 0 where nothing is compared, or None."""


def clip_in(problem: MotionProblem) -> PaperClip:
    """Return the solved frames of a problem."""
    rows = problem.solved
    return PaperClip(
        targets=lambda first, last: problem.targets(rows[first:last]),
        visible=lambda first, last: problem.masks(rows[first:last]),
        points=problem.points[rows].numpy(),
        begins=problem.begins,
        shut=np.zeros(len(rows), bool) if problem.shut is None else problem.shut[rows],
    )


def sensitivity_rates(sensitivity: Tensor) -> Tensor:
    """Return learning rates from sensitivities of one group, `[n]`: exp(-1.5 Γ / max Γ).

    METHOD.md, "Readings": the main text's equation 5 is known in its effect only.
    """
    return torch.exp(-1.5 * sensitivity / sensitivity.max().clamp_min(1e-12))


class PaperSolver:
    """Gradient descent on the controls of each frame; yaw and pitch keep their start values."""

    def __init__(
        self, person: TunedPerson, bundle: Bundle, clip: PaperClip, config: PaperConfig
    ) -> None:
        self.person, self.bundle, self.clip, self.config = person, bundle, clip, config
        self.passes = 0
        """Pictures through the generator, forwards or backwards."""
        self.groups = [
            torch.tensor([i for i, name in enumerate(GROUPS) if name in group])
            for group in LOSS_GROUPS
        ]
        self.history: list[list[float]] = []
        """Total loss of each window solved so far, epoch by epoch."""

    def solve(self, start: Tensor, done: Tensor) -> Iterator[Tensor]:
        """Yield the motion of window after window behind those done, `[m, 34]`, from start values
        of all frames, `[T, 34]`."""
        rates = self.rates(start[:1])
        solved = list(done)
        window = self.config.window
        for at in range(len(solved), len(start), window):
            motion = self._solve_window(start[at : at + window], at, solved, rates)
            solved.extend(motion)
            yield motion

    @torch.no_grad()
    def rates(self, start: Tensor) -> Tensor:
        """Return the learning rate of each control, `[32]`, measured at the clip's first frame,
        `[1, 34]`: Γ of a control is the mean change of LPIPS over its group's region, a unit."""
        controls, perceptual = self.bundle.controls, self.bundle.perceptual
        units = start.new_tensor(controls.sigma)
        if controls.is_single_channel:
            units = torch.ones_like(units)
        rates = torch.ones_like(units)
        sigmas = _SIGMAS.to(start)
        regions = region_masks(self.clip.points[:1], self.bundle.resolution).to(start)
        for index, group in enumerate(self.groups):
            region = regions[:, index : index + 1].expand(len(sigmas) - 1, -1, -1, -1)
            found = []
            for control in group.tolist():
                motion = start.repeat(len(sigmas), 1)
                motion[:, NUM_ANGLES + control] += sigmas * units[control]
                features = perceptual.features(self.person.render(motion))
                self.passes += len(sigmas)
                after, until = [f[1:] for f in features], [f[:-1] for f in features]
                change = perceptual.distance(after, until, region)
                found.append(change.mean() / float(_SIGMAS[1] - _SIGMAS[0]))
            rates[group.to(start.device)] = sensitivity_rates(torch.stack(found))
        return rates * units * self.config.rate

    def loss_at(self, at: int, count: int, solved: list[Tensor]) -> WindowLoss:
        """Return the losses of `count` frames from frame `at` on, behind the motion of those
        before, `[34]` each."""
        clip, last = self.clip, at + count
        targets, visible = clip.targets(at, last), clip.visible(at, last)
        flags = (torch.from_numpy(flag[at:last]).to(targets.device) for flag in
                 (~clip.begins, clip.shut))  # fmt: skip
        follows, shut = flags
        if at == 0:
            follows = follows.clone()
            follows[0] = False
        return WindowLoss(
            self.bundle, self.config.weights, targets,
            region_masks(clip.points[at:last], targets.shape[-1]).to(targets),
            follows=follows, shut=shut, visible=visible,
            before=self._before(at, solved) if at else None,
        )  # fmt: skip

    @torch.no_grad()
    def _before(self, at: int, solved: list[Tensor]) -> Before:
        """Render the frames that a window is compared with; one by one, so that resumed work sees
        the same pictures."""
        shown = {row: self.person.render(solved[row][None]) for row in (0, at - 1)}
        for row in shown:
            if (mask := self.clip.visible(row, row + 1)) is not None:
                shown[row] = shown_through(shown[row], self.clip.targets(row, row + 1), mask)
        anchor = self.bundle.faces.embed_for_loss(shown[0])
        return Before(rendered=shown[at - 1], target=self.clip.targets(at - 1, at), anchor=anchor)

    def _solve_window(self, start: Tensor, at: int, solved: list[Tensor], rates: Tensor) -> Tensor:
        """Return the motion of one window, `[n, 34]`, at the epoch of its least total loss.

        The rates of the first epochs lead far from a good start.
        """
        config, loss = self.config, self.loss_at(at, len(start), solved)
        # one parameter a control, so that each has its own rate
        offsets = [start.new_zeros(len(start), 1, requires_grad=True) for _ in GROUPS]
        optimizer = torch.optim.AdamW(
            [{"params": [o], "lr": float(r)} for o, r in zip(offsets, rates, strict=True)],
            betas=(0.9, 0.999), eps=1e-8, amsgrad=True, weight_decay=0.0,
        )  # fmt: skip
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, config.decay_every, config.decay)
        totals: list[float] = []
        best, least = start, float("inf")
        for epoch in range(config.epochs + 1):
            controls = start[:, NUM_ANGLES:] + torch.cat(offsets, 1)
            motion = torch.cat([start[:, :NUM_ANGLES], controls], 1)
            with torch.set_grad_enabled(epoch < config.epochs):
                losses = loss(self.person.render_fast(motion))
            totals.append(float(losses.detach().sum()))
            if totals[-1] < least:
                best, least = motion.detach(), totals[-1]
            if epoch == config.epochs:
                break
            self.passes += PASSES_AN_EPOCH * len(start)
            # all offsets obey the sum of the losses, gaze its own alone, which is without LPIPS
            gradients = torch.autograd.grad(losses.sum(), offsets, retain_graph=True)
            for offset, gradient in zip(offsets, gradients, strict=True):
                offset.grad = gradient
            own = [offsets[control] for control in self.groups[GAZE].tolist()]
            for offset, gradient in zip(own, torch.autograd.grad(losses[GAZE], own), strict=True):
                offset.grad = gradient
            optimizer.step()
            schedule.step()
        self.passes += len(start)
        self.history.append(totals)
        return best
