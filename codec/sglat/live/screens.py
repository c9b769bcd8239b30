"""Where a received call goes: a video file, a pipe, a window, a virtual camera."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import AudioPacket
from sglat.errors import MissingExtraError, SglatError
from sglat.files import reason_of, refuse_existing
from sglat.live.rtp import CLOCK_RATE
from sglat.live.secure import LiveError
from sglat.live.sound import opus_format
from sglat.marks.marking import Marker
from sglat.media.containers import container_of
from sglat.media.pictures import RawWriter
from sglat.media.writer import VideoWriter

TITLE: Final = "sgl-live"


class Screen(Protocol):
    """One output of a receiver; called from one thread."""

    def show(self, picture: NDArray[np.uint8], ticks: int) -> None:
        """Show `[H, W, 3]` RGB; its time in ticks of 1/90000 s from the first picture."""

    def hear(self, packet: AudioPacket) -> None:
        """Take a packet of sound, on the same clock."""

    def close(self) -> None:
        """Finish the output."""


class FileScreen:
    """A video file with sound, complete when it is closed; begun with the first picture.

    Args:
        path: its suffix chooses container and codecs.
        frame_ticks: time from picture to picture, in ticks of 1/90000 s.
        marker: gives its tags and its signature; the pictures come marked.
        has_sound: sound will come.
        force: replace an existing file.

    Raises:
        UsageError: it exists, or has an unknown ending.
        SglatError: `unsigned` when it is closed: the file is complete and kept without a signature,
            since a call cannot be repeated.
    """

    def __init__(
        self, path: Path, *, frame_ticks: int, marker: Marker, has_sound: bool, force: bool
    ) -> None:
        refuse_existing(path, force=force)
        container_of(path)
        self._path, self._ticks = path, frame_ticks
        self._tags, self._sign = marker.tags(), marker.finisher(path)
        self._fault: SglatError | None = None
        self._has_sound, self._force = has_sound, force
        self._writer: VideoWriter | None = None
        self._early: list[AudioPacket] = []

    def show(self, picture: NDArray[np.uint8], ticks: int) -> None:
        if self._writer is None:
            height, width = picture.shape[:2]
            self._writer = VideoWriter(
                self._path,
                size=(width, height),
                time_base=Fraction(1, CLOCK_RATE),
                frame_rate=Fraction(CLOCK_RATE, self._ticks),
                audio=(opus_format(), self._early) if self._has_sound else None,
                metadata=self._tags,
                finish=self._finish,
                force=self._force,
                threads=1,
            )
            self._early = []
        self._writer.write(picture, ticks, duration=self._ticks)

    def hear(self, packet: AudioPacket) -> None:
        if self._writer is None:
            self._early.append(packet)
        else:
            self._writer.add_audio([packet])

    def close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
        if self._fault is not None:
            raise self._fault

    def _finish(self, path: Path) -> None:
        """Sign the complete file; a fault is kept for the end."""
        if self._sign is None:
            return
        try:
            self._sign(path)
        except (SglatError, OSError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else error.message
            self._fault = SglatError(
                "unsigned", f"{self._path} is complete, but unsigned: {reason}"
            )


class PipeScreen:
    """Bare rgb24 on standard output, without sound."""

    def __init__(self, stream: Any = None) -> None:
        self._writer = RawWriter(sys.stdout.buffer if stream is None else stream)

    def show(self, picture: NDArray[np.uint8], ticks: int) -> None:
        self._writer.write(picture, ticks)
        self._writer.close()  # flushes: whoever reads waits for this frame

    def hear(self, packet: AudioPacket) -> None:
        return

    def close(self) -> None:
        self._writer.close()


class WindowScreen:
    """A window of OpenCV.

    Raises:
        MissingExtraError: OpenCV is needed. LiveError: `no-window`.
    """

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingExtraError("cv2", extra="encode") from error
        self._cv2: Any = cv2
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise LiveError(
                "no-window",
                "this OpenCV has no windows or there is no display; "
                "use a file, --virtual-camera, or - with a player",
            ) from error

    def show(self, picture: NDArray[np.uint8], ticks: int) -> None:
        self._cv2.imshow(TITLE, np.ascontiguousarray(picture[:, :, ::-1]))
        self._cv2.waitKey(1)

    def hear(self, packet: AudioPacket) -> None:
        return

    def close(self) -> None:
        self._cv2.destroyWindow(TITLE)


class VirtualCameraScreen:
    """A camera that other programs can use, by pyvirtualcam (GPL-2.0, an extra of its own).

    Raises:
        LiveError: `no-virtual-camera`.
    """

    def __init__(self, frame_ticks: int) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise LiveError(
                "no-virtual-camera",
                "pyvirtualcam (GPL-2.0) is needed here; "
                "install it with: pip install sglat[virtual-camera]",
            ) from error
        self._module: Any = pyvirtualcam
        self._rate = CLOCK_RATE / frame_ticks
        self._camera: Any = None

    def show(self, picture: NDArray[np.uint8], ticks: int) -> None:
        if self._camera is None:
            height, width = picture.shape[:2]
            try:
                self._camera = self._module.Camera(width, height, self._rate)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise LiveError("no-virtual-camera", f"no virtual camera: {reason}") from error
        self._camera.send(np.ascontiguousarray(picture))

    def hear(self, packet: AudioPacket) -> None:
        return

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None
