"""Losses of the embedded bundle: adversarial, and on single controls and the pose.

The adversarial one: residual StyleGAN2 discriminator, adaptive augmentation, R1 penalty. Source:
Karras et al. 2020, https://arxiv.org/abs/1912.04958, section 4.1 (residual discriminator). The
others penalise change outside the face region of each control, and pose errors.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.bitstream.channels import GROUPS
from sglat.bundles.discover import part_masks
from sglat.encoder.motion_bank import displaced_crops, sampled
from sglat.networks.faces import FaceAnalysis
from sglat.networks.inverter import EqualizedConv, HalvingBlock
from sglat.networks.stylegan2 import EqualizedLinear
from sglat_lab.train.data import FaceBatch
from sglat_lab.train.mini_model import MiniModel

PUSH = 2.0  # displacement of a control in standard deviations
WANTED = 4.0  # ratio of change inside to outside from which the cost is 0
RANGES = (23.0, 16.0)  # largest yaw and pitch in degrees, both directions
SPREAD = (0.06, 0.03, 4.0)  # of the landmark crops: size, place in crops, roll in degrees
UNITS = (10.0, 6.0)  # degrees of yaw and pitch that cost 1: pitch has the smaller range


class RegionLoss:
    """Penalises changes outside a control's face region, one random control a face.

    The ratio is the one controls are measured by afterwards (`sglat.bundles.discover.part_masks`):
    mean absolute change inside the region over mean absolute change outside.
    """

    def __init__(self, faces: FaceAnalysis, sigma: Tensor, *, seed: int) -> None:
        """Take the parsing network and the standard deviation of each control, `[32]`."""
        self.faces = faces
        self.sigma = sigma
        self.random = torch.Generator().manual_seed(seed)
        self.ratios = torch.full((len(GROUPS),), math.nan)

    def __call__(
        self,
        model: MiniModel,
        styles: list[Tensor],
        pictures: Tensor,
        *,
        dtype: torch.dtype,
    ) -> Tensor:
        """Return the mean cost over the faces, a scalar; 0 for changes inside the regions only.

        Args:
            model: generator and directions.
            styles: StyleSpace vectors of the faces, `[N, C]` a layer.
            pictures: the same faces rendered, `[N, 3, H, W]`.
            dtype: of the generator's features.
        """
        count = len(pictures)
        drawn = torch.randint(0, len(GROUPS), (count,), generator=self.random)
        signs = torch.randint(0, 2, (count,), generator=self.random) * 2.0 - 1
        values = torch.zeros(count, len(GROUPS), device=pictures.device)
        push = PUSH * signs * self.sigma.to(signs.device)[drawn]
        values[torch.arange(count), drawn] = push.to(values.device)
        moved = model.generator.synthesize(model.moved(styles, values), dtype=dtype)
        difference = (moved - pictures).abs().mean(1, keepdim=True)
        with torch.no_grad():
            parts = part_masks(self.faces.parse(pictures.detach().float().clamp(-1, 1)))
        mask = torch.cat([parts[GROUPS[c]][i : i + 1] for i, c in enumerate(drawn.tolist())])
        inside = (difference * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)
        rest = 1 - mask
        outside = (difference * rest).sum((1, 2, 3)) / rest.sum((1, 2, 3)).clamp_min(1)
        visible = mask.sum((1, 2, 3)) >= 4  # a hidden region gives no ratio
        ratio = (inside + 1e-4) / (outside + 1e-4)
        cost = (math.log(WANTED) - ratio.log()).clamp_min(0)
        self._remember(drawn, ratio.detach(), visible)
        total: Tensor = (cost * visible).sum() / visible.sum().clamp_min(1)
        return total

    def _remember(self, drawn: Tensor, ratio: Tensor, visible: Tensor) -> None:
        """Keep a running mean of each control's ratio for the log."""
        for control, value, is_visible in zip(
            drawn.tolist(), ratio.tolist(), visible.tolist(), strict=True
        ):
            if is_visible:
                before = float(self.ratios[control])
                fresh = value if math.isnan(before) else 0.9 * before + 0.1 * value
                self.ratios[control] = fresh

    def local_share(self) -> float:
        """Return the share of controls whose running ratio is at least 3."""
        return float((self.ratios >= 3).float().mean())


