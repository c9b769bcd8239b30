"""Contact sheets as files; pictures and videos as strings that HTML can hold."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError
from sglat.media.pictures import encode_png
from sglat_lab.measure.face_signals import eye_opening, gaze, mouth_opening
from sglat_lab.measure.landmarks import Signals

Pictures = NDArray[np.uint8]
SHEET_COLUMNS: Final = 8
EVEN_FRAMES: Final = 4  # evenly spread ones beside the extremes
HEADER: Final = 16  # pixels above a column, for its name
GAP: Final = 2  # pixels between videos side by side
SCALE: Final = 2  # of videos
JPEG_QUALITY: Final = 82
VIDEO_OPTIONS: Final = {
    "deadline": "realtime", "cpu-used": "6", "crf": "16", "row-mt": "0", "lag-in-frames": "0",
}  # fmt: skip


def contact_sheet(rows: Sequence[Sequence[Pictures] | Pictures]) -> Pictures:
    """Return rows of pictures `[H, W, 3]` of one size as one picture."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def write_sheet(
    path: Path, rows: Sequence[Sequence[Pictures] | Pictures], names: Sequence[str] = ()
) -> None:
    """Write rows of pictures as a PNG or JPEG, with a name above each column if there are any."""
    sheet = contact_sheet(rows)
    if names:
        side = sheet.shape[1] // len(names)
        head = np.full((HEADER, sheet.shape[1], 3), 255, np.uint8)
        for column, name in enumerate(names):
            place = (column * side + 2, HEADER - 4)
            cv2.putText(
                head, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA
            )
        sheet = np.concatenate([head, sheet], axis=0)
    if path.suffix == ".jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        if not cv2.imwrite(str(path), sheet[:, :, ::-1], options):
            raise OSError(f"cannot write {path}")
    else:
        path.write_bytes(encode_png(np.ascontiguousarray(sheet)))


def telling_frames(signals: Signals) -> list[tuple[str, int]]:
    """Return names and numbers of frames at the extremes of the source's motion, and even ones.

    Args:
        signals: of the source.
    """
    found = np.flatnonzero(signals.is_found)
    seen = signals.cut(found)
    tracks: dict[str, NDArray[np.floating]] = {
        "eyes shut": -eye_opening(seen.points),
        "eyes wide": eye_opening(seen.points),
        "mouth open": mouth_opening(seen.points),
        "yaw +": seen.pose[:, 0],
        "yaw -": -seen.pose[:, 0],
        "pitch +": seen.pose[:, 1],
        "gaze +": gaze(seen.points)[:, 0],
        "gaze -": -gaze(seen.points)[:, 0],
    }
    even = np.linspace(0, len(found) - 1, EVEN_FRAMES).astype(int)
    chosen = [(f"frame {found[i]}", int(found[i])) for i in even]
    return chosen + [(name, int(found[np.argmax(values)])) for name, values in tracks.items()]


def strip(pictures: Pictures) -> str:
    """Return a PNG data address: eight pictures at most of `[N, R, R, 3]`, side by side."""
    count = len(pictures)
    chosen = np.unique(np.linspace(0, count - 1, min(count, SHEET_COLUMNS)).round().astype(int))
    return _address("image/png", encode_png(contact_sheet([pictures[chosen]])))


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
