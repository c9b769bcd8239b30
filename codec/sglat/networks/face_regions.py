"""Pixel weights that emphasise eyes and mouth."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from sglat.networks.face_points import INNER_LIPS, IRISES

_FEATURES: Final = (*((iris,) for iris in IRISES), INNER_LIPS)
_FEATURE_RADII: Final = ((0.075, 0.055), (0.075, 0.055), (0.13, 0.10))  # of the side, x and y


def feature_weights(points: Tensor, side: int, extra: float) -> Tensor:
    """Return pixel weights: 1, rising to `1 + extra` at eyes and mouth.

    Args:
        points: landmarks in crop units (0 to 1), `[N, 478, 2]`.
        side: of the picture in pixels.
        extra: added at the centre of each feature.

    Returns:
        `[N, 1, side, side]`.
    """
    centres = torch.stack([points[:, list(group)].mean(1) for group in _FEATURES], dim=1)
    radii = points.new_tensor(_FEATURE_RADII)
    axis = (torch.arange(side, device=points.device) + 0.5) / side
    dx = (axis - centres[..., :1]) / radii[None, :, :1]  # [N, features, side]
    dy = (axis - centres[..., 1:]) / radii[None, :, 1:]
    bumps = torch.exp(-(dx.square()[:, :, None] + dy.square()[..., None]))
    return 1 + extra * bumps.amax(1, keepdim=True)
