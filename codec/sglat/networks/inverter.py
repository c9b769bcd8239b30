"""Inverters, from an aligned crop to W+ latents: Encoder4Editing, and the embedded one.

Encoder4Editing (Tov et al. 2021, https://arxiv.org/abs/2102.02766, section 4) makes one base code
and small per-row offsets, so that latents stay editable; attribute names are those of the published
checkpoint. The embedded inverter has the same scheme; its trunk is a short residual network at 1/4
of the resolution, small enough for a laptop's processor.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.published_nets import TAPS, at_side, body, input_layer
from sglat.networks.stylegan2 import EqualizedLinear

_GAIN = math.sqrt(2.0)  # keeps the variance through a leaky rectifier


@dataclass(frozen=True, kw_only=True)
class InverterConfig:
    """Sizes of the embedded inverter."""

    resolution: int = 128
    """Height and width of the crop in pixels."""
    num_ws: int = 12
    """Style rows of the generator."""
    style_dim: int = 256
    """Width of a style row."""
    patch: int = 4
    """Pixels folded into channels before the first convolution."""
    channels: tuple[int, ...] = (128, 160, 224, 256)
    """Stem width, then the width after each halving."""
    neck_channels: int = 96
    """Width of the 1x1 convolution before the linear layers."""
    hidden: int = 320
    """Width of the shared code."""
    offset_hidden: int = 192
    """Width of the code behind the per-row offsets."""


class EqualizedConv(nn.Module):
    """Convolution with equalised learning rate and zero padding that keeps the size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, gain: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs * kernel * kernel)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class HalvingBlock(nn.Module):
    """Residual block that halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv(inputs, inputs, 3)
        self.conv1 = EqualizedConv(inputs, outputs, 3, gain=_GAIN)
        self.skip = EqualizedConv(inputs, outputs, 1, gain=1 / _GAIN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(F.leaky_relu(self.conv0(x), 0.2), 2)
        z: Tensor = F.leaky_relu(self.conv1(y), 0.2) + self.skip(F.avg_pool2d(x, 2))
        return z


class Inverter(nn.Module):
    """Aligned crop to W+ code."""

    def __init__(self, config: InverterConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.stem = EqualizedConv(3 * config.patch**2, widths[0], 3)
        self.blocks = nn.Sequential(*(HalvingBlock(a, b) for a, b in itertools.pairwise(widths)))
        self.neck = EqualizedConv(widths[-1], config.neck_channels, 1)
        side = config.resolution // config.patch // 2 ** (len(widths) - 1)
        self.shared = EqualizedLinear(config.neck_channels * side**2, config.hidden)
        self.base = EqualizedLinear(config.hidden, config.style_dim)
        self.offset_hidden = EqualizedLinear(config.hidden, config.offset_hidden)
        self.offsets = EqualizedLinear(config.offset_hidden, config.num_ws * config.style_dim)
        with torch.no_grad():
            self.offsets.weight.mul_(0.1)  # training begins near one code for all rows

    def forward(self, crops: Tensor) -> Tensor:
        """Return W+ codes `[N, L, D]` of aligned faces in [-1, 1], `[N, 3, H, W]`; larger ones are
        scaled down."""
        side = self.config.resolution
        if crops.shape[-1] > side:
            crops = F.interpolate(crops, size=side, mode="area")
        x = F.pixel_unshuffle(crops, self.config.patch)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.blocks(F.leaky_relu(self.stem(x), 0.2) * _GAIN)
        x = F.leaky_relu(self.neck(x), 0.2) * _GAIN
        x = F.leaky_relu(self.shared(x.flatten(1)), 0.2) * _GAIN
        hidden = F.leaky_relu(self.offset_hidden(x), 0.2) * _GAIN
        offsets = self.offsets(hidden).view(len(x), self.config.num_ws, self.config.style_dim)
        ws: Tensor = self.base(x)[:, None] + offsets
        return ws


INPUT_SIZE: Final = 256
COARSE_ROWS: Final = 3  # rows 0-2 read 16 px features
MIDDLE_ROWS: Final = 7  # rows 3-6 read 32 px, the rest 64 px


@dataclass(frozen=True, kw_only=True)
class E4EConfig:
    """Shape of the inverter."""

    num_ws: int = 18
    """Rows L of the generator's W+."""
    style_dim: int = 512
    """Width D of a row."""


class StyleHead(nn.Module):
    """Strided convolutions down to one position, then a linear layer: one row of W+."""

    def __init__(self, style_dim: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(size))):
            layers += [nn.Conv2d(style_dim, style_dim, 3, 2, 1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualizedLinear(style_dim, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map features `[N, D, size, size]` to `[N, D]`."""
        row: Tensor = self.linear(self.convs(x).flatten(1))
        return row


class Encoder4Editing(nn.Module):
    """The inverter: crops of 256 px to W+, the mean latent included."""

    latent_avg: Tensor

    def __init__(self, config: E4EConfig) -> None:
        super().__init__()
        self.config = config
        width = config.style_dim
        self.input_layer = input_layer()
        self.body = body()
        self.styles = nn.ModuleList(
            StyleHead(width, _head_size(row)) for row in range(config.num_ws)
        )
        self.latlayer1 = nn.Conv2d(256, width, 1)
        self.latlayer2 = nn.Conv2d(128, width, 1)
        self.register_buffer("latent_avg", torch.zeros(config.num_ws, width))

    def trunk(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of 128 channels at 64 px, 256 at 32 px and 512 at 16 px."""
        x = self.input_layer(crops)
        taps = []
        for index, block in enumerate(self.body):
            x = block(x)
            if index in TAPS:
                taps.append(x)
        fine, middle, coarse = taps
        return fine, middle, coarse

    def offsets(self, crops: Tensor) -> Tensor:
        """Map crops `[N, 3, 256, 256]` in [-1, 1] to W+ `[N, L, D]`, relative to the mean."""
        fine, middle, coarse = self.trunk(crops)
        middle = _upsample_add(coarse, self.latlayer1(middle))
        fine = _upsample_add(middle, self.latlayer2(fine))
        base = self.styles[0](coarse)
        rows = [base]
        for row in range(1, self.config.num_ws):
            size = _head_size(row)
            features = {16: coarse, 32: middle, 64: fine}[size]
            rows.append(base + self.styles[row](features))
        return torch.stack(rows, dim=1)

    def forward(self, crops: Tensor) -> Tensor:
        """Map FFHQ-aligned crops `[N, 3, H, W]` in [-1, 1] to W+ `[N, L, D]`."""
        return self.offsets(at_side(crops, INPUT_SIZE)) + self.latent_avg


def _head_size(row: int) -> int:
    if row < COARSE_ROWS:
        return 16
    return 32 if row < MIDDLE_ROWS else 64


def _upsample_add(coarse: Tensor, fine: Tensor) -> Tensor:
    size = fine.shape[-2:]
    return F.interpolate(coarse, size, mode="bilinear", align_corners=True) + fine
