"""Synthesis for inference: constants are computed once, and large layers run in stripes.

`FastSynthesis` copies a generator whose weights are final. It differs from `Generator.synthesize`
in the order of its sums only:

* scaled filters, their energies for demodulation, and the gains of noise and bias are kept ready;
* where a picture has more numbers than the filters, one sample's style goes into the filters;
* on a processor wide layers convolve by Winograd's minimal filtering, 2.25 multiplications a pixel
  instead of 9, with filters transformed beforehand: tiles of 4x4 outputs are computed from 6x6
  inputs, both evaluated as polynomials in six points, multiplied there, and interpolated (Lavin and
  Gray 2016, https://arxiv.org/abs/1509.09308, section 4);
* on a processor each resolution is rendered stripe by stripe, upsampling layer to ToRGB, so that
  features stay in its cache: at 1024 px one feature map fills 134 MB, one stripe 8 MB.

All control flow depends on shapes alone: the module can be compiled or captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.stylegan2 import (
    ACTIVATION_GAIN,
    DEMODULATION_EPSILON,
    LEAKY_SLOPE,
    Generator,
    StyledConv,
    ToRGB,
    over_image,
    upsample_clamped,
    upsample_zero_padded,
)

STRIPE_BYTES: Final = 8 << 20  # output of one layer; measured best of 2, 4 and 8 MB and whole
# Winograd's scheme saves 15 to 58 % of a layer's time from here on; below, moving its larger
# filters costs more than it saves. Record: benchmarks/results/winograd.json.
WINOGRAD_MIN_CHANNELS: Final = 160
WINOGRAD_MIN_SIZE: Final = 16  # pixels
HALF_RESOLUTIONS: Final = 4  # the largest ones run in float16, as NVIDIA's generators do
HALF_LIMIT: Final = 256.0  # clamp of half-precision features, likewise


class Modulation(NamedTuple):
    """What a style does to a layer: filters, and factors before and after the convolution."""

    weight: Tensor
    before: Tensor | None
    """`[N, I, 1, 1]`, or None where the filters contain it."""
    after: Tensor | None
    """`[N, O, 1, 1]`, likewise."""


def _scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor.to(x.dtype)


def _pad_rows(x: Tensor, missing: tuple[int, int]) -> Tensor:
    return F.pad(x, (0, 0, *missing)) if missing != (0, 0) else x


def profits_from_winograd(layer: StyledConv, dtype: torch.dtype) -> bool:
    """Tell whether a layer is convolved by Winograd's scheme."""
    entry = layer.entry
    size = entry.resolution
    if entry.kind == "conv_up":
        if layer.up_filter == "transposed":
            return False
        size //= 2
    wide = min(entry.channels, entry.outputs) >= WINOGRAD_MIN_CHANNELS
    on_processor = layer.weight.device.type == "cpu" and dtype == torch.float32
    return wide and size >= WINOGRAD_MIN_SIZE and on_processor


