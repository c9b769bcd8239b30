"""Video in: upright uint8 RGB pictures with exact time stamps, one at a time.

Time 0 is the earlier of first frame and first sound, whatever the container's own clock shows, or
with a range the first frame in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from math import floor, gcd
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError, UsageError
from sglat.files import Closable, check_input, kind_of_file
from sglat.media.apng import demuxer_of
from sglat.media.assembled import (
    WEBP_TIME_BASE,
    TiledConverter,
    open_animation,
    read_grid,
    tiled_frames,
)
from sglat.media.containers import choose_stream
from sglat.media.pixels import Deinterlacer, PictureConverter

FALLBACK_RATE: Final = Fraction(25)  # for raw streams that carry neither time stamps nor a rate
MAX_DAMAGED_PACKETS: Final = 1000  # streams with more are refused
SEEK_MARGIN_SECONDS: Final = (
    1  # before a range, so that a wrong index does not cost its first frame
)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video file, or a range of it."""

    path: Path
    start_seconds: Fraction = Fraction(0)
    """From time 0 of the whole video; the first frame at or after it is kept."""
    end_seconds: Fraction | None = None
    """The last frame before it is kept; None: to the end."""

    def __post_init__(self) -> None:
        if self.end_seconds is not None and self.end_seconds <= self.start_seconds:
            raise UsageError(
                "empty-range",
                f"expected an end after {float(self.start_seconds)} s, "
                f"got {float(self.end_seconds)} s",
            )

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.start_seconds == 0 and self.end_seconds is None


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video before its first frame is decoded."""

    width: int
    """Pixels after rotation, with square pixels."""
    height: int
    frame_rate: Fraction
    """Frames per second on average; a guess for variable rates."""
    frame_count: int
    """As the container states it; 0 when it does not."""
    duration_seconds: float
    """As the container states it; 0.0 when it does not."""

    @property
    def expected_frames(self) -> int:
        """By count or else by duration; 0 if neither is stated."""
        return self.frame_count or round(self.duration_seconds * self.frame_rate)


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
    """
    check_input(path)
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError("media-empty", f"expected a video file, {path} has zero bytes")
    try:
        kind = demuxer_of(path)
        return av.open(str(path), mode="r", metadata_errors="replace", format=kind)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = _what_it_is(path)
        raise MediaError("media-unreadable", f"cannot read {path} as video: {reason}") from error


def _what_it_is(path: Path) -> str:
    """Return what a file is that FFmpeg does not open."""
    kind = kind_of_file(path)
    if kind == ".sglat":
        return "it is an .sglat file; decode it with sgl-decode"
    if any(word in kind for word in ("video", "picture", "sound")):
        return f"it begins like {kind}, but is damaged or cut off"
    return f"it is {kind}" if kind else "its format is unknown"


