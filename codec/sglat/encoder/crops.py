"""Crops of full frames, the mask of the rigid face, and the still background plate."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import Picture
from sglat.decoder.placement import SIZE, crop_to_frame
from sglat.errors import MediaError
from sglat.media.reader import Clip, VideoReader
from sglat.networks.face_points import (
    FACE_OVAL,
    LEFT_EYE_AND_BROW,
    LIPS_AND_CHIN,
    RIGHT_EYE_AND_BROW,
)

MAX_OVERSAMPLING: Final = 8  # times the crop's side; a face of 8 x 1024 pixels is the largest

MARGIN: Final = 0.02  # of the crop: how far the excluded regions grow
PLATE_SAMPLES: Final = 15  # frames whose median is taken
PLATE_QUALITY: Final = 60  # of the WebP picture


def crop_picture(
    picture: NDArray[np.uint8], placement: NDArray[np.floating], side: int
) -> NDArray[np.uint8]:
    """Return the aligned crop of a frame.

    Args:
        picture: `[H, W, 3]` RGB.
        placement: centre x, centre y, size (pixels), roll (degrees), `[4]`.
        side: of the crop in pixels.

    Returns:
        `[side, side, 3]`; the frame is mirrored beyond its borders. Large faces are sampled finely
        and averaged, so that nothing aliases.
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


def rigid_face_mask(points: NDArray[np.floating], side: int) -> NDArray[np.bool_]:
    """Return the face without brows, eyes, mouth and chin, `[side, side]`.

    Args:
        points: `[478, 2]` landmarks in unit crop coordinates.
        side: of the mask in pixels.
    """
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
    """Return the median of frames spread over the video as a small WebP picture.

    Args:
        source: the video.
        placement: one row a frame, `[T, 4]`; gives the number of frames.

    Raises:
        MediaError: the picture cannot be encoded.
    """
    wanted = set(np.linspace(0, len(placement) - 1, PLATE_SAMPLES).astype(int).tolist())
    frames = []
    with VideoReader(source) as reader:
        frames = [frame.picture for frame in reader if frame.index in wanted]
    plate = np.median(np.stack(frames), axis=0).astype(np.uint8)
    done, data = cv2.imencode(
        ".webp", cv2.cvtColor(plate, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, PLATE_QUALITY]
    )
    if not done:
        raise MediaError("plate-failed", f"the plate of {source} cannot be encoded as WebP")
    return Picture(media_type="image/webp", data=data.tobytes())
