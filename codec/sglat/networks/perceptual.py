"""Perceptual distance: one interface for LPIPS and the embedded bundle's own network.

Source of the scheme: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, section 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.errors import BundleError, MissingExtraError


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


class Lpips(PerceptualDistance):
    """LPIPS v0.1 through the `lpips` package, whose weights define the scale."""

    def __init__(self, *, backbone: Mapping[str, Tensor] | None = None) -> None:
        """Load the network.

        Args:
            backbone: AlexNet's state dict as torchvision publishes it; without it torchvision's own
                cache is searched, and nothing is downloaded: absent weights are an error.

        Raises:
            MissingExtraError: `lpips` or torchvision is not installed, or does not fit torch.
            BundleError: the backbone's weights are absent.
        """
        super().__init__()
        try:
            import lpips
            import torchvision.models as models
        except (ImportError, RuntimeError) as error:  # a torchvision made for another torch
            raise MissingExtraError("lpips", extra="lpips") from error
        metric = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        _load_backbone(metric.net, _cached_backbone(models) if backbone is None else backbone)
        self.metric = metric.eval().requires_grad_(False)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """See `PerceptualDistance`."""
        levels = self.metric.net(self.metric.scaling_layer(pictures))
        return [unit_features(level) for level in levels]

    def heads(self) -> list[Tensor]:
        """See `PerceptualDistance`."""
        return [line.model[-1].weight.flatten() for line in self.metric.lins]


def _cached_backbone(models: Any) -> Mapping[str, Tensor]:
    name = str(models.AlexNet_Weights.IMAGENET1K_V1.url).rsplit("/", maxsplit=1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        raise BundleError("missing-weights", f"expected {name} in {path.parent}, found nothing")
    return cast(Mapping[str, Tensor], torch.load(path, map_location="cpu", weights_only=True))


def _load_backbone(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy torchvision's `features.N.*` into the package's `sliceK.N.*`."""
    own = network.state_dict()
    renamed = {name: state.get("features." + name.split(".", 1)[1]) for name in own}
    wrong = [n for n, t in renamed.items() if t is None or t.shape != own[n].shape]
    if wrong:
        raise BundleError("missing-tensors", f"no weights for {wrong[0]} of AlexNet")
    network.load_state_dict({n: t for n, t in renamed.items() if t is not None})
