"""Where an aligned crop sits in the full frame: four numbers and the map between the two.

Coordinates are continuous with the origin at the outer corner of the first pixel, so the centre of
pixel i is at i + 0.5. x points right, y down.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

CENTRE_X: Final = 0
CENTRE_Y: Final = 1
SIZE: Final = 2
ROLL: Final = 3


def crop_to_frame(placement: NDArray[np.floating]) -> Float64:
    """Return the maps from the unit crop to the full frame.

    Args:
        placement: centre x, centre y, size (pixels) and roll (degrees), `[..., 4]`. The roll is the
            angle of the crop's upper edge, positive when it falls towards the right: a head
            tilted clockwise as seen by the viewer.

    Returns:
        Affine matrices `[..., 2, 3]` that take (u, v) in [0, 1]² to pixels.
    """
    values = np.asarray(placement, dtype=np.float64)
    angle = np.deg2rad(values[..., ROLL])
    cosine, sine = values[..., SIZE] * np.cos(angle), values[..., SIZE] * np.sin(angle)
    matrix = np.empty((*values.shape[:-1], 2, 3))
    matrix[..., 0, 0], matrix[..., 0, 1] = cosine, -sine
    matrix[..., 1, 0], matrix[..., 1, 1] = sine, cosine
    matrix[..., 0, 2] = values[..., CENTRE_X] - (cosine - sine) / 2
    matrix[..., 1, 2] = values[..., CENTRE_Y] - (sine + cosine) / 2
    return matrix


def frame_to_crop(placement: NDArray[np.floating]) -> Float64:
    """Return the inverse maps `[..., 2, 3]`: pixels of the full frame to (u, v) in [0, 1]²."""
    forward = crop_to_frame(placement)
    linear = np.linalg.inv(forward[..., :2])
    return np.concatenate([linear, -linear @ forward[..., 2:]], axis=-1)


def placement_from_matrix(matrix: NDArray[np.floating]) -> Float64:
    """Return the placement `[..., 4]` of the similarity nearest to maps `[..., 2, 3]`.

    Shear and unequal scales are dropped: of the linear part only divergence and curl are kept.
    """
    values = np.asarray(matrix, dtype=np.float64)
    cosine = (values[..., 0, 0] + values[..., 1, 1]) / 2
    sine = (values[..., 1, 0] - values[..., 0, 1]) / 2
    centre = values[..., 2] + values[..., :2].sum(axis=-1) / 2
    size = np.hypot(cosine, sine)
    return np.stack(
        [centre[..., 0], centre[..., 1], size, np.rad2deg(np.arctan2(sine, cosine))], axis=-1
    )


def transform_points(matrix: Float64, points: NDArray[np.floating]) -> Float64:
    """Apply maps `[..., 2, 3]` to points `[..., N, 2]`."""
    linear = np.swapaxes(matrix[..., :2], -1, -2)
    moved: Float64 = points @ linear + matrix[..., None, :, 2]
    return moved
