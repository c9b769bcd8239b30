"""Encoder4Editing: an aligned crop to W+ latents that stay editable.

Attribute names are those of the published checkpoint. Source: Tov et al. 2021,
https://arxiv.org/abs/2102.02766, section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.irse import TAPS, body, input_layer
from sglat.networks.stylegan2 import EqualizedLinear

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
        """Map FFHQ-aligned crops `[N, 3, H, W]` in [-1, 1] to W+ `[N, L, D]`.

        Other sizes than 256 px are brought there first, larger ones by averaging.
        """
        if crops.shape[-1] > INPUT_SIZE:
            crops = F.adaptive_avg_pool2d(crops, INPUT_SIZE)
        elif crops.shape[-1] < INPUT_SIZE:
            crops = F.interpolate(crops, INPUT_SIZE, mode="bilinear", align_corners=False)
        return self.offsets(crops) + self.latent_avg


def _head_size(row: int) -> int:
    if row < COARSE_ROWS:
        return 16
    return 32 if row < MIDDLE_ROWS else 64


def _upsample_add(coarse: Tensor, fine: Tensor) -> Tensor:
    size = fine.shape[-2:]
    return F.interpolate(coarse, size, mode="bilinear", align_corners=True) + fine
