"""What the fast solver makes small: vectors whose squared length is a loss of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from sglat.networks.embedded_nets import INPUT_SIZE, LandmarkNetwork, LandmarkOutput
from sglat.networks.embedded_views import CROP_SCALE
from sglat.networks.perceptual import PerceptualDistance


class Residual(Protocol):
    """Maps pictures to vectors; two pictures differ by the squared length between theirs."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """Map pictures `[N, 3, H, W]` to vectors `[N, R]`."""

    def pushed(self, picture: Tensor, tangents: Tensor) -> Tensor:
        """Map changes `[K, 3, H, W]` of a picture `[1, 3, H, W]` to changes `[K, R]`."""


class PixelResidual:
    """Weighted pixels at several scales."""

    def __init__(self, weights: Tensor, scales: tuple[int, ...]) -> None:
        """Fix the pixel weights `[1, 1, H, W]`."""
        self.scales = scales
        self.roots = [
            (F.avg_pool2d(weights, scale) if scale > 1 else weights).sqrt() * scale
            for scale in scales
        ]  # times scale: a pooled pixel stands for scale² pixels

    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Residual`."""
        parts = []
        for scale, root in zip(self.scales, self.roots, strict=True):
            pooled = F.avg_pool2d(pictures, scale) if scale > 1 else pictures
            parts.append((pooled * root).flatten(1))
        stacked: Tensor = torch.cat(parts, 1) / pictures[0].numel() ** 0.5
        return stacked

    def pushed(self, picture: Tensor, tangents: Tensor) -> Tensor:
        """See `Residual`; the map is linear."""
        return self(tangents)


class PerceptualResidual:
    """Features of a perceptual network: the squared length is its distance times a weight."""

    def __init__(self, network: PerceptualDistance, mask: Tensor, weight: float = 1.0) -> None:
        """Fix where pictures are compared, `[1, 1, H, W]`, 0 to 1."""
        self.network, self.weight = network, weight
        self.mask = mask.cpu()  # pooled there: MPS cannot pool to sides that do not divide its own

    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Residual`."""
        parts = []
        for level, head in zip(self.network.features(pictures), self.network.heads(), strict=True):
            places = F.adaptive_avg_pool2d(self.mask, level.shape[-2:])  # type: ignore[arg-type]
            share = places / places.sum().clamp_min(1e-6)
            weights = self.weight * share.flatten(1).to(level.device)
            root = (weights * head[:, None]).sqrt()  # [C, places]
            counts = share.flatten() > 0
            parts.append((level.flatten(2)[:, :, counts] * root[:, counts]).flatten(1))
        return torch.cat(parts, 1)

    def pushed(self, picture: Tensor, tangents: Tensor) -> Tensor:
        """See `Residual`; by forward-mode differentiation."""
        many = picture.repeat(len(tangents), 1, 1, 1)
        result: Tensor = jvp(self, (many,), (tangents,))[1]
        return result


DEGREE: Final = 0.007
"""Of yaw or pitch weighs as much as this shift of all landmarks, in crop units: a pixel of 128,
about twice what it moves them."""


class LandmarkResidual:
    """Where the landmark network sees the face: a turn of half a degree or a lip that is not quite
    open moves few pixels, and all points."""

    def __init__(self, network: LandmarkNetwork, points: Tensor, weight: float) -> None:
        """Fix the square in which the network looks.

        Args:
            network: sees views `[N, 3, 128, 128]`.
            points: landmarks of the clip in crop units, `[T, 478, 2]`.
            weight: of the mean squared distance of the points, in crop units, and of yaw and pitch
                as the network says them (see `DEGREE`).
        """
        self.network = network
        self.root = math.sqrt(weight / (2 * points.shape[1]))
        self.root_pose = math.sqrt(weight) * DEGREE
        low, high = points.amin(1).mean(0), points.amax(1).mean(0)
        self.side = CROP_SCALE * float((high - low).max())
        self.centre = ((low + high) / 2).tolist()

    def _view(self, pictures: Tensor) -> Tensor:
        """Cut the square out of pictures; linear."""
        shrink = int(self.side * pictures.shape[-1] / INPUT_SIZE)
        if shrink > 1:
            pictures = F.avg_pool2d(pictures, shrink)
        x, y = (2 * c - 1 for c in self.centre)
        theta = pictures.new_tensor([[self.side, 0.0, x], [0.0, self.side, y]])
        size = [len(pictures), 3, INPUT_SIZE, INPUT_SIZE]
        grid = F.affine_grid(theta.expand(len(pictures), -1, -1), size, align_corners=False)
        return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)

    def _seen(self, views: Tensor) -> Tensor:
        found: LandmarkOutput = self.network(views)
        points = found.points.flatten(1) * (self.side * self.root)
        return torch.cat([points, found.pose[:, :2] * self.root_pose], 1)

    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Residual`."""
        return self._seen(self._view(pictures))

    def pushed(self, picture: Tensor, tangents: Tensor) -> Tensor:
        """See `Residual`; the cut is linear, the network by forward-mode differentiation."""
        many = self._view(picture).repeat(len(tangents), 1, 1, 1)
        result: Tensor = jvp(self._seen, (many,), (self._view(tangents),))[1]
        return result


class JoinedResidual:
    """Several residuals as one: their losses are added."""

    def __init__(self, parts: Sequence[Residual]) -> None:
        self.parts = parts

    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Residual`."""
        return torch.cat([part(pictures) for part in self.parts], 1)

    def pushed(self, picture: Tensor, tangents: Tensor) -> Tensor:
        """See `Residual`."""
        return torch.cat([part.pushed(picture, tangents) for part in self.parts], 1)
