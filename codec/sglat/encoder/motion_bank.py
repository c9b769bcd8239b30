"""Regularisation of tuning by motions that the clip lacks.

Tuning fits the clip's own motions and may damage all others. Motions of a bank, a part of the
bundle, are therefore rendered too, and the change that each causes is held to the change that it
causes with the untuned generator: the locality regularisation of pivotal tuning (Roich et al. 2021,
https://arxiv.org/abs/2106.05744, section 3.3), over motions in place of latents.

Expression and pose are compared as the landmark network measures them, since pixel terms average
over the face, of which a lid or an iris is a few pixels. Both pictures of a comparison are measured
by the same network in the same crop, so that its systematic errors cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.bundles.bundle import Bundle
from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.encoder.start_motion import comparable
from sglat.networks.embedded_nets import INPUT_SIZE, LandmarkOutput
from sglat.networks.embedded_views import CROP_SCALE
from sglat.networks.face_points import EYE_CORNERS, IRISES, NEUTRAL_SHAPE

ROLE: Final = "motion_bank"
"""Of the bundle part: tensor `motions`, `[K, 34]`, relative to the neutral of their clips."""
POSE_LIMITS: Final = (25.0, 20.0)  # degrees of yaw and pitch, both directions
_CROP_SPREAD: Final = (0.04, 0.02, 3.0)  # of the crops: size, place in pictures, roll in degrees
_LAYOUT_SIDE: Final = 32  # pixels of the pictures whose layout is compared
_POSE_UNITS: Final = (10.0, 6.0)  # degrees of yaw and pitch that cost 1
_GAZE_UNIT: Final = 0.1  # of the eye's width that costs 1
_OPENNESS_UNIT: Final = 0.1  # of eye aspect ratio that costs 1
_SHAPE_UNIT: Final = 0.3  # of a blendshape that costs 1
_WEIGHTS: Final = (("shapes", 2.0), ("gaze", 1.0), ("openness", 1.0), ("pose", 1.0))


@dataclass(frozen=True, kw_only=True)
class MotionBankConfig:
    """How tuning is regularised."""

    weight: float = 0.0
    """Of all terms together; 0: not regularised."""
    every: int = 2
    """Steps from one regularised step to the next."""
    motions: int = 3
    """Motions rendered in such a step, besides the neutral."""
    weight_expression: float = 0.1
    """Of the change that the landmark network measures."""
    weight_layout: float = 0.5
    """Of the mean absolute difference of the changes, in pictures of 32 pixels."""
    far_from: float = 1.5
    """Distance to the clip's nearest motion, in sigmas of a control, from which a motion of the
    bank is drawn with its full probability."""
    seed: int = 7


@dataclass(frozen=True, kw_only=True)
class Expression:
    """Expression and pose measured by the landmark network, each in units of its cost."""

    shapes: Tensor
    """Blendshapes but `_neutral`, `[N, 51]`."""
    gaze: Tensor
    """Irises between the corners of their eyes, along and across, `[N, 4]`."""
    openness: Tensor
    """Eye aspect ratios, `[N, 2]`."""
    pose: Tensor
    """Yaw and pitch, `[N, 2]`."""

    @classmethod
    def of(cls, output: LandmarkOutput) -> Expression:
        """Return the expression in the landmark network's output."""
        return cls(
            shapes=output.blendshapes[:, NEUTRAL_SHAPE + 1 :] / _SHAPE_UNIT,
            gaze=gaze(output.points) / _GAZE_UNIT,
            openness=output.eye_openness / _OPENNESS_UNIT,
            pose=output.pose[:, :2] / output.pose.new_tensor(_POSE_UNITS),
        )

    def part(self, chosen: slice) -> Expression:
        """Return the expression of some pictures."""
        return Expression(
            shapes=self.shapes[chosen], gaze=self.gaze[chosen],
            openness=self.openness[chosen], pose=self.pose[chosen],
        )  # fmt: skip

    def moved(self, before: Expression, after: Expression) -> Expression:
        """Return this expression with the difference of two others added."""
        limit = 1 / _SHAPE_UNIT
        return Expression(
            shapes=(self.shapes + after.shapes - before.shapes).clamp(0, limit),
            gaze=self.gaze + after.gaze - before.gaze,
            openness=(self.openness + after.openness - before.openness).clamp_min(0),
            pose=self.pose + after.pose - before.pose,
        )


def gaze(points: Tensor) -> Tensor:
    """Return the places of the irises of `[N, 478, 2]` in widths of their eyes, `[N, 4]`."""
    parts = []
    for (first, second), iris in zip(EYE_CORNERS, IRISES, strict=True):
        along = points[:, second] - points[:, first]
        across = torch.stack([-along[:, 1], along[:, 0]], 1)
        offset = points[:, iris] - (points[:, first] + points[:, second]) / 2
        width = along.square().sum(1).clamp_min(1e-6)
        parts += [(offset * along).sum(1) / width, (offset * across).sum(1) / width]
    return torch.stack(parts, 1)


def expression_loss(found: Expression, wanted: Expression) -> Tensor:
    """Return the weighted sum of the mean costs of all quantities, `[N]`."""
    total = found.pose.new_zeros(len(found.pose))
    for name, weight in _WEIGHTS:
        a, b = getattr(found, name), getattr(wanted, name)
        total = total + weight * F.smooth_l1_loss(a, b, beta=0.3, reduction="none").mean(1)
    return total


def limited_pose(degrees: Tensor) -> Tensor:
    """Return yaw and pitch `[N, 2]` clamped to what heads can turn."""
    limits = degrees.new_tensor(POSE_LIMITS)
    return torch.maximum(torch.minimum(degrees, limits), -limits)


