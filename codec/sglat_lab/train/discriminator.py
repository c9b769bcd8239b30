"""The critic of adversarial training: a small residual StyleGAN2-style discriminator.

Source: Karras et al. 2020, https://arxiv.org/abs/1912.04958, section 4.1 (residual discriminator).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.inverter import EqualizedConv, EqualizedLinear, HalvingBlock


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
