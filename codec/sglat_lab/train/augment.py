"""Adaptive discriminator augmentation: what the critic sees is moved and recoloured at random, as
often as it takes to keep the critic from knowing the training pictures by heart.

Source: Karras et al. 2020, https://arxiv.org/abs/2006.06676, sections 2 and 3, with the pixel
blitting, geometry and colour groups of its pipeline.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

TARGET: Final = 0.6  # mean sign of the critic's scores of real pictures; above it overfits
PICTURES_TO_FULL: Final = 100_000  # the probability takes so many pictures from 0 to 1
MEMORY: Final = 0.9  # of the running mean of the sign, per step
SHIFT: Final = 0.125  # most translation, of the side
SCALE: Final = 0.2  # standard deviation of the size's binary logarithm
BRIGHTNESS: Final = 0.2
CONTRAST: Final = 0.5  # standard deviation of its binary logarithm
SATURATION: Final = 1.0  # likewise


class AdaptiveAugment:
    """Augments pictures with a probability that follows the critic's overfitting."""

    def __init__(self, *, seed: int = 0, probability: float = 0.0) -> None:
        self.probability = probability
        self.sign = 0.0
        """Running mean of the sign of the critic's scores of real pictures."""
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return pictures `[N, 3, H, W]` in [-1, 1], each changed by chance; differentiable.

        Mirroring, turns by 90 degrees, translation, size, turning, brightness, contrast,
        saturation and hue are each done with the present probability.
        """
        if self.probability == 0:
            return pictures
        count = len(pictures)
        moved = _sampled(pictures, self._geometry(count).to(pictures))
        matrix = self._colour(count).to(pictures)
        return torch.einsum("nij,njhw->nihw", matrix[:, :3, :3], moved) + matrix[:, :3, 3:, None]

    def update(self, scores: Tensor) -> None:
        """Take note of the critic's scores `[N, 1]` of augmented real pictures."""
        sign = float(scores.detach().sign().mean())
        self.sign = MEMORY * self.sign + (1 - MEMORY) * sign
        step = len(scores) / PICTURES_TO_FULL * (1 if self.sign > TARGET else -1)
        self.probability = min(1.0, max(0.0, self.probability + step))

    def _chance(self, values: Tensor) -> Tensor:
        """Return values `[N]`, most of them put back to 0."""
        draw = torch.rand(len(values), generator=self.random) < self.probability
        return torch.where(draw, values, torch.zeros_like(values))

    def _normal(self, count: int, deviation: float) -> Tensor:
        return self._chance(torch.randn(count, generator=self.random) * deviation)

    def _uniform(self, count: int, limit: float) -> Tensor:
        draw = torch.rand(count, generator=self.random) * 2 - 1
        return self._chance(draw * limit)

    def _geometry(self, count: int) -> Tensor:
        """Return where each output place comes from, `[N, 2, 3]`."""
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