def displaced_crops(
    points: Tensor, spread: tuple[float, float, float], random: torch.Generator
) -> Tensor:
    """Return sampling grids `[N, 128, 128, 2]` of landmark crops, displaced at random by standard
    deviations of size, place in pictures, and roll in degrees; points `[N, 478, 2]` in crop
    units."""
    low, high = points.amin(1), points.amax(1)
    size, place, roll = (
        torch.randn(len(points), n, generator=random).to(points) * s
        for n, s in zip((1, 2, 1), spread, strict=True)
    )
    centre = (low + high) / 2 + place
    side = CROP_SCALE * (high - low).amax(1, keepdim=True) * (1 + size)
    angle = torch.deg2rad(roll[:, 0])
    rows = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    theta = torch.cat([rows * side[..., None], (2 * centre - 1)[..., None]], 2)
    return F.affine_grid(theta, [len(points), 3, INPUT_SIZE, INPUT_SIZE], align_corners=False)


def sampled(pictures: Tensor, grids: Tensor) -> Tensor:
    """Return crops `[N, 3, 128, 128]` of pictures `[N, 3, H, W]` by their sampling grids."""
    return F.grid_sample(
        pictures, grids, mode="bilinear", padding_mode="border", align_corners=False
    )


class ExpressionMeter:
    """Measures expression in crops displaced from call to call, so that no adversarial pattern of
    fixed pixels lowers a loss."""

    def __init__(self, landmarks: nn.Module, *, seed: int) -> None:
        """Take the landmark network."""
        self.landmarks = landmarks
        self.random = torch.Generator().manual_seed(seed)

    def crops(self, points: Tensor) -> Tensor:
        """Return sampling grids `[N, 128, 128, 2]` around faces with points `[N, 478, 2]`."""
        return displaced_crops(points, _CROP_SPREAD, self.random)

    def measure(self, pictures: Tensor, crops: Tensor) -> Expression:
        """Return the expression in pictures `[N, 3, H, W]` by the sampling grids of `crops`."""
        return Expression.of(self.landmarks(sampled(pictures.float(), crops)))


class MotionRegularizer:
    """Renders motions of the bank with tuned and untuned weights and compares the changes.

    Args:
        synthesizer: untuned.
        neutral: of the person, `[34]`.
        motions: of the bank, relative to neutral, `[K, 34]`.
        known: motion of the clip, `[T, 34]`.
        landmarks: the landmark network.
        points: landmarks of the ID frame in crop units, `[478, 2]`.
        config: weights and counts.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        neutral: Tensor,
        motions: Tensor,
        known: Tensor,
        landmarks: nn.Module,
        points: Tensor,
        config: MotionBankConfig,
    ) -> None:
        device = synthesizer.device
        self.synthesizer, self.config = synthesizer, config
        self.neutral, self.points = neutral.to(device), points.to(device)
        self.meter = ExpressionMeter(landmarks, seed=config.seed)
        wanted = self.neutral + motions.to(self.neutral)
        self.motions = torch.cat([limited_pose(wanted[:, :2]), wanted[:, 2:]], 1)
        distance = torch.cdist(comparable(self.motions), comparable(known.to(self.neutral)))
        self.probability = (distance.amin(1) / config.far_from).clamp(0.05, 1).cpu()
        self.random = torch.Generator()

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        synthesizer: Synthesizer,
        motion: Tensor,
        *,
        id_frame: int,
        points: Tensor,
        config: MotionBankConfig,
    ) -> MotionRegularizer | None:
        """Return the regularisation by a bundle's bank; None without a bank or at weight 0.

        Other arguments as for the class: `motion` `[T, 34]` is the initial motion of the clip,
        neutral at `id_frame`.
        """
        if not config.weight or not bundle.has(ROLE):
            return None
        motions = bundle.tensors(ROLE)["motions"].float()
        neutral = motion[id_frame]
        return cls(synthesizer, neutral, motions, motion, bundle.landmarks, points, config)

    def is_due(self, step: int) -> bool:
        """Return whether a step of tuning is regularised."""
        return step % self.config.every == 0

    def __call__(
        self, step: int, ws: Tensor, weights: Mapping[str, Tensor], dtype: torch.dtype
    ) -> Tensor:
        """Return the weighted cost of some motions, a scalar, with the tuned ID latent `[L, D]` and
        the tuned generator tensors by name.

        The draw depends on the step of tuning alone, so that a resumed run repeats it.
        """
        config = self.config
        self.random.manual_seed(config.seed + step)
        self.meter.random.manual_seed(config.seed + step)
        chosen = torch.multinomial(self.probability, config.motions, generator=self.random)
        motion = torch.cat([self.neutral[None], self.motions[chosen.to(self.motions.device)]])
        crops = self.meter.crops(self.points.expand(len(motion), -1, -1))
        with torch.no_grad():
            fixed = Person(ws=ws.detach(), neutral=self.neutral)
            untuned = self.synthesizer.render(fixed, motion, dtype=dtype)
            wanted = self.meter.measure(untuned, crops)
        person = Person(ws=ws, neutral=self.neutral)
        tuned = self.synthesizer.render(person, motion, weights=weights, dtype=dtype)
        small, generic = (
            F.avg_pool2d(x, max(1, x.shape[-1] // _LAYOUT_SIDE)) for x in (tuned, untuned)
        )
        layout = ((small[1:] - small[:1]) - (generic[1:] - generic[:1])).abs().mean()
        found = self.meter.measure(tuned, crops)
        first, rest = slice(0, 1), slice(1, None)
        expected = found.part(first).moved(wanted.part(first), wanted.part(rest))
        expression = expression_loss(found.part(rest), expected).mean()
        cost = config.weight_layout * layout + config.weight_expression * expression
        return config.weight * cost
