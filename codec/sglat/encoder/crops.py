"""Framing by landmarks, crops, the mask of the rigid face, and the still background plate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import Picture
from sglat.decoder.placement import SIZE, crop_to_frame, transform_points
from sglat.errors import MediaError
from sglat.media.reader import Clip, VideoReader
from sglat.networks.face_points import (
    FACE_OVAL,
    LEFT_EYE,
    LEFT_EYE_AND_BROW,
    LIPS_AND_CHIN,
    MOUTH_CORNERS,
    NOSE_FOOT,
    RIGHT_EYE,
    RIGHT_EYE_AND_BROW,
)

Float64 = NDArray[np.float64]

MAX_OVERSAMPLING: Final = 8  # times the crop's side; a face of 8 x 1024 pixels is the largest

MARGIN: Final = 0.02  # of the crop: how far the excluded regions grow
PLATE_SAMPLES: Final = 15  # frames whose median is taken
EMPTY_SAMPLES: Final = 31  # the same where people are left out
GAP_FRAMES: Final = 30  # a second
UNIT_SQUARE: Final = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
PLATE_QUALITY: Final = 60  # of the WebP picture


def crop_picture(
    picture: NDArray[np.uint8], placement: NDArray[np.floating], side: int
) -> NDArray[np.uint8]:
    """Return the aligned crop `[side, side, 3]` of a frame `[H, W, 3]` RGB, mirrored beyond its
    borders.

    The placement `[4]` is centre x, centre y, size (pixels) and roll (degrees). Large faces are
    sampled finely and averaged, so that nothing aliases.
    """
    factor = int(np.clip(np.ceil(float(placement[SIZE]) / side), 1, MAX_OVERSAMPLING))
    fine = side * factor
    matrix = crop_to_frame(placement)
    pixels = matrix.copy()
    pixels[:, :2] /= fine
    pixels[:, 2] += 0.5 * pixels[:, :2].sum(axis=1) - 0.5
    crop = cv2.warpAffine(
        picture,
        pixels,
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if factor > 1:
        crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(crop)


def landmark_placement(
    points: NDArray[np.float32], *, blink: NDArray[np.bool_], steady_mouth: bool = True
) -> Float64:
    """Return FFHQ framing `[T, 4]` by landmarks `[T, 478, 2]` in pixels, with eye centres that
    ignore blinks.

    FFHQ's eye centre is the mean of six points, two of which move with the lid. Here it is the
    middle of the eye corners plus the person's median offset over the frames with open eyes. The
    mouth is likewise placed relative to the foot of the nose: with FFHQ's rule, which
    `steady_mouth=False` follows, the crop would zoom whenever a smile lifts the corners of the
    mouth. Frames of a blink, `[T]`, are left out of the medians.
    """
    points64 = points.astype(np.float64)
    left = _open_eye_centre(points64[:, LEFT_EYE], blink)  # lies right in the picture
    right = _open_eye_centre(points64[:, RIGHT_EYE], blink)
    middle = (left + right) / 2
    down = points64[:, MOUTH_CORNERS].mean(axis=1) - middle
    if steady_mouth:
        down = _usual(down, points64[:, NOSE_FOOT].mean(axis=1) - middle, blink)
    return ffhq_placement(middle, left - right, down)


def ffhq_placement(middle: Float64, across: Float64, down: Float64) -> Float64:
    """Return where the FFHQ crops of faces lie, `[T, 4]`; the roll is continuous over time.

    Vectors `[T, 2]` in pixels: the middle of the two eye centres, across from the eye on the
    picture's left to the one on its right, and down from the middle of the eyes to that of the
    mouth corners.

    Source: ffhq-dataset, download_ffhq.py, recreate_aligned_images.
    """
    x_axis = across + np.stack([down[:, 1], -down[:, 0]], axis=1)  # the mouth steadies the roll
    length = np.maximum(2.0 * _length(across), 1.8 * _length(down))
    roll = np.rad2deg(np.unwrap(np.arctan2(x_axis[:, 1], x_axis[:, 0])))
    return np.column_stack([middle + 0.1 * down, 2.0 * length, roll])


def inside_mask(
    placement: NDArray[np.floating], size: tuple[int, int], side: int
) -> NDArray[np.bool_]:
    """Return which pixels of a crop lie within a frame of a size (width, height),
    `[side, side]`."""
    axis = (np.arange(side) + 0.5) / side
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    points = transform_points(crop_to_frame(np.asarray(placement, np.float64)), grid)
    inside = ((points >= 0) & (points <= np.array(size))).all(axis=1)
    return np.asarray(inside.reshape(side, side))


def rigid_face_mask(points: NDArray[np.floating], side: int) -> NDArray[np.bool_]:
    """Return the face without brows, eyes, mouth and chin, `[side, side]`, by landmarks `[478, 2]`
    in unit crop coordinates."""
    pixels = np.asarray(points, dtype=np.float64) * side - 0.5
    mask = np.zeros((side, side), np.uint8)
    cv2.fillConvexPoly(mask, _hull(pixels, FACE_OVAL), 1)
    moving = np.zeros_like(mask)
    for contour in (LEFT_EYE_AND_BROW, RIGHT_EYE_AND_BROW, LIPS_AND_CHIN):
        cv2.fillConvexPoly(moving, _hull(pixels, contour), 1)
    reach = max(1, round(MARGIN * side))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    inside = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray((inside > 0) & (cv2.dilate(moving, kernel) == 0))


def _hull(pixels: NDArray[np.float64], contour: tuple[int, ...]) -> NDArray[np.int32]:
    hull = cv2.convexHull(np.round(pixels[list(contour)]).astype(np.int32))
    return np.asarray(hull, dtype=np.int32)


def find_plate(source: Path | Clip, placement: NDArray[np.float64]) -> Picture:
    """Return the median of frames spread over the video as a small WebP picture; the placement `[T,
    4]` gives the number of frames.

    Raises:
        MediaError: the picture cannot be encoded.
    """
    wanted = set(np.linspace(0, len(placement) - 1, PLATE_SAMPLES).astype(int).tolist())
    frames = []
    with VideoReader(source) as reader:
        frames = [frame.picture for frame in reader if frame.index in wanted]
    return _webp(np.median(np.stack(frames), axis=0).astype(np.uint8), source)


def _webp(plate: NDArray[np.uint8], source: Path | Clip) -> Picture:
    done, data = cv2.imencode(
        ".webp", cv2.cvtColor(plate, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, PLATE_QUALITY]
    )
    if not done:
        raise MediaError("plate-failed", f"the plate of {source} cannot be encoded as WebP")
    return Picture(media_type="image/webp", data=data.tobytes())


def find_empty_plate(
    source: Path | Clip, faces: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]]
) -> Picture:
    """Return the background without people: the median of each pixel over the frames in which no
    crop lies on it, and over all frames where one always does.

    Args:
        source: the video.
        faces: placement `[T, 4]` of each person's crops, and which frames do not have them, `[T]`;
            in gaps of up to `GAP_FRAMES` the person is taken for covered, on the straight way.

    Raises:
        MediaError: the picture cannot be encoded.
    """
    count = len(faces[0][0])
    wanted = set(np.linspace(0, count - 1, min(count, EMPTY_SAMPLES)).astype(int).tolist())
    faces = [_with_gaps(placement, is_held) for placement, is_held in faces]
    frames, covers = [], []
    with VideoReader(source) as reader:
        for frame in reader:
            if frame.index not in wanted:
                continue
            cover = np.zeros(frame.picture.shape[:2], np.uint8)
            for placement, is_held in faces:
                if not is_held[frame.index]:
                    corners = transform_points(crop_to_frame(placement[frame.index]), UNIT_SQUARE)
                    cv2.fillConvexPoly(cover, np.round(corners).astype(np.int32), 1)
            frames.append(frame.picture)
            covers.append(cover > 0)
    return _webp(_median_outside(np.stack(frames), np.stack(covers)), source)


def _with_gaps(
    placement: NDArray[np.float64], is_held: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return placements `[T, 4]` and where there are none, with short gaps filled in."""
    shown, rows = np.flatnonzero(~is_held), np.arange(len(is_held))
    filled = np.stack([np.interp(rows, shown, values[shown]) for values in placement.T], axis=1)
    held = is_held.copy()
    for first, last in pairwise(shown.tolist()):
        if last - first <= GAP_FRAMES:
            held[first:last] = False
    return filled, held


