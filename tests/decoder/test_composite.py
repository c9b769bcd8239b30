"""The face back in the full frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sglat.decoder.backdrop import fit_placement
from sglat.decoder.composite import (
    FACE_CLASSES,
    CompositeConfig,
    Compositor,
    covered_box,
    edge_mask,
    feather,
)
from sglat.encoder.crops import crop_picture
from sglat.networks.pixels import from_pixels
from tests.support.tolerances import PASTE_BACK_LEVELS

PLACEMENT = np.array([60.0, 50.0, 48.0, 15.0])


def smooth_picture(height: int = 100, width: int = 120) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 2, columns * 2, 255 - rows * 2], axis=-1).astype(np.uint8)


def crop_of(picture: np.ndarray, side: int = 64) -> torch.Tensor:
    return from_pixels(crop_picture(picture, PLACEMENT, side))


def paste(picture: np.ndarray, crop: torch.Tensor, compositor: Compositor) -> np.ndarray:
    return compositor.paste(picture, crop, compositor.masks(crop[None])[0], PLACEMENT)


def oval_parse(crops: torch.Tensor) -> torch.Tensor:
    side = crops.shape[-1]
    place = (torch.arange(side) + 0.5) / side - 0.5
    oval = (place[None] ** 2 + place[:, None] ** 2 < 0.09).float()
    classes = torch.zeros(len(crops), 19, side, side)
    classes[:, FACE_CLASSES[0]] = oval
    classes[:, 0] = 1 - oval
    return classes


def test_pasting_back_what_was_cut_out_changes_nothing() -> None:
    picture = smooth_picture()
    pasted = paste(picture, crop_of(picture), Compositor())
    assert np.abs(pasted.astype(int) - picture).max() <= PASTE_BACK_LEVELS


def test_a_crop_larger_than_shown_changes_nothing_either() -> None:
    picture = smooth_picture()
    pasted = paste(picture, crop_of(picture, side=256), Compositor())
    assert np.abs(pasted.astype(int) - picture).max() <= PASTE_BACK_LEVELS


def test_nothing_changes_outside_the_crop() -> None:
    picture = smooth_picture()
    pasted = paste(picture, torch.ones(3, 64, 64), Compositor())
    left, top, right, bottom = covered_box(PLACEMENT, 120, 100)  # type: ignore[misc]
    outside = np.ones((100, 120), bool)
    outside[top:bottom, left:right] = False
    assert np.array_equal(pasted[outside], picture[outside])


def test_the_middle_is_the_crop() -> None:
    crop = torch.zeros(3, 64, 64)
    crop[0] = 1.0
    loose = Compositor(config=CompositeConfig(inertia=0.0))
    ground = np.full((100, 120, 3), 128, np.uint8)
    ground[..., 0] = 255
    assert paste(ground, crop, loose)[50, 60].tolist() == pytest.approx([255, 128, 128], abs=1)


def test_the_frame_given_is_not_changed() -> None:
    picture = smooth_picture()
    before = picture.copy()
    paste(picture, torch.ones(3, 64, 64), Compositor())
    assert np.array_equal(picture, before)


def test_a_crop_beside_the_frame_leaves_it_alone() -> None:
    picture = smooth_picture()
    compositor = Compositor()
    crop = torch.ones(3, 64, 64)
    away = np.array([500.0, 500.0, 48.0, 0.0])
    assert np.array_equal(
        compositor.paste(picture, crop, compositor.masks(crop[None])[0], away), picture
    )


def test_a_crop_across_the_border_is_pasted_in_part() -> None:
    compositor = Compositor(config=CompositeConfig(inertia=0.0))
    picture = smooth_picture()
    corner = np.array([4.0, 4.0, 48.0, 0.0])
    crop = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    pasted = compositor.paste(picture, crop, compositor.masks(crop[None])[0], corner)
    assert not np.array_equal(pasted[:20, :20], picture[:20, :20])


def test_only_the_parsed_face_is_pasted() -> None:
    compositor = Compositor(oval_parse)
    mask = compositor.masks(torch.zeros(1, 3, 64, 64))[0, 0]
    assert float(mask[32, 32]) == pytest.approx(1.0, abs=1e-4)
    assert float(mask[4, 4]) == 0.0
    assert 0.05 < float(mask[32, 12:20].min()) < 0.95 or float(mask.diff(dim=1).abs().max()) < 0.5


def test_colours_move_towards_what_is_covered() -> None:
    ground = np.full((100, 120, 3), 100, np.uint8)
    ground[::2] = 140
    crop = crop_of(ground) * 0.8 + 0.3
    matched = paste(ground, crop, Compositor(oval_parse)).astype(float)
    assert abs(matched[45:55, 55:65].mean() - 120) < 4


def test_the_colour_match_does_not_jump() -> None:
    compositor = Compositor(oval_parse)
    ground = np.full((100, 120, 3), 100, np.uint8)
    first = paste(ground, crop_of(ground), compositor).astype(float)
    second = paste(ground, crop_of(ground) + 0.4, compositor).astype(float)
    unmatched = 0.4 * 127.5
    assert second[50, 60, 0] - first[50, 60, 0] > 0.7 * unmatched


def test_edges_fade_to_nothing() -> None:
    mask = edge_mask(64, 0.2)[0, 0]
    assert float(mask[32, 32]) == 1.0
    assert float(mask[0].max()) < 0.01


def test_feathering_closes_small_holes() -> None:
    mask = torch.ones(1, 1, 64, 64)
    mask[..., 31:33, 31:33] = 0
    assert float(feather(mask, 0.1).min()) == pytest.approx(1.0)


def test_placement_follows_the_frame_size() -> None:
    fitted = fit_placement(np.array([100.0, 50, 40, 7]), (200, 100), (400, 200))
    assert fitted.tolist() == [200.0, 100.0, 80.0, 7.0]
