"""Teaching the perceptual network level by level, and the optimizer that does it."""

from __future__ import annotations

import torch
from torch import nn

from sglat.networks.embedded_perceptual import Fire, PerceptualNetwork
from sglat_lab.train.faces_muon import Muon
from sglat_lab.train.layerwise_pretraining import LevelData, LevelPlan, scale_to_unit, teach


def test_muon_solves_an_ill_conditioned_regression_that_adamw_does_not() -> None:
    torch.manual_seed(3)
    inputs = torch.randn(512, 20) * torch.logspace(0, -2, 20)
    truth = torch.randn(8, 20)
    left = {}
    for kind in (Muon, torch.optim.AdamW):
        layer = nn.Linear(20, 8, bias=False)
        nn.init.zeros_(layer.weight)
        optimizer = kind(layer.parameters(), lr=0.03)
        for step in range(200):
            optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 200)
            loss = (layer(inputs) - inputs @ truth.T).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[kind] = float((layer.weight.detach() - truth).square().mean())
    assert left[Muon] < 0.5 * left[torch.optim.AdamW]


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
    before = teach(student, data, weights, short, 0.01, 0)
    after = teach(student, data, weights, longer, 0.01, 0)
    assert after < 0.25 < before