def _median_outside(frames: NDArray[np.uint8], covers: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the median `[H, W, 3]` of frames `[N, H, W, 3]` where they are not covered,
    `[N, H, W]`; of all frames where all are."""
    covers &= ~covers.all(axis=0)
    plate = np.empty(frames.shape[1:], np.uint8)
    for row in range(frames.shape[1]):  # a row at a time bounds memory
        values = np.where(covers[:, row, :, None], np.nan, frames[:, row].astype(np.float32))
        plate[row] = np.nanmedian(values, axis=0).astype(np.uint8)
    return plate


def _open_eye_centre(eye: Float64, blink: NDArray[np.bool_]) -> Float64:
    """Return eye centres `[T, 2]` from six points `[T, 6, 2]` in the order of `LEFT_EYE`."""
    corners = (eye[:, 0] + eye[:, 3]) / 2
    centre: Float64 = corners + _usual(eye.mean(axis=1) - corners, eye[:, 3] - eye[:, 0], blink)
    return centre


def _usual(vectors: Float64, along: Float64, ignored: NDArray[np.bool_]) -> Float64:
    """Return the median of vectors `[T, 2]` in the frames of reference whose x axes are `along`,
    `[T, 2]`, turned and scaled with these; ignored frames `[T]` do not count."""
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    scale = np.square(along).sum(axis=1)
    coordinates = np.column_stack(
        [(vectors * along).sum(axis=1) / scale, (vectors * across).sum(axis=1) / scale]
    )
    usual = np.median(coordinates if ignored.all() else coordinates[~ignored], axis=0)
    return np.asarray(usual[0] * along + usual[1] * across)


def _length(vectors: Float64) -> Float64:
    lengths: Float64 = np.hypot(vectors[:, 0], vectors[:, 1])
    return lengths
