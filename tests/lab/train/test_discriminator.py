"""Adaptive augmentation of the discriminator's pictures."""

from __future__ import annotations

import torch

from sglat_lab.train.losses import PICTURES_TO_FULL, TARGET, AdaptiveAugment


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_probability_zero_changes_nothing() -> None:
    real = pictures(4)
    assert AdaptiveAugment()(real).equal(real)


def test_a_small_probability_leaves_some_pictures_as_they_are() -> None:
    real = pictures(64)
    shown = AdaptiveAugment(probability=0.05)(real)
    unchanged = (shown - real).abs().amax((1, 2, 3)) < 1e-4
    assert 0.3 < float(unchanged.float().mean()) < 0.95  # nine chances of 5 % each: 63 %


def test_every_kind_is_finite_and_gives_a_gradient() -> None:
    real = pictures(16).requires_grad_()
    shown = AdaptiveAugment(probability=1.0)(real)
    assert shown.shape == real.shape and bool(torch.isfinite(shown).all())
    shown.square().sum().backward()
    assert real.grad is not None
    assert float(real.grad.abs().amax((1, 2, 3)).min()) > 0


def test_grey_stays_grey() -> None:
    grey = pictures(8)[:, :1].expand(-1, 3, -1, -1)
    shown = AdaptiveAugment(probability=1.0)(grey)
    torch.testing.assert_close(shown[:, 0], shown[:, 2], atol=1e-4, rtol=0)


def test_the_probability_follows_the_scores() -> None:
    augment = AdaptiveAugment()
    for _ in range(200):
        augment.update(torch.ones(8, 1))
    risen = augment.probability
    assert 0 < risen <= 200 * 8 / PICTURES_TO_FULL
    assert augment.sign > TARGET
    for _ in range(400):
        augment.update(-torch.ones(8, 1))
    assert augment.probability == 0
