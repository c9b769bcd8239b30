"""The paper's own solver: AdamW with AMSGrad, three groups of losses, a hundred epochs a frame.

Slow; the reference that the fast solver is measured against. Sections 10 to 12 of the method: rates
by sensitivity, x0.8 every ten epochs, L2 + LPIPS (not for gaze) + identity + face parsing +
inter-frame terms, each group rendered with only its own controls moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.bundles.controls import GROUPS
from sglat.encoder.gauss_newton import WindowSolver
from sglat.encoder.losses import shown_through
from sglat.encoder.person import TunedPerson
from sglat.encoder.solve_motion import Linearisation, MotionProblem, solve_windows
from sglat.encoder.stages import Stage, Task
from sglat.networks.face_points import feature_weights

# Losses are grouped as in section 12.2: mouth with chin, eyes with brows, gaze alone.
_LOSS_GROUPS: Final = (("mouth", "chin"), ("eyes", "brows"), ("gaze",))


@dataclass(frozen=True, kw_only=True)
class PaperConfig(Stage[Tensor]):
    """Constants of the method; weights are the recommended start values of its section 12.2."""

    name = "expression"
    version = 2
    networks = ("perceptual", "faces")

    epochs: int = 100
    decay: float = 0.8
    decay_every: int = 10
    rate_unit: float = 0.1
    """Learning rate of a control without effect, in sigmas; the method's is 1 in raw StyleSpace
    units."""
    weight_l2: float = 1.0
    weight_perceptual: float = 1.0
    weight_parsing: float = 1.0
    weight_identity: float = 0.1
    weight_inter_frame: float = 2.0
    window: int = 8
    """Consecutive frames optimised side by side."""

    def run(
        self,
        task: Task,
        person: TunedPerson,
        problem: MotionProblem,
        linearisation: Linearisation,
        start: Tensor,
    ) -> Tensor:
        """Solve the controls of all frames, `[T, 34]`; yaw and pitch stay."""
        points = problem.points[problem.solved]
        solver = PaperSolver(person, task.bundle, points, self)
        return solve_windows(solver, problem, start, task)


def sensitivity_rates(sensitivity: Tensor) -> Tensor:
    """Return learning rates from sensitivities of one group, `[n]`: exp(-1.5 Γ / max Γ).

    Source: method, section 10 (reconstruction of the paper's equation 5).
    """
    return torch.exp(-1.5 * sensitivity / sensitivity.max().clamp_min(1e-12))


class PaperSolver(WindowSolver):
    """Gradient descent on the controls of each frame; yaw and pitch keep their start values."""

    def __init__(
        self, person: TunedPerson, bundle: Bundle, points: Tensor, config: PaperConfig
    ) -> None:
        super().__init__(config.window)
        self.person, self.bundle = person, bundle
        self.points, self.config = points, config
        self.passes = 0
        self.groups = [
            torch.tensor(
                [i for i, name in enumerate(GROUPS) if name in group], device=bundle.device
            )
            for group in _LOSS_GROUPS
        ]

    def begin(self, start: Tensor) -> None:
        """Measure the learning rates at the first of all frames."""
        self._rates = self.rates(start[:1])

    @torch.no_grad()
    def rates(self, start: Tensor) -> Tensor:
        """Return the learning rate of each control, `[32]`, measured at one frame `[1, 34]`."""
        rates = torch.ones(len(GROUPS), device=start.device)
        neutral, perceptual = self.person.person.neutral, self.bundle.perceptual
        sigmas = torch.arange(-1.5, 1.51, 0.5, device=start.device)
        for group in self.groups:
            found = []
            for control in group.tolist():
                motion = start.repeat(len(sigmas), 1)
                motion[:, 2 + control] = neutral[2 + control] + sigmas
                features = perceptual.features(self.person.render(motion))
                self.passes += len(sigmas)
                steps = perceptual.distance([f[1:] for f in features], [f[:-1] for f in features])
                found.append(steps.mean() / 0.5)
            rates[group] = sensitivity_rates(torch.stack(found))
        return rates * self.config.rate_unit

    def solve_window(
        self, targets: Tensor, start: Tensor, masks: Tensor | None, first: int
    ) -> Tensor:
        """See `WindowSolver`."""
        config, loss = self.config, _GroupLoss(self, targets, first, masks)
        neutral = self.person.person.neutral[2:]
        # one parameter a control, so that each has its own rate
        offsets = [start.new_zeros(len(start), 1, requires_grad=True) for _ in GROUPS]
        optimizer = torch.optim.AdamW(
            [{"params": [o], "lr": float(r)} for o, r in zip(offsets, self._rates, strict=True)],
            betas=(0.9, 0.999), eps=1e-8, amsgrad=True, weight_decay=0.0,
        )  # fmt: skip
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, config.decay_every, config.decay)
        for _ in range(config.epochs):
            optimizer.zero_grad(set_to_none=True)
            controls = start[:, 2:] + torch.cat(offsets, 1)
            total = start.new_zeros(())
            for index, group in enumerate(self.groups):
                moved = neutral.expand(len(start), -1).clone()
                moved[:, group] = controls[:, group]
                pictures = self.person.render(torch.cat([start[:, :2], moved], 1))
                self.passes += len(start)
                total = total + loss(pictures, index)
            total.backward()
            optimizer.step()
            schedule.step()
        controls = start[:, 2:] + torch.cat([o.detach() for o in offsets], 1)
        return torch.cat([start[:, :2], controls], 1)


class _GroupLoss:
    """The terms of section 12 for one window of consecutive frames."""

    def __init__(
        self, solver: PaperSolver, targets: Tensor, first: int, masks: Tensor | None = None
    ) -> None:
        self.masks = masks
        self.solver, self.config, self.targets = solver, solver.config, targets
        points = solver.points[first : first + len(targets)].to(targets.device)
        self.mask = (feature_weights(points, targets.shape[-1], 1.0) - 1).clamp(0, 1)
        with torch.no_grad():
            self.features = solver.bundle.perceptual.features(targets)
            self.classes = solver.bundle.faces.parse(targets)

    def __call__(self, pictures: Tensor, group: int) -> Tensor:
        config, perceptual = self.config, self.solver.bundle.perceptual
        if self.masks is not None:
            pictures = shown_through(pictures, self.targets, self.masks)
        difference = pictures - self.targets
        total = config.weight_l2 * difference.square().mean()
        is_gaze = group == len(_LOSS_GROUPS) - 1
        features = perceptual.features(pictures)
        if not is_gaze:  # LPIPS misses small shifts of an iris and adds jitter there
            distance = perceptual.distance(features, self.features).mean()
            total = total + config.weight_perceptual * distance
        classes = self.solver.bundle.faces.parse(pictures)
        parsing = ((classes - self.classes) * self.mask).square().sum(1).mean().sqrt()
        total = total + config.weight_parsing * parsing
        embedded = self.solver.bundle.faces.embed_for_loss(pictures)
        total = total + config.weight_identity * (1 - (embedded * embedded[:1]).sum(1)).mean()
        if len(pictures) > 1:  # change of the rendered frames against change of the targets
            change = difference[1:] - difference[:-1]
            total = total + config.weight_inter_frame * change.square().mean()
        return total
