"""Temporal smoothing of landmarks: small changes are mostly noise, large ones are motion."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.networks.face_points import LEFT_EYE, RIGHT_EYE
from sglat.networks.faces import FaceLandmarks

# From these changes on a new value is kept unsmoothed. Points: share of the inter-ocular distance.
POINT_MOTION: Final = 0.09
POSE_MOTION_DEGREES: Final = 3.0
OPENNESS_MOTION: Final = 0.06
BLENDSHAPE_MOTION: Final = 0.15
STILL_SHARE: Final = 0.2  # share of a new value where nothing moves
SHARPNESS: Final = 1.5


def smoothed(found: FaceLandmarks, previous: FaceLandmarks) -> FaceLandmarks:
    """Return landmarks drawn towards the previous frame's where the two hardly differ."""
    left = found.points[list(LEFT_EYE)].mean(0)
    right = found.points[list(RIGHT_EYE)].mean(0)
    between = max(float(np.linalg.norm(left - right)), 1e-6)
    moved = np.linalg.norm(found.points - previous.points, axis=1, keepdims=True) / between
    share = followed_share(moved, POINT_MOTION)
    points = previous.points + share * (found.points - previous.points)
    pose = _followed(_pose(found), _pose(previous), POSE_MOTION_DEGREES)
    eyes = _followed(np.array(found.eye_openness), np.array(previous.eye_openness), OPENNESS_MOTION)
    blendshapes = _followed(found.blendshapes, previous.blendshapes, BLENDSHAPE_MOTION)
    return replace(
        found,
        points=points.astype(np.float32),
        yaw_degrees=float(pose[0]),
        pitch_degrees=float(pose[1]),
        roll_degrees=float(pose[2]),
        eye_openness=(float(eyes[0]), float(eyes[1])),
        blendshapes=blendshapes.astype(np.float32),
    )


def followed_share(change: NDArray[np.floating], full_motion: float) -> NDArray[np.floating]:
    """Return the applied share of a change: `STILL_SHARE` for none, all from `full_motion` on."""
    moving = np.minimum(np.abs(change) / full_motion, 1) ** SHARPNESS
    return np.asarray(STILL_SHARE + (1 - STILL_SHARE) * moving)


def _followed(
    new: NDArray[np.floating], old: NDArray[np.floating], full_motion: float
) -> NDArray[np.floating]:
    change = new - old
    return np.asarray(old + followed_share(change, full_motion) * change)


def _pose(record: FaceLandmarks) -> NDArray[np.floating]:
    return np.array((record.yaw_degrees, record.pitch_degrees, record.roll_degrees))
