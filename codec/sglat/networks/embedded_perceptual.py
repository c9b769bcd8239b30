"""The embedded perceptual network: how different two pictures look, after LPIPS with SqueezeNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.perceptual import weighted_feature_distance


class PerceptualNetwork(nn.Module):
    """Distances of normalised features at four scales.

    Activations and pooling are smooth, so that the gradient of the distance is too: it serves as a
    loss. The form of the distance is that of Zhang et al. 2018, https://arxiv.org/abs/1801.03924.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            (
                nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.SiLU()),
                nn.Sequential(
                    nn.Conv2d(24, 32, 3, 1, 1), nn.SiLU(), nn.Conv2d(32, 48, 3, 1, 1), nn.SiLU()
                ),
                nn.Sequential(
                    nn.Conv2d(48, 64, 3, 1, 1), nn.SiLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.SiLU()
                ),
                nn.Sequential(
                    nn.Conv2d(64, 80, 3, 1, 1), nn.SiLU(), nn.Conv2d(80, 80, 3, 1, 1), nn.SiLU()
                ),
            )
        )
        self.log_weights = nn.ParameterList(
            [nn.Parameter(torch.full((channels,), -2.0)) for channels in (24, 48, 64, 80)]
        )

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Return feature maps of `[N, 3, H, W]` in [-1, 1]; each channel vector has length 1."""
        x, maps = pictures.contiguous(memory_format=torch.channels_last), []
        for index, scale in enumerate(self.scales):
            x = scale(functional.avg_pool2d(x, 2) if index else x)
            maps.append(x / (x.square().sum(1, keepdim=True) + 1e-4).sqrt())
        return maps

    def heads(self) -> list[Tensor]:
        """Return the weight of each channel, `[C]` a level; none is negative."""
        return [functional.softplus(logarithm) for logarithm in self.log_weights]

    def forward(self, first: Tensor, second: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distance `[N]` of pictures `[N, 3, H, W]` in [-1, 1], H and W at least 32.

        `mask` `[N, 1, H, W]` weighs places, 0 to 1.
        """
        return self.distance(self.features(first), self.features(second), mask)

    def distance(
        self, first: Sequence[Tensor], second: Sequence[Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Return the distance `[N]` of two results of `features`."""
        return weighted_feature_distance(first, second, self.heads(), mask)

    def maps(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """Return the distance at every place, `[N, h, w]` at each scale, of two `features`."""
        return [
            ((one - other).square() * head[None, :, None, None]).sum(1)
            for one, other, head in zip(first, second, self.heads(), strict=True)
        ]
