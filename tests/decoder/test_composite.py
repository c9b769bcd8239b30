"""The face back in the full frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from sglat.decoder.composite import (
    AROUND_CLASSES,
    FACE_CLASSES,
    HEAD_CLASSES,
    CompositeConfig,
    Compositor,
    MaskName,
    covered_box,
    edge_mask,
    feather,
)
from sglat.decoder.paint import fit_placement
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
    return compositor.paste(picture, crop, compositor.masks(crop[None])[0], PLACEMENT).picture


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
        compositor.paste(picture, crop, compositor.masks(crop[None])[0], away).picture, picture
    )


def test_a_crop_across_the_border_is_pasted_in_part() -> None:
    compositor = Compositor(config=CompositeConfig(inertia=0.0))
    picture = smooth_picture()
    corner = np.array([4.0, 4.0, 48.0, 0.0])
    crop = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    pasted = compositor.paste(picture, crop, compositor.masks(crop[None])[0], corner).picture
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


def grey(level: int) -> np.ndarray:
    """Return a frame with some contrast about a level."""
    rows = np.arange(100)[:, None, None] // 8 % 2 * 2 - 1
    return np.broadcast_to(level + rows * level // 4, (100, 120, 3)).astype(np.uint8)


def test_the_colour_match_does_not_jump() -> None:
    compositor = Compositor(oval_parse)
    first = paste(grey(100), crop_of(grey(100)), compositor).astype(float)
    second = paste(grey(100), crop_of(grey(100)) + 0.02, compositor).astype(float)
    unmatched = 0.02 * 127.5
    assert (second - first)[45:55, 55:65].mean() > 0.6 * unmatched


def test_colours_follow_a_fade() -> None:
    compositor = Compositor(oval_parse)
    crop = crop_of(grey(120))
    for level in range(120, 0, -6):  # to black within 20 frames
        pasted = paste(grey(level), crop, compositor).astype(float)[45:55, 55:65]
        wanted = grey(level).astype(float)[45:55, 55:65]
        assert abs(pasted.mean() - wanted.mean()) < 8
        assert pasted.std() <= wanted.std() + 8


def test_colours_are_matched_afresh_after_a_cut() -> None:
    compositor = Compositor(oval_parse)
    crop = crop_of(grey(120))
    paste(grey(20), crop, compositor)
    mask = compositor.masks(crop[None])[0]
    pasted = compositor.paste(grey(120), crop, mask, PLACEMENT, is_restart=True).picture
    found, wanted = (picture.astype(float)[45:55, 55:65] for picture in (pasted, grey(120)))
    assert abs(found.mean() - wanted.mean()) < 2


def test_a_restart_takes_the_mask_of_its_own_frame() -> None:
    compositor = Compositor(oval_parse)
    crops = torch.zeros(2, 3, 64, 64)
    alone = Compositor(oval_parse).masks(crops[:1])[0]
    compositor._mask = torch.zeros_like(alone)
    masks = compositor.masks(crops, restarts=[True, False])
    assert torch.allclose(masks[0], alone)


def jittering_parse(generator: torch.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a parse whose outline moves by a pixel of 64 from frame to frame, as networks' do."""

    def parse(crops: torch.Tensor) -> torch.Tensor:
        classes = oval_parse(crops)
        for number in range(len(crops)):
            by = torch.randint(-1, 2, (2,), generator=generator).tolist()
            classes[number] = classes[number].roll(by, (1, 2))
        return classes

    return parse


def ring_jitter(mask_inertia: float) -> float:
    """Return how much the ring around the mask changes between frames that are all the same."""
    config = CompositeConfig(mask_inertia=mask_inertia)
    compositor = Compositor(jittering_parse(torch.Generator().manual_seed(1)), config)
    picture = smooth_picture()
    crops = torch.stack([crop_of(255 - picture)] * 40)
    masks = compositor.masks(crops)
    pasted = np.stack(
        [
            compositor.paste(picture, crops[0], mask, PLACEMENT).picture.astype(float)
            for mask in masks[8:]
        ]
    )
    spread = np.abs(pasted.mean(axis=0) - picture).max(axis=-1)
    ring = (spread > 4) & (spread < spread.max() / 2)
    return float(np.abs(np.diff(pasted, axis=0))[:, ring].mean())