class FastConv(nn.Module):
    """A 3x3 layer with final weights and features of a type; `winograd` convolves by Winograd's
    scheme, None where it pays."""

    weight: Tensor
    energy: Tensor
    bias: Tensor
    noise: Tensor | None
    blur: Tensor | None

    def __init__(
        self, layer: StyledConv, dtype: torch.dtype, *, winograd: bool | None = None
    ) -> None:
        super().__init__()
        self.entry = layer.entry
        self.dtype = dtype
        self.upsamples = layer.entry.kind == "conv_up"
        self.transposed = self.upsamples and layer.up_filter == "transposed"
        weight = layer.weight.detach() * layer.weight_gain
        self.register_buffer("energy", weight.square().sum(dim=(2, 3)).T.contiguous())  # [I, O]
        if self.transposed:
            weight = weight.transpose(0, 1)  # [I, O, 3, 3]
        self.tiled = profits_from_winograd(layer, dtype) if winograd is None else winograd
        if self.tiled:
            weight = transform_filters(weight)  # [36, I, O]
        else:
            weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", (layer.bias.detach() * ACTIVATION_GAIN).to(dtype))
        noise = None
        if layer.noise is not None and layer.noise_strength is not None:
            strength = layer.noise_strength.detach() * ACTIVATION_GAIN
            noise = (layer.noise * strength).to(dtype)[None, None]
        self.register_buffer("noise", noise)
        taps = torch.tensor([0.25, 0.75, 0.75, 0.25], device=weight.device)
        blur = torch.outer(taps, taps).to(dtype).expand(layer.entry.outputs, 1, 4, 4).contiguous()
        self.register_buffer("blur", blur if self.transposed else None)

    def modulate(self, style: Tensor, pixels: int) -> Modulation:
        """Return how a style `[N, I]`, float32, acts in this layer, whose input picture has some
        pixels."""
        if self.dtype == torch.float16:  # demodulation undoes any scale; keep far from overflow
            style = style / style.abs().amax(dim=1, keepdim=True).clamp_min(1e-6)
        gain = (style.square() @ self.energy + DEMODULATION_EPSILON).rsqrt() * ACTIVATION_GAIN
        if len(style) > 1 or self.tiled or pixels <= 9 * self.entry.outputs:
            return Modulation(self.weight, style[:, :, None, None], gain[:, :, None, None])
        inputs_first = style[0, :, None] * gain[0]  # one sample: its style goes into the filters
        factor = inputs_first if self.transposed else inputs_first.T
        return Modulation((self.weight * factor[:, :, None, None]).to(self.dtype), None, None)

    def rows(
        self, x: Tensor, modulation: Modulation, first: int, end: int, *, offset: int = 0
    ) -> Tensor:
        """Return output rows `first` to `end`, exclusive.

        Input features are all rows if the layer upsamples; else they begin with row `offset` of the
        picture.
        """
        if not self.upsamples:
            x = self._plain_rows(x, modulation, first - offset, end - offset)
        elif self.transposed:
            x = self._transposed_rows(x, modulation, first, end)
        else:
            x = self._convolve(x, modulation, (1, 1), bias=self.bias)  # upsampling keeps it
            x = upsample_clamped(x)[:, :, first:end]
        if self.noise is not None:
            x.add_(self.noise[:, :, first:end])
        x = F.leaky_relu_(x, LEAKY_SLOPE)
        return x.clamp_(-HALF_LIMIT, HALF_LIMIT) if self.dtype == torch.float16 else x

    def _plain_rows(self, x: Tensor, modulation: Modulation, first: int, end: int) -> Tensor:
        """Convolve; rows count from the first of `x`, beyond which there are zeros."""
        missing = (max(1 - first, 0), max(end + 1 - x.shape[2], 0))
        x = x[:, :, max(first - 1, 0) : end + 1]
        return self._convolve(x, modulation, missing, bias=self.bias)

    def _convolve(
        self, x: Tensor, modulation: Modulation, missing: tuple[int, int], *, bias: Tensor | None
    ) -> Tensor:
        """Convolve plainly, with zero columns on both sides and `missing` zero rows."""
        x = _scaled(x, modulation.before)
        inside = bias if modulation.after is None else None  # the convolution adds it for free
        if self.tiled:
            x = convolve(F.pad(x, (1, 1, *missing)), modulation.weight)
        elif missing == (1, 1):
            x = F.conv2d(x, modulation.weight, inside, padding=1)
        else:
            x = F.conv2d(_pad_rows(x, missing), modulation.weight, inside, padding=(0, 1))
        if modulation.after is None:
            return x
        after = modulation.after.to(x.dtype)
        return x * after if bias is None else torch.addcmul(over_image(bias, x), x, after)

    def _transposed_rows(self, x: Tensor, modulation: Modulation, first: int, end: int) -> Tensor:
        """Convolve transposed, to `2 H + 1` rows, and blur; each blurred row takes four."""
        height = x.shape[2]
        top, bottom = first - 1, end + 2
        begin, stop = max((top - 1) // 2, 0), min((bottom - 1) // 2 + 1, height)
        x = _scaled(x[:, :, begin:stop], modulation.before)
        x = F.conv_transpose2d(x, modulation.weight, stride=2)
        x = x[:, :, max(top, 0) - 2 * begin : min(bottom, 2 * height + 1) - 2 * begin]
        x = _scaled(x, modulation.after)
        x = _pad_rows(x, (max(-top, 0), max(bottom - (2 * height + 1), 0)))
        assert self.blur is not None
        return F.conv2d(x, self.blur, self.bias, padding=(0, 1), groups=self.entry.outputs)


class FastToRGB(nn.Module):
    """A ToRGB layer with final weights."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: ToRGB) -> None:
        super().__init__()
        self.register_buffer("weight", (layer.weight.detach() * layer.weight_gain)[:, :, 0, 0])
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map features `[N, I, H, W]` and style `[N, I]` to float32 colours `[N, 3, H, W]`."""
        weight = (self.weight * style[:, None]).to(x.dtype)  # [N, 3, I]: smaller than the features
        if x.dtype == torch.bfloat16 and len(x) == 1:
            # the product below is not vectorized for this type: 2 to 5 times slower
            return F.conv2d(x, weight[0, :, :, None, None]).float() + over_image(self.bias, x)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, H W, I], a view of channels_last
        colours = (weight @ pixels.transpose(1, 2)).float() + self.bias[:, None]
        return colours.view(len(x), -1, *x.shape[2:])


