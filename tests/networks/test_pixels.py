"""Pictures as numbers: uint8 HWC and float32 NCHW."""

from __future__ import annotations

import pytest
import torch

from sglat.networks.pixels import resize, to_pixels


def test_pixels_are_rounded_and_clamped() -> None:
    pictures = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_pixels(pictures)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("side", [8, 16, 40])
def test_another_size_keeps_the_mean(side: int) -> None:
    pictures = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.5
    resized = resize(pictures, side)
    assert resized.shape == (1, 3, side, side)
    assert float((resized.mean() - pictures.mean()).abs()) < 0.02
