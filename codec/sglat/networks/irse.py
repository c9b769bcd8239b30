"""IR-SE50, the residual trunk with squeeze and excitation that ArcFace and e4e share.

Attribute names are those of the published checkpoints. Sources: Deng et al. 2019 (ArcFace),
https://arxiv.org/abs/1801.07698, section 3.1; Hu et al. 2018, https://arxiv.org/abs/1709.01507.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

STAGES: Final = (
    (64, 3),
    (128, 4),
    (256, 14),
    (512, 3),
)  # channels, blocks; the first of each halves
TAPS: Final = (6, 20, 23)  # last block before 32, 16 and 8 px at 112 px input: e4e's pyramid
_REDUCTION: Final = 16  # squeeze ratio


class SqueezeExcitation(nn.Module):
    """Scale channels by a gate computed from their global averages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` to the same shape."""
        squeezed = x.mean(dim=(2, 3), keepdim=True)
        excitation: Tensor = self.fc2(self.fc1(squeezed).relu()).sigmoid()
        return x * excitation


class Bottleneck(nn.Module):
    """Pre-normalised residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if inputs != outputs
            else None
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H / stride, W / stride]`."""
        if self.shortcut_layer is None:
            shortcut = x[:, :, :: self.stride, :: self.stride]
        else:
            shortcut = self.shortcut_layer(x)
        output: Tensor = self.res_layer(x) + shortcut
        return output


def input_layer() -> nn.Sequential:
    """Return the stem: RGB to 64 channels."""
    return nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))


def body() -> nn.Sequential:
    """Return the 24 blocks."""
    blocks: list[nn.Module] = []
    inputs = 64
    for channels, count in STAGES:
        for position in range(count):
            blocks.append(Bottleneck(inputs, channels, 2 if position == 0 else 1))
            inputs = channels
    return nn.Sequential(*blocks)
