"""What a face is pasted into: the file's own plate, a picture, or another video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sglat.media.pictures import STILL_SUFFIXES, read_still
from sglat.media.reader import Frame, VideoReader


class Backdrop(Protocol):
    """Full frames by time, requested in order."""

    has_face: bool
    """The frames show a face that is to be covered: only the face is pasted then."""
    size: tuple[int, int]
    """Width and height in pixels."""

    def frame(self, seconds: Fraction) -> NDArray[np.uint8]:
        """Return the frame on screen at a time, `[H, W, 3]` RGB; not to be changed."""


class StillBackdrop:
    """One picture for all frames."""

    def __init__(self, picture: NDArray[np.uint8], *, has_face: bool) -> None:
        self.picture = picture
        self.has_face = has_face
        self.size = (picture.shape[1], picture.shape[0])

    def frame(self, seconds: Fraction) -> NDArray[np.uint8]:
        """Return the picture."""
        return self.picture


class VideoBackdrop:
    """Another video, read along; its last frame stays when it is shorter."""

    has_face = True

    def __init__(self, path: Path) -> None:
        self._reader = VideoReader(path)
        self.size = (self._reader.info.width, self._reader.info.height)
        self._frames: Iterator[Frame] = iter(self._reader)
        self._shown = next(self._frames)
        self._next = next(self._frames, None)
        self._path = path
        self._is_over = False

    def frame(self, seconds: Fraction) -> NDArray[np.uint8]:
        """Return the latest frame that has begun."""
        base = self._reader.time_base
        while self._next is not None and self._next.pts * base <= seconds:
            self._shown, self._next = self._next, next(self._frames, None)
        self._is_over |= self._next is None and seconds > self._end
        return self._shown.picture

    @property
    def _end(self) -> Fraction:
        """Return when the last frame that was read should be over, with half a frame to spare."""
        shown = self._shown.pts * self._reader.time_base
        return shown + Fraction(3, 2) / self._reader.info.frame_rate

    @property
    def notes(self) -> list[str]:
        """What was done to its pictures, one line each."""
        notes = [f"--onto: {note}" for note in self._reader.notes]
        if self._is_over:
            seconds = float(self._shown.pts * self._reader.time_base)
            notes.append(f"--onto: {self._path} is shorter; its last frame, {seconds:.2f} s, stays")
        return notes

    def close(self) -> None:
        """Release the file."""
        self._reader.close()


def open_backdrop(path: Path) -> StillBackdrop | VideoBackdrop:
    """Open a picture or a video; raises MediaError."""
    if path.suffix.lower() in STILL_SUFFIXES:
        return StillBackdrop(read_still(path), has_face=True)
    return VideoBackdrop(path)
