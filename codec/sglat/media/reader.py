"""Video in: upright uint8 RGB pictures with exact time stamps, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import av
import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError
from sglat.files import check_input

FALLBACK_RATE: Final = Fraction(25)  # for raw streams that carry neither time stamps nor a rate
# swscale flags bicubic, full chroma in and out, accurate rounding: the default conversion darkens
# every channel by a level, each way.
EXACT_CONVERSION: Final = 0x4 | 0x2000 | 0x4000 | 0x40000
MAX_SIDE: Final = 1 << 14  # 16384 pixels: 8K video with room; bounds the memory of one frame
MAX_DAMAGED_PACKETS: Final = 1000  # streams with more are refused


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video before its first frame is decoded."""

    width: int
    """Pixels after rotation, with square pixels."""
    height: int
    time_base: Fraction
    """Seconds per unit of the time stamps."""
    frame_rate: Fraction
    """Frames per second on average; a guess for variable rates."""
    frame_count: int
    """As the container states it; 0 when it does not."""
    duration_seconds: float
    """As the container states it; 0.0 when it does not."""
    codec: str


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One decoded video frame."""

    index: int
    """Counts from 0."""
    pts: int
    """Presentation time in units of the reader's time base; strictly increasing."""
    picture: NDArray[np.uint8]
    """`[H, W, 3]` RGB, upright."""


def open_container(path: Path) -> Any:
    """Open a media file for reading.

    Raises:
        UsageError: no such file.
        MediaError: empty, or no media file.
    """
    check_input(path)
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError("media-empty", f"expected a video file, {path} has zero bytes")
    try:
        return av.open(str(path), mode="r", metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError("media-unreadable", f"cannot read {path} as video: {reason}") from error


def display_orientation(matrix: NDArray[np.int32] | None) -> tuple[bool, bool, bool]:
    """Return (transpose, flip rows, flip columns) that make a stored picture upright.

    Args:
        matrix: the nine 16.16 numbers of a display matrix, or None.

    Only quarter turns and mirrors are honoured; other angles are left alone, as players do.
    Source: ISO/IEC 14496-12, track header matrix; the matrix maps (x, y) to (ax + cy, bx + dy).
    """
    if matrix is None:
        return False, False, False
    a, b, c, d = (int(np.sign(matrix[i])) for i in (0, 1, 3, 4))
    if abs(int(matrix[0])) > abs(int(matrix[1])):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def make_upright(
    picture: NDArray[np.uint8], orientation: tuple[bool, bool, bool]
) -> NDArray[np.uint8]:
    """Apply a display orientation to `[H, W, 3]`."""
    transpose, flip_rows, flip_columns = orientation
    if transpose:
        picture = picture.transpose(1, 0, 2)
    if flip_rows:
        picture = picture[::-1]
    if flip_columns:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


class VideoReader:
    """Decode the first real video stream of a file, frame by frame.

    Memory is bounded: one frame at a time leaves the decoder. Damaged packets are skipped and
    counted; a file that ends early gives the frames it has.

    Args:
        path: any container and codec the FFmpeg libraries know.
        threads: decoder threads; 0 lets the library choose.

    Raises:
        UsageError: no such file.
        MediaError: empty, unreadable, without a video stream, or without one frame.
    """

    def __init__(self, path: Path | str, *, threads: int = 0) -> None:
        self.path = Path(path)
        self.damaged_packets = 0
        self.frames_read = 0
        self.last_duration = 0
        """Duration of the latest frame in time-base units; 0 when unknown."""
        self._container = open_container(self.path)
        try:
            self._stream = self._choose_stream()
            self._stream.thread_type = "AUTO"
            if threads:
                self._stream.codec_context.thread_count = threads
            self.time_base = Fraction(self._stream.time_base or Fraction(1, 1000))
            self._frames = self._decode()
            self._first = self._decode_first()
            self.info = self._describe()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame once, in display order.

        Raises:
            MediaError: the stream is damaged beyond use.
        """
        step = max(1, round(1 / (self.info.frame_rate * self.time_base)))
        previous: int | None = None
        for decoded in chain([self._first], self._frames):
            pts = decoded.pts
            if pts is None or (previous is not None and pts <= previous):
                pts = 0 if previous is None else previous + step
            previous = pts
            self.last_duration = int(decoded.duration or 0)
            yield Frame(index=self.frames_read, pts=pts, picture=self._to_picture(decoded))
            self.frames_read += 1

    def _decode_first(self) -> Any:
        first = next(self._frames, None)
        if first is None:
            raise MediaError("no-frames", f"expected video frames, {self.path} decodes to none")
        return first

    def _choose_stream(self) -> Any:
        streams = self._container.streams.video
        real = [
            s for s in streams if not int(s.disposition) & int(av.stream.Disposition.attached_pic)
        ]
        if not real:
            kinds = sorted({s.type for s in self._container.streams}) or ["nothing"]
            found = "a cover picture only" if streams else f"only {', '.join(kinds)}"
            raise MediaError("no-video", f"expected a video stream, {self.path} has {found}")
        if real[0].codec_context is None:
            raise MediaError("no-decoder", f"no decoder for the video stream of {self.path}")
        return real[0]

    def _describe(self) -> VideoInfo:
        stream, context = self._stream, self._stream.codec_context
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or FALLBACK_RATE
        duration = float(stream.duration * self.time_base) if stream.duration else 0.0
        if duration == 0.0 and self._container.duration:
            duration = self._container.duration / av.time_base
        height, width = self._to_picture(self._first).shape[:2]
        return VideoInfo(
            width=width,
            height=height,
            time_base=self.time_base,
            frame_rate=Fraction(rate),
            frame_count=int(stream.frames or 0),
            duration_seconds=duration,
            codec=context.name,
        )

    def _decode(self) -> Iterator[Any]:
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                self.damaged_packets += 1
                if self.damaged_packets > MAX_DAMAGED_PACKETS:
                    raise MediaError(
                        "media-damaged", f"too many damaged packets in {self.path}"
                    ) from error
                continue
            yield from frames

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:
                self.damaged_packets += 1  # the file ends in the middle: keep what came before
                yield from self._flush()
                return
            yield packet

    def _flush(self) -> Iterator[Any]:
        packet = av.Packet()
        packet.stream = self._stream
        yield packet

    def _to_picture(self, decoded: Any) -> NDArray[np.uint8]:
        if max(decoded.width, decoded.height) > MAX_SIDE:
            raise MediaError(
                "picture-too-large",
                f"at most {MAX_SIDE} pixels a side, found {decoded.width}x{decoded.height}",
            )
        aspect = self._stream.sample_aspect_ratio
        width = decoded.width
        if aspect and aspect > 0 and aspect != 1:
            width = min(MAX_SIDE, max(1, round(width * aspect)))
        picture = decoded.to_ndarray(
            format="rgb24", width=width, height=decoded.height, interpolation=EXACT_CONVERSION
        )
        return make_upright(picture, display_orientation(_display_matrix(decoded)))


def _display_matrix(decoded: Any) -> NDArray[np.int32] | None:
    for side in decoded.side_data:
        if side.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(side), dtype="<i4")
    return None
