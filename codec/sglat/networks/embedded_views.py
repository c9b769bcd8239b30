"""Squares and letterboxes cut out of pictures for the embedded face networks, and landmarks
smoothed over time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sglat.errors import FaceError
from sglat.networks.face_points import LEFT_EYE, RIGHT_EYE
from sglat.networks.faces import FaceBox, FaceLandmarks
from sglat.networks.pixels import from_levels

CROP_SCALE: Final = 1.4  # crop side over the larger side of the landmark box, as in training
# From these changes on a new value is kept unsmoothed. Points: share of the inter-ocular distance.
POINT_MOTION: Final = 0.09
POSE_MOTION_DEGREES: Final = 3.0
OPENNESS_MOTION: Final = 0.06
BLENDSHAPE_MOTION: Final = 0.15
STILL_SHARE: Final = 0.2  # share of a new value where nothing moves
SHARPNESS: Final = 1.5


@dataclass(frozen=True, kw_only=True)
class View:
    """A square in a picture, possibly turned."""

    x: float
    """Centre in pixels of the picture; the corner of the top left pixel is (0, 0)."""
    y: float
    side: float
    """Pixels of the picture."""
    roll_degrees: float
    """How far the square is turned counter-clockwise, as seen by the viewer."""


def checked_picture(picture: Any) -> NDArray[np.uint8]:
    """Return a picture as uint8 RGB `[H, W, 3]`: grey is tripled, alpha is dropped."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        found = picture.dtype if isinstance(picture, np.ndarray) else type(picture).__name__
        raise FaceError("bad-picture", f"expected a uint8 array, found {found}")
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or 0 in picture.shape:
        raise FaceError(
            "bad-picture",
            f"expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], found {list(picture.shape)}",
        )
    if picture.shape[2] == 1:
        picture = np.repeat(picture, 3, axis=2)
    return np.asarray(picture[..., :3], np.uint8)


def view_of_box(box: FaceBox) -> View:
    """Return the upright square around a detected face."""
    sides = (box.left, box.top, box.right, box.bottom)
    if not all(map(math.isfinite, sides)) or box.right <= box.left or box.bottom <= box.top:
        raise FaceError("bad-box", f"expected left < right and top < bottom, found {sides}")
    return View(
        x=(box.left + box.right) / 2,
        y=(box.top + box.bottom) / 2,
        side=CROP_SCALE * max(box.right - box.left, box.bottom - box.top),
        roll_degrees=0.0,
    )


def view_of_points(points: NDArray[np.float32]) -> View:
    """Return the square around landmarks `[478, 2]`, turned so that the eyes lie level."""
    left, right = points[list(LEFT_EYE)].mean(0), points[list(RIGHT_EYE)].mean(0)
    angle = math.atan2(float(right[1] - left[1]), float(left[0] - right[0]))  # y points down
    cosine, sine = math.cos(angle), math.sin(angle)
    level = np.array(((cosine, -sine), (sine, cosine)))  # turns the picture clockwise by the angle
    turned = points @ level.T
    low, high = turned.min(0), turned.max(0)
    centre = level.T @ ((low + high) / 2)
    return View(
        x=float(centre[0]),
        y=float(centre[1]),
        side=max(CROP_SCALE * float((high - low).max()), 1.0),
        roll_degrees=math.degrees(angle),
    )


def to_picture(points: NDArray[np.float32], view: View) -> NDArray[np.float32]:
    """Map points in units of a view (0 to 1) to pixels of the picture."""
    angle = math.radians(view.roll_degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array(((cosine, sine), (-sine, cosine)))
    placed = view.side * (points - 0.5) @ turn.T + (view.x, view.y)
    return np.asarray(placed, np.float32)


def cut_view(picture: NDArray[np.uint8], view: View, size: int) -> Tensor:
    """Return a view as `[1, 3, size, size]` in [-1, 1]; beyond the picture its edge goes on."""
    height, width = picture.shape[:2]
    reach = view.side * 0.75  # half a diagonal and a little
    left = min(max(0, math.floor(view.x - reach)), width - 1)
    top = min(max(0, math.floor(view.y - reach)), height - 1)
    right = max(min(width, math.ceil(view.x + reach)), left + 1)
    bottom = max(min(height, math.ceil(view.y + reach)), top + 1)
    region = torch.from_numpy(picture[top:bottom, left:right].copy()).permute(2, 0, 1)[None]
    shrink = view.side / size
    if shrink > 1.3:  # average pixels away before sampling, or fine detail would alias
        wanted = (max(1, round((bottom - top) / shrink)), max(1, round((right - left) / shrink)))
        region = functional.interpolate(
            region, wanted, mode="bilinear", antialias=True, align_corners=False
        )
    region = from_levels(region)
    axis = (torch.arange(size, dtype=torch.float32) + 0.5) / size - 0.5
    angle = math.radians(view.roll_degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    x = view.x + view.side * (cosine * axis[None, :] + sine * axis[:, None])
    y = view.y + view.side * (-sine * axis[None, :] + cosine * axis[:, None])
    grid = torch.stack(
        (2 * (x - left) / (right - left) - 1, 2 * (y - top) / (bottom - top) - 1), dim=-1
    )
    return functional.grid_sample(
        region, grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )


def letterbox(picture: NDArray[np.uint8], longest: int, align: int) -> tuple[Tensor, float]:
    """Return a picture shrunk or enlarged to a longest side, padded right and below to a multiple,
    `[1, 3, H, W]` in [-1, 1], and the scale from picture pixels to its pixels."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    wanted = (max(1, round(height * scale)), max(1, round(width * scale)))
    tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
    small = functional.interpolate(
        tensor, wanted, mode="bilinear", antialias=scale < 1, align_corners=False
    )
    pad = (0, -wanted[1] % align, 0, -wanted[0] % align)
    return functional.pad(from_levels(small), pad), scale


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
