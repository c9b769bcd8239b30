"""The embedded perceptual network: how different two pictures look, after LPIPS with SqueezeNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


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

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance `[N]` of pictures `[N, 3, H, W]` in [-1, 1], H and W at least 32."""
        return self.distance(self.features(first), self.features(second))

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Return the distance `[N]` of two results of `features`."""
        total = first[0].new_zeros(())
        for place in self.maps(first, second):
            total = total + place.mean(dim=(1, 2))
        return total

    def maps(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """Return the distance at every place, `[N, h, w]` at each scale, of two `features`."""
        return [
            ((one - other).square() * functional.softplus(logarithm)[None, :, None, None]).sum(1)
            for one, other, logarithm in zip(first, second, self.log_weights, strict=True)
        ]
