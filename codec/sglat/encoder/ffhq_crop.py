"""The FFHQ crop: from landmarks to the square that StyleGAN2 was trained on.

Source: Karras et al. 2018, https://arxiv.org/abs/1710.10196, appendix C, in the form that e4e uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sglat.errors import FaceError

# dlib's 68 landmarks; left and right as seen by the viewer
LEFT_EYE: Final = slice(36, 42)
RIGHT_EYE: Final = slice(42, 48)
MOUTH_CORNERS: Final = (48, 54)

_EYE_REACH: Final = 2.0  # half side of the crop in eye distances
_MOUTH_REACH: Final = 1.8  # half side in distances from eyes to mouth
_MOUTH_SHIFT: Final = 0.1  # centre, from between the eyes towards the mouth
_BORDER: Final = 0.1  # kept around the quad, in sides
_PADDING: Final = 0.3  # invented where the picture ends, in sides
_BLUR: Final = 0.02  # standard deviation in the padding, in sides


@dataclass(frozen=True, kw_only=True)
class FaceCrop:
    """An aligned crop and how it was cut."""

    picture: NDArray[np.uint8]
    """`[S, S, 3]` RGB."""
    quad: NDArray[np.float64]
    """`[4, 2]` corners in pixels of the whole picture: top left, bottom left, bottom right, top
    right."""
    source_quad: NDArray[np.float64]
    """The same corners in the shrunk, cut and padded picture that was resampled."""
    source_size: tuple[int, int]
    """Width and height of that picture in pixels."""


def landmark_quad(landmarks: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the crop's corners `[4, 2]` from dlib's 68 landmarks `[68, 2]`, x and y in pixels."""
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2):
        raise FaceError("bad-shape", f"expected landmarks [68, 2], got {list(points.shape)}")
    return crop_quad(
        left_eye=points[LEFT_EYE].mean(axis=0),
        right_eye=points[RIGHT_EYE].mean(axis=0),
        mouth=points[list(MOUTH_CORNERS)].mean(axis=0),
    )


def crop_quad(
    *,
    left_eye: NDArray[np.float64],
    right_eye: NDArray[np.float64],
    mouth: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the crop's corners `[4, 2]`: top left, bottom left, bottom right, top right.

    Args:
        left_eye: centre, x and y in pixels; left as seen by the viewer.
        right_eye: centre of the other.
        mouth: middle of the two mouth corners.

    Raises:
        FaceError: the three points coincide.
    """
    eyes = (left_eye + right_eye) / 2
    along, down = right_eye - left_eye, mouth - eyes
    across = along - _quarter_turn(down)  # the mouth steadies the direction of the eye line
    length = float(np.hypot(*across))
    if not length > 0:
        raise FaceError("degenerate-landmarks", "expected eyes and mouth apart, found one point")
    half = max(float(np.hypot(*along)) * _EYE_REACH, float(np.hypot(*down)) * _MOUTH_REACH)
    x = across / length * half
    y = _quarter_turn(x)
    centre = eyes + _MOUTH_SHIFT * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def crop_face(picture: NDArray[np.uint8], quad: NDArray[np.float64], *, size: int) -> FaceCrop:
    """Cut a crop out of a picture, inventing a soft border where the picture ends.

    Args:
        picture: `[H, W, 3]` RGB.
        quad: corners `[4, 2]` in pixels, as `crop_quad` returns them.
        size: side S of the crop in pixels.
    """
    whole_quad = np.asarray(quad, dtype=np.float64)
    image, moved = _shrink(picture, whole_quad, size)
    image, moved = _cut(image, moved)
    image, moved = _pad(image, moved)
    moved = moved + 0.5  # corners of pixels to centres
    source = Image.fromarray(image)
    crop = source.transform(
        (size, size), Image.Transform.QUAD, tuple(moved.flatten()), Image.Resampling.BILINEAR
    )
    return FaceCrop(
        picture=np.asarray(crop), quad=whole_quad, source_quad=moved, source_size=source.size
    )


def _quarter_turn(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn a vector by 90 degrees, x to y."""
    return np.array([-vector[1], vector[0]])


def _side(quad: NDArray[np.float64]) -> float:
    return float(np.hypot(*(quad[3] - quad[0])))


def _shrink(
    picture: NDArray[np.uint8], quad: NDArray[np.float64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Shrink large pictures first; the bilinear resampling alone would skip pixels."""
    factor = math.floor(_side(quad) / size / 2)
    if factor <= 1:
        return picture, quad
    height, width = picture.shape[:2]
    smaller = (round(width / factor), round(height / factor))
    image = Image.fromarray(picture).resize(smaller, Image.Resampling.LANCZOS)
    return np.asarray(image), quad / factor


def _box(quad: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the whole pixels around the corners."""
    left, top = np.floor(quad.min(axis=0)).astype(int)
    right, bottom = np.ceil(quad.max(axis=0)).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _border(quad: NDArray[np.float64]) -> int:
    return max(round(_side(quad) * _BORDER), 3)


def _cut(
    picture: NDArray[np.uint8], quad: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Cut away what lies far from the crop."""
    border = _border(quad)
    height, width = picture.shape[:2]
    left, top, right, bottom = _box(quad)
    left, top = max(left - border, 0), max(top - border, 0)
    right, bottom = min(right + border, width), min(bottom + border, height)
    if right <= left or bottom <= top:
        raise FaceError("outside", f"the crop lies outside the {width}x{height} picture")
    return picture[top:bottom, left:right], quad - np.array([left, top])


def _pad(
    picture: NDArray[np.uint8], quad: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Mirror the picture beyond its ends, blurred and faded to its median the farther out."""
    border = _border(quad)
    height, width = picture.shape[:2]
    left, top, right, bottom = _box(quad)
    missing = (border - left, border - top, right - width + border, bottom - height + border)
    if max(missing) <= border - 4:
        return picture, quad
    side = _side(quad)
    before_x, before_y, after_x, after_y = (max(m, round(side * _PADDING)) for m in missing)
    pad = ((before_y, after_y), (before_x, after_x), (0, 0))
    image = np.pad(picture.astype(np.float32), pad, mode="reflect")
    rows = _distance_outside(image.shape[0], before_y, after_y)[:, None, None]
    columns = _distance_outside(image.shape[1], before_x, after_x)[None, :, None]
    outside = np.maximum(rows, columns)
    image += (_gaussian_blur(image, side * _BLUR) - image) * np.clip(outside * 3 + 1, 0, 1)
    image += (np.median(image, axis=(0, 1)) - image) * np.clip(outside, 0, 1)
    faded = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return faded, quad + np.array([before_x, before_y])


def _distance_outside(length: int, before: int, after: int) -> NDArray[np.float32]:
    """Return 1 at both ends of an axis, 0 where the picture begins, negative inside."""
    position = np.arange(length, dtype=np.float32)
    inward = np.minimum(position / before, (length - 1 - position) / after)
    return (1 - inward).astype(np.float32)


def _gaussian_blur(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    radius = int(4 * sigma + 0.5)
    kernel = 2 * radius + 1
    if radius == 0:
        return image
    blurred = cv2.GaussianBlur(
        image, (kernel, kernel), sigmaX=sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT
    )
    return np.asarray(blurred, dtype=np.float32)
