"""Region loss of controls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sglat.bitstream.channels import GROUPS
from sglat.networks.faces import PARSING_CLASSES
from sglat_lab.train.losses import RegionLoss

SIDE = 32


class Parser:
    """Says where the parts are: each in a square of its own."""

    places: ClassVar = {"mouth": (18, 8), "skin": (26, 8), "left_eye": (8, 4), "left_brow": (2, 4)}

    def parse(self, crops: Tensor) -> Tensor:
        classes = torch.zeros(len(crops), len(PARSING_CLASSES), SIDE, SIDE)
        for name, (top, left) in self.places.items():
            classes[:, PARSING_CLASSES.index(name), top : top + 4, left : left + 8] = 1
        return classes


def painter(strength_inside: float, strength_outside: Tensor) -> Any:
    """Return a model whose controls paint every part of the face, and a stripe far away."""

    def synthesize(styles: list[Tensor], *, dtype: torch.dtype) -> Tensor:
        amount = styles[0].sum(1)[:, None, None, None].abs()
        parts = Parser().parse(styles[0]).sum(1, keepdim=True)
        stripe = torch.zeros(1, 1, SIDE, SIDE)
        stripe[..., 24:] = 1
        return amount * (strength_inside * parts + strength_outside * stripe)

    return SimpleNamespace(
        generator=SimpleNamespace(synthesize=synthesize),
        moved=lambda styles, values: [styles[0] + values],
    )


def cost_of(outside: Tensor, *, count: int = 200) -> tuple[Tensor, RegionLoss]:
    loss = RegionLoss(Parser(), torch.ones(len(GROUPS)), seed=1)  # type: ignore[arg-type]
    styles = [torch.zeros(count, len(GROUPS))]
    pictures = torch.zeros(count, 3, SIDE, SIDE)
    cost = loss(painter(1.0, outside), styles, pictures, dtype=torch.float32)
    return cost, loss


def test_local_changes_cost_nothing() -> None:
    cost, loss = cost_of(torch.zeros(()))
    assert float(cost) == 0
    assert loss.local_share() == 1


def test_spread_changes_cost_and_the_gradient_pulls_them_home() -> None:
    outside = torch.tensor(2.0, requires_grad=True)
    cost, loss = cost_of(outside)
    assert float(cost) > 0.3
    assert loss.local_share() == 0
    cost.backward()
    assert outside.grad is not None
    assert float(outside.grad) > 0


def test_every_control_is_drawn() -> None:
    _, loss = cost_of(torch.ones(()), count=600)
    assert bool(torch.isfinite(loss.ratios).all())
