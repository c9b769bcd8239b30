"""Pose loss: requested against measured angles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sglat_lab.train.data import FaceBatch
from sglat_lab.train.losses import RANGES, PoseLoss

SIDE = 128


class Reader(nn.Module):
    """Reads pose off the colours in the middle of a view: red is yaw, green is pitch."""

    def forward(self, crops: Tensor) -> Any:
        middle = crops[:, :2, 60:68, 60:68].mean((2, 3)) * 30
        return SimpleNamespace(pose=torch.cat([middle, middle[:, :1]], 1))


def turner(gain: Tensor) -> Any:
    """Return a model that paints the asked angles, times a gain, where the face is."""

    def turn(ws: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return target * gain

    def synthesize(styles: list[Tensor], *, dtype: torch.dtype) -> Tensor:
        picture = torch.zeros(len(styles[0]), 3, SIDE, SIDE)
        painted = styles[0][:, :, None, None].expand(-1, -1, 48, 48) / 30
        return torch.cat(
            [
                nn.functional.pad(painted, (56, 24, 64, 16)),  # middle at (80, 88)
                picture[:, 2:],
            ],
            1,
        )

    return SimpleNamespace(
        pose_flow=SimpleNamespace(turn=turn),
        generator=SimpleNamespace(styles=lambda ws: [ws], synthesize=synthesize),
    )


def faces(count: int) -> FaceBatch:
    """Return faces whose landmarks lie around (80, 88) pixels."""
    corners = torch.tensor([[60.0, 68.0], [100.0, 108.0]]) / SIDE
    return FaceBatch(
        images=torch.zeros(count, 3, SIDE, SIDE),
        points=corners[None].expand(count, -1, -1),
        blendshapes=torch.zeros(count, 52),
        pose_degrees=torch.zeros(count, 2),
        is_fine=torch.ones(count, dtype=torch.bool),
    )


def cost_of(gain: Tensor, *, count: int = 64) -> tuple[Tensor, PoseLoss]:
    loss = PoseLoss(Reader(), seed=1)
    ws = torch.zeros(count, 2)
    cost, _ = loss(turner(gain), ws, faces(count), dtype=torch.float32)
    return cost, loss


def test_angles_seen_as_asked_cost_nothing() -> None:
    cost, loss = cost_of(torch.ones(()))
    assert float(cost) < 1e-6
    assert float(loss.error.max()) < 0.01


def test_angles_that_fall_short_cost_and_are_pushed_further() -> None:
    gain = torch.tensor(0.5, requires_grad=True)
    cost, loss = cost_of(gain)
    assert float(cost) > 0.1
    assert 0 < float(loss.error.min()) <= float(loss.error.max()) < max(RANGES)
    cost.backward()
    assert gain.grad is not None
    assert float(gain.grad) < 0
