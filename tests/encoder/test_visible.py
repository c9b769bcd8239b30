"""What lies outside the frame, or before the face, is compared with nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.encoder.config import EncodeConfig
from sglat.encoder.crops import inside_mask
from sglat.encoder.encode import encode
from sglat.encoder.gauss_newton import FastSolver, SolverConfig
from sglat.encoder.jacobians import take_jacobians
from sglat.encoder.losses import LossConfig, PixelResidual, TargetLoss
from sglat.encoder.visible import SIDE, Visible
from tests.encoder.test_encode import Eyes, Pixels, draw_clip
from tests.encoder.test_encode import bundle as bundle  # a fixture


def visible(*, leaving: bool = False, is_covered: bool = False) -> Visible:
    covered = np.zeros((1, SIDE, SIDE), bool)
    covered[0, 8:16] = is_covered
    return Visible(
        placement=np.array([[10.0, 50, 40, 0]]), leaving=np.array([leaving]), size=(200, 100),
        covered=covered,
    )  # fmt: skip


def test_a_face_within_the_frame_has_no_mask() -> None:
    assert visible().masks([0], 64) is None


def test_what_is_left_of_the_frame_is_masked() -> None:
    masks = visible(leaving=True).masks([0], 64)
    assert masks is not None
    assert masks[0, 0, :, :16].sum() == 0
    assert bool((masks[0, 0, :, 16:] == 1).all())


def test_what_covers_the_face_is_masked() -> None:
    masks = visible(is_covered=True).masks([0], 64)
    assert masks is not None
    assert np.flatnonzero(masks[0, 0, :, 0].numpy() == 0).tolist() == list(range(16, 32))


def test_a_turned_crop_is_masked_along_the_border_of_the_frame() -> None:
    mask = inside_mask(np.array([0.0, 50, 40, 90]), (200, 100), 8)
    assert mask.sum() == 32
    assert (mask.all(axis=1) | ~mask.any(axis=1)).all()


@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_tuning_counts_nothing_where_it_is_masked(scale: float) -> None:
    random = torch.Generator().manual_seed(0)
    targets, pictures = (torch.rand(1, 3, 16, 16, generator=random) for _ in range(2))
    masks = torch.ones(1, 1, 16, 16)
    masks[..., :8] = 0
    changed = pictures.clone()
    changed[..., :8] = scale
    weights, index = torch.ones(1, 1, 16, 16), torch.tensor([0])
    config = LossConfig(weight_identity=1.0)
    loss = TargetLoss(targets, weights, Pixels(), Eyes().embed, config, masks)
    assert torch.equal(loss(pictures, targets, index), loss(changed, targets, index))


def test_the_solver_ignores_what_is_masked() -> None:
    random = torch.Generator().manual_seed(0)
    basis = torch.randn(34, 3, 16, 16, generator=random) / 10

    def render(motion: Tensor) -> Tensor:
        return torch.einsum("nk,kchw->nchw", motion, basis)

    wanted = torch.randn(1, 34, generator=random)
    targets, masks = render(wanted), torch.ones(1, 1, 16, 16)
    targets[..., 12:], masks[..., 12:] = 5.0, 0.0  # a third eye
    residual = PixelResidual(torch.ones(1, 1, 16, 16), (1,))
    (jacobians,) = take_jacobians(render, torch.zeros(1, 34), (residual,))
    config = SolverConfig(iterations=60, fresh=0, weight_prior=0.0)
    solver = FastSolver(render, jacobians, residual, config)

    def error(mask: Tensor | None) -> float:
        solved = solver.solve(
            lambda first, last: targets, torch.zeros(1, 34), masks=lambda first, last: mask
        )
        return float((next(iter(solved)) - wanted).norm() / wanted.norm())

    assert error(masks) < 0.2 < error(None)


class Covered(Eyes):
    """Sees a microphone in the middle of every second crop."""

    def parse(self, crops: Tensor) -> Tensor:
        classes = super().parse(crops)
        classes[:, :, 6:12, 4:12] = F.one_hot(torch.tensor(16), 19).view(1, 19, 1, 1).float()
        return classes


def test_a_covered_face_is_said(bundle: Bundle, tmp_path: Path) -> None:
    bundle.__dict__["faces"] = Covered()
    clip = draw_clip(tmp_path / "in.mp4", 4, audio=None)
    config = EncodeConfig(tuning="none", tune_steps=2, identity_bytes=6_000, self_check=False)
    result = encode(clip, tmp_path / "out.sglat", config)
    assert any("face covered in 4 frames" in line for line in result.messages)
