"""The embedded perceptual network: a distance of two pictures after LPIPS with SqueezeNet."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.perceptual import PerceptualDistance

CHANNELS: Final = (64, 128, 256, 384, 96)  # of the levels; the last two have one scale
COMPARED: Final = (16, 16, 64, 256, 96)  # the first of them, of which distances are made
_SHORTEST: Final = 1e-2  # added to lengths, so that near-zero features are not amplified
_EDGE: Final = 3  # pixels of every filter and window of pooling at which scales change


class Fire(nn.Module):
    """A narrow 1x1 convolution, then 1x1 and 3x3 convolutions side by side (Iandola et al. 2016).

    Source: https://arxiv.org/abs/1602.07360, with SiLU for the activation.
    """

    def __init__(self, in_channels: int, narrow: int, out_channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, narrow, 1)
        self.point = nn.Conv2d(narrow, out_channels // 2, 1)
        self.patch = nn.Conv2d(narrow, out_channels // 2, 3, padding=1)
        for layer in (self.squeeze, self.point, self.patch):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H, W]`."""
        narrow = functional.silu(self.squeeze(x))
        return functional.silu(torch.cat((self.point(narrow), self.patch(narrow)), 1))


class PerceptualNetwork(PerceptualDistance):
    """Distances of normalised features at five levels.

    The first four have places and channels as SqueezeNet 1.1 has them, so that its features can be
    learned from it; filters, activations, pooling and all weights are the network's own. Pictures
    have sides of at least 32.
    Activations and pooling are smooth, so that the gradient of the distance is too: it serves as a
    loss. The form of the distance is that of Zhang et al. 2018, https://arxiv.org/abs/1801.03924.
    """

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, CHANNELS[0], _EDGE, 2)
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        self.levels = nn.ModuleList(
            (
                nn.Sequential(first, nn.SiLU()),
                nn.Sequential(Fire(64, 16, 128), Fire(128, 16, 128)),
                nn.Sequential(Fire(128, 32, 256), Fire(256, 32, 256)),
                Fire(256, 48, 384),
                Fire(384, 24, 96),
            )
        )
        self.log_weights = nn.ParameterList(
            [nn.Parameter(torch.full((channels,), -2.0)) for channels in COMPARED]
        )

    def activations(self, pictures: Tensor) -> list[Tensor]:
        """Return all channels of each level, of `[N, 3, H, W]` in [-1, 1], not normalised."""
        x, found = pictures.contiguous(memory_format=torch.channels_last), []
        for index, level in enumerate(self.levels):
            x = level(pooled(x) if index in (1, 2, 3) else x)
            found.append(x)
        return found

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Return the compared channels of `[N, 3, H, W]` in [-1, 1], divided by all channels'
        length.
        """
        return [
            normalised(x, count)
            for x, count in zip(self.activations(pictures), COMPARED, strict=True)
        ]

    def heads(self) -> list[Tensor]:
        """Return the weight of each channel, `[C]` a level; none is negative."""
        return [functional.softplus(logarithm) for logarithm in self.log_weights]

    def maps(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """Return the distance at every place, `[N, h, w]` at each level, of two `features`."""
        return [
            torch.einsum("nchw,c->nhw", (one - other).square(), head)
            for one, other, head in zip(first, second, self.heads(), strict=True)
        ]


def normalised(x: Tensor, count: int) -> Tensor:
    """Return the first `count` channels of `[N, C, H, W]`, divided by the length of all."""
    found: Tensor = _Normalised.apply(x, count)  # type: ignore[no-untyped-call]
    return found


def pooled(x: Tensor) -> Tensor:
    """Return the fourth root of the mean fourth power over 3 x 3 places, every second one.

    Near the largest value, as max pooling is, but smooth.
    """
    found: Tensor = _FourthPowerMean.apply(x)  # type: ignore[no-untyped-call]
    return found


# These two have derivatives of their own: the automatic ones, through arrays of a few megabytes
# each, take longer than all convolutions.


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, count: int) -> Tensor:
        return x[:, :count] / (_length(x) + _SHORTEST)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)
        ctx.count = inputs[1]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        x, found = ctx.saved_tensors
        length = _length(x)
        along = (slope * found).sum(1, keepdim=True) / (length * (length + _SHORTEST))
        result = x * -along
        result[:, : ctx.count].add_(slope / (length + _SHORTEST))
        return result, None

    @staticmethod
    def jvp(ctx: Any, change: Tensor, _: None) -> Tensor:
        x, found = ctx.saved_tensors
        length = _length(x)
        longer = (x * change).sum(1, keepdim=True) / length
        pushed: Tensor = (change[:, : ctx.count] - found * longer) / (length + _SHORTEST)
        return pushed


class _FourthPowerMean(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        fourth = x.square()
        mean = functional.avg_pool2d(fourth.square_(), _EDGE, 2, ceil_mode=True)
        return mean.add_(1e-8).sqrt_().sqrt_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        x, found = ctx.saved_tensors
        edges, strides, padding = (_EDGE, _EDGE), (2, 2), (0, 0)
        shares: Tensor = torch.ops.aten.avg_pool2d_backward(
            slope / (found * found * found), x, edges, strides, padding, True, True, None
        )
        return shares.mul_(x).mul_(x).mul_(x)

    @staticmethod
    def jvp(ctx: Any, change: Tensor) -> Tensor:
        x, found = ctx.saved_tensors
        mean = functional.avg_pool2d(x * x * x * change, _EDGE, 2, ceil_mode=True)
        pushed: Tensor = mean / (found * found * found)
        return pushed


def _length(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.clamp(length, min=_SHORTEST * 1e-3)  # a zero vector has no direction
