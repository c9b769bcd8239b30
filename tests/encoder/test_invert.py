"""Refinement of W+ latents: closer pictures, each by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sglat.bundles.bundle import Bundle
from sglat.encoder.invert import RefineConfig, refine_latents
from tests.bundles.tiny import make_tiny_bundle

SHORT = RefineConfig(steps=12, weight_perceptual=0.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "tiny")


def some_latents(count: int) -> torch.Tensor:
    return torch.randn(count, 6, 16, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def drawn(bundle: Bundle, ws: torch.Tensor) -> torch.Tensor:
    return bundle.generator(ws)


def test_refined_latents_draw_closer_pictures(bundle: Bundle) -> None:
    start = some_latents(3)
    wanted = drawn(bundle, start + 0.5)
    refined = refine_latents(bundle, wanted, start, SHORT)
    before, after = (
        (drawn(bundle, ws) - wanted).square().mean((1, 2, 3)) for ws in (start, refined)
    )
    assert bool((after < 0.6 * before).all())


def test_the_start_is_left_as_it_was(bundle: Bundle) -> None:
    start = some_latents(2)
    kept = start.clone()
    refined = refine_latents(bundle, drawn(bundle, start + 0.5), start, SHORT)
    assert torch.equal(start, kept)
    assert not refined.requires_grad


def test_each_picture_is_refined_by_itself(bundle: Bundle) -> None:
    start = some_latents(3)
    wanted = drawn(bundle, start + 0.5)
    together = refine_latents(bundle, wanted, start, SHORT)
    alone = refine_latents(bundle, wanted[1:2], start[1:2], SHORT)
    torch.testing.assert_close(together[1:2], alone, atol=2e-2, rtol=0)


def test_without_steps_the_start_comes_back(bundle: Bundle) -> None:
    start = some_latents(1)
    refined = refine_latents(bundle, drawn(bundle, start), start, replace(SHORT, steps=0))
    assert torch.equal(refined, start)


def test_progress_counts_the_steps(bundle: Bundle) -> None:
    told: list[tuple[int, int]] = []
    start = some_latents(1)
    refine_latents(
        bundle, drawn(bundle, start), start, replace(SHORT, steps=3),
        progress=lambda done, steps: told.append((done, steps)),
    )  # fmt: skip
    assert told == [(1, 3), (2, 3), (3, 3)]
