"""Picture losses for tuning, and residual vectors for least squares, by face region.

The perceptual network imitates the feature maps of a large network level by level, which limits
adversarial solutions that fool only this network: on one clip the large network's distance fell by
a third at the same squared error. The identity term is off by default, since tuning does find
adversarial solutions of that network (a cosine of 0.96 by it was 0.61 by an independent one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from sglat.networks.embedded_nets import INPUT_SIZE, LandmarkNetwork, LandmarkOutput
from sglat.networks.embedded_views import CROP_SCALE
from sglat.networks.perceptual import PerceptualDistance

_WINDOW: Final = 7  # pixels: an eye's width at 128 px is twice that
_C1: Final = (0.01 * 2) ** 2  # the article's constants for values that span 2
_C2: Final = (0.03 * 2) ** 2
DEGREE: Final = 0.007
"""Shift of all landmarks in crop units that weighs as much as a degree of yaw or pitch: about a
pixel of 128, twice the shift that a degree causes."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms; pictures are in [-1, 1]."""

    weight_l2: float = 4.0
    weight_l1: float = 1.0
    weight_structure: float = 0.3
    """Of one minus the structural similarity at full and at half size."""
    weight_perceptual: float = 0.5
    weight_identity: float = 0.0
    feature_weight: float = 6.0
    """Extra weight of eyes and mouth in the pixel and structure terms."""


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return the local structural similarity of pictures `[N, C, H, W]` in [-1, 1], same shape.

    Source: Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, equation 13, with a Hann
    window of 7 pixels.
    """
    taps = torch.hann_window(_WINDOW + 2, periodic=False, dtype=first.dtype)[1:-1]
    taps = (taps / taps.sum()).to(first.device)
    channels = 5 * first.shape[1]
    moments = torch.cat([first, second, first * first, second * second, first * second], 1)
    moments = F.pad(moments, (_WINDOW // 2,) * 4, mode="reflect")
    rows = taps.view(1, 1, _WINDOW, 1).expand(channels, 1, _WINDOW, 1)
    columns = taps.view(1, 1, 1, _WINDOW).expand(channels, 1, 1, _WINDOW)
    moments = F.conv2d(F.conv2d(moments, rows, groups=channels), columns, groups=channels)
    mean_a, mean_b, square_a, square_b, product = moments.chunk(5, dim=1)
    covariance = product - mean_a * mean_b
    variances = square_a - mean_a.square() + square_b - mean_b.square()
    light = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    similarity: Tensor = light * (2 * covariance + _C2) / (variances + _C2)
    return similarity


class TargetLoss:
    """Loss against fixed target pictures, whose features are computed once."""

    def __init__(
        self,
        targets: Tensor,
        weights: Tensor,
        perceptual: PerceptualDistance | None,
        embed: Callable[[Tensor], Tensor] | None,
        config: LossConfig,
        masks: Tensor | None = None,
    ) -> None:
        """Remember targets `[K, 3, H, W]` in [-1, 1] and their pixel weights `[K, 1, H, W]`.

        Without a perceptual network or identity vectors (`embed`) their terms are left out. Masks
        `[K, 1, H, W]` are 0 where nothing is compared; None compares all.
        """
        self.config = config
        self.masks = masks
        self.weights = weights
        self.perceptual = perceptual if config.weight_perceptual else None
        self.embed = embed if config.weight_identity else None
        with torch.no_grad():
            self.features = self.perceptual.features(targets) if self.perceptual else []
            self.identity = self.embed(targets) if self.embed else None

    def __call__(self, pictures: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """Return one loss per picture, `[N]`; `index` gives the rows of the targets."""
        config = self.config
        weights = self.weights[index]
        if self.masks is not None:
            pictures = shown_through(pictures, targets, self.masks[index])
        difference = pictures - targets
        total = config.weight_l2 * (difference.square() * weights).mean((1, 2, 3))
        if config.weight_l1:
            total = total + config.weight_l1 * (difference.abs() * weights).mean((1, 2, 3))
        if config.weight_structure:
            for scale in (1, 2):
                a, b, w = (
                    F.avg_pool2d(x, scale) if scale > 1 else x for x in (pictures, targets, weights)
                )
                unlike = (1 - structural_similarity(a, b)) * w
                total = total + config.weight_structure / 2 * unlike.mean((1, 2, 3))
        if self.perceptual is not None:
            wanted = [level[index] for level in self.features]
            found = self.perceptual.features(pictures)
            total = total + config.weight_perceptual * self.perceptual.distance(found, wanted)
        if self.embed is not None and self.identity is not None:
            cosine = (self.embed(pictures) * self.identity[index]).sum(1)
            total = total + config.weight_identity * (1 - cosine)
        return total


def shown_through(pictures: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    """Return pictures `[N, 3, H, W]` with the targets where masks `[N, 1, H, W]` are 0.

    Every loss then counts nothing there, whatever its networks read around a pixel.
    """
    return targets + masks * (pictures - targets)


class Residual(Protocol):
    """Maps pictures to vectors whose squared distance is a loss between the pictures."""

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
    """Features of a perceptual network, scaled so that the squared distance is the network's."""

    def __init__(self, network: PerceptualDistance, mask: Tensor, weight: float = 1.0) -> None:
        """Fix the mask within which pictures are compared, `[1, 1, H, W]`, 0 to 1."""
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


class LandmarkResidual:
    """Landmarks and head pose of rendered faces.

    Half a degree of yaw or a slightly open lip changes few pixels but many landmarks.
    """

    def __init__(self, network: LandmarkNetwork, points: Tensor, weight: float) -> None:
        """Fix the square that is cut out for the network, around points `[T, 478, 2]` in crop
        units.

        The weight is that of the mean squared distance of the points and of the network's yaw and
        pitch (see `DEGREE`).
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

    def _found(self, views: Tensor) -> Tensor:
        found: LandmarkOutput = self.network(views)
        points = found.points.flatten(1) * (self.side * self.root)
        return torch.cat([points, found.pose[:, :2] * self.root_pose], 1)

    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Residual`."""
        return self._found(self._view(pictures))

    def pushed(self, picture: Tensor, tangents: Tensor) -> Tensor:
        """See `Residual`; the cut is linear, the network by forward-mode differentiation."""
        many = self._view(picture).repeat(len(tangents), 1, 1, 1)
        result: Tensor = jvp(self._found, (many,), (self._view(tangents),))[1]
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
