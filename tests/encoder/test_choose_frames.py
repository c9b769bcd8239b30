"""The choice of tuning frames."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sglat.encoder.choose_frames import (
    ChooseConfig,
    candidate_frames,
    frame_features,
    spread_frames,
    typical_frames,
)


def cost(signature: Tensor, chosen: list[int]) -> float:
    return float(torch.cdist(signature, signature[chosen]).pow(4).amin(1).sum())


def test_spread_frames_are_far_apart_and_skip_unusable_ones() -> None:
    signature = torch.tensor([[0.0], [10.0], [1.0], [9.0], [5.0]])
    usable = torch.tensor([True, False, True, True, True])
    assert spread_frames(signature, 3, 0, usable) == [0, 3, 4]


def test_typical_frames_stand_for_the_many_and_not_for_a_rarity() -> None:
    crowd = torch.arange(20) * 0.01
    signature = torch.cat([crowd, crowd + 5, crowd + 9, torch.tensor([11.5])])[:, None]
    assert spread_frames(signature, 3, 0, torch.ones(61, dtype=torch.bool))[1] == 60
    chosen = typical_frames(signature, 3)
    assert chosen[0] == 0 and sorted(frame // 20 for frame in chosen) == [0, 1, 2]


def test_a_rarity_gets_a_frame_where_many_stand_for_the_others() -> None:
    crowd = torch.arange(101) / 100  # squared distances would give all four frames to it
    assert 101 in typical_frames(torch.cat([crowd, torch.tensor([1.6])])[:, None], 4)


def test_typical_frames_cost_little_more_than_the_best_choice() -> None:
    signature = torch.randn(14, 2, generator=torch.Generator().manual_seed(5))
    best = min(cost(signature, [0, *others]) for others in itertools.combinations(range(1, 14), 3))
    found = cost(signature, typical_frames(signature, 4))
    assert best <= found <= 1.1 * best
    far = spread_frames(signature, 4, 0, torch.ones(14, dtype=torch.bool))
    assert found < 0.9 * cost(signature, far)


def test_typical_frames_come_farthest_first() -> None:
    signature = torch.randn(40, 3, generator=torch.Generator().manual_seed(6))
    chosen = typical_frames(signature, 8)
    assert chosen[0] == 0 and len(set(chosen)) == 8
    gaps = torch.cdist(signature[chosen], signature[chosen])
    nearest = [float(gaps[at, :at].min()) for at in range(1, 8)]
    assert nearest[0] == float(gaps[0].max()) and nearest == sorted(nearest, reverse=True)


def test_a_short_or_still_clip_gives_what_it_has() -> None:
    assert sorted(typical_frames(torch.randn(3, 34), 16)) == [0, 1, 2]
    assert typical_frames(torch.zeros(3, 34), 16) == [0]


def test_candidates_are_the_id_frame_and_usable_ones() -> None:
    usable = torch.arange(9) % 2 == 0
    assert candidate_frames(usable, 7, 100) == [7, 0, 2, 4, 6, 8]
    assert candidate_frames(usable, 4, 100) == [4, 0, 2, 6, 8]
    many = candidate_frames(torch.ones(500, dtype=torch.bool), 0, 100)
    assert len(many) == 100 and many[-1] == 499


def test_thumbnails_and_motion_are_equally_weighted() -> None:
    random = torch.Generator().manual_seed(7)
    pictures = torch.rand(12, 3, 64, 64, generator=random) * 2 - 1
    points, motion = torch.full((12, 478, 2), 0.5), torch.randn(12, 34, generator=random)
    both = frame_features(pictures.split(5), points, 100 * motion, ChooseConfig())
    spread = (both - both.mean(0)).square().mean(0)
    assert float(spread[:-34].sum()) == pytest.approx(1.0, rel=1e-4)
    assert float(spread[-34:].sum()) == pytest.approx(1.0, rel=1e-4)
    still = frame_features([pictures[:1].expand(12, -1, -1, -1)], points, motion, ChooseConfig())
    assert bool(torch.isfinite(still).all()) and float(still.std(0)[:-34].max()) < 1e-5
