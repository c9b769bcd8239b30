"""A still background plate: what stands behind the person most of the time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import Picture
from sglat.errors import MediaError
from sglat.media.reader import VideoReader

_SAMPLES: Final = 15  # frames whose median is taken
_QUALITY: Final = 60  # of the WebP picture


def find_plate(source: Path, placement: NDArray[np.float64]) -> Picture:
    """Return the median of frames spread over the video as a small WebP picture.

    Args:
        source: the video.
        placement: one row a frame, `[T, 4]`; tells the number of frames.

    Raises:
        MediaError: the picture cannot be encoded.
    """
    wanted = set(np.linspace(0, len(placement) - 1, _SAMPLES).astype(int).tolist())
    frames = []
    with VideoReader(source) as reader:
        frames = [frame.picture for frame in reader if frame.index in wanted]
    plate = np.median(np.stack(frames), axis=0).astype(np.uint8)
    done, data = cv2.imencode(
        ".webp", cv2.cvtColor(plate, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
    )
    if not done:
        raise MediaError("plate-failed", f"the plate of {source} cannot be encoded as WebP")
    return Picture(media_type="image/webp", data=data.tobytes())
