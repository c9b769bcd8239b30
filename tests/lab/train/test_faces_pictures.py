"""Local deformations of faces, and the perceptual network's features, distances and pairs."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from sglat.networks.embedded_perceptual import PerceptualNetwork, normalised, pooled
from sglat_lab.train.adversarial_examples import moved, tuned_pairs
from sglat_lab.train.data import Faces, mirrored_points
from sglat_lab.train.faces_augment import deformed
from sglat_lab.train.faces_perceptual import channel_weights, unexplained, unexplained_change


def _dotted(points: np.ndarray) -> np.ndarray:
    picture = np.zeros((128, 128, 3), np.uint8)
    for x, y in points:
        picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 255
    return picture


def test_points_move_with_what_they_lie_on() -> None:
    # Dots at centres of deformation; the rest of the 478 lies in a corner.
    spots = {61: (44, 90), 291: (84, 90), 105: (44, 40), 334: (84, 40), 152: (64, 115)}
    points = np.full((478, 2), 64.0, np.float32)
    for index, place in spots.items():
        points[index] = place
    picture = _dotted(np.array(list(spots.values())))
    farthest = 0.0
    for seed in range(12):
        warped, found = deformed(picture, points, 32.0, np.random.default_rng(seed))
        bright = (warped[..., 0] > 60).astype(np.uint8)
        centres = cv2.connectedComponentsWithStats(bright)[3][1:]
        for index in spots:
            off = np.linalg.norm(centres - found[index], axis=1).min()
            assert off < 1.0, (seed, index, off)
            farthest = max(farthest, float(np.linalg.norm(found[index] - points[index])))
    assert farthest > 4  # something moved


def test_the_perceptual_distance_is_the_sum_of_its_maps_means() -> None:
    torch.manual_seed(3)
    network = PerceptualNetwork().eval()
    first, second = (torch.rand(2, 2, 3, 64, 64) * 2 - 1).unbind(0)
    with torch.inference_mode():
        maps = network.maps(network.features(first), network.features(second))
        total = torch.stack([m.mean((1, 2)) for m in maps]).sum(0)
        assert [tuple(m.shape) for m in maps] == [(2, s, s) for s in (31, 15, 7, 3, 3)]
        assert torch.allclose(total, network(first, second), rtol=1e-5)


def test_pooling_lies_between_the_mean_and_the_largest_and_has_the_places_of_max_pooling() -> None:
    x = torch.rand(2, 3, 31, 14, generator=torch.Generator().manual_seed(3))
    mean = torch.nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True)
    largest = torch.nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)
    found = pooled(x)
    assert found.shape == largest.shape == (2, 3, 15, 7)
    assert bool((found > mean).all()) and bool((found < largest + 1e-4).all())


@pytest.mark.parametrize("operation", (pooled, lambda x: normalised(x, 3)), ids=("pool", "unit"))
def test_hand_made_derivatives_are_those_of_differences_in_both_modes(
    operation: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    x = torch.randn(2, 5, 8, 7, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    assert torch.autograd.gradcheck(operation, (x.requires_grad_(),), check_forward_ad=True)


def test_what_is_imitated_exactly_leaves_nothing_unexplained_and_a_constant_all_of_it() -> None:
    torch.manual_seed(3)
    wanted = [torch.randn(8, 4, 6, 6), torch.randn(8, 6, 3, 3)]
    weights = channel_weights([torch.rand(1, 4, 1, 1), torch.rand(1, 6, 1, 1)])
    constant = [w.mean((0, 2, 3), keepdim=True).expand_as(w) for w in wanted]
    assert float(unexplained(wanted, wanted, weights)) == 0
    assert float(unexplained(constant, wanted, weights)) == pytest.approx(1, abs=1e-5)
    assert all(float(w.sum()) == pytest.approx(1, abs=1e-5) for w in weights)


def test_a_change_is_explained_whatever_the_features_before_it() -> None:
    torch.manual_seed(3)
    before, after = [torch.randn(8, 4, 6, 6)], [torch.randn(8, 4, 6, 6)]
    moved_alike = [before[0] + 1], [after[0] + 1]
    weights = channel_weights([torch.rand(1, 4, 1, 1)])
    still = before, before
    assert float(unexplained_change(moved_alike, (before, after), weights)) < 1e-9
    assert 0.9 < float(unexplained_change(still, (before, after), weights)) < 1


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


class _Maker:
    """Stands in for a generator: what it makes of a face is the face, half as bright."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def tuned(
        self, references: torch.Tensor, distance: Callable[..., torch.Tensor], *, steps: int
    ) -> torch.Tensor:
        self.steps.append(steps)
        assert distance(references).shape == (1,)
        return 0.5 * references - 0.5


def test_tuned_pictures_are_of_training_faces_each_with_its_own_number_of_steps() -> None:
    images = np.random.default_rng(3).integers(0, 256, (12, 64, 64, 3), np.uint8)
    labels = {"split": np.array(["train", "val"] * 6), "clip": np.array([""] * 12)}
    maker = _Maker()
    pairs = tuned_pairs(
        Faces(images=images, labels=labels), maker, PerceptualNetwork(), train=6, seed=0
    )
    assert sorted(pairs["rows"]) == [0, 2, 4, 6, 8, 10]
    assert len(set(maker.steps)) > 2
    expected = images[pairs["rows"]].astype(int) / 2
    assert np.abs(pairs["pictures"] - expected).max() <= 1


def test_each_point_is_the_mirror_image_of_one_other() -> None:
    shape = np.array([(-1, 0), (1, 0), (1.1, 0), (-1.4, 0)], np.float32)  # two are nearest to -1
    order = mirrored_points(shape)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert order[order].tolist() == [0, 1, 2, 3]
