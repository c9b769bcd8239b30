"""Synthesis exactly in the paper's order: slow, plain, and the measure of every faster path.

Each sample gets its own modulated and demodulated filters and one grouped convolution applies them;
resampling is zero insertion followed by a finite impulse response filter.

Source: Karras et al. 2020, https://arxiv.org/abs/1912.04958, figure 2 and section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sglat.networks.stylegan2 import (
    DEMODULATION_EPSILON,
    LEAKY_SLOPE,
    Generator,
    StyledConv,
    ToRGB,
)


def upfirdn(x: Tensor, taps: Tensor, *, up: int, padding: tuple[int, int]) -> Tensor:
    """Insert zeros, pad, and filter.

    Args:
        x: `[N, C, H, W]`.
        taps: filter `[K]`, applied along both directions.
        up: samples per input sample; `up - 1` zeros follow each.
        padding: zeros before and after, in both directions.
    """
    n, c, height, width = x.shape
    grid = x.new_zeros(n, c, height, up, width, up)
    grid[:, :, :, 0, :, 0] = x
    grid = grid.reshape(n, c, height * up, width * up)
    grid = F.pad(grid, (*padding, *padding))
    kernel = torch.outer(taps, taps).flip(
        (0, 1)
    )  # correlation is convolution with a flipped filter
    return F.conv2d(grid, kernel.expand(c, 1, -1, -1), groups=c)


def modulated_weight(weight: Tensor, style: Tensor, *, demodulate: bool) -> Tensor:
    """Return each sample's own filters `[N, O, I, K, K]` (equations 1 and 3)."""
    scaled = weight[None] * style[:, None, :, None, None]
    if not demodulate:
        return scaled
    energy = scaled.square().sum(dim=(2, 3, 4), keepdim=True)
    return scaled * (energy + DEMODULATION_EPSILON).rsqrt()


def grouped_convolution(x: Tensor, weight: Tensor, *, up: bool) -> Tensor:
    """Convolve every sample with its own filters: samples become groups."""
    n, outputs, inputs, side, _ = weight.shape
    x = x.reshape(1, n * inputs, *x.shape[2:])
    if up:
        weight = weight.transpose(1, 2).reshape(n * inputs, outputs, side, side)
        x = F.conv_transpose2d(x, weight, stride=2, groups=n)
    else:
        weight = weight.reshape(n * outputs, inputs, side, side)
        x = F.conv2d(x, weight, padding=side // 2, groups=n)
    return x.reshape(n, outputs, *x.shape[2:])


def styled_conv(layer: StyledConv, x: Tensor, style: Tensor) -> Tensor:
    """One 3x3 layer."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    weight = modulated_weight(layer.weight * layer.weight_gain, style, demodulate=True)
    upsamples = layer.entry.kind == "conv_up"
    if upsamples and layer.up_filter == "transposed":
        x = grouped_convolution(x, weight, up=True)
        x = upfirdn(x, taps * 2, up=1, padding=(1, 1))
    else:
        x = grouped_convolution(x, weight, up=False)
        if upsamples:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    if layer.noise is not None and layer.noise_strength is not None:
        x = x + layer.noise * layer.noise_strength
    x = x + layer.bias[None, :, None, None]
    return F.leaky_relu(x, LEAKY_SLOPE) * math.sqrt(2)


def to_rgb(layer: ToRGB, x: Tensor, style: Tensor) -> Tensor:
    """One 1x1 layer to colours."""
    weight = modulated_weight(layer.weight * layer.weight_gain, style, demodulate=False)
    return grouped_convolution(x, weight, up=False) + layer.bias[None, :, None, None]


def synthesize_reference(generator: Generator, styles: Sequence[Tensor]) -> Tensor:
    """Render StyleSpace vectors in float32; arguments and result as `Generator.synthesize`."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    x = generator.const.expand(len(styles[0]), -1, -1, -1)
    image: Tensor | None = None
    for layer, style in zip(generator.layers, styles, strict=False):
        if isinstance(layer, StyledConv):
            x = styled_conv(layer, x, style)
            continue
        assert isinstance(layer, ToRGB)
        if image is not None and generator.config.up_filter == "low-resolution":
            image = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
        elif image is not None:
            image = upfirdn(image, taps * 2, up=2, padding=(2, 1))
        colours = to_rgb(layer, x, style)
        image = colours if image is None else image + colours
    assert image is not None
    return image
