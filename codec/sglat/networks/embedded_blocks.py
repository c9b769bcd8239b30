"""The building blocks shared by the embedded face networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvUnit(nn.Module):
    """Convolution, batch normalisation while training, activation.

    A network in training has the normalisation as a layer of its own (`norm=True`); the shipped one
    has it folded into filters and bias (`norm=False`), see `folded_state`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        norm: bool = False,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=not norm
        )
        self.norm = nn.BatchNorm2d(out_channels) if norm else None
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H / stride, W / stride]`."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return functional.relu(x, inplace=True) if self.activate else x


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels, norm=norm)
        self.second = ConvUnit(channels, channels, norm=norm, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` to the same shape."""
        return functional.relu(x + self.second(self.first(x)), inplace=True)


def folded_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a trained network with every normalisation folded into its convolution.

    The result fits the same class built with `norm=False`.
    """
    state = {key: value.detach().clone() for key, value in network.state_dict().items()}
    for name, module in network.named_modules():
        if not isinstance(module, ConvUnit) or module.norm is None:
            continue
        norm = module.norm
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()  # [O]
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            del state[f"{name}.norm.{key}"]
        state[f"{name}.conv.weight"] = (module.conv.weight * factor[:, None, None, None]).detach()
        state[f"{name}.conv.bias"] = (norm.bias - norm.running_mean * factor).detach()
    return state


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """Move pixel blocks into channels: `[N, C, H, W]` to `[N, C f f, H/f, W/f]`, f the factor."""
    return functional.pixel_unshuffle(x, factor).contiguous(memory_format=torch.channels_last)
