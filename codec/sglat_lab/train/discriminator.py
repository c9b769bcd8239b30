"""Adversarial training: residual StyleGAN2 discriminator, adaptive augmentation, R1 penalty.

Source: Karras et al. 2020, https://arxiv.org/abs/1912.04958, section 4.1 (residual discriminator).
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.inverter import EqualizedConv, HalvingBlock
from sglat.networks.stylegan2 import EqualizedLinear

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
