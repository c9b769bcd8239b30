"""Pictures out and in without a container: PNG sequences, raw frames on a pipe, single stills."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError
from sglat.files import AtomicOutput, Closable
from sglat.media.marks import mark_png
from sglat.media.pixels import PictureConverter
from sglat.media.reader import VideoReader

STILL_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def encode_png(picture: NDArray[np.uint8], *, marks: Mapping[str, str] | None = None) -> bytes:
    """Return `[H, W, 3]` RGB as a PNG file, with text chunks for the marks."""
    context = av.CodecContext.create("png", "w")
    context.width, context.height = picture.shape[1], picture.shape[0]
    context.pix_fmt = "rgb24"
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.pts = 0
    packets = [*context.encode(frame), *context.encode(None)]
    return mark_png(b"".join(bytes(packet) for packet in packets), dict(marks or {}))


def decode_picture(data: bytes, *, what: str = "picture") -> NDArray[np.uint8]:
    """Return a PNG, JPEG or WebP file as `[H, W, 3]` RGB.

    Raises:
        MediaError: the bytes are no picture.
    """
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            frame = next(container.decode(video=0))
            return PictureConverter(container.streams.video[0].codec_context.name).picture(frame)
    except (av.error.FFmpegError, StopIteration, IndexError, ValueError) as error:
        raise MediaError("picture-unreadable", f"expected a picture as {what}: {error}") from error


def read_still(path: Path) -> NDArray[np.uint8]:
    """Return the first frame of a picture or video file, `[H, W, 3]` RGB, upright."""
    with VideoReader(path) as reader:
        return next(iter(reader)).picture


class PngWriter(Closable):
    """Write frames as `00000.png`, `00001.png`, … into a new folder, renamed at the end.

    Raises:
        UsageError: the folder exists and `force` is not set.
    """

    def __init__(
        self, folder: Path | str, *, marks: Mapping[str, str] | None = None, force: bool = False
    ) -> None:
        self._output = AtomicOutput(folder, force=force, is_folder=True)
        self.folder = self._output.path
        self._marks = dict(marks or {})
        self._count = 0
        self._output.partial.mkdir()

    def write(self, picture: NDArray[np.uint8], pts: int, *, duration: int = 0) -> None:
        """Append one frame; the time stamp is not kept."""
        name = f"{self._count:05d}.png"
        (self._output.partial / name).write_bytes(encode_png(picture, marks=self._marks))
        self._count += 1

    def close(self) -> None:
        """Give the folder its name."""
        self._output.commit()

    def discard(self) -> None:
        """Remove what was written so far."""
        self._output.discard()


class RawWriter(Closable):
    """Write frames as bare rgb24 bytes to a stream, for a pipe into another program."""

    def __init__(self, stream: BinaryIO | Any) -> None:
        self._stream = stream

    def write(self, picture: NDArray[np.uint8], pts: int, *, duration: int = 0) -> None:
        """Append one frame; the time stamp is not kept."""
        self._stream.write(np.ascontiguousarray(picture).data)

    def close(self) -> None:
        """Flush the stream, which stays open."""
        self._stream.flush()

    def discard(self) -> None:
        """Leave the stream as it is."""
