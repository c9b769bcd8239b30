"""The StyleGAN2 generator: mapping, truncation, styles and synthesis, at any resolution and width.

`Generator` is the trainable network. Modulation scales the activations instead of the filters,
which is the same computation with one shared filter bank. `stylegan2_reference` spells out the
paper's own order; `stylegan2_fast` prepares a generator whose weights no longer change.

Source: Karras et al. 2020, https://arxiv.org/abs/1912.04958.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.errors import BundleError, UsageError
from sglat.networks.stylespace import GeneratorConfig, StyleEntry

LEAKY_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2.0)  # keeps the variance that leaky ReLU takes away
DEMODULATION_EPSILON = 1e-8


class EqualizedLinear(nn.Module):
    """A linear layer that stores unit-variance weights and scales them when used.

    Source: Karras et al. 2018, https://arxiv.org/abs/1710.10196, section 4.1.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias_init: float = 0.0, learning_rate: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / learning_rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init / learning_rate))
        self.weight_gain = learning_rate / math.sqrt(inputs)
        self.bias_gain = learning_rate

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I]` to `[N, O]`."""
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


def normalise_second_moment(x: Tensor) -> Tensor:
    """Scale each row of `[N, D]` to mean square 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def leaky_relu(x: Tensor) -> Tensor:
    """Return leaky ReLU without its gain; callers fold the gain into an earlier factor."""
    return F.leaky_relu(x, LEAKY_SLOPE)


class MappingNetwork(nn.Module):
    """z to w: normalisation and fully connected layers with a hundredth of the learning rate."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = [config.latent_dim] + [config.style_dim] * config.mapping_layers
        self.layers = nn.ModuleList(
            EqualizedLinear(inputs, outputs, learning_rate=config.mapping_learning_rate)
            for inputs, outputs in pairwise(widths)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map `z` `[N, Z]` to `w` `[N, D]`."""
        if len(self.layers) == 0:
            raise UsageError("no-mapping", "expected a mapping network, found a generator without")
        x = normalise_second_moment(z)
        for layer in self.layers:
            x = leaky_relu(layer(x)) * ACTIVATION_GAIN
        return x


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Return the factor that brings modulated filters back to unit norm.

    Args:
        weight: convolution filters, `[O, I, K, K]`.
        style: per-channel scales, `[N, I]`.

    Returns:
        One factor per sample and output channel, `[N, O]`.

    Source: Karras et al. 2020, https://arxiv.org/abs/1912.04958, equation 3.
    """
    energy = weight.square().sum(dim=(2, 3))  # [O, I]
    return (style.square() @ energy.T + DEMODULATION_EPSILON).rsqrt()


def over_image(values: Tensor, x: Tensor) -> Tensor:
    """Shape `[N, C]` or `[C]` for broadcasting over an image of `x`'s type."""
    return values.to(x.dtype).reshape(-1, values.shape[-1], 1, 1)


def upsample_clamped(x: Tensor) -> Tensor:
    """Double height and width with the [1, 3, 3, 1] filter; the border repeats its last pixel."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def upsample_zero_padded(x: Tensor) -> Tensor:
    """Double height and width with the [1, 3, 3, 1] filter; the picture is 0 outside its border."""
    return upsample_clamped(F.pad(x, (1, 1, 1, 1)))[:, :, 2:-2, 2:-2]


def smooth(x: Tensor) -> Tensor:
    """Filter `[N, C, H + 3, W + 3]` with [1, 3, 3, 1] / 4 in both directions, to `[N, C, H, W]`.

    The gain of 2 per direction makes up for the zeros a transposed convolution inserts.
    """
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=x.dtype, device=x.device)
    channels = x.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 4, 4)
    return F.conv2d(x, kernel, groups=channels)


class StyledConv(nn.Module):
    """One 3x3 layer: modulate, convolve, demodulate, add noise and bias, activate."""

    noise: Tensor | None

    def __init__(self, config: GeneratorConfig, entry: StyleEntry) -> None:
        super().__init__()
        self.entry = entry
        self.up_filter = config.up_filter
        self.weight = nn.Parameter(torch.randn(entry.outputs, entry.channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(entry.outputs))
        self.affine = EqualizedLinear(config.style_dim, entry.channels, bias_init=1.0)
        self.weight_gain = 1 / math.sqrt(entry.channels * 3 * 3)
        self.noise_strength = nn.Parameter(torch.zeros(())) if config.noise else None
        size = (entry.resolution, entry.resolution)
        self.register_buffer("noise", torch.randn(size) if config.noise else None)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map features `[N, I, H, W]` to `[N, O, H, W]`, twice the size when upsampling."""
        weight = self.weight * self.weight_gain
        gain = demodulation(weight, style) * ACTIVATION_GAIN  # activation gain folded in
        bias = self.bias * ACTIVATION_GAIN
        x = self._convolve(x * over_image(style, x), weight.to(x.dtype), gain, bias)
        if self.noise is not None and self.noise_strength is not None:
            x = x + (self.noise * (self.noise_strength * ACTIVATION_GAIN)).to(x.dtype)
        return leaky_relu(x)

    def _convolve(self, x: Tensor, weight: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        """Convolve, demodulate and add the bias, and double the size when upsampling."""
        if self.entry.kind == "conv" or self.up_filter == "low-resolution":
            x = F.conv2d(x, weight, padding=1)
            x = torch.addcmul(over_image(bias, x), x, over_image(gain, x))
            # a quarter of the operations before upsampling, whose filter keeps a bias as it is
            return x if self.entry.kind == "conv" else upsample_clamped(x)
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [N, O, 2H + 1, 2W + 1]
        x = smooth(F.pad(x * over_image(gain, x), (1, 1, 1, 1)))
        return x + over_image(bias, x)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three colour channels, without demodulation."""

    def __init__(self, config: GeneratorConfig, entry: StyleEntry) -> None:
        super().__init__()
        self.entry = entry
        self.weight = nn.Parameter(torch.randn(entry.outputs, entry.channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(entry.outputs))
        self.affine = EqualizedLinear(config.style_dim, entry.channels, bias_init=1.0)
        self.weight_gain = 1 / math.sqrt(entry.channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map features `[N, I, H, W]` to a float32 colour contribution `[N, 3, H, W]`."""
        weight = (self.weight * self.weight_gain).flatten(1).T  # [I, 3]
        weight = (style[:, :, None] * weight).to(x.dtype)  # [N, I, 3]: smaller than the features
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, H W, I], a view of channels_last
        colours = torch.baddbmm(self.bias.to(x.dtype)[None, None], pixels, weight).float()
        return colours.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


def _layer(config: GeneratorConfig, entry: StyleEntry) -> StyledConv | ToRGB:
    return ToRGB(config, entry) if entry.kind == "torgb" else StyledConv(config, entry)


class Generator(nn.Module):
    """StyleGAN2 with skip connections; `layers[i]` takes the StyleSpace vector of index i."""

    const: Tensor
    w_avg: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.register_buffer("w_avg", torch.zeros(config.style_dim))
        self.const = nn.Parameter(torch.randn(1, config.channels[0], 4, 4))
        self.layers = nn.ModuleList(_layer(config, entry) for entry in config.style_table)

    def up_to(self, resolution: int) -> Generator:
        """Return a generator of the same weights, shared, without the layers above a resolution."""
        if resolution == self.config.resolution:
            return self
        config = self.config.up_to(resolution)
        return self._with_layers(config, list(self.layers[: len(config.style_table)]))

    def _with_layers(self, config: GeneratorConfig, layers: list[nn.Module]) -> Generator:
        part = copy.copy(self)
        part._modules = {**self._modules, "layers": nn.ModuleList(layers)}
        part.config = config
        return part

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """Pull latents `[..., D]` towards the mean latent; psi 1 changes nothing, 0 gives it."""
        return self.w_avg.lerp(w, psi)

    def repeat(self, w: Tensor) -> Tensor:
        """Copy `w` `[N, D]` to every row: `[N, L, D]`."""
        return w[:, None].expand(-1, self.config.num_ws, -1)

    def styles(self, ws: Tensor, *, resolution: int | None = None) -> list[Tensor]:
        """Return the StyleSpace vectors of W+ latents in the paper's order, ToRGB included.

        Args:
            ws: `[N, L, D]`; rows above that resolution may be missing.
            resolution: leave out the layers above it; the full resolution if None.

        Returns:
            One `[N, C]` per entry of `config.style_table`: the affine output, bias included.
        """
        entries = self.config.entries_up_to(resolution)
        if ws.ndim != 3 or ws.shape[1] <= entries[-1].ws_index:
            raise UsageError(
                "bad-shape",
                f"expected ws [N, {entries[-1].ws_index + 1}, {self.config.style_dim}], "
                f"got {list(ws.shape)}",
            )
        return [self.layers[e.index].affine(ws[:, e.ws_index]) for e in entries]  # type: ignore[operator]

    def synthesize(self, styles: Sequence[Tensor], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Render StyleSpace vectors.

        Args:
            styles: one `[N, C]` per layer, as `styles` returns them; a list that ends at a lower
                ToRGB renders that resolution.
            dtype: type of the features; colours are summed in float32.

        Returns:
            Pictures `[N, 3, H, W]`, float32, nominally in [-1, 1], not clamped.
        """
        return self.rung(styles, dtype=dtype)[1]

    def rung(
        self, styles: Sequence[Tensor], *, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Render StyleSpace vectors; arguments as `synthesize`.

        Returns:
            The last features `[N, C, H, W]`, from which `upper_rungs` goes on, and pictures.
        """
        self.config.check_styles([s.shape[-1] for s in styles])
        x = self.const.to(dtype).expand(len(styles[0]), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.layers[0](x, styles[0])
        image: Tensor = self.layers[1](x, styles[1])
        for first in range(2, len(styles), 3):
            x, colours = self._block(x, first, styles[first : first + 3])
            image = self._upsample(image) + colours
        return x, image

    def upper_rungs(self, x: Tensor, image: Tensor, styles: Sequence[Tensor]) -> list[Tensor]:
        """Render the resolutions above a rung.

        Args:
            x: features of the rung, or a window of them, `[N, C, H, W]`.
            image: pictures of the rung, the same window, `[N, 3, H, W]`.
            styles: of the layers above it, one `[N, C]` per layer.

        Returns:
            Pictures of each resolution, `[N, 3, 2 H, 2 W]` first. A window's border differs from
            the whole picture's, by 4 pixels of the rung for two resolutions.
        """
        pictures = []
        start = len(self.layers) - len(styles)
        for first in range(0, len(styles), 3):
            x, colours = self._block(x, start + first, styles[first : first + 3])
            image = self._upsample(image) + colours
            pictures.append(image)
        return pictures

    def _block(self, x: Tensor, first: int, styles: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return features and colours of the resolution whose layers begin at an index."""
        up, conv, colours = (self.layers[first + step] for step in range(3))
        x = conv(up(x, styles[0]), styles[1])
        return x, colours(x, styles[2])

    def _upsample(self, image: Tensor) -> Tensor:
        clamped = self.config.up_filter == "low-resolution"
        return upsample_clamped(image) if clamped else upsample_zero_padded(image)

    def forward(
        self, ws: Tensor, *, resolution: int | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Render W+ latents `[N, L, D]` to pictures `[N, 3, H, W]`."""
        return self.synthesize(self.styles(ws, resolution=resolution), dtype=dtype)


class UpperLayers(nn.Module):
    """Layers that continue a generator to a larger picture, whose first part stays as it is.

    Args:
        base: resolution of that generator.
        shape: config of the whole generator, plain values.
    """

    def __init__(self, *, base: int, **shape: Any) -> None:
        super().__init__()
        self.config = GeneratorConfig.from_json(shape)
        self.base = base
        lower = len(self.config.entries_up_to(base))
        self.layers = nn.ModuleDict(
            {str(e.index): _layer(self.config, e) for e in self.config.style_table[lower:]}
        )

    def on(self, generator: Generator) -> Generator:
        """Return a generator with these layers added; all weights are shared.

        Raises:
            BundleError: the layers belong to another generator.
        """
        if generator.config != self.config.up_to(self.base):
            raise BundleError(
                "wrong-shape",
                f"expected upper layers of a generator {generator.config.channels}, "
                f"found {self.config.channels}",
            )
        layers = [*generator.layers, *self.layers.values()]
        return generator._with_layers(self.config, layers)
