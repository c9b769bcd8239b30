"""What a rendered face is compared by: pixels, perceptual distance and identity, weighted by
region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

# MediaPipe landmark numbers: iris centres and the middle of the inner lips
_FEATURE_POINTS: Final = ((468,), (473,), (13, 14))
_FEATURE_RADII: Final = (
    (0.075, 0.055),
    (0.075, 0.055),
    (0.13, 0.10),
)  # of the crop's side, x and y


class Perceptual(Protocol):
    """A perceptual distance that compares stored features."""

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Return feature maps of pictures `[N, 3, H, W]` in [-1, 1]."""

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Return the distance `[N]` of two feature lists."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms; pictures are in [-1, 1]."""

    weight_l2: float = 4.0
    weight_perceptual: float = 0.7
    weight_identity: float = 0.05
    feature_weight: float = 3.0
    """Extra weight of eyes and mouth in the pixel term."""


def feature_weights(points: Tensor, side: int, extra: float) -> Tensor:
    """Return pixel weights: 1, rising to `1 + extra` at eyes and mouth.

    Args:
        points: landmarks in crop units (0 to 1), `[N, 478, 2]`.
        side: of the picture in pixels.
        extra: added at the centre of each feature.

    Returns:
        `[N, 1, side, side]`.
    """
    centres = torch.stack([points[:, list(group)].mean(1) for group in _FEATURE_POINTS], dim=1)
    radii = points.new_tensor(_FEATURE_RADII)
    axis = (torch.arange(side, device=points.device) + 0.5) / side
    dx = (axis - centres[..., :1]) / radii[None, :, :1]  # [N, features, side]
    dy = (axis - centres[..., 1:]) / radii[None, :, 1:]
    bumps = torch.exp(-(dx.square()[:, :, None] + dy.square()[..., None]))
    return 1 + extra * bumps.amax(1, keepdim=True)


class TargetLoss:
    """Loss against fixed target pictures, whose features are computed once."""

    def __init__(
        self,
        targets: Tensor,
        weights: Tensor,
        perceptual: Perceptual | None,
        embed: Callable[[Tensor], Tensor] | None,
        config: LossConfig,
    ) -> None:
        """Remember the targets.

        Args:
            targets: `[K, 3, H, W]` in [-1, 1].
            weights: pixel weights `[K, 1, H, W]`.
            perceptual: leave out the term if None.
            embed: pictures to unit identity vectors; leave out the term if None.
            config: weights of the terms.
        """
        self.config = config
        self.weights = weights
        self.perceptual = perceptual
        self.embed = embed
        with torch.no_grad():
            self.features = perceptual.features(targets) if perceptual is not None else []
            self.identity = embed(targets) if embed is not None else None

    def __call__(self, pictures: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """Return one loss per picture, `[N]`; `index` says which targets they are."""
        config = self.config
        squared = (pictures - targets).square() * self.weights[index]
        total = config.weight_l2 * squared.mean((1, 2, 3))
        if self.perceptual is not None and config.weight_perceptual:
            wanted = [level[index] for level in self.features]
            found = self.perceptual.features(pictures)
            total = total + config.weight_perceptual * self.perceptual.distance(found, wanted)
        if self.embed is not None and self.identity is not None and config.weight_identity:
            cosine = (self.embed(pictures) * self.identity[index]).sum(1)
            total = total + config.weight_identity * (1 - cosine)
        return total
