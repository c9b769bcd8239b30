"""The embedded face parsing network: 19 classes on an aligned crop."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_blocks import ConvUnit, ResidualUnit, unshuffled

INPUT_SIZE: Final = 128
NUM_CLASSES: Final = 19  # the order of sglat.networks.faces.PARSING_CLASSES


class ParsingNetwork(nn.Module):
    """A small U-Net that works at half the input's resolution and below."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.at2 = nn.Sequential(
            ConvUnit(12, 32, norm=norm), ConvUnit(32, 32, norm=norm)
        )  # 64 x 64
        self.at4 = nn.Sequential(ConvUnit(32, 48, stride=2, norm=norm), ResidualUnit(48, norm=norm))
        self.at8 = nn.Sequential(ConvUnit(48, 80, stride=2, norm=norm), ResidualUnit(80, norm=norm))
        self.at16 = nn.Sequential(
            ConvUnit(80, 80, stride=2, norm=norm), ResidualUnit(80, norm=norm)
        )  # 8 x 8
        self.context = ConvUnit(80, 80, kernel=1, norm=norm)  # of the whole crop
        self.to_eighth = ConvUnit(80, 80, kernel=1, norm=norm, activate=False)
        self.to_quarter = ConvUnit(64, 48, kernel=1, norm=norm, activate=False)
        self.to_half = ConvUnit(48, 32, kernel=1, norm=norm, activate=False)
        self.merge_eighth = ConvUnit(80, 64, norm=norm)
        self.merge_quarter = ConvUnit(48, 48, norm=norm)
        self.merge_half = ConvUnit(32, 48, norm=norm)
        self.head = nn.Conv2d(48, 4 * NUM_CLASSES, 1)

    def forward(self, crops: Tensor) -> Tensor:
        """Map aligned crops `[N, 3, 128, 128]` in [-1, 1] to class scores `[N, 19, 128, 128]`."""
        half = self.at2(unshuffled(crops, 2))
        quarter = self.at4(half)
        eighth = self.at8(quarter)
        deep = self.at16(eighth)
        deep = deep + self.context(deep.mean(dim=(2, 3), keepdim=True))
        eighth = self.merge_eighth(eighth + _doubled(self.to_eighth(deep)))
        quarter = self.merge_quarter(quarter + _doubled(self.to_quarter(eighth)))
        half = self.merge_half(half + _doubled(self.to_half(quarter)))
        return functional.pixel_shuffle(self.head(half), 2)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
