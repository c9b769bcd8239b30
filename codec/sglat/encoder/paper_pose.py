"""Yaw and pitch of every frame as the paper finds them: METHOD.md, "Head pose of the paper"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.encoder.crops import rigid_face_mask
from sglat.encoder.losses import shown_through
from sglat.encoder.paper_losses import norm_over
from sglat.encoder.person import TunedPerson
from sglat.encoder.solve_motion import MotionProblem
from sglat.encoder.stages import Stage, Task

NUM_ANGLES: Final = 2


@dataclass(frozen=True, kw_only=True)
class PaperPoseConfig(Stage[Tensor]):
    """Gradient descent on yaw and pitch; the supplement gives no constants (E.1)."""

    name = "pose"
    version = 4
    networks = ("perceptual", "inverter")

    steps: int = 100
    """At most: a window ends once no frame has improved for a while."""
    patience: int = 15
    """Steps without an improvement of a thousandth."""
    rate_degrees: float = 1.0
    decay: float = 0.8
    decay_every: int = 10
    most_degrees: float = 30.0
    """Yaw and pitch beyond which the generator was hardly trained."""
    weight_l2: float = 1.0
    weight_perceptual: float = 1.0
    window: int = 8
    """Frames searched side by side; they start from the last one of the window before."""

    def run(self, task: Task, person: TunedPerson, problem: MotionProblem) -> Tensor:
        """Return motion of all frames, `[T, 34]`: yaw and pitch, and the controls of the ID frame.

        The task keeps the windows, and work continues behind those already stored.
        """
        store, rows, bundle = task.open(), problem.solved, task.bundle
        neutral = person.person.neutral
        targets_of = problem.inverted or problem.targets
        begins = problem.begins
        last = neutral[:NUM_ANGLES]
        if store.rows:
            last = torch.from_numpy(store.read("motion", store.rows - 1)[0]).to(neutral)[
                :NUM_ANGLES
            ]
        for at in range(store.rows, len(rows), self.window):
            part = rows[at : at + self.window]
            if begins[at]:
                last = neutral[:NUM_ANGLES]
            targets, visible = targets_of(part), problem.masks(part)
            masks = _rigid_masks(problem.points[part].numpy(), targets)
            if visible is not None:
                masks = masks * visible
            start = last.expand(len(part), -1)
            angles = self.search(person, bundle, targets, masks, start, visible)
            motion = torch.cat([angles, neutral[NUM_ANGLES:].expand(len(part), -1)], 1)
            store.append({"motion": motion.cpu().numpy()})
            last = angles[-1]
            task.tell(store.rows, len(rows))
        if not store.is_done:
            store.finish()
        return torch.from_numpy(problem.spread(store.read("motion"))).to(neutral)

    def search(
        self,
        person: TunedPerson,
        bundle: Bundle,
        targets: Tensor,
        masks: Tensor,
        start: Tensor,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Return the best yaw and pitch found for each frame, `[n, 2]`, in degrees.

        Args:
            person: whose ID latent is turned.
            bundle: perceptual network.
            targets: renderings of the inverted frames, `[n, 3, H, W]`.
            masks: the rigid face in each frame, `[n, 1, H, W]`.
            start: yaw and pitch, `[n, 2]`.
            visible: `[n, 1, H, W]`, 0 where nothing is compared.
        """
        controls = person.person.neutral[NUM_ANGLES:].expand(len(start), -1)
        with torch.no_grad():
            wanted = bundle.perceptual.features(targets)
        angles = start.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([angles], lr=self.rate_degrees)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, self.decay_every, self.decay)
        best, least = angles.detach().clone(), start.new_full((len(start),), torch.inf)
        waited = 0
        for _ in range(self.steps):
            pictures = person.render_fast(torch.cat([angles, controls], 1))
            if visible is not None:
                pictures = shown_through(pictures, targets, visible)
            features = bundle.perceptual.features(pictures)
            loss = self.weight_l2 * norm_over(pictures - targets, masks)
            loss = loss + self.weight_perceptual * bundle.perceptual.distance(
                features, wanted, masks
            )
            found = loss.detach()
            is_better = found < 0.999 * least
            least = torch.where(is_better, found, least)
            best = torch.where(is_better[:, None], angles.detach(), best)
            waited = 0 if bool(is_better.any()) else waited + 1
            if waited >= self.patience:
                break
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                angles.clamp_(-self.most_degrees, self.most_degrees)
        return best


def _rigid_masks(points: np.ndarray, targets: Tensor) -> Tensor:
    """Return each frame's own mask of the rigid face, `[n, 1, H, W]`."""
    side = targets.shape[-1]
    masks = np.stack([rigid_face_mask(frame, side) for frame in points])
    return torch.from_numpy(masks[:, None]).to(targets)