def test_the_seam_does_not_jitter() -> None:
    assert ring_jitter(CompositeConfig().mask_inertia) < 0.5 * ring_jitter(0.0)


@pytest.mark.parametrize("centre", [(0.0, 50.0), (119.0, 99.0), (60.0, 3.0)])
def test_no_fringe_where_the_crop_leaves_the_frame(centre: tuple[float, float]) -> None:
    """The crop has the frame's colour; past the frame's border it is black."""
    picture = np.full((100, 120, 3), 140, np.uint8)
    placement = np.array([*centre, 60.0, 10.0])
    crop = from_pixels(crop_picture(picture, placement, 64))
    for parse in (oval_parse, None):
        compositor = Compositor(parse)
        pasted = compositor.paste(picture, crop, compositor.masks(crop[None])[0], placement).picture
        assert np.abs(pasted.astype(int) - 140).max() <= 1


def head_parse(crops: torch.Tensor) -> torch.Tensor:
    """Return an oval face below hair."""
    classes = oval_parse(crops)
    hair = torch.zeros_like(classes[:, 0])
    hair[:, 1:24, 16:48] = 1
    hair *= 1 - classes[:, FACE_CLASSES[0]]
    classes[:, HEAD_CLASSES[-2]] = hair
    classes[:, 0] -= hair
    return classes


def test_the_mask_is_face_head_or_crop() -> None:
    crops = torch.zeros(1, 3, 64, 64)
    names: tuple[MaskName, ...] = ("face", "head", "crop")
    masks = [Compositor(head_parse, CompositeConfig(mask=n, edge=0.05)).masks(crops) for n in names]
    hair, corner = [float(m[0, 0, 6, 32]) for m in masks], [float(m[0, 0, 58, 6]) for m in masks]
    assert hair[0] < 0.1 and hair[1] > 0.8 and hair[2] > 0.99
    assert corner[0] == corner[1] == 0 and corner[2] > 0.99
    assert all(torch.equal(m[:, 1], masks[0][:, 1]) for m in masks)  # colours by the face alone


def bright_parse(crops: torch.Tensor, around: int = 0) -> torch.Tensor:
    """Take what is bright for a face, and the rest for background or another class."""
    face = (crops.mean(1) > 0).float()
    classes = torch.zeros(len(crops), 19, *crops.shape[2:])
    classes[:, FACE_CLASSES[0]], classes[:, around] = face, 1 - face
    return classes


def disc(radius: float) -> np.ndarray:
    """Return a bright disc before a dark ground, about the middle of the crop."""
    rows, columns = np.mgrid[0:100, 0:120]
    inside = (rows + 0.5 - PLACEMENT[1]) ** 2 + (columns + 0.5 - PLACEMENT[0]) ** 2 < radius**2
    return np.where(inside[..., None], 200, 40).repeat(3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("around", AROUND_CLASSES)
def test_a_wider_face_leaves_no_rim_around_the_one_it_covers(around: int) -> None:
    target, config = disc(14), CompositeConfig(feather=0.02)
    parse = partial(bright_parse, around=around)
    pasted = paste(target, crop_of(disc(18)), Compositor(parse, config)).astype(int)
    rim = (disc(17) > 100) & (disc(15.5) < 100)
    assert np.abs(pasted - target)[rim].mean() < 12
    assert np.abs(pasted - target)[disc(12) > 100].mean() < 12


def test_a_face_that_is_hardly_parsed_is_covered_whole() -> None:
    target = disc(6)  # most of the face is in the dark
    pasted = paste(target, crop_of(disc(18)), Compositor(bright_parse, CompositeConfig()))
    assert np.abs(pasted.astype(int) - target)[50, 72].mean() > 20


def test_a_wider_feather_is_softer() -> None:
    def steepest(width: float) -> float:
        compositor = Compositor(oval_parse, CompositeConfig(feather=width))
        return float(compositor.masks(torch.zeros(1, 3, 64, 64))[0, 0].diff(dim=1).abs().max())

    assert steepest(0.0) > 2 * steepest(0.05) > 3 * steepest(0.2)


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
