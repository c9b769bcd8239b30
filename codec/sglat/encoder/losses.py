"""What a rendered face is compared by: pixels, structure, and networks if wanted, by region.

The perceptual network counts because it imitates the feature maps of a large network level by
level, which leaves tuning little room to please it alone: on one clip the distance that the large
network sees fell by a third at the same squared error. The identity network is off by default:
tuning finds pictures that please it alone (it said 0.96 where an independent one said 0.61).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW: Final = 7  # pixels: an eye's width at 128 px is twice that
_C1: Final = (0.01 * 2) ** 2  # the article's constants for values that span 2
_C2: Final = (0.03 * 2) ** 2


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
    weight_l1: float = 1.0
    weight_structure: float = 0.3
    """Of one minus the structural similarity at full and half size."""
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
        self.perceptual = perceptual if config.weight_perceptual else None
        self.embed = embed if config.weight_identity else None
        with torch.no_grad():
            self.features = self.perceptual.features(targets) if self.perceptual else []
            self.identity = self.embed(targets) if self.embed else None

    def __call__(self, pictures: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """Return one loss per picture, `[N]`; `index` says which targets they are."""
        config = self.config
        weights = self.weights[index]
        difference = pictures - targets
        total = config.weight_l2 * (difference.square() * weights).mean((1, 2, 3))
        if config.weight_l1:
            total = total + config.weight_l1 * (difference.abs() * weights).mean((1, 2, 3))
        if config.weight_structure:
            for scale in (1, 2):
                a, b, w = (_pooled(x, scale) for x in (pictures, targets, weights))
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


def _pooled(x: Tensor, scale: int) -> Tensor:
    return F.avg_pool2d(x, scale) if scale > 1 else x
