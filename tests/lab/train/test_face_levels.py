"""Layerwise pretraining of the perceptual network."""

from __future__ import annotations

import torch

from sglat.networks.embedded_perceptual import Fire, PerceptualNetwork
from sglat_lab.train.face import LevelData, LevelPlan, scale_to_unit, train_level


def test_random_filters_are_scaled_to_unit_deviation() -> None:
    torch.manual_seed(3)
    network = PerceptualNetwork()
    pictures = torch.rand(4, 3, 64, 64) * 2 - 1
    scale_to_unit(network, pictures)
    first = network.levels[0][0]
    assert abs(float(first(pictures).detach().std()) - 1) < 1e-3


def test_a_level_learns_features_of_another_of_its_shape() -> None:
    torch.manual_seed(3)
    student, teacher = Fire(8, 4, 16), Fire(8, 4, 16)
    inputs = torch.rand(64, 8, 6, 6)
    with torch.no_grad():
        wanted = teacher(inputs)
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    data = LevelData(inputs=inputs.bfloat16(), wanted=wanted.bfloat16(), between=None)
    weights = torch.full((1, 16, 1, 1), 1 / 16)
    short = LevelPlan(pictures=64, batch_size=16, steps=1)
    longer = LevelPlan(pictures=64, batch_size=16, steps=400)
    before = train_level(student, data, weights, short, 0.01, 0)
    after = train_level(student, data, weights, longer, 0.01, 0)
    assert after < 0.25 < before
