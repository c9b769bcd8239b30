"""Decoded frames to a video file, a PNG sequence or a pipe, with the sound they belong to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.decoder.backdrop import Backdrop, VideoBackdrop, open_backdrop, plate_backdrop
from sglat.decoder.decode import QUEUE_BATCHES, DecodedFrame, Decoder, exact_seconds, prefetch
from sglat.errors import UsageError
from sglat.files import refuse_existing
from sglat.media.marks import generated_marks
from sglat.media.pictures import PngWriter, RawWriter
from sglat.media.writer import VideoWriter

Progress = Callable[[int, int | None], None]
"""Called with frames written and frames expected, where known."""
PIPE: Final = Path("-")
NOMINAL_RATE: Final = Fraction(25)  # for the header of a video with a variable rate


class FrameWriter(Protocol):
    """Where frames go."""

    def write(self, picture: NDArray[np.uint8], pts: int, *, duration: int = 0) -> None:
        """Append one frame."""


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where decoded frames go and in which form."""

    path: Path
    """Video file, folder of pictures, or `-` for bare RGB on the standard output."""
    form: Literal["video", "png", "raw"] = "video"
    onto: Path | None = None
    """Video or picture into which the face is pasted."""
    crop_only: bool = False
    """Leave the file's own background plate unused."""
    encoder: str = "auto"
    force: bool = False
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class OutputResult:
    """What was written."""

    frames: int
    held_frames: int
    width: int
    height: int
    seconds: float
    """Wall time from the first byte to the last."""

    @property
    def frames_per_second(self) -> float:
        """Speed of decoding, reading and writing included."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def write_decoded(
    decoder: Decoder, config: OutputConfig, *, progress: Progress | None = None
) -> OutputResult:
    """Decode a file to its end, or to the end of the wanted range, and write what is shown.

    Raises:
        MediaError: the output cannot be written.
        UsageError: the output exists; no frames in the range; `onto` without placement.
        FormatError: damage in the file; nothing is written then.
    """
    started = time.monotonic()
    if config.form != "raw":
        refuse_existing(config.path, force=config.force, is_folder=config.form == "png")
    backdrop = _choose_backdrop(decoder, config)
    frames = prefetch(decoder.frames(backdrop), QUEUE_BATCHES * decoder.config.batch)
    try:
        first = next(frames, None)
        if first is None:
            raise UsageError("empty-range", "there are no frames in this range")
        written = _write(decoder, config, first, frames, progress)
    finally:
        frames.close()  # type: ignore[attr-defined]
        if isinstance(backdrop, VideoBackdrop):
            backdrop.close()
    height, width = first.picture.shape[:2]
    return OutputResult(
        frames=written[0],
        held_frames=written[1],
        width=width,
        height=height,
        seconds=time.monotonic() - started,
    )


def _choose_backdrop(decoder: Decoder, config: OutputConfig) -> Backdrop | None:
    if config.onto is not None:
        return open_backdrop(config.onto)
    plate = decoder.reader.plate
    if plate is None or config.crop_only or decoder.header.placement_steps is None:
        return None
    return plate_backdrop(plate)


def _write(
    decoder: Decoder,
    config: OutputConfig,
    first: DecodedFrame,
    rest: Iterable[DecodedFrame],
    progress: Progress | None,
) -> tuple[int, int]:
    base = decoder.header.time_base
    sound = _Sound(decoder, shift=first.pts * base if decoder.config.start_seconds > 0 else None)
    origin = first.pts if sound.shift is not None else 0
    count = held = 0
    with _open_writer(decoder, config, first, sound) as writer:
        frame: DecodedFrame | None = first
        iterator = iter(rest)
        while frame is not None:
            following = next(iterator, None)
            ticks = decoder.header.frame_ticks or 0
            duration = following.pts - frame.pts if following is not None else ticks
            if isinstance(writer, VideoWriter):
                writer.add_audio(sound.take())
            writer.write(frame.picture, frame.pts - origin, duration=duration)
            count += 1
            held += frame.is_held
            if progress is not None:
                progress(count, decoder.header.frame_count)
            frame = following
        if isinstance(writer, VideoWriter):
            writer.add_audio(sound.take())
    return count, held


def _open_writer(
    decoder: Decoder, config: OutputConfig, first: DecodedFrame, sound: _Sound
) -> VideoWriter | PngWriter | RawWriter:
    provenance = decoder.reader.provenance
    marks = generated_marks(
        generated_by=provenance.generated_by if provenance else decoder.header.encoder or "sglat",
        consent=provenance.consent if provenance else "",
    )
    if config.form == "raw":
        return RawWriter(sys.stdout.buffer)
    if config.form == "png":
        return PngWriter(config.path, marks=marks, force=config.force)
    height, width = first.picture.shape[:2]
    return VideoWriter(
        config.path,
        size=(width, height),
        time_base=decoder.header.time_base,
        frame_rate=decoder.frame_rate or NOMINAL_RATE,
        audio=sound.stream(),
        metadata=marks,
        encoder=config.encoder,
        force=config.force,
        threads=config.threads,
    )


class _Sound:
    """The audio packets of the wanted range, moved along with the pictures.

    Args:
        decoder: reads the packets.
        shift: seconds by which everything is moved towards the start; None keeps the time stamps.
    """

    def __init__(self, decoder: Decoder, *, shift: Fraction | None) -> None:
        self.decoder = decoder
        self.shift = shift
        self.format: AudioFormat | None = decoder.reader.audio_format
        self._waiting: list[AudioPacket] = []

    def stream(self) -> tuple[AudioFormat, list[AudioPacket]] | None:
        """Return format and first packets for opening a writer."""
        return None if self.format is None else (self.format, self.take())

    def take(self) -> list[AudioPacket]:
        """Return the packets that have become known, in the time of the output."""
        packets = self.decoder.take_audio()
        if self.format is None or not packets:
            return []
        base = self.format.time_base
        if self.decoder.config.end_seconds is not None:
            end = exact_seconds(self.decoder.config.end_seconds)
            packets = [packet for packet in packets if packet.pts * base < end]
        if self.shift is None:
            return packets
        ticks = round(self.shift / base)
        return [
            AudioPacket(
                data=packet.data,
                pts=packet.pts - ticks,
                dts=packet.dts - ticks,
                duration=packet.duration,
                is_key_frame=packet.is_key_frame,
            )
            for packet in packets
            if packet.pts + packet.duration > ticks
        ]
