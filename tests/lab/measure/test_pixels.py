"""Pixel metrics at both ends: identical, blurred, unrelated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.errors import UsageError
from sglat_lab.measure import picture_metrics as pixels

pytest.importorskip("skimage")


def drawn(seed: int) -> NDArray[np.uint8]:
    """Return a picture of soft blobs and sharp bars, `[64, 64, 3]`."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] / 64
    picture = np.zeros((64, 64, 3))
    for _ in range(6):
        a, b, size = random.random(3)
        blob = np.exp(-((x - a) ** 2 + (y - b) ** 2) / (0.02 + 0.05 * size))
        picture += blob[..., None] * random.random(3) * 120
    picture += 60 * (np.sin(40 * x * random.random() + 20 * y) > 0)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def blurred(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rolled = [
        np.roll(picture.astype(float), (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)
    ]
    return np.mean(rolled, axis=0).astype(np.uint8)


@pytest.mark.parametrize(
    ("metric", "perfect"),
    [(pixels.l1, 0.0), (pixels.psnr_db, math.inf), (pixels.ssim, 1.0)],
)
def test_a_picture_equals_itself(metric, perfect: float) -> None:
    assert metric(drawn(0), drawn(0)) == perfect


@pytest.mark.parametrize(
    ("metric", "sign"),
    [(pixels.l1, -1), (pixels.psnr_db, 1), (pixels.ssim, 1)],
)
def test_blur_lies_between_itself_and_another_picture(metric, sign: int) -> None:
    same, soft, other = (
        sign * metric(p, drawn(0)) for p in (drawn(0), blurred(drawn(0)), drawn(1))
    )
    assert same > soft > other


def test_l1_and_psnr_have_their_textbook_values() -> None:
    black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 10, np.uint8)
    assert pixels.l1(grey, black) == 10
    assert pixels.psnr_db(grey, black) == pytest.approx(20 * math.log10(25.5))


@pytest.mark.parametrize("metric", [pixels.l1, pixels.psnr_db, pixels.ssim])
def test_a_mask_hides_what_lies_outside(metric) -> None:
    shown = drawn(0).copy()
    shown[:, 40:] = 255 - shown[:, 40:]
    mask = np.zeros((64, 64), bool)
    mask[:, :30] = True  # further away than the window of SSIM reaches
    assert metric(shown, drawn(0), mask) == metric(drawn(0), drawn(0), mask)


def test_ssim_is_that_of_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    expected = structural_similarity(
        drawn(0), blurred(drawn(0)), data_range=255, channel_axis=2, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    border = np.zeros((64, 64), bool)
    border[5:-5, 5:-5] = True  # scikit-image leaves the window's half width out of its mean
    assert pixels.ssim(blurred(drawn(0)), drawn(0), border) == pytest.approx(expected)


def test_pictures_of_other_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="picture-shape"):
        pixels.l1(drawn(0), drawn(0)[:32])


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(UsageError, match="empty-mask"):
        pixels.psnr_db(drawn(1), drawn(0), np.zeros((64, 64), bool))


def test_changes_like_the_source_s_have_no_error() -> None:
    frames = np.random.default_rng(0).integers(0, 100, (4, 8, 8, 3)).astype(np.uint8)
    assert pixels.change_figures(frames + 50, frames) == {"change_error": 0.0, "change_ratio": 1.0}


def test_a_picture_that_stands_still_misses_all_changes_and_flicker_exceeds_them() -> None:
    frames = np.zeros((5, 8, 8, 3), np.uint8)
    frames[1::2] = 10
    still = pixels.change_figures(np.zeros_like(frames), frames)
    assert still == {"change_error": 10.0, "change_ratio": 0.0}
    assert pixels.change_figures(frames * 3, frames) == {"change_error": 20.0, "change_ratio": 3.0}


def test_changes_need_two_frames_and_a_ratio_a_source_that_changes() -> None:
    frames = np.full((3, 8, 8, 3), 7, np.uint8)
    assert pixels.change_figures(frames[:1], frames[:1]) == {}
    assert pixels.change_figures(frames, frames) == {"change_error": 0.0}
