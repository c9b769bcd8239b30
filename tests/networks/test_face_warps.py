"""Faces pulled about for training, and the perceptual network's distances by place."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from sglat.networks.embedded_perceptual import PerceptualNetwork
from sglat.training.faces_generated import moved
from sglat.training.faces_warps import pulled


def _dotted(points: np.ndarray) -> np.ndarray:
    picture = np.zeros((128, 128, 3), np.uint8)
    for x, y in points:
        picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 255
    return picture


def test_points_move_with_what_they_lie_on() -> None:
    # Dots at the points that are pulled; the rest of the 478 lies in a corner.
    spots = {61: (44, 90), 291: (84, 90), 105: (44, 40), 334: (84, 40), 152: (64, 115)}
    points = np.full((478, 2), 64.0, np.float32)
    for index, place in spots.items():
        points[index] = place
    picture = _dotted(np.array(list(spots.values())))
    farthest = 0.0
    for seed in range(12):
        warped, found = pulled(picture, points, 32.0, np.random.default_rng(seed))
        bright = (warped[..., 0] > 60).astype(np.uint8)
        centres = cv2.connectedComponentsWithStats(bright)[3][1:]
        for index in spots:
            off = np.linalg.norm(centres - found[index], axis=1).min()
            assert off < 1.0, (seed, index, off)
            farthest = max(farthest, float(np.linalg.norm(found[index] - points[index])))
    assert farthest > 4  # something was pulled


def test_the_perceptual_distance_is_the_sum_of_its_maps_means() -> None:
    torch.manual_seed(3)
    network = PerceptualNetwork().eval()
    first, second = (torch.rand(2, 2, 3, 64, 64) * 2 - 1).unbind(0)
    with torch.inference_mode():
        maps = network.maps(network.features(first), network.features(second))
        total = torch.stack([m.mean((1, 2)) for m in maps]).sum(0)
        assert [tuple(m.shape) for m in maps] == [(2, s, s) for s in (32, 16, 8, 4)]
        assert torch.allclose(total, network(first, second), rtol=1e-5)


def test_moved_latents_are_kept_shaken_or_mixed() -> None:
    torch.manual_seed(3)
    latents = torch.randn(64, 4, 8)
    found = moved(latents, np.random.default_rng(0))
    off = (found - latents).abs().amax((1, 2))
    others = latents.roll(1, 0) - latents
    share = ((found - latents) * others).sum((1, 2)) / others.square().sum((1, 2))
    mixed = (found - latents - share[:, None, None] * others).abs().amax((1, 2)) < 1e-5
    assert 8 < int((off == 0).sum()) < 32
    assert 8 < int((mixed & (off > 0)).sum()) < 36
    assert int((~mixed).sum()) > 8