class PoseLoss:
    """Pose consistency: requested against measured yaw and pitch, at random angles.

    Pairs of frames alone lead to angles that are too small: errors of labels and pictures attenuate
    the regression. The landmark network measures in randomly displaced crops, against adversarial
    solutions in fixed pixels.
    """

    def __init__(self, landmarks: nn.Module, *, seed: int) -> None:
        """Take the network that measures pose in degrees in crops `[N, 3, 128, 128]`."""
        self.landmarks = landmarks
        self.random = torch.Generator().manual_seed(seed)
        self.error = torch.full((2,), float("nan"))

    def __call__(
        self, model: MiniModel, ws: Tensor, faces: FaceBatch, *, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Return the mean cost, a scalar, and the turned pictures `[N, 3, H, W]`.

        Args:
            model: generator and pose flow.
            ws: ID latents of the faces, `[N, L, D]`.
            faces: their labels.
            dtype: of the generator's features.
        """
        count = len(ws)
        ranges = torch.tensor(RANGES)
        target = (torch.rand(count, 2, generator=self.random) * 2 - 1) * ranges
        one = torch.randint(0, 3, (count, 1), generator=self.random)  # yaw, pitch or both
        target = (target * (one != torch.tensor([[1, 0]]))).to(ws.device)
        turned = model.pose_flow.turn(ws, faces.pose_degrees, target)
        pictures = model.generator.synthesize(model.generator.styles(turned), dtype=dtype)
        crops = sampled(pictures.float(), displaced_crops(faces.points, SPREAD, self.random))
        measured = self.landmarks(crops).pose[:, :2]
        miss = (measured - target) / measured.new_tensor(UNITS)
        with torch.no_grad():
            now = (measured - target).abs().mean(0).cpu()
            self.error = torch.where(self.error.isnan(), now, 0.95 * self.error + 0.05 * now)
        return F.smooth_l1_loss(miss, torch.zeros_like(miss), beta=0.3), pictures


@dataclass(kw_only=True)
class ControlLosses:
    """Region and pose losses on some faces of a batch, alternating where both are in use."""

    region: RegionLoss | None
    pose: PoseLoss | None
    identity: nn.Module
    """Crops `[N, 3, H, W]` to unit vectors; keeps the identity of turned faces."""
    weight_region: float
    weight_pose: float
    weight_identity: float

    def __call__(
        self,
        model: MiniModel,
        faces: FaceBatch,
        ws: Tensor,
        styles: list[Tensor],
        pictures: Tensor,
        *,
        step: int,
        dtype: torch.dtype,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms and their weighted sum.

        Args:
            model: generator, pose flow and directions.
            faces: ID frames, N of them.
            ws: their latents, `[N, L, D]`.
            styles: StyleSpace vectors of the rendered pictures, `[N, C]` a layer.
            pictures: `[N, 3, H, W]`.
            step: number of the step.
            dtype: of the generator's features.
        """
        terms: dict[str, Tensor] = {}
        loss = pictures.new_zeros(())
        both = self.region is not None and self.pose is not None
        turn, share = (step % 2, 2.0) if both else (-1, 1.0)
        if self.region is not None and turn != 1:
            terms["region"] = self.region(model, styles, pictures, dtype=dtype)
            loss = loss + share * self.weight_region * terms["region"]
        if self.pose is not None and turn != 0:
            terms["pose"], turned = self.pose(model, ws, faces, dtype=dtype)
            with torch.no_grad():
                wanted = self.identity(faces.images)
            terms["turned"] = 1 - (self.identity(turned) * wanted).sum(1).mean()
            loss = loss + share * self.weight_pose * terms["pose"]
            loss = loss + share * self.weight_identity * terms["turned"]
        return terms, loss

    def report(self) -> None:
        """Print running means."""
        if self.region is not None:
            print(f"local controls {self.region.local_share():.2f}", flush=True)
        if self.pose is not None:
            yaw, pitch = self.pose.error.tolist()
            print(f"pose error in degrees: yaw {yaw:.1f}, pitch {pitch:.1f}", flush=True)


TARGET: Final = 0.6  # mean sign of the scores of real pictures; above it is overfitting
PICTURES_TO_FULL: Final = 100_000  # over which the probability rises from 0 to 1
MEMORY: Final = 0.9  # of the running mean of the sign, per step
SHIFT: Final = 0.125  # largest translation, of the side
SCALE: Final = 0.2  # standard deviation of its binary logarithm
BRIGHTNESS: Final = 0.2
CONTRAST: Final = 0.5  # standard deviation of its binary logarithm
SATURATION: Final = 1.0  # likewise


class Discriminator(nn.Module):
    """Aligned crops to one realness score."""

    def __init__(
        self, size: int = 128, channels: tuple[int, ...] = (64, 96, 160, 224, 256)
    ) -> None:
        """Take the side of the pictures, at least 128; their pixels are folded to 64 a side."""
        super().__init__()
        self.fold = size // 64
        self.stem = EqualizedConv(3 * self.fold**2, channels[0], 3)
        self.blocks = nn.Sequential(*(HalvingBlock(a, b) for a, b in itertools.pairwise(channels)))
        self.last = EqualizedConv(channels[-1] + 1, channels[-1], 3)
        self.hidden = EqualizedLinear(channels[-1] * 16, channels[-1])
        self.score = EqualizedLinear(channels[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores `[N, 1]` of images `[N, 3, H, W]` in [-1, 1]."""
        x = F.pixel_unshuffle(images, self.fold).contiguous(memory_format=torch.channels_last)
        x = self.blocks(F.leaky_relu(self.stem(x), 0.2))
        deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()  # minibatch statistics
        x = torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)
        x = F.leaky_relu(self.last(x), 0.2).flatten(1)
        score: Tensor = self.score(F.leaky_relu(self.hidden(x), 0.2))
        return score


class AdaptiveAugment:
    """Augments pictures with a probability that follows the discriminator's overfitting.

    Source: Karras et al. 2020, https://arxiv.org/abs/2006.06676, sections 2 and 3, with the pixel
    blitting, geometry and colour groups of its pipeline.
    """

    def __init__(self, *, seed: int = 0, probability: float = 0.0) -> None:
        self.probability = probability
        self.sign = 0.0
        """Running mean of the sign of the discriminator's scores of real pictures."""
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return randomly augmented pictures `[N, 3, H, W]` in [-1, 1]; differentiable.

        Mirroring, rotation by 90 degrees, translation, scaling, rotation, brightness, contrast,
        saturation and hue are each applied with the present probability.
        """
        if self.probability == 0:
            return pictures
        count = len(pictures)
        moved = _sampled(pictures, self._geometry(count).to(pictures))
        matrix = self._colour(count).to(pictures)
        return torch.einsum("nij,njhw->nihw", matrix[:, :3, :3], moved) + matrix[:, :3, 3:, None]

    def update(self, scores: Tensor) -> None:
        """Adapt the probability to scores `[N, 1]` of augmented real pictures."""
        sign = float(scores.detach().sign().mean())
        self.sign = MEMORY * self.sign + (1 - MEMORY) * sign
        step = len(scores) / PICTURES_TO_FULL * (1 if self.sign > TARGET else -1)
        self.probability = min(1.0, max(0.0, self.probability + step))

    def _chance(self, values: Tensor) -> Tensor:
        """Return values `[N]`, each kept with the present probability, else 0."""
        draw = torch.rand(len(values), generator=self.random) < self.probability
        return torch.where(draw, values, torch.zeros_like(values))

    def _normal(self, count: int, deviation: float) -> Tensor:
        return self._chance(torch.randn(count, generator=self.random) * deviation)

    def _uniform(self, count: int, limit: float) -> Tensor:
        draw = torch.rand(count, generator=self.random) * 2 - 1
        return self._chance(draw * limit)

    def _geometry(self, count: int) -> Tensor:
        """Return affine maps from output to input places, `[N, 2, 3]`."""
        mirror = 1 - 2 * self._chance(torch.randint(0, 2, (count,), generator=self.random).float())
        quarter = torch.randint(0, 4, (count,), generator=self.random).float() * (math.pi / 2)
        angle = self._chance(quarter) + self._uniform(count, math.pi)
        size = torch.exp2(self._normal(count, SCALE))
        across, down = (2 * self._uniform(count, SHIFT) for _ in range(2))
        cos, sin = angle.cos() * size, angle.sin() * size
        return torch.stack([cos * mirror, -sin, across, sin * mirror, cos, down], 1).view(-1, 2, 3)

    def _colour(self, count: int) -> Tensor:
        """Return affine changes of colour, `[N, 4, 4]`."""
        grey = torch.full((3,), 1 / math.sqrt(3))
        along = torch.outer(grey, grey)  # onto the axis of grey
        eye = torch.eye(3)
        contrast = torch.exp2(self._normal(count, CONTRAST))[:, None, None]
        saturation = torch.exp2(self._normal(count, SATURATION))[:, None, None]
        hue = self._uniform(count, math.pi)[:, None, None]
        x, y, z = grey.tolist()
        cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        turned = eye * hue.cos() + cross * hue.sin() + along * (1 - hue.cos())
        matrix = torch.zeros(count, 4, 4)
        matrix[:, :3, :3] = (along + (eye - along) * saturation) @ turned * contrast
        matrix[:, :3, 3] = self._normal(count, BRIGHTNESS)[:, None]
        matrix[:, 3, 3] = 1
        return matrix


def _sampled(pictures: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(
        pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


class Adversary:
    """Discriminator, its optimiser and its augmentation."""

    def __init__(self, size: int, *, rate: float, weight_r1: float, device: torch.device) -> None:
        """Take the side of the pictures, the learning rate and the weight of the R1 penalty."""
        self.rate, self.weight_r1 = rate, weight_r1
        self.network = Discriminator(size).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, betas=(0.0, 0.99))
        self.augment = AdaptiveAugment()

    def state(self) -> dict[str, Any]:
        """Return the entries of a checkpoint."""
        return {
            "discriminator": self.network.state_dict(),
            "optimizer_d": self.optimizer.state_dict(),
        }

    def restore(self, stored: dict[str, Any]) -> None:
        """Load the entries of a checkpoint."""
        self.network.load_state_dict(stored["discriminator"])
        self.optimizer.load_state_dict(stored["optimizer_d"])

    def loss(self, pictures: Tensor) -> Tensor:
        """Return the generator's non-saturating loss."""
        self.network.requires_grad_(False)
        loss = F.softplus(-self.network(self.augment(pictures))).mean()
        self.network.requires_grad_(True)
        return loss

    def step(self, fake: Tensor, real: Tensor, *, rate: float, step: int) -> Tensor:
        """Take one step on pictures `[N, 3, H, W]`, and return the loss.

        Args:
            fake: generated.
            real: of the training set.
            rate: factor of the learning rate.
            step: number of the step; every 16th has the R1 penalty.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * rate
        scores = self.network(self.augment(real))
        self.augment.update(scores)
        loss = F.softplus(self.network(self.augment(fake))).mean()
        loss = loss + F.softplus(-scores).mean()
        if step % 16 == 0:  # lazy R1, Karras et al. 2020, section 3.1
            real = self.augment(real[: max(4, len(real) // 2)]).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.network(real).sum(), real, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
            loss = loss + penalty * (0.5 * 16 * self.weight_r1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()
