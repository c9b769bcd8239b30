"""Where frames come from: a camera, a video played at its own rate, a pipe, or stored motion."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.reader import open_reader
from sglat.errors import MediaError, MissingExtraError, UsageError
from sglat.files import check_input
from sglat.live.look import Look
from sglat.live.secure import LiveError
from sglat.media.pixels import PictureConverter
from sglat.media.reader import VideoReader

DEFAULT_RATE: Final = Fraction(25)
RATES: Final = (Fraction(5), Fraction(60))
PIPE: Final = "-"
_LOST_SECONDS: Final = 1.0  # without a frame, after which a camera counts as gone


class CameraGoneError(LiveError):
    """A camera gives no more frames, but may come back."""


class Camera(Protocol):
    """A source of frames, read by one thread."""

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second."""

    @property
    def is_live(self) -> bool:
        """Whether it may come back once it is gone."""

    @property
    def first_seconds(self) -> float:
        """Time of the first frame in a file."""

    def frames(self) -> Iterator[tuple[NDArray[Any], float]]:
        """Yield frames, uint8 RGB `[H, W, 3]` or motion `[34]`, with the monotonic time they were
        taken at, as they are taken.

        Raises:
            CameraGoneError: it was unplugged.
        """

    def close(self) -> None:
        """Release it; `frames` ends soon."""


def open_camera(name: str, look: Look | None = None) -> Camera:
    """Open a camera by its number, a video or `.sglat` file by its path, or standard input, `-`.

    Args:
        name: as given.
        look: the person of the call, for motion of an `.sglat` file.

    Raises:
        LiveError: `no-camera`, `no-permission`. UsageError: no such file. MediaError: no video.
    """
    if name == PIPE:
        return PipeCamera(sys.stdin.buffer)
    if name.isdecimal():
        return DeviceCamera(int(name))
    if name.lower().endswith(".sglat"):
        return MotionCamera(Path(name), look)
    return FileCamera(Path(name))


def _checked(rate: Fraction) -> Fraction:
    return min(max(rate, RATES[0]), RATES[1])


class _Pace:
    """Waits until frames of a file are due; what is long due is left out."""

    def __init__(self) -> None:
        self._start: float | None = None
        self.first_seconds = 0.0
        """Time of the first frame in the file."""
        self.is_closed = False

    def wait(self, seconds: float, period: float) -> float | None:
        """Return the time a frame is due at, once it is; None if the next one is due already."""
        now = time.monotonic()
        if self._start is None:
            self._start, self.first_seconds = now - seconds, seconds
        due = self._start + seconds
        if now > due + period:
            return None
        while not self.is_closed and now < due:
            time.sleep(min(due - now, 0.1))
            now = time.monotonic()
        return due


class FileCamera:
    """A video file, played once at its own rate."""

    is_live = False

    def __init__(self, path: Path) -> None:
        self._reader = VideoReader(path, threads=1)
        self.frame_rate = _checked(self._reader.info.frame_rate)
        self.zero_seconds = float(self._reader.zero_seconds)
        """Time 0 of the frames by the container's clock."""
        self._pace = _Pace()

    def frames(self) -> Iterator[tuple[NDArray[Any], float]]:
        base, period = float(self._reader.time_base), float(1 / self.frame_rate)
        with self._reader:
            for frame in self._reader:
                due = self._pace.wait(frame.pts * base, period)
                if self._pace.is_closed:
                    return
                if due is not None:
                    yield frame.picture, due

    @property
    def first_seconds(self) -> float:
        return self._pace.first_seconds

    def close(self) -> None:
        self._pace.is_closed = True


class PipeCamera:
    """A video stream on standard input in any container, taken as it comes."""

    is_live, first_seconds = False, 0.0

    def __init__(self, stream: Any) -> None:
        try:
            self._container = av.open(stream, mode="r")
            self._stream = self._container.streams.video[0]
        except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
            raise MediaError(
                "media-unreadable",
                "expected a video stream on standard input, such as Matroska or YUV4MPEG",
            ) from error
        self.frame_rate = _checked(Fraction(self._stream.average_rate or DEFAULT_RATE))
        self._is_closed = False

    def frames(self) -> Iterator[tuple[NDArray[Any], float]]:
        convert = PictureConverter(self._stream.codec_context.name)
        with suppress(av.error.FFmpegError):  # a damaged end is an end
            for frame in self._container.decode(self._stream):
                if self._is_closed:
                    return
                yield convert.picture(frame), time.monotonic()

    def close(self) -> None:
        self._is_closed = True


