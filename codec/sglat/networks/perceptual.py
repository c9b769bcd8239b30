"""Perceptual distance: one interface for LPIPS and the embedded bundle's own network.

Source of the scheme: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, section 3.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.errors import BundleError, MissingExtraError, UsageError


class PerceptualDistance(nn.Module, ABC):
    """Perceptual distance of pictures, float32 NCHW in [-1, 1]; differentiable."""

    @abstractmethod
    def features(self, pictures: Tensor) -> list[Tensor]:
        """Return the compared feature maps `[N, C, h, w]`, unit length over channels.

        `distance` compares two such lists; a fixed target needs its features only once.
        """

    @abstractmethod
    def heads(self) -> list[Tensor]:
        """Return the weight of each channel, `[C]` a level; none is negative."""

    def distance(
        self, a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Return the distance `[N]` of two feature lists; `mask` as for the pictures."""
        return weighted_feature_distance(a, b, self.heads(), mask)

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distance `[N]` of pictures `[N, 3, H, W]`; `mask` `[N, 1, H, W]` weighs
        places, 0 to 1."""
        return self.distance(self.features(a), self.features(b), mask)


def unit_features(x: Tensor) -> Tensor:
    """Scale every position of `[N, C, H, W]` to unit length over channels."""
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def weighted_feature_distance(
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    heads: Sequence[Tensor],
    mask: Tensor | None = None,
) -> Tensor:
    """Sum squared differences of unit feature maps `[N, C, h, w]`, one per level, over weighted
    channels `[C]` and levels, average over positions: `[N]`.

    A mask `[N, 1, H, W]` is averaged down to each level; positions count by its value.
    """
    total = a[0].new_zeros(a[0].shape[0])
    for first, second, head in zip(a, b, heads, strict=True):
        difference = ((first - second).square() * head[None, :, None, None]).sum(dim=1)
        if mask is None:
            total = total + difference.mean(dim=(1, 2))
            continue
        weight = F.adaptive_avg_pool2d(mask.to(first.dtype), (first.shape[-2], first.shape[-1]))[
            :, 0
        ]
        area = weight.sum(dim=(1, 2)).clamp_min(1e-6)  # an empty mask gives distance 0
        total = total + (difference * weight).sum(dim=(1, 2)) / area
    return total


_SHIFT: Final = (-0.030, -0.088, -0.188)  # LPIPS v0.1, for RGB in [-1, 1]
_SCALE: Final = (0.458, 0.448, 0.450)
ALEXNET_WIDTHS: Final = (64, 192, 384, 256, 256)
ALEXNET_CONVOLUTIONS: Final = (0, 3, 6, 8, 10)  # `features.N` of torchvision's AlexNet
HEADS_FILE: Final = "weights/v0.1/alex.pth"  # inside the `lpips` package
_LEAST_SIDE: Final = 32  # pixels; the third level of smaller pictures is empty


class Lpips(PerceptualDistance):
    """LPIPS v0.1 on AlexNet features (Krizhevsky et al. 2012).

    The trunk's weights are torchvision's, the heads' those of the `lpips` package, which is read
    but not imported: its import needs a torchvision built for the same torch.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        backbone: Mapping[str, Tensor] | None = None,
        heads: Sequence[Tensor] | None = None,
    ) -> None:
        """Load the network.

        Args:
            backbone: AlexNet's state dict as torchvision publishes it; without it torchvision's own
                cache is searched, and nothing is downloaded: absent weights are an error.
            heads: channel weights of the five levels; those of the `lpips` package if None.

        Raises:
            MissingExtraError: `lpips` is not installed.
            BundleError: the backbone's weights are absent.
        """
        super().__init__()
        lines = _installed_heads() if heads is None else heads
        self.trunk = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )
        _load_backbone(self.trunk, _cached_backbone() if backbone is None else backbone)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])
        for index, (width, line) in enumerate(zip(ALEXNET_WIDTHS, lines, strict=True)):
            if line.numel() != width:
                raise BundleError(
                    "wrong-shape", f"LPIPS head {index}: expected {width}, found {line.numel()}"
                )
            self.register_buffer(f"head{index}", line.detach().float().flatten())
        self.eval().requires_grad_(False)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """See `PerceptualDistance`; pictures of at least 32 px."""
        if min(pictures.shape[-2:]) < _LEAST_SIDE:
            raise UsageError(
                "small-pictures",
                f"LPIPS needs pictures of at least {_LEAST_SIDE} px, "
                f"found {pictures.shape[-1]} x {pictures.shape[-2]}",
            )
        x = (pictures - self.shift) / self.scale
        levels = []
        for index, convolution in enumerate(self.trunk):
            if index in (1, 2):
                x = F.max_pool2d(x, 3, stride=2)
            x = convolution(x).relu()
            levels.append(unit_features(x))
        return levels

    def heads(self) -> list[Tensor]:
        """See `PerceptualDistance`."""
        return [getattr(self, f"head{index}") for index in range(len(ALEXNET_WIDTHS))]


def _installed_heads() -> list[Tensor]:
    """Return the heads of the installed `lpips` package, without importing it."""
    found = importlib.util.find_spec("lpips")
    path = None if found is None or found.origin is None else Path(found.origin).parent / HEADS_FILE
    if path is None or not path.is_file():
        raise MissingExtraError("lpips", extra="lpips", install="--no-deps lpips")
    state = cast(Mapping[str, Tensor], torch.load(path, map_location="cpu", weights_only=True))
    names = [f"lin{index}.model.1.weight" for index in range(len(ALEXNET_WIDTHS))]
    missing = [name for name in names if name not in state]
    if missing:
        raise BundleError("missing-tensors", f"{path}: expected {missing[0]}, found none")
    return [state[name] for name in names]


def _cached_backbone() -> Mapping[str, Tensor]:
    name = "alexnet-owt-7be5be79.pth"
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        raise BundleError("missing-weights", f"expected {name} in {path.parent}, found nothing")
    return cast(Mapping[str, Tensor], torch.load(path, map_location="cpu", weights_only=True))


def _load_backbone(trunk: nn.ModuleList, state: Mapping[str, Tensor]) -> None:
    """Copy torchvision's `features.N.*` into the trunk."""
    for number, convolution in zip(ALEXNET_CONVOLUTIONS, trunk, strict=True):
        for part, own in convolution.named_parameters():
            name = f"features.{number}.{part}"
            stored = state.get(name)
            if stored is None or stored.shape != own.shape:
                raise BundleError("missing-tensors", f"no weights for {name} of AlexNet")
            with torch.no_grad():
                own.copy_(stored)
