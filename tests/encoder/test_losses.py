"""What rendered faces are compared by."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sglat.encoder.losses import LossConfig, TargetLoss, structural_similarity


@pytest.fixture
def pictures() -> Tensor:
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return F.interpolate(coarse, size=32, mode="bicubic").clamp(-1, 1)


def blurred(pictures: Tensor, times: int) -> Tensor:
    for _ in range(times):
        pictures = F.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
    return pictures


def test_a_picture_is_wholly_similar_to_itself(pictures: Tensor) -> None:
    assert structural_similarity(pictures, pictures).sub(1).abs().max() < 1e-4


def test_similarity_falls_with_blur(pictures: Tensor) -> None:
    means = [float(structural_similarity(blurred(pictures, n), pictures).mean()) for n in range(5)]
    assert means == sorted(means, reverse=True)
    assert means[4] < 0.9


def test_inverted_texture_has_negative_similarity() -> None:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    texture = ((rows + columns) % 2 - 0.5).expand(1, 3, -1, -1)  # a board: no local mean
    assert float(structural_similarity(-texture, texture).mean()) < -0.9


def test_the_default_loss_asks_no_network(pictures: Tensor) -> None:
    def forbidden(pictures: Tensor) -> Tensor:
        raise AssertionError("the identity network was asked")

    loss = TargetLoss(pictures, torch.ones(2, 1, 32, 32), None, forbidden, LossConfig())
    assert loss(pictures, pictures, torch.arange(2)).abs().max() < 1e-4


def test_the_loss_minds_eyes_and_mouth_more(pictures: Tensor) -> None:
    weights = torch.ones(2, 1, 32, 32)
    weights[:, :, :16] = 4
    loss = TargetLoss(pictures, weights, None, None, LossConfig(weight_structure=0.0))
    above, below = pictures.clone(), pictures.clone()
    above[:, :, :16] += 0.1
    below[:, :, 16:] += 0.1
    rows = torch.arange(2)
    ratio = loss(above, pictures, rows) / loss(below, pictures, rows)
    torch.testing.assert_close(ratio, torch.full((2,), 4.0), rtol=1e-3, atol=0)
