"""What the fast solver makes small: vectors whose squared length is a loss of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

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