class MotionCamera:
    """The motion of an `.sglat` file, played at its own rate; no network follows it."""

    is_live = False

    def __init__(self, path: Path, look: Look | None) -> None:
        check_input(path)
        with open_reader(path) as reader:
            header = reader.header
            motion = reader.read_motion()
            driver = reader.motion_neutral
            if driver is None and reader.identity is not None:
                driver = reader.identity.neutral
        if not len(motion.values):
            raise UsageError("no-motion", f"expected motion in {path}, found none")
        if look is not None and header.decoder_id != look.header.decoder_id:
            raise UsageError(
                "decoder-mismatch", f"{path} was made for other weights than --identity"
            )
        self._seconds = motion.stamps(header) * float(header.time_base)
        self._motion = motion.dequantize()
        if look is not None and driver is not None:
            self._motion = self._motion + (look.identity.neutral - driver)
        step = np.median(np.diff(self._seconds)) if len(self._seconds) > 1 else 0.04
        self.frame_rate = _checked(Fraction(1 / float(step)).limit_denominator(1001))
        self._pace = _Pace()

    def frames(self) -> Iterator[tuple[NDArray[Any], float]]:
        period = float(1 / self.frame_rate)
        for motion, seconds in zip(self._motion, self._seconds.tolist(), strict=True):
            due = self._pace.wait(seconds, period)
            if self._pace.is_closed:
                return
            if due is not None:
                yield motion, due

    @property
    def first_seconds(self) -> float:
        return self._pace.first_seconds

    def close(self) -> None:
        self._pace.is_closed = True


class DeviceCamera:
    """A camera of the system, by its number.

    Raises:
        LiveError: `no-camera`, `no-permission`. MissingExtraError: OpenCV is needed.
    """

    is_live, first_seconds = True, 0.0

    def __init__(self, number: int) -> None:
        self._number = number
        self._is_closed = False
        self._capture = self._open()
        rate = float(self._capture.get(5) or 0)  # CAP_PROP_FPS
        known = Fraction(rate).limit_denominator(1001) if rate > 1 else DEFAULT_RATE
        self.frame_rate = _checked(min(known, Fraction(30)))

    def _open(self) -> Any:
        try:
            import cv2
        except ImportError as error:
            raise MissingExtraError("cv2", extra="encode") from error
        check_device(self._number)
        capture = cv2.VideoCapture(self._number)
        if not capture.isOpened():
            capture.release()
            raise LiveError(
                "no-camera",
                f"camera {self._number} cannot be opened; is another program using it?",
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def frames(self) -> Iterator[tuple[NDArray[Any], float]]:
        if self._capture is None:
            self._capture = self._open()
        last = time.monotonic()
        while not self._is_closed:
            is_read, picture = self._capture.read()
            now = time.monotonic()
            if is_read:
                last = now
                yield np.ascontiguousarray(picture[:, :, ::-1]), now
            elif now - last > _LOST_SECONDS:
                self._release()
                raise CameraGoneError("camera-gone", f"camera {self._number} gives no more frames")
            else:
                time.sleep(0.02)
        self._release()

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = None

    def close(self) -> None:
        self._is_closed = True


def check_device(number: int, folder: Path = Path("/dev")) -> None:
    """Say what is wrong with a camera where the system shows it as a file.

    Raises:
        LiveError: `no-camera`, `no-permission`.
    """
    if not sys.platform.startswith("linux"):
        return
    device = folder / f"video{number}"
    if not device.exists():
        others = sorted(path.name.removeprefix("video") for path in folder.glob("video*"))
        have = f"there are {', '.join(others)}" if others else "there is none on this machine"
        raise LiveError("no-camera", f"expected camera {number} ({device}); {have}")
    if not os.access(device, os.R_OK | os.W_OK):
        raise LiveError(
            "no-permission", f"no permission to use {device}; join its group, usually video"
        )
