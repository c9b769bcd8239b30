"""Decoded frames to a video file, a PNG sequence or a pipe, with the sound they belong to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Final, Literal

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.decoder import signing
from sglat.decoder.backdrop import Backdrop, StillBackdrop, VideoBackdrop, open_backdrop
from sglat.decoder.composite import CompositeConfig
from sglat.decoder.decode import QUEUE_BATCHES, DecodedFrame, Decoder, prefetch
from sglat.decoder.paint import FaceTrack
from sglat.errors import UsageError
from sglat.files import refuse_existing
from sglat.marks.keys import Signer
from sglat.media.audio import open_sound
from sglat.media.containers import choose_encoder, encoder_options
from sglat.media.pictures import (
    PngWriter,
    RawWriter,
    decode_picture,
    generated_marks,
    refuse_other_files,
)
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
    skip_lost: bool = False
    """Leave out held frames and their sound; not with `onto`."""
    inputs: tuple[Path, ...] = ()
    """More files that are read, so that none of them is replaced."""
    force: bool = False
    threads: int = 0
    signer: Signer | None = None
    """Who signs the output with C2PA; None: it carries tags alone."""
    has_watermark: bool = True
    """Mark the pictures; without it the tags say so."""


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
    signer: str = ""
    """Who signed the output; empty if nobody did."""

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
        lead = _Lead(ticks=first.pts if first is not None else 0)
        while first is not None and config.skip_lost and first.is_held:
            lead, first = replace(lead, frames=lead.frames + 1), next(frames, None)
        if first is None:
            what = "frames with the face" if config.skip_lost else "frames"
            raise UsageError("empty-range", f"there are no {what} in this range")
        written = _write(decoder, config, lead, first, frames, progress)
    finally:
        frames.close()  # type: ignore[attr-defined]
        if isinstance(backdrop, VideoBackdrop):
            backdrop.close()
    height, width = first.picture.shape[:2]
    place = PIPE if config.form == "raw" else config.path
    return OutputResult(
        frames=written[0],
        held_frames=written[1],
        width=width,
        height=height,
        seconds=time.monotonic() - started,
        notes=[
            *decoder.notes,
            *(backdrop.notes if isinstance(backdrop, VideoBackdrop) else []),
            *written[2],
            *signing.notes(config.signer, place, is_folder=config.form == "png"),
        ],
        signer=signing.signed_by(config.signer, place, is_folder=config.form == "png"),
    )


def check_output(config: OutputConfig) -> None:
    """Refuse an output before anything is rendered for it.

    Raises:
        MediaError: no such encoder, or not for this container.
        UsageError: the output exists or is an input; frames left out of another video.
    """
    if config.skip_lost and config.onto is not None:
        raise UsageError("bad-options", "--onto keeps every frame; --skip-lost contradicts it")
    if config.form != "raw":
        refuse_existing(
            config.path, force=config.force, is_folder=config.form == "png",
            inputs=(config.onto, config.audio, *config.inputs),
        )  # fmt: skip
    if config.form == "png":
        refuse_other_files(config.path)
    if config.form == "video":
        encoder = choose_encoder(config.encoder, config.path)
        encoder_options(encoder, crf=config.crf, quality=config.quality)


def _choose_backdrop(decoder: Decoder, config: OutputConfig) -> Backdrop | None:
    if config.onto is not None:
        return open_backdrop(config.onto)
    plate = decoder.reader.plate
    if plate is None or not _has_plate(decoder, config):
        return None
    picture = decode_picture(plate.data, what="background plate")
    return StillBackdrop(picture, has_face=False)  # the whole crop covers it


def _has_plate(decoder: Decoder, config: OutputConfig) -> bool:
    """Whether the face is pasted into the background that the file carries."""
    is_placed = decoder.header.placement_steps is not None
    return decoder.reader.plate is not None and is_placed and not config.crop_only


def _write(
    decoder: Decoder,
    config: OutputConfig,
    lead: _Lead,
    first: DecodedFrame,
    rest: Iterable[DecodedFrame],
    progress: Progress | None,
) -> tuple[int, int, list[str]]:
    count, held = 0, lead.frames
    watermark = signing.watermark(decoder) if config.has_watermark else None
    with (
        closing(_Sound(decoder, config, lead.ticks)) as sound,
        _open_writer(decoder, config, first, sound) as writer,
    ):
        origin, gaps = sound.origin_ticks, sound.gaps
        gaps.leave_out(lead.ticks - origin, first.pts - lead.ticks)
        frame: DecodedFrame | None = first
        iterator = iter(rest)
        while frame is not None:
            following = next(iterator, None)
            ticks = decoder.header.frame_ticks or 0
            duration = following.pts - frame.pts if following is not None else ticks
            held += frame.is_held
            if config.skip_lost and frame.is_held:
                gaps.leave_out(frame.pts - origin, duration)
                frame = following
                continue
            if isinstance(writer, VideoWriter):
                writer.add_audio(sound.take(frame.pts - origin))
            pts, picture = frame.pts - origin - gaps.ticks, frame.picture
            if watermark is not None:
                picture = watermark.mark_at(picture, float(pts * decoder.header.time_base))
            writer.write(picture, pts, duration=duration)
            count += 1
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
    is_composite = config.onto is not None or _has_plate(decoder, config)
    marks = generated_marks(
        generated_by=provenance.generated_by if provenance else decoder.header.encoder or "sglat",
        consent=provenance.consent if provenance else "",
        source_type=signing.source_type(decoder),
        is_composite=is_composite,
        watermark=config.has_watermark,
    )
    finish = None
    if config.signer is not None:
        finish = signing.finisher(
            decoder, config.signer, config.path, onto=config.onto,
            is_composite=is_composite, is_folder=config.form == "png",
        )  # fmt: skip
    if config.form == "raw":
        return RawWriter(sys.stdout.buffer)
    if config.form == "png":
        return PngWriter(config.path, marks=marks, force=config.force, finish=finish)
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
        finish=finish,
    )


@dataclass(frozen=True, kw_only=True)
class _Lead:
    """Frames left out at the start."""

    ticks: int
    """Time of the first frame, left out or not."""
    frames: int = 0


class _Sound:
    """The sound of the output, moved along with the pictures.

    Time 0 of the output is its first frame when a range is wanted, else the earlier of first frame
    and first sound, so that no blank stands in front. `first` is the time of the first frame, left
    out or not, in ticks of the file.
    """

    def __init__(self, decoder: Decoder, config: OutputConfig, first: int) -> None:
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
        self._is_thinned = config.skip_lost
        self.gaps = _Gaps(decoder.header.time_base)
        self.origin_ticks = self._find_origin(first)
        self._shift = self.origin_ticks * decoder.header.time_base

    def stream(self) -> tuple[AudioFormat, Iterable[AudioPacket]] | None:
        """Return format and first packets for opening a writer."""
        if self.format is None:
            return None
        if self._file is not None:
            return self.format, self.gaps.thin(self._moved(self._file), self.format.time_base)
        if not self._is_thinned:
            return self.format, self.take()
        first, self._early = self._early[:1], self._early[1:]  # the muxer needs one to open
        return self.format, list(self._moved(first))

    def take(self, until_ticks: int | None = None) -> list[AudioPacket]:
        """Return the packets that have become known, in the time of the output.

        Where frames are left out, only those that end before a frame: later ones may be left out.
        """
        self._early += self._decoder.take_audio()
        if self.format is None or self._file is not None:
            self._early = []
            return []
        base, count = self.format.time_base, len(self._early)
        if self._is_thinned and until_ticks is not None:
            limit = (until_ticks + self.origin_ticks) * self._decoder.header.time_base
            count = sum((p.pts + p.duration) * base <= limit for p in self._early)
        ready, self._early = self._early[:count], self._early[count:]
        return list(self.gaps.thin(self._moved(ready), base))

    def close(self) -> None:
        """Release the file that gives the sound."""
        if self._file is not None:
            self._file.close()

    def _find_origin(self, first: int) -> int:
        """Return time 0 of the output in ticks of the file."""
        if self._is_cut or self.format is None or self._file is not None or not self._early:
            return first if self._is_cut else max(0, first)
        base = self._decoder.header.time_base
        sound = self._early[0].pts * self.format.time_base
        return max(0, min(first, floor(sound / base)))

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


class _Gaps:
    """Time left out of the output; the sound loses whole packets and stays within one of them.
    Ticks are the frames'."""

    def __init__(self, time_base: Fraction) -> None:
        self.ticks = 0
        """Length of all gaps so far, in units of the time base."""
        self._time_base = time_base
        self._last = (Fraction(0), Fraction(0))
        self._before = Fraction(0)  # length of all gaps before the last
        self._dropped = Fraction(0)

    def leave_out(self, start_ticks: int, duration: int) -> None:
        """Leave out a frame, given in order."""
        start = start_ticks * self._time_base
        end = start + duration * self._time_base
        self.ticks += duration
        if start == self._last[1]:
            self._last = (self._last[0], end)
        else:
            self._before += self._last[1] - self._last[0]
            self._last = (start, end)

    def thin(self, packets: Iterable[AudioPacket], base: Fraction) -> Iterator[AudioPacket]:
        """Leave packets out as soon as more time is left out before their end than sound."""
        for packet in packets:
            start, end = self._last
            passed = min(
                max((packet.pts + packet.duration) * base - start, Fraction(0)), end - start
            )
            excess = self._before + passed - self._dropped
            if excess > packet.duration * base / 2:
                self._dropped += packet.duration * base or excess
                continue
            ticks = round(self._dropped / base)
            yield replace(packet, pts=packet.pts - ticks, dts=packet.dts - ticks)
