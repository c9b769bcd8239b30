"""MS-SSIM at both ends, against scikit-image at one scale, and inside a mask."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.errors import UsageError
from sglat_lab.measure import picture_metrics as pixels

ndimage = pytest.importorskip("scipy.ndimage")


def drawn(seed: int, side: int = 128) -> NDArray[np.uint8]:
    """Return a picture of soft blobs and sharp bars, `[side, side, 3]`."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    picture = 60.0 * (np.sin(40 * x * random.random() + 20 * y) > 0)[..., None] * np.ones(3)
    for _ in range(6):
        a, b, size = random.random(3)
        blob = np.exp(-((x - a) ** 2 + (y - b) ** 2) / (0.02 + 0.05 * size))
        picture = picture + blob[..., None] * random.random(3) * 120
    return np.clip(picture, 0, 255).astype(np.uint8)


def blurred(picture: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0))


def test_a_picture_equals_itself() -> None:
    assert pixels.ms_ssim(drawn(0), drawn(0)) == pytest.approx(1)


def test_two_blurs_lie_between_itself_and_another_picture() -> None:
    shown = (blurred(drawn(0), 1), blurred(drawn(0), 3), drawn(1))
    little, much, other = (pixels.ms_ssim(picture, drawn(0)) for picture in shown)
    assert 1 > little > much > other >= 0


def test_one_scale_is_the_ssim_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    first, second = drawn(0, 20), blurred(drawn(0, 20), 1)
    expected = metrics.structural_similarity(
        first, second, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert pixels.scales_within(20) == 1
    assert pixels.ms_ssim(second, first) == pytest.approx(expected)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (128, 4), (175, 4), (176, 5), (1024, 5)])
def test_there_are_as_many_scales_as_have_room_for_a_window(side: int, scales: int) -> None:
    assert pixels.scales_within(side) == scales


def test_a_picture_without_room_for_a_window_is_refused() -> None:
    with pytest.raises(UsageError, match="picture-small"):
        pixels.ms_ssim(drawn(0, 10), drawn(0, 10))


def test_a_mask_hides_what_lies_outside() -> None:
    mask = np.zeros((128, 128), bool)
    mask[:, :20] = True
    shown = drawn(0)
    shown[:, 120:] = 255 - shown[:, 120:]
    assert pixels.ms_ssim(shown, drawn(0)) < 0.999
    assert pixels.ms_ssim(shown, drawn(0), mask) == pytest.approx(1)


def test_pictures_of_other_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="picture-shape"):
        pixels.ms_ssim(drawn(0), drawn(0, 64))
