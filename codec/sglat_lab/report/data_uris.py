"""Pictures and videos of the report as strings that HTML can hold: PNG and WebM in base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError
from sglat.media.pictures import encode_png

Pictures = NDArray[np.uint8]
SHEET_COLUMNS: Final = 8
GAP: Final = 2  # pixels between videos side by side
SCALE: Final = 2  # of videos
VIDEO_OPTIONS: Final = {
    "deadline": "realtime", "cpu-used": "6", "crf": "16", "row-mt": "0", "lag-in-frames": "0",
}  # fmt: skip


def strip(pictures: Pictures) -> str:
    """Return a PNG data address: eight pictures at most of `[N, R, R, 3]`, side by side."""
    count = len(pictures)
    chosen = np.unique(np.linspace(0, count - 1, min(count, SHEET_COLUMNS)).round().astype(int))
    return _address("image/png", encode_png(np.concatenate(list(pictures[chosen]), axis=1)))


def side_by_side(rows: Sequence[Pictures], rate: Fraction) -> str:
    """Return a WebM (VP9) data address: versions `[T, R, R, 3]` next to each other, enlarged.

    VP9 because every browser plays it, those without patented codecs too.

    Raises:
        MediaError: this build of PyAV cannot write VP9.
    """
    gap = np.full((*rows[0].shape[:2], GAP, 3), 255, np.uint8)
    parts: list[Pictures] = []
    for row in rows:
        parts += [np.asarray(row), gap]
    wide = np.concatenate(parts[:-1], axis=2).repeat(SCALE, 1).repeat(SCALE, 2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.webm"
        _write_webm(path, wide, rate)
        return _address("video/webm", path.read_bytes())


def _write_webm(path: Path, pictures: Pictures, rate: Fraction) -> None:
    import av

    try:
        with av.open(str(path), "w", format="webm") as container:
            stream: Any = container.add_stream("libvpx-vp9", rate=rate)
            stream.width, stream.height = pictures.shape[2], pictures.shape[1]
            stream.pix_fmt = "yuv420p"
            stream.bit_rate = 0  # constant quality
            stream.options = dict(VIDEO_OPTIONS)
            for picture in pictures:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError("no-webm", f"cannot write a video for the report: {error}") from error


def _address(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
