"""Decoded frames to a video file, a PNG sequence or a pipe, with the sound they belong to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Final, Literal

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.decoder.backdrop import Backdrop, VideoBackdrop, open_backdrop, plate_backdrop
from sglat.decoder.composite import CompositeConfig
from sglat.decoder.decode import QUEUE_BATCHES, DecodedFrame, Decoder, prefetch
from sglat.decoder.paint import FaceTrack
from sglat.errors import UsageError
from sglat.files import refuse_existing
from sglat.media.audio import open_sound
from sglat.media.containers import choose_encoder, encoder_options
from sglat.media.pictures import PngWriter, RawWriter, generated_marks
from sglat.media.reader import exact_seconds
from sglat.media.writer import VideoWriter

Progress = Callable[[int, int | None], None]
"""Called with frames written and frames expected, where known."""
PIPE: Final = Path("-")
NOMINAL_RATE: Final = Fraction(25)  # for the header of a video with a variable rate


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where decoded frames go and in which form."""

    path: Path
    """Video file, folder of pictures, or `-` for bare RGB on the standard output."""
    form: Literal["video", "png", "raw"] = "video"
    onto: Path | None = None
    """Video or picture into which the face is pasted."""
    track: FaceTrack | None = None
    """Where the face lies in `onto`; None: where the `.sglat` file has it."""
    composite: CompositeConfig = CompositeConfig()  # noqa: RUF009 - frozen
    """Mask and seam of the face that is pasted."""
    crop_only: bool = False
    """Leave the file's own background plate unused."""
    encoder: str = "auto"
    crf: int | None = None
    """Quality on the video encoder's own scale."""
    quality: int | None = None
    """0 to 100, for any video encoder."""
    has_sound: bool = True
    audio: Path | None = None
    """A file whose sound takes the place of the stored one; its time is the `.sglat` file's."""
    inputs: tuple[Path, ...] = ()
    """More files that are read, so that none of them is replaced."""
    force: bool = False
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class OutputResult:
    """What was written."""

    frames: int
    """Written."""
    held_frames: int
    """Of these, frames without a face in the source."""
    width: int
    """Of the pictures in pixels."""
    height: int
    """Of the pictures in pixels."""
    seconds: float
    """Wall time from the first byte to the last."""
    notes: list[str] = field(default_factory=list)
    """What was done to sound and colours, one line each."""

    @property
    def frames_per_second(self) -> float:
        """Speed of decoding, reading and writing included."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def write_decoded(
    decoder: Decoder, config: OutputConfig, *, progress: Progress | None = None
) -> OutputResult:
    """Decode a file to its end, or to the end of the range, and write the frames.

    Raises:
        MediaError: the output cannot be written.
        UsageError: the output exists or is an input; no frames in the range; `onto` without
            placement.
        FormatError: damage in the file; nothing is written then.
    """
    started = time.monotonic()
    check_output(config)
    backdrop = _choose_backdrop(decoder, config)
    frames = prefetch(
        decoder.frames(backdrop, track=config.track, composite=config.composite),
        QUEUE_BATCHES * decoder.config.batch,
    )
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
        notes=(backdrop.notes if isinstance(backdrop, VideoBackdrop) else []) + written[2],
    )


def check_output(config: OutputConfig) -> None:
    """Refuse an output before anything is rendered for it.

    Raises:
        MediaError: no such encoder, or not for this container.
        UsageError: the output exists or is an input.
    """
    if config.form != "raw":
        refuse_existing(
            config.path, force=config.force, is_folder=config.form == "png",
            inputs=(config.onto, config.audio, *config.inputs),
        )  # fmt: skip
    if config.form == "video":
        encoder = choose_encoder(config.encoder, config.path)
        encoder_options(encoder, crf=config.crf, quality=config.quality)


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
) -> tuple[int, int, list[str]]:
    count = held = 0
    with (
        closing(_Sound(decoder, config, first)) as sound,
        _open_writer(decoder, config, first, sound) as writer,
    ):
        origin = sound.origin_ticks
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
    return count, held, writer.notes if isinstance(writer, VideoWriter) else []


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
        crf=config.crf,
        quality=config.quality,
        is_sound_cut=config.audio is not None,
        force=config.force,
        threads=config.threads,
    )


class _Sound:
    """The sound of the output, moved along with the pictures.

    Time 0 of the output is its first frame when a range is wanted, else the earlier of first frame
    and first sound, so that no blank stands in front.

    Args:
        decoder: reads the stored packets.
        config: which sound is wanted.
        first: first frame of the output.
    """

    def __init__(self, decoder: Decoder, config: OutputConfig, first: DecodedFrame) -> None:
        self._decoder = decoder
        self._file = open_sound(config.audio) if config.audio is not None else None
        self._is_cut = decoder.config.start_seconds > 0
        end = decoder.config.end_seconds
        self._end = None if end is None else exact_seconds(end)
        self.format: AudioFormat | None = None
        if self._file is not None:
            self.format = self._file.format
        elif config.has_sound and config.form == "video":
            self.format = decoder.reader.audio_format
        self._early = decoder.take_audio()
        self.origin_ticks = self._find_origin(first)
        self._shift = self.origin_ticks * decoder.header.time_base

    def stream(self) -> tuple[AudioFormat, Iterable[AudioPacket]] | None:
        """Return format and first packets for opening a writer."""
        if self.format is None:
            return None
        return self.format, self.take() if self._file is None else self._moved(self._file)

    def take(self) -> list[AudioPacket]:
        """Return the packets that have become known, in the time of the output."""
        packets = self._early + self._decoder.take_audio()
        self._early = []
        return [] if self.format is None or self._file is not None else list(self._moved(packets))

    def close(self) -> None:
        """Release the file that gives the sound."""
        if self._file is not None:
            self._file.close()

    def _find_origin(self, first: DecodedFrame) -> int:
        """Return time 0 of the output in ticks of the file."""
        if self._is_cut or self.format is None or self._file is not None or not self._early:
            return first.pts if self._is_cut else max(0, first.pts)
        base = self._decoder.header.time_base
        sound = self._early[0].pts * self.format.time_base
        return max(0, min(first.pts, floor(sound / base)))

    def _moved(self, packets: Iterable[AudioPacket]) -> Iterator[AudioPacket]:
        assert self.format is not None
        base = self.format.time_base
        ticks = round(self._shift / base)
        for packet in packets:
            if self._end is not None and packet.pts * base >= self._end:
                continue
            if self._is_cut and packet.pts + packet.duration <= ticks:
                continue
            yield AudioPacket(
                data=packet.data,
                pts=packet.pts - ticks,
                dts=packet.dts - ticks,
                duration=packet.duration,
                is_key_frame=packet.is_key_frame,
            )
