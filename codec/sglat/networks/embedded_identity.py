"""The embedded identity network: a unit vector per aligned crop that tells persons apart."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_blocks import ConvUnit, ResidualUnit, unshuffled

INPUT_SIZE: Final = 128
DIMENSIONS: Final = 128
WINDOW: Final = (slice(22, 118), slice(16, 112))  # the face itself: rows and columns of the crop


class IdentityNetwork(nn.Module):
    """A residual network ending in one learned weight per position and channel."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            ConvUnit(48, 64, norm=norm),  # 24 x 24
            ResidualUnit(64, norm=norm),
            ConvUnit(64, 96, stride=2, norm=norm),  # 12 x 12
            ResidualUnit(96, norm=norm),
            ConvUnit(96, 96, stride=2, norm=norm),  # 6 x 6
            ResidualUnit(96, norm=norm),
        )
        self.gather = nn.Conv2d(96, 192, 6, groups=96)
        self.head = nn.Linear(192, DIMENSIONS)

    def forward(self, crops: Tensor) -> Tensor:
        """Map aligned crops `[N, 3, 128, 128]` in [-1, 1] to unit vectors `[N, 128]`."""
        window = crops[:, :, WINDOW[0], WINDOW[1]]
        gathered = self.gather(self.trunk(unshuffled(window, 4))).flatten(1)
        return functional.normalize(self.head(gathered), dim=1)