class FastSynthesis(nn.Module):
    """Renders StyleSpace vectors with a frozen copy of a generator's weights; inference only."""

    const: Tensor

    def __init__(
        self,
        generator: Generator,
        *,
        dtype: torch.dtype = torch.float32,
        stripe_bytes: int = STRIPE_BYTES,
    ) -> None:
        """Copy the weights; later changes to the generator do not show.

        Args:
            generator: any config; its device is kept.
            dtype: of the features: float16 at the four largest resolutions, for GPUs; bfloat16 at
                all, so that a lower resolution stays an exact part of those above it.
            stripe_bytes: aim for one layer's stripe on a processor; 0 renders whole pictures.
        """
        super().__init__()
        self.config = generator.config
        self.dtype = dtype
        self.stripe_bytes = stripe_bytes
        count = HALF_RESOLUTIONS if dtype == torch.float16 else len(self.config.resolutions)
        narrow = self.config.resolutions[-count:]
        self.register_buffer("const", generator.const.detach().clone())
        self.layers = nn.ModuleList()
        for layer in generator.layers:
            if isinstance(layer, ToRGB):
                self.layers.append(FastToRGB(layer))
            else:
                assert isinstance(layer, StyledConv)
                own = dtype if layer.entry.resolution in narrow else torch.float32
                self.layers.append(FastConv(layer, own))

    @torch.no_grad()
    def forward(self, styles: Sequence[Tensor]) -> Tensor:
        """Render StyleSpace vectors; arguments and result as `Generator.synthesize`."""
        self.config.check_styles([style.shape[-1] for style in styles])
        if self.const.device.type == "cpu" and len(styles[0]) > 1:  # one sample fills a processor
            singles = [[style[n : n + 1] for style in styles] for n in range(len(styles[0]))]
            return torch.cat([self._render(single) for single in singles])
        return self._render(styles)

    def _render(self, styles: Sequence[Tensor]) -> Tensor:
        first, colours = self.layers[0], self.layers[1]
        assert isinstance(first, FastConv)
        x = self.const.to(first.dtype).expand(len(styles[0]), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = first.rows(x, first.modulate(styles[0], 4 * 4), 0, 4)
        image: Tensor = colours(x, styles[1])
        clamped = self.config.up_filter == "low-resolution"
        for index in range(2, len(styles), 3):
            image = upsample_clamped(image) if clamped else upsample_zero_padded(image)
            is_last = index + 3 == len(styles)
            x = self._block(x, image, index, styles[index : index + 3], keep=not is_last)
        return image

    def _block(
        self, x: Tensor, image: Tensor, index: int, styles: Sequence[Tensor], *, keep: bool
    ) -> Tensor:
        """Render one resolution, add its colours to the image, and return its features if kept."""
        up, conv, colours = (self.layers[index + step] for step in range(3))
        assert isinstance(up, FastConv) and isinstance(conv, FastConv)
        x = x.to(up.dtype)
        size = up.entry.resolution
        up_style = up.modulate(styles[0], x.shape[2] * x.shape[3])
        conv_style = conv.modulate(styles[1], size * size)
        height = self._stripe_height(up)
        kept: list[Tensor] = []
        for top in range(0, size, height):
            bottom = min(top + height, size)
            first, end = max(top - 1, 0), min(bottom + 1, size)  # a 3x3 filter reads one row more
            stripe = up.rows(x, up_style, first, end)
            stripe = conv.rows(stripe, conv_style, top, bottom, offset=first)
            image[:, :, top:bottom] += colours(stripe, styles[2])
            if keep:
                kept.append(stripe)
        return kept[0] if len(kept) == 1 else torch.cat(kept, dim=2) if keep else x

    def _stripe_height(self, layer: FastConv) -> int:
        size = layer.entry.resolution
        whole = self.const.device.type != "cpu" or self.config.up_filter == "low-resolution"
        if whole or self.stripe_bytes == 0:
            return size
        row_bytes = layer.entry.outputs * size * layer.bias.element_size()
        return min(size, max(8, self.stripe_bytes // row_bytes // 4 * 4))


TILE: Final = 4  # outputs per tile and direction
_INPUTS: Final = TILE + 2
# The sixth point is infinity. On values of deviation 1 this set's rounding error was 1.7e-5, that
# of the usual 0, 1, -1, 2, -2 4.6e-5, the direct sum's 1.3e-5. Why points matter: Alam et al. 2022,
# https://arxiv.org/abs/2201.10369.
_POINTS: Final = (0.0, 1.0, -1.0, 0.5, -2.0)


def transform_filters(weight: Tensor) -> Tensor:
    """Return filters `[O, I, 3, 3]` evaluated in all pairs of points, `[36, I, O]`."""
    _, filters, _ = _matrices()
    points = filters.to(weight.device)
    values = torch.einsum("ia,ocab,jb->ijco", points, weight.double(), points)
    return values.flatten(0, 1).to(weight.dtype).contiguous()


def convolve(x: Tensor, transformed: Tensor) -> Tensor:
    """Convolve without padding.

    Args:
        x: `[N, I, H + 2, W + 2]`, H and W multiples of 4, best in channels_last.
        transformed: filters, `[36, I, O]`, as `transform_filters` returns them.

    Returns:
        `[N, O, H, W]` in channels_last.
    """
    outputs, _, inputs = (matrix.to(x) for matrix in _matrices())
    n, channels = x.shape[:2]
    rows, columns = (x.shape[2] - 2) // TILE, (x.shape[3] - 2) // TILE
    tiles = x.permute(0, 2, 3, 1).unfold(1, _INPUTS, TILE).unfold(2, _INPUTS, TILE)
    values = tiles.permute(4, 5, 0, 1, 2, 3).reshape(_INPUTS**2, -1)  # [36, N rows columns I]
    values = torch.kron(inputs, inputs) @ values
    values = torch.bmm(values.view(_INPUTS**2, -1, channels), transformed)  # [36, N tiles, O]
    values = torch.kron(outputs, outputs) @ values.flatten(1)  # [16, N tiles O]
    pixels = values.view(TILE, TILE, n, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
    return pixels.reshape(n, rows * TILE, columns * TILE, -1).permute(0, 3, 1, 2)


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Return the output `[4, 6]`, filter `[6, 3]` and input `[6, 6]` transforms, float64."""

    with torch.inference_mode(False):  # the cache must serve callers outside inference mode too
        return _toom_cook()


def _toom_cook() -> tuple[Tensor, Tensor, Tensor]:
    def powers(count: int) -> Tensor:
        rows = [[point**power for power in range(count)] for point in _POINTS]
        return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)

    inputs = torch.linalg.inv(powers(_INPUTS)).T  # filtering is interpolation, transposed
    scale = inputs.abs().amax(dim=1)  # shared out so that no factor grows large
    return powers(TILE).T, powers(3) * scale[:, None], inputs / scale[:, None]
