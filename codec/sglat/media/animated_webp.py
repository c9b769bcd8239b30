"""Frames of animated WebP, whose canvas FFmpeg does not draw.

Source: RFC 9649 (WebP), sections 2.7.1.1 (animation) and 2.5 (RIFF).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import numpy as np
from numpy.typing import NDArray

TIME_BASE: Final = Fraction(1, 1000)
FALLBACK_MILLISECONDS: Final = 100  # of frames that state no duration, as browsers show them
HAS_ANIMATION: Final = 0x02  # flags of VP8X
HAS_ALPHA: Final = 0x10
IS_CLEARED: Final = 0x01  # flags of ANMF: the frame's place is cleared after it was shown
IS_OPAQUE: Final = 0x02  # it replaces what lies below it
WHITE: Final = 255  # shows through where nothing is drawn


@dataclass(frozen=True, kw_only=True)
class WebpAnimation:
    """An animated WebP file."""

    path: Path
    width: int
    height: int
    frame_count: int
    milliseconds: int
    """Of all frames together."""

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second on average."""
        return Fraction(1000 * self.frame_count, self.milliseconds)

    def frames(self) -> Iterator[Any]:
        """Yield whole pictures as PyAV frames; frames that cannot be decoded change nothing."""
        canvas = np.full((self.height, self.width, 3), WHITE, np.uint8)
        clock = 0
        with self.path.open("rb") as file:
            for body in _animation_chunks(file):
                x, y, _, _, duration, flags = _frame_header(body)
                picture = _decode(body)
                place = canvas[2 * y :, 2 * x :]
                if picture is not None:
                    picture = picture[: place.shape[0], : place.shape[1]]
                    place = place[: picture.shape[0], : picture.shape[1]]
                    _draw(place, picture, is_opaque=bool(flags & IS_OPAQUE))
                frame = av.VideoFrame.from_ndarray(canvas, format="rgb24")
                frame.pts, frame.time_base = clock, TIME_BASE
                frame.duration = duration or FALLBACK_MILLISECONDS
                clock += frame.duration
                yield frame
                if flags & IS_CLEARED and picture is not None:
                    place[:] = WHITE


def open_animation(path: Path) -> WebpAnimation | None:
    """Return the animation in a file; None for stills and everything else."""
    try:
        with path.open("rb") as file:
            head = file.read(30)
            is_webp = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
            if not is_webp or len(head) < 30 or not head[20] & HAS_ANIMATION:
                return None
            width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
            file.seek(0)
            durations = [_frame_header(body)[4] for body in _animation_chunks(file)]
    except OSError:
        return None
    if not durations:
        return None
    total = sum(duration or FALLBACK_MILLISECONDS for duration in durations)
    return WebpAnimation(
        path=path, width=width, height=height, frame_count=len(durations), milliseconds=total
    )


def _animation_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the payloads of all complete ANMF chunks."""
    file.seek(12)
    while True:
        head = file.read(8)
        if len(head) < 8:
            return
        kind, size = struct.unpack("<4sI", head)
        if kind == b"ANMF":
            body = file.read(size)
            if len(body) < max(size, 16):
                return
            yield body
            file.seek(size & 1, 1)
        else:
            file.seek(size + (size & 1), 1)


def _frame_header(body: bytes) -> tuple[int, int, int, int, int, int]:
    """Return x / 2, y / 2, width, height, duration in milliseconds and flags."""
    x, y, width, height, duration = (
        int.from_bytes(body[at : at + 3], "little") for at in (0, 3, 6, 9, 12)
    )
    return x, y, width + 1, height + 1, duration, body[15]


def _decode(body: bytes) -> NDArray[np.uint8] | None:
    """Return one frame's own picture `[H, W, 4]` RGBA."""
    _, _, width, height, _, _ = _frame_header(body)
    data = body[16:]
    if data[:4] == b"ALPH":  # alpha beside a lossy picture needs the extended layout
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        data = struct.pack("<4sIB3x", b"VP8X", 10, HAS_ALPHA) + size + data
    still = struct.pack("<4sI4s", b"RIFF", len(data) + 4, b"WEBP") + data
    try:
        with av.open(io.BytesIO(still), mode="r", format="webp_pipe") as container:
            return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgba"))
    except (av.error.FFmpegError, StopIteration, IndexError):
        return None


def _draw(place: NDArray[np.uint8], picture: NDArray[np.uint8], *, is_opaque: bool) -> None:
    """Draw RGBA over RGB in place; what is transparent in an opaque frame becomes white."""
    alpha = picture[..., 3:].astype(np.uint16)
    below = np.uint16(WHITE) if is_opaque else place.astype(np.uint16)
    mixed = picture[..., :3] * alpha + below * (255 - alpha)
    place[:] = (mixed + 127) // 255
