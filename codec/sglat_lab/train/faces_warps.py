"""Faces pulled about at mouth, brows, jaw and irises: expressions the labelled pictures lack."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.networks.face_points import IRISES, MOUTH_CORNERS, NOSE_TIP, OUTER_LIPS
from sglat_lab.train.faces_augment import Picture

Points = NDArray[np.float32]
# Where a face is pulled, in points of the 478, and how wide and how far in shares of the
# inter-ocular distance: a bump's deviation and the deviation of its length across and down.
PLACES: tuple[tuple[int, float, float, float], ...] = (
    (61, 0.22, 0.08, 0.07),  # the corner of the mouth on the right of the face
    (291, 0.22, 0.08, 0.07),  # and on its left
    (0, 0.25, 0.07, 0.03),  # upper lip
    (17, 0.25, 0.07, 0.06),  # lower lip
    (105, 0.22, 0.03, 0.06),  # right brow
    (334, 0.22, 0.03, 0.06),  # left brow
    (152, 0.45, 0.08, 0.08),  # chin
    (205, 0.3, 0.04, 0.05),  # right cheek
    (425, 0.3, 0.04, 0.05),  # left cheek
)
MOUTH = (*MOUTH_CORNERS, *OUTER_LIPS)
IRIS_WIDTH, IRIS_REACH = 0.1, 0.06  # the same measures for a shift of an iris between the lids


def pulled(
    picture: Picture, points: Points, unit: float, generator: np.random.Generator
) -> tuple[Picture, Points]:
    """Return a face with some places pulled aside, and its points moved along.

    Args:
        picture: `[S, S, 3]`.
        points: `[478, 2]` in pixels of the picture.
        unit: the inter-ocular distance in pixels.
        generator: draws places and lengths; the two sides of a face are drawn apart.
    """
    bumps = _bumps(points, unit, generator)
    size = picture.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    grid = np.stack([x, y], -1).reshape(-1, 2)
    source = (grid + _field(grid, bumps)).reshape(size, size, 2)
    warped = cv2.remap(
        picture, np.ascontiguousarray(source[..., 0]), np.ascontiguousarray(source[..., 1]),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    moved = points
    for _ in range(6):  # where the field leads back to the point
        moved = points - _field(moved, bumps)
    return np.asarray(warped, np.uint8), moved


def _bumps(points: Points, unit: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return bumps `[B, 5]`: centre, deviation, length across and down, all in pixels."""
    bumps = []
    if generator.random() < 0.5:  # the whole mouth to one side
        middle = points[list(MOUTH)].mean(0)
        bumps.append((*middle, 0.4 * unit, *(unit * generator.normal(0, (0.09, 0.03)))))
    for place, width, across, down in PLACES:
        if generator.random() < 0.4:
            length = unit * generator.normal(0, (across, down))
            bumps.append((*points[place], unit * width * generator.uniform(0.8, 1.3), *length))
    if generator.random() < 0.5:
        length = unit * generator.normal(0, (IRIS_REACH, 0.3 * IRIS_REACH))
        crossed = generator.random() < 0.3
        for index, iris in enumerate(IRISES):
            sign = -1 if crossed and index else 1
            bumps.append((*points[iris], unit * IRIS_WIDTH, sign * length[0], length[1]))
    bumps.append((*points[NOSE_TIP], unit, 0.0, 0.0))  # never none
    array = np.asarray(bumps, np.float32)
    reach = np.linalg.norm(array[:, 3:], axis=1, keepdims=True)
    array[:, 3:] *= np.minimum(1, 0.9 * array[:, 2:3] / np.maximum(reach, 1e-6))  # no folds
    return array


def _field(places: Points, bumps: NDArray[np.float32]) -> Points:
    """Return where in the unpulled picture `places` `[N, 2]` come from, as offsets `[N, 2]`."""
    field = np.zeros_like(places)
    for x, y, width, across, down in bumps:
        squared = (places[:, 0] - x) ** 2 + (places[:, 1] - y) ** 2
        height = np.exp(-squared / (2 * width * width))
        field[:, 0] -= across * height
        field[:, 1] -= down * height
    return field
