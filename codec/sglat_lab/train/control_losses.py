"""Losses on single controls: change outside the face region of each, and pose consistency."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.bundles.controls import GROUPS
from sglat.bundles.discover import part_masks
from sglat.networks.embedded_nets import INPUT_SIZE
from sglat.networks.embedded_views import CROP_SCALE
from sglat.networks.faces import FaceAnalysis
from sglat_lab.train.mini_model import FaceBatch, MiniModel

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
        measured = self.landmarks(self._crops(pictures.float(), faces.points)).pose[:, :2]
        miss = (measured - target) / measured.new_tensor(UNITS)
        with torch.no_grad():
            now = (measured - target).abs().mean(0).cpu()
            self.error = torch.where(self.error.isnan(), now, 0.95 * self.error + 0.05 * now)
        return F.smooth_l1_loss(miss, torch.zeros_like(miss), beta=0.3), pictures

    def _crops(self, pictures: Tensor, points: Tensor) -> Tensor:
        """Return randomly displaced landmark crops of faces with points `[N, 478, 2]`."""
        low, high = points.amin(1), points.amax(1)
        size, place, roll = (
            torch.randn(len(points), n, generator=self.random).to(points) * s
            for n, s in zip((1, 2, 1), SPREAD, strict=True)
        )
        centre = (low + high) / 2 + place
        side = CROP_SCALE * (high - low).amax(1, keepdim=True) * (1 + size)
        angle = torch.deg2rad(roll[:, 0])
        rows = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        theta = torch.cat([rows * side[..., None], (2 * centre - 1)[..., None]], 2)
        grid = F.affine_grid(theta, [len(points), 3, INPUT_SIZE, INPUT_SIZE], align_corners=False)
        return F.grid_sample(
            pictures, grid, mode="bilinear", padding_mode="border", align_corners=False
        )


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
