"""Pictures as numbers: uint8 HWC in files, float32 NCHW in [-1, 1] for networks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def from_pixels(pixels: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return uint8 RGB `[..., H, W, 3]` as float32 `[..., 3, H, W]` in [-1, 1], channels last in
    memory."""
    if not isinstance(pixels, Tensor):  # a tensor cannot share reversed or read-only memory
        pixels = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return from_levels(pixels.movedim(-1, -3))


def from_levels(levels: Tensor) -> Tensor:
    """Return levels 0 to 255 as float32 in [-1, 1]."""
    return levels.float() / 127.5 - 1


def to_pixels(pictures: Tensor) -> NDArray[np.uint8]:
    """Return `[N, 3, H, W]` in [-1, 1] as uint8 RGB `[N, H, W, 3]`."""
    levels = pictures.clamp(-1, 1).add(1).mul(127.5).round_().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def resize(pictures: Tensor, side: int) -> Tensor:
    """Return `[N, 3, H, W]` at another side, without aliasing."""
    if pictures.shape[-1] == side:
        return pictures
    larger = side > pictures.shape[-1]
    mode = "bicubic" if larger else "bilinear"
    resized = functional.interpolate(
        pictures, (side, side), mode=mode, antialias=not larger, align_corners=False
    )
    return resized.clamp(-1, 1)