class VideoReader(Closable):
    """Decode one video stream of a file, frame by frame.

    Memory is bounded: one frame at a time leaves the decoder. Damaged packets are skipped and
    counted; a file that ends early gives the frames it has. Fields become whole frames, and colours
    bt709 SDR.

    Args:
        source: any container and codec the FFmpeg libraries know, or a range of it.
        threads: decoder threads; 0 lets the library choose.

    Raises:
        UsageError: no such file, or no frame in the range.
    """

    def __init__(self, source: Path | str | Clip, *, threads: int = 0) -> None:
        self.clip = source if isinstance(source, Clip) else Clip(path=Path(source))
        self.path = self.clip.path
        self.damaged_packets = 0
        self.frames_read = 0
        self._has_stamps = True
        self._threads = threads
        self._deinterlacer = Deinterlacer()
        self._open()
        try:
            self._first = self._find_first()
            self.info = self._describe()
        except BaseException:
            self._container.close()
            raise

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    @property
    def zero_seconds(self) -> Fraction:
        """Time 0 by the container's own clock."""
        return self._zero * self.time_base

    @property
    def skipped_seconds(self) -> Fraction:
        """Time of the video that is left out before the range."""
        return (self._zero - self._origin) * self.time_base

    @property
    def end_seconds(self) -> Fraction | None:
        """End of the range by the container's own clock."""
        end = self.clip.end_seconds
        return None if end is None else self._origin * self.time_base + end

    @property
    def notes(self) -> list[str]:
        """What was done to the pictures read so far, one line each."""
        choice = self._choice if self._animation is None and self._grid is None else []
        return choice + self._converter.notes + self._deinterlacer.notes

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame once, in display order."""
        end = self.end_seconds
        for pts, decoded in chain([self._first], self._stamped):
            if end is not None and pts * self.time_base >= end:
                return
            picture = self._converter.picture(decoded)
            yield Frame(index=self.frames_read, pts=pts - self._zero, picture=picture)
            self.frames_read += 1

    def _open(self) -> None:
        self._container = open_container(self.path)
        try:
            self._stream, self._choice = choose_stream(self._container, self.path)
            self._stream.thread_type = "AUTO"
            if self._threads:
                self._stream.codec_context.thread_count = self._threads
            self.time_base = Fraction(self._stream.time_base or Fraction(1, 1000))
            self._rate = Fraction(
                self._stream.average_rate or self._stream.guessed_rate or self._stream.base_rate
                or FALLBACK_RATE
            )  # fmt: skip
            self._stamped = self._stamp(self._open_pictures())
        except BaseException:
            self._container.close()
            raise

    def _open_pictures(self) -> Iterator[Any]:
        """Return the decoded pictures; some kinds FFmpeg gives only in parts."""
        converter = PictureConverter(
            self._stream.codec_context.name, self._stream.sample_aspect_ratio, self.path
        )
        self._converter: PictureConverter | TiledConverter = converter
        self._animation = self._grid = None
        if self.path.is_file():
            self._animation, self._grid = open_animation(self.path), read_grid(self.path)
        if self._animation is not None:
            self.time_base, self._rate = WEBP_TIME_BASE, self._animation.frame_rate
            self._has_stamps = False
            return self._animation.frames()
        if self._grid is not None:
            self._converter = TiledConverter(converter, self._grid)
            return tiled_frames(self._container, self._grid)
        return self._deinterlacer.frames(self._decode())

    def _find_first(self) -> tuple[int, Any]:
        """Return the first frame wanted, and set time 0."""
        first = next(self._stamped, None)
        if first is None:
            raise MediaError("no-frames", f"expected video frames, {self.path} decodes to none")
        begins = first[0] * self.time_base
        sound = first_sound_seconds(self._container)
        if sound is not None:
            begins = min(begins, sound)
        self._origin = self._zero = floor(begins / self.time_base)
        if self.clip.start_seconds == 0:
            return first
        wanted = self._origin * self.time_base + self.clip.start_seconds
        if first[0] * self.time_base < wanted:
            first = self._skip_to(wanted)
        self._zero = first[0]
        end = self.end_seconds
        if end is not None and first[0] * self.time_base >= end:
            raise self._empty_range()
        return first

    def _skip_to(self, seconds: Fraction) -> tuple[int, Any]:
        """Return the first frame at or after a time by the container's clock."""
        first = self._seek(seconds - SEEK_MARGIN_SECONDS)
        for pts, decoded in chain([] if first is None else [first], self._stamped):
            if pts * self.time_base >= seconds:
                return pts, decoded
        raise self._empty_range()

    def _seek(self, seconds: Fraction) -> tuple[int, Any] | None:
        """Go to a key frame before a time and return its frame; None: to the start."""
        if seconds <= self._origin * self.time_base or not self._has_stamps:
            return None
        try:
            self._container.seek(floor(seconds / self.time_base), stream=self._stream)
            self._stamped = self._stamp(self._deinterlacer.frames(self._decode()))
            found = next(self._stamped, None)
        except (av.error.FFmpegError, MediaError):
            found = None
        if found is not None and found[1].pts is not None:
            is_in_time = found[0] * self.time_base <= seconds + SEEK_MARGIN_SECONDS
            if is_in_time:
                return found
        self._container.close()  # an index that cannot be used: read from the front
        self._open()
        return None

    def _empty_range(self) -> UsageError:
        return UsageError(
            "empty-range",
            f"{self.path} has no frame from {float(self.clip.start_seconds)} s"
            + ("" if self.clip.end_seconds is None else f" to {float(self.clip.end_seconds)} s"),
        )

    def _describe(self) -> VideoInfo:
        stream = self._stream
        duration = float(stream.duration * self.time_base) if stream.duration else 0.0
        if duration == 0.0 and self._container.duration:
            duration = self._container.duration / av.time_base
        count = int(stream.frames or 0)
        if self._animation is not None:
            count, duration = self._animation.frame_count, self._animation.milliseconds / 1000
        if not self.clip.is_whole:
            count = 0
            end = self.clip.end_seconds
            last = duration if end is None else min(duration or float(end), float(end))
            duration = max(0.0, last - float(self.clip.start_seconds))
        height, width = self._converter.picture(self._first[1]).shape[:2]
        return VideoInfo(
            width=width,
            height=height,
            frame_rate=self._rate,
            frame_count=count,
            duration_seconds=duration,
        )

    def _stamp(self, frames: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        """Yield frames with strictly rising time stamps by the container's clock."""
        step = max(1, round(1 / (self._rate * self.time_base)))
        previous: int | None = None
        for decoded in frames:
            pts = decoded.pts
            if pts is None or (previous is not None and pts <= previous):
                pts = 0 if previous is None else previous + step
            previous = pts
            yield pts, decoded

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
            if packet.size and packet.pts is None:
                self._has_stamps = False  # times are counted, so it is no use to seek
            yield packet

    def _flush(self) -> Iterator[Any]:
        packet = av.Packet()
        packet.stream = self._stream
        yield packet


def first_sound_seconds(container: Any) -> Fraction | None:
    """Return when the first audio stream becomes audible, by the container's clock.

    Samples that only prime the decoder do not count. None without sound, or if it is not known.
    """
    for stream in container.streams.audio:
        if stream.codec_context is not None:
            known = stream.start_time is not None and stream.time_base is not None
            return stream.start_time * Fraction(stream.time_base) if known else None
    return None


def constant_step(pts: Sequence[int]) -> int | None:
    """Return the ticks between frames when all gaps are equal, else None.

    One frame has no gap and counts as variable.
    """
    if len(pts) < 2:
        return None
    step = pts[1] - pts[0]
    equal = all(later - earlier == step for earlier, later in pairwise(pts))
    return step if equal else None


def reduce_timing(pts: Sequence[int], time_base: Fraction) -> tuple[Fraction, list[int]]:
    """Return the coarsest time base that still holds every time stamp exactly, and the stamps.

    12800 ticks a second at 512 ticks a frame become 25 ticks a second at 1 tick a frame.
    """
    common = gcd(*pts) if pts else 1
    if common <= 1:
        return time_base, list(pts)
    return time_base * common, [stamp // common for stamp in pts]


def exact_seconds(seconds: float) -> Fraction:
    """Return the decimal number that a float was written as: 0.24 is 6/25, not a little less."""
    return Fraction(str(seconds))
