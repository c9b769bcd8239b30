"""Residual vectors: their squared lengths are losses, their derivatives are right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sglat.bundles.bundle import load_bundle
from sglat.encoder.losses import (
    JoinedResidual,
    LandmarkResidual,
    PerceptualResidual,
    PixelResidual,
    Residual,
)
from sglat.networks.embedded_nets import LandmarkNetwork
from sglat.networks.embedded_perceptual import PerceptualNetwork
from sglat.networks.perceptual import PerceptualDistance


@pytest.fixture
def network() -> PerceptualDistance:
    torch.manual_seed(0)
    return PerceptualNetwork().eval().requires_grad_(False)


def pictures(seed: int) -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def half_mask() -> Tensor:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    return mask


def square_points() -> Tensor:
    """Return landmarks that span the middle of a crop, `[1, 478, 2]`."""
    return torch.rand(1, 478, 2, generator=torch.Generator().manual_seed(5)) * 0.5 + 0.3


@pytest.mark.parametrize("side", [128, 512])
def test_a_shifted_face_costs_the_square_of_its_shift(side: int) -> None:
    """By the shipped network, on a face of the shipped generator."""
    bundle = load_bundle()
    with torch.no_grad():
        face = bundle.generator(bundle.generator.w_avg.expand(1, bundle.num_ws, -1))
        face = torch.nn.functional.interpolate(face, (side, side), mode="bilinear")
        shifted = torch.roll(face, side * 4 // 128, 3)  # four pixels of 128
        points = torch.rand(1, 478, 2) * torch.tensor([0.6, 0.6]) + torch.tensor([0.2, 0.3])
        residual = LandmarkResidual(bundle.landmarks, points, 1.0)
        found = float((residual(shifted) - residual(face)).square().sum())
    assert found == pytest.approx((4 / 128) ** 2 / 2, rel=0.3)  # of x and y, half moved


def test_pixels_of_one_scale_give_the_mean_squared_error() -> None:
    residual = PixelResidual(torch.ones(1, 1, 64, 64), (1,))
    found = (residual(pictures(1)) - residual(pictures(2))).square().sum(1)
    assert torch.allclose(found, (pictures(1) - pictures(2)).square().mean((1, 2, 3)))


def test_features_give_the_networks_own_masked_distance(network: PerceptualDistance) -> None:
    residual = PerceptualResidual(network, half_mask(), weight=3.0)
    found = (residual(pictures(1)) - residual(pictures(2))).square().sum(1)
    wanted = 3 * network(pictures(1), pictures(2), half_mask().expand(2, -1, -1, -1))
    assert torch.allclose(found, wanted, rtol=1e-4)
    assert float(wanted.min()) > 0


def test_a_masked_distance_does_not_see_the_rest(network: PerceptualDistance) -> None:
    whole = torch.nn.functional.interpolate(pictures(1), scale_factor=4)
    changed = whole.clone()
    changed[..., 240:] = 0  # farther away than features at the mask's edge look
    mask = torch.zeros(2, 1, 256, 256)
    mask[..., :16] = 1
    assert float(network(whole, changed, mask).max()) < 1e-9
    assert float(network(whole, changed).min()) > 1e-6


def test_pushed_changes_are_derivatives(network: PerceptualDistance) -> None:
    torch.manual_seed(1)
    eyes = LandmarkNetwork().eval().requires_grad_(False).double()
    eyes.shapes.copy_(torch.randn(eyes.shapes.shape))
    parts: list[Residual] = [
        PixelResidual(torch.ones(1, 1, 64, 64), (1, 4)),
        PerceptualResidual(network, half_mask()),
        LandmarkResidual(eyes, square_points(), 10.0),
    ]
    residual = JoinedResidual(parts)
    picture, tangents = pictures(3)[:1].double(), pictures(4).double()
    network.double()  # type: ignore[attr-defined]
    step = 1e-6
    wanted = (residual(picture + step * tangents) - residual(picture - step * tangents)) / 2 / step
    found = residual.pushed(picture, tangents)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5
