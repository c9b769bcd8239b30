"""The watermark's detector on the pictures of a file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, tee
from pathlib import Path

from sglat.errors import MediaError
from sglat.marks.detect import Detection, detect
from sglat.media.reader import Frame, VideoReader


def search_watermark(path: Path, most: int) -> tuple[Detection, str]:
    """Return what the detector finds in the first `most` frames, and why reading them ended early.

    Raises:
        MediaError: not one frame can be decoded.
    """
    damage: list[str] = []
    with VideoReader(path) as reader:
        frames = islice(iter(reader), most)
        first = [frame for frame in [next(frames, None)] if frame is not None]
        readable, timed = tee(_until_damage(chain(first, frames), damage))
        seconds = (float(frame.pts * reader.time_base) for frame in timed)
        found = detect((frame.picture for frame in readable), seconds=seconds)
    return found, "".join(damage)


def _until_damage(frames: Iterator[Frame], damage: list[str]) -> Iterator[Frame]:
    """Yield frames up to one that cannot be decoded; its fault goes into `damage`."""
    try:
        yield from frames
    except MediaError as error:
        damage.append(error.message)
